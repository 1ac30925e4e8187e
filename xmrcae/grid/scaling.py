"""Centring and scaling."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from ..handover import Array
from ..options import Options
from .pyramid import Pyramid, restrict_all
from .survey import Survey

#: Magnitudes between which float64 holds the sums of squares of all data.
SQUARABLE = 1e-140, 1e140

#: The same for float32, in which networks are trained, in units of the scale.
TRAINABLE = 1e-15, 1e18

#: Share of a variable's variance that may lie at one pixel of many without a warning.
NEARLY_ALL = 0.9


@dataclass(frozen=True)
class Scaling:
    """Centring and scaling: (x - centre) / scale, per variable.

    Its arrays are NumPy's, or tensors that lie where the values do.

    Attributes
    ----------
    centre : numpy.ndarray or Tensor, shape (season, variable, y, x)
        Time mean of each pixel, one per calendar month with ``center="month"``; or a constant. In
        the data's units.
    scale : numpy.ndarray or Tensor, shape (variable,)
        In the data's units.
    mean : numpy.ndarray or Tensor, shape (variable, y, x)
        Training mean, which stands in for a missing value.
    valid : numpy.ndarray or Tensor of bool, shape (variable, y, x)
        Pixels to be described.
    monthly : bool
        Whether `centre` is a monthly climatology.
    fill : {0, "harmonic"}
        What stands on land.
    """

    centre: Array
    scale: Array
    mean: Array
    valid: Array
    monthly: bool
    fill: Any

    def apply(self, values: Array, season: Array) -> Array:
        """Centre and scale snapshots (sample, variable, y, x); NaN where missing, 0 on land."""
        xp = array_namespace(values)
        return xp.where(self.valid, (values - self._centre(season)) / self._scale(values), 0)

    def standardize(self, values: Array, season: Array) -> Array:
        """Centre and scale snapshots, the mean in place of missing values; anything on land."""
        if (~array_namespace(values).isfinite(values) & self.valid).any():
            return self.apply(self.stand_in(values, season), season)
        result = values - self._centre(season)
        result /= self._scale(values)
        return result

    def undo(self, values: Array, season: Array) -> Array:
        """Return to the data's units; NaN where not valid."""
        xp = array_namespace(values)
        result = values * self._scale(values)
        result += xp.where(self.valid, self._centre(season), xp.nan)
        return result

    def stand_in(self, values: Array, season: Array) -> Array:
        """Put the mean in place of missing values of snapshots."""
        xp = array_namespace(values)
        mean = self._centre(season) if self.monthly else self.mean
        return xp.astype(xp.where(xp.isfinite(values), values, mean), values.dtype, copy=False)

    def converted(self, convert: Callable[[np.ndarray], Array]) -> Scaling:
        """Return the same with its arrays converted, to tensors say."""
        arrays = {name: getattr(self, name) for name in ("centre", "scale", "mean", "valid")}
        return replace(self, **{name: convert(each) for name, each in arrays.items()})

    def astype(self, dtype: Any) -> Scaling:
        """Return the same in another precision."""
        return replace(self, centre=self.centre.astype(dtype), mean=self.mean.astype(dtype))

    def rows(self, rows: slice) -> Scaling:
        """Return the same for some rows."""
        centre, mean, valid = (each[..., rows, :] for each in (self.centre, self.mean, self.valid))
        return replace(self, centre=centre, mean=mean, valid=valid)

    def at_levels(self, pyramid: Pyramid) -> list[Scaling]:
        """Return the scaling of each level, coarsest first.

        It is exact, because restriction and scaling commute. Levels are cut to the data's extent.
        """
        has_data = pyramid.pad(self.valid) & pyramid.may_have_data(pyramid.levels - 1)
        fields = pyramid.pad(np.concatenate([self.centre, self.mean[None]]))
        result = []
        for level, (values, has) in enumerate(restrict_all(pyramid, fields, has_data)):
            cut = pyramid.cut(level)
            found = values[cut]
            result.append(replace(self, centre=found[:-1], mean=found[-1], valid=has[cut]))
        return [*result[:-1], self]  # equal to the last one, whose arrays are padded copies

    def _centre(self, season: Array) -> Array:
        return self.centre[season] if self.monthly else self.centre[0]

    def _scale(self, values: Array) -> Array:
        return array_namespace(values).astype(self.scale[:, None, None], values.dtype)


def scaling_of(found: Survey, valid: np.ndarray, options: Options) -> tuple[Scaling, np.ndarray]:
    """Find centring and scaling from training snapshots and valid pixels.

    Returns
    -------
    Scaling
        In float64.
    numpy.ndarray, shape (variable,)
        The rms of the training snapshots about their centre, in the data's units.
    """
    n = found.finite_in_training
    rms = np.array(
        [np.sqrt(s[v].sum() / c[v].sum()) for s, v, c in zip(found.squares, valid, n, strict=True)]
    )
    centre, scale = found.centre, np.ones(len(valid))
    mean = np.where(n > 0, found.total / np.maximum(n, 1), 0)
    if options.scale == "std":
        scale = np.where(rms > 0, rms, 1.0)
    elif options.scale == "minmax":
        least = np.array([a[v].min() for a, v in zip(found.least, valid, strict=True)])
        most = np.array([a[v].max() for a, v in zip(found.most, valid, strict=True)])
        with np.errstate(over="ignore"):
            scale = np.where(most > least, most - least, 1.0).astype(np.float64)
        centre = centre + least[None, :, None, None]
    monthly = options.center == "month"
    centre, mean = np.where(valid, centre, 0), np.where(valid, mean, 0)
    return Scaling(centre, scale, mean, valid, monthly, options.fill), rms


def magnitudes(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the least departure and the largest value with which a type can compute."""
    info = np.finfo(dtype)
    return max(float(info.tiny), SQUARABLE[0]), min(float(info.max) / 32, SQUARABLE[1])


def check_magnitudes(
    found: Survey,
    standard: Scaling,
    rms: np.ndarray,
    variables: Sequence[Any],
    dtype: np.dtype[Any],
) -> None:
    """Refuse data whose squares overflow or vanish; warn where there is little to learn.

    Parameters
    ----------
    found : Survey
        What the first pass has found.
    standard : Scaling
        Valid pixels and scale.
    rms : numpy.ndarray, shape (variable,)
        Of the training snapshots about their centre, in the data's units.
    variables : sequence
        For messages.
    dtype : numpy.dtype
        In which results are computed.

    Raises
    ------
    ValueError
        Naming the variable, its magnitude and what would do.
    """
    least, most = magnitudes(dtype)
    ways = "give them in other units" + (", or as float64" if dtype.itemsize < 8 else "")
    for v, name in enumerate(variables):
        own, what = standard.valid[v], f"the values of {name!r}" if name else "the data"
        lowest, highest = found.least[v][own], found.most[v][own]
        largest = max(abs(float(lowest.min())), abs(float(highest.max())))
        if largest > most:
            raise ValueError(
                f"{what} reach {largest:.2g}: with more than {most:.2g}, sums of squares and "
                f"results overflow in {dtype}; {ways}"
            )
        varies = bool((highest > lowest).any()) and not standard.monthly
        if 0 < largest < least or ((varies or rms[v]) and rms[v] < least):
            raise ValueError(
                f"{what} vary by {rms[v]:.2g} about their centre: under {least:.2g}, squares "
                f"vanish in {dtype}; {ways}"
            )
        if 0 < rms[v] < TRAINABLE[0] * standard.scale[v]:
            raise ValueError(
                f"{what} vary by {rms[v]:.2g} about their centre, with a scale of "
                f'{standard.scale[v]:.2g}: too little to train on; use scale="std", or other units'
            )
        _warn_of_little_to_learn(what, found.squares[v][own])


def _warn_of_little_to_learn(what: str, squares: np.ndarray) -> None:
    """Warn of a variable that does not vary, or at one pixel alone."""
    total, largest = float(squares.sum()), float(squares.max())
    if not total:
        reason = "do not vary about their centre in the training snapshots: results are the centre"
    elif largest > NEARLY_ALL * total and np.count_nonzero(squares) > 1 / (1 - NEARLY_ALL):
        reason = (
            f"have {largest / total:.1%} of their variance at one pixel, of which training will "
            "see little else: look there for a value that stands for a missing one"
        )
    else:
        return
    warnings.warn(f"{what} {reason}", stacklevel=2)


def check_departures(part: str, largest: float) -> None:
    """Refuse snapshots whose departures from the centre, in units of the scale, overflow squared.

    Raises
    ------
    ValueError
        Naming their part.
    """
    if not largest <= TRAINABLE[1]:
        raise ValueError(
            f"the {part} snapshots depart from their centre by {largest:.2g} times the scale: "
            f"with more than {TRAINABLE[1]:.0e}, losses overflow in float32. Correct such values, "
            'or use another scale, as scale="std", or other units'
        )


def check_finite(n: int) -> None:
    """Raise a ValueError if so many values on valid pixels are infinite."""
    if n:
        raise ValueError(f"the data hold {n} infinite values on valid pixels: replace them by NaN")


def largest_departure(products: np.ndarray, scale: np.ndarray) -> float:
    """Return the largest norm of a snapshot, in units of the scale, from products of snapshots.

    `products` are those of a :class:`Survey`, (variable, n, m).
    """
    n, m = products.shape[1:]
    largest = np.abs(products).max((1, 2), initial=0)
    return float(((np.sqrt(largest) if n == m else largest) / scale).max())
