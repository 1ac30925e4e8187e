"""Valid pixels, and what stands on land."""

import numpy as np
import pytest
import xarray as xr
from helpers import (
    CLIMATOLOGY,
    LAND_SEA_MASK,
    MITGCM,
    fitted_valid,
    grid_of,
    make_field,
    make_land,
    make_two_variables,
    open_real,
)

from xmrcae.grid.fill import fill
from xmrcae.grid.valid import valid_from

pytestmark = pytest.mark.minimum


def laplacian(values):
    """Sum over the neighbours that exist of their difference from each pixel."""
    total = np.zeros_like(values)
    for axis in (0, 1):
        step = np.diff(values, axis=axis)
        total += np.concatenate([step, np.zeros_like(values.take([0], axis))], axis)
        total -= np.concatenate([np.zeros_like(values.take([0], axis)), step], axis)
    return total


# The user's own valid pixels


@pytest.mark.parametrize("dtype", [bool, int, np.float32])
def test_true_and_false_may_be_1_and_0(dtype):
    field, ocean = make_field(n_times=2), make_land((21, 30))
    valid = xr.DataArray(ocean.astype(dtype), dims=("lat", "lon"))
    np.testing.assert_array_equal(valid_from(valid, grid_of(field)), ocean)


def test_valid_comes_in_any_orientation_and_order():
    field, ocean = make_field(n_times=2), make_land((21, 30))
    valid = xr.DataArray(ocean, dims=("lat", "lon"), coords={"lat": field.lat, "lon": field.lon})
    turned = (
        valid.isel(lat=slice(None, None, -1)).roll(lon=7, roll_coords=True).transpose("lon", "lat")
    )
    np.testing.assert_array_equal(valid_from(turned, grid_of(field)), ocean)


def test_time_axis_of_length_1_is_dropped(real_file):
    mask = open_real(real_file, LAND_SEA_MASK).mask
    assert mask.sizes["time"] == 1
    np.testing.assert_array_equal(valid_from(mask, grid_of(mask)), mask.values[0, ::-1] == 1)


def test_other_values_are_counted(real_file):
    mask = open_real(real_file, LAND_SEA_MASK).mask
    with pytest.raises(ValueError, match=rf"{int((mask == 1).sum())} values other than .* 2\.0"):
        valid_from(2 * mask, grid_of(mask))


def test_missing_values_are_other_values():
    field = make_field(n_times=2)
    with pytest.raises(
        ValueError, match=rf"{int(field[0].isnull().sum())} values other than .* nan"
    ):
        valid_from(field[0] * 0 + 1, grid_of(field))


def test_other_coordinates_are_named(real_file):
    grid = grid_of(open_real(real_file, CLIMATOLOGY).sst)
    with pytest.raises(ValueError, match="'lon' differs first at 0"):
        valid_from(open_real(real_file, LAND_SEA_MASK).mask, grid)


def test_other_dimensions_are_named():
    field = make_field(n_times=2)
    with pytest.raises(ValueError, match=r"valid has dimensions \('time', 'lat', 'lon'\)"):
        valid_from(field.notnull(), grid_of(field))


def test_declared_valid_but_always_missing_is_counted():
    field = make_field()
    everywhere = xr.ones_like(field[0], dtype=bool)
    with pytest.raises(
        ValueError, match=rf"valid is True at {int((~make_land((21, 30))).sum())} pixels"
    ):
        fitted_valid(field, valid=everywhere)


def test_valid_leaves_out_pixels_that_hold_data():
    field = make_field()
    valid = xr.DataArray(make_land((21, 30)), dims=("lat", "lon"))
    valid[4, 4:9] = False
    np.testing.assert_array_equal(fitted_valid(field, valid=valid)[0], valid)


@pytest.mark.parametrize(
    ("kind", "variables"),
    [
        ("coordinate", None),
        *(
            (kind, names)
            for kind in ("coordinate", "variable")
            for names in ("THETA", ["THETA", "SALT"])
        ),
    ],
)
def test_valid_by_name(real_file, kind, variables):
    ds = open_real(real_file, MITGCM)[["THETA", "SALT"]].isel(Z=slice(0, 4))
    options = {"levels": 2, "sample": ["time", "Z"], "horizontal": ["YC", "XC"]}
    ds = ds.assign_coords(wet=ds.maskC.isel(Z=3, drop=True))
    expected = ds.wet
    if kind == "variable":
        ds = ds.reset_coords("wet")
    if variables is None:
        tree = ds.THETA.mrcae.pyramid(valid="wet", **options)
    else:
        tree = ds.mrcae.pyramid(variables, valid="wet", **options)
    np.testing.assert_array_equal(tree["level_1"]["THETA"].notnull().all(["time", "Z"]), expected)


def test_valid_by_name_is_that_of_the_selected_depth(real_file):
    ds = open_real(real_file, MITGCM)[["THETA"]]
    for depth in (0, 9):
        at = ds.isel(Z=depth)
        tree = at.mrcae.pyramid("THETA", levels=2, valid="maskC")
        np.testing.assert_array_equal(tree["level_1"]["THETA"].notnull()[0], ds.maskC[depth])


def test_fit_finds_valid_among_variables_that_it_passes_over():
    ds = make_two_variables(n_times=20)
    ds["wet"] = (
        ("lat", "lon"),
        make_land((21, 30), seed=5) & ds.to_array().notnull().all(["variable", "time"]).values,
    )
    np.testing.assert_array_equal(fitted_valid(ds, valid="wet"), np.stack([ds.wet] * 2))


def test_unknown_name_of_valid_lists_the_candidates(real_file):
    ds = open_real(real_file, MITGCM).isel(Z=0)
    with pytest.raises(
        ValueError, match=r"valid='wet': .* no such coordinate.*: maskC, hFacC, rA, Depth$"
    ):
        ds.THETA.mrcae.pyramid(levels=2, valid="wet")
    with pytest.raises(
        ValueError, match=r"valid='wet': .* no such variable or coordinate.*THETA.*maskC"
    ):
        ds.mrcae.fit("THETA", valid="wet")
    with pytest.raises(ValueError, match=r"valid='wet': .*two dimensions or more: none$"):
        fitted_valid(make_field(), valid="wet")


def test_name_of_valid_changes_nothing_of_what_is_no_field():
    with pytest.raises(TypeError, match="fit takes a DataArray or a Dataset, not ndarray"):
        fitted_valid(make_field().values, valid="wet")


def test_valid_of_several_depths_says_what_to_do(real_file):
    ds = open_real(real_file, MITGCM)[["THETA"]]
    with pytest.raises(
        ValueError,
        match=r"valid has dimensions \('Z', 'YC', 'XC'\); .* \(YC, XC\): .*\.isel.*\.any",
    ):
        ds.mrcae.pyramid("THETA", levels=2, valid="maskC", sample=["time", "Z"])


# Found from the data


def test_not_missing_at_every_time_is_valid():
    np.testing.assert_array_equal(fitted_valid(make_field())[0], make_land((21, 30)))


def test_valid_is_per_variable():
    ds = make_two_variables(n_times=20)
    expected = np.stack([ds[name].notnull().all("time") for name in ds.data_vars])
    assert (expected[0] != expected[1]).any()
    np.testing.assert_array_equal(fitted_valid(ds), expected)


def test_nothing_valid_names_the_variable():
    ds = make_two_variables(n_times=20)
    ds["ssh"] = ds.ssh * np.nan
    with pytest.raises(ValueError, match="no pixel of 'ssh' is valid"):
        fitted_valid(ds)


def test_valid_that_is_false_everywhere_is_an_error():
    field = make_field()
    with pytest.raises(ValueError, match="no pixel of 'sst' is valid"):
        fitted_valid(field, valid=xr.zeros_like(field[0], dtype=bool))


# What stands on land


def test_fill_is_zero_by_default():
    values = np.random.default_rng(0).random((3, 2, 21, 30))
    has_data = np.stack([make_land((21, 30), seed=seed) for seed in (0, 1)])
    np.testing.assert_array_equal(fill(values, has_data, 0), values * has_data)


def test_harmonic_fill_solves_laplaces_equation():
    values = np.random.default_rng(0).random((3, 2, 21, 30))
    has_data = np.stack([make_land((21, 30), seed=seed) for seed in (0, 1)])
    filled = fill(values, has_data, "harmonic")
    for sample in filled:
        for field, has in zip(sample, has_data, strict=True):
            np.testing.assert_allclose(laplacian(field)[~has], 0, atol=1e-12)


def test_harmonic_fill_on_a_real_coast(real_file):
    mask = open_real(real_file, LAND_SEA_MASK).mask.values[0, ::3, ::3] == 1
    values = np.random.default_rng(0).random((1, 1, *mask.shape))
    filled = fill(values, mask[None], "harmonic")
    np.testing.assert_allclose(laplacian(filled[0, 0])[~mask], 0, atol=1e-12)
    assert filled.min() >= values[..., mask].min() and filled.max() <= values[..., mask].max()


def test_harmonic_fill_is_linear():
    rng, has_data = np.random.default_rng(0), make_land((21, 30))[None]
    a, b = rng.random((2, 3, 1, 21, 30))
    together = fill(2 * a - 3 * b, has_data, "harmonic")
    apart = 2 * fill(a, has_data, "harmonic") - 3 * fill(b, has_data, "harmonic")
    np.testing.assert_allclose(together, apart, atol=1e-13)


@pytest.mark.parametrize("how", [0, "harmonic"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fill_keeps_the_data_to_the_bit(how, dtype):
    values = np.random.default_rng(0).random((3, 1, 21, 30)).astype(dtype)
    has_data = make_land((21, 30))[None]
    filled = fill(values, has_data, how)
    assert filled.dtype == dtype
    np.testing.assert_array_equal(filled[:, has_data], values[:, has_data])


@pytest.mark.parametrize("how", [0, "harmonic"])
def test_fill_looks_at_no_value_on_land(how):
    values, has_data = np.random.default_rng(0).random((3, 1, 21, 30)), make_land((21, 30))[None]
    changed = np.where(has_data, values, np.nan)
    np.testing.assert_array_equal(fill(changed, has_data, how), fill(values, has_data, how))


def test_harmonic_fill_carries_a_constant_over_a_wide_land():
    has_data = np.zeros((1, 200, 200), dtype=bool)
    has_data[0, 0, 0] = True
    filled = fill(np.full((1, 1, 200, 200), 5.0), has_data, "harmonic")
    np.testing.assert_allclose(filled, 5, rtol=1e-8)


def test_harmonic_fill_without_land_or_without_data():
    values = np.random.default_rng(0).random((2, 2, 5, 6))
    has_data = np.stack([np.ones((5, 6), dtype=bool), np.zeros((5, 6), dtype=bool)])
    filled = fill(values, has_data, "harmonic")
    np.testing.assert_array_equal(filled[:, 0], values[:, 0])
    np.testing.assert_array_equal(filled[:, 1], 0)
