"""The three indexers of `split=`: booleans with labels, dates, and what is said of others."""

import datetime
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xmrcae.grid.split import split_samples

OPTIONS = {"levels": 2, "channels": [[1]], "max_epochs": 3, "progress": False}
PARTS = ("training", "validation", "test")


@pytest.fixture(scope="module")
def years(three_years):
    """A boolean DataArray for each of three years, in the order of the three_years."""
    return tuple(three_years.time.dt.year == year for year in (2001, 2002, 2003))


def snapshots(*dims, **coords):
    """The position of each snapshot along some dimensions with coordinates."""
    shape = [
        len(coords[dim][1]) if isinstance(coords[dim], tuple) else len(coords[dim]) for dim in dims
    ]
    return xr.DataArray(np.arange(np.prod(shape)).reshape(shape), coords, dims)


# Booleans with labels


@pytest.mark.parametrize("lazy", [False, True])
def test_labelled_booleans_are_aligned_by_label(three_years, years, lazy):
    shuffled = three_years.isel(time=np.random.default_rng(0).permutation(36))
    split = tuple(year.chunk(time=7) if lazy else year for year in years)
    labels = shuffled.mrcae.fit(split=split, **OPTIONS).split
    for part, year in zip(PARTS, (2001, 2002, 2003), strict=True):
        np.testing.assert_array_equal(labels == part, labels.time.dt.year == year)


def test_labelled_booleans_are_aligned_by_calendars_and_stacked_labels(three_years):
    times = xr.date_range("2001-01-01", periods=6, freq="MS", calendar="noleap", use_cftime=True)
    samples = snapshots("member", "time", member=[1, 2], time=times)
    for given in (samples, samples.stack(run=("time", "member"))):
        number = given.time.dt.month
        split = number < 4, number == 4, number > 4
        backwards = tuple(part.isel({part.dims[0]: slice(None, None, -1)}) for part in split)
        found = split_samples(given, backwards, seed=0)
        for part, expected in zip(found.values(), split, strict=True):
            wanted = np.flatnonzero(expected.broadcast_like(given).transpose(*given.dims))
            np.testing.assert_array_equal(part, wanted)


@pytest.mark.parametrize("sample", [["member", "time"], ["time", "member"]])
def test_labelled_booleans_over_some_sample_dimensions_hold_for_all(three_years, years, sample):
    ensemble = xr.concat([three_years, three_years + 1], pd.Index([7, 3], name="member"))
    first = ensemble.member == 7
    cases = {
        "of time": (years, years),
        "of both": (tuple(first & year for year in years), tuple(year & first for year in years)),
    }
    for split, expected in cases.values():
        labels = ensemble.mrcae.fit(split=split, sample=sample, **OPTIONS).split
        for part, each in zip(PARTS, expected, strict=True):
            wanted = each.broadcast_like(labels).transpose(*labels.dims)
            np.testing.assert_array_equal(labels == part, wanted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: part.isel(time=slice(0, 30)), "it has 30 values along 'time'"),
        (
            lambda part: part.assign_coords(time=part.time + np.timedelta64(1, "D")),
            "its labels along 'time'",
        ),
        (lambda part: part.isel(time=[0, *range(35)]), "its labels along 'time'"),
        (lambda part: part.rename(time="day"), "snapshots lie along time, not 'day'"),
    ],
)
def test_labelled_booleans_with_other_labels_are_refused(three_years, years, change, message):
    with pytest.raises(
        ValueError, match=f"split: the indexer .* does not fit 36 snapshots: {message}"
    ):
        three_years.mrcae.fit(split=tuple(map(change, years)), **OPTIONS)


def test_labels_that_are_no_index_are_compared(three_years, years):
    plain = three_years.rename(time="k").drop_vars("k")
    plain = plain.assign_coords(time=("k", three_years.time.values), depth=5.0)
    split = tuple(plain.time.dt.year == year for year in (2001, 2002, 2003))
    elsewhere = tuple(part.assign_coords(depth=3.0) for part in split)
    labels = plain.mrcae.fit(split=elsewhere, sample="k", **OPTIONS).split
    for part, expected in zip(PARTS, split, strict=True):
        np.testing.assert_array_equal(labels == part, expected)
    with pytest.raises(ValueError, match="its coordinate 'time' is not that of the snapshots"):
        plain.isel(k=slice(None, None, -1)).mrcae.fit(split=split, sample="k", **OPTIONS)


def test_labelled_booleans_are_kept_in_attributes(three_years, years):
    model = three_years.mrcae.fit(split=years, **OPTIONS)
    saved = json.loads(model.encode(three_years).attrs["xmrcae_options"])["split"]
    assert saved == [year.values.tolist() for year in years]


# Dates


@pytest.mark.parametrize("kind", [datetime.datetime, datetime.date])
def test_dates_may_be_those_of_python_in_any_sequence(three_years, kind):
    dates = [kind(*map(int, str(time)[:10].split("-"))) for time in three_years.time.values]
    split = tuple(dates[:20]), dates[20:30], np.array(dates[30:])
    labels = three_years.mrcae.fit(split=split, **OPTIONS).split
    np.testing.assert_array_equal(labels, np.repeat(PARTS, [20, 10, 6]))


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
@pytest.mark.parametrize("order", [slice(None, None, -1), np.random.default_rng(0).permutation(36)])
def test_slices_by_date_of_times_that_do_not_ascend_say_to_sort_them(calendar, order):
    time = xr.date_range(
        "2001-01-01", periods=36, freq="MS", calendar=calendar, use_cftime=calendar != "standard"
    )
    split = slice("2001", "2002"), slice("2003-01", "2003-06"), slice("2003-07", None)
    with pytest.raises(ValueError, match=r"do not ascend: sort them first, .sortby\('time'\)"):
        split_samples(snapshots("time", time=time[order]), split, seed=0)


def test_slices_between_dates_follow_times_that_descend():
    samples = snapshots("time", time=pd.date_range("2001-01-01", periods=36, freq="MS")[::-1])
    dates = [pd.Timestamp(date) for date in ("2001-01", "2002-12", "2003-01", "2003-06", "2003-07")]
    split = slice(dates[1], dates[0]), slice(dates[3], dates[2]), slice(None, dates[4])
    found = split_samples(samples, split, seed=0)
    for part, indexer in zip(found.values(), split, strict=True):
        np.testing.assert_array_equal(part, samples.sel(time=indexer))


# Messages


def test_whole_numbers_that_take_nothing_are_said_to_be_positions():
    samples = snapshots("time", time=np.arange(1990, 2010))
    with pytest.raises(ValueError, match=r"0 snapshots for training.*whole numbers are positions"):
        split_samples(samples, (slice(1990, 2003), slice(2003, 2007), slice(2007, None)), seed=0)


@pytest.mark.parametrize(
    "indexer",
    [
        np.ones(2000, dtype=bool),
        list(range(5000)),
        ["no date"] * 2000,
        xr.DataArray(np.ones(2000, bool), dims="time"),
    ],
)
def test_an_indexer_of_many_values_is_shown_in_a_line(indexer):
    samples = snapshots("time", time=pd.date_range("2001-01-01", periods=36, freq="MS"))
    with pytest.raises(ValueError, match="does not fit 36 snapshots") as caught:
        split_samples(samples, (indexer, [0], []), seed=0)
    assert len(str(caught.value).split(" does not fit")[0]) < 200
    assert "\n" not in str(caught.value)
