"""Split, centring and scaling, and the compressed training set.

The network is affine, so time-mean squared errors of T snapshots are exactly those of their mean, with bias, and of
the left singular vectors times singular values of their departures from it, without. Every sum runs over blocks whose
bounds depend on the sizes alone, so that chunks, order and orientation of the data change no bit.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed

from ..levels import LevelData
from .land import fill
from .pyramid import Pyramid, restrict_all

#: Bytes, in float64, of the block of pixels, with all its snapshots, that one task looks at.
PIXEL_BLOCK_BYTES = 2**26

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
class Survey:
    """What one look at the archive tells of each pixel; arrays are (variable, y, x) but for `centre`."""

    finite: np.ndarray
    infinite: np.ndarray
    finite_in_training: np.ndarray
    is_land: np.ndarray
    centre: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    least: np.ndarray
    most: np.ndarray


def pixel_blocks(shape: tuple[int, ...]) -> list[slice]:
    """Bands of rows that depend on the sizes alone."""
    rows = max(1, PIXEL_BLOCK_BYTES // max(1, 8 * shape[0] * shape[1] * shape[3]))
    return [slice(i, min(i + rows, shape[2])) for i in range(0, shape[2], rows)]


def _over_blocks(function: Any, array: da.Array, *per_pixel: np.ndarray, **kwargs: Any) -> list[Any]:
    """Apply a function to each band of rows of all snapshots; lazy, one task a band."""
    task = delayed(function)
    return [
        task(array[:, :, rows], *(p[..., rows, :] for p in per_pixel), **kwargs) for rows in pixel_blocks(array.shape)
    ]


def survey(
    array: da.Array, training: np.ndarray, season: np.ndarray, *, center: Any, land_value: float | None
) -> Survey:
    """Look at every pixel once: missing and infinite values, centre and spread over the training snapshots."""
    bands = compute(
        _over_blocks(_survey_band, array, training=training, season=season, center=center, land_value=land_value)
    )[0]
    return Survey(*(np.concatenate(arrays, axis=-2) for arrays in zip(*bands, strict=True)))


def _survey_band(
    band: np.ndarray, *, training: np.ndarray, season: np.ndarray, center: Any, land_value: float | None
) -> tuple[np.ndarray, ...]:
    band = np.ascontiguousarray(band)
    finite = np.isfinite(band)
    infinite = np.isinf(band).sum(0)
    is_land = np.zeros(band.shape[1:], bool) if land_value is None else ((band == land_value) | np.isnan(band)).all(0)
    trained, known = band[training].astype(np.float64), finite[training]
    trained[~known] = 0
    seasons = season[training]
    centre = np.zeros((int(season.max()) + 1, *band.shape[1:]))
    if center is not False:
        overall = trained.sum(0) / np.maximum(known.sum(0), 1)
        for index in range(len(centre)):
            at = seasons == index
            n = known[at].sum(0)
            centre[index] = np.where(n > 0, trained[at].sum(0) / np.maximum(n, 1), overall)
    departure = np.where(known, trained - centre[seasons], 0)
    squares = (departure**2).sum(0)
    least = np.where(known, trained, np.inf).min(0)
    most = np.where(known, trained, -np.inf).max(0)
    return finite.sum(0), infinite, known.sum(0), is_land, centre, trained.sum(0), squares, least, most


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


def compress(
    array: da.Array, samples: np.ndarray, season: np.ndarray, standard: Standard, *, tail: np.ndarray | None, most: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean and scaled left singular vectors of some snapshots, centred and scaled.

    Parameters
    ----------
    array : dask.array.Array, shape (sample, variable, y, x)
        All snapshots.
    samples, season : numpy.ndarray
        Which of them, and the centre of each of all.
    standard : Standard
        Centring and scaling.
    tail : numpy.ndarray, shape (variable,), or None
        Training may leave out trailing vectors while their variance is under this at every pixel.
    most : int
        The most vectors to keep; a warning says what variance is lost if there are more.

    Returns
    -------
    samples : numpy.ndarray, shape (1 + r, variable, y, x)
        sqrt(T) times the mean, then the singular vectors times singular values.
    one : numpy.ndarray, shape (1 + r,)
        sqrt(T), then zeros.
    rank : int
        How many of these training needs.
    """
    arguments = {"samples": samples, "season": season, "fields": (standard.scale, standard.fill, standard.monthly)}
    per_pixel = (standard.centre, standard.mean, standard.valid)
    gram = compute(_tree_sum(_over_blocks(_gram_band, array, *per_pixel, **arguments)))[0]
    values, vectors = np.linalg.eigh(gram)
    modes = np.flatnonzero(values > values[-1] * 1e-14)[::-1]
    keep, lost = modes[:most], values[modes[most:]].sum() / max(values.sum(), 1e-300)
    if len(modes) > most:
        warnings.warn(
            f"memory has room for {most} of the {len(modes)} modes of {len(samples)} snapshots, which leaves out "
            f"{lost:.2g} of their variance: allow more with memory=",
            stacklevel=3,
        )
    bands = compute(_over_blocks(_project_band, array, *per_pixel, vectors=vectors[:, keep].T.copy(), **arguments))[0]
    result = np.concatenate(bands, axis=-2)
    n = len(samples)
    one = np.zeros(len(result))
    one[0] = np.sqrt(n)
    rank = len(result)
    if tail is not None and rank > 1:
        variance = (result[1:].astype(np.float64) ** 2)[::-1].cumsum(0)[::-1].max((2, 3)) / n  # of this vector and on
        rank = 1 + int((variance > tail).any(1).sum())
    return result, one, rank


def plain(
    array: da.Array, samples: np.ndarray, season: np.ndarray, standard: Standard
) -> tuple[np.ndarray, np.ndarray, int]:
    """The snapshots themselves, centred and scaled, in the form of `compress`, for a network with activations."""
    values = array[samples].compute()
    values = standard.apply(standard.stand_in(values, season[samples]), season[samples])
    return values.astype(np.float32), np.ones(len(samples)), len(samples)


def _standardized(
    band: np.ndarray, centre: np.ndarray, mean: np.ndarray, valid: np.ndarray, samples: np.ndarray, season: np.ndarray,
    fields: tuple[Any, ...],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    scale, how, monthly = fields
    standard = Standard(centre, scale, mean, valid, monthly, how)
    band = np.ascontiguousarray(band[samples]).astype(np.float64)
    band = standard.apply(standard.stand_in(band, season[samples]), season[samples])
    average = band.mean(0)
    return average, band - average


def _gram_band(band: np.ndarray, centre: np.ndarray, mean: np.ndarray, valid: np.ndarray, **kwargs: Any) -> np.ndarray:
    _, departure = _standardized(band, centre, mean, valid, **kwargs)
    flat = np.ascontiguousarray(departure[:, valid])
    return flat @ flat.T


def _project_band(
    band: np.ndarray, centre: np.ndarray, mean: np.ndarray, valid: np.ndarray, *, vectors: np.ndarray, **kwargs: Any
) -> np.ndarray:
    average, departure = _standardized(band, centre, mean, valid, **kwargs)
    result = np.zeros((1 + len(vectors), *average.shape), dtype=np.float32)
    result[0] = average * np.sqrt(departure.shape[0])
    result[1:, valid] = vectors @ np.ascontiguousarray(departure[:, valid])
    return result


def _tree_sum(parts: Sequence[Any]) -> Any:
    """Sum in an order that depends on the number of parts alone."""
    parts = list(parts)
    add = delayed(np.add)
    while len(parts) > 1:
        parts = [add(*parts[i : i + 2]) if i + 1 < len(parts) else parts[i] for i in range(0, len(parts), 2)]
    return parts[0]


def level_data(
    samples: np.ndarray, one: np.ndarray, rank: int, pyramid: Pyramid, standard: Standard, weights: np.ndarray,
    share: np.ndarray,
) -> list[LevelData]:  # fmt: skip
    """The samples on every level: padded, restricted, filled.

    Parameters
    ----------
    samples, one, rank
        As `compress` gives them, or plain snapshots with ones.
    pyramid : Pyramid
        The levels.
    standard : Standard
        Whose valid pixels and fill to use.
    weights : numpy.ndarray, shape (y, x)
        Weight of each pixel in the means; coarse levels take that of their own points.
    share : numpy.ndarray, shape (variable, y, x)
        Share of training times at which each pixel holds a value.
    """
    finest = pyramid.levels - 1
    has_data = pyramid.pad(standard.valid) & pyramid.may_have_data(finest)
    shares = restrict_all(pyramid, pyramid.pad(share), has_data)
    result = []
    for level, (values, has) in enumerate(restrict_all(pyramid, pyramid.pad(samples), has_data)):
        counts = np.zeros_like(has)
        counts[pyramid.cut(level)] = has[pyramid.cut(level)]
        weight = np.zeros(has.shape)
        weight[pyramid.cut(level)] = weights[
            pyramid.y.positions(level)[pyramid.y.inside(level)][:, None],
            pyramid.x.positions(level)[pyramid.x.inside(level)],
        ]
        completed = complete(values, has, pyramid, level, standard.fill)
        result.append(LevelData(completed, one, has, counts, weight * shares[level][0], rank))
    return result


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
