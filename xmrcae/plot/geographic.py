"""Maps, by cartopy: fields on longitude and latitude, or on the coordinates of a projection.

Cells are brought onto the map here and not by cartopy, which has no grey for land where cells pass
the map's edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cartopy.crs as ccrs
import numpy as np
import xarray as xr
from matplotlib.path import Path

from ..grid.coordinates import Grid
from .surfaces import Place, Surface, corners_of, curved_names, geographic_names, true_to_scale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

#: Labelled meridians and parallels on a panel, at most about so many.
LINES = 6

#: The corners of a cell, one after the other around it.
AROUND = (0, 0), (0, 1), (1, 1), (1, 0)


class Map(Surface):
    """Maps in one projection.

    Fields are drawn along the coordinates `names`, y and x, which are in the CRS `source`. Without
    a `projection` the map is equidistant on parallels and meridians about the middle of the data.
    `valid` (y, x) tells where the finest level has no land, `coastlines` which coast to draw.
    """

    def __init__(
        self,
        grid: Grid,
        kws: Any,
        *,
        names: Any,
        source: Any,
        projection: Any,
        valid: Any,
        coastlines: Any,
    ) -> None:
        super().__init__(grid, kws)
        self.names, self.source, self.coastlines, self.valid = names, source, coastlines, valid
        self.geographic = isinstance(source, ccrs.PlateCarree)
        self.centre = _middle(valid[names[1]], grid) if self.geographic else 0.0
        #: Whether longitudes and latitudes are the map's own coordinates, but for where it is cut.
        self.plain = projection is None and self.geographic and valid[names[1]].ndim == 1
        own = ccrs.PlateCarree(central_longitude=self.centre) if self.geographic else source
        self.projection = projection or own

    def place(self, field: xr.DataArray) -> Place:
        """Place the cells of a field on the map."""
        y, x = self.names
        field = field.transpose(*self.grid.dims)
        if field[x].ndim == 2:
            latitude, longitude = (field[n].transpose(*field.dims).values for n in (y, x))
            corners = _corners_on_sphere(latitude, longitude)
        else:
            if self.geographic:
                near = np.unwrap(field[x].values.astype(np.float64), period=360)
                near += 360 * np.round((self.centre - near[len(near) // 2]) / 360)
                field = field.assign_coords({x: field[x].copy(data=near)})
                if not self.plain:  # cells beyond the seam lie on those of the other side
                    here = np.flatnonzero(np.abs(near - self.centre) <= 180)
                    field = field.isel({self.grid.x: here})
            latitude, longitude = np.meshgrid(field[y].values, field[x].values, indexing="ij")
            corners = self._corners(field, self.names)
        if self.geographic:
            corners = corners[0].clip(-90, 90), corners[1]
        if self.plain:
            return Place(field, self.names, corners, np.zeros(field.shape, dtype=bool))
        return self._projected(field, corners, (latitude, longitude))

    def _projected(self, field: xr.DataArray, corners: Any, inner: Any) -> Place:
        """Bring corners to the map's coordinates; cut cells that its edge tears apart there."""
        y, x = (_snapped(values) for values in corners)
        to_map, source = self.projection.transform_points, self.source
        outer = to_map(source, x, y)[..., :2]
        centres = to_map(source, *(values.astype(float) for values in inner[::-1]))[..., :2]
        four = np.stack([outer[:-1, :-1], outer[:-1, 1:], outer[1:, 1:], outer[1:, :-1]])
        across = np.hypot(*np.moveaxis(four[2:] - four[:2], -1, 0)).max(0)
        off = np.hypot(*np.moveaxis(four.mean(0) - centres, -1, 0))
        torn = ~(off <= 0.25 * across)  # a corner may be nan
        pieces = [
            (piece, (i, j))
            for i, j in np.argwhere(torn & np.isfinite(four).any((0, 3))).tolist()
            for piece in self._cut(y[i : i + 2, j : j + 2], x[i : i + 2, j : j + 2])
        ]
        outer = np.where(np.isfinite(outer), outer, 0.0)
        return Place(field, self.names, (outer[..., 1], outer[..., 0]), torn, pieces)

    def _cut(self, y: np.ndarray, x: np.ndarray) -> list[np.ndarray]:
        """Cut a cell into polygons on the map."""
        from shapely.geometry import Polygon  # type: ignore[import-untyped]

        if not np.isfinite([y, x]).all():
            return []
        if self.geographic:
            x = x[0, 0] + (x - x[0, 0] + 180) % 360 - 180
        polygon = Polygon([(x[at], y[at]) for at in AROUND])
        if not polygon.is_valid:  # around a pole
            return []
        parts = self.projection.project_geometry(polygon, self.source).geoms
        return [np.asarray(part.exterior.coords) for part in parts]

    def frame(self, places: Sequence[Place]) -> None:
        """Find limits that hold all cells, as far as the map goes."""
        edges: list[np.ndarray] = []
        for place in places:
            (y, x), torn = place.corners, np.asarray(place.torn)
            whole = np.zeros(x.shape, dtype=bool)
            for i, j in AROUND:
                whole[i : i + torn.shape[0], j : j + torn.shape[1]] |= ~torn
            shown = np.stack([x[whole] - (self.centre if self.plain else 0), y[whole]], 1)
            edges += [shown, *(piece for piece, _ in place.pieces)]
        points = np.concatenate(edges)
        ends = np.array([self.projection.x_limits, self.projection.y_limits])
        self.limits = np.stack([points.min(0).clip(*ends.T), points.max(0).clip(*ends.T)], 1)
        width, height = np.diff(self.limits)[:, 0]
        self.aspect = 1.0
        if self.plain:
            finest = max(places, key=lambda place: place.field.size).field
            self.aspect, _ = true_to_scale(*(finest[name] for name in self.names))
        self.shape = float(self.aspect * height / width)

    def panel(self, fig: Any, cell: Any, first: Axes | None, *, left: bool, bottom: bool) -> Axes:
        """Add a panel with meridians and parallels, labelled where it is told to be."""
        ax = fig.add_subplot(cell, projection=self.projection, **self.subplot_kws)
        ax.set(xlim=self.limits[0], ylim=self.limits[1], aspect=self.aspect)
        labels = ["left"] * left + ["bottom"] * (bottom and not self._meridians_meet())
        line = {"linewidth": 0.4, "color": "0.4", "alpha": 0.5, "linestyle": ":"}
        outside = dict.fromkeys(("x_inline", "y_inline", "rotate_labels"), False)
        small = {f"{axis}label_style": {"size": "small"} for axis in "xy"}
        ax.gridlines(draw_labels=labels or False, **line, **outside, **small, **self._lines())
        return ax

    def _meridians_meet(self) -> bool:
        """Return whether meridians around the globe run together at the bottom of the map."""
        if not self.geographic:
            return False
        x = self.valid[self.names[1]].values
        x = np.unwrap(x, period=360) if x.ndim == 1 else x[np.isfinite(x)]
        at = self.centre + 60
        south, middle = (self.projection.transform_point(at, y, self.source)[0] for y in (-70, 0))
        return bool(np.ptp(x) > 300 and not np.isclose(south, middle))

    def _lines(self) -> dict[str, Any]:
        """Return where to draw meridians and parallels: cartopy errs across the date line."""
        from matplotlib.ticker import MaxNLocator

        if not self.geographic:
            return {}
        locator = MaxNLocator(max(2, round(LINES / max(1.0, self.shape))), steps=[1, 2, 3, 6, 10])
        y, x = (self.valid[name].values for name in self.names)
        x = self.centre + (x - self.centre + 180) % 360 - 180
        lines = []
        for values in (x, y):
            low, high = np.nanmin(values), np.nanmax(values)
            lines.append([at for at in locator.tick_values(low, high) if low <= at <= high])
        return {"xlocs": [(at + 180) % 360 - 180 for at in lines[0]], "ylocs": lines[1]}

    def draw(self, ax: Axes, place: Place, title: str, **style: Any) -> QuadMesh:
        """Draw a field's cells, and the coast."""
        from matplotlib.axes import Axes as PlainAxes
        from matplotlib.collections import PolyCollection
        from matplotlib.patches import PathPatch
        from matplotlib.transforms import Affine2D

        (y, x), torn = place.corners, np.asarray(place.torn)
        values = np.ma.masked_invalid(place.field.values.astype(np.float64))
        own = Affine2D().translate(-self.centre, 0) if self.plain else Affine2D()
        style |= {"transform": own + ax.transData, "rasterized": True}
        if torn.any():
            style["alpha"] = np.where(torn, 0.0, 1.0)
        # GeoAxes would bring the corners to the map once more
        mesh = PlainAxes.pcolormesh(ax, x, y, values, **style)
        if place.pieces:
            polygons, cells = zip(*place.pieces, strict=True)
            pieces = PolyCollection(polygons, antialiased=False, rasterized=True)
            pieces.set(cmap=mesh.get_cmap(), norm=mesh.norm, zorder=mesh.zorder)
            pieces.set_array(values[tuple(np.transpose(cells))])
            ax.add_collection(pieces, autolim=False)
        if self.coastlines == "data":
            line = {"edgecolor": "0.15", "linewidth": 0.5, "gid": "coast"}
            ax.add_artist(PathPatch(self._coast, fill=False, transform=style["transform"], **line))
        elif self.coastlines == "natural_earth":
            ax.coastlines(linewidth=0.5, color="0.15")  # type: ignore[attr-defined]
        ax.set_title(title, fontsize="medium")
        return mesh

    @cached_property
    def _coast(self) -> Path:
        """Sides of cells between land and what is not land."""
        place = self.place(self.valid)
        corners = np.stack([*place.corners[::-1]], -1)
        valid, torn = place.field.values.astype(bool), np.asarray(place.torn)
        sides = []
        for axis in (0, 1):
            keep = np.diff(valid, axis=axis)
            keep &= ~(np.delete(torn, 0, axis) | np.delete(torn, -1, axis))
            i, j = np.nonzero(keep)
            begin = (i + 1, j) if axis == 0 else (i, j + 1)
            sides.append(np.stack([corners[begin], corners[i + 1, j + 1]], 1))
        if self.grid.periodic:
            i = np.flatnonzero((valid[:, 0] != valid[:, -1]) & ~torn[:, 0])
            sides.append(np.stack([corners[i, 0], corners[i + 1, 0]], 1))
        ends = np.concatenate(sides).reshape(-1, 2)
        return Path(ends, np.tile([Path.MOVETO, Path.LINETO], len(ends) // 2))


def map_of(
    grid: Grid,
    valid: xr.DataArray,
    projection: Any,
    transform: Any,
    coastlines: str | None,
    kws: Any,
) -> Map | None:
    """Return the map for data on a grid; None for "auto" if they have no place on Earth."""
    automatic = isinstance(projection, str) and projection == "auto"
    if not (automatic or isinstance(projection, ccrs.Projection)):
        choices = '"auto", None for plain axes, or a projection of cartopy.crs'
        raise TypeError(f"projection={projection!r}: {choices}")
    if not (transform is None or isinstance(transform, ccrs.CRS)):
        choices = "the cartopy.crs that the data's coordinates are in, or None"
        raise TypeError(f"transform={transform!r}: {choices}")
    names: Any = _names_on_earth(grid) if transform is None else grid.dims
    if transform is not None and not set(names) <= set(grid.coords.coords):
        along = f"along {grid.y!r} and {grid.x!r}"
        raise ValueError(f"transform needs coordinates {along}; the data have none")
    if names is None:
        if automatic:
            return None
        got = ", ".join(map(str, grid.coords.coords)) or "no coordinates"
        raise ValueError(
            f"projection={type(projection).__name__}: the data have no longitude and latitude "
            f"({got}): give the cartopy.crs of their coordinates as transform, or no projection"
        )
    if automatic and transform is not None and not isinstance(transform, ccrs.Projection):
        kind = type(transform).__name__
        raise ValueError(f"transform={kind} is nothing to draw on: give a projection too")
    source = ccrs.PlateCarree() if transform is None else transform
    projection = None if automatic else projection
    how = {"names": names, "source": source, "projection": projection, "coastlines": coastlines}
    return Map(grid, kws, valid=valid, **how)


def _names_on_earth(grid: Grid) -> tuple[Any, Any] | None:
    """Return the names of latitude and longitude: along the dimensions, else 2-D."""
    for names in (geographic_names(grid.coords.coords, grid.dims), curved_names(grid)):
        if None not in names:
            degrees = np.nanmax(np.abs(grid.coords[names[0]].values)) < 90.01
            return names if degrees else None
    return None


def _snapped(values: np.ndarray) -> np.ndarray:
    """Drop rounding errors: cartopy cannot cut a cell that passes the map's edge by one."""
    unit = 10.0 ** np.floor(np.log10(np.nanmax(np.abs(values), initial=1e-300)) - 9)
    return np.round(values / unit) * unit


def _middle(longitude: xr.DataArray, grid: Grid) -> float:
    """Return the longitude in the middle of the data."""
    values = longitude.values.astype(np.float64)
    if values.ndim == 2:
        values = longitude.transpose(*grid.dims).values[len(values) // 2]
    values = np.unwrap(values[np.isfinite(values)], period=360)
    return float((values[0] + values[-1]) / 2) if len(values) else 0.0


def _corners_on_sphere(latitude: np.ndarray, longitude: np.ndarray) -> tuple[Any, Any]:
    """Return the corners of cells from their centres, across poles and any meridian."""
    phi, lam = (np.deg2rad(values.astype(np.float64)) for values in (latitude, longitude))
    vectors = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    x, y, z = (corners_of(vector) for vector in vectors)
    return np.rad2deg(np.arctan2(z, np.hypot(x, y))), np.rad2deg(np.arctan2(y, x))
