"""The time of each snapshot: its month, blocks of time, and indexers by date."""

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import HADGEM, make_field, open_real

from xmrcae.grid.split import months, split_samples

OPTIONS = {"levels": 2, "channels": [[1]], "max_epochs": 3, "progress": False}


@pytest.fixture(scope="module")
def field():
    return make_field(n_times=36, shape=(15, 20))


@pytest.fixture(scope="module")
def model(field):
    """Of departures from a monthly climatology."""
    return field.mrcae.fit(center="month", **OPTIONS)


def hindcast(field, order):
    """Snapshots over (init, lead), whose own times lie in a coordinate along both in the order given."""
    init, lead = np.arange(6), np.arange(4)
    at = xr.DataArray(init[:, None] * 3 + lead, {"init": init, "lead": lead}, ("init", "lead"))
    when = field.time[at].drop_vars("time").transpose(*order)
    return field.drop_vars("time")[at.rename("time")].assign_coords(time=when.variable)


@pytest.mark.parametrize("chunks", [None, {"init": 2, "lead": 3}])
@pytest.mark.parametrize("order", [("init", "lead"), ("lead", "init")])
def test_each_snapshot_has_the_month_of_its_own_time(model, field, order, chunks, no_compute):
    given = hindcast(field, order)
    expected = model.reconstruct(field).values[3 * np.arange(6)[:, None] + np.arange(4)]
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
def test_valid_time_comes_before_the_start_of_a_forecast(model, field, name):
    """As forecasts come from GRIB: `time` is that of the start, and both are called time by their standard name."""
    at = np.arange(20)
    given = field.isel(time=at).rename(time="start")
    given = given.assign_coords(start=given.start - np.timedelta64(95, "D"))
    own = {"standard_name": "time"}
    given = given.assign_coords({name: ("start", field.time.values[at], own)})
    np.testing.assert_array_equal(model.reconstruct(given), model.reconstruct(field.isel(time=at)))


def test_members_share_a_time_axis(model, field):
    ensemble = xr.concat([field, field + 1], "member").transpose("time", "member", ...)
    expected = [model.reconstruct(field), model.reconstruct(field + 1)]
    np.testing.assert_array_equal(model.reconstruct(ensemble).transpose("member", ...), np.stack(expected))
    fitted = ensemble.mrcae.fit(center="month", sample=["member", "time"], **OPTIONS)
    assert np.isfinite(fitted.score(ensemble).rmse).all()


def test_a_snapshot_with_a_scalar_time_has_its_month(model, field):
    found = model.reconstruct(field.isel(time=7))
    np.testing.assert_array_equal(found, model.reconstruct(field).isel(time=7))


def test_no_time_is_an_error_that_names_the_coordinate(model, field):
    for given in (field.drop_vars("time"), field.rename(time="init")):
        with pytest.raises(ValueError, match=r'center="month" needs the time of each snapshot: no coordinate \'time\''):
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
    np.testing.assert_array_equal(months(xr.Dataset(coords={"time": time}), ["time"], [30]), expected)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_missing_times_are_counted_where_a_month_is_needed(model, field, lazy, calendar):
    times = xr.date_range("2001-01-15", periods=36, freq="MS", calendar=calendar, use_cftime=calendar == "noleap")
    times = np.array(times, dtype=object) if calendar == "noleap" else times.values.copy()
    times[[3, 20]] = None if calendar == "noleap" else np.datetime64("NaT")
    given = field.assign_coords(time=("time", times))
    message = r'center="month" needs the time of each snapshot: 2 of 36 are missing times \(NaT\)'
    with pytest.raises(ValueError, match=message):
        given.mrcae.fit(center="month", **OPTIONS)
    given = given.chunk(time=10) if lazy else given
    with pytest.raises(ValueError, match=message):
        model.reconstruct(given)
    plain = field.mrcae.fit(**OPTIONS)
    np.testing.assert_array_equal(plain.reconstruct(given, keep_gaps=True), plain.reconstruct(field, keep_gaps=True))


# Blocks of time


def spans(times, labels):
    """First and last time of each part."""
    return [(times[labels == part].min(), times[labels == part].max()) for part in ("training", "validation", "test")]


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
def test_blocks_never_cut_a_time_between_members(field, sample):
    ensemble = xr.concat([field.isel(time=slice(0, 13))] * 3, "member")
    labels = ensemble.mrcae.fit(split="blocks", sample=sample, **OPTIONS).split
    assert (labels == labels.isel(member=0)).all()
    (_, first), (begin, last), (end, _) = spans(ensemble.time.values, labels.isel(member=0).values)
    assert first < begin <= last < end


def test_blocks_of_a_hindcast_are_blocks_of_valid_times(field):
    given = hindcast(field, ("lead", "init"))
    labels = given.mrcae.fit(split="blocks", sample=["init", "lead"], **OPTIONS).split
    (_, first), (begin, last), (end, _) = spans(given.time.transpose("init", "lead").values, labels.values)
    assert first < begin <= last < end


def test_blocks_need_every_time():
    times = pd.date_range("2000-01-01", periods=20, freq="MS").values.copy()
    times[4] = np.datetime64("NaT")
    with pytest.raises(ValueError, match=r'split="blocks" needs the time of each snapshot: 1 of 20'):
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
    field = open_real(real_file, HADGEM).air_temperature
    split = (slice("1860", "1999"), slice("2000", "2049"), slice("2050", None))
    labels = field.mrcae.fit(split=split, **OPTIONS).split
    for part, indexer in zip(("training", "validation", "test"), split, strict=True):
        np.testing.assert_array_equal(labels.time[labels == part], field.time.sel(time=indexer))


def test_dates_take_all_members(field):
    ensemble = xr.concat([field] * 2, "member")
    split = (slice("2001", "2002"), slice("2003-01", "2003-06"), slice("2003-07", None))
    labels = ensemble.mrcae.fit(split=split, sample=["member", "time"], **OPTIONS).split
    for part, indexer in zip(("training", "validation", "test"), split, strict=True):
        assert (labels.sel(time=indexer) == part).all()


@pytest.mark.parametrize(
    "indexer", [slice("2000-02-30", None), ["1999-01-01"], ["no date"]], ids=["no such day", "not there", "text"]
)
def test_dates_that_do_not_fit_are_named(indexer):
    time = pd.date_range("2000-01-01", periods=26, freq="MS")
    with pytest.raises(ValueError, match=r"split: the indexer .* does not fit 26 snapshots"):
        split_samples(xr.DataArray(np.arange(26), {"time": time}, ("time",)), (slice(0, 10), slice(10, 20), indexer),
                      seed=0)  # fmt: skip


def test_dates_without_a_dated_dimension_are_refused():
    with pytest.raises(ValueError, match="dates need one sample dimension with dates; there are none"):
        split_samples(xr.DataArray(np.arange(26), dims="time"), (slice("2000", None), slice(0, 1), []), seed=0)
