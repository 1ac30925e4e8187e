"""Finding dimensions, matching grids, choosing variables."""

import copy

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import (
    AVISO,
    CLIMATOLOGY,
    CMAP,
    CYLINDER,
    ERSST,
    HADGEM,
    ICE,
    LAND_SEA_MASK,
    MITGCM,
    NEMO,
    grid_of,
    layout_of,
    make_field,
    make_two_variables,
    open_real,
)

from xmrcae.grid.dimensions import Dimensions, find_dimensions, select_variables

pytestmark = pytest.mark.minimum


def bare(*dims, sizes=None, axes=None):
    """A field without coordinates but for those named in `axes`, a mapping dimension -> CF axis."""
    sizes = sizes or {}
    shape = [sizes.get(dim, 4 + i) for i, dim in enumerate(dims)]
    coords = {
        dim: (dim, np.arange(shape[dims.index(dim)]), {"axis": axis})
        for dim, axis in (axes or {}).items()
    }
    return xr.DataArray(np.zeros(shape), dims=dims, coords=coords)


def with_longitude(values, **attrs):
    """A field along longitudes of those values."""
    values = np.asarray(values, dtype=np.float64)
    attrs = attrs or {"standard_name": "longitude"}
    coords = {"x": ("x", values, attrs)}
    return xr.DataArray(np.zeros((2, 3, len(values))), dims=("time", "y", "x"), coords=coords)


@pytest.mark.parametrize(
    ("name", "variable", "sample", "y", "x"),
    [
        (ERSST, "sst", "time", "lat", "lon"),
        (AVISO, "adt", "time", "latitude", "longitude"),
        (CMAP, "precip", "time", "lat", "lon"),
        (HADGEM, "air_temperature", "time", "latitude", "longitude"),
        (CYLINDER, "u", "time", "y", "x"),
        (NEMO, "tos", "time_counter", "y", "x"),
        (MITGCM, "Eta", "time", "YC", "XC"),
        (CLIMATOLOGY, "sst", "time", "lat", "lon"),
        (ICE, "icec", "time", "lat", "lon"),
        (LAND_SEA_MASK, "mask", "time", "lat", "lon"),
    ],
)
def test_dimensions_of_real_file(real_file, name, variable, sample, y, x):
    field = open_real(real_file, name, chunks={})[variable]
    assert find_dimensions(field) == Dimensions((sample,), y, x)


def test_full_names_are_found_without_cf_axes(real_file):
    field = open_real(real_file, AVISO, chunks={}).adt
    for dim in field.dims:
        field[dim].attrs = {}
    assert find_dimensions(field) == Dimensions(("time",), "latitude", "longitude")


def test_order_of_dimensions_does_not_matter():
    field = make_field(n_times=2)
    assert find_dimensions(field.transpose("lon", "lat", "time")) == find_dimensions(field)


def test_cf_axes_come_before_names():
    field = bare("time", "lat", "lon", axes={"lat": "X", "lon": "Y"})
    assert find_dimensions(field) == Dimensions(("time",), "lon", "lat")


def test_two_dimensions_beside_the_sample_are_horizontal():
    assert find_dimensions(bare("time", "row", "column")) == Dimensions(("time",), "row", "column")


def test_horizontal_comes_before_cf_axes():
    field = bare("time", "a", "b", axes={"a": "X", "b": "Y"})
    assert find_dimensions(field, horizontal=("a", "b")) == Dimensions(("time",), "a", "b")


@pytest.mark.parametrize("horizontal", [("lat", "depth"), ["lat", "time"]])
def test_horizontal_that_is_no_dimension_is_named(horizontal):
    with pytest.raises(ValueError, match=r"horizontal=.*no dimension '(depth|time)'"):
        find_dimensions(make_field(n_times=2), horizontal=horizontal)


def test_several_candidates_are_listed():
    field = bare("time", "y", "x1", "x2", axes={"y": "Y", "x1": "X", "x2": "X"})
    with pytest.raises(ValueError, match=r"several candidates.*x1, x2.*horizontal="):
        find_dimensions(field)


def test_no_candidate_is_an_error_with_the_sizes():
    with pytest.raises(ValueError, match=r"a: 4, b: 5, c: 6.*horizontal="):
        find_dimensions(bare("a", "b", "c", "time"))


def test_no_sample_dimension_is_an_error():
    with pytest.raises(ValueError, match=r"no sample dimension.*lat: 21, lon: 30.*sample="):
        find_dimensions(make_field(n_times=2).isel(time=0, drop=True))


def test_several_sample_dimensions_are_listed():
    field = bare("start", "lead", "y", "x", axes={"start": "T", "lead": "T"})
    with pytest.raises(ValueError, match=r"(start, lead|lead, start).*sample="):
        find_dimensions(field)


def test_sample_is_found_by_its_axis():
    field = bare("when", "y", "x", axes={"when": "T"})
    assert find_dimensions(field).sample == ("when",)


@pytest.mark.parametrize("sample", ["when", ["time", "when"]])
def test_sample_that_is_no_dimension_is_named(sample):
    with pytest.raises(ValueError, match=r"sample=.*no dimension 'when'"):
        find_dimensions(make_field(n_times=2), sample=sample)


@pytest.mark.parametrize(
    "index",
    [
        pd.period_range("2000-01", periods=3, freq="M"),
        pd.interval_range(0, 3),
        pd.CategoricalIndex([*"aba"]),
    ],
)
def test_coordinates_that_no_file_can_hold_are_refused(index):
    da = xr.DataArray(np.zeros((3, 7, 8)), dims=("time", "y", "x"), coords={"time": index})
    with pytest.raises(TypeError, match=f"'time' holds {type(index.dtype).__name__}"):
        find_dimensions(da)


def test_vertical_dimension_is_an_error_that_names_sample(real_file):
    field = open_real(real_file, MITGCM, chunks={}).THETA
    with pytest.raises(ValueError, match=r"\bZ\b.*sample=\['time', 'Z'\]"):
        find_dimensions(field)


def test_vertical_dimension_as_sample(real_file):
    field = open_real(real_file, MITGCM, chunks={}).THETA
    assert find_dimensions(field, sample=["time", "Z"]) == Dimensions(("time", "Z"), "YC", "XC")


def test_dimension_of_length_1_is_no_obstacle():
    field = make_field(n_times=2).expand_dims(depth=[0.0])
    assert find_dimensions(field) == Dimensions(("time",), "lat", "lon")


def test_several_sample_dimensions_are_stacked_in_order():
    field = make_field(n_times=6).expand_dims(member=3) * xr.DataArray(
        np.arange(3.0), dims="member"
    )
    field = field.transpose("time", "lat", "member", "lon")
    dims = find_dimensions(field, sample=["member", "time"])
    array = (
        type(layout_of(field.isel(member=0)))
        .of(field, dims, grid_of(field.isel(member=0)))
        .array(field)
    )
    expected = field.transpose("member", "time", "lat", "lon").values.reshape(18, 1, 21, 30)
    np.testing.assert_array_equal(array, expected)


# Grids


def roll_to_date_line(field):
    """The same field on longitudes from -180."""
    return field.assign_coords(lon=(field.lon + 180) % 360 - 180).sortby("lon")


def test_longitude_modulo_360_and_rolled(real_file):
    field = open_real(real_file, ERSST).sst.isel(time=slice(0, 2))
    grid, rolled = grid_of(field), roll_to_date_line(field)
    assert float(rolled.lon[0]) == -180
    expected = field.isel(grid.indexers(field))
    np.testing.assert_array_equal(rolled.isel(grid.indexers(rolled)), expected)


def test_longitude_from_the_date_line_meets_data_from_greenwich():
    field = make_field(n_times=2)
    grid = grid_of(roll_to_date_line(field))
    np.testing.assert_array_equal(field.isel(grid.indexers(field)), roll_to_date_line(field))


def test_shuffled_rows_are_put_in_order():
    field = make_field(n_times=2)
    shuffled = field.isel(lat=np.random.default_rng(0).permutation(21))
    np.testing.assert_array_equal(shuffled.isel(grid_of(field).indexers(shuffled)), field)


def test_descending_latitude_is_turned(real_file):
    field = open_real(real_file, ERSST).sst.isel(time=slice(0, 1))
    layout = layout_of(field)
    np.testing.assert_array_equal(layout.array(field)[:, 0], field.values[:, ::-1])


def test_orientation_makes_no_other_grid():
    field = make_field(n_times=2)
    turned = grid_of(field.isel(lat=slice(None, None, -1)))
    xr.testing.assert_identical(turned.coords, grid_of(field).coords)
    np.testing.assert_array_equal(field.isel(turned.indexers(field)), field)


def test_half_a_cell_off_names_the_first_difference(real_file):
    grid = grid_of(open_real(real_file, CLIMATOLOGY).sst)
    mask = open_real(real_file, LAND_SEA_MASK).mask
    with pytest.raises(
        ValueError, match=r"another grid.*'lon' differs first at 0, 0\.5 instead of 0\.0"
    ):
        grid.indexers(mask)


def test_first_difference_is_no_rounding():
    field = make_field(n_times=2, shape=(20, 30))
    lat = field.lat.values.astype(np.float32)
    assert lat[1] != field.lat[1]
    other = field.assign_coords(lat=lat + np.where(np.arange(20) == 5, 1, 0))
    with pytest.raises(ValueError, match="'lat' differs first at 5"):
        grid_of(field).indexers(other)


def test_rounded_coordinates_are_the_same_grid():
    field = make_field(n_times=2, shape=(21, 29))
    single = field.assign_coords(lat=field.lat.astype(np.float32), lon=field.lon.astype(np.float32))
    np.testing.assert_array_equal(single.isel(grid_of(field).indexers(single)), field)


def test_number_of_points_is_named():
    field = make_field(n_times=2)
    with pytest.raises(ValueError, match=r"'lon' has 29 points.*30"):
        grid_of(field).indexers(field.isel(lon=slice(1, None)))


def test_missing_dimension_is_named():
    field = make_field(n_times=2)
    with pytest.raises(ValueError, match="no dimension 'lat'"):
        grid_of(field).indexers(field.rename(lat="latitude"))


def test_coordinate_that_turns_back_is_named():
    field = make_field(n_times=2)
    lat = field.lat.values.copy()
    lat[7] = lat[3]
    with pytest.raises(ValueError, match=r"'lat' neither ascends nor descends.*sortby\('lat'\)"):
        grid_of(field.assign_coords(lat=lat))


def test_missing_coordinate_value_is_named():
    field = make_field(n_times=2)
    with pytest.raises(ValueError, match="'lat' holds missing"):
        grid_of(field.assign_coords(lat=field.lat.where(field.lat > -60)))


@pytest.mark.parametrize(
    ("longitude", "periodic"),
    [
        (np.arange(0, 360, 2), True),
        (np.arange(-180, 180, 2), True),
        (np.arange(358, -1, -2), True),
        ((np.arange(0, 360, 2) + 91) % 360, True),
        (np.linspace(0.625, 359.375, 288), True),
        (np.arange(0, 361, 2), False),
        (np.arange(0, 350, 2), False),
        (np.arange(-6, 36, 0.125), False),
    ],
)
def test_periodic_where_longitude_covers_the_globe(longitude, periodic):
    assert grid_of(with_longitude(longitude)).periodic is periodic


@pytest.mark.parametrize(
    ("name", "variable", "periodic"),
    [
        (ERSST, "sst", True),
        (CLIMATOLOGY, "sst", True),
        (AVISO, "adt", False),
        (CMAP, "precip", False),
        (HADGEM, "air_temperature", False),
    ],
)
def test_periodic_of_real_file(real_file, name, variable, periodic):
    assert grid_of(open_real(real_file, name, chunks={})[variable]).periodic is periodic


def test_no_longitude_is_not_periodic():
    assert grid_of(with_longitude(np.arange(0, 360, 2), units="m", axis="X")).periodic is False


@pytest.mark.parametrize("periodic", [True, False])
def test_the_caller_decides_whether_x_wraps(periodic):
    assert (
        grid_of(
            with_longitude(np.arange(0, 360, 2 if not periodic else 1.5)), periodic=periodic
        ).periodic
        is periodic
    )


def test_curvilinear_coordinates_must_agree(real_file):
    field = open_real(real_file, NEMO).tos
    grid = grid_of(field)
    other = field.copy(deep=True)
    other["nav_lat"][5, 7] += 1
    for given in (other, other.assign_coords(nav_lat=other.nav_lat.T)):
        with pytest.raises(ValueError, match=r"'nav_lat' differs first at \(5, 7\)"):
            grid.indexers(given)


def test_curvilinear_coordinates_may_be_rounded(real_file):
    field = open_real(real_file, NEMO).tos
    precise = field.assign_coords(
        nav_lat=field.nav_lat * (1 + 1e-9), nav_lon=field.nav_lon.astype(np.float64)
    )
    np.testing.assert_array_equal(field.isel(grid_of(precise).indexers(field)), field)


def test_area_weights_are_the_cosine_of_latitude(real_file):
    field = open_real(real_file, ERSST).sst.isel(time=slice(0, 1))
    weights = grid_of(field).area_weights()
    expected = np.cos(np.deg2rad(np.sort(field.lat.values.astype(float))))
    np.testing.assert_allclose(weights, np.repeat(expected[:, None], 180, 1), rtol=1e-15)


def test_area_weights_of_a_curvilinear_grid(real_file):
    field = open_real(real_file, NEMO).tos
    expected = np.cos(np.deg2rad(field.nav_lat.values.astype(float)))
    np.testing.assert_allclose(grid_of(field).area_weights(), expected, rtol=1e-15)


def test_area_weights_are_never_negative():
    field = make_field(n_times=2)
    lat = field.lat.copy(data=np.linspace(-90.0000001, 90.0000001, 21))
    assert float(grid_of(field.assign_coords(lat=lat)).area_weights().min()) >= 0


def test_area_weights_need_a_latitude(real_file):
    field = open_real(real_file, CYLINDER, chunks={}).u
    with pytest.raises(ValueError, match=r'weights="area" needs a latitude.*y, x'):
        grid_of(field).area_weights()


def test_nothing_of_the_users_data_changes(real_file):
    ds = open_real(real_file, MITGCM)
    before = copy.deepcopy(ds)
    grid = grid_of(ds.Eta)
    grid.area_weights()
    grid.indexers(ds.Eta)
    select_variables(ds, ["THETA", "SALT"])
    xr.testing.assert_identical(ds, before)
    for name in ds.variables:
        assert repr(ds[name].encoding) == repr(
            before[name].encoding
        )  # a missing value is NaN, which equals nothing


# Variables of a Dataset


def test_the_only_suitable_variable_is_taken(real_file):
    ds = open_real(real_file, HADGEM, chunks={})
    assert {"time_bnds", "latitude_longitude"} <= set(ds.data_vars)
    assert select_variables(ds).name == "air_temperature"


def test_bounds_are_passed_over(real_file):
    ds = open_real(real_file, NEMO, chunks={})
    ds["bounds_lat"] = ds.bounds_lat.isel(nvertex=0).expand_dims(time_counter=ds.time_counter)
    assert select_variables(ds).name == "tos"


def test_what_is_not_numeric_is_passed_over():
    ds = make_two_variables(n_times=2)
    assert select_variables(ds.assign(ssh=ds.ssh.astype(str))).name == "sst"


def test_several_suitable_variables_are_listed(real_file):
    with pytest.raises(ValueError, match=r"several variables would do \(u, v, vorticity_z\)"):
        select_variables(open_real(real_file, CYLINDER, chunks={}))


def test_no_suitable_variable_is_an_error(real_file):
    ds = open_real(real_file, HADGEM, chunks={}).drop_vars("air_temperature")
    with pytest.raises(ValueError, match=r"no variable .*latitude_longitude"):
        select_variables(ds)


def test_one_name_gives_a_dataarray_and_a_list_a_dataset_in_its_order():
    ds = make_two_variables(n_times=2)
    assert isinstance(select_variables(ds, "ssh"), xr.DataArray)
    assert list(select_variables(ds, ["ssh", "sst"]).data_vars) == ["ssh", "sst"]


@pytest.mark.parametrize("names", ["salt", ["sst", "salt"], ["sst", "sst"], [], "lat", 3])
def test_bad_names_are_errors(names):
    with pytest.raises(ValueError, match=r"variable"):
        select_variables(make_two_variables(n_times=2), names)


def test_variables_of_two_grids_name_all_candidates(real_file):
    ds = open_real(real_file, MITGCM, chunks={})
    with pytest.raises(ValueError, match="different grids") as error:
        select_variables(ds, ["UVEL", "THETA"])
    for dim in ("XC", "XG", "YC", "YG"):
        assert dim in str(error.value)
