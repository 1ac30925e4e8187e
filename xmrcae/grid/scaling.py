"""Centring and scaling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..options import Options
from .pyramid import Pyramid, restrict_all
from .survey import Survey


@dataclass(frozen=True)
class Scaling:
    """Centring and scaling: (x - centre) / scale, per variable.

    Attributes
    ----------
    centre : numpy.ndarray, shape (season, variable, y, x)
        Time mean of each pixel, one per calendar month with ``center="month"``; or a constant. In
        the data's units.
    scale : numpy.ndarray, shape (variable,)
        In the data's units.
    mean : numpy.ndarray, shape (variable, y, x)
        Training mean, which stands in for a missing value.
    valid : numpy.ndarray of bool, shape (variable, y, x)
        Pixels to be described.
    monthly : bool
        Whether `centre` is a monthly climatology.
    fill : {0, "harmonic"}
        What stands on land.
    """

    centre: np.ndarray
    scale: np.ndarray
    mean: np.ndarray
    valid: np.ndarray
    monthly: bool
    fill: Any

    def apply(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Centre and scale snapshots (sample, variable, y, x); NaN where missing, 0 on land."""
        return np.where(
            self.valid, (values - self._centre(season)) / self._scale(values), values.dtype.type(0)
        )

    def undo(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Return to the data's units; NaN where not valid."""
        result = values * self._scale(values) + self._centre(season)
        return np.where(self.valid, result, values.dtype.type(np.nan))

    def stand_in(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Put the mean in place of missing values of snapshots."""
        mean = self._centre(season) if self.monthly else self.mean
        return np.where(np.isfinite(values), values, mean).astype(values.dtype, copy=False)

    def check_finite(self, values: np.ndarray) -> None:
        """Raise a ValueError if snapshots (sample, variable, y, x) are infinite where valid."""
        infinite = np.isinf(values)
        if infinite.any() and (n := int((infinite & self.valid).sum())):
            raise ValueError(
                f"the data hold {n} infinite values on valid pixels: replace them by NaN"
            )

    def astype(self, dtype: Any) -> Scaling:
        """Return the same in another precision."""
        return replace(self, centre=self.centre.astype(dtype), mean=self.mean.astype(dtype))

    def at_levels(self, pyramid: Pyramid) -> list[Scaling]:
        """Return the scaling of each level, coarsest first.

        It is exact, because restriction and scaling commute. Levels are cut to the data's extent.
        """
        has_data = pyramid.pad(self.valid) & pyramid.may_have_data(pyramid.levels - 1)
        centres = restrict_all(pyramid, pyramid.pad(self.centre), has_data)
        means = restrict_all(pyramid, pyramid.pad(self.mean), has_data)
        result = []
        for level, ((centre, has), (mean, _)) in enumerate(zip(centres, means, strict=True)):
            cut = pyramid.cut(level)
            result.append(replace(self, centre=centre[cut], mean=mean[cut], valid=has[cut]))
        return result

    def _centre(self, season: np.ndarray) -> np.ndarray:
        return self.centre[season] if self.monthly else self.centre[0]

    def _scale(self, values: np.ndarray) -> np.ndarray:
        return self.scale[:, None, None].astype(values.dtype)


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
        scale = np.where(most > least, most - least, 1.0)
        centre = centre + least[None, :, None, None]
    monthly = options.center == "month"
    centre, mean = np.where(valid, centre, 0), np.where(valid, mean, 0)
    return Scaling(centre, scale, mean, valid, monthly, options.fill), rms
