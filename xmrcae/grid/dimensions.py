"""Which dimensions snapshots lie along, which are horizontal, and which variables have both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cf_xarray  # noqa: F401  (registers .cf)
import numpy as np
import pandas as pd
import xarray as xr

from .conventions import Labelled, fields_of, is_geographic

#: Indexes of values that no file can hold; older xarray calls their coordinates objects.
PANDAS_ONLY = pd.PeriodIndex, pd.IntervalIndex, pd.CategoricalIndex

#: Names that codes use themselves.
CODES_OWN = ("channel", "encoding", "feature", "group", "inside", "level")


@dataclass(frozen=True)
class Dimensions:
    """Names of the dimensions that snapshots lie along, and of the two horizontal ones."""

    sample: tuple[str, ...]
    y: str
    x: str


def check_names(names: Iterable[Any]) -> None:
    """Refuse names of dimensions and coordinates that codes could not keep.

    Raises
    ------
    ValueError
        Naming the first, and what to call it.
    """
    for name in names:
        if name in CODES_OWN:
            why, other = "which codes use for themselves", f"{name}_of_data"
        elif "/" in str(name):
            why, other = 'with "/", which a DataTree cannot hold', str(name).replace("/", "_")
        else:
            continue
        raise ValueError(
            f"the data have the name {name!r}, {why}: "
            f"rename it first, with .rename({{{name!r}: {other!r}}})"
        )


def check_text(names: Iterable[Any]) -> None:
    """Refuse names of dimensions, coordinates and variables that are no text.

    Raises
    ------
    ValueError
        Naming the first, and what to call it.
    """
    for name in names:
        if not isinstance(name, str):
            other = "_".join(map(str, name)) if isinstance(name, tuple) else f"name_{name}"
            raise ValueError(
                f"the data have the name {name!r}, which is no text: rename it first, with "
                f".rename, for example to {other!r}"
            )


def find_dimensions(
    obj: Labelled, *, horizontal: Sequence[str] | None = None, sample: Any = None
) -> Dimensions:
    """Find the sample dimension and the two horizontal ones.

    Horizontal are those named; else CF axes X and Y; else 1-D longitude and latitude; else
    cf-xarray's guess by name; else, beside one sample dimension, the two others.

    Raises
    ------
    ValueError
        If none or several are found, another dimension is longer than 1, or a name is no text.
    TypeError
        If a coordinate has a type that only pandas knows.
    """
    names = [field.name for field in fields_of(obj) if field.name is not None]
    check_text([*obj.dims, *obj.coords, *names])
    _check_types(obj)
    dims = [str(dim) for dim in obj.dims]
    shown = ", ".join(f"{dim}: {obj.sizes[dim]}" for dim in dims)
    samples = _find_sample(obj, dims, shown, sample)
    rest = [dim for dim in dims if dim not in samples]
    if horizontal is not None:
        missing = [dim for dim in horizontal if dim not in rest]
        if missing:
            raise ValueError(
                f"horizontal={tuple(horizontal)!r}: no dimension "
                f"{', '.join(map(repr, missing))} among {shown}"
            )
        y, x = horizontal
    else:
        y, x = _find_horizontal(obj, rest, shown)
    others = [dim for dim in rest if dim not in (y, x) and obj.sizes[dim] > 1]
    if others:
        raise ValueError(
            f"besides the horizontal dimensions {y}, {x} and the sample dimension "
            f"{', '.join(samples)} there is {', '.join(others)} ({shown}): select from it, or let "
            f"snapshots lie along it too with sample={[*samples, *others]!r}"
        )
    return Dimensions(samples, y, x)


def _check_types(obj: Labelled) -> None:
    """Refuse coordinates that no file can hold."""
    for name, coord in obj.coords.items():
        index = getattr(obj.xindexes.get(name), "index", None)
        dtype = index.dtype if isinstance(index, PANDAS_ONLY) else coord.dtype
        if not isinstance(dtype, np.dtype):
            raise TypeError(
                f"coordinate {name!r} holds {type(dtype).__name__}, which no file can "
                "hold: give it as numbers, text or times (periods by .to_timestamp(), categories "
                "as text), or drop it"
            )


def _find_horizontal(obj: Labelled, rest: Sequence[str], shown: str) -> tuple[str, str]:
    """Find (y, x) among the dimensions that snapshots do not lie along."""
    guessed = obj.cf.guess_coord_axis()
    found = None
    for keys, table in (
        (("Y", "X"), obj.cf.axes),
        (("latitude", "longitude"), obj.cf.coordinates),
        (("Y", "X"), guessed.cf.axes),
        (("latitude", "longitude"), guessed.cf.coordinates),
    ):
        candidates = {
            axis: [dim for dim in _dims_of(obj, table.get(key, [])) if dim in rest]
            for axis, key in zip("YX", keys, strict=True)
        }
        found = found or _one_each(candidates)
    long = [dim for dim in rest if obj.sizes[dim] > 1]
    if found is None and len(long) == 2:
        found = _rows_first(obj, (long[0], long[1]))
    if found is None:
        raise ValueError(
            f"no horizontal dimensions found among ({shown}): name them with "
            "horizontal=(y, x), or give their coordinates the CF attribute axis"
        )
    return found


def _rows_first(obj: Labelled, dims: tuple[str, str]) -> tuple[str, str]:
    """Put first, of two dimensions, the one along which a 2-D latitude changes more."""
    for coordinate in obj.coords.values():
        if {*dims} <= {*coordinate.dims} and is_geographic(coordinate, "latitude"):
            others = [dim for dim in coordinate.dims if dim not in dims]
            latitude = coordinate.isel(dict.fromkeys(others, 0)).compute()
            change = [float(np.abs(latitude.diff(dim)).median()) for dim in dims]
            return dims if not change[1] > change[0] else (dims[1], dims[0])
    return dims


def _dims_of(obj: Labelled, names: Iterable[str]) -> list[str]:
    """Return the dimensions of `obj` that 1-D coordinates of these names lie along, each once."""
    dims = [str(obj[name].dims[0]) for name in names if name in obj.coords and obj[name].ndim == 1]
    return list(dict.fromkeys(dim for dim in dims if dim in obj.dims))


def _one_each(candidates: dict[str, list[str]]) -> tuple[str, str] | None:
    """Return (y, x) if each has just one candidate; None if one of them has none.

    Several candidates are a ValueError.
    """
    if any(len(found) > 1 for found in candidates.values()):
        several = "; ".join(f"{axis}: {', '.join(found)}" for axis, found in candidates.items())
        raise ValueError(
            f"several candidates for the horizontal dimensions ({several}): choose two with "
            "horizontal=(y, x), or fit variables that lie on one grid"
        )
    if all(candidates.values()) and candidates["Y"] != candidates["X"]:
        return candidates["Y"][0], candidates["X"][0]
    return None


def _find_sample(obj: Labelled, dims: list[str], shown: str, sample: Any) -> tuple[str, ...]:
    if sample is not None:
        names = (sample,) if isinstance(sample, str) else tuple(sample)
        missing = [name for name in names if name not in dims]
        if missing:
            raise ValueError(
                f"sample={sample!r}: no dimension {', '.join(map(repr, missing))} among {shown}"
            )
        return tuple(str(name) for name in names)
    candidates = _dims_of(obj, obj.cf.axes.get("T", [])) or (["time"] if "time" in dims else [])
    if len(candidates) != 1:
        what = (
            f"several candidates for the sample dimension ({', '.join(candidates)})"
            if candidates
            else "no sample dimension"
        )
        raise ValueError(
            f"{what} among ({shown}): name the dimension that snapshots lie along with sample="
        )
    return (candidates[0],)


def select_variables(
    ds: xr.Dataset, names: Any = None, *, horizontal: Any = None, sample: Any = None
) -> Labelled:
    """Select the variables to be fitted: those named, or the only one with all three dimensions.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        A DataArray for one name or none; a Dataset, in the order named, for a list.

    Raises
    ------
    ValueError
        If a name is not there, none or several variables would do, or the named lie on different
        grids.
    """
    if isinstance(names, str) or (names is not None and not isinstance(names, Iterable)):
        if names not in ds.data_vars:
            raise ValueError(
                f"no variable {names!r} in the Dataset; it has {', '.join(map(str, ds.data_vars))}"
            )
        return ds[names]
    if names is not None:
        names = list(names)
        missing = [name for name in names if name not in ds.data_vars]
        if missing or not names:
            raise ValueError(
                f"no variables {missing} in the Dataset; it has {', '.join(map(str, ds.data_vars))}"
            )
        if len(names) != len(set(names)):
            raise ValueError(f"a variable is named twice: {names}")
        shapes = {name: set(ds[name].dims) for name in names}
        if len({frozenset(dims) for dims in shapes.values()}) > 1:
            axes = {axis: _dims_of(ds, ds.cf.axes.get(axis, [])) for axis in "XY"}
            found = "; ".join(f"{axis}: {', '.join(dims)}" for axis, dims in axes.items() if dims)
            lie = "; ".join(f"{name} on ({', '.join(map(str, ds[name].dims))})" for name in names)
            raise ValueError(
                f"the variables lie on different grids: {lie}. Candidates for the "
                f"horizontal dimensions are {found or 'none'}: fit variables of one grid, or "
                "interpolate them to one first"
            )
        return ds[names]
    suitable = fittable_variables(ds, horizontal=horizontal, sample=sample)
    if len(suitable) != 1:
        if suitable:
            raise ValueError(
                f"several variables would do ({', '.join(suitable)}): name one, or a list, of "
                f"{', '.join(map(str, ds.data_vars))}"
            )
        held = [f"{name} ({', '.join(map(str, v.dims))})" for name, v in ds.data_vars.items()]
        raise ValueError(
            "no variable has a sample and two horizontal dimensions; the Dataset holds "
            f"{', '.join(held) or 'no variables'}"
        )
    return ds[suitable[0]]


def fittable_variables(ds: xr.Dataset, *, horizontal: Any = None, sample: Any = None) -> list[str]:
    """Return the numeric variables that have a sample dimension and two horizontal ones.

    Bounds are passed over. A name that is no text is a ValueError.
    """
    check_text([*ds.dims, *ds.variables])
    bounds = {name for names in ds.cf.bounds.values() for name in names}
    bounds |= {c.attrs["bounds"] for c in ds.coords.values() if "bounds" in c.attrs}
    suitable = []
    for name, variable in ds.data_vars.items():
        if name in bounds or variable.dtype.kind not in "iuf":
            continue
        try:
            find_dimensions(variable, horizontal=horizontal, sample=sample)
        except ValueError:
            continue
        suitable.append(str(name))
    return suitable
