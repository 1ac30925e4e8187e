"""All that an archive holds, decoded and compared with what was found when it was written."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import xarray as xr

from .dataset import archived_names, level_dataset
from .format import ArchiveError, ArchiveFault, sound
from .reader import Reader

#: By how many units in the last place means may differ: processors round the sums that fields are
#: made of otherwise.
ROUNDING = 8

#: What the table of blocks has of decoded values.
MOMENTS = ("count", "mean", "square")


def verify(reader: Reader, obj: Any = None) -> xr.Dataset:
    """Do what :meth:`xmrcae.archive.archive.Archive.verify` documents."""
    about, store = reader.store.about, reader.store
    data, names = level_dataset(reader), archived_names(about)
    given = None if obj is None else _given(data, names, obj)
    for path in about["checksums"]:
        store.static(path)
    along = [path for path in store.arrays if path.startswith("rows/")]
    ends = [0, *accumulate(reader.lengths)]
    shape = len(names), len(reader.lengths)
    report = {key: np.full((*shape, math.prod(about["lanes"])), np.nan) for key in MOMENTS}
    errors = {key: np.full(shape, np.nan) for key in ("worst", "rmse")}
    for block, (start, end) in enumerate(pairwise(ends)):
        for path in along:
            store.rows(path, block)
        for v, name in enumerate(names):
            for lane in range(math.prod(about["lanes"])):
                for key, value in _moments(reader, v, block, lane).items():
                    report[key][v, block, lane] = value
            if given is not None:
                rows = {} if about["append"] is None else {about["append"]: slice(start, end)}
                found = _errors(data[name].isel(rows), given[name].isel(rows), about, v, block)
                errors["worst"][v, block], errors["rmse"][v, block] = found
    result = xr.Dataset(
        {key: (("variable", "block", "lane"), each) for key, each in report.items()}
    )
    if given is not None:
        result = result.assign({key: (("variable", "block"), each) for key, each in errors.items()})
    return result.assign_coords(variable=("variable", list(map(str, names))))


@sound()
def _moments(reader: Reader, v: int, block: int, lane: int) -> dict[str, float]:
    """Return number, mean and mean square of a block's decoded values, as they were at writing."""
    record = reader.record(v, block, lane)
    fields = reader.fields(v, reader.levels - 1, block, lane, reader.lengths[block])
    values = fields[~np.isnan(fields)].astype(np.float64)
    n = max(1, values.size)
    found = {"count": values.size, "mean": values.sum() / n, "square": (values**2).sum() / n}
    unit = ROUNDING * np.finfo(fields.dtype).eps
    allowed = {
        "count": 0,
        "mean": unit * record["square"] ** 0.5,
        "square": unit * record["square"],
    }
    for key in MOMENTS:
        if not abs(found[key] - record[key]) <= allowed[key]:
            raise ArchiveFault(
                f"block {block}, lane {lane} of {reader.arrays[v]!r} decodes to values whose {key} "
                f"is {found[key]!r}; when they were written it was {record[key]!r}"
            )
    return found


def _given(data: xr.Dataset, names: list[Any], obj: Any) -> dict[Any, xr.DataArray]:
    """Return the variables of the data that were archived, with dimensions in the same order."""
    if isinstance(obj, xr.DataArray):
        obj = obj.to_dataset(name=names[0])
    if missing := [name for name in names if name not in obj.data_vars]:
        raise ValueError(f"the data have no variable {missing[0]!r}, which the archive has")
    try:
        xr.align(data[names], obj[names], join="exact", copy=False)
    except ValueError as error:
        raise ValueError(f"the data are not those of the archive: {error}") from error
    return {name: obj[name].transpose(*data[name].dims) for name in names}


def _errors(
    found: xr.DataArray, given: xr.DataArray, about: dict[str, Any], v: int, block: int
) -> tuple[float, float]:
    """Return the worst and the root-mean-square error of a block; within what was promised."""
    where, bounds = f"block {block} of {found.name!r}", about["variables"][v]
    found, given = found.compute(), given.compute()
    if n := int((found.isnull() != given.isnull()).sum()):
        raise ArchiveError(f"{where} has gaps at {n} other places than the data")
    error = abs(found.variable.astype(np.float64) - given.variable)
    rms = (error**2).mean(about["horizontal"]) ** 0.5
    largest = {"max_error": _largest(error), "rmse": _largest(rms)}
    for key, value in largest.items():
        if bounds[key] is not None and value > bounds[key]:
            raise ArchiveError(
                f"{where} has an error of {value!r}, where {key}={bounds[key]!r} was promised"
            )
    return largest["max_error"], float((error**2).mean() ** 0.5)


def _largest(error: xr.Variable) -> float:
    """Return the largest error; 0 if nothing is known."""
    return float(np.nanmax(error.values, initial=0))
