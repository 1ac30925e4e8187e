"""Which snapshots serve for what; centring and scaling; what stands on land and in the padding."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from .land import fill
from .pyramid import Pyramid, restrict_all

PARTS = ("training", "validation", "test")


def split_samples(n_samples: int, split: Any, *, seed: int) -> dict[str, np.ndarray]:
    """Positions of the snapshots for training, validation and test, each ascending.

    Parameters
    ----------
    n_samples : int
        Number of snapshots.
    split : three fractions, "blocks", or three indexers
        As the options have checked it. Fractions are drawn at random; "blocks" takes 70, 20 and 10 percent contiguous
        in time; indexers are positions, booleans or slices, disjoint, of which the last may be empty.
    seed : int
        For the random split.

    Raises
    ------
    ValueError
        If a part that must not be empty is, indexers do not fit, or parts overlap.
    """
    if isinstance(split, str):
        order, split = np.arange(n_samples), (0.7, 0.2, 0.1)
    else:
        order = np.random.default_rng(seed).permutation(n_samples)
    if all(np.ndim(part) == 0 and not isinstance(part, slice) for part in split):
        bounds = np.round(np.cumsum(split[:2]) * n_samples).astype(int)
        parts = np.split(order, bounds)
    else:
        parts = []
        for indexer in split:
            indexer = indexer if isinstance(indexer, slice) else np.asarray(indexer)
            if isinstance(indexer, np.ndarray) and not indexer.size:
                indexer = indexer.astype(int)
            try:
                parts.append(np.arange(n_samples)[indexer].reshape(-1))
            except IndexError as error:
                raise ValueError(f"split: an indexer does not fit {n_samples} snapshots: {error}") from None
        together = np.concatenate(parts)
        if len(np.unique(together)) < len(together):
            raise ValueError("split: the three indexers must be disjoint; some snapshots are in two of them")
    if len(parts[0]) < 2 or len(parts[1]) < 1:
        raise ValueError(
            f"split gives {len(parts[0])} snapshots for training and {len(parts[1])} for validation of {n_samples}; "
            "at least 2 and 1 are needed: bring more snapshots, or other fractions"
        )
    return {name: np.sort(part) for name, part in zip(PARTS, parts, strict=True)}


@dataclass(frozen=True)
class Standard:
    """Centring and scaling: (x - centre) / scale, per variable.

    Attributes
    ----------
    centre : numpy.ndarray, shape (season, variable, y, x)
        Time mean of each pixel, one a calendar month with ``center="month"``; or a constant. In the data's units.
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
        """Snapshots (sample, variable, y, x) centred and scaled; NaN where missing, 0 on land."""
        return np.where(self.valid, (values - self._centre(season)) / self._scale(values), values.dtype.type(0))

    def undo(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Back to the data's units; NaN where not valid."""
        result = values * self._scale(values) + self._centre(season)
        return np.where(self.valid, result, values.dtype.type(np.nan))

    def stand_in(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Snapshots with the mean in place of missing values."""
        mean = self._centre(season) if self.monthly else self.mean
        return np.where(np.isfinite(values), values, mean).astype(values.dtype, copy=False)

    def astype(self, dtype: Any) -> Standard:
        """The same in another precision."""
        return replace(self, centre=self.centre.astype(dtype), mean=self.mean.astype(dtype))

    def at_levels(self, pyramid: Pyramid) -> list[Standard]:
        """The same for each level within the data's extent, coarsest first: restriction and scaling commute."""
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


def seasons(time: xr.DataArray | None, n_samples: int, *, center: Any) -> np.ndarray:
    """For each snapshot, which of the centres it departs from: its calendar month, from 0, or always 0."""
    if center != "month":
        return np.zeros(n_samples, dtype=np.int64)
    if time is None:
        raise ValueError('center="month" needs a time coordinate along the sample dimension')
    try:
        return np.asarray(time.dt.month.values, dtype=np.int64).reshape(-1) - 1
    except (AttributeError, TypeError):
        raise ValueError(
            f'center="month" needs dates along {time.name!r}, not {time.dtype}: decode times first'
        ) from None


def complete(values: np.ndarray, has_data: np.ndarray, pyramid: Pyramid, level: int, how: Any) -> np.ndarray:
    """A level with land filled and its padding repeated from the edge."""
    rows = pyramid.y.inside(level)
    columns = slice(None) if pyramid.x.periodic else pyramid.x.inside(level)
    part = (..., rows, columns)
    result = np.zeros_like(values)
    result[part] = fill(values[part], has_data[part], how)
    return pyramid.repeat_edge(result, level)


def free_memory() -> int:
    """Bytes of memory that are free now; 4 GiB where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**32
