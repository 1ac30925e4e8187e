"""The horizontal grid of the fitted data, and any other field matched with it.

Everything is summed in one layout, (sample, variable, y, x) with both coordinates ascending, so
order and orientation of the user's data change no bit of a result; results go back in the order and
orientation that the data came in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from . import units
from .conventions import CIRCLE, Labelled, is_geographic
from .dimensions import Dimensions
from .places import (
    FARTHEST,
    SAME_PLACE,
    Place,
    difference,
    differs,
    horizontal_coordinates,
    places,
    shortest,
    side_by_side,
    tells_place,
)

#: Index of a dimension that is turned over.
REVERSED = slice(None, None, -1)

Pair = tuple[Place, Place]


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
        """Find the grid that `obj` lies on.

        Raises
        ------
        ValueError
            If a 1-D coordinate that rows or columns are known by is missing somewhere or turns
            back, or rows lie along a longitude and columns along a latitude.
        """
        coords = horizontal_coordinates(obj, (dims.y, dims.x))
        along = dict(zip((dims.y, dims.x), FARTHEST, strict=True))
        kinds = [[p.kind for p in places(coords, dim, kind)][:1] for dim, kind in along.items()]
        if kinds == [["longitude"], ["latitude"]]:
            raise ValueError(
                f"horizontal=({dims.y!r}, {dims.x!r}) are rows and columns, but {dims.y!r} lies "
                f"along a longitude: give horizontal=({dims.x!r}, {dims.y!r})"
            )
        descending = []
        for dim, kind in along.items():
            descending.append(_descends(coords, dim, kind))
            if descending[-1]:
                coords = coords.isel({dim: REVERSED})
        sizes = (obj.sizes[dims.y], obj.sizes[dims.x])
        if periodic is None:
            periodic = _covers_globe(coords, dims.x)
        return cls(dims.y, dims.x, sizes, coords, (descending[0], descending[1]), periodic)

    @property
    def dims(self) -> tuple[str, str]:
        """Its two dimensions, that of rows first."""
        return self.y, self.x

    @property
    def descending_dims(self) -> list[str]:
        """Those of its dimensions along which the fitted data's own coordinates descend."""
        pairs = zip(self.dims, self.descending, strict=True)
        return [dim for dim, descends in pairs if descends]

    def turned(self, obj: xr.DataArray) -> xr.DataArray:
        """Turn a field over along the dimensions along which the fitted data descend."""
        return obj.isel(dict.fromkeys(self.descending_dims, REVERSED))

    def indexers(self, obj: Labelled) -> dict[str, Any]:
        """Find where along `obj` the rows and columns of this grid lie.

        Coordinates may come in any order, 2-D ones turned over or rolled along x, and longitudes
        modulo 360. Without a coordinate on one of the two sides, rows and columns are taken to lie
        as in the fitted data, north-to-south included.

        Raises
        ------
        ValueError
            Naming the coordinate and the first difference, if `obj` lies on another grid.
        """
        for dim, size in zip(self.dims, self.sizes, strict=True):
            if dim not in obj.dims:
                raise ValueError(
                    f"the data have no dimension {dim!r}; the fitted grid has ({self.y}, {self.x})"
                )
            if obj.sizes[dim] != size:
                raise ValueError(
                    f"dimension {dim!r} has {obj.sizes[dim]} points; the fitted grid has {size}"
                )
        given = horizontal_coordinates(obj, self.dims)
        flat = _flat_pairs(self.coords, given)
        is_covered = {pair[0].kind for pair in flat} >= FARTHEST.keys()
        pairs, orders = [], {}
        for dim, kind, descends in zip(self.dims, FARTHEST, self.descending, strict=True):
            along = _pairs_along(self.coords, given, dim, kind, is_covered=is_covered)
            came = [REVERSED, slice(None)] if descends else [slice(None), REVERSED]
            orders[dim] = [*(_as_slice(_match(*pair)) for pair in along), *came]
            pairs += along
        return _choose([*pairs, *flat], orders, self.x)

    def area_weights(self) -> xr.DataArray:
        """Return cos(latitude) of each pixel's own latitude, (y, x), ascending; NaN if missing."""
        for coordinate in self.coords.coords.values():
            if is_geographic(coordinate, "latitude"):
                latitude = Place.of(coordinate).variable
                latitude = latitude.where(np.abs(latitude) <= FARTHEST["latitude"] + SAME_PLACE)
                sizes = dict(zip(self.dims, self.sizes, strict=True))
                weights = np.cos(np.deg2rad(latitude)).clip(0).set_dims(sizes)
                return xr.DataArray(weights.transpose(*self.dims), name=coordinate.name)
        raise ValueError(
            'weights="area" needs a latitude in degrees or radians among the coordinates '
            f"({', '.join(map(str, self.coords.coords)) or 'there is none'}): give the weights as "
            "a DataArray"
        )


def _as_slice(order: np.ndarray) -> Any:
    """Return an order as a slice where it is one, so that lazy data stay in few chunks."""
    n = len(order)
    if np.array_equal(order, np.arange(n)):
        return slice(None)
    if np.array_equal(order, np.arange(n)[::-1]):
        return REVERSED
    return order


def _flat(coords: xr.Dataset, kind: str) -> Place | None:
    """Return the 2-D latitude or longitude, if there is one."""
    both = [c for c in coords.coords.values() if c.ndim == 2]
    return next((Place.of(c) for c in both if is_geographic(c, kind)), None)


def _descends(coords: xr.Dataset, dim: str, kind: str) -> bool:
    """Tell whether rows or columns descend: by a 1-D coordinate, else by most of a 2-D one's steps.

    A longitude may pass the date line or Greenwich. Along a track, where both latitude and
    longitude are 1-D, neither has to ascend.
    """
    along = places(coords, dim, kind)
    if sum(place.is_geographic for place in along) > 1:
        along = [place for place in along if place.is_monotonic()]
    if along:
        return _descends_throughout(along[0])
    flat = _flat(coords, kind)
    steps = np.zeros(0) if flat is None else flat.steps(dim)
    known = steps[np.isfinite(steps)]
    return bool(len(known)) and bool(np.median(known) < 0)


def _descends_throughout(place: Place) -> bool:
    if not place.is_numeric or place.variable.size < 2:
        return False
    values, steps = place.variable.values, place.steps(str(place.variable.dims[0]))
    if not np.isfinite(values).all():
        raise ValueError(f"coordinate {place.name!r} holds missing or infinite values")
    if not place.is_monotonic():
        at = int(np.argmax(np.sign(steps) != np.sign(steps[0])))
        raise ValueError(
            f"coordinate {place.name!r} neither ascends nor descends throughout: {values[at]} is "
            f"followed by {values[at + 1]}; sort the data with .sortby({place.name!r})"
        )
    return bool(steps[0] < 0)


def _covers_globe(coords: xr.Dataset, dim: str) -> bool:
    """Tell whether spacing times count is a full circle within half a cell, in most rows if 2-D."""
    along = [place for place in places(coords, dim, "longitude") if place.kind == "longitude"]
    longitude = along[0] if along else _flat(coords, "longitude")
    if longitude is None or not longitude.is_numeric or longitude.variable.sizes[dim] < 2:
        return False
    axis, n = longitude.variable.get_axis_num(dim), longitude.variable.sizes[dim]
    spacing = np.abs(np.atleast_1d(longitude.steps(dim).mean(axis=axis)))
    spacing = spacing[np.isfinite(spacing)]
    return 2 * int((np.abs(spacing * n - CIRCLE) <= spacing / 2).sum()) > len(spacing)


def _flat_pairs(fitted: xr.Dataset, given: xr.Dataset) -> list[Pair]:
    """Pair coordinates to be compared of which at least one is 2-D.

    A latitude or longitude is compared with the other side's, 1-D or 2-D; any other coordinate
    that tells places with the one of its name.
    """
    pairs: list[Pair] = []
    for kind in FARTHEST:
        one, other = (
            [Place.of(c) for c in coords.coords.values() if is_geographic(c, kind)]
            for coords in (fitted, given)
        )
        two = [(a, b) for a, b in product(one, other) if a.variable.ndim + b.variable.ndim > 2]
        if two:
            same_name = [pair for pair in two if pair[0].name == pair[1].name]
            pairs.append((same_name or two)[0])
    paired = {place.name for pair in pairs for place in pair}
    for name, c in fitted.coords.items():
        if c.ndim > 1 and name in given.coords and name not in paired and tells_place(c):
            pairs.append((Place.of(c), Place.of(given[name])))
    return pairs


def _pairs_along(
    fitted: xr.Dataset, given: xr.Dataset, dim: str, kind: str, *, is_covered: bool
) -> list[Pair]:
    """Pair the 1-D coordinates of two grids along a dimension that are to be compared.

    An index of other numbers than latitudes or longitudes is compared only where nothing else, as
    2-D coordinates (`is_covered`), tells rows or columns; a ValueError if none can be compared.
    """
    a, b = places(fitted, dim, kind), places(given, dim, kind)
    pairs = [pair for pair in product(a, b) if pair[0].kind == pair[1].kind]
    geographic = [pair for pair in pairs if pair[0].is_geographic]
    if geographic:
        return geographic
    if is_covered:
        return []
    pairs = pairs or [pair for pair in product(a, b) if pair[0].name == pair[1].name]
    if a and b and not pairs:
        raise ValueError(
            f"along {dim!r} the data have the coordinate {b[0].name!r}, the fitted grid is known "
            f"by {a[0].name!r}: give the data that coordinate, or drop {b[0].name!r} if they lie "
            "as the fitted data came"
        )
    for one, other in pairs:
        if units.differ(one.units, other.units):
            raise ValueError(
                f"coordinate {other.name!r} is in {other.units!r}, that of the fitted grid in "
                f"{one.units!r}: convert it first"
            )
    return pairs


def _match(fitted: Place, given: Place) -> np.ndarray:
    """Find the position in `given` of each label of `fitted`, both 1-D.

    Labels may come in any order, if no two are alike. If they differ, it is the likeliest one.
    """
    forwards = np.arange(fitted.variable.size)
    dim = str(given.variable.dims[0])
    orders = [forwards, forwards[::-1]]
    if np.array_equal(fitted.variable.values, given.variable.values[::-1]):
        orders.reverse()  # cells half a circle apart are the same longitudes either way
    for order in orders:
        if not differs(fitted, given, {dim: order}).any():
            return order
    if not (fitted.is_numeric and given.is_numeric and len(forwards) > 1):
        return forwards
    a, b = fitted.variable.values, given.variable.values
    turned = forwards[::-1] if (a[0] < a[-1]) != (b[0] < b[-1]) else forwards
    if fitted.circle:  # from just below the first label, so that rounding does not split it
        base = a[0] - SAME_PLACE * fitted.spacing()[0]
        a, b = (a - base) % fitted.circle, (b - base) % fitted.circle
    order_a, order_b = np.argsort(a, kind="stable"), np.argsort(b, kind="stable")
    if not (np.diff(a[order_a]) > SAME_PLACE * fitted.spacing().min()).all():
        return turned  # as on an encoding grid, whose outer cells go on around the globe
    order = order_b[np.argsort(order_a, kind="stable")]
    return turned if differs(fitted, given, {dim: order}).any() else order


def _choose(pairs: Sequence[Pair], orders: Mapping[str, list[Any]], x: str) -> dict[str, Any]:
    """Choose the order of rows and columns under which all pairs, (fitted, given), agree.

    Of each dimension the likeliest of `orders` comes first; along x the data may be rolled. A
    ValueError names the first difference under the likeliest order.
    """
    tried = [dict(zip(orders, each, strict=True)) for each in product(*orders.values())]
    for order in (*tried, *_rolled(pairs, tried, x)):
        if not any(differs(*pair, order).any() for pair in pairs):
            return order
    first = next(pair for pair in pairs if differs(*pair, tried[0]).any())
    raise ValueError(difference(*first, tried[0]))


def _rolled(
    pairs: Sequence[Pair], orders: Sequence[dict[str, Any]], x: str
) -> Iterator[dict[str, Any]]:
    """Roll the data along x to where a complete row of a 2-D longitude has their first column."""
    flat = (pair for pair in pairs if min(p.variable.ndim for p in pair) > 1)
    longitude = next((pair for pair in flat if pair[0].kind == "longitude"), None)
    if longitude is None:
        return
    for order in orders:
        fitted, given = side_by_side(longitude[0].variable, longitude[1].variable, order)
        rows = np.flatnonzero(np.isfinite(fitted).all(1) & np.isfinite(given).all(1))
        if len(rows):
            apart = np.abs(shortest(fitted[rows[0]] - given[rows[0], 0], CIRCLE))
            columns = np.arange(len(apart))[order[x]]
            yield order | {x: np.roll(columns, int(apart.argmin()))}
