"""Where pixels lie: the grid of the fitted data, and any other field matched with it.

A horizontal dimension is known by a coordinate: its index, another 1-D coordinate along it, such as ``lat(y)``, or a
2-D latitude or longitude. All of them are oriented, compared and found periodic here. Everything is summed in one
layout, (sample, variable, y, x) with both coordinates ascending, so order and orientation of the user's data change no
bit of a result; results go back in the order and orientation that the data came in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import cf_xarray  # noqa: F401  (registers .cf)
import numpy as np
import pandas as pd
import xarray as xr

from . import units
from .dimensions import Dimensions, Labelled

#: Degrees of a full circle.
CIRCLE = 360.0

#: Share of the spacing of the grid around a place under which two places are one.
SAME_PLACE = 1e-3

#: An axis of longitude that begins within 180 degrees of Greenwich ends, after a full circle, within this.
FARTHEST = {"latitude": 90.0, "longitude": 180.0 + CIRCLE}

REVERSED = slice(None, None, -1)


def is_geographic(coordinate: xr.DataArray, kind: str) -> bool:
    """Whether a coordinate is a "longitude" or "latitude", by its attributes or its name."""
    attrs = {k: v for k, v in coordinate.attrs.items() if isinstance(k, str) and isinstance(v, str)}
    is_angle = units.degrees(coordinate.attrs) is not None
    return is_angle and kind in _kinds(coordinate.name, tuple(sorted(attrs.items())))


@lru_cache(maxsize=256)
def _kinds(name: Any, attrs: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """What cf-xarray makes of a coordinate: "longitude", "latitude", both or neither."""
    alone = xr.Dataset(coords={name: ("dimension", [0.0], dict(attrs))})
    found = (alone.cf.coordinates, alone.cf.guess_coord_axis().cf.coordinates)
    return frozenset(kind for table in found for kind, names in table.items() if name in names)


def period(coordinate: xr.DataArray) -> float | None:
    """A full circle in the units of a longitude; None for any other coordinate."""
    if not is_geographic(coordinate, "longitude"):
        return None
    return CIRCLE / abs(units.degrees(coordinate.attrs) or 1.0)


def shortest(difference: Any, circle: float | None) -> Any:
    """A difference of two longitudes the short way round; any other as it is (None)."""
    return difference if circle is None else difference - circle * np.round(difference / circle)


@dataclass(frozen=True)
class Place:
    """One coordinate by which the rows or columns of a grid are known.

    Attributes
    ----------
    name : hashable
        Its name.
    kind : hashable
        "latitude", "longitude", or its name.
    variable : xarray.Variable
        Its values: in degrees if it is geographic; NaN where a 2-D one holds what cannot be a place, such as a fill
        value.
    units : str or None
        Its units, if it is not geographic.
    """

    name: Any
    kind: Any
    variable: xr.Variable
    units: str | None

    @classmethod
    def of(cls, coordinate: xr.DataArray) -> Place:
        """The place that a coordinate tells."""
        name, values = coordinate.name, coordinate.values
        kind = next((k for k in FARTHEST if is_geographic(coordinate, k)), name)
        if values.dtype.kind not in "iuf":
            return cls(name, name, xr.Variable(coordinate.dims, values), None)
        values = values.astype(np.float64)
        if kind not in FARTHEST:
            return cls(name, name, xr.Variable(coordinate.dims, values), units.unit_text(coordinate.attrs))
        factor = units.degrees(coordinate.attrs) or 1.0
        values = values if factor == 1 else values * factor
        if values.ndim > 1:
            values = np.where(np.abs(values) <= FARTHEST[kind] + SAME_PLACE, values, np.nan)
        return cls(name, kind, xr.Variable(coordinate.dims, values), None)

    @property
    def circle(self) -> float | None:
        """What values may differ by: a full circle for a longitude."""
        return CIRCLE if self.kind == "longitude" else None

    @property
    def is_numeric(self) -> bool:
        """Whether values are numbers."""
        return self.variable.dtype.kind == "f"

    def steps(self, dim: str) -> np.ndarray:
        """Differences between neighbours along a dimension."""
        return shortest(np.diff(self.variable.values, axis=self.variable.get_axis_num(dim)), self.circle)

    def is_monotonic(self) -> bool:
        """Whether a 1-D coordinate of numbers ascends or descends throughout."""
        steps = self.steps(str(self.variable.dims[0])) if self.is_numeric else np.zeros(1)
        return bool((steps > 0).all() or (steps < 0).all())


def places(coords: xr.Dataset, dim: str, kind: str) -> list[Place]:
    """The coordinates by which rows or columns can be known, the best first.

    Parameters
    ----------
    coords : xarray.Dataset
        Coordinates along the horizontal dimensions.
    dim : str
        The dimension.
    kind : {"latitude", "longitude"}
        What is expected along it.
    """
    along = {name: Place.of(c) for name, c in coords.coords.items() if c.dims == (dim,)}
    index = [along.pop(dim)] if dim in along else []
    told = [p for p in along.values() if p.is_monotonic() and (p.kind in FARTHEST or _has_axis(coords[p.name]))]
    told.sort(key=lambda place: place.kind != kind)
    if told and told[0].kind == kind and not (index and index[0].kind in FARTHEST):
        index.insert(0, told.pop(0))
    flat = [Place.of(c) for c in coords.coords.values() if c.ndim == 2 and is_geographic(c, kind)]
    return [*index, *told, *flat]


def _has_axis(coordinate: xr.DataArray) -> bool:
    name = coordinate.attrs.get("standard_name")
    return "axis" in coordinate.attrs or (isinstance(name, str) and name.startswith("projection_"))


@dataclass(frozen=True, eq=False)
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
        """The grid that `obj` lies on.

        Raises
        ------
        ValueError
            If a 1-D coordinate that rows or columns are known by is missing somewhere or turns
            back, or rows lie along a longitude and columns along a latitude.
        """
        coords = horizontal_coordinates(obj, (dims.y, dims.x))
        found = [places(coords, dim, kind) for dim, kind in zip((dims.y, dims.x), FARTHEST, strict=True)]
        if [each[0].kind if each else None for each in found] == ["longitude", "latitude"]:
            raise ValueError(
                f"horizontal=({dims.y!r}, {dims.x!r}) are rows and columns, but {dims.y!r} lies "
                f"along a longitude: give horizontal=({dims.x!r}, {dims.y!r})"
            )
        descending = []
        for dim, each in zip((dims.y, dims.x), found, strict=True):
            descending.append(bool(each) and _descends(each[0], dim))
            if descending[-1]:
                coords = coords.isel({dim: REVERSED})
        sizes = (obj.sizes[dims.y], obj.sizes[dims.x])
        if periodic is None:
            around = [p for p in places(coords, dims.x, "longitude") if p.kind == "longitude"]
            periodic = bool(around) and _covers_globe(around[0], dims.x)
        return cls(dims.y, dims.x, sizes, coords, (descending[0], descending[1]), periodic)

    def indexers(self, obj: Labelled) -> dict[str, Any]:
        """Where along `obj` the rows and columns of this grid lie.

        Coordinates may come in any order, and longitudes modulo 360. Without a coordinate that both have, rows and
        columns are taken to lie as in the fitted data, north-to-south included.

        Raises
        ------
        ValueError
            Naming the coordinate and the first difference, if `obj` lies on another grid.
        """
        dims = (self.y, self.x)
        for dim, size in zip(dims, self.sizes, strict=True):
            if dim not in obj.dims:
                raise ValueError(f"the data have no dimension {dim!r}; the fitted grid has ({self.y}, {self.x})")
            if obj.sizes[dim] != size:
                raise ValueError(f"dimension {dim!r} has {obj.sizes[dim]} points; the fitted grid has {size}")
        given = horizontal_coordinates(obj, dims)
        came = dict(zip(dims, (REVERSED if d else slice(None) for d in self.descending), strict=True))
        pairs, order = {}, {}
        for dim, kind in zip(dims, FARTHEST, strict=True):
            pair = _pair(places(self.coords, dim, kind), places(given, dim, kind), dim)
            if pair is not None and all(place.variable.ndim == 1 for place in pair):
                order[dim] = _as_slice(_match(*pair))
            elif pair is not None:
                pairs[dim] = pair
        order = _match_together(pairs, came | order, [dim for dim in dims if dim not in order])
        compared = {place.name for pair in pairs.values() for place in pair}
        for name, fitted in self.coords.coords.items():
            if fitted.ndim == 2 and name in given.coords and name not in compared:
                _check_same(Place.of(fitted), Place.of(given[name]), order)
        return order

    def area_weights(self) -> xr.DataArray:
        """cos(latitude) of each pixel's own latitude, (y, x), ascending; NaN where that is missing."""
        for coordinate in self.coords.coords.values():
            if is_geographic(coordinate, "latitude"):
                latitude = Place.of(coordinate).variable
                latitude = latitude.where(np.abs(latitude) <= FARTHEST["latitude"] + SAME_PLACE)
                sizes = dict(zip((self.y, self.x), self.sizes, strict=True))
                weights = np.cos(np.deg2rad(latitude)).clip(0).set_dims(sizes).transpose(self.y, self.x)
                return xr.DataArray(weights, name=coordinate.name)
        raise ValueError(
            'weights="area" needs a latitude in degrees or radians among the coordinates '
            f"({', '.join(map(str, self.coords.coords)) or 'there is none'}): give the weights as a DataArray"
        )


def horizontal_coordinates(obj: Labelled, dims: tuple[str, str]) -> xr.Dataset:
    """The coordinates of `obj` along horizontal dimensions, those of a dimension's own name being indexes."""
    names = [name for name, c in obj.coords.items() if c.dims and set(c.dims) <= set(dims)]
    coords = xr.Dataset(coords={name: obj.coords[name].variable for name in names})
    return coords.assign_coords({dim: coords[dim] for dim in dims if dim in coords.coords})


def _as_slice(order: np.ndarray) -> Any:
    """The same order as a slice where it is one, so that lazy data stay in few chunks."""
    n = len(order)
    if np.array_equal(order, np.arange(n)):
        return slice(None)
    if np.array_equal(order, np.arange(n)[::-1]):
        return REVERSED
    return order


def _descends(place: Place, dim: str) -> bool:
    """Whether a coordinate descends; a longitude may pass the date line or Greenwich, a 2-D one turn back in places."""
    if not place.is_numeric or place.variable.size < 2:
        return False
    steps = place.steps(dim)
    if place.variable.ndim > 1:
        known = steps[np.isfinite(steps)]
        return bool(len(known)) and bool(np.median(known) < 0)
    values = place.variable.values
    if not np.isfinite(values).all():
        raise ValueError(f"coordinate {place.name!r} holds missing or infinite values")
    if not place.is_monotonic():
        at = int(np.argmax(np.sign(steps) != np.sign(steps[0])))
        raise ValueError(
            f"coordinate {place.name!r} neither ascends nor descends throughout: {values[at]} is followed by "
            f"{values[at + 1]}; sort the data with .sortby({place.name!r})"
        )
    return bool(steps[0] < 0)


def _covers_globe(longitude: Place, dim: str) -> bool:
    """Whether spacing times count is a full circle within half a cell, in most rows of a 2-D longitude."""
    if not longitude.is_numeric or longitude.variable.sizes[dim] < 2:
        return False
    spacing = np.atleast_1d(longitude.steps(dim).mean(axis=longitude.variable.get_axis_num(dim)))
    spacing = spacing[np.isfinite(spacing)]
    n = longitude.variable.sizes[dim]
    around = np.abs(np.abs(spacing) * n - CIRCLE) <= np.abs(spacing) / 2
    return 2 * int(around.sum()) > len(spacing)


def _pair(fitted: Iterable[Place], given: Iterable[Place], dim: str) -> tuple[Place, Place] | None:
    """The coordinates of two grids to compare; None if one of the two has none."""
    fitted, given = list(fitted), list(given)
    for alike in (lambda a, b: a.kind == b.kind, lambda a, b: a.name == b.name):
        for pair in product(fitted, given):
            if alike(*pair):
                _check_units(*pair)
                return pair
    if fitted and given:
        raise ValueError(
            f"along {dim!r} the data have the coordinate {given[0].name!r}, the fitted grid is known by "
            f"{fitted[0].name!r}: give the data that coordinate, or drop {given[0].name!r} if they lie as the fitted "
            "data came"
        )
    return None


def _check_units(fitted: Place, given: Place) -> None:
    if fitted.kind not in FARTHEST and units.differ(fitted.units, given.units):
        raise ValueError(
            f"coordinate {given.name!r} is in {given.units!r}, that of the fitted grid in {fitted.units!r}: convert it "
            "first"
        )


def _match(fitted: Place, given: Place) -> np.ndarray:
    """Position in `given` of each label of `fitted`, both 1-D; labels may come in any order."""
    forwards = np.arange(fitted.variable.size)
    dim = str(given.variable.dims[0])
    for order in (forwards, forwards[::-1]):
        if not _differs(fitted, given, {dim: order}).any():
            return order
    if fitted.is_numeric and given.is_numeric:
        a, b = fitted.variable.values, given.variable.values
        if fitted.circle:  # from just below the first label, so that rounding does not split it
            base = a[0] - _tolerance(fitted).values[0]
            a, b = (a - base) % fitted.circle, (b - base) % fitted.circle
        order_a, order_b = np.argsort(a, kind="stable"), np.argsort(b, kind="stable")
        order = order_b[np.argsort(order_a, kind="stable")]
        if not _differs(fitted, given, {dim: order}).any():
            return order
    values = given.variable.values
    descends = len(values) > 1 and values[0] > values[-1]
    _check_same(fitted, given, {dim: forwards[::-1] if descends else forwards})
    raise AssertionError("the coordinates differ, so the line above has said where")


def _match_together(
    pairs: Mapping[str, tuple[Place, Place]], known: Mapping[str, Any], free: list[str]
) -> dict[str, Any]:
    """The order of rows and columns that 2-D coordinates tell: as they came, turned over, or rolled along x.

    Parameters
    ----------
    pairs : mapping of str to (Place, Place)
        For each dimension, the coordinates of the fitted grid and of the data, at least one of them 2-D.
    known : mapping of str to indexer
        The order that 1-D coordinates have told and, along other dimensions, that of the fitted data.
    free : list of str
        The other dimensions.
    """
    known = dict(known)
    for order in _turned_and_rolled(pairs, known, free) if pairs else ():
        if not any(_differs(*pair, order).any() for pair in pairs.values()):
            return order
    for pair in pairs.values():
        _check_same(*pair, known)
    return known


def _turned_and_rolled(
    pairs: Mapping[str, tuple[Place, Place]], known: dict[str, Any], free: list[str]
) -> Iterator[dict[str, Any]]:
    """The orders to try, the likeliest first."""
    other = {dim: slice(None) if known[dim] == REVERSED else REVERSED for dim in free}
    turned = [known | dict(zip(free, each, strict=True)) for each in product(*((known[d], other[d]) for d in free))]
    yield from turned
    longitude = next((pair for pair in pairs.values() if pair[0].kind == "longitude"), None)
    x = next((dim for dim in free if longitude is not None and pairs.get(dim) is longitude), None)
    if longitude is None or x is None:
        return
    for order in turned:
        fitted, given = _side_by_side(longitude[0].variable, longitude[1].variable, order)
        rows = np.flatnonzero(np.isfinite(fitted).all(1) & np.isfinite(given).all(1))
        if len(rows):  # where in a complete row the first of the data's columns lies
            apart = np.abs(shortest(fitted[rows[0]] - given[rows[0], 0], CIRCLE))
            columns = np.arange(len(apart))[order[x]]
            yield order | {x: np.roll(columns, int(apart.argmin()))}


def _side_by_side(fitted: xr.Variable, given: xr.Variable, order: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Values of both on the dimensions that either has, the data's put into an order."""
    given = given.isel({dim: at for dim, at in order.items() if dim in given.dims})
    sizes = {dim: (fitted.sizes | given.sizes)[dim] for dim in order if dim in (*fitted.dims, *given.dims)}
    return fitted.set_dims(sizes).transpose(*sizes).values, given.set_dims(sizes).transpose(*sizes).values


def _tolerance(fitted: Place) -> xr.Variable:
    """How far the same place may be off: a share of the spacing around it, or what float32 rounds away.

    The spacing is the larger one of both directions: along a row of one latitude that of the columns tells.
    """
    around = np.zeros(fitted.variable.shape)
    for axis, dim in enumerate(fitted.variable.dims):
        steps = np.abs(fitted.steps(str(dim)))
        if steps.shape[axis]:
            edge = np.full_like(steps.take([0], axis), np.nan)
            before, after = np.concatenate([edge, steps], axis), np.concatenate([steps, edge], axis)
            around = np.fmax(around, np.fmin(before, after))
    rounding = 2.0**-22 * np.abs(fitted.variable.values)
    rounding = np.where(around > 0, np.minimum(rounding, around / 10), rounding)
    return xr.Variable(fitted.variable.dims, np.fmax(SAME_PLACE * around, rounding))


def _differs(fitted: Place, given: Place, order: Mapping[str, Any]) -> np.ndarray:
    """Where two coordinates tell different places; missing values are alike."""
    a, b = _side_by_side(fitted.variable, given.variable, order)
    if not (fitted.is_numeric and given.is_numeric):
        return (a != b) & ~(pd.isnull(a) & pd.isnull(b))
    tolerance, _ = _side_by_side(_tolerance(fitted), given.variable, order)
    apart = np.abs(shortest(a - b, fitted.circle or given.circle))
    return ~(apart <= tolerance) & ~(np.isnan(a) & np.isnan(b))


def _check_same(fitted: Place, given: Place, order: Mapping[str, Any]) -> None:
    """Raise a ValueError at the first difference."""
    differs = _differs(fitted, given, order)
    if differs.any():
        a, b = _side_by_side(fitted.variable, given.variable, order)
        at = tuple(int(i) for i in np.argwhere(differs)[0])
        where = at[0] if len(at) == 1 else at
        raise ValueError(
            f"the data lie on another grid than the fitted one: coordinate {given.name!r} differs first at {where}, "
            f"{b[at]} instead of {a[at]}; interpolate the data to the fitted grid first"
        )
