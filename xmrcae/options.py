"""The options of a fit: one dataclass, checked where it is made."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from .defaults import SOLVER_OPTIONS, SOLVERS, TOLERANCE, of_size
from .option_values import (
    RANGES,
    SOLVER_RANGES,
    WHOLE,
    as_list,
    by_value,
    check_number,
    is_list,
    is_text,
    per_level,
    to_channels,
    to_choice,
    to_plain,
    to_split,
)
from .paths import located
from .stencils import RESTRICTIONS

CHOICES: dict[str, tuple[Any, ...]] = {
    "encoder": ("auto", "filters", "projection"),
    "widening": ("residual", "parallel"),
    "restriction": tuple(RESTRICTIONS),
    "activation": (None, "relu"),
    "solver": ("lbfgs", "adam"),
    "periodic": (None, True, False),
    "gaps": (None, "mask", "mean"),
    "fill": (0, "harmonic"),
    "center": (True, False, "month"),
    "scale": ("std", "minmax", None),
}

#: Options of version 0.1, and what they are called in `solver_options`.
OLD_NAMES = {"learning_rate": "learning_rate", "weight_decay": "weight_decay", "adam_eps": "eps"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of :class:`xmrcae.MrCAE`, whose docstring repeats the questions and the parameters.

    Each option answers one of five questions:

    - What to fit: `levels`, `channels`, `encoder`, `widening`, `restriction`, `activation`.
    - How far to go: `tolerance`, `encoding_size`, `dilation`, `max_epochs`, `min_decrease`.
    - How to train: `omega`, `anchor`, `solver`, `solver_options`, `noise`, `split`, `seed`,
      `energy`, `sketch`.
    - What the data are like: `horizontal`, `sample`, `periodic`, `valid`, `land_value`, `gaps`,
      `fill`, `center`, `scale`, `weights`.
    - Where to run: `memory`, `device`, `checkpoint`, `progress`.

    Values are taken once, when a model is made: scalars of NumPy, 0-d arrays and DataArrays are
    numbers, 1-D ones are lists, and lazy ones are computed.

    Parameters
    ----------
    levels : int, optional
        Number of resolutions. By default as many as leave 4 bottleneck cells in the shorter
        direction, 4 at most.
    channels : list of list of int, default [[1, 1, 1, 1]], or six ones with `encoding_size`
        Filters of each group added: one list per level, coarsest first, or one list for all.
    encoder : {"auto", "filters", "projection"}
        What finds codes: the paper's filters, or least squares, by a sparse factorisation. "auto"
        projects with `encoding_size` and no activation, unless a snapshot has over 300,000 values
        or the fit goes on from a model with filters.
    widening : {"residual", "parallel"}
        What a group reads: what its level has not yet reconstructed, or the level's input, as in
        the paper (2.2).
    restriction : {"full_weighting", "injection"}
        How a level follows from the next finer one.
    activation : {None, "relu"}
        What follows each filter; "relu" is for comparison with other networks.
    tolerance : float, sequence, mapping or None, default 0.1 of the data's rms about its centre
        Rms error over time, in the data's units, that counts as resolved: one number, one per
        level, or a mapping from variables to those. None: no masks, all groups act everywhere. By
        default cells are added only while an encoding has fewer than half as many numbers as a
        snapshot has values.
    encoding_size : int, optional
        Instead of a tolerance: the most numbers per snapshot over all levels. Under projection
        cells of all levels compete for them by what they gain.
    dilation : int, default 1
        Cells by which a refinement mask is widened.
    max_epochs : int, default 150, or 5000 with "adam"
        Most epochs of a stage; an epoch is one accepted step of the solver.
    min_decrease : float, default 0.01, or 0.001 with "adam"
        Least relative decrease of the loss in ten epochs with which a stage goes on.
    omega : float, default 0.5, or 1 with `encoding_size`
        Weight of the mean in the loss (3.1); the rest goes to the largest error of a pixel.
    anchor : float, default 0.5, or 0 with `encoding_size`
        Weight of the coarser levels' mean losses while a finer level trains; 0 is the paper's.
    solver : {"lbfgs", "adam"}
        What minimises the loss; "adam" is the authors'.
    solver_options : mapping of str to float, optional
        The solver's own: `learning_rate`, by default 1, and `weight_decay`, 0; with "adam" 0.001
        and 1e-5, and `eps`, 0.001.
    noise : float, default 0, or 0.01 with "adam"
        Half-width of the uniform noise that is added to start values of filters.
    split : (float, float, float), "blocks" or three indexers, default (0.7, 0.2, 0.1)
        Training, validation and test: at random, contiguous, or as told.
    seed : int, default 0
        Of split and start values.
    energy : float, default 0.01, or none without a tolerance
        Variance that training may leave out, as share of the least tolerance squared; without a
        tolerance, of the rms about the centre squared.
    sketch : int, optional
        Train on so many singular vectors, and as many random combinations of the rest; by default
        on as many as make half a million numbers on a level, 8 of each at least.
    horizontal : (str, str), optional
        Names of the dimensions (y, x), where CF attributes do not tell.
    sample : str or list of str, optional
        Names of the dimensions that snapshots lie along, where CF attributes do not tell.
    periodic : bool, optional
        Whether x wraps; found for a longitude around the globe.
    valid : xarray.DataArray or str, optional
        Pixels to describe, True or 1; or the name of a variable or coordinate that says so.
    land_value : float, optional
        Instead of `valid`: the value that land holds at all times, in the data's own type. Where
        it stands at some times only, it is a missing value.
    gaps : {None, "mask", "mean"}
        What becomes of pixels missing at some times only: an error, land, or their mean.
    fill : {0, "harmonic"}
        What stands on land under the filters, after centring and scaling.
    center : {True, "month", False}
        Remove each pixel's time mean, its monthly climatology, or nothing.
    scale : {"std", "minmax", None}
        What each variable is divided by: one number.
    weights : {None, "area"} or xarray.DataArray
        Weights of the means; "area" is the cosine of latitude.
    memory : float, optional
        Bytes that a fit may use beside the libraries' own; by default half of what is free.
    device : str, default "auto"
        Where to train: "cpu", or "cuda" for the first NVIDIA GPU that the process sees, which
        "auto" takes where there is one. `memory` is the host's; on a GPU, the size of its own
        decides what lies there.
    checkpoint : path, optional
        Folder to keep the state in: the same call goes on where a fit was stopped.
    progress : bool, default True
        Show a progress bar.

    Raises
    ------
    ValueError, TypeError
        Naming the option, what was got and what is allowed.
    """

    # What to fit
    levels: int | None = None
    channels: Sequence[Any] = None  # type: ignore[assignment]
    encoder: str = "auto"
    widening: str = "residual"
    restriction: str = "full_weighting"
    activation: str | None = None
    # How far to go
    tolerance: Any = "default"
    encoding_size: int | None = None
    dilation: int = 1
    max_epochs: int = None  # type: ignore[assignment]
    min_decrease: float = None  # type: ignore[assignment]
    # How to train
    omega: float = None  # type: ignore[assignment]
    anchor: float = None  # type: ignore[assignment]
    solver: str = "lbfgs"
    solver_options: Mapping[str, float] = None  # type: ignore[assignment]
    noise: float = None  # type: ignore[assignment]
    split: Any = (0.7, 0.2, 0.1)
    seed: int = 0
    energy: float | None = None
    sketch: int | None = None
    # What the data are like
    horizontal: Sequence[str] | None = None
    sample: Any = None
    periodic: bool | None = None
    valid: Any = None
    land_value: float | None = None
    gaps: str | None = None
    fill: float | str = 0
    center: bool | str = True
    scale: str | None = "std"
    weights: Any = None
    # Where to run
    memory: float | None = None
    device: str = "auto"
    checkpoint: Any = None
    progress: bool = True

    def __post_init__(self) -> None:
        arrays = ("valid", "weights", "split")  # not to be turned into lists
        taken = {name: by_value(each) for name, each in vars(self).items() if name not in arrays}
        taken |= {name: to_choice(name, taken[name], allowed) for name, allowed in CHOICES.items()}
        taken |= of_size(taken)
        taken |= {"split": to_split(self.split), "channels": to_channels(taken["channels"])}
        taken |= self._of_solver(taken)
        for name, value in taken.items():
            object.__setattr__(self, name, value)
        for name, (least, greatest) in RANGES.items():
            # None is allowed where it is the default.
            if taken[name] is not None or getattr(Options, name) is not None:
                check_number(name, taken[name], least, greatest, whole=name in WHOLE)
        self._check_types()
        if self.checkpoint is not None:
            object.__setattr__(self, "checkpoint", located(self.checkpoint))
        self._check_counts()
        self._check_agreement()

    @staticmethod
    def _of_solver(taken: Mapping[str, Any]) -> dict[str, Any]:
        """Return what depends on the solver, with its defaults in place of what is missing."""
        solver, given = taken["solver"], taken["solver_options"]
        own = SOLVER_OPTIONS[solver]
        given = {} if given is None else given
        if not isinstance(given, Mapping) or set(given) - set(own):
            allowed = f"a mapping from names to numbers; {solver!r} takes {', '.join(own)}"
            raise TypeError(f"solver_options={given!r}: {allowed}")
        for name, value in given.items():
            check_number(f"solver_options[{name!r}]", value, *SOLVER_RANGES[name])
        found = {name: taken[name] for name in SOLVERS[solver] if taken[name] is not None}
        return SOLVERS[solver] | found | {"solver_options": {**own, **given}}

    def _check_types(self) -> None:
        if not (self.valid is None or isinstance(self.valid, str | xr.DataArray)):
            raise TypeError(
                f"valid={to_plain(self.valid)!r}: a DataArray on the data's grid, or the name of "
                "one in the Dataset; True or 1 where pixels are to be described"
            )
        weights, pair, sample = self.weights, self.horizontal, self.sample
        if not (weights is None or isinstance(weights, xr.DataArray) or is_text(weights, "area")):
            raise ValueError(f'weights={to_plain(weights)!r}: None, "area" or a DataArray')
        if pair is not None and not (is_list(pair) and len(pair) == 2 and pair[0] != pair[1]):
            raise ValueError(f'horizontal={pair!r}: names of two dimensions, as ("lat", "lon")')
        if not (sample is None or isinstance(sample, str) or (is_list(sample) and sample)):
            raise TypeError(f'sample={sample!r}: a name, or a list of names as ["time", "member"]')
        if not isinstance(self.device, str):
            raise TypeError(f'device={self.device!r}: "auto", or a name such as "cpu"')
        if not (self.checkpoint is None or isinstance(self.checkpoint, str | os.PathLike)):
            raise TypeError(f"checkpoint={self.checkpoint!r}: the path of a folder")
        if not isinstance(self.progress, bool):
            raise TypeError(f"progress={self.progress!r}: True or False")

    def _check_counts(self) -> None:
        """Check each tolerance, and that there are as many of them and of channels as levels."""
        if self.levels is not None:
            per_level("channels", self.channels, self.levels)
        given = self.tolerance
        if given is None or is_text(given, "default"):
            return
        each = given.values() if isinstance(given, Mapping) else [given]
        table = [as_list(tolerances) for tolerances in each]
        if not all([table, *table]):
            allowed = "a number, one per level, or a mapping from variables to those"
            raise ValueError(f"tolerance={given!r}: {allowed}")
        for values in table:
            for number in values:
                check_number("tolerance", number, 0)
            if self.levels is not None:
                per_level("tolerance", values, self.levels)

    def _check_agreement(self) -> None:
        """Refuse options that contradict each other."""
        if self.encoding_size is not None and not is_text(self.tolerance, "default"):
            raise ValueError("encoding_size and tolerance both say how far to go; give one")
        if self.valid is not None and self.land_value is not None:
            raise ValueError("valid and land_value both say where land is; give one")
        if self.scale == "minmax" and self.center is not False:
            fix = "needs center=False: it maps the data themselves to [0, 1]"
            raise ValueError(f'scale="minmax" {fix}')
        if self.activation is not None and self.sketch is not None:
            reason = "combines snapshots, which a network with activation cannot use"
            raise ValueError(f"sketch {reason}: leave one out")
        if self.activation is not None and self.encoder == "projection":
            reason = "has no filters that an activation could follow"
            raise ValueError(f'encoder="projection" {reason}: leave one out')

    def channels_of(self, levels: int) -> list[list[int]]:
        """Return the filters of each group, one list per level."""
        return [list(filters) for filters in per_level("channels", self.channels, levels)]

    def epsilons(
        self, levels: int, variables: Sequence[str], rms: np.ndarray, scale: np.ndarray
    ) -> list[np.ndarray] | None:
        """Return the paper's epsilons: squared tolerances in scaled units.

        Parameters
        ----------
        levels : int
            Number of levels.
        variables : sequence of str
            Names of the variables.
        rms, scale : numpy.ndarray, shape (variable,)
            Each variable's rms about its centre, and what it is divided by, in its units.

        Returns
        -------
        list of numpy.ndarray, shape (variable,), or None
            One per level; None without a tolerance.
        """
        given = self.tolerance
        if given is None or self.encoding_size is not None:
            return None
        if isinstance(given, Mapping):
            if set(given) != set(variables):
                names = f"{sorted(given)}; the variables are {sorted(variables)}"
                raise ValueError(f"tolerance names {names}")
            table = [given[name] for name in variables]
        else:
            table = list(TOLERANCE * rms) if isinstance(given, str) else [given] * len(variables)
        columns = [per_level("tolerance", as_list(value), levels) for value in table]
        with np.errstate(over="ignore"):  # an infinite epsilon says that all is resolved
            return list((np.array(columns, np.float64).T / scale) ** 2)

    def with_level(self, levels: int, changes: dict[str, Any]) -> dict[str, Any]:
        """Return these options with changes, for one level more than `levels`.

        The checkpoint, arrays on the grid and the options of another solver are left out.
        """

        def longer(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {name: longer(each) for name, each in value.items()}
            return [*value, value[-1]] if is_list(value) and len(value) > 1 else value

        options = vars(self) | {"levels": levels + 1, "checkpoint": None}
        options |= {name: longer(options[name]) for name in ("channels", "tolerance")}
        reset = [name for name in ("valid", "weights") if isinstance(options[name], xr.DataArray)]
        if changes.get("solver", self.solver) != self.solver:
            reset.append("solver_options")
        return options | dict.fromkeys(reset) | changes

    def to_json(self) -> str:
        """Return the options as JSON, but for the checkpoint; arrays on the grid by their shape.

        A slice of `split` is {"slice": [start, stop, step]}, a long list of indices its digest.
        """
        kept = {name: value for name, value in vars(self).items() if name != "checkpoint"}
        return json.dumps({name: to_plain(value) for name, value in kept.items()})


def shows_options(cls: type) -> type:
    """Give a class that takes these options by keyword their signature and description."""
    if cls.__doc__:  # python -OO leaves docstrings out
        documented = inspect.cleandoc(Options.__doc__ or "")
        options = documented[documented.index("Each option") : documented.index("\n\nRaises")]
        here = "Parameters\n----------\n**options\n    Those of `Options`."
        cls.__doc__ = inspect.cleandoc(cls.__doc__).replace(here, options)
    cls.__signature__ = inspect.signature(Options)  # type: ignore[attr-defined]
    return cls


def make_options(options: Mapping[str, Any]) -> Options:
    """Return the options by keyword; an unknown one is an error that names the nearest known."""
    if old := [name for name in OLD_NAMES if name in options]:
        options = renamed(options)
        warnings.warn(
            f"instead of {', '.join(old)} write solver_options={options['solver_options']}: "
            "the next version refuses the old names",
            FutureWarning,
            stacklevel=3,
        )
    known = [field.name for field in dataclasses.fields(Options)]
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


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with those under old names in `solver_options`.

    None, which stood for the default, and what the solver has no use for are left out.
    """
    known = SOLVER_OPTIONS["adam" if by_value(options.get("solver")) == "adam" else "lbfgs"]
    given = {new: options.get(old) for old, new in OLD_NAMES.items() if new in known}
    own = {name: by_value(value) for name, value in given.items() if value is not None}
    rest = {name: value for name, value in options.items() if name not in OLD_NAMES}
    return rest | {"solver_options": {**(rest.get("solver_options") or {}), **own}}
