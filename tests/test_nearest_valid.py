"""Valid pixels of another grid on the grid of a field, by the nearest neighbour."""

import numpy as np
import pytest
import xarray as xr
from helpers import CLIMATOLOGY, LAND_SEA_MASK, NEMO, make_field, open_real
from hypothesis import given, settings
from hypothesis import strategies as st

import xmrcae


def grid(lat, lon, *, names=("lat", "lon"), values=None, **attrs):
    """Numbered pixels, or `values`, on latitude and longitude."""
    lat, lon = np.asarray(lat), np.asarray(lon)
    coords = {
        names[0]: (names[0], lat, {"standard_name": "latitude", "units": "degrees_north"}),
        names[1]: (names[1], lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    values = (
        np.arange(lat.size * lon.size).reshape(lat.size, lon.size) if values is None else values
    )
    return xr.DataArray(values, coords, names, "mask", attrs)


def distance(a, b):
    """On the circle, (len(a), len(b))."""
    return np.abs((np.asarray(b) - np.asarray(a)[:, None] + 180) % 360 - 180)


def test_the_real_mask_half_a_cell_off(real_file):
    mask = open_real(real_file, LAND_SEA_MASK).mask
    ds = open_real(real_file, CLIMATOLOGY)
    valid = xmrcae.nearest_valid(mask, ds.sst)
    assert (mask.lon[0], ds.lon[0], mask.lat[0], ds.lat[0]) == (0.5, 0, 89.5, -89.5)
    # Of 359.5 and 0.5 the western one is taken for 0; latitudes are the same, turned.
    np.testing.assert_array_equal(valid, np.roll(mask[0, ::-1], 1, axis=1))
    xr.testing.assert_equal(valid.coords.to_dataset(), ds[["lat", "lon"]])
    holds_data = ds.sst.notnull().any("time")
    assert (valid.astype(bool) == holds_data).mean() > 0.97
    with pytest.raises(ValueError, match="valid is True at 190 pixels where the data are missing"):
        ds.sst.mrcae.fit(valid=valid)
    tree = ds.sst.mrcae.pyramid(levels=2, valid=valid)
    np.testing.assert_array_equal(
        tree["level_1"]["sst"].notnull().all("time"), (valid == 1) & holds_data
    )


def test_a_dataset_with_bounds_has_one_grid(real_file):
    mask, ds = open_real(real_file, LAND_SEA_MASK)["mask"], open_real(real_file, CLIMATOLOGY)
    xr.testing.assert_identical(
        xmrcae.nearest_valid(mask, ds), xmrcae.nearest_valid(mask, ds["sst"])
    )


def test_the_fields_own_grid_changes_nothing(real_file):
    mask = open_real(real_file, LAND_SEA_MASK).mask
    xr.testing.assert_equal(xmrcae.nearest_valid(mask, mask), mask[0].drop_vars("time"))


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(2, 40),
    spacing=st.sampled_from([0.25, 1 / 3, 1.0, 2.5, 7.2, 9.0]),
    start=st.floats(-400, 400),
    globe=st.booleans(),
    offset=st.floats(-0.9, 0.9),
    seed=st.integers(0, 99),
)
def test_each_pixel_has_the_value_of_the_nearest(n, spacing, start, globe, offset, seed):
    rng = np.random.default_rng(seed)
    lon = start + (360 / n if globe else spacing) * np.arange(n)
    lat = spacing * np.arange(5)
    step = lon[1] - lon[0]
    wanted = ((lon + offset * step) % 360)[rng.permutation(n)]
    order, turns = rng.permutation(n), 360 * rng.integers(-1, 2, n)
    field = grid(lat[::-1], wanted, names=("latitude", "longitude"))
    valid = xmrcae.nearest_valid(grid(lat, (lon + turns)[order]), field)
    assert valid.dims == ("latitude", "longitude")
    rows, columns = np.divmod(valid.values, n)
    assert (rows == np.arange(5)[::-1, None]).all() and (columns == columns[0]).all()
    away = distance(wanted, lon[order])
    np.testing.assert_allclose(away[range(n), columns[0]], away.min(1), atol=2e-3 * step)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turned", [False, True])
def test_of_two_equally_near_the_southern_and_the_western(dtype, turned):
    n, flip = 27, slice(None, None, -1 if turned else 1)
    step = 360 / n
    lon = (step * (np.arange(n) + 0.5)).astype(dtype)[flip]
    lat = (step * (np.arange(13) - 6)).astype(dtype)[flip]
    field = grid(
        (lat[:-1].astype(float) + step / 2 * (-1 if turned else 1)).astype(dtype),
        step * np.arange(n),
    )
    valid = xmrcae.nearest_valid(grid(lat, lon), field)
    rows, columns = np.divmod(valid.values, n)
    np.testing.assert_allclose(lat[rows[:, 0]], field.lat - step / 2, atol=1e-4)
    np.testing.assert_allclose(lon[columns[0]], (field.lon - step / 2) % 360, atol=1e-4)


def test_a_column_that_is_there_twice_is_taken_once():
    mask = grid([0, 1], [0, 120, 240, 360])
    np.testing.assert_array_equal(xmrcae.nearest_valid(mask, grid([0, 1], [359, 121]))[0], [0, 1])


def test_dimensions_are_told_by_their_names_too():
    plain = xr.DataArray(np.arange(9).reshape(3, 3), {"p": [0, 1, 2], "q": [0, 1, 2]}, ("p", "q"))
    field = xr.DataArray(np.ones((4, 2, 2)), {"q": [0.1, 1.9], "p": [0.9, 2.2]}, ("t", "q", "p"))
    valid = xmrcae.nearest_valid(plain, field, sample="t", horizontal=("q", "p"))
    np.testing.assert_array_equal(valid, [[3, 6], [5, 8]])
    assert valid.dims == ("q", "p")


def test_it_is_lazy_and_keeps_name_type_and_attributes(no_compute):
    field = make_field(n_times=3).chunk(time=1)
    mask = field[0].notnull().assign_attrs(long_name="wet").rename("wet").chunk()
    with no_compute():
        valid = xmrcae.nearest_valid(mask, field.to_dataset())
    assert valid.chunks and (valid.name, valid.dtype, valid.attrs["long_name"]) == (
        "wet",
        bool,
        "wet",
    )
    assert valid.attrs["interpolation"] == "nearest neighbour" and "interpolation" not in mask.attrs
    assert set(valid.coords) == {"lat", "lon"}
    xr.testing.assert_equal(valid, mask.drop_vars("time"))


@pytest.mark.parametrize(
    ("lat", "lon", "message"),
    [
        (
            [0, 1],
            [9, 10, 11, 12],
            r"along 'lon', 1 of its 4 pixels, the first at 12, lie farther than one cell \(1\)",
        ),
        ([0, 1], [358, 359, 0, 1], r"along 'lon', 1 of its 4 pixels, the first at 358,"),
        (
            [-3, -1, 0],
            [0, 1],
            r"along 'lat', 1 of its 3 pixels, the first at -3, lie farther than one cell \(2\)",
        ),
        ([0, 1], [180, 181], r"along 'lon', 2 of its 2 pixels"),
    ],
)
def test_pixels_beyond_the_mask_are_an_error(lat, lon, message):
    mask = grid([0, 2, 4], np.arange(11))
    with pytest.raises(ValueError, match=message):
        xmrcae.nearest_valid(mask, grid(lat, lon))


def test_what_is_no_mask_on_a_grid_is_refused(real_file):
    field = make_field(n_times=3)
    with pytest.raises(TypeError, match="valid is a str: give a DataArray"):
        xmrcae.nearest_valid("maskC", field)
    with pytest.raises(
        ValueError, match=r"valid has dimensions \('time', 'lat', 'lon'\): select one"
    ):
        xmrcae.nearest_valid(field.notnull(), field)
    with pytest.raises(ValueError, match="valid has one value along 'lon'"):
        xmrcae.nearest_valid(grid([0, 60, -60], [3, 3]), field)
    message = (
        r"no finite 1-D coordinates of one kind and unit \(valid: lat; field: none\).*curvilinear"
    )
    with pytest.raises(ValueError, match=message):
        xmrcae.nearest_valid(grid([0, 1], [0, 1]), open_real(real_file, NEMO).tos)
    with pytest.raises(ValueError, match=r"one kind and unit \(valid: none; field: lat\)"):
        xmrcae.nearest_valid(grid([0, np.nan], [0, 1]), field)
