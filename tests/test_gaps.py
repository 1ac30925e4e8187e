"""What is missing at some times: NaN, the land value, whole snapshots; and infinities."""

import warnings

import numpy as np
import pytest
import xarray as xr
from helpers import (
    AVISO,
    MITGCM,
    fitted_valid,
    make_field,
    make_land,
    make_two_variables,
    open_real,
    prepare_with,
)


def gappy_field(n_times=20):
    """A field of whose pixels two miss 3 and 1 values."""
    field = make_field(n_times=n_times)
    rows, columns = np.nonzero(make_land((21, 30)))
    field[2:5, rows[0], columns[0]] = np.nan
    field[7, rows[9], columns[9]] = np.nan
    return field


# The land value


def test_a_land_value_at_all_times_is_land_and_now_and_then_a_missing_value():
    field = make_field().fillna(0)
    ocean = make_land((21, 30))
    row, column = np.argwhere(ocean)[20]
    field[4, row, column] = 0
    with pytest.warns(
        UserWarning, match=r"land_value=0 stands at 1 pixel now and then \(1 value\)"
    ):
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
    with pytest.raises(
        ValueError, match=r"gaps in time: 3 pixels .*\(9 values, 9 of them the land_value=.*\)"
    ):
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
            ours.reconstruct(flagged, keep_gaps=keep_gaps),
            theirs.reconstruct(missing, keep_gaps=keep_gaps),
        )
    for level in ("level_0", "level_1"):
        xr.testing.assert_equal(
            ours.encode(flagged)[level].to_dataset(), theirs.encode(missing)[level].to_dataset()
        )
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
    with pytest.raises(
        ValueError, match=r"4 pixels .*\(4 values, 3 of them the land_value=-1000\)"
    ):
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
            with pytest.raises(
                ValueError, match=r"land_value=.*: sst are of type int16, which does not hold"
            ):
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
    with pytest.raises(
        ValueError, match=r"9 pixels .*\(193 values\).*gaps=\"mask\".*gaps=\"mean\""
    ):
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
    np.testing.assert_allclose(
        weights, share * np.cos(np.deg2rad(field.lat.values))[:, None], rtol=1e-12
    )


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
    np.testing.assert_array_equal(
        fitted_valid(field.dropna("time", how="all"), gaps=gaps)[0], make_land((21, 30))
    )


def test_many_empty_snapshots_are_counted_and_the_first_named():
    field = without_snapshots(slice(4, 14)).drop_vars("time")
    with pytest.raises(
        ValueError, match=r"10 of 20 snapshots .*\(time 4; time 5; time 6; \.\.\.\)"
    ):
        fitted_valid(field)


def test_empty_snapshots_of_one_variable_are_dropped_by_its_name():
    ds = make_two_variables(n_times=20)
    ds.ssh[2] = np.nan
    with pytest.raises(ValueError, match=r"1 of 20 snapshots of ssh .*subset=\['ssh'\]"):
        fitted_valid(ds)
    dropped = ds.dropna("time", how="all", subset=["ssh"])
    assert fitted_valid(dropped).shape == (2, 21, 30) and dropped.sizes["time"] == 19


def test_empty_snapshots_along_several_dimensions_are_named_by_all():
    field = xr.concat([make_field(n_times=10), make_field(n_times=10, seed=1)], "member").transpose(
        "time", ...
    )
    field[4, 1] = np.nan
    with pytest.raises(
        ValueError,
        match=r"1 of 20 snapshots of sst .*\(time 2001-06-01, member 1\): leave them out$",
    ):
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
