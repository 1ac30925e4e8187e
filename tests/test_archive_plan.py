"""What an archive keeps costs the fewest bytes, decodes as the model does, and opens coarse first."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from helpers import make_field, make_two_variables

import xmrcae
from xmrcae.archive import plan
from xmrcae.archive.block import Variable
from xmrcae.archive.models import archive_options, centred, group_counts, projecting, truncated
from xmrcae.archive.plan import choose

OPTIONS = {"levels": 2, "channels": [[1, 2]], "max_epochs": 5, "progress": False, "omega": 1.0}


@pytest.fixture(scope="module")
def field():
    return make_field(n_times=48, shape=(23, 30))


@pytest.fixture(scope="module")
def model(field):
    return field.mrcae.fit(**OPTIONS, encoder="projection", encoding_size=150, center="month")


@pytest.fixture(scope="module")
def filters(field):
    return field.mrcae.fit(**OPTIONS)


def sample_of(model, data):
    """Values (t, variable, y, x) and seasons, as a plan takes them."""
    fitted = model.fitted
    layout = fitted.layout(data)
    return np.asarray(layout.array(data)), np.asarray(fitted.season(layout))


def wanted_of(values, **bounds):
    """The same bounds for all variables, kept wherever they hold values."""
    kept = np.isfinite(values).any(0)
    return [
        Variable(array=f"v{v}", dtype=values.dtype, kept=each, **bounds)
        for v, each in enumerate(kept)
    ]


def chosen(model, data, *, length=600, levels=None, codes=None, **bounds):
    values, season = sample_of(model, data)
    wanted = wanted_of(values, **bounds)
    found = choose(model.fitted, values, season, wanted, length=length, levels=levels, codes=codes)
    return found, values, season


def squared_error(fitted, values, season):
    """The sum of squared errors of the finest level."""
    error = fitted.codec.squared_errors(values, season)[0, 0]
    n_finest = fitted.standard.valid.size
    return error[-n_finest:].sum()


# Choosing


@pytest.mark.parametrize("bounds", [{"max_error": 0.05}, {"rmse": 0.1}], ids=str)
def test_a_block_is_coded_by_the_plan_in_the_bytes_foretold(model, field, bounds):
    found, values, season = chosen(model, field, **bounds)
    codes = found.coder.quantise(found.fitted.codec.encode(values, season))
    arrays, records = found.coder.encode([values[:, 0]], codes, season)
    n_classes = int(found.coder.variables[0].classes.max()) + 1
    chunks = np.array_split(arrays["v0"], n_classes, axis=1)
    rest = sum(plan.packed_bytes(chunk) for chunk in chunks) / len(values)
    assert rest == pytest.approx(found.bytes["rest"], rel=0.05) and rest > 0
    assert records["v0"]["lossless"] == 0


def test_no_step_or_number_of_groups_nearby_is_better(model, field):
    found, values, season = chosen(model, field, max_error=0.1)
    planner = plan._Planner(model.fitted, values, season, wanted_of(values, max_error=0.1), 600)
    again = planner.plan(found.setting)
    assert again.total == pytest.approx(found.total, rel=0.02)  # compared in haste
    for name in ("code_step", "base_step"):
        for factor in (0.25, 4):
            step = factor * getattr(found.setting, name)
            assert planner.plan(replace(found.setting, **{name: step})).cost > again.cost
    for n_groups in group_counts(model.fitted, None, None):
        other = planner.plan(replace(found.setting, n_groups=n_groups))
        assert other.total >= 0.99 * again.total or other.coarse_loss > 1.15


def test_the_coarsest_picture_is_kept_where_the_rest_alone_would_be_smaller(model, field):
    found, values, season = chosen(model, field, max_error=0.1)
    codes = found.coder.quantise(found.fitted.codec.encode(values, season))
    coarse = found.coder.fields(codes[:, : found.coder.decoder.sizes[0]], season, 0)[:, 0]
    level_0 = field.mrcae.pyramid(levels=2)["level_0"].to_dataset()["sst"].values
    error = np.sqrt(np.nanmean((coarse - level_0) ** 2))
    assert error < 1.15 * float(model.score(field)["rmse"][0]) < 0.5 * float(np.nanstd(level_0))
    planner = plan._Planner(model.fitted, values, season, wanted_of(values, max_error=0.1), 600)
    assert planner.plan(replace(found.setting, code_step=1e4)).total < found.total


def test_finer_bounds_take_more_bytes(model, field):
    totals = [chosen(model, field, max_error=bound)[0].total for bound in (0.02, 0.1, 0.5)]
    assert totals[0] > 1.3 * totals[1] > 1.3**2 * totals[2]


def test_base_maps_are_coarser_where_few_snapshots_share_them(model, field):
    few, many = (chosen(model, field, length=n, max_error=0.1)[0] for n in (30, 30000))
    assert few.setting.base_step > many.setting.base_step
    assert few.setting.n_terms <= many.setting.n_terms


def test_without_bounds_steps_add_at_most_one_per_cent_to_the_error(model, field):
    found, values, season = chosen(model, field)
    assert found.bytes["rest"] == 0 and found.coder.variables[0].predictor is None
    codes = found.coder.quantise(found.fitted.codec.encode(values, season))
    assert codes.shape[1] == sum(model.fitted.codec.sizes)
    (decoded,) = found.coder.decode(
        {}, found.coder.encode([values[:, 0]], codes, season)[1], codes, season
    )
    rms = np.sqrt(np.nansum((decoded.astype("f8") - values[:, 0]) ** 2))
    before = np.sqrt(squared_error(model.fitted, values, season)) * 1.01
    assert rms <= before and np.abs(codes).max() > 5


def test_levels_and_codes_override_the_choice(model, field):
    sizes = model.fitted.codec.sizes
    found = chosen(model, field, max_error=0.5, levels=1)[0]
    assert found.coder.decoder.sizes == [sizes[0], 0]
    found = chosen(model, field, max_error=0.02, levels=2)[0]
    assert found.coder.decoder.sizes == sizes
    found = chosen(model, field, max_error=0.5, codes=sum(sizes) - 1)[0]
    assert sizes[0] <= sum(found.coder.decoder.sizes) < sum(sizes)


def test_overrides_that_nothing_meets_are_refused(model, field):
    least = model.fitted.codec.sizes[0]
    with pytest.raises(ValueError, match=f"codes=7: level 0 alone takes {least}"):
        chosen(model, field, max_error=0.5, codes=7)
    with pytest.raises(ValueError, match="levels=3: from 1 to 2"):
        chosen(model, field, max_error=0.5, levels=3)


def test_pixels_with_gaps_and_pixels_that_the_model_does_not_know_are_within_the_bound(
    model, field
):
    data = field.copy(deep=True)
    y, x = np.argwhere(np.isnan(field[0].values))[5]
    data[:, y, x] = 400.0
    data[::3, :9, 20:] = np.nan
    found, values, season = chosen(model, data, max_error=0.1)
    codes = found.coder.quantise(found.fitted.codec.encode(values, season))
    _, records = found.coder.encode([values[:, 0]], codes, season)
    assert records["v0"]["gaps"] == 1 and records["v0"]["strays"] == 0
    assert abs(found.coder.fields(codes, season, 1)[0, 0, y, x] - 400) < 1


def test_variables_have_bounds_of_their_own():
    data = make_two_variables(n_times=24)
    model = xmrcae.MrCAE(**OPTIONS, encoder="projection", encoding_size=300).fit(data)
    values, season = sample_of(model, data)
    wanted = wanted_of(values)
    wanted = [replace(wanted[0], max_error=0.2), replace(wanted[1], rmse=3.0)]
    found = choose(model.fitted, values, season, wanted, length=24)
    codes = found.coder.quantise(found.fitted.codec.encode(values, season))
    _, records = found.coder.encode(list(values.swapaxes(0, 1)), codes, season)
    assert records["v0"]["worst"] <= 0.2 < records["v1"]["worst"]
    assert records["v0"]["step"] < 0.4 < 3 < records["v1"]["step"]


# Models


def test_projecting_keeps_the_decoder_and_lessens_the_error(filters, field):
    fitted = projecting(filters.fitted)
    values, season = sample_of(filters, field)
    codes = np.random.default_rng(0).standard_normal((3, sum(fitted.codec.sizes))).astype("f4")
    before, after = (
        each.codec.decode(codes, season[:3], level=1) for each in (filters.fitted, fitted)
    )
    np.testing.assert_array_equal(before, after)
    errors = [squared_error(each, values, season) for each in (filters.fitted, fitted)]
    assert errors[1] < 0.95 * errors[0]
    assert fitted.id != filters.fitted.id


def test_models_that_project_or_are_too_large_stay_as_they_are(model, filters, monkeypatch):
    assert projecting(model.fitted) is model.fitted
    monkeypatch.setattr("xmrcae.defaults.MOST_PROJECTED", 100)
    assert projecting(filters.fitted) is filters.fitted


def test_a_truncated_model_shares_what_it_keeps(filters):
    whole = filters.fitted.codec.network.levels
    first = truncated(filters.fitted, 2).codec.network.levels
    assert [len(level.groups) for level in (*whole, *first)] == [2, 1, 2, 0]
    for own, of_all in zip(first, whole, strict=True):
        assert own.deepening is of_all.deepening
        assert all(a is b for a, b in zip(own.groups, of_all.groups, strict=False))


def test_a_truncated_model_decodes_the_codes_that_it_keeps(filters, field):
    whole, first = filters.fitted, truncated(filters.fitted, 3)
    sizes, stages = whole.codec.sizes, whole.codec.network.stage_sizes(1)
    assert first.codec.sizes == [sizes[0], stages[1]]
    values, season = sample_of(filters, field)
    codes = whole.codec.encode(values, season)
    own = first.codec.encode(values, season)
    np.testing.assert_allclose(own, codes[:, : own.shape[1]], rtol=1e-5, atol=1e-5)
    level_0 = [each.codec.decode(own[:, : sizes[0]], season, level=0) for each in (whole, first)]
    np.testing.assert_array_equal(*level_0)


def test_level_0_keeps_its_codes_and_all_groups_are_the_model_itself(filters):
    assert truncated(filters.fitted, 0).codec.sizes == [filters.fitted.codec.sizes[0], 0]
    assert truncated(filters.fitted, 4) is filters.fitted


def test_a_model_departs_from_other_maps_where_they_lie(model):
    valid = model.fitted.standard.valid[0]
    kept = valid | np.eye(*valid.shape, dtype=bool)
    maps = np.random.default_rng(0).standard_normal((12, kept.sum()))
    centre = centred(model.fitted, [maps], [kept]).standard.centre[:, 0]
    expected = np.zeros((12, *valid.shape))
    expected[:, kept] = maps
    np.testing.assert_allclose(centre[:, valid], expected[:, valid], rtol=1e-6)
    assert (centre[:, ~valid] == model.fitted.standard.centre[:, 0][:, ~valid]).all()


# Options


def test_options_of_a_monthly_series_ask_for_its_climatology(field):
    options = archive_options(field)
    assert options["center"] == "month" and options["encoder"] == "projection"
    assert "center" not in archive_options(field[:23])
    assert "center" not in archive_options(field.isel(time=slice(None, None, 2)))
    daily = field.assign_coords(time=xr.date_range("2001-01-01", periods=48))
    assert "center" not in archive_options(daily)
    months_of_30_days = xr.date_range("2001-01-16", periods=48, freq="MS", calendar="360_day")
    assert archive_options(field.assign_coords(time=months_of_30_days))["center"] == "month"


def test_options_given_come_first(field):
    given = {"center": True, "channels": [[2]], "tolerance": 0.3, "levels": 2}
    options = archive_options(field, **given)
    assert options | given == options and "encoding_size" not in options


def test_options_fit_and_leave_room_beside_the_bottleneck(field):
    options = archive_options(field, max_epochs=2, progress=False)
    model = xmrcae.MrCAE(**options).fit(field)
    assert sum(model.fitted.codec.sizes) > model.fitted.codec.network.stage_sizes(0)[0]
    assert json.loads(model.fitted.options_json)["anchor"] == 0.1


def test_large_grids_take_filters(field, monkeypatch):
    monkeypatch.setattr("xmrcae.defaults.MOST_PROJECTED", 100)
    assert archive_options(field)["encoder"] == "filters"
    assert archive_options(field, encoder="projection")["encoder"] == "projection"


@pytest.mark.parametrize("which", ["model", "filters"])
def test_how_many_snapshots_are_encoded_together_changes_no_bit(which, field, request, monkeypatch):
    fitted = request.getfixturevalue(which).fitted
    values, season = sample_of(request.getfixturevalue(which), field)
    many = fitted.codec.encode(values, season)
    assert fitted.codec.width == 32
    monkeypatch.setattr(fitted.codec, "width", 8)
    np.testing.assert_array_equal(fitted.codec.encode(values, season), many)
