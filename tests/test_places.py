"""Where pixels lie: indexes, 1-D coordinates under other names, 2-D coordinates, none."""

import numpy as np
import pytest
import xarray as xr
from helpers import ERSST, NEMO, grid_of, make_field, open_real

OPTIONS = {"levels": 2, "channels": [[1]], "max_epochs": 3, "progress": False}


def along(field):
    """The same field with lat(y) and lon(x), without an index."""
    renamed = field.rename(lat="y", lon="x").drop_vars(["y", "x"])
    lat, lon = field.lat.variable, field.lon.variable
    return renamed.assign_coords(lat=("y", lat.values, lat.attrs), lon=("x", lon.values, lon.attrs))


def curvilinear(field, *, land=False):
    """The same field with 2-D coordinates, missing on land if asked for."""
    lat, lon = np.meshgrid(field.lat.values, field.lon.values, indexing="ij")
    if land:
        on_land = field.isel(time=0).isnull().values
        lat, lon = (np.where(on_land, np.nan, each) for each in (lat, lon))
    coords = {
        "TLAT": (("y", "x"), lat, {"units": "degrees_north"}),
        "TLONG": (("y", "x"), lon, {"units": "degrees_east"}),
    }
    return field.rename(lat="y", lon="x").drop_vars(["y", "x"]).assign_coords(coords)


def in_radians(field):
    """The same field with coordinates in radians."""
    coords = {}
    for name in ("lat", "lon"):
        attrs = field[name].attrs | {"units": "radians"}
        coords[name] = (name, np.deg2rad(field[name].values), attrs)
    return field.assign_coords(coords)


KINDS = [along, curvilinear, lambda f: curvilinear(f, land=True), in_radians, lambda f: f]
NAMES = ["lat(y)", "2-D", "2-D, none on land", "radians", "index"]


@pytest.fixture(scope="module", params=KINDS, ids=NAMES)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def field(kind):
    return kind(make_field(shape=(20, 36)))


@pytest.fixture(scope="module")
def model(field):
    return field.mrcae.fit(**OPTIONS)


def turned(field):
    """Rows from the north, in memory."""
    return field.isel({field.dims[1]: slice(None, None, -1)})


def rolled(field):
    """Columns from another meridian."""
    return field.roll({field.dims[2]: 10}, roll_coords=True)


def from_the_date_line(field):
    """Longitudes from -180, in the order that they were."""
    lon = next(c for c in field.coords.values() if c.name in ("lon", "TLONG"))
    half = np.pi if lon.attrs["units"] == "radians" else 180
    return field.assign_coords({lon.name: lon.copy(data=(lon.values + half) % (2 * half) - half)})


@pytest.mark.parametrize("change", [turned, rolled, lambda f: rolled(turned(f)), from_the_date_line])
def test_a_fitted_model_knows_each_pixel_again(model, field, change):
    expected = model.reconstruct(field)
    given = change(field)
    found = model.reconstruct(given)
    placed = change(field.copy(data=expected.values))
    np.testing.assert_array_equal(found.values, placed.values)
    for name in field.coords:
        xr.testing.assert_identical(found[name].reset_coords(drop=True), given[name].reset_coords(drop=True))
    np.testing.assert_array_equal(model.score(given).rmse, model.score(field).rmse)


def test_fitting_is_the_same_from_the_north(model, field):
    again = turned(field).mrcae.fit(**OPTIONS)
    np.testing.assert_array_equal(again.reconstruct(field).values, model.reconstruct(field).values)
    np.testing.assert_array_equal(again.history.train_loss, model.history.train_loss)


def test_a_globe_is_periodic(model):
    assert model.fitted.inference.pyramid.grid.periodic


@pytest.mark.parametrize("apart", [0.5, 40.0])
def test_another_grid_is_refused(model, field, apart):
    lat = next(c for c in field.coords.values() if c.name in ("lat", "TLAT"))
    apart = np.deg2rad(apart) if lat.attrs["units"] == "radians" else apart
    with pytest.raises(ValueError, match="another grid"):
        model.reconstruct(field.assign_coords({lat.name: lat + apart}))


@pytest.mark.parametrize("chunks", [None, {"time": 7}])
@pytest.mark.parametrize("north_first", [False, True])
def test_without_coordinates_data_lie_as_the_fitted_ones(kind, chunks, north_first):
    field = kind(make_field(shape=(20, 36)))
    field = turned(field) if north_first else field
    model = field.mrcae.fit(**OPTIONS)
    bare = field.drop_vars([name for name, c in field.coords.items() if name != "time"])
    bare = bare if chunks is None else bare.chunk(chunks)
    np.testing.assert_array_equal(model.reconstruct(bare), model.reconstruct(field))
    np.testing.assert_array_equal(model.score(bare).rmse, model.score(field).rmse)


def test_masks_weights_and_codes_without_coordinates_lie_as_the_data():
    field = turned(make_field(shape=(20, 36)))
    valid = field.notnull().any("time")
    filled = field.fillna(0.0)
    bare = valid.drop_vars(["lat", "lon"])
    model = filled.mrcae.fit(valid=bare, weights=xr.where(bare, 1.0, 0.5), **OPTIONS)
    found = model.reconstruct(filled)
    np.testing.assert_array_equal(found.notnull().isel(time=0), valid)
    codes = model.encode(filled)
    rebuilt = xr.DataTree.from_dict(
        {
            name: xr.Dataset({"encoding": (node["encoding"].dims, node["encoding"].values)})
            for name, node in codes.children.items()
        }
    )
    np.testing.assert_array_equal(model.decode(rebuilt), model.decode(codes))


def test_data_known_by_another_coordinate_are_refused():
    field = along(make_field(shape=(20, 36)))
    model = field.mrcae.fit(**OPTIONS)
    numbered = field.drop_vars("lat").assign_coords(y=np.arange(20))
    with pytest.raises(ValueError, match=r"along 'y' the data have the coordinate 'y'.*known by 'lat'"):
        model.encode(numbered)


def test_1d_and_2d_coordinates_of_one_grid_agree():
    flat = along(make_field(shape=(20, 36)))
    model = flat.mrcae.fit(**OPTIONS)
    bent = turned(curvilinear(make_field(shape=(20, 36))))
    np.testing.assert_array_equal(model.reconstruct(bent), turned(model.reconstruct(flat)))
    with pytest.raises(ValueError, match="another grid"):
        model.reconstruct(bent.assign_coords(TLAT=bent.TLAT + 1))


def test_units_of_a_plane_are_compared():
    field = make_field(shape=(20, 36)).rename(lat="y", lon="x")
    metres = {"units": "m", "axis": "Y"}
    field = field.assign_coords(y=("y", np.arange(20.0), metres), x=("x", np.arange(36.0), metres | {"axis": "X"}))
    model = field.mrcae.fit(**OPTIONS)
    other = field.assign_coords(y=("y", np.arange(20.0), metres | {"units": "km"}))
    with pytest.raises(ValueError, match=r"'y' is in 'km', that of the fitted grid in 'm'"):
        model.encode(other)
    spelt = field.assign_coords(y=("y", np.arange(20.0), metres | {"units": "metres"}))
    assert model.encode(spelt)["level_0/encoding"].notnull().any()


def test_radians_weigh_as_degrees_do():
    field = make_field(shape=(20, 36))
    np.testing.assert_allclose(grid_of(in_radians(field)).area_weights(), grid_of(field).area_weights(), rtol=1e-14)


def test_area_weights_refuse_a_latitude_that_is_no_angle():
    field = make_field(n_times=2)
    plane = field.assign_coords(lat=field.lat.assign_attrs(units="km"))
    with pytest.raises(ValueError, match='weights="area" needs a latitude in degrees or radians'):
        grid_of(plane).area_weights()


@pytest.mark.parametrize("hole", [np.nan, 1e20, -999.0])
def test_latitudes_missing_on_land_cost_nothing(hole):
    field = curvilinear(make_field(shape=(20, 36)))
    on_land = field.isel(time=0).isnull().values
    lat = field.TLAT.copy(data=np.where(on_land, hole, field.TLAT.values))
    holes = field.assign_coords(TLAT=lat)
    model, whole = (each.mrcae.fit(weights="area", **OPTIONS) for each in (holes, field))
    np.testing.assert_array_equal(model.history.train_loss, whole.history.train_loss)
    np.testing.assert_array_equal(model.score(holes, weights="area").rmse, whole.score(field, weights="area").rmse)


def test_latitudes_missing_on_valid_pixels_are_counted():
    field = curvilinear(make_field(shape=(20, 36)))
    lat = field.TLAT.values.copy()
    at = np.argwhere(field.isel(time=0).notnull().values)[:3]
    lat[tuple(at.T)] = np.nan
    with pytest.raises(ValueError, match=r"weights=\"area\" needs the latitude.*that of 3 is missing"):
        field.assign_coords(TLAT=field.TLAT.copy(data=lat)).mrcae.fit(weights="area", **OPTIONS)


@pytest.mark.parametrize("fill", [1e20, 9.969209968386869e36, -32767.0])
def test_a_fill_value_is_a_missing_place_and_hides_no_difference(real_file, fill):
    field = open_real(real_file, NEMO).tos
    hidden = (slice(0, 3), slice(0, 5))
    filled, missing, moved = (field.copy(deep=True) for _ in range(3))
    filled["nav_lat"][hidden] = fill
    missing["nav_lat"][hidden] = np.nan
    moved["nav_lat"][hidden] = fill
    moved["nav_lat"][100, 100] += 0.5
    grid = grid_of(filled)
    np.testing.assert_array_equal(missing.isel(grid.indexers(missing)), field)
    with pytest.raises(ValueError, match=r"'nav_lat' differs first at \(100, 100\)"):
        grid.indexers(moved)


def test_a_difference_is_judged_by_the_spacing_around_it():
    """Rows that are close near the wall, as in a channel: half a step there is less than a step's rounding far off."""
    y = np.concatenate([np.linspace(0, 1e-3, 10), np.linspace(0.1, 100, 10)])
    field = make_field(shape=(20, 36)).rename(lat="y", lon="x").assign_coords(y=y, x=np.arange(36.0))
    moved = y.copy()
    moved[4] += (y[5] - y[4]) / 2
    grid = grid_of(field)
    with pytest.raises(ValueError, match="'y' differs first at 4"):
        grid.indexers(field.assign_coords(y=moved))
    rounded = y.copy()
    rounded[-3] += 1e-3
    assert grid.indexers(field.assign_coords(y=rounded))["y"] == slice(None)


def test_rows_and_columns_given_the_wrong_way_round_are_refused(real_file):
    field = open_real(real_file, ERSST).sst.isel(time=slice(0, 12))
    with pytest.raises(ValueError, match=r"'lon' lies along a longitude: give horizontal=\('lat', 'lon'\)"):
        field.mrcae.fit(horizontal=("lon", "lat"), **OPTIONS)


def test_coordinates_are_no_obstacle_to_laziness(model, field, no_compute):
    lazy = field.chunk(time=5)
    lazy = lazy.assign_coords({name: c.compute() for name, c in field.coords.items()})
    with no_compute():
        assert model.reconstruct(turned(lazy)).chunks is not None
