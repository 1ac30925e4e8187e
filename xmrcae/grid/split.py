"""Which snapshots serve for training, validation and test; the time of each, and its month."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

PARTS = ("training", "validation", "test")

#: Shares of the snapshots in blocks of time.
BLOCKS = (0.7, 0.2, 0.1)


def split_samples(samples: xr.DataArray, split: Any, *, seed: int) -> dict[str, np.ndarray]:
    """Positions of the snapshots for training, validation and test, each ascending.

    Parameters
    ----------
    samples : xarray.DataArray
        The position of every snapshot, over the sample dimensions and with their coordinates.
    split : three fractions, "blocks", or three indexers
        As the options have checked it. Fractions are drawn at random; "blocks" takes 70, 20 and 10 percent of the
        times, in their order, all snapshots of a time together; indexers are positions, booleans or slices, or dates
        as `sel` takes them, disjoint, of which the last may be empty.
    seed : int
        For the random split.

    Raises
    ------
    ValueError
        If a part that must not be empty is, indexers do not fit, or parts overlap; for "blocks", if times are missing.
    """
    n_samples = samples.size
    if isinstance(split, str):
        parts = _in_blocks(samples)
    elif all(np.ndim(part) == 0 and not isinstance(part, slice) for part in split):
        order = np.random.default_rng(seed).permutation(n_samples)
        parts = np.split(order, np.round(np.cumsum(split[:2]) * n_samples).astype(int))
    else:
        parts = [_positions(indexer, samples) for indexer in split]
        together = np.concatenate(parts)
        if len(np.unique(together)) < len(together):
            raise ValueError("split: the three indexers must be disjoint; some snapshots are in two of them")
    if len(parts[0]) < 2 or len(parts[1]) < 1:
        raise ValueError(
            f"split gives {len(parts[0])} snapshots for training and {len(parts[1])} for validation of {n_samples}; "
            "at least 2 and 1 are needed: bring more snapshots, or other fractions"
        )
    return {name: np.sort(part) for name, part in zip(PARTS, parts, strict=True)}


def _in_blocks(samples: xr.DataArray) -> list[np.ndarray]:
    """Parts that are contiguous in time; in the order of the snapshots where nothing tells their times."""
    time = time_of(samples.coords.to_dataset(), samples.dims)
    times = np.arange(samples.size)
    if time is not None and time.dtype.kind in "iufMO":
        times = _over_samples(time, samples.dims, samples.shape).values
        _check_known(times, 'split="blocks"')
    distinct, position = np.unique(times, return_inverse=True)
    bounds = np.round(np.cumsum(BLOCKS[:2]) * len(distinct)).astype(int)
    part = np.searchsorted(bounds, position.reshape(-1), side="right")
    return [np.flatnonzero(part == k) for k in range(len(BLOCKS))]


def _positions(indexer: Any, samples: xr.DataArray) -> np.ndarray:
    """What an indexer of `isel`, over all snapshots in a row, or of `sel`, by dates, takes."""
    bounds = [indexer.start, indexer.stop] if isinstance(indexer, slice) else list(np.asarray(indexer).ravel())
    try:
        if all(bound is None or isinstance(bound, Integral | np.bool_) for bound in bounds):
            at = indexer if isinstance(indexer, slice) else np.asarray(indexer, dtype=None if bounds else int)
            return np.arange(samples.size)[at].reshape(-1)
        dated = [dim for dim in samples.dims if _is_dates(samples.indexes.get(dim))]
        if len(dated) != 1:
            raise KeyError(f"dates need one sample dimension with dates; there are {dated or 'none'}")
        return samples.sel({dated[0]: indexer}).values.reshape(-1)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"split: the indexer {indexer!r} does not fit {samples.size} snapshots: {error}") from None


def _is_dates(index: pd.Index | None) -> bool:
    return isinstance(index, pd.DatetimeIndex | xr.CFTimeIndex)


def time_of(coords: xr.Dataset, sample: Sequence[Any], *, name: Any = None) -> xr.DataArray | None:
    """The coordinate that tells the time of each snapshot; None if there is none.

    Parameters
    ----------
    coords : xarray.Dataset
        Coordinates of the snapshots.
    sample : sequence of str
        The dimensions that they lie along.
    name : str, optional
        That of the fitted data. Without it, the index of the only sample dimension will do.
    """
    standard = coords.cf.standard_names.get("time", [])
    names = ["valid_time", name, *standard, "time"]
    if name is None:
        names += [*coords.cf.axes.get("T", []), *(sample if len(sample) == 1 else ())]
    for each in names:
        if each in coords.coords and set(coords[each].dims) <= set(sample):
            return coords[each]
    return None


def months(
    coords: xr.Dataset, sample: Sequence[Any], shape: Sequence[int], *, name: Any = None
) -> np.ndarray | da.Array:
    """The calendar month of each snapshot, from 0, (sample,); lazy if the times are.

    Parameters
    ----------
    coords, sample, name
        As for `time_of`.
    shape : sequence of int
        Sizes of the sample dimensions.

    Raises
    ------
    ValueError
        If no coordinate tells the times, or it holds no dates, or some are missing (lazily: when computed).
    """
    time = time_of(coords, sample, name=name)
    if time is None:
        along = ", ".join(map(str, sample)) or "the data"
        raise ValueError(
            f'center="month" needs the time of each snapshot: no coordinate {name or "time"!r} along {along}; add it, '
            "or rename the one that holds it"
        )
    if time.dtype.kind not in "MO":
        raise ValueError(f'center="month" needs dates along {time.name!r}, not {time.dtype}: decode times first')
    times = _over_samples(time, sample, shape).data
    if isinstance(times, da.Array):
        return da.map_blocks(_months, times, dtype=np.int64, meta=np.empty(0, np.int64))
    return _months(times)


def _months(times: np.ndarray) -> np.ndarray:
    _check_known(times, 'center="month"')
    if times.dtype.kind == "M":
        return times.astype("datetime64[M]").astype(np.int64) % 12
    try:
        return np.array([date.month for date in times], dtype=np.int64) - 1
    except AttributeError:
        raise ValueError(f'center="month" needs dates, not {times[0]!r}: decode times first') from None


def _check_known(times: np.ndarray, option: str) -> None:
    missing = int(pd.isnull(times).sum())
    if missing:
        raise ValueError(
            f"{option} needs the time of each snapshot: {missing} of {len(times)} are missing times (NaT); drop these "
            "snapshots, or fill in their times"
        )


def _over_samples(coordinate: xr.DataArray, sample: Sequence[Any], shape: Sequence[int]) -> xr.Variable:
    """A coordinate along some of the sample dimensions, in any order, as one value for each snapshot."""
    sizes = dict(zip(sample, shape, strict=True))
    whole = coordinate.variable.set_dims(sizes).transpose(*sizes)
    return xr.Variable(("snapshot",), whole.data.reshape(-1))
