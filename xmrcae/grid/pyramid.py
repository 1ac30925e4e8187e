"""Padding, restriction, and the pyramid of levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from array_api_compat import array_namespace, device

from ..handover import Array
from ..stencils import RESTRICTIONS
from .conventions import period
from .coordinates import Grid
from .places import shortest


@dataclass(frozen=True)
class Axis:
    """One horizontal dimension.

    Attributes
    ----------
    size : int
        Points of the data.
    levels : int
        Number of levels.
    periodic : bool
        Whether the padding wraps.
    padded : int
        Points of the finest level, padding included.
    before : int
        Points of padding before the data.
    """

    size: int
    levels: int
    periodic: bool
    padded: int
    before: int

    @classmethod
    def of(cls, size: int, levels: int, periodic: bool) -> Axis:
        """Pad to ``2**levels * q - 1``: half on each side; an odd point goes last.

        On a periodic axis q is the least that leaves 3 wrapped points on each side.
        """
        unit = 2**levels
        padded = unit * math.ceil((size + 1 + 6 * periodic) / unit) - 1
        return cls(size, levels, periodic, padded, (padded - size) // 2)

    def refined(self, size: int, levels: int, first: int) -> Axis:
        """Return the axis of finer data that has this axis as a level.

        `first` is the position, in the finer data, of this axis's first point.
        """
        step = 2 ** (levels - self.levels)
        return Axis(
            size,
            levels,
            self.periodic,
            (self.padded + 1) * step - 1,
            (self.before + 1) * step - 1 - first,
        )

    def length(self, level: int) -> int:
        """Return the size of a level, padding included; -1 is the bottleneck."""
        return (self.padded + 1) // 2 ** (self.levels - 1 - level) - 1

    def inside(self, level: int) -> slice:
        """Return the points of a level that lie within the data's extent."""
        step = 2 ** (self.levels - 1 - level)
        return slice(self.before // step, (self.before + self.size) // step)

    def holds(self, level: int) -> slice:
        """Return the points of a level that may have data: inside, or in wrapped padding."""
        return slice(0, self.length(level)) if self.periodic else self.inside(level)

    def positions(self, level: int) -> np.ndarray:
        """Return where the points of a level lie, counted along the data.

        In the padding they are negative, or beyond the data.
        """
        step = 2 ** (self.levels - 1 - level)
        return (np.arange(self.length(level)) + 1) * step - 1 - self.before

    def source(self) -> np.ndarray:
        """Return, for each point of the finest level, the point of the data that it repeats."""
        positions = self.positions(self.levels - 1)
        return positions % self.size if self.periodic else positions.clip(0, self.size - 1)


@dataclass(frozen=True)
class Pyramid:
    """The levels of a grid: level 0 is the coarsest, levels - 1 the data's own.

    Attributes
    ----------
    grid : Grid
        The data's grid.
    levels : int
        Number of levels.
    y, x : Axis
        Its two dimensions.
    restriction : str
        A name in `RESTRICTIONS`: how a level follows from the next finer one.
    """

    grid: Grid
    levels: int
    y: Axis
    x: Axis
    restriction: str

    @classmethod
    def of(cls, grid: Grid, *, levels: int | None, restriction: str) -> Pyramid:
        """Make the pyramid over a grid.

        By default: as many levels as leave 4 bottleneck cells, 4 at most.

        Raises
        ------
        ValueError
            If the grid is too small for the levels.
        """
        if levels is None:
            levels = 1
            while levels < 4 and all(
                Axis.of(size, levels + 1, wraps).length(-1) >= 4
                for size, wraps in zip(grid.sizes, (False, grid.periodic), strict=True)
            ):
                levels += 1
        for dim, size in zip(grid.dims, grid.sizes, strict=True):
            if size < 2**levels:
                most = max(0, min(grid.sizes).bit_length() - 1)
                ways = f"at most levels={most}" if most else "a larger grid"
                raise ValueError(
                    f"levels={levels} needs at least {2**levels} points; dimension {dim!r} has "
                    f"{size}: choose {ways}"
                )
        y, x = Axis.of(grid.sizes[0], levels, False), Axis.of(grid.sizes[1], levels, grid.periodic)
        return cls(grid, levels, y, x, restriction)

    def refined(self, grid: Grid, *, levels: int | None) -> Pyramid:
        """Make the pyramid over another grid of which this one's levels are the coarsest.

        Raises
        ------
        ValueError
            If its coordinates do not take in this one's.
        """
        levels = self.levels if levels is None else levels
        step = 2 ** max(0, levels - self.levels)
        # The likeliest first: a coarse point is usually the last fine point of its cell.
        offsets = list(product(range(step - 1, -1, -1), repeat=2))
        why = [self._why_no_level(grid, step, at) for at in offsets]
        if levels < self.levels or all(why):
            raise ValueError(
                f"start: level {self.levels - 1} of levels={levels} over these data is not the "
                f"grid of the model to start from, taking every {step}. row and column, as in a "
                f"level of data.mrcae.pyramid(): {why[0]}"
            )
        first = offsets[why.index("")]
        y, x = (
            axis.refined(size, levels, at)
            for axis, size, at in zip((self.y, self.x), grid.sizes, first, strict=True)
        )
        return Pyramid(grid, levels, y, x, self.restriction)

    def _why_no_level(self, grid: Grid, step: int, first: Sequence[int]) -> str:
        """Say why every `step`-th row and column of another grid are not this one's, in its order.

        "" if they are.
        """
        every = {dim: slice(at, None, step) for dim, at in zip(grid.dims, first, strict=True)}
        points = xr.DataArray(
            np.broadcast_to(False, grid.sizes), grid.coords.coords, grid.dims
        ).isel(every)
        try:
            order = self.grid.indexers(points)
        except ValueError as error:
            return str(error)
        if grid.periodic != self.grid.periodic:
            return "one of the two is periodic"
        in_order = all(isinstance(at, slice) and at == slice(None) for at in order.values())
        return "" if in_order else "their order is another"

    def shape(self, level: int) -> tuple[int, int]:
        """Return the rows and columns of a level, padding included; -1 is the bottleneck."""
        return self.y.length(level), self.x.length(level)

    def cut(self, level: int) -> tuple[Any, ...]:
        """Return the index of the part of a level, (..., y, x), within the data's extent."""
        return (..., self.y.inside(level), self.x.inside(level))

    def pad(self, values: Array) -> Array:
        """Pad the data's extent, (..., y, x), to the finest level.

        Padding wraps where the axis is periodic, else it repeats the edge.
        """
        xp, before = array_namespace(values), values.shape[:-2]
        # One index of pixels takes half as long as one of rows and one of columns.
        sources = self.y.source()[:, None] * values.shape[-1] + self.x.source()
        pixels = xp.asarray(sources.ravel(), device=device(values))
        padded = xp.take(xp.reshape(values, (*before, -1)), pixels, axis=-1)
        return xp.reshape(padded, (*before, *sources.shape))

    def may_have_data(self, level: int) -> np.ndarray:
        """Return the points of a level within the data's extent, or in its wrapped padding."""
        mask = np.zeros(self.shape(level), dtype=bool)
        mask[self.y.holds(level), self.x.holds(level)] = True
        return mask

    def repeat_edge(self, values: Array, level: int) -> Array:
        """Fill the padding of a level, (..., y, x), that has no data from its edge."""
        rows, columns = (
            np.arange(axis.length(level)).clip(axis.holds(level).start, axis.holds(level).stop - 1)
            for axis in (self.y, self.x)
        )
        return values[..., rows[:, None], columns]

    def restrict(self, values: Array, has_data: Array, level: int) -> tuple[Array, Array]:
        """Make a level from the next finer one.

        Parameters
        ----------
        values : numpy.ndarray or Tensor, shape (..., y, x)
            Level `level` + 1, padding included; what has no data is not looked at.
        has_data : numpy.ndarray or Tensor of bool
            Where it has data; of the same shape or broadcast to it.
        level : int
            The level to make.

        Returns
        -------
        values, has_data : numpy.ndarray or Tensor
            Of level `level`; 0 where it has none. A point has data if any of those that its stencil
            reads has; their weights are divided by their sum.
        """
        xp, kind = array_namespace(values), {"dtype": values.dtype, "device": device(values)}
        stencil = RESTRICTIONS[self.restriction]
        values = xp.where(has_data, values, 0)
        rows, columns = shape = self.shape(level)
        coarse = xp.zeros((*values.shape[:-2], *shape), **kind)
        share = xp.zeros((*has_data.shape[:-2], *shape), **kind)
        for i, j in np.argwhere(stencil).tolist():
            part = (..., slice(i, i + 2 * rows - 1, 2), slice(j, j + 2 * columns - 1, 2))
            coarse += float(stencil[i, j]) * values[part]
            share += float(stencil[i, j]) * xp.astype(has_data[part], values.dtype)
        has = share > 0
        coarse /= xp.where(has, share, 1)
        has = has & xp.asarray(self.may_have_data(level), device=device(values))
        return xp.where(has, coarse, 0), has

    def points(self, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows, (y, 1), and columns of the data that are points of a level."""
        rows, columns = (axis.positions(level)[axis.inside(level)] for axis in (self.y, self.x))
        return rows[:, None], columns

    def coordinates(self, level: int) -> xr.Dataset:
        """Return coordinates of a level within the data's extent: a subset of the data's own."""
        rows, columns = (index.ravel() for index in self.points(level))
        along = {self.grid.y: rows, self.grid.x: columns}
        dims = self.grid.coords.dims
        return self.grid.coords.isel({dim: at for dim, at in along.items() if dim in dims})

    def encoding_coordinates(self, level: int) -> xr.Dataset:
        """Return the coordinates of a level's whole encoding grid.

        `inside` marks what lies in the data's extent. Outer cells carry the coordinate
        continued by its last spacing; a 2-D one is missing there: NaN, NaT, no text, False.
        """
        dims = {self.grid.y: self.y, self.grid.x: self.x}
        within = {dim: axis.inside(level - 1) for dim, axis in dims.items()}
        sizes = {dim: axis.length(level - 1) for dim, axis in dims.items()}
        result = {}
        for name, coordinate in self.grid.coords.coords.items():
            if coordinate.ndim == 1:
                axis, dim = dims[str(coordinate.dims[0])], coordinate.dims[0]
                values = _continued(
                    coordinate.values, axis.positions(level - 1), circle=period(coordinate)
                )
                result[name] = (dim, values, coordinate.attrs)
            else:
                values = _missing([sizes[str(dim)] for dim in coordinate.dims], coordinate.dtype)
                index = tuple(
                    dims[str(d)].positions(level - 1)[within[str(d)]] for d in coordinate.dims
                )
                values[tuple(within[str(d)] for d in coordinate.dims)] = coordinate.values[
                    np.ix_(*index)
                ]
                result[name] = (coordinate.dims, values, coordinate.attrs)
        inside = np.zeros(tuple(sizes.values()), dtype=bool)
        inside[tuple(within.values())] = True
        result["inside"] = (
            tuple(dims),
            inside,
            {"long_name": "cell lies within the extent of the data"},
        )
        return xr.Dataset(coords=result)


def _missing(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """Make an array of missing values of a type that can hold them.

    Whole numbers become float64.
    """
    if dtype.kind in "iu":
        return np.full(shape, np.nan)
    nothing = {"b": False, "M": "NaT", "m": "NaT", "U": "", "S": b"", "T": ""}.get(
        dtype.kind, np.nan
    )
    return np.full(shape, nothing, dtype=dtype)


def _continued(values: np.ndarray, positions: np.ndarray, *, circle: float | None) -> np.ndarray:
    """Continue a 1-D coordinate to positions along and beyond the data, by its last spacing."""
    n = len(values)
    result = values[positions.clip(0, n - 1)]
    if values.dtype.kind not in "iuf" or n < 2:
        return result
    # A longitude may pass the date line or Greenwich between its last two points.
    first, last = (
        shortest(step, circle) for step in (values[1] - values[0], values[-1] - values[-2])
    )
    before, after = positions < 0, positions >= n
    result[before] = values[0] + positions[before] * first
    result[after] = values[-1] + (positions[after] - n + 1) * last
    return result


def restrict_all(pyramid: Pyramid, values: Array, has_data: Array) -> Sequence[tuple[Array, Array]]:
    """Make all levels, coarsest first, from the padded finest one; each with where it has data."""
    result = [(values, has_data)]
    for level in range(pyramid.levels - 2, -1, -1):
        result.insert(0, pyramid.restrict(*result[0], level))
    return result


def restrict_known(pyramid: Pyramid, values: Array) -> list[Array]:
    """Make all levels, coarsest first, of fields (..., y, x) that may lack values: NaN.

    Each level is padded; a point is known if any that its stencil reads is.
    """
    xp, finest = array_namespace(values), pyramid.levels - 1
    within = xp.asarray(pyramid.may_have_data(finest), device=device(values))
    result = [xp.where(within, pyramid.pad(values), xp.nan)]
    for level in range(finest - 1, -1, -1):
        known = xp.isfinite(result[0])
        if known.ndim > 2 and bool(xp.all(known == known[:1])):
            known = known[:1]  # weights of one snapshot serve all: half the sums
        coarse, has = pyramid.restrict(result[0], known, level)
        result.insert(0, xp.where(has, coarse, xp.nan))
    return result
