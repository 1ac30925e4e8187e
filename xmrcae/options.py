"""The options of a fit: one dataclass, checked where it is made."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import xarray as xr

from .option_values import (
    by_value,
    indexers_by_value,
    is_list,
    is_number,
    is_same,
    is_text,
    to_plain,
)

CHOICES: dict[str, tuple[Any, ...]] = {
    "encoder": ("filters", "projection"),
    "widening": ("residual", "parallel"),
    "restriction": ("full_weighting", "injection"),
    "solver": ("lbfgs", "adam"),
    "activation": (None, "relu"),
    "center": (True, False, "month"),
    "scale": ("std", "minmax", None),
    "fill": (0, "harmonic"),
    "gaps": (None, "mask", "mean"),
    "periodic": (None, True, False),
}

#: Defaults that differ between solvers.
SOLVERS: dict[str, dict[str, float]] = {
    "lbfgs": {"max_epochs": 150, "min_decrease": 1e-2, "learning_rate": 1.0, "adam_eps": 1e-3, "weight_decay": 0.0,
              "noise": 0.0},
    "adam": {"max_epochs": 5000, "min_decrease": 1e-3, "learning_rate": 1e-3, "adam_eps": 1e-3, "weight_decay": 1e-5,
             "noise": 0.01},
}  # fmt: skip


def default_channels() -> list[list[int]]:
    """Four groups of one filter."""
    return [[1, 1, 1, 1]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of :class:`xmrcae.MrCAE`, whose docstring has their part of this one.

    They are taken by value: scalars of NumPy, 0-d arrays and 0-d DataArrays are numbers, 1-D ones
    are lists, and lazy ones are computed once.

    Parameters
    ----------
    levels : int, optional
        Number of resolutions. By default as many as leave 4 bottleneck cells in the shorter direction, 4 at most.
    channels : list of list of int, default [[1, 1, 1, 1]]
        Filters of each group after the deepening: one list a level, or one for all.
    tolerance : float, sequence, mapping or None, default 0.1 of the data's rms about its centre
        Rms error over time, in the data's units, that counts as resolved: one number, one a level, or a mapping from
        variables to those. None: no masks, all groups act everywhere.
    encoding_size : int, optional
        Instead of a tolerance: the most numbers per snapshot over all levels. With ``encoder="projection"``, cells of
        all levels compete for them by what they gain.
    encoder : {"filters", "projection"}
        "projection": codes of the least squared error, by a sparse factorisation.
    widening : {"residual", "parallel"}
        Whether a group reads what its level has not yet reconstructed, or the level's input, as in the paper (2.2).
    restriction : {"full_weighting", "injection"}
        How a level follows from the next finer one.
    dilation : int, default 1
        Cells by which a refinement mask is widened.
    anchor : float, default 0.5
        Weight of the coarser levels' mean losses while a finer level trains; 0 is the paper's.
    omega : float, default 0.5
        Weight of the mean in the loss (3.1); the rest goes to the largest error of a pixel.
    solver : {"lbfgs", "adam"}
        "adam" is the authors'.
    max_epochs, min_decrease, learning_rate, adam_eps, weight_decay, noise : float, default by the solver
        Most epochs of a stage, the least relative decrease in ten epochs that lets it go on, and how it trains.
    activation : {None, "relu"}
        "relu" for comparison with other networks.
    center : {True, "month", False}
        Remove each pixel's time mean, its monthly climatology, or nothing.
    scale : {"std", "minmax", None}
        What each variable is divided by: one number.
    weights : {None, "area"} or xarray.DataArray
        Weights of the means; "area" is the cosine of latitude.
    fill : {0, "harmonic"}
        What stands on land under the filters, after centring and scaling.
    valid : xarray.DataArray or str, optional
        Pixels to describe, True or 1; or the name of a variable or coordinate of the data that says so.
    land_value : float, optional
        Instead of `valid`: the value that land holds at all times, in the data's own type. Where
        it stands at some times only, it is a missing value.
    gaps : {None, "mask", "mean"}
        What happens to pixels missing at some times only: an error, land, or filled with their mean.
    periodic : bool, optional
        Whether x wraps; found for a longitude around the globe.
    horizontal : (str, str), optional
        Names of the dimensions (y, x), where CF attributes do not tell.
    sample : str or list of str, optional
        Names of the dimensions that snapshots lie along, where CF attributes do not tell.
    split : (float, float, float), "blocks" or three indexers, default (0.7, 0.2, 0.1)
        Training, validation and test: at random, contiguous, or as told.
    energy : float, default 0.01
        Variance, as share of the least tolerance squared, that training may leave out.
    sketch : int, optional
        Train on so many singular vectors, and as many random combinations of the rest.
    memory : float, optional
        Bytes that a fit may use, beside what the libraries themselves take; by default half of what is free.
    device : str, default "auto"
        Where to train.
    seed : int, default 0
        Of split and start values.
    progress : bool, default True
        Show a progress bar.
    checkpoint : path, optional
        Folder to keep the state in: the same call goes on where a fit was stopped.

    Raises
    ------
    ValueError, TypeError
        Naming the option, what was got and what is allowed.
    """

    levels: int | None = None
    channels: Sequence[Any] = dataclasses.field(default_factory=default_channels)
    tolerance: Any = "default"
    encoding_size: int | None = None
    encoder: str = "filters"
    widening: str = "residual"
    restriction: str = "full_weighting"
    dilation: int = 1
    anchor: float = 0.5
    omega: float = 0.5
    solver: str = "lbfgs"
    max_epochs: int = None  # type: ignore[assignment]
    min_decrease: float = None  # type: ignore[assignment]
    learning_rate: float = None  # type: ignore[assignment]
    adam_eps: float = None  # type: ignore[assignment]
    weight_decay: float = None  # type: ignore[assignment]
    noise: float = None  # type: ignore[assignment]
    activation: str | None = None
    center: bool | str = True
    scale: str | None = "std"
    weights: Any = None
    fill: float | str = 0
    valid: Any = None
    land_value: float | None = None
    gaps: str | None = None
    periodic: bool | None = None
    horizontal: Sequence[str] | None = None
    sample: Any = None
    split: Any = (0.7, 0.2, 0.1)
    energy: float | None = None
    sketch: int | None = None
    memory: float | None = None
    device: str = "auto"
    seed: int = 0
    progress: bool = True
    checkpoint: Any = None

    def __post_init__(self) -> None:
        self._take_values()
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            chosen = [choice for choice in allowed if is_same(value, choice)]
            if not chosen:
                raise ValueError(f"{name}={value!r} is not an option; choose from {allowed}")
            object.__setattr__(self, name, chosen[0])
        for name, default in SOLVERS[self.solver].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        if self.levels is not None:
            _whole("levels", self.levels, least=1)
        for name in ("dilation", "max_epochs", "seed"):
            _whole(name, getattr(self, name), least=0)
        if self.sketch is not None:
            _whole("sketch", self.sketch, least=1)
            if self.activation is not None:
                raise ValueError("sketch combines snapshots, which a network with activation cannot use: leave one out")
        if self.encoder == "projection" and self.activation is not None:
            raise ValueError('encoder="projection" has no filters that an activation could follow: leave one out')
        if not (self.checkpoint is None or isinstance(self.checkpoint, str | os.PathLike)):
            raise TypeError(f"checkpoint={self.checkpoint!r}: the path of a folder")
        for name in ("omega", "min_decrease"):
            _number(name, getattr(self, name), 0, 1)
        for name in ("anchor", "noise", "weight_decay", "learning_rate", "adam_eps"):
            _number(name, getattr(self, name), 0, math.inf)
        for name, least in (("energy", 0.0), ("memory", 1.0), ("land_value", -math.inf)):
            if getattr(self, name) is not None:
                _number(name, getattr(self, name), least, math.inf)
        if not isinstance(self.progress, bool):
            raise TypeError(f"progress={self.progress!r}: True or False")
        if self.scale == "minmax" and self.center is not False:
            raise ValueError('scale="minmax" needs center=False: it maps the data themselves to [0, 1]')
        if self.valid is not None and self.land_value is not None:
            raise ValueError("valid and land_value both say where land is; give one of them")
        if not isinstance(self.device, str):
            raise TypeError(f'device={self.device!r}: "auto", or the name of a device such as "cpu"')
        if not (self.valid is None or isinstance(self.valid, str | xr.DataArray)):
            raise TypeError(
                f"valid={to_plain(self.valid)!r}: a DataArray on the data's grid, or the name of one in the Dataset; "
                "True or 1 where pixels are to be described"
            )
        if not (self.weights is None or isinstance(self.weights, xr.DataArray) or is_text(self.weights, "area")):
            raise ValueError(f'weights={to_plain(self.weights)!r}: None, "area" or a DataArray')
        self._check_dimensions()
        self._check_split()
        self._check_channels()
        self._check_tolerance()

    def _take_values(self) -> None:
        """Replace arrays by the numbers and lists that they hold; arrays on the grid stay."""
        for field in dataclasses.fields(self):
            if field.name not in ("valid", "weights"):
                take = indexers_by_value if field.name == "split" else by_value
                object.__setattr__(self, field.name, take(getattr(self, field.name)))

    def _check_dimensions(self) -> None:
        pair, sample = self.horizontal, self.sample
        if pair is not None and not (is_list(pair) and len(pair) == 2 and pair[0] != pair[1]):
            raise ValueError(f'horizontal={pair!r}: the names of two dimensions, such as ("lat", "lon")')
        if not (sample is None or isinstance(sample, str) or (is_list(sample) and len(sample))):
            raise TypeError(
                f'sample={sample!r}: the name of a dimension, or a list of names such as ["time", "member"]'
            )

    def _check_split(self) -> None:
        split = self.split
        if is_text(split, "blocks"):
            return
        parts = list(split) if is_list(split) else []
        fractions = all(is_number(part) for part in parts)
        kinds = slice, xr.DataArray
        indexers = all(isinstance(part, kinds) or np.ndim(part) == 1 for part in parts)
        if len(parts) != 3 or not (fractions or indexers):
            raise ValueError(f'split={to_plain(split)!r}: three fractions, "blocks", or three indexers')
        if fractions and not (min(parts) >= 0 and abs(sum(parts) - 1) <= 1e-6):
            raise ValueError(f"split={to_plain(split)!r}: fractions from 0 to 1 that add up to 1")

    def _check_channels(self) -> None:
        channels = self.channels
        if not is_list(channels) or not len(channels):
            raise TypeError(f"channels={channels!r}: one list of filters a level, such as [[1, 1], [2, 2]]")
        lists = [list(c) if is_list(c) else c for c in channels]
        if all(isinstance(c, Integral) for c in lists):
            lists = [list(lists)]
        for filters in lists:
            if not isinstance(filters, list):
                raise TypeError(f"channels={channels!r}: one list of filters a level, such as [[1, 1], [2, 2]]")
            for n in filters:
                _whole("channels", n, least=1)
        object.__setattr__(self, "channels", [[int(n) for n in filters] for filters in lists])
        if self.levels is not None:
            self.channels_of(self.levels)

    def _check_tolerance(self) -> None:
        if self.encoding_size is not None:
            _whole("encoding_size", self.encoding_size, least=1)
            if not is_text(self.tolerance, "default"):
                raise ValueError("encoding_size and tolerance both say how far to go; give one of them")
        if self.tolerance is None or is_text(self.tolerance, "default"):
            return
        each = list(self.tolerance.values()) if isinstance(self.tolerance, Mapping) else [self.tolerance]
        table = [np.atleast_1d(np.asarray(value, dtype=object)).tolist() for value in each]
        if not all([table, *table]):
            raise ValueError(f"tolerance={self.tolerance!r}: a number, one a level, or a mapping variable -> those")
        for values in table:
            for number in values:
                _number("tolerance", number, 0, math.inf)
            if self.levels is not None and len(values) not in (1, self.levels):
                raise ValueError(
                    f"tolerance has {len(values)} values for {self.levels} levels: give one, or one a level"
                )

    def channels_of(self, levels: int) -> list[list[int]]:
        """Filters of each group, a list a level."""
        if len(self.channels) == 1:
            return [list(self.channels[0]) for _ in range(levels)]
        if len(self.channels) != levels:
            raise ValueError(
                f"channels has {len(self.channels)} lists for {levels} levels: give one list, which serves all levels, "
                "or one a level, coarsest first"
            )
        return [list(filters) for filters in self.channels]

    def epsilons(
        self, levels: int, variables: Sequence[str], rms: np.ndarray, scale: np.ndarray
    ) -> list[np.ndarray] | None:
        """The paper's epsilon for each level and variable: the squared tolerance in scaled units.

        Parameters
        ----------
        levels : int
            Number of levels.
        variables : sequence of str
            Names of the variables.
        rms, scale : numpy.ndarray, shape (variable,)
            Each variable's rms about its centre, and what it is divided by, in its units.
        """
        if self.tolerance is None or self.encoding_size is not None:
            return None
        if isinstance(self.tolerance, Mapping):
            if set(self.tolerance) != set(variables):
                raise ValueError(f"tolerance names {sorted(self.tolerance)}; the variables are {sorted(variables)}")
            table = [self.tolerance[name] for name in variables]
        elif isinstance(self.tolerance, str):
            table = list(0.1 * rms)
        else:
            table = [self.tolerance] * len(variables)
        columns = []
        for value in table:
            column = np.atleast_1d(np.asarray(value, dtype=np.float64))
            if len(column) not in (1, levels):
                raise ValueError(f"tolerance has {len(column)} values for {levels} levels: give one, or one a level")
            columns.append(np.broadcast_to(column, (levels,)))
        return list((np.stack(columns, 1) / scale) ** 2)

    def with_level(self, levels: int) -> dict[str, Any]:
        """The options for one level more than `levels`; arrays on the grid and a checkpoint are left out."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("valid", "weights"):
            if isinstance(options[name], xr.DataArray):
                del options[name]
        if len(self.channels) > 1:
            options["channels"] = [*self.channels, self.channels[-1]]

        def longer(value: Any) -> Any:
            return [*value, value[-1]] if is_list(value) and len(value) > 1 else value

        tolerance = self.tolerance
        is_table = isinstance(tolerance, Mapping)
        options["tolerance"] = {k: longer(v) for k, v in tolerance.items()} if is_table else longer(tolerance)
        return options | {"levels": levels + 1, "checkpoint": None}

    def to_json(self) -> str:
        """Return the options as JSON, but for the checkpoint; arrays on the grid by their shape.

        A slice of `split` is {"slice": [start, stop, step]}, a long list of indices its digest.
        """
        names = [field.name for field in dataclasses.fields(self) if field.name != "checkpoint"]
        return json.dumps({name: to_plain(getattr(self, name)) for name in names})


def shows_options(cls: type) -> type:
    """Give a class that takes these options by keyword their signature and their part of the docstring."""
    if cls.__doc__:  # python -OO leaves docstrings out
        documented = inspect.cleandoc(Options.__doc__ or "")
        options = documented[documented.index("levels :") : documented.index("\n\nRaises")]
        here = "**options\n    Those of `Options`."
        cls.__doc__ = inspect.cleandoc(cls.__doc__).replace(here, options)
    cls.__signature__ = inspect.signature(Options)  # type: ignore[attr-defined]
    return cls


def make_options(options: Mapping[str, Any]) -> Options:
    """Return the options by keyword; an unknown one is an error that names the nearest known."""
    known = [f.name for f in dataclasses.fields(Options)]
    unknown = sorted(set(options) - set(known))
    if unknown:
        nearest = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
        meant = [f"{near[0]} for {name}" for name, near in nearest.items() if near]
        raise TypeError(
            f"unknown option{'s' * (len(unknown) > 1)} {', '.join(unknown)}; "
            + (f"did you mean {', '.join(meant)}? " if meant else "")
            + f"The options are {', '.join(known)}"
        )
    return Options(**options)


def _whole(name: str, value: Any, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r}: a whole number of at least {least}")
    if value < least:
        raise ValueError(f"{name}={value!r}: a whole number of at least {least}")


def _number(name: str, value: Any, low: float, high: float) -> None:
    allowed = f"{name}={value!r}: a finite number"
    allowed += f" from {low:g} to {high:g}" if high < math.inf else f" of at least {low:g}" if low > -math.inf else ""
    if not is_number(value):
        raise TypeError(allowed)
    if not low <= value <= high or not math.isfinite(value):
        raise ValueError(allowed)
