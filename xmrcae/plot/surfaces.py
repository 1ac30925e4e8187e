"""What fields are drawn on: plain axes along their own coordinates; maps are in `geographic`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..grid.conventions import is_geographic
from ..grid.coordinates import Grid
from ..grid.pyramid import Pyramid
from .text import label, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

#: To the four neighbours of a cell.
STEPS = (0, 1), (0, -1), (1, 0), (-1, 0)


@dataclass(frozen=True)
class Place:
    """Where the cells of a field (y, x) lie.

    `names` are the coordinates that it is drawn along, y and x, and `corners` (y + 1, x + 1) the
    cells' corners along these, as they are drawn. On a map, `torn` (y, x) are the cells that its
    edge cuts or hides, and `pieces` what is left of these: polygons, with their row and column.
    """

    field: xr.DataArray
    names: tuple[str, str]
    corners: tuple[np.ndarray, np.ndarray]
    torn: np.ndarray | None = None
    pieces: Sequence[tuple[np.ndarray, tuple[int, int]]] = ()


class Surface:
    """Plain axes that share their limits.

    `grid` is the finest level's; fields may lie on coarser ones, and have coordinates by position
    too. `subplot_kws` are handed on to each panel.
    """

    shape: float
    aspect: float

    def __init__(self, grid: Grid, subplot_kws: Mapping[str, Any]) -> None:
        self.grid, self.subplot_kws = grid, dict(subplot_kws)

    def place(self, field: xr.DataArray) -> Place:
        """Place a field along 1-D coordinates; else 2-D ones that do not fold; else positions."""
        grid, dims = self.grid, self.grid.dims
        names: list[Any] = [
            dim if dim in field.coords and field[dim].dtype.kind in "iuf" else found
            for dim, found in zip(dims, geographic_names(field.coords, dims), strict=True)
        ]
        curved = curved_names(grid)
        if None in names and None not in curved and min(field.shape) > 1:
            if all(_is_smooth(grid.coords[name].values) for name in curved):
                names = list(curved)
        y, x = (name or f"{dim} (position)" for name, dim in zip(names, dims, strict=True))
        field = field.transpose(*dims)
        if is_geographic(field[x], "longitude"):  # from 359 to 360, not to 0
            axis = field[x].get_axis_num(grid.x)
            near = np.unwrap(field[x].values, period=360, axis=axis)
            field = field.assign_coords({x: field[x].copy(data=near)})
        if field[x].ndim == 2:
            return Place(field, (y, x), (corners_of(field[y].values), corners_of(field[x].values)))
        return Place(field, (y, x), self._corners(field, (y, x)))

    def _corners(self, field: xr.DataArray, names: tuple[str, str]) -> tuple[Any, Any]:
        """Return the corners of cells along 1-D coordinates; a lone cell covers the data."""
        edges = []
        for dim_size, name in zip(self.grid.sizes, names, strict=True):
            values = field[name].values.astype(np.float64)
            if len(values) == 1:
                known = name in self.grid.coords.coords
                fine = self.grid.coords[name].values if known else np.arange(dim_size)
                half = float(fine[-1] - fine[0]) / 2 * dim_size / max(1, dim_size - 1) or 0.5
                edges.append(values[0] + np.array([-half, half]))
            else:
                middle = (values[1:] + values[:-1]) / 2
                ends = 1.5 * values[[0, -1]] - 0.5 * values[[1, -2]]
                edges.append(np.concatenate([ends[:1], middle, ends[1:]]))
        y, x = np.meshgrid(*edges, indexing="ij")
        return y, x

    def frame(self, places: Sequence[Place]) -> None:
        """Find how long a unit of y is drawn in units of x, and panels' height over width."""
        finest = max(places, key=lambda place: place.field.size)
        self.aspect, self.shape = true_to_scale(*(finest.field[name] for name in finest.names))

    def panel(self, fig: Any, cell: Any, first: Axes | None, *, left: bool, bottom: bool) -> Axes:
        """Add a panel, with labels on its left and at its bottom if they are to be there."""
        shared = {"sharex": first, "sharey": first, "aspect": self.aspect}
        ax = fig.add_subplot(cell, **shared | self.subplot_kws)
        ax.xaxis.label.set_visible(bottom)
        ax.yaxis.label.set_visible(left)
        ax.tick_params(labelbottom=bottom, labelleft=left)
        return ax

    def draw(self, ax: Axes, place: Place, title: str, **style: Any) -> QuadMesh:
        """Draw a field's cells, the missing ones in the colour map's colour for them."""
        (y, x), values = place.corners, np.ma.masked_invalid(place.field.values)
        mesh = ax.pcolormesh(x, y, values, rasterized=True, **style)
        ylabel, xlabel = (label(place.field[name]) for name in place.names)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        ax.set_title(title, fontsize="medium")
        latitude, _ = curved_names(self.grid)
        if latitude is not None and ylabel.endswith("(position)"):  # north is up nevertheless
            northwards = float(self.grid.coords[latitude].diff(self.grid.y).mean())
            ax.yaxis.set_inverted(northwards * (y[-1, 0] - y[0, 0]) < 0)
        return mesh


def geographic_names(coords: Any, dims: tuple[str, str]) -> tuple[Any, Any]:
    """Return the names of 1-D latitude and longitude; None where there is none."""
    return _named(coords, dims[:1], "latitude"), _named(coords, dims[1:], "longitude")


def curved_names(grid: Grid) -> tuple[Any, Any]:
    """Return the names of 2-D latitude and longitude; None where there is none."""
    coords, dims = grid.coords.coords, grid.dims
    return _named(coords, dims, "latitude"), _named(coords, dims, "longitude")


def _named(coords: Any, dims: Iterable[str], kind: str) -> Any:
    """Return the name of a numeric coordinate of this kind along dimensions, their own first."""
    along = [c for c in coords.values() if set(c.dims) == set(dims) and c.dtype.kind in "iuf"]
    names = [c.name for c in along if is_geographic(c, kind)]
    return min(names, key=lambda name: name not in dims, default=None)


def with_positions(
    field: xr.DataArray,
    pyramid: Pyramid,
    level: int,
    *,
    inside: bool = True,
) -> xr.DataArray:
    """Return a field with coordinates "<dim> (position)": rows and columns, counted on the data.

    The field is ascending, the data may descend. What has been cut out of a level by its
    coordinates gets none.
    """
    grid = pyramid.grid
    for i, (dim, axis) in enumerate(((grid.y, pyramid.y), (grid.x, pyramid.x))):
        at = axis.positions(level)[axis.inside(level)] if inside else axis.positions(level)
        at = grid.sizes[i] - 1 - at if grid.descending[i] else at
        if len(at) == field.sizes[dim]:
            field = field.assign_coords({f"{dim} (position)": (dim, at)})
    return field


def corners_of(centres: np.ndarray) -> np.ndarray:
    """Return the corners of cells on a curvilinear grid: means of the four centres around each.

    Beyond edges and beside NaN, centres are those of going on straight.
    """
    cells = np.pad(centres.astype(np.float64), 1, constant_values=np.nan)
    rows, columns = cells.shape
    for _ in range(2):  # along rows and columns, then aslant
        wide = np.pad(cells, 2, constant_values=np.nan)
        ahead = []
        for i, j in STEPS:
            near, far = (wide[2 + n * i :, 2 + n * j :][:rows, :columns] for n in (1, 2))
            ahead.append(2 * near - far)
        beyond = _mean_of_known(np.array(ahead))
        cells = np.where(np.isfinite(cells), cells, beyond)
    around = [cells[1:, 1:], cells[1:, :-1], cells[:-1, 1:], cells[:-1, :-1]]
    return _mean_of_known(np.array(around))


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Return the mean along the first axis, without NaN where there is any number."""
    known = np.isfinite(values).sum(0)
    return np.where(known > 0, np.nansum(values, 0) / np.maximum(known, 1), np.nan)


def true_to_scale(y: xr.DataArray, x: xr.DataArray) -> tuple[float, float]:
    """Return how long a unit of y is drawn in units of x, and the panel's height over width.

    It is drawn to scale where that is handy.
    """
    ratio = float(np.ptp(y.values) or 1) / float(np.ptp(x.values) or 1)
    aspect = 1.0
    if is_geographic(y, "latitude"):
        aspect = 1 / float(np.cos(np.deg2rad((y.max() + y.min()) / 2)).clip(0.2))
    same_units = text_of(x.attrs, "units") == text_of(y.attrs, "units")
    if not (same_units or is_geographic(x, "longitude")) or not 0.2 < aspect * ratio < 3:
        aspect = 0.6 / ratio
    return aspect, aspect * ratio


def _is_smooth(values: np.ndarray) -> bool:
    """Return whether no step between neighbours is far longer than most.

    A grid that folds or passes the date line has such steps.
    """
    steps = [np.abs(np.diff(values, axis=axis)) for axis in range(values.ndim)]
    return max(step.max() for step in steps) <= 10 * max(float(np.median(step)) for step in steps)
