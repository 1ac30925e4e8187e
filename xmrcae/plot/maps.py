"""Maps, by cartopy: fields on longitude and latitude, or on the coordinates of a projection.

Cells are brought onto the map here and not by cartopy, which has no grey for land where cells pass the map's edge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from matplotlib.path import Path

from ..grid.coordinates import Grid, is_geographic
from .surfaces import Place, Surface, corners_2d, curved_name, true_to_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

#: Labelled meridians and parallels on a panel, at most about so many.
LINES = 6


@dataclass(frozen=True)
class Mapped(Place):
    """A field, the corners of its cells on the map, and the cells that the map's edge cuts, as polygons on the map."""

    torn: np.ndarray
    pieces: list[np.ndarray]
    owners: list[tuple[int, int]]


class Map(Surface):
    """Maps in one projection.

    Parameters
    ----------
    names : (str, str)
        The coordinates that fields are drawn along, y and x.
    source : cartopy.crs.CRS
        Theirs.
    projection : cartopy.crs.Projection, optional
        Equidistant on parallels and meridians about the middle of the data without it.
    valid : xarray.DataArray of bool, (y, x)
        What is not land, on the finest level.
    coastlines : {"data", "natural_earth", None}
        Which to draw.
    """

    def __init__(
        self, grid: Grid, subplot_kws: Mapping[str, Any], *, names: tuple[Any, Any], source: Any, projection: Any,
        valid: xr.DataArray, coastlines: str | None,
    ) -> None:  # fmt: skip
        super().__init__(grid, subplot_kws)
        self.names, self.source, self.coastlines = names, source, coastlines
        self.geographic = isinstance(source, ccrs.PlateCarree)
        self.centre = _middle(valid[names[1]], grid) if self.geographic else 0.0
        #: Whether longitudes and latitudes are the map's own coordinates, but for where it is cut.
        self.plain = projection is None and self.geographic and valid[names[1]].ndim == 1
        self.projection = projection or (ccrs.PlateCarree(central_longitude=self.centre) if self.geographic else source)
        self._valid = valid
        self._finest = self.place(valid)

    def place(self, field: xr.DataArray) -> Place:
        """The cells of a field on the map."""
        y, x = self.names
        field = field.transpose(self.grid.y, self.grid.x)
        if field[x].ndim == 1:
            if self.geographic:
                near = np.unwrap(field[x].values.astype(np.float64), period=360)
                near += 360 * np.round((self.centre - near[len(near) // 2]) / 360)
                field = field.assign_coords({x: field[x].copy(data=near)})
                if not self.plain:  # cells beyond the seam lie on those of the other side
                    field = field.isel({self.grid.x: np.flatnonzero(np.abs(near - self.centre) <= 180)})
            below, left = np.meshgrid(*(self._bounds(field, n) for n in (y, x)), indexing="ij")
            inner = list(np.meshgrid(field[y].values, field[x].values, indexing="ij"))
        else:
            latitude, longitude = (field[n].transpose(self.grid.y, self.grid.x).values for n in (y, x))
            below, left = _corners_on_sphere(latitude, longitude)
            inner = [latitude, longitude]
        if self.geographic:
            below = below.clip(-90, 90)
        place = Place(field, y, x, (below, left))
        if self.plain:
            return Mapped(**vars(place), torn=np.zeros(field.shape, dtype=bool), pieces=[], owners=[])
        return self._projected(place, inner)

    def _projected(self, place: Place, inner: Sequence[np.ndarray]) -> Mapped:
        """Corners in the map's coordinates; cells that its edge tears apart are cut there."""
        y, x = (_snapped(corners) for corners in place.corners)
        outer = self.projection.transform_points(self.source, x, y)[..., :2]
        centres = self.projection.transform_points(self.source, inner[1].astype(float), inner[0].astype(float))[..., :2]
        four = np.stack([outer[:-1, :-1], outer[:-1, 1:], outer[1:, 1:], outer[1:, :-1]])
        across = np.hypot(*np.moveaxis(four[2:] - four[:2], -1, 0)).max(0)
        off = np.hypot(*np.moveaxis(four.mean(0) - centres, -1, 0))
        torn = ~(off <= 0.25 * across)  # a corner may be nan
        there = torn & np.isfinite(four).any((0, 3))
        pieces, owners = [], []
        for i, j in np.argwhere(there):
            for piece in self._cut(y[i : i + 2, j : j + 2], x[i : i + 2, j : j + 2]):
                pieces.append(piece)
                owners.append((int(i), int(j)))
        outer = np.where(np.isfinite(outer), outer, 0.0)
        return Mapped(place.field, place.y, place.x, (outer[..., 1], outer[..., 0]), torn, pieces, owners)

    def _cut(self, y: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
        """A cell as polygons on the map."""
        from shapely.geometry import Polygon  # type: ignore[import-untyped]

        if not np.isfinite([y, x]).all():
            return []
        if self.geographic:
            x = x[0, 0] + (x - x[0, 0] + 180) % 360 - 180
        around = [(0, 0), (0, 1), (1, 1), (1, 0)]
        polygon = Polygon([(x[at], y[at]) for at in around])
        if not polygon.is_valid:  # around a pole
            return []
        return [
            np.asarray(part.exterior.coords) for part in self.projection.project_geometry(polygon, self.source).geoms
        ]

    def frame(self, places: Sequence[Place]) -> None:
        """Limits that hold all cells, as far as the map goes."""
        edges: list[np.ndarray] = []
        for place in places:
            assert isinstance(place, Mapped)
            y, x = place.corners
            whole = np.zeros(x.shape, dtype=bool)
            for i, j in ((0, 0), (0, 1), (1, 1), (1, 0)):
                whole[i : i + place.torn.shape[0], j : j + place.torn.shape[1]] |= ~place.torn
            edges += [np.stack([x[whole] - (self.centre if self.plain else 0), y[whole]], 1), *place.pieces]
        points = np.concatenate(edges)
        limits = np.array([self.projection.x_limits, self.projection.y_limits])
        self.limits = np.stack([points.min(0).clip(*limits.T), points.max(0).clip(*limits.T)], 1)
        width, height = np.diff(self.limits)[:, 0]
        self.aspect = 1.0
        if self.plain:
            finest = max(places, key=lambda place: place.field.size).field
            self.aspect = true_to_scale(finest[self.names[0]], finest[self.names[1]])[0]
        self.shape = float(self.aspect * height / width)

    def panel(self, fig: Any, cell: Any, first: Axes | None, *, left: bool, bottom: bool) -> Axes:
        """A panel with meridians and parallels, labelled where it is told to be."""
        ax = fig.add_subplot(cell, projection=self.projection, **self.subplot_kws)
        ax.set_xlim(*self.limits[0])
        ax.set_ylim(*self.limits[1])
        ax.set_aspect(self.aspect)
        labels = [*(["left"] if left else []), *(["bottom"] if bottom and not self._meridians_meet() else [])]
        style = {"size": "small"}
        ax.gridlines(
            draw_labels=labels or False, linewidth=0.4, color="0.4", alpha=0.5, linestyle=":", x_inline=False,
            y_inline=False, rotate_labels=False, xlabel_style=style, ylabel_style=style, **self._lines(),
        )  # fmt: skip
        return ax

    def _meridians_meet(self) -> bool:
        """Whether meridians all around the globe run together at the bottom of the map, and labels with them."""
        if not self.geographic:
            return False
        x = self._valid[self.names[1]].values
        south, middle = (self.projection.transform_point(self.centre + 60, at, self.source)[0] for at in (-70, 0))
        around = np.ptp(np.unwrap(x, period=360, axis=-1)) > 300 if x.ndim == 1 else np.ptp(x[np.isfinite(x)]) > 300
        return bool(around and not np.isclose(south, middle))

    def _lines(self) -> dict[str, Any]:
        """Where meridians and parallels lie: cartopy's own choice knows no map across the date line."""
        from matplotlib.ticker import MaxNLocator

        if not self.geographic:
            return {}
        locator = MaxNLocator(max(2, round(LINES / max(1.0, self.shape))), steps=[1, 2, 3, 6, 10])
        y, x = (self._valid[name].values for name in self.names)
        x = self.centre + (x - self.centre + 180) % 360 - 180
        xlocs, ylocs = (
            [at for at in locator.tick_values(np.nanmin(values), np.nanmax(values))
             if np.nanmin(values) <= at <= np.nanmax(values)]
            for values in (x, y)
        )  # fmt: skip
        return {"xlocs": [(at + 180) % 360 - 180 for at in xlocs], "ylocs": ylocs}

    def draw(self, ax: Axes, place: Place, title: str, **style: Any) -> QuadMesh:
        """The field's cells, and the coast."""
        from matplotlib.axes import Axes as PlainAxes
        from matplotlib.collections import PolyCollection
        from matplotlib.patches import PathPatch

        assert isinstance(place, Mapped)
        y, x = place.corners
        values = np.ma.masked_invalid(place.field.values.astype(np.float64))
        alpha: Any = np.where(place.torn, 0.0, 1.0) if place.torn.any() else None
        transform = self._transform(ax)
        # GeoAxes would bring the corners to the map once more
        mesh = PlainAxes.pcolormesh(ax, x, y, values, rasterized=True, alpha=alpha, transform=transform, **style)
        if place.pieces:
            rows, columns = np.transpose(place.owners)
            pieces = PolyCollection(
                place.pieces,
                cmap=mesh.get_cmap(),
                norm=mesh.norm,
                antialiased=False,
                rasterized=True,
                zorder=mesh.zorder,
            )
            pieces.set_array(values[rows, columns])
            ax.add_collection(pieces, autolim=False)
        if self.coastlines == "data":
            style = {"fill": False, "edgecolor": "0.15", "linewidth": 0.5, "gid": "coast"}
            ax.add_artist(PathPatch(self._coast, transform=transform, **style))
        elif self.coastlines == "natural_earth":
            ax.coastlines(linewidth=0.5, color="0.15")  # type: ignore[attr-defined]
        ax.set_title(title, fontsize="medium")
        return mesh

    def _transform(self, ax: Axes) -> Any:
        from matplotlib.transforms import Affine2D

        return Affine2D().translate(-self.centre, 0) + ax.transData if self.plain else ax.transData

    @cached_property
    def _coast(self) -> Path:
        """Sides of cells between land and what is not land."""
        place = self._finest
        assert isinstance(place, Mapped)
        corners = np.stack([*place.corners[::-1]], -1)
        valid, torn = place.field.values.astype(bool), place.torn
        sides = []
        for axis in (0, 1):
            keep = np.diff(valid, axis=axis) & ~(np.delete(torn, 0, axis) | np.delete(torn, -1, axis))
            i, j = np.nonzero(keep)
            begin = (i + 1, j) if axis == 0 else (i, j + 1)
            sides.append(np.stack([corners[begin], corners[i + 1, j + 1]], 1))
        if self.grid.periodic:
            i = np.flatnonzero((valid[:, 0] != valid[:, -1]) & ~torn[:, 0])
            sides.append(np.stack([corners[i, 0], corners[i + 1, 0]], 1))
        ends = np.concatenate(sides).reshape(-1, 2)
        return Path(ends, np.tile([Path.MOVETO, Path.LINETO], len(ends) // 2))

    def finish(self, axes: Sequence[Axes]) -> None:
        """Nothing is left to do: each panel has its limits."""


def map_of(
    grid: Grid, valid: xr.DataArray, projection: Any, transform: Any, coastlines: str | None, subplot_kws: Any
) -> Map | None:
    """The map for data on a grid; None if they have no place on Earth, and no projection is asked for."""
    automatic = isinstance(projection, str) and projection == "auto"
    if not (automatic or isinstance(projection, ccrs.Projection)):
        raise TypeError(f'projection={projection!r}: "auto", None for plain axes, or a projection of cartopy.crs')
    if not (transform is None or isinstance(transform, ccrs.CRS)):
        raise TypeError(f"transform={transform!r}: the cartopy.crs that the data's coordinates are in, or None")
    names: Any = (grid.y, grid.x) if transform is not None else _geographic_names(grid)
    if transform is not None and not set(names) <= set(grid.coords.coords):
        raise ValueError(f"transform needs coordinates along {grid.y!r} and {grid.x!r}; the data have none")
    if names is None:
        if automatic:
            return None
        raise ValueError(
            f"projection={type(projection).__name__}: the data have no longitude and latitude "
            f"({', '.join(map(str, grid.coords.coords)) or 'no coordinates'}): give the cartopy.crs of their "
            "coordinates as transform, or leave projection out"
        )
    source = ccrs.PlateCarree() if transform is None else transform
    if automatic and transform is not None and not isinstance(transform, ccrs.Projection):
        raise ValueError(f"transform={type(transform).__name__} is nothing to draw on: give a projection too")
    return Map(
        grid, subplot_kws, names=names, source=source, projection=None if automatic else projection, valid=valid,
        coastlines=coastlines,
    )  # fmt: skip


def _geographic_names(grid: Grid) -> tuple[Any, Any] | None:
    """Names of latitude and longitude: along the dimensions, else 2-D."""
    names: list[Any] = []
    for dim, kind in ((grid.y, "latitude"), (grid.x, "longitude")):
        flat = [n for n, c in grid.coords.coords.items() if c.dims == (dim,) and is_geographic(c, kind)]
        names.append(dim if dim in flat else next(iter(flat), None))
    if None in names:
        names = [curved_name(grid, kind) for kind in ("latitude", "longitude")]
    if None in names:
        return None
    latitude = grid.coords[names[0]].values
    known = latitude.dtype.kind in "iuf" and grid.coords[names[1]].dtype.kind in "iuf"
    return (names[0], names[1]) if known and np.nanmax(np.abs(latitude)) < 90.01 else None


def _snapped(values: np.ndarray) -> np.ndarray:
    """Without rounding errors: cartopy cannot cut a cell that passes the map's edge by one."""
    unit = 10.0 ** np.floor(np.log10(np.nanmax(np.abs(values), initial=1e-300)) - 9)
    return np.round(values / unit) * unit


def _middle(longitude: xr.DataArray, grid: Grid) -> float:
    """The longitude in the middle of the data."""
    values = longitude.values.astype(np.float64)
    if values.ndim == 2:
        values = longitude.transpose(grid.y, grid.x).values[len(values) // 2]
    values = np.unwrap(values[np.isfinite(values)], period=360)
    return float((values[0] + values[-1]) / 2) if len(values) else 0.0


def _corners_on_sphere(latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of cells from their centres, whatever poles or meridians lie between them."""
    phi, lam = (np.deg2rad(values.astype(np.float64)) for values in (latitude, longitude))
    vectors = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    x, y, z = (corners_2d(vector) for vector in vectors)
    return np.rad2deg(np.arctan2(z, np.hypot(x, y))), np.rad2deg(np.arctan2(y, x))
