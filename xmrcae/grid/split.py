"""Which snapshots serve for training, validation and test; the time of each, and its month."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from .conventions import coords_along
from .valid import counted

PARTS = ("training", "validation", "test")

#: Shares of the snapshots in blocks of time.
BLOCKS = (0.7, 0.2, 0.1)

#: Names of the time since the start of a forecast, beside those that contain "lead".
LEADS = ("step", "forecast_period")

#: What to do where a coordinate tells the start of a forecast instead of its time.
ASK_FOR_TIME = (
    'give each snapshot its own, start plus lead, as the coordinate "valid_time", '
    "with .assign_coords(valid_time=...)"
)


def split_samples(samples: xr.DataArray, split: Any, *, seed: int) -> dict[str, np.ndarray]:
    """Return positions of the snapshots for training, validation and test, each ascending.

    Parameters
    ----------
    samples : xarray.DataArray
        The position of every snapshot, over the sample dimensions and with their coordinates.
    split : three fractions, "blocks", or three indexers
        As the options have checked it. Fractions are drawn at random; "blocks" takes 70, 20 and
        10 percent of the times, in their order, all snapshots of a time together; indexers are
        positions, booleans or slices, dates as `sel` takes them, or booleans with labels, which
        are aligned by them; disjoint, and the last may be empty.
    seed : int
        For the random split.

    Raises
    ------
    ValueError
        If a part that must not be empty is, indexers do not fit, or parts overlap; for "blocks",
        if times are missing.
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
            raise ValueError(
                "split: the three indexers must be disjoint; some snapshots are in two of them"
            )
    if n_samples < 3:
        raise ValueError(
            f"the data have {counted(n_samples, 'time')}: at least 3 are needed, 2 for training "
            "and 1 for validation"
        )
    if len(parts[0]) < 2 or len(parts[1]) < 1:
        raise ValueError(
            f"split gives {len(parts[0])} snapshots for training and {len(parts[1])} for "
            f"validation of {n_samples}; at least 2 and 1 are needed: bring more snapshots, or "
            "other fractions or indexers, in which whole numbers are positions, from 0"
        )
    return {name: np.sort(part) for name, part in zip(PARTS, parts, strict=True)}


def _in_blocks(samples: xr.DataArray) -> list[np.ndarray]:
    """Cut parts contiguous in time; in the order of the snapshots where no times are known."""
    coords = samples.coords.to_dataset()
    time = time_of(coords, samples.dims)
    times = np.arange(samples.size)
    if time is not None and time.dtype.kind in "iufmMO":
        _check_tells_time(time, coords, dict(samples.sizes), 'split="blocks"')
        times = _over_samples(time, samples.dims, samples.shape).values
        _check_known(times, 'split="blocks"')
    distinct, position = np.unique(times, return_inverse=True)
    bounds = np.round(np.cumsum(BLOCKS[:2]) * len(distinct)).astype(int)
    part = np.searchsorted(bounds, position.reshape(-1), side="right")
    return [np.flatnonzero(part == k) for k in range(len(BLOCKS))]


def _positions(indexer: Any, samples: xr.DataArray) -> np.ndarray:
    """Return what an indexer of `isel`, over all snapshots, or of `sel`, by dates, takes."""
    is_slice = isinstance(indexer, slice)
    bounds = [indexer.start, indexer.stop] if is_slice else list(np.asarray(indexer).ravel())
    try:
        if isinstance(indexer, xr.DataArray):
            return _flagged(indexer, samples)
        if all(bound is None or isinstance(bound, Integral | np.bool_) for bound in bounds):
            at = indexer if is_slice else np.asarray(indexer, dtype=None if bounds else int)
            return np.arange(samples.size)[at].reshape(-1)
        return _dated(indexer, samples)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"split: the indexer {_shown(indexer)} does not fit {samples.size} snapshots: {error}"
        ) from None


def _dated(indexer: Any, samples: xr.DataArray) -> np.ndarray:
    """Return the snapshots that `sel` takes by dates; a slice needs them in order."""
    dates = pd.DatetimeIndex | xr.CFTimeIndex
    dated = [dim for dim in samples.dims if isinstance(samples.indexes.get(dim), dates)]
    if len(dated) != 1:
        raise KeyError(f"dates need one sample dimension with dates; there are {dated or 'none'}")
    dim = dated[0]
    if not isinstance(indexer, slice):
        return samples.sel({dim: np.asarray(indexer)}).values.reshape(-1)
    in_order = samples.indexes[dim].is_monotonic_increasing
    try:
        found = samples.sel({dim: indexer}).values.reshape(-1)
    except (KeyError, TypeError, ValueError):
        if in_order:
            raise
        found = np.empty(0, dtype=np.int64)
    if not (in_order or len(found)):
        raise ValueError(f"times along {dim!r} do not ascend: sort them first, .sortby({dim!r})")
    return found


def _flagged(flags: xr.DataArray, samples: xr.DataArray) -> np.ndarray:
    """Return the snapshots where booleans over some sample dimensions are True, by labels."""
    unlabelled = set()
    for dim in flags.dims:
        if dim not in samples.dims:
            raise ValueError(
                f"snapshots lie along {', '.join(map(str, samples.dims))}, not {dim!r}"
            )
        if flags.sizes[dim] != samples.sizes[dim]:
            raise ValueError(f"it has {flags.sizes[dim]} values along {dim!r}")
        own, given = samples.indexes.get(dim), flags.indexes.get(dim)
        if own is None or given is None:
            unlabelled.add(dim)
        elif not own.equals(given):
            at = given.get_indexer(own) if own.is_unique and given.is_unique else np.array([-1])
            if (at < 0).any():
                raise ValueError(f"its labels along {dim!r} are not those of the snapshots")
            flags = flags.isel({dim: at})
    for name, given in flags.coords.items():
        own = samples.coords.get(name)
        if own is None or not unlabelled.intersection(given.dims):
            continue
        if not given.variable.broadcast_equals(own.variable):
            raise ValueError(f"its coordinate {name!r} is not that of the snapshots")
    return np.flatnonzero(flags.variable.set_dims(dict(samples.sizes)).values)


def _shown(indexer: Any) -> str:
    """Show an indexer in a line: of many values the first and the last."""
    if isinstance(indexer, slice):
        return repr(indexer)
    values = np.asarray(indexer)
    with np.printoptions(threshold=6, edgeitems=2, linewidth=10_000):
        return repr(values.ravel())


def time_of(coords: xr.Dataset, sample: Sequence[Any], *, name: Any = None) -> xr.DataArray | None:
    """Find the coordinate that tells the time of each snapshot; None if there is none.

    One that varies along the snapshots comes before a scalar, and the start of a forecast last.

    Parameters
    ----------
    coords : xarray.Dataset
        Coordinates of the snapshots.
    sample : sequence of str
        The dimensions that they lie along.
    name : str, optional
        That of the fitted data. Without it, the index of the only sample dimension will do.
    """
    along = coords_along(coords, sample).coords
    axes = [each for each in coords.cf.axes.get("T", []) if each in along]
    axes = [each for each in axes if not _is_start(coords[each])] or axes
    names = ["valid_time", name, *coords.cf.standard_names.get("time", []), "time"]
    names += axes if len(axes) == 1 else []
    names += sample if name is None and len(sample) == 1 else []
    found = [coords[each] for each in names if each in along]
    return min(found, key=lambda c: (all(n == 1 for n in c.shape), _is_start(c)), default=None)


def _is_start(time: xr.DataArray) -> bool:
    return time.attrs.get("standard_name") == "forecast_reference_time"


def _check_tells_time(
    time: xr.DataArray, coords: xr.Dataset, sizes: dict[Any, int], option: str
) -> None:
    """Refuse the start of a forecast in place of the time of each snapshot."""
    if _is_start(time):
        raise ValueError(
            f"{option} needs the time of each snapshot, and {time.name!r} is that of the start of "
            f"a forecast, by its standard_name: {ASK_FOR_TIME}"
        )
    if time.name == "valid_time":
        return
    leads = [
        c.dims
        for c in coords.coords.values()
        if c.dtype.kind == "m" or c.attrs.get("standard_name") == "forecast_period"
    ]
    for dim in (dim for dim, n in sizes.items() if n > 1 and dim not in time.dims):
        if (dim,) in leads or str(dim) in LEADS or "lead" in str(dim):
            raise ValueError(
                f"{option} needs the time of each snapshot, and {time.name!r} is the same all "
                f"along {dim!r}, which seems to be the time since the start of a forecast: "
                f"{ASK_FOR_TIME}"
            )


def months(
    coords: xr.Dataset,
    sample: Sequence[Any],
    shape: Sequence[int],
    *,
    name: Any = None,
    known: np.ndarray | None = None,
) -> np.ndarray | da.Array:
    """Return the calendar month of each snapshot, from 0, (sample,); lazy if the times are.

    Parameters
    ----------
    coords, sample, name
        As for `time_of`.
    shape : sequence of int
        Sizes of the sample dimensions.
    known : numpy.ndarray of int, optional
        The months that there may be; all by default.

    Raises
    ------
    ValueError
        If no coordinate tells the times, or it tells the starts of forecasts or holds no dates, or
        some are missing or of a month that is not known (lazily: when computed).
    """
    time = time_of(coords, sample, name=name)
    if time is None:
        along = ", ".join(map(str, sample)) or "the data"
        added = f"({sample[0]!r}, dates)" if len(sample) else "date"
        raise ValueError(
            'center="month" needs the time of each snapshot: no coordinate '
            f"{name or 'time'!r} along {along}; add it, with .assign_coords(time={added}), of "
            "any year for a climatology, or rename the one that holds it"
        )
    _check_tells_time(time, coords, dict(zip(sample, shape, strict=True)), 'center="month"')
    if time.dtype.kind not in "MO":
        raise ValueError(
            f'center="month" needs dates along {time.name!r}, not {time.dtype}: decode times '
            'first, or add the date of each snapshot as the coordinate "valid_time"'
        )
    times = _over_samples(time, sample, shape).data
    if isinstance(times, da.Array):
        meta = np.empty(0, np.int64)
        return da.map_blocks(_months, times, dtype=np.int64, meta=meta, known=known)
    return _months(times, known=known)


def _months(times: np.ndarray, *, known: np.ndarray | None) -> np.ndarray:
    _check_known(times, 'center="month"')
    if times.dtype.kind == "M":
        found = times.astype("datetime64[M]").astype(np.int64) % 12
    else:
        try:
            found = np.array([date.month for date in times], dtype=np.int64) - 1
        except AttributeError:
            raise ValueError(
                f'center="month" needs dates, not {times[0]!r}: decode times first'
            ) from None
    if known is not None and not np.isin(found, known).all():
        other = np.setdiff1d(found, known) + 1
        raise ValueError(
            'center="month" knows the climatology of the fitted months alone, '
            f"{', '.join(map(str, known + 1))}, and there are snapshots of month "
            f"{', '.join(map(str, other))}: leave them out, or fit a model to data with all months"
        )
    return found


def _check_known(times: np.ndarray, option: str) -> None:
    missing = int(pd.isnull(times).sum())
    if missing:
        raise ValueError(
            f"{option} needs the time of each snapshot: {missing} of {len(times)} are "
            "missing times (NaT); drop these snapshots, or fill in their times"
        )


def _over_samples(
    coordinate: xr.DataArray, sample: Sequence[Any], shape: Sequence[int]
) -> xr.Variable:
    """Return a coordinate along some sample dimensions, in any order, at each snapshot."""
    sizes = dict(zip(sample, shape, strict=True))
    whole = coordinate.variable.set_dims(sizes).transpose(*sizes)
    return xr.Variable(("snapshot",), whole.data.reshape(-1))
