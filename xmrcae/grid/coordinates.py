"""Which dimensions are horizontal, and the one layout that everything is summed in.

The layout is (sample, variable, y, x) with both coordinates ascending. So order and orientation of the user's data
change no bit of a result, and results go back in the order and orientation that the data came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cf_xarray  # noqa: F401  (registers .cf)
import numpy as np
import pandas as pd
import xarray as xr

Labelled = xr.DataArray | xr.Dataset
#: Indexes of values that no file can hold; older xarray calls their coordinates objects.
PANDAS_ONLY = pd.PeriodIndex, pd.IntervalIndex, pd.CategoricalIndex


@dataclass(frozen=True)
class Dimensions:
    """Names of the dimensions that snapshots lie along, and of the two horizontal ones."""

    sample: tuple[str, ...]
    y: str
    x: str


def _dims_of(obj: Labelled, names: Iterable[str]) -> list[str]:
    """The dimensions of those names that are 1-D coordinates along a dimension of `obj`, without repetition."""
    dims = [str(obj[name].dims[0]) for name in names if name in obj.coords and obj[name].ndim == 1]
    return list(dict.fromkeys(dim for dim in dims if dim in obj.dims))


def _one_each(candidates: dict[str, list[str]]) -> tuple[str, str] | None:
    """(y, x) if each has just one candidate; None if one of them has none; an error if one has several."""
    if any(len(found) > 1 for found in candidates.values()):
        several = "; ".join(f"{axis}: {', '.join(found)}" for axis, found in candidates.items())
        raise ValueError(
            f"several candidates for the horizontal dimensions ({several}): choose two with horizontal=(y, x), "
            "or fit variables that lie on one grid"
        )
    if all(candidates.values()) and candidates["Y"] != candidates["X"]:
        return candidates["Y"][0], candidates["X"][0]
    return None


def find_dimensions(obj: Labelled, *, horizontal: Sequence[str] | None = None, sample: Any = None) -> Dimensions:
    """Find the sample dimension and the two horizontal ones.

    Horizontal are those named; else CF axes X and Y; else 1-D longitude and latitude; else cf-xarray's guess by name;
    else, beside one sample dimension, the two others.

    Raises
    ------
    ValueError
        If none or several are found, or another dimension is longer than 1.
    TypeError
        If a coordinate has a type that only pandas knows.
    """
    for name, coord in obj.coords.items():
        index = getattr(obj.xindexes.get(name), "index", None)
        dtype = index.dtype if isinstance(index, PANDAS_ONLY) else coord.dtype
        if not isinstance(dtype, np.dtype):
            raise TypeError(
                f"coordinate {name!r} holds {type(dtype).__name__}, which no file can hold: give it as numbers, "
                "text or times (periods by .to_timestamp(), categories as text), or drop it"
            )
    dims = [str(dim) for dim in obj.dims]
    shown = ", ".join(f"{dim}: {obj.sizes[dim]}" for dim in dims)
    samples = _find_sample(obj, dims, shown, sample)
    rest = [dim for dim in dims if dim not in samples]
    if horizontal is not None:
        missing = [dim for dim in horizontal if dim not in rest]
        if missing:
            raise ValueError(
                f"horizontal={tuple(horizontal)!r}: no dimension {', '.join(map(repr, missing))} among {shown}"
            )
        y, x = horizontal
    else:
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
            found = (long[0], long[1])
        if found is None:
            raise ValueError(
                f"no horizontal dimensions found among ({shown}): name them with horizontal=(y, x), "
                "or give their coordinates the CF attribute axis"
            )
        y, x = found
    others = [dim for dim in rest if dim not in (y, x) and obj.sizes[dim] > 1]
    if others:
        raise ValueError(
            f"besides the horizontal dimensions {y}, {x} and the sample dimension {', '.join(samples)} there is "
            f"{', '.join(others)} ({shown}): select from it, or let snapshots lie along it too with "
            f"sample={[*samples, *others]!r}"
        )
    return Dimensions(samples, y, x)


def _find_sample(obj: Labelled, dims: list[str], shown: str, sample: Any) -> tuple[str, ...]:
    if sample is not None:
        names = (sample,) if isinstance(sample, str) else tuple(sample)
        missing = [name for name in names if name not in dims]
        if missing:
            raise ValueError(f"sample={sample!r}: no dimension {', '.join(map(repr, missing))} among {shown}")
        return tuple(str(name) for name in names)
    candidates = _dims_of(obj, obj.cf.axes.get("T", [])) or (["time"] if "time" in dims else [])
    if len(candidates) != 1:
        what = (
            f"several candidates for the sample dimension ({', '.join(candidates)})"
            if candidates
            else "no sample dimension"
        )
        raise ValueError(f"{what} among ({shown}): name the dimension that snapshots lie along with sample=")
    return (candidates[0],)


def is_geographic(coordinate: xr.DataArray, kind: str) -> bool:
    """Whether a coordinate is a "longitude" or "latitude", by its attributes or its name."""
    alone = xr.Dataset(coords={coordinate.name: coordinate.variable})
    return any(coordinate.name in obj.cf.coordinates.get(kind, []) for obj in (alone, alone.cf.guess_coord_axis()))


@dataclass(frozen=True)
class Grid:
    """The horizontal grid of the data that a model is fitted to.

    Attributes
    ----------
    y, x : str
        Names of the dimensions.
    sizes : (int, int)
        Rows and columns.
    coords : xarray.Dataset
        Coordinates along y, x or both, ascending.
    descending : (bool, bool)
        Whether the fitted data's own coordinates descend.
    periodic : bool
        Whether x wraps.
    """

    y: str
    x: str
    sizes: tuple[int, int]
    coords: xr.Dataset
    descending: tuple[bool, bool]
    periodic: bool

    @classmethod
    def of(cls, obj: Labelled, dims: Dimensions, *, periodic: bool | None = None) -> Grid:
        """The grid that `obj` lies on."""
        names = [name for name, c in obj.coords.items() if c.dims and set(c.dims) <= {dims.y, dims.x}]
        coords = xr.Dataset(coords={name: obj.coords[name].variable for name in names})
        coords = coords.assign_coords({dim: coords[dim] for dim in (dims.y, dims.x) if dim in coords.coords})
        descending = []
        for dim in (dims.y, dims.x):
            order = _ascending_order(coords, dim)
            descending.append(order is not None and len(order) > 1 and bool(order[0] > order[-1]))
            if order is not None:
                coords = coords.isel({dim: _as_slice(order)})
        sizes = (obj.sizes[dims.y], obj.sizes[dims.x])
        if periodic is None:
            periodic = _covers_globe(coords, dims.x)
        return cls(dims.y, dims.x, sizes, coords, (descending[0], descending[1]), periodic)

    def indexers(self, obj: Labelled) -> dict[str, Any]:
        """Where along `obj` the rows and columns of this grid lie.

        Coordinates may come in any order, and longitudes modulo 360.

        Raises
        ------
        ValueError
            Naming the coordinate and the first difference, if `obj` lies on another grid.
        """
        result: dict[str, Any] = {}
        for dim, size in zip((self.y, self.x), self.sizes, strict=True):
            if dim not in obj.dims:
                raise ValueError(f"the data have no dimension {dim!r}; the fitted grid has ({self.y}, {self.x})")
            if obj.sizes[dim] != size:
                raise ValueError(f"dimension {dim!r} has {obj.sizes[dim]} points; the fitted grid has {size}")
            if dim in self.coords.coords and dim in obj.coords:
                result[dim] = _as_slice(_match(self.coords[dim], obj.coords[dim]))
        for name, fitted in self.coords.coords.items():
            if fitted.ndim == 2 and name in obj.coords and set(obj.coords[name].dims) == set(fitted.dims):
                given = obj.coords[name].transpose(*fitted.dims).isel(result)
                largest = float(np.nanmax(np.abs(fitted.values), initial=0)) if fitted.dtype.kind in "iuf" else 0.0
                _same_values(str(name), fitted.values, given.values, tolerance=1e-6 * largest)
        return result

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid) and (self.y, self.x, self.sizes) == (other.y, other.x, other.sizes)
            and self.coords.equals(other.coords)
        )  # fmt: skip

    def area_weights(self) -> xr.DataArray:
        """cos(latitude) of each pixel's own latitude, (y, x), ascending."""
        for name, coordinate in self.coords.coords.items():
            if is_geographic(coordinate, "latitude"):
                ones = xr.DataArray(np.ones(self.sizes), dims=(self.y, self.x))
                weights = (np.cos(np.deg2rad(coordinate.astype("float64"))).clip(0) * ones).transpose(self.y, self.x)
                return weights.reset_coords(drop=True).rename(name)
        raise ValueError(
            'weights="area" needs a latitude among the coordinates '
            f"({', '.join(map(str, self.coords.coords)) or 'there is none'}): give the weights as a DataArray"
        )


def _as_slice(order: np.ndarray) -> Any:
    """The same order as a slice where it is one, so that lazy data stay in few chunks."""
    n = len(order)
    if np.array_equal(order, np.arange(n)):
        return slice(None)
    if np.array_equal(order, np.arange(n)[::-1]):
        return slice(None, None, -1)
    return order


def _ascending_order(coords: xr.Dataset, dim: str) -> np.ndarray | None:
    """The order that makes a dimension's coordinate ascend; a longitude may pass the date line or Greenwich."""
    if dim not in coords.coords:
        return None
    values = coords[dim].values
    if values.dtype.kind not in "iuf" or len(values) < 2:
        return np.arange(len(values))
    if not np.isfinite(values.astype(np.float64)).all():
        raise ValueError(f"coordinate {dim!r} holds missing or infinite values")
    unwrapped = (
        np.unwrap(values.astype(np.float64), period=360)
        if is_geographic(coords[dim], "longitude")
        else values.astype(np.float64)
    )
    steps = np.diff(unwrapped)
    if (steps > 0).all():
        return np.arange(len(values))
    if (steps < 0).all():
        return np.arange(len(values))[::-1]
    at = int(np.argmax(np.sign(steps) != np.sign(steps[0])))
    raise ValueError(
        f"coordinate {dim!r} neither ascends nor descends throughout: {values[at]} is followed by {values[at + 1]}; "
        f"sort the data with .sortby({dim!r})"
    )


def _covers_globe(coords: xr.Dataset, dim: str) -> bool:
    if dim not in coords.coords or not is_geographic(coords[dim], "longitude") or coords.sizes[dim] < 2:
        return False
    values = np.unwrap(coords[dim].values.astype(np.float64), period=360)
    spacing = (values[-1] - values[0]) / (len(values) - 1)
    return bool(abs(spacing * len(values) - 360) <= abs(spacing) / 2)


def _match(fitted: xr.DataArray, given: xr.DataArray) -> np.ndarray:
    """Position in `given` of each fitted label."""
    forwards = np.arange(fitted.size)
    numeric = fitted.dtype.kind in "iuf" and given.dtype.kind in "iuf"
    a, b = (c.values.astype(np.float64) if numeric else c.values for c in (fitted, given))
    tolerance = 1e-3 * float(np.abs(np.diff(a)).min()) if numeric and len(a) > 1 else 1e-6
    for order in (forwards, forwards[::-1]):
        if (np.abs(a - b[order]) <= tolerance).all() if numeric else np.array_equal(a, b[order]):
            return order
    if numeric:
        if is_geographic(fitted, "longitude"):  # from just below the first label, so that rounding does not split it
            base = a[0] - tolerance
            a, b = (a - base) % 360, (b - base) % 360
        order_a, order_b = np.argsort(a, kind="stable"), np.argsort(b, kind="stable")
        if (np.abs(a[order_a] - b[order_b]) <= tolerance).all():
            return order_b[np.argsort(order_a, kind="stable")]
    descends = len(b) > 1 and given.values[0] > given.values[-1]
    _same_values(str(fitted.name), fitted.values, given.values[::-1] if descends else given.values, tolerance=tolerance)
    raise AssertionError("the coordinates differ, so the line above has said where")


def _same_values(name: str, fitted: np.ndarray, given: np.ndarray, *, tolerance: float) -> None:
    """Raise a ValueError at the first difference; numbers may differ by `tolerance`."""
    if fitted.dtype.kind in "iuf" and given.dtype.kind in "iuf":
        differs = ~np.isclose(given, fitted, rtol=0, atol=tolerance, equal_nan=True)
    else:
        differs = fitted != given
    if differs.any():
        at = tuple(int(i) for i in np.argwhere(differs)[0])
        where = at[0] if len(at) == 1 else at
        raise ValueError(
            f"the data lie on another grid than the fitted one: coordinate {name!r} differs first at {where}, "
            f"{given[at]} instead of {fitted[at]}; interpolate the data to the fitted grid first"
        )


def select_variables(ds: xr.Dataset, names: Any = None, *, horizontal: Any = None, sample: Any = None) -> Labelled:
    """The variables of a Dataset to be fitted: those named, or the only one that has all three dimensions.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        A DataArray for one name or none; a Dataset, in the order named, for a list.

    Raises
    ------
    ValueError
        If a name is not there, none or several variables would do, or the named lie on different grids.
    """
    if isinstance(names, str) or (names is not None and not isinstance(names, Iterable)):
        if names not in ds.data_vars:
            raise ValueError(f"no variable {names!r} in the Dataset; it has {', '.join(map(str, ds.data_vars))}")
        return ds[names]
    if names is not None:
        names = list(names)
        missing = [name for name in names if name not in ds.data_vars]
        if missing or not names:
            raise ValueError(f"no variables {missing} in the Dataset; it has {', '.join(map(str, ds.data_vars))}")
        if len(names) != len(set(names)):
            raise ValueError(f"a variable is named twice: {names}")
        shapes = {name: set(ds[name].dims) for name in names}
        if len({frozenset(dims) for dims in shapes.values()}) > 1:
            axes = {axis: _dims_of(ds, ds.cf.axes.get(axis, [])) for axis in "XY"}
            found = "; ".join(f"{axis}: {', '.join(dims)}" for axis, dims in axes.items() if dims)
            lie = "; ".join(f"{name} on ({', '.join(map(str, ds[name].dims))})" for name in names)
            raise ValueError(
                f"the variables lie on different grids: {lie}. Candidates for the horizontal dimensions "
                f"are {found or 'none'}: "
                "fit variables of one grid, or interpolate them to one first"
            )
        return ds[names]
    suitable = fittable_variables(ds, horizontal=horizontal, sample=sample)
    if len(suitable) != 1:
        some = (
            f"several variables would do ({', '.join(suitable)})"
            if suitable
            else "no variable has a sample and two horizontal dimensions"
        )
        raise ValueError(f"{some}: name one, or a list, of {', '.join(map(str, ds.data_vars))}")
    return ds[suitable[0]]


def fittable_variables(ds: xr.Dataset, *, horizontal: Any = None, sample: Any = None) -> list[str]:
    """Names of the numeric variables that have a sample dimension and two horizontal ones; bounds are passed over."""
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
