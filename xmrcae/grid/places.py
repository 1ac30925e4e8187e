"""What tells where a pixel lies: indexes, 1-D coordinates such as ``lat(y)``, 2-D coordinates.

All knowledge of latitudes and longitudes stands here: what they are called, their units, the way
round the globe, and when two of them are the same place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from . import units
from .conventions import CIRCLE, Labelled, is_geographic
from .values import plain_numbers

#: Share of the spacing of the grid around a place under which two places are one.
SAME_PLACE = 1e-3

#: Largest latitude, and largest longitude of an axis that starts within 180 degrees and goes once
#: around.
FARTHEST = {"latitude": 90.0, "longitude": 180.0 + CIRCLE}


def shortest(difference: Any, circle: float | None) -> Any:
    """Return a difference of longitudes the short way round; any other (circle None) as it is."""
    return difference if circle is None else difference - circle * np.round(difference / circle)


@dataclass(frozen=True)
class Place:
    """One coordinate by which rows or columns are known.

    Attributes
    ----------
    name : hashable
        Its name.
    kind : hashable
        "latitude", "longitude", or its name.
    variable : xarray.Variable
        Its values: in degrees if it is geographic; NaN where a 2-D one holds what cannot be a
        place, such as a fill value.
    units : str or None
        Those of the values.
    precision : float
        The relative error of its values as they are stored.
    """

    name: Any
    kind: Any
    variable: xr.Variable
    units: str | None
    precision: float = 0.0

    @classmethod
    def of(cls, coordinate: xr.DataArray) -> Place:
        """Return the place that a coordinate tells."""
        name, values = coordinate.name, coordinate.values
        kind = next((k for k in FARTHEST if is_geographic(coordinate, k)), name)
        if values.dtype.kind not in "iuf":
            return cls(name, name, xr.Variable(coordinate.dims, values), None)
        precision = float(np.finfo(values.dtype).eps) if values.dtype.kind == "f" else 0.0
        values = values.astype(np.float64)
        if kind not in FARTHEST:
            unit = units.unit_text(coordinate.attrs)
            return cls(name, name, xr.Variable(coordinate.dims, values), unit, precision)
        values = values * (units.degrees(coordinate.attrs) or 1.0)
        if values.ndim > 1:
            possible = np.abs(values) <= FARTHEST[kind] + SAME_PLACE
            values = np.where(possible, values, np.nan)
        return cls(name, kind, xr.Variable(coordinate.dims, values), "degrees", precision)

    @property
    def circle(self) -> float | None:
        """What values may differ by: a full circle for a longitude."""
        return CIRCLE if self.kind == "longitude" else None

    @property
    def is_geographic(self) -> bool:
        """Whether it is a latitude or longitude."""
        return self.kind in FARTHEST

    @property
    def is_numeric(self) -> bool:
        """Whether values are numbers."""
        return self.variable.dtype.kind == "f"

    def steps(self, dim: str) -> np.ndarray:
        """Return the differences between neighbours along a dimension."""
        axis = self.variable.get_axis_num(dim)
        return shortest(np.diff(self.variable.values, axis=axis), self.circle)

    def spacing(self) -> np.ndarray:
        """Return the distance to the nearer neighbour, the larger one of both directions.

        So along a row of one latitude that of the columns tells.
        """
        around = np.zeros(self.variable.shape)
        for axis, dim in enumerate(self.variable.dims):
            steps = np.abs(self.steps(str(dim)))
            if steps.shape[axis]:
                edge = np.full_like(steps.take([0], axis), np.nan)
                before = np.concatenate([edge, steps], axis)
                after = np.concatenate([steps, edge], axis)
                around = np.fmax(around, np.fmin(before, after))
        return around

    def is_monotonic(self) -> bool:
        """Tell whether a 1-D coordinate of numbers ascends or descends throughout."""
        steps = self.steps(str(self.variable.dims[0])) if self.is_numeric else np.zeros(1)
        return bool((steps > 0).all() or (steps < 0).all())


def horizontal_coordinates(obj: Labelled, dims: tuple[str, str]) -> xr.Dataset:
    """Return the coordinates of `obj` along horizontal dimensions.

    Those of a dimension's own name are indexes. Latitudes and longitudes are in memory, and those
    that lie along other dimensions too, as XLAT(time, y, x) does, are cut to the horizontal ones.

    Raises
    ------
    ValueError
        If a latitude or longitude changes along another dimension.
    """
    found = {}
    for name, coordinate in obj.coords.items():
        others = [dim for dim in coordinate.dims if dim not in dims]
        if len(others) == coordinate.ndim or not coordinate.size:
            continue
        geographic = any(is_geographic(coordinate, kind) for kind in FARTHEST)
        if geographic:
            coordinate = plain_numbers(coordinate)
            coordinate = _unmoved(coordinate, others) if others else coordinate.compute()
        if geographic or not others:
            found[name] = coordinate.variable
    coords = xr.Dataset(coords=found)
    return coords.assign_coords({dim: coords[dim] for dim in dims if dim in coords.coords})


def _unmoved(coordinate: xr.DataArray, others: Sequence[Any]) -> xr.DataArray:
    """Cut a coordinate to its first values along dimensions along which it does not change."""
    coordinate = coordinate.compute()
    first = coordinate.isel(dict.fromkeys(others, 0))
    if bool(((coordinate != first) & (coordinate.notnull() | first.notnull())).any()):
        raise ValueError(
            f"coordinate {coordinate.name!r} changes along {', '.join(map(repr, others))}: pixels "
            "have to stay where they are; interpolate the data to a grid that does not move"
        )
    return first


def places(coords: xr.Dataset, dim: str, kind: str) -> list[Place]:
    """Return the 1-D coordinates along a dimension that tell places, the best first.

    Parameters
    ----------
    coords : xarray.Dataset
        Coordinates along the horizontal dimensions.
    dim : str
        The dimension.
    kind : {"latitude", "longitude"}
        What is expected along it.
    """
    along = {name: c for name, c in coords.coords.items() if c.dims == (dim,)}
    found = [Place.of(c) for name, c in along.items() if name == dim or tells_place(c)]

    def rank(place: Place) -> tuple[bool, ...]:
        is_index = place.name == dim
        return not (is_index and place.is_geographic), place.kind != kind, not is_index

    return sorted(found, key=rank)


def tells_place(coordinate: xr.DataArray) -> bool:
    """Tell whether a coordinate that is no index says where pixels lie, by attributes or name."""
    name = coordinate.attrs.get("standard_name")
    is_projected = isinstance(name, str) and name.startswith("projection_")
    geographic = any(is_geographic(coordinate, kind) for kind in FARTHEST)
    return geographic or is_projected or "axis" in coordinate.attrs


def side_by_side(
    fitted: xr.Variable, given: xr.Variable, order: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return both on the dimensions that either has, the rows and columns of `given` in an order.

    Parameters
    ----------
    fitted, given : xarray.Variable
        Along one or both of the dimensions of `order`.
    order : mapping of str to indexer
        For each horizontal dimension, where along `given` the fitted rows or columns lie.
    """
    given = given.isel({dim: at for dim, at in order.items() if dim in given.dims})
    all_sizes = fitted.sizes | given.sizes
    sizes = {dim: all_sizes[dim] for dim in order if dim in all_sizes}
    values = (each.set_dims(sizes).transpose(*sizes).values for each in (fitted, given))
    return next(values), next(values)


def differs(fitted: Place, given: Place, order: Mapping[str, Any]) -> np.ndarray:
    """Tell where two coordinates mean different places; missing ones are alike.

    Numbers may be off by a share of the spacing around them, and by what their types round away.
    """
    a, b = side_by_side(fitted.variable, given.variable, order)
    if not (fitted.is_numeric and given.is_numeric):
        return (a != b) & ~(pd.isnull(a) & pd.isnull(b))
    spacing = xr.Variable(fitted.variable.dims, fitted.spacing())
    around, _ = side_by_side(spacing, given.variable, order)
    circle = fitted.circle or given.circle
    largest = np.maximum(np.fmax(np.abs(a), np.abs(b)), circle or 0.0)
    tolerance = SAME_PLACE * around + 2 * max(fitted.precision, given.precision) * largest
    return ~(np.abs(shortest(a - b, circle)) <= tolerance) & ~(np.isnan(a) & np.isnan(b))


def difference(fitted: Place, given: Place, order: Mapping[str, Any]) -> str:
    """Say where two coordinates that are not the same differ first, and what to do."""
    a, b = side_by_side(fitted.variable, given.variable, order)
    at = tuple(int(i) for i in np.argwhere(differs(fitted, given, order))[0])
    return (
        "the data lie on another grid than the fitted one: coordinate "
        f"{given.name!r} differs first at {at[0] if len(at) == 1 else at}, {b[at]} instead of "
        f"{a[at]}; interpolate the data to the fitted grid first"
    )
