"""Where pixels lie: indexes, 1-D coordinates under other names, 2-D coordinates, none."""

import numpy as np
import pytest
import xarray as xr
from helpers import ERSST, NEMO, grid_of, make_field, open_real

import xmrcae

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


@pytest.mark.parametrize(
    "change", [turned, rolled, lambda f: rolled(turned(f)), from_the_date_line]
)
def test_a_fitted_model_knows_each_pixel_again(model, field, change):
    expected = model.reconstruct(field)
    given = change(field)
    found = model.reconstruct(given)
    placed = change(field.copy(data=expected.values))
    np.testing.assert_array_equal(found.values, placed.values)
    for name in field.coords:
        xr.testing.assert_identical(
            found[name].reset_coords(drop=True), given[name].reset_coords(drop=True)
        )
    np.testing.assert_array_equal(model.score(given).rmse, model.score(field).rmse)


def test_fitting_is_the_same_from_the_north(model, field):
    again = turned(field).mrcae.fit(**OPTIONS)
    np.testing.assert_array_equal(again.reconstruct(field).values, model.reconstruct(field).values)
    np.testing.assert_array_equal(again.history.train_loss, model.history.train_loss)


def test_a_globe_is_periodic(model):
    assert model.fitted.codec.pyramid.grid.periodic


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
    with pytest.raises(
        ValueError, match=r"along 'y' the data have the coordinate 'y'.*known by 'lat'"
    ):
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
    field = field.assign_coords(
        y=("y", np.arange(20.0), metres), x=("x", np.arange(36.0), metres | {"axis": "X"})
    )
    model = field.mrcae.fit(**OPTIONS)
    other = field.assign_coords(y=("y", np.arange(20.0), metres | {"units": "km"}))
    with pytest.raises(ValueError, match=r"'y' is in 'km', that of the fitted grid in 'm'"):
        model.encode(other)
    spelt = field.assign_coords(y=("y", np.arange(20.0), metres | {"units": "metres"}))
    assert model.encode(spelt)["level_0/encoding"].notnull().any()


def test_radians_weigh_as_degrees_do():
    field = make_field(shape=(20, 36))
    np.testing.assert_allclose(
        grid_of(in_radians(field)).area_weights(), grid_of(field).area_weights(), rtol=1e-14
    )


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
    np.testing.assert_array_equal(
        model.score(holes, weights="area").rmse, whole.score(field, weights="area").rmse
    )


def test_latitudes_missing_on_valid_pixels_are_counted():
    field = curvilinear(make_field(shape=(20, 36)))
    lat = field.TLAT.values.copy()
    at = np.argwhere(field.isel(time=0).notnull().values)[:3]
    lat[tuple(at.T)] = np.nan
    with pytest.raises(
        ValueError, match=r"weights=\"area\" needs the latitude.*that of 3 is missing"
    ):
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
    field = (
        make_field(shape=(20, 36)).rename(lat="y", lon="x").assign_coords(y=y, x=np.arange(36.0))
    )
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
    with pytest.raises(
        ValueError, match=r"'lon' lies along a longitude: give horizontal=\('lat', 'lon'\)"
    ):
        field.mrcae.fit(horizontal=("lon", "lat"), **OPTIONS)


def test_coordinates_are_no_obstacle_to_laziness(model, field, no_compute):
    lazy = field.chunk(time=5)
    lazy = lazy.assign_coords({name: c.compute() for name, c in field.coords.items()})
    with no_compute():
        assert model.reconstruct(turned(lazy)).chunks is not None


# What a tester with odd files found


def moved(field, name, values):
    """The same field with other values of a coordinate."""
    return field.assign_coords({name: field[name].copy(data=np.asarray(values))})


SHUFFLED = np.r_[8:20, 0:8]


def test_rows_of_any_order_are_known_by_a_coordinate_beside_them():
    field = along(make_field(shape=(20, 36)))
    model = field.mrcae.fit(**OPTIONS)
    given = field.isel(y=SHUFFLED)
    np.testing.assert_array_equal(
        model.reconstruct(given), model.reconstruct(field).isel(y=SHUFFLED)
    )
    valid = field.notnull().any("time")
    masked = field.fillna(0).mrcae.fit(valid=valid.isel(y=SHUFFLED), **OPTIONS)
    np.testing.assert_array_equal(masked.reconstruct(field)[0].notnull(), valid)
    with pytest.raises(ValueError, match=r"'lat' neither ascends nor descends.*sortby\('lat'\)"):
        given.mrcae.fit(**OPTIONS)


@pytest.mark.parametrize(
    "lat", [[np.nan, *range(19)], [0, 0, *range(2, 20)]], ids=["missing", "twice"]
)
def test_a_latitude_beside_the_rows_that_is_no_grids_is_refused(lat):
    field = along(make_field(shape=(20, 36)))
    model = field.mrcae.fit(**OPTIONS)
    with pytest.raises(ValueError, match="another grid"):
        model.reconstruct(moved(field, "lat", lat))
    with pytest.raises(ValueError, match=r"missing or infinite|neither ascends nor descends"):
        moved(field, "lat", lat).mrcae.fit(**OPTIONS)


def in_three_dimensions(field):
    """The same field with coordinates that are repeated at each time, as models of moving nests write them."""
    return field.assign_coords(
        {
            name: (field.dims, np.broadcast_to(field[name], field.shape).copy(), field[name].attrs)
            for name in ("TLAT", "TLONG")
        }
    )


def test_coordinates_repeated_at_each_time_are_those_of_the_grid():
    flat = curvilinear(make_field(shape=(20, 36)))
    field = in_three_dimensions(flat)
    model, whole = (each.mrcae.fit(weights="area", **OPTIONS) for each in (field, flat))
    np.testing.assert_array_equal(model.history.train_loss, whole.history.train_loss)
    assert model.fitted.codec.pyramid.grid.periodic
    np.testing.assert_array_equal(
        model.reconstruct(turned(field)), turned(model.reconstruct(field))
    )
    with pytest.raises(ValueError, match="another grid"):
        model.reconstruct(moved(field, "TLAT", field.TLAT / 2))
    drift = field.TLAT + np.arange(20)[:, None, None]
    with pytest.raises(ValueError, match=r"'TLAT' changes along 'time': pixels have to stay"):
        moved(field, "TLAT", drift).mrcae.fit(**OPTIONS)


@pytest.mark.parametrize("beside", [curvilinear, along], ids=["2-D", "1-D"])
def test_latitudes_come_before_numbers_of_rows(beside):
    numbers = {"y": np.arange(20), "x": np.arange(36)}
    field = beside(make_field(shape=(20, 36))).assign_coords(numbers)
    lat = "TLAT" if "TLAT" in field.coords else "lat"
    model = field.mrcae.fit(**OPTIONS)
    renumbered = turned(field).assign_coords(numbers)
    np.testing.assert_array_equal(model.reconstruct(renumbered), turned(model.reconstruct(field)))
    for given in (field, field.rename({lat: "nav_lat"})):
        name = "nav_lat" if "nav_lat" in given.coords else lat
        with pytest.raises(ValueError, match="another grid"):
            model.reconstruct(moved(given, name, given[name] / 2))


@pytest.mark.parametrize(
    "angle", [np.linspace(0, 1, 20), np.linspace(0, 2 * np.pi, 20)], ids=["section", "loop"]
)
def test_both_coordinates_along_a_track_are_compared(angle):
    lat = ("x", 40 + 5 * np.sin(angle), {"units": "degrees_north"})
    lon = ("x", -30 + 5 * np.cos(angle), {"units": "degrees_east"})
    field = make_field(shape=(16, 20)).rename(lat="depth", lon="x").drop_vars("x")
    field = field.assign_coords(depth=np.arange(16.0), lat=lat, lon=lon)
    model = field.mrcae.fit(horizontal=("depth", "x"), **OPTIONS)
    backwards = field.isel(x=slice(None, None, -1))
    np.testing.assert_array_equal(
        model.reconstruct(backwards), model.reconstruct(field).isel(x=slice(None, None, -1))
    )
    for name in ("lat", "lon"):
        with pytest.raises(ValueError, match=f"another grid.*{name!r}"):
            model.reconstruct(moved(field, name, -field[name]))


@pytest.mark.parametrize("shape", [(15, 36), (20, 36), (15, 24)])
def test_codes_whose_columns_cannot_be_told_apart_are_refused(shape):
    """Outer cells of an encoding go on around the globe, so sorted anew modulo 360 they are there twice."""
    field = make_field(shape=shape)
    model = field.mrcae.fit(**OPTIONS)
    codes = model.encode(field)
    changed = {
        name: node.to_dataset()
        .assign_coords(lon=lambda ds: (ds.lon + 180) % 360 - 180)
        .sortby("lon")
        for name, node in codes.children.items()
    }
    with pytest.raises(ValueError, match="do not fit the model"):
        model.decode(xr.DataTree.from_dict(changed))


def test_columns_first_is_no_other_fit():
    field = curvilinear(make_field(shape=(20, 36)))
    models = [each.mrcae.fit(**OPTIONS) for each in (field, field.transpose("time", "x", "y"))]
    grids = [model.fitted.codec.pyramid.grid for model in models]
    assert [(grid.y, grid.x, grid.periodic) for grid in grids] == [("y", "x", True)] * 2
    np.testing.assert_array_equal(models[0].history.train_loss, models[1].history.train_loss)


@pytest.mark.parametrize(
    "names",
    [{"units": "km"}, {"units": "degrees", "standard_name": "grid_latitude"}, {}],
    ids=["km", "rotated", "numbers of rows"],
)
def test_a_mask_in_degrees_is_not_near_to_other_coordinates(names):
    field = make_field(n_times=3, shape=(20, 36))
    mask = field.isel(time=0).notnull()
    other = field.rename(lat="y", lon="x")
    other = other.assign_coords(y=("y", np.arange(20.0), names), x=("x", np.arange(36.0), names))
    with pytest.raises(ValueError, match="no finite 1-D coordinates of one kind and unit"):
        xmrcae.nearest_valid(mask, other, horizontal=("y", "x"))


def test_longitudes_rounded_at_360_are_the_same(real_file):
    field = open_real(real_file, NEMO).tos
    grid = grid_of(field)
    for given in (
        field.assign_coords(nav_lon=field.nav_lon % 360),
        field.isel(y=slice(None, None, -1)),
    ):
        np.testing.assert_array_equal(given.isel(grid.indexers(given)), field)


@pytest.mark.parametrize("spacing", [0.01, 0.005])
def test_fine_float32_longitudes_are_the_same_modulo_360(spacing):
    lon = (-10 * spacing + np.arange(36) * spacing).astype(np.float32)
    field = make_field(n_times=2, shape=(20, 36), globe=False)
    field = field.assign_coords(lon=("lon", lon, field.lon.attrs))
    given = field.assign_coords(lon=field.lon.copy(data=lon % np.float32(360)))
    np.testing.assert_array_equal(given.isel(grid_of(field).indexers(given)), field)


def test_a_start_in_another_order_is_refused_in_words():
    field = make_field(shape=(20, 36))
    model = field.mrcae.fit(**OPTIONS)
    with pytest.raises(ValueError, match=r"start: level 1 .*their order is another"):
        xmrcae.MrCAE(**OPTIONS).fit(rolled(field), start=model)


@pytest.mark.parametrize("name", ["area", "qc"])
def test_2d_coordinates_that_tell_no_place_may_differ(name):
    field = make_field(shape=(20, 36)).assign_coords({name: (("lat", "lon"), np.ones((20, 36)))})
    model = field.mrcae.fit(**OPTIONS)
    given = field.assign_coords({name: 2 * field[name]})
    found = model.reconstruct(given)
    np.testing.assert_array_equal(found, model.reconstruct(field))
    assert found[name].identical(given[name])
