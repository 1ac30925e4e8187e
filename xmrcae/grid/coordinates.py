"""The horizontal grid, and the one layout that everything is summed in.

The layout is (sample, variable, y, x) with both coordinates ascending. So order and orientation of the user's data
change no bit of a result, and results go back in the order and orientation that the data came in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cf_xarray  # noqa: F401  (registers .cf)
import numpy as np
import xarray as xr

from .dimensions import Dimensions, Labelled


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
