"""The time of each snapshot: its month, blocks of time, and indexers by date."""

import cftime
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import HADGEM, open_real

import xmrcae
from xmrcae.grid.split import months, split_samples

OPTIONS = {"levels": 2, "channels": [[1]], "max_epochs": 3, "progress": False}


@pytest.fixture(scope="module")
def model(three_years):
    """Of departures from a monthly climatology."""
    return three_years.mrcae.fit(center="month", **OPTIONS)


def hindcast(three_years, order):
    """Snapshots over (init, lead), whose own times lie in a coordinate along both in the order given."""
    init, lead = np.arange(6), np.arange(4)
    at = xr.DataArray(init[:, None] * 3 + lead, {"init": init, "lead": lead}, ("init", "lead"))
    when = three_years.time[at].drop_vars("time").transpose(*order)
    return three_years.drop_vars("time")[at.rename("time")].assign_coords(time=when.variable)


@pytest.mark.parametrize("chunks", [None, {"init": 2, "lead": 3}])
@pytest.mark.parametrize("order", [("init", "lead"), ("lead", "init")])
def test_each_snapshot_has_the_month_of_its_own_time(model, three_years, order, chunks, no_compute):
    given = hindcast(three_years, order)
    expected = model.reconstruct(three_years).values[3 * np.arange(6)[:, None] + np.arange(4)]
    if chunks is not None:
        given = given.chunk(chunks)
        with no_compute():
            lazy = model.reconstruct(given), model.decode(model.encode(given))
        assert all(each.chunks is not None for each in lazy)
        found = [each.transpose(*given.dims).values for each in lazy]
    else:
        found = [model.reconstruct(given).values, model.decode(model.encode(given)).values]
    for each in found:
        np.testing.assert_allclose(each, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["valid_time", "verification"])
def test_valid_time_comes_before_the_start_of_a_forecast(model, three_years, name):
    """As forecasts come from GRIB: `time` is that of the start, and both are called time by their standard name."""
    at = np.arange(20)
    given = three_years.isel(time=at).rename(time="start")
    given = given.assign_coords(start=given.start - np.timedelta64(95, "D"))
    own = {"standard_name": "time"}
    given = given.assign_coords({name: ("start", three_years.time.values[at], own)})
    np.testing.assert_array_equal(
        model.reconstruct(given), model.reconstruct(three_years.isel(time=at))
    )


def test_members_share_a_time_axis(model, three_years):
    ensemble = xr.concat([three_years, three_years + 1], "member").transpose("time", "member", ...)
    expected = [model.reconstruct(three_years), model.reconstruct(three_years + 1)]
    np.testing.assert_array_equal(
        model.reconstruct(ensemble).transpose("member", ...), np.stack(expected)
    )
    fitted = ensemble.mrcae.fit(center="month", sample=["member", "time"], **OPTIONS)
    assert np.isfinite(fitted.score(ensemble).rmse).all()


def test_a_snapshot_with_a_scalar_time_has_its_month(model, three_years):
    found = model.reconstruct(three_years.isel(time=7))
    np.testing.assert_array_equal(found, model.reconstruct(three_years).isel(time=7))


def test_no_time_is_an_error_that_names_the_coordinate(model, three_years):
    for given in (three_years.drop_vars("time"), three_years.rename(time="init")):
        with pytest.raises(
            ValueError,
            match=r'center="month" needs the time of each snapshot: no coordinate \'time\'',
        ):
            model.encode(given)


@pytest.mark.parametrize(
    "time",
    [
        xr.date_range("1955-03-01", periods=30, freq="MS", use_cftime=False),
        xr.date_range("1955-03-01", periods=30, freq="MS", calendar="360_day", use_cftime=True),
        xr.date_range("1955-03-31T18", periods=30, freq="29D", use_cftime=False),
    ],
)
def test_months_are_those_of_the_calendar(time):
    expected = [date.month - 1 for date in time]
    np.testing.assert_array_equal(
        months(xr.Dataset(coords={"time": time}), ["time"], [30]), expected
    )


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_missing_times_are_counted_where_a_month_is_needed(model, three_years, lazy, calendar):
    times = xr.date_range(
        "2001-01-15", periods=36, freq="MS", calendar=calendar, use_cftime=calendar == "noleap"
    )
    times = np.array(times, dtype=object) if calendar == "noleap" else times.values.copy()
    times[[3, 20]] = None if calendar == "noleap" else np.datetime64("NaT")
    given = three_years.assign_coords(time=("time", times))
    message = r'center="month" needs the time of each snapshot: 2 of 36 are missing times \(NaT\)'
    with pytest.raises(ValueError, match=message):
        given.mrcae.fit(center="month", **OPTIONS)
    given = given.chunk(time=10) if lazy else given
    with pytest.raises(ValueError, match=message):
        model.reconstruct(given)
    plain = three_years.mrcae.fit(**OPTIONS)
    np.testing.assert_array_equal(
        plain.reconstruct(given, keep_gaps=True), plain.reconstruct(three_years, keep_gaps=True)
    )


# Starts of forecasts


def starts(three_years, standard_name=True):
    """Forecasts (time, lead) whose `time` is that of the start."""
    bare = three_years.drop_vars("time").rename(time="lead")
    runs = [bare.isel(lead=slice(k, k + 4)) for k in range(6)]
    attrs = {"standard_name": "forecast_reference_time"} if standard_name else {}
    return xr.concat(runs, "time").assign_coords(time=("time", three_years.time.values[:6], attrs))


def one_forecast(three_years):
    """Snapshots along `step` that start at a scalar `time`, as GRIB has them."""
    first = three_years.isel(time=slice(0, 6)).rename(time="step")
    step = np.arange(6) * np.timedelta64(30, "D")
    return first.assign_coords(step=step, time=three_years.time.values[0])


FORECASTS = pytest.mark.parametrize(
    "forecast",
    [
        starts,
        lambda three_years: starts(three_years, standard_name=False),
        lambda three_years: starts(three_years, standard_name=False).rename(lead="k").assign_coords(
            lead=("k", np.arange(4) * np.timedelta64(30, "D"))
        ),
        lambda three_years: starts(three_years, standard_name=False).rename(lead="k").assign_coords(
            months=("k", np.arange(4), {"standard_name": "forecast_period"})
        ),
        one_forecast,
    ],
    ids=["by standard name", "by name", "durations", "forecast period", "scalar start"],
)  # fmt: skip


@FORECASTS
@pytest.mark.parametrize("lazy", [False, True])
def test_the_start_of_a_forecast_is_no_time_of_a_snapshot(model, three_years, forecast, lazy):
    given = forecast(three_years)
    given = given.chunk(lat=5) if lazy else given
    codes = three_years.mrcae.fit(**OPTIONS).encode(given)
    codes.attrs.clear()
    for use in (lambda: model.encode(given), lambda: model.decode(codes)):
        with pytest.raises(ValueError, match=r'center="month" needs .*"valid_time"'):
            use()


@FORECASTS
def test_fit_asks_for_the_times_of_forecasts(three_years, forecast):
    given = forecast(three_years)
    sample = [dim for dim in given.dims if dim not in ("lat", "lon")]
    with pytest.raises(ValueError, match=r'center="month" needs .*"valid_time"'):
        given.mrcae.fit(center="month", sample=sample, **OPTIONS)


def test_blocks_ask_for_the_times_of_forecasts(three_years):
    with pytest.raises(ValueError, match=r'split="blocks" needs the time of each.*"valid_time"'):
        starts(three_years).mrcae.fit(split="blocks", sample=["time", "lead"], **OPTIONS)


@FORECASTS
def test_forecasts_with_valid_times_have_their_months(model, three_years, forecast):
    given = forecast(three_years)
    sample = [dim for dim in given.dims if dim not in ("lat", "lon")]
    at = np.arange(6)[:, None] + np.arange(4) if len(sample) == 2 else np.arange(6)
    given = given.assign_coords(valid_time=(sample, three_years.time.values[at]))
    np.testing.assert_array_equal(
        model.reconstruct(given), model.reconstruct(three_years).values[at]
    )
    assert given.mrcae.fit(center="month", sample=sample, **OPTIONS).fitted.standard.monthly


def test_valid_time_says_that_the_time_is_the_same_for_all_leads(model, three_years):
    given = xr.concat([three_years, three_years + 1], "lead").assign_coords(
        valid_time=three_years.time
    )
    expected = [model.reconstruct(three_years), model.reconstruct(three_years + 1)]
    np.testing.assert_array_equal(model.reconstruct(given), np.stack(expected))


@pytest.mark.parametrize("name", ["valid_time", "made"])
def test_a_time_along_the_snapshots_comes_before_a_scalar(model, three_years, name):
    scalar = ((), three_years.time.values[0], {"standard_name": "time"})
    given = three_years.assign_coords({name: scalar})
    np.testing.assert_array_equal(model.reconstruct(given), model.reconstruct(three_years))
    fitted = given.mrcae.fit(center="month", **OPTIONS).fitted.standard
    np.testing.assert_array_equal(fitted.centre, model.fitted.standard.centre)


@pytest.mark.parametrize("attrs", [{"axis": "T"}, {"standard_name": "time"}])
def test_attributes_tell_the_time_of_new_data_as_of_fitted_ones(model, three_years, attrs):
    given = three_years.rename(time="t")
    given = given.assign_coords(t=("t", three_years.time.values, attrs))
    np.testing.assert_array_equal(model.reconstruct(given), model.reconstruct(three_years))
    again = model.decode(model.encode(given))
    np.testing.assert_array_equal(again, model.decode(model.encode(three_years)))


def test_two_time_axes_tell_nothing(model, three_years):
    times = {name: ("t", three_years.time.values, {"axis": "T"}) for name in ("one", "other")}
    with pytest.raises(ValueError, match=r"no coordinate 'time' along t; add it, with "):
        model.encode(three_years.rename(time="t").drop_vars("t").assign_coords(times))


# Months that a fit has not seen


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("month", [1, 12])
def test_months_that_were_not_fitted_are_refused(three_years, month, lazy, tmp_path):
    month_of = three_years.time.dt.month
    summer = three_years.isel(time=month_of.isin([6, 7, 8]).values)
    fitted = summer.mrcae.fit(center="month", **OPTIONS)
    fitted.save(tmp_path / "model.nc")
    other = three_years.isel(time=(month_of == month).values)
    times = other.time.copy(deep=False)
    if lazy:
        other = other.rename(time="k").drop_vars("k").chunk(k=1)
        other = other.assign_coords(time=("k", da.from_array(times.values, chunks=1)))
    for model in (fitted, xmrcae.open_model(tmp_path / "model.nc")):
        assert np.isfinite(model.score(summer).rmse).all()
        use = (lambda m: m.reconstruct(other).compute()) if lazy else (lambda m: m.encode(other))
        with pytest.raises(ValueError, match=f"6, 7, 8, .* snapshots of month {month}: leave"):
            use(model)
        with pytest.raises(ValueError, match=f"snapshots of month {month}: "):
            model.score(other)


def test_months_that_only_validation_has_are_fitted_ones(three_years):
    at = [np.flatnonzero(three_years.time.dt.month.isin(each)) for each in ([1, 2, 3], [7], [])]
    model = three_years.mrcae.fit(center="month", split=tuple(at), **OPTIONS)
    july, june = (three_years.isel(time=(three_years.time.dt.month == n).values) for n in (7, 6))
    mean = model.fitted.standard.centre[6, 0]
    expected = three_years.isel(time=at[0]).mean("time")
    np.testing.assert_allclose(np.where(expected.notnull(), mean, np.nan), expected, rtol=1e-6)
    assert np.isfinite(model.score(july).rmse).all()
    with pytest.raises(ValueError, match="1, 2, 3, 7, and there are snapshots of month 6"):
        model.encode(june)


def test_codes_of_a_climatology_are_decoded_once_they_have_dates(model, three_years):
    def climatology(level):
        return level[["encoding"]].groupby("time.month").mean()

    codes = model.encode(three_years)
    means = {name: climatology(node.to_dataset()) for name, node in codes.children.items()}
    with pytest.raises(ValueError, match=r"assign_coords\(time=\('month', dates\)\), of any year"):
        model.decode(xr.DataTree.from_dict(means))
    dates = pd.date_range("1999-01-01", periods=12, freq="MS")
    dated = {name: level.assign_coords(time=("month", dates)) for name, level in means.items()}
    found = model.decode(xr.DataTree.from_dict(dated))
    expected = model.reconstruct(three_years).groupby("time.month").mean()
    np.testing.assert_allclose(found, expected, atol=1e-4)


# Blocks of time


def spans(times, labels):
    """First and last time of each part."""
    return [
        (times[labels == part].min(), times[labels == part].max())
        for part in ("training", "validation", "test")
    ]


@pytest.mark.parametrize(
    "time",
    [
        pd.date_range("2000-01-01", periods=20, freq="MS").values,
        np.arange(20.0),
        np.array([cftime.DatetimeNoLeap(2000 + i, 1, 1) for i in range(20)]),
    ],
    ids=["dates", "numbers", "cftime"],
)
def test_blocks_follow_the_time_coordinate(time):
    shuffled = np.random.default_rng(1).permutation(20)
    samples = xr.DataArray(np.arange(20), {"time": time[shuffled]}, ("time",))
    parts = split_samples(samples, "blocks", seed=0)
    assert [sorted(time[shuffled][at]) for at in parts.values()] == [sorted(time[:14]), sorted(time[14:18]),
                                                                     sorted(time[18:])]  # fmt: skip


@pytest.mark.parametrize("sample", [["member", "time"], ["time", "member"]])
def test_blocks_never_cut_a_time_between_members(three_years, sample):
    ensemble = xr.concat([three_years.isel(time=slice(0, 13))] * 3, "member")
    labels = ensemble.mrcae.fit(split="blocks", sample=sample, **OPTIONS).split
    assert (labels == labels.isel(member=0)).all()
    (_, first), (begin, last), (end, _) = spans(ensemble.time.values, labels.isel(member=0).values)
    assert first < begin <= last < end


def test_blocks_of_a_hindcast_are_blocks_of_valid_times(three_years):
    given = hindcast(three_years, ("lead", "init"))
    labels = given.mrcae.fit(split="blocks", sample=["init", "lead"], **OPTIONS).split
    (_, first), (begin, last), (end, _) = spans(
        given.time.transpose("init", "lead").values, labels.values
    )
    assert first < begin <= last < end


def test_blocks_need_every_time():
    times = pd.date_range("2000-01-01", periods=20, freq="MS").values.copy()
    times[4] = np.datetime64("NaT")
    with pytest.raises(
        ValueError, match=r'split="blocks" needs the time of each snapshot: 1 of 20'
    ):
        split_samples(xr.DataArray(np.arange(20), {"time": times}, ("time",)), "blocks", seed=0)


# Indexers by date


@pytest.mark.parametrize(
    "split",
    [
        (slice("2000", "2001-06"), slice("2001-07", "2001-12"), slice("2002", None)),
        (slice(None, pd.Timestamp("2001-06-30")), slice(np.datetime64("2001-07"), "2001-12"), slice("2002", "2010")),
        (list(pd.date_range("2000-01-01", periods=18, freq="MS")), pd.date_range("2001-07-01", periods=6, freq="MS"),
         ["2002-01-01", "2002-02-01"]),
    ],
)  # fmt: skip
def test_dates_take_what_sel_takes(split):
    time = pd.date_range("2000-01-01", periods=26, freq="MS")
    samples = xr.DataArray(np.arange(26), {"time": time}, ("time",))
    found = split_samples(samples, split, seed=0)
    for part, indexer in zip(found.values(), split, strict=True):
        np.testing.assert_array_equal(part, samples.sel(time=indexer))


def test_dates_of_other_calendars_take_what_sel_takes(real_file):
    three_years = open_real(real_file, HADGEM).air_temperature
    split = (slice("1860", "1999"), slice("2000", "2049"), slice("2050", None))
    labels = three_years.mrcae.fit(split=split, **OPTIONS).split
    for part, indexer in zip(("training", "validation", "test"), split, strict=True):
        np.testing.assert_array_equal(
            labels.time[labels == part], three_years.time.sel(time=indexer)
        )


def test_dates_take_all_members(three_years):
    ensemble = xr.concat([three_years] * 2, "member")
    split = (slice("2001", "2002"), slice("2003-01", "2003-06"), slice("2003-07", None))
    labels = ensemble.mrcae.fit(split=split, sample=["member", "time"], **OPTIONS).split
    for part, indexer in zip(("training", "validation", "test"), split, strict=True):
        assert (labels.sel(time=indexer) == part).all()


@pytest.mark.parametrize(
    "indexer",
    [slice("2000-02-30", None), ["1999-01-01"], ["no date"]],
    ids=["no such day", "not there", "text"],
)
def test_dates_that_do_not_fit_are_named(indexer):
    time = pd.date_range("2000-01-01", periods=26, freq="MS")
    with pytest.raises(ValueError, match=r"split: the indexer .* does not fit 26 snapshots"):
        split_samples(xr.DataArray(np.arange(26), {"time": time}, ("time",)), (slice(0, 10), slice(10, 20), indexer),
                      seed=0)  # fmt: skip


def test_dates_without_a_dated_dimension_are_refused():
    with pytest.raises(
        ValueError, match="dates need one sample dimension with dates; there are none"
    ):
        split_samples(
            xr.DataArray(np.arange(26), dims="time"), (slice("2000", None), slice(0, 1), []), seed=0
        )
