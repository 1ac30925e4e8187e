"""Maps: every cell where it lies on Earth, coasts from the data, labels apart, and nothing downloaded."""

import socket
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn

import cartopy
import cartopy.crs as ccrs
import numpy as np
import pytest
import xarray as xr
from cartopy.mpl.geoaxes import GeoAxes
from cartopy.mpl.gridliner import Gridliner
from helpers import NEMO, make_field, open_real
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from plots import bars, drawn, mesh_of, panels

import xmrcae
from xmrcae.plot import LAND

pytestmark = [pytest.mark.minimum, pytest.mark.usefixtures("no_trace")]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No socket opens, and no shapes from an earlier download are at hand."""

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise OSError("a plot reached for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for name in ("data_dir", "pre_existing_data_dir", "repo_data_dir"):
        monkeypatch.setitem(cartopy.config, name, tmp_path)


def snapshot(
    *, shape: tuple[int, int] = (16, 24), first: float = 0.0, globe: bool = True
) -> xr.DataArray:
    """A field at one time, no two cells alike; its longitudes begin at `first`."""
    field = make_field(n_times=1, shape=shape, globe=globe)
    ramp = np.random.default_rng(0).permutation(field[0].size).reshape(field[0].shape)
    field = field.copy(data=np.where(field.isnull(), np.nan, ramp[None]).astype(np.float32))
    lon = (field["lon"].values + first + 180) % 360 - 180
    lat = field["lat"].values if globe else np.linspace(40, 60, shape[0])
    return field.assign_coords(
        lon=("lon", lon, field["lon"].attrs), lat=("lat", lat, field["lat"].attrs)
    )


def tripolar(real_file: Callable[[str], Path]) -> xr.DataArray:
    """Every tenth row and column of a grid that folds over the Arctic."""
    field = open_real(real_file, NEMO)["tos"].rename(time_counter="time")
    return field.isel(y=slice(None, None, 10), x=slice(None, None, 10))


def draw(field: xr.DataArray, **kwargs: Any) -> Figure:
    tree = field.mrcae.pyramid(levels=2, sample="time").isel(time=0)
    fig = Figure(figsize=(14, 5), dpi=60, layout="constrained")
    FigureCanvasAgg(fig)
    return xmrcae.plot.pyramid(tree, fig=fig, **kwargs)


def coasts(ax: Any) -> list[Any]:
    return [artist for artist in ax.get_children() if artist.get_gid() == "coast"]


def wrong_pixels(
    fig: Figure, field: xr.DataArray, latitude: str, longitude: str
) -> tuple[float, int]:
    """Share of the field's cells whose centre has not the cell's colour on the last panel, and how many are on it."""
    ax = panels(fig)[-1]
    meridians = [artist for artist in ax.get_children() if isinstance(artist, Gridliner)]
    for artist in [*coasts(ax), *meridians]:
        artist.remove()
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())[::-1]
    stacked = field.isel(time=0).stack(cell=field.dims[1:])
    lon, lat = (stacked[name].values.astype(float) for name in (longitude, latitude))
    at = ax.projection.transform_points(ccrs.PlateCarree(), lon, lat)[:, :2]
    seen = np.isfinite(at).all(1)
    centres = ax.transData.transform(at[seen])
    around = [(3, 0), (-3, 0), (0, 3), (0, -3)]  # not on the edge itself
    seen[seen] = np.all([ax.patch.contains_points(centres + step) for step in around], axis=0)
    columns, rows = ax.transData.transform(at[seen]).astype(int).T
    expected = mesh_of(ax).cmap(mesh_of(ax).norm(np.ma.masked_invalid(stacked.values[seen])))
    return float((np.abs(pixels[rows, columns] / 255 - expected) > 0.02).any(1).mean()), int(
        seen.sum()
    )


@pytest.mark.parametrize(
    ("first", "globe", "turned", "projection"),
    [
        (0.0, True, False, "auto"),
        (-180.0, True, True, "auto"),
        (165.0, False, False, "auto"),
        (0.0, True, True, ccrs.Robinson()),
        (-100.0, True, False, ccrs.Mollweide(130)),
        (165.0, False, True, ccrs.LambertConformal(180, 30)),
        (0.0, True, False, ccrs.NorthPolarStereo()),
    ],
)
def test_every_cell_is_drawn_where_it_lies(
    first: float, globe: bool, turned: bool, projection: Any
) -> None:
    field = snapshot(first=first, globe=globe)
    if turned:
        field = field.isel(lat=slice(None, None, -1)).transpose("time", "lon", "lat")
    wrong, n = wrong_pixels(draw(field, projection=projection), field, "lat", "lon")
    assert wrong < 0.01 and n > 0.9 * field.size  # around a pole cells are small


@pytest.mark.parametrize("projection", ["auto", ccrs.Mollweide(-160), ccrs.NorthPolarStereo()])
def test_a_tripolar_grid_is_drawn_where_it_lies(
    real_file: Callable[[str], Path], projection: Any
) -> None:
    field = tripolar(real_file)
    if isinstance(projection, ccrs.NorthPolarStereo):
        field = field.isel(y=slice(16, None))
    wrong, n = wrong_pixels(draw(field, projection=projection), field, "nav_lat", "nav_lon")
    assert wrong < 0.01 and n > 0.85 * field.size  # some cells of the fold lie over others


def test_cells_beside_land_without_coordinates_are_drawn() -> None:
    field = snapshot(globe=False)
    land = field[0].isnull().drop_vars("time")
    curved = {
        f"nav_{name}": values.where(~land).assign_attrs(field[name].attrs).variable
        for name, values in zip(
            ("lat", "lon"), xr.broadcast(field["lat"], field["lon"]), strict=True
        )
    }
    field = field.drop_vars(["lat", "lon"]).assign_coords(curved).rename(lat="j", lon="i")
    assert 10 < land.sum() < 300
    wrong, n = wrong_pixels(draw(field), field, "nav_lat", "nav_lon")
    assert wrong == 0 and n == (~land).sum()


def test_the_map_is_about_the_middle_of_the_data() -> None:
    for first, middle in ((0.0, 172.5), (-180.0, -7.5), (30.0, 202.5)):
        ax = panels(draw(snapshot(first=first)))[-1]
        assert isinstance(ax.projection, ccrs.PlateCarree)
        assert ax.projection.transform_point(middle, 0, ccrs.PlateCarree())[0] == pytest.approx(0)
        np.testing.assert_allclose((*ax.get_xlim(), *ax.get_ylim()), (-180, 180, -64, 64), atol=20)
    ax = panels(draw(snapshot(first=165.0, globe=False)))[-1]
    assert np.diff(ax.get_xlim())[0] < 30
    assert ax.get_aspect() == pytest.approx(1 / np.cos(np.deg2rad(50)), rel=0.05)


def test_levels_that_begin_on_either_side_of_the_date_line_lie_on_each_other() -> None:
    coarse, fine = (
        drawn(ax)["x"].values
        for ax in panels(draw(snapshot(shape=(16, 23), first=179.0, globe=False)))
    )
    np.testing.assert_allclose(coarse, fine[1::2])
    assert fine[0] == 179 and fine[1] == 180


def test_coasts_are_the_outline_of_the_valid_pixels() -> None:
    field = snapshot(shape=(8, 12))
    valid = field.isel(time=0).notnull().values
    sides = (valid != np.roll(valid, 1, axis=1)).sum() + (valid[1:] != valid[:-1]).sum()
    for ax in panels(draw(field)):
        (coast,) = coasts(ax)
        ends = coast.get_path().vertices.reshape(-1, 2, 2)
        assert len(ends) == sides > 10
        assert set(np.abs(np.diff(ends, axis=1)[:, 0]).max(1).round(3)) == {30.0, round(120 / 7, 3)}
    at = (ends.mean(1)[:, 0] % 30, (ends.mean(1)[:, 1] + 60) / (120 / 7) % 1)
    assert all(np.isclose(a, 15) or np.isclose(b, 0.5) for a, b in zip(*at, strict=True))
    assert not coasts(panels(draw(field, coastlines=None))[0])


def test_natural_earth_is_downloaded_only_when_asked_for() -> None:
    draw(snapshot()).canvas.draw()
    with (
        pytest.warns(cartopy.io.DownloadWarning),
        pytest.raises(OSError, match="reached for the network"),
    ):
        draw(snapshot(), coastlines="natural_earth").canvas.draw()


def test_without_cartopy_axes_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "xmrcae.plot.geographic")
    monkeypatch.setitem(sys.modules, "cartopy.crs", None)
    fig = draw(snapshot())
    assert not any(isinstance(ax, GeoAxes) for ax in fig.axes)
    assert panels(fig)[0].get_ylabel() == "latitude [degrees_north]"
    with pytest.raises(ImportError):
        draw(snapshot(), projection=ccrs.Robinson())


def test_what_cannot_be_a_map_is_an_error() -> None:
    field = snapshot(globe=False)
    flat = field.rename(lat="y", lon="x").drop_vars(["y", "x"])
    assert not any(isinstance(ax, GeoAxes) for ax in draw(flat).axes)
    with pytest.raises(ValueError, match="projection=Robinson: the data have no longitude"):
        draw(flat, projection=ccrs.Robinson())
    with pytest.raises(ValueError, match="transform needs coordinates along 'y' and 'x'"):
        draw(flat, transform=ccrs.Mercator())
    with pytest.raises(TypeError, match="projection='robinson'"):
        draw(field, projection="robinson")
    with pytest.raises(TypeError, match="transform='m'"):
        draw(field, transform="m")
    with pytest.raises(ValueError, match="coastlines='gshhs'"):
        draw(field, coastlines="gshhs")
    with pytest.raises(ValueError, match="Geodetic is nothing to draw on"):
        draw(field, transform=ccrs.Geodetic())
    radians = field.assign_coords(lat=field.lat * 100)
    assert not any(isinstance(ax, GeoAxes) for ax in draw(radians).axes)


def test_coordinates_of_a_projection_are_drawn_by_transform() -> None:
    field = snapshot(globe=False).rename(lat="y", lon="x")
    field = field.assign_coords(y=1e5 * np.arange(16.0) - 8e5, x=1e5 * np.arange(24.0))
    polar = ccrs.NorthPolarStereo()
    (*_, ax) = panels(draw(field, transform=polar))
    assert ax.projection is polar
    np.testing.assert_allclose(drawn(ax)["x"], field["x"])
    (*_, ax) = panels(draw(field, transform=polar, projection=ccrs.LambertConformal(90, 80)))
    x, y = ax.projection.transform_point(field["x"][3], field["y"][5], polar)
    corners = mesh_of(ax).get_coordinates()[5:7, 3:5].reshape(-1, 2)
    assert np.hypot(*(corners.mean(0) - (x, y))) < 0.02 * np.ptp(corners[:, 0])


@pytest.mark.parametrize("reach", [4e6, 7.63e6])
def test_corners_that_miss_the_seam_of_a_map_by_a_rounding_are_on_it(reach: float) -> None:
    source, y, x = (
        ccrs.NorthPolarStereo(),
        np.linspace(reach, -reach / 2, 20),
        np.linspace(-reach, reach, 30),
    )
    assert 0 < abs(x[14] + x[15]) < 1e-8
    field = snapshot(shape=(20, 30)).fillna(0).drop_vars(["lat", "lon"]).rename(lat="y", lon="x")
    field = field.assign_coords(y=y, x=x)
    lon, lat, _ = np.moveaxis(
        ccrs.PlateCarree().transform_points(source, *np.meshgrid(x, y)), -1, 0
    )
    fig = draw(field, transform=source, projection=ccrs.PlateCarree())
    wrong, n = wrong_pixels(
        fig, field.assign_coords(lat=(("y", "x"), lat), lon=(("y", "x"), lon)), "lat", "lon"
    )
    assert wrong < 0.01 and n > 0.9 * field.size


def test_subplot_kws_are_handed_on() -> None:
    ax, *_ = panels(
        draw(snapshot(), subplot_kws={"projection": ccrs.Robinson(), "facecolor": "pink"})
    )
    assert isinstance(ax.projection, ccrs.Robinson) and ax.get_facecolor() == to_rgba("pink")
    ax, *_ = panels(draw(snapshot(), projection=None, subplot_kws={"facecolor": "pink"}))
    assert not isinstance(ax, GeoAxes) and ax.get_facecolor() == to_rgba("pink")


@pytest.mark.parametrize("projection", ["auto", None, ccrs.Robinson()])
@pytest.mark.parametrize(("first", "globe"), [(0.0, True), (165.0, False)])
def test_labels_do_not_overlap(
    first: float, globe: bool, projection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = snapshot(first=first, globe=globe) / 1e6
    fig = xmrcae.plot.pyramid(field.mrcae.pyramid(levels=2).isel(time=0), projection=projection)
    boxes, write = [], Text.draw

    def written(self: Text, renderer: Any, *args: Any, **kwargs: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            boxes.append((self.get_text(), self.get_window_extent(renderer)))
        write(self, renderer, *args, **kwargs)

    monkeypatch.setattr(Text, "draw", written)
    fig.canvas.draw()
    degrees = [name for name, _ in boxes if "°" in name]
    assert (len(degrees) > 4) == (projection is not None)
    if globe and isinstance(
        projection, ccrs.Robinson
    ):  # at whose lower edge meridians run together
        assert not [name for name in degrees if name[-1] in "EW"]
    assert len(boxes) > 8 and all(
        fig.bbox.contains(*corner) for _, box in boxes for corner in (box.min, box.max)
    )
    assert [(a, b) for (a, one), (b, other) in combinations(boxes, 2) if one.overlaps(other)] == []


def test_grey_land_is_on_the_cells_that_the_edge_cuts() -> None:
    field = snapshot(first=0.0).isel(time=[0])
    field[..., 11:14] = np.nan  # across 180 degrees
    ax = panels(draw(field, projection=ccrs.Robinson()))[-1]
    (pieces,) = (each for each in ax.collections if not hasattr(each, "get_coordinates"))
    assert len(pieces.get_paths()) >= 2 * field.sizes["lat"]
    pieces.update_scalarmappable()
    assert (pieces.get_facecolor() == to_rgba(LAND)).all()
    assert len(bars(ax.figure)) == 1
