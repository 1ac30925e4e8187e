"""What fields are drawn on: plain axes along their own coordinates here, maps in `maps`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..grid.coordinates import Grid, is_geographic
from .panels import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

#: To the four neighbours of a cell.
STEPS = (0, 1), (0, -1), (1, 0), (-1, 0)


@dataclass(frozen=True)
class Place:
    """A field (y, x), the names of what it is drawn along, and the corners of its cells (row + 1, column + 1)."""

    field: xr.DataArray
    y: str
    x: str
    corners: tuple[np.ndarray, np.ndarray]


class Surface:
    """Plain axes that share their limits.

    Parameters
    ----------
    grid : Grid
        Of the finest level; fields may lie on coarser ones. A field without coordinates along a dimension carries
        ``"<dim> (position)"``.
    subplot_kws : mapping
        Handed on to each panel.
    """

    shape: float
    aspect: float

    def __init__(self, grid: Grid, subplot_kws: Mapping[str, Any]) -> None:
        self.grid, self.subplot_kws = grid, dict(subplot_kws)

    def place(self, field: xr.DataArray) -> Place:
        """Along 1-D coordinates; else 2-D ones that do not fold; else positions."""
        grid, names = self.grid, list[Any]()
        for dim, kind in ((grid.y, "latitude"), (grid.x, "longitude")):
            flat = {name: c for name, c in field.coords.items() if c.dims == (dim,) and c.dtype.kind in "iuf"}
            names += [dim if dim in flat else next((n for n, c in flat.items() if is_geographic(c, kind)), None)]
        curved = [curved_name(grid, kind) for kind in ("latitude", "longitude")]
        if None in names and None not in curved and min(field.shape) > 1:
            if all(_is_smooth(grid.coords[name].values) for name in curved):
                names = curved
        y, x = (name or f"{dim} (position)" for name, dim in zip(names, (grid.y, grid.x), strict=True))
        field = field.transpose(grid.y, grid.x)
        if is_geographic(field[x], "longitude"):  # from 359 to 360, not to 0
            axis = field[x].get_axis_num(grid.x)
            field = field.assign_coords({x: field[x].copy(data=np.unwrap(field[x].values, period=360, axis=axis))})
        if field[x].ndim == 2:
            corners = corners_2d(field[y].values), corners_2d(field[x].values)
        else:
            corners = tuple(np.meshgrid(*(self._bounds(field, n) for n in (y, x)), indexing="ij"))
        return Place(field, y, x, corners)

    def _bounds(self, field: xr.DataArray, name: str) -> np.ndarray:
        """Where the cells along a 1-D coordinate begin and end; a lone one covers the data."""
        values = field[name].values.astype(np.float64)
        if len(values) > 1:
            return np.concatenate([
                [1.5 * values[0] - 0.5 * values[1]], (values[1:] + values[:-1]) / 2,
                [1.5 * values[-1] - 0.5 * values[-2]],
            ])  # fmt: skip
        if name in self.grid.coords.coords:
            fine = self.grid.coords[name].values.astype(np.float64)
        else:
            fine = np.arange(float(self.grid.sizes[field.get_axis_num(field[name].dims[0])]))
        half = (fine[-1] - fine[0]) / 2 * len(fine) / max(1, len(fine) - 1) or 0.5
        return values[0] + np.array([-half, half])

    def frame(self, places: Sequence[Place]) -> None:
        """Find out how long a unit of y is drawn, in units of x, and the height over width of the panels."""
        finest = max(places, key=lambda place: place.field.size)
        y, x = (finest.field[name] for name in (finest.y, finest.x))
        self.aspect, self.shape = true_to_scale(y, x)

    def panel(self, fig: Any, cell: Any, first: Axes | None, *, left: bool, bottom: bool) -> Axes:
        """A panel, with labels on its left and at its bottom if they are to be there."""
        ax = fig.add_subplot(cell, **{"sharex": first, "sharey": first} | self.subplot_kws)
        ax.xaxis.label.set_visible(bottom)
        ax.yaxis.label.set_visible(left)
        ax.tick_params(labelbottom=bottom, labelleft=left)
        return ax

    def draw(self, ax: Axes, place: Place, title: str, **style: Any) -> QuadMesh:
        """The field's cells, the missing ones in the colour map's colour for them."""
        y, x = place.corners
        mesh = ax.pcolormesh(x, y, np.ma.masked_invalid(place.field.values), rasterized=True, **style)
        ax.set(xlabel=label(place.field[place.x]), ylabel=label(place.field[place.y]))
        ax.set_title(title, fontsize="medium")
        return mesh

    def finish(self, axes: Sequence[Axes]) -> None:
        """Show all of every panel, to scale and with north up."""
        for ax in axes:
            ax.set_aspect(self.aspect)
        axes[0].autoscale()  # which all share
        latitude = curved_name(self.grid, "latitude")
        if latitude is not None and axes[0].get_ylabel().endswith("(position)"):
            northwards = self.grid.coords[latitude].transpose(self.grid.y, self.grid.x).diff(self.grid.y)
            axes[0].yaxis.set_inverted(bool(northwards.mean() < 0))


def surface_of(
    grid: Grid, valid: xr.DataArray, *, projection: Any, transform: Any, coastlines: str | None, subplot_kws: Any
) -> Surface:
    """What fields on a grid and its coarser levels are drawn on.

    Parameters
    ----------
    grid : Grid
        The finest level's.
    valid : xarray.DataArray of bool, (y, x)
        Pixels that are not land, with the coordinates of the finest level.
    projection, transform, coastlines, subplot_kws
        As :meth:`xmrcae.plot.ModelPlots.refinement` takes them.

    Raises
    ------
    ValueError, TypeError
        If one of them is not what it may be, or there is a projection for data that have no place on Earth.
    """
    choices = ("data", "natural_earth", None)
    if coastlines not in choices:
        raise ValueError(f"coastlines={coastlines!r} is not an option; choose from {choices}")
    kws = dict(subplot_kws or {})
    given = kws.pop("projection", "auto")
    projection = given if isinstance(projection, str) and projection == "auto" else projection
    if projection is None:
        return Surface(grid, kws)
    try:
        from .maps import map_of
    except ImportError:  # cartopy
        if not isinstance(projection, str) or transform is not None:
            raise
        return Surface(grid, kws)
    return map_of(grid, valid, projection, transform, coastlines, kws) or Surface(grid, kws)


def curved_name(grid: Grid, kind: str) -> Any:
    """Name of the 2-D latitude or longitude."""
    coords = grid.coords.coords
    return next((name for name, c in coords.items() if c.ndim == 2 and is_geographic(c, kind)), None)


def positions(dims: Sequence[str], at: Sequence[np.ndarray]) -> dict[str, Any]:
    """Coordinates of a grid that has none: where rows and columns lie, counted along the data."""
    return {f"{dim} (position)": (dim, values) for dim, values in zip(dims, at, strict=True)}


def corners_2d(centres: np.ndarray) -> np.ndarray:
    """Corners of cells from their centres, (row, column): means of four, going on straight at edges and beside NaN."""
    cells = np.pad(centres.astype(np.float64), 1, constant_values=np.nan)
    rows, columns = cells.shape
    for _ in range(2):  # along rows and columns, then aslant
        wide = np.pad(cells, 2, constant_values=np.nan)
        near, far = (
            [wide[2 + n * i : 2 + n * i + rows, 2 + n * j : 2 + n * j + columns] for i, j in STEPS] for n in (1, 2)
        )
        cells = np.where(np.isfinite(cells), cells, _mean_of_known(2 * np.array(near) - np.array(far)))
    return _mean_of_known(np.array([cells[1:, 1:], cells[1:, :-1], cells[:-1, 1:], cells[:-1, :-1]]))


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean along the first axis, without NaN where there is any number."""
    known = np.isfinite(values).sum(0)
    return np.where(known > 0, np.nansum(values, 0) / np.maximum(known, 1), np.nan)


def true_to_scale(y: xr.DataArray, x: xr.DataArray) -> tuple[float, float]:
    """How long a unit of y is drawn, in units of x, to scale where that is handy; and the map's height over width."""
    ratio = float(np.ptp(y.values) or 1) / float(np.ptp(x.values) or 1)
    aspect = 1.0
    if is_geographic(y, "latitude"):
        aspect = 1 / float(np.cos(np.deg2rad((y.max() + y.min()) / 2)).clip(0.2))
    alike = is_geographic(x, "longitude") or y.attrs.get("units") == x.attrs.get("units")
    if not alike or not 0.2 < aspect * ratio < 3:
        aspect = 0.6 / ratio
    return aspect, aspect * ratio


def _is_smooth(values: np.ndarray) -> bool:
    """Whether no step between neighbours is far longer than most: not on a grid that folds or passes the date line."""
    steps = [np.abs(np.diff(values, axis=axis)) for axis in range(values.ndim)]
    return max(step.max() for step in steps) <= 10 * max(float(np.median(step)) for step in steps)
