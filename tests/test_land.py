"""Valid pixels, gaps, and what stands on land."""

import warnings

import numpy as np
import pytest
import xarray as xr
from helpers import (
    AVISO,
    CLIMATOLOGY,
    LAND_SEA_MASK,
    MITGCM,
    grid_of,
    make_field,
    make_land,
    make_two_variables,
    open_real,
    prepare_with,
)

from xmrcae.grid.fill import fill
from xmrcae.grid.valid import valid_from


def gappy_field(n_times=20):
    """A field of whose pixels two miss 3 and 1 values."""
    field = make_field(n_times=n_times)
    rows, columns = np.nonzero(make_land((21, 30)))
    field[2:5, rows[0], columns[0]] = np.nan
    field[7, rows[9], columns[9]] = np.nan
    return field


def fitted_valid(obj, **options):
    """Valid pixels, (variable, y, x), of a small fit's training set."""
    return prepare_with(obj, levels=2, **options).standard.valid


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
    turned = valid.isel(lat=slice(None, None, -1)).roll(lon=7, roll_coords=True).transpose("lon", "lat")
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
    with pytest.raises(ValueError, match=rf"{int(field[0].isnull().sum())} values other than .* nan"):
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
    with pytest.raises(ValueError, match=rf"valid is True at {int((~make_land((21, 30))).sum())} pixels"):
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
        *((kind, names) for kind in ("coordinate", "variable") for names in ("THETA", ["THETA", "SALT"])),
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
    ds["wet"] = ("lat", "lon"), make_land((21, 30), seed=5) & ds.to_array().notnull().all(["variable", "time"]).values
    np.testing.assert_array_equal(fitted_valid(ds, valid="wet"), np.stack([ds.wet] * 2))


def test_unknown_name_of_valid_lists_the_candidates(real_file):
    ds = open_real(real_file, MITGCM).isel(Z=0)
    with pytest.raises(ValueError, match=r"valid='wet': .* no such coordinate.*: maskC, hFacC, rA, Depth$"):
        ds.THETA.mrcae.pyramid(levels=2, valid="wet")
    with pytest.raises(ValueError, match=r"valid='wet': .* no such variable or coordinate.*THETA.*maskC"):
        ds.mrcae.fit("THETA", valid="wet")
    with pytest.raises(ValueError, match=r"valid='wet': .*two dimensions or more: none$"):
        fitted_valid(make_field(), valid="wet")


def test_name_of_valid_changes_nothing_of_what_is_no_field():
    with pytest.raises(TypeError, match="fit takes a DataArray or a Dataset, not ndarray"):
        fitted_valid(make_field().values, valid="wet")


def test_valid_of_several_depths_says_what_to_do(real_file):
    ds = open_real(real_file, MITGCM)[["THETA"]]
    with pytest.raises(ValueError, match=r"valid has dimensions \('Z', 'YC', 'XC'\); .* \(YC, XC\): .*\.isel.*\.any"):
        ds.mrcae.pyramid("THETA", levels=2, valid="maskC", sample=["time", "Z"])


# Found from the data


def test_not_missing_at_every_time_is_valid():
    np.testing.assert_array_equal(fitted_valid(make_field())[0], make_land((21, 30)))


def test_valid_is_per_variable():
    ds = make_two_variables(n_times=20)
    expected = np.stack([ds[name].notnull().all("time") for name in ds.data_vars])
    assert (expected[0] != expected[1]).any()
    np.testing.assert_array_equal(fitted_valid(ds), expected)


def test_a_land_value_at_all_times_is_land_and_now_and_then_a_missing_value():
    field = make_field().fillna(0)
    ocean = make_land((21, 30))
    row, column = np.argwhere(ocean)[20]
    field[4, row, column] = 0
    with pytest.warns(UserWarning, match=r"land_value=0 stands at 1 pixel now and then \(1 value\)"):
        found = prepare_with(field, levels=1, land_value=0)
    np.testing.assert_array_equal(found.standard.valid[0], ocean)
    training = field.isel(time=(found.split == "training").values)[:, row, column]
    expected = training.where(training != 0).mean()
    np.testing.assert_allclose(found.standard.mean[0, row, column], expected, rtol=1e-6)


def flagged_field(n_flags=3, n_times=20, flag=-1000.0, **kwargs):
    """A field with a flag on land, and at some times on three pixels of the ocean."""
    field = make_field(n_times=n_times, **kwargs).fillna(flag)
    rows, columns = np.argwhere(make_land((21, 30)))[[40, 41, 60]].T
    field.values[:n_flags, rows, columns] = flag
    return field


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (-1000, np.float32(-1000)),
        (1e20, np.float32(1e20)),  # no two of these are equal in float64
        (-9.99e33, np.float32(-9.99e33)),
        (1.1, np.float32(1.1)),
        (1.1, np.float64(1.1)),
        (np.float32(0.3), np.float32(0.3)),
    ],
)
def test_a_land_value_at_some_times_is_a_gap(given, stored, lazy):
    field = flagged_field(flag=stored, dtype=stored.dtype)
    field = field.chunk(time=7) if lazy else field
    with pytest.raises(ValueError, match=r"gaps in time: 3 pixels .*\(9 values, 9 of them the land_value=.*\)"):
        fitted_valid(field, land_value=given)
    ocean = make_land((21, 30))
    np.testing.assert_array_equal(fitted_valid(field, land_value=given, gaps="mean")[0], ocean)
    masked = fitted_valid(field, land_value=given, gaps="mask")[0]
    assert (ocean & ~masked).sum() == 3 and not (masked & ~ocean).any()


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("gaps", ["mask", "mean"])
def test_a_land_value_is_to_a_model_what_nan_is(gaps, lazy):
    flagged = flagged_field(flag=np.float32(1e20))
    missing = flagged.where(flagged != np.float32(1e20))
    flagged, missing = (f.chunk(time=7) if lazy else f for f in (flagged, missing))
    options = {"levels": 2, "max_epochs": 2, "progress": False, "gaps": gaps}
    ours, theirs = flagged.mrcae.fit(land_value=1e20, **options), missing.mrcae.fit(**options)
    for keep_gaps in (False, True):
        xr.testing.assert_equal(
            ours.reconstruct(flagged, keep_gaps=keep_gaps), theirs.reconstruct(missing, keep_gaps=keep_gaps)
        )
    for level in ("level_0", "level_1"):
        xr.testing.assert_equal(ours.encode(flagged)[level].to_dataset(), theirs.encode(missing)[level].to_dataset())
    xr.testing.assert_equal(ours.score(flagged), theirs.score(missing))
    trees = (
        flagged.mrcae.pyramid(levels=2, land_value=1e20),
        missing.mrcae.pyramid(levels=2),
    )
    xr.testing.assert_equal(*trees)


def test_a_land_value_and_nan_are_gaps_together():
    field = flagged_field(n_flags=1)
    field[7, 12, 1] = np.nan
    assert make_land((21, 30))[12, 1]
    with pytest.raises(ValueError, match=r"4 pixels .*\(4 values, 3 of them the land_value=-1000\)"):
        fitted_valid(field, land_value=-1000)


def test_the_users_data_keep_their_land_value():
    for field in (flagged_field(), flagged_field().chunk()):
        before = field.copy(deep=True)
        fitted_valid(field, land_value=-1000, gaps="mean")
        xr.testing.assert_identical(field, before)


@pytest.mark.parametrize("lazy", [False, True])
def test_whole_numbers_have_a_land_value_of_their_own_type(lazy):
    field = (100 * make_field()).round().fillna(-32768).astype(np.int16)
    field = field.chunk(time=5) if lazy else field
    np.testing.assert_array_equal(fitted_valid(field, land_value=-32768.0)[0], make_land((21, 30)))
    for wrong in (0.5, 1e20):
        for refuse in (fitted_valid, lambda da, **options: da.mrcae.pyramid(levels=2, **options)):
            with pytest.raises(ValueError, match=r"land_value=.*: sst are of type int16, which does not hold"):
                refuse(field, land_value=wrong)


def test_variables_have_a_land_value_each_in_its_own_type():
    ds = make_two_variables(n_times=20)
    expected = fitted_valid(ds)
    ds = ds.assign(ssh=ds.ssh.astype(np.float64)).fillna(1.1)
    assert [ds[name].dtype for name in ds.data_vars] == ["float32", "float64"]
    np.testing.assert_array_equal(fitted_valid(ds, land_value=1.1), expected)


def test_a_land_value_that_stands_nowhere_is_warned_of():
    field = make_field().fillna(0)
    with pytest.warns(UserWarning, match="land_value=-999: no pixel holds it"):
        assert fitted_valid(field, land_value=-999).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted_valid(field, land_value=0)


def test_zeros_as_land_are_those_of_the_models_own_mask(real_file):
    ds = open_real(real_file, MITGCM)[["THETA"]].isel(Z=slice(0, 4))
    options = {"sample": ["time", "Z"], "split": ([0, 1], [2], [3])}
    assert (ds.THETA.isel(time=0).where(~ds.maskC) == 0).sum() == (~ds.maskC).sum()
    below = int((ds.maskC.any("Z") & ~ds.maskC.all("Z")).sum())
    with pytest.raises(ValueError, match=f"{below} pixels are missing at some times only"):
        fitted_valid(ds.THETA, land_value=0.0, **options)
    valid = fitted_valid(ds.THETA, land_value=0.0, gaps="mean", **options)
    np.testing.assert_array_equal(valid[0], ds.maskC.any("Z"))
    tree = ds.mrcae.pyramid("THETA", levels=2, land_value=0.0, sample=["time", "Z"])
    np.testing.assert_array_equal(tree["level_1"]["THETA"].notnull()[0], ds.maskC)


def test_nothing_valid_names_the_variable():
    ds = make_two_variables(n_times=20)
    ds["ssh"] = ds.ssh * np.nan
    with pytest.raises(ValueError, match="no pixel of 'ssh' is valid"):
        fitted_valid(ds)


def test_valid_that_is_false_everywhere_is_an_error():
    field = make_field()
    with pytest.raises(ValueError, match="no pixel of 'sst' is valid"):
        fitted_valid(field, valid=xr.zeros_like(field[0], dtype=bool))


# Infinities


@pytest.mark.parametrize("gaps", [None, "mask", "mean"])
def test_infinite_values_on_the_ocean_are_counted(gaps):
    field, (row, column) = make_field(), np.argwhere(make_land((21, 30)))[5]
    field[3, row, column], field[4:6, row, column + 1] = np.inf, -np.inf
    with pytest.raises(ValueError, match="3 infinite values at 2 pixels"):
        fitted_valid(field, gaps=gaps)


def test_pixel_that_is_always_infinite_is_no_land():
    field, (row, column) = make_field(), np.argwhere(make_land((21, 30)))[5]
    field[:, row, column] = np.inf
    with pytest.raises(ValueError, match="20 infinite values at 1 pixel:"):
        fitted_valid(field)


def test_infinite_values_on_land_are_ignored():
    field, ocean = make_field(), make_land((21, 30))
    land_is_infinite = field.where(ocean, np.inf)
    valid = xr.DataArray(ocean, dims=("lat", "lon"))
    np.testing.assert_array_equal(fitted_valid(land_is_infinite, valid=valid)[0], ocean)


@pytest.mark.parametrize("use", ["encode", "reconstruct", "score"])
def test_infinite_new_values_are_counted_by_a_fitted_model(use, no_compute):
    field, ocean = make_field(), make_land((21, 30))
    model = field.mrcae.fit(levels=2, max_epochs=1, progress=False)
    new = field.isel(time=slice(6)).where(ocean, np.inf)  # land may hold anything
    assert np.isfinite(model.score(new)["rmse"]).all() and np.isinf(new).any()
    row, column = np.argwhere(ocean)[5]
    new[1, row, column], new[2, row, column] = np.inf, -np.inf
    with pytest.raises(ValueError, match="hold 2 infinite values on valid pixels"):
        getattr(model, use)(new)
    lazy = new.chunk(time=6)
    if use == "score":
        with pytest.raises(ValueError, match="2 infinite values"):
            model.score(lazy)
        return
    with no_compute():
        result = getattr(model, use)(lazy)
    with pytest.raises(ValueError, match="2 infinite values"):
        result.compute()


# Gaps


def test_gaps_are_counted_with_the_ways_out(real_file):
    field = open_real(real_file, AVISO).adt
    with pytest.raises(ValueError, match=r"9 pixels .*\(193 values\).*gaps=\"mask\".*gaps=\"mean\""):
        prepare_with(field)


def test_gaps_as_land(real_file):
    field = open_real(real_file, AVISO).adt.isel(latitude=slice(40, 100), longitude=slice(100, 220))
    assert (field.notnull().any("time") & field.isnull().any("time")).any()
    valid = fitted_valid(field, gaps="mask")[0]
    np.testing.assert_array_equal(valid, field.notnull().all("time"))


def test_gaps_as_the_mean_keep_the_pixels():
    field = gappy_field()
    np.testing.assert_array_equal(fitted_valid(field, gaps="mean")[0], make_land((21, 30)))


def test_gaps_as_the_mean_weigh_by_the_share_of_valid_times():
    field = gappy_field()
    found = prepare_with(field, levels=1, gaps="mean", weights="area")
    training = field.isel(time=(found.split == "training").values)
    share = training.notnull().mean("time").values
    weights = found.training[0].weights[0][found.pyramid.cut(0)]
    assert len(np.unique(share)) > 2
    np.testing.assert_allclose(weights, share * np.cos(np.deg2rad(field.lat.values))[:, None], rtol=1e-12)


def test_gap_in_all_training_times_is_an_error():
    field = gappy_field()
    with pytest.raises(ValueError, match=r"1 pixel have none.*another split"):
        fitted_valid(field, gaps="mean", split=([2, 3, 4], slice(5, 15), slice(15, None)))


# Whole snapshots without a value


def without_snapshots(times, **kwargs):
    field = make_field(**kwargs)
    field[times] = np.nan
    return field


@pytest.mark.parametrize("gaps", [None, "mask"])
@pytest.mark.parametrize("lazy", [False, True])
def test_empty_snapshots_are_named_with_the_way_out(gaps, lazy):
    field = without_snapshots([3, 5])
    field = field.chunk(time=6, lat=10) if lazy else field
    named = r"2 of 20 snapshots of sst hold no value at all \(time 2001-05-01; time 2001-07-01\)"
    way_out = r"""leave them out, as by \.dropna\('time', how="all"\)"""
    with pytest.raises(ValueError, match=rf"{named}: {way_out}"):
        fitted_valid(field, gaps=gaps)
    np.testing.assert_array_equal(fitted_valid(field.dropna("time", how="all"), gaps=gaps)[0], make_land((21, 30)))


def test_many_empty_snapshots_are_counted_and_the_first_named():
    field = without_snapshots(slice(4, 14)).drop_vars("time")
    with pytest.raises(ValueError, match=r"10 of 20 snapshots .*\(time 4; time 5; time 6; \.\.\.\)"):
        fitted_valid(field)


def test_empty_snapshots_of_one_variable_are_dropped_by_its_name():
    ds = make_two_variables(n_times=20)
    ds.ssh[2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 20 snapshots of ssh .*subset=\['ssh'\]"):
        fitted_valid(ds)
    dropped = ds.dropna("time", how="all", subset=["ssh"])
    assert fitted_valid(dropped).shape == (2, 21, 30) and dropped.sizes["time"] == 19


def test_empty_snapshots_along_several_dimensions_are_named_by_all():
    field = xr.concat([make_field(n_times=10), make_field(n_times=10, seed=1)], "member").transpose("time", ...)
    field[4, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 of 20 snapshots of sst .*\(time 2001-06-01, member 1\): leave them out$"):
        fitted_valid(field, sample=["time", "member"])


def test_snapshots_that_hold_values_on_land_alone_are_empty():
    field, ocean = make_field().fillna(0), make_land((21, 30))
    field.values[3, ocean] = np.nan
    valid = xr.DataArray(ocean, dims=("lat", "lon"))
    with pytest.raises(ValueError, match=r"1 of 20 snapshots of sst hold no value"):
        fitted_valid(field, valid=valid, gaps="mask")


def test_gaps_beside_whole_snapshots_have_their_own_ways_out():
    with pytest.raises(ValueError, match=r'gaps="mask"') as error:
        fitted_valid(gappy_field())
    assert "snapshots" not in str(error.value)


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
