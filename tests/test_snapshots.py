"""Split, centring and scaling."""

import numpy as np
import pytest
import xarray as xr
from helpers import (
    make_field,
    make_land,
    make_two_variables,
    prepare_with,
)

from xmrcae.grid.split import split_samples

pytestmark = pytest.mark.minimum

VALUES = make_land((21, 30))


# Split


def snapshots(n):
    """The positions of n snapshots without coordinates."""
    return xr.DataArray(np.arange(n), dims="time")


def sizes_of(parts):
    """Number of training, validation and test snapshots."""
    return [len(part) for part in parts.values()]


@pytest.mark.parametrize(("n", "sizes"), [(10, [7, 2, 1]), (128, [90, 25, 13]), (4, [3, 1, 0])])
@pytest.mark.parametrize("split", [(0.7, 0.2, 0.1), "blocks"])
def test_split_gives_every_snapshot_one_part(n, sizes, split):
    parts = split_samples(snapshots(n), split, seed=0)
    assert list(parts) == ["training", "validation", "test"]
    assert sizes_of(parts) == sizes
    np.testing.assert_array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(n))


def test_random_split_depends_on_the_seed_alone():
    first, again, other = (
        split_samples(snapshots(50), (0.7, 0.2, 0.1), seed=seed)["training"] for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_random_split_leaves_numpys_random_state_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    split_samples(snapshots(50), (0.7, 0.2, 0.1), seed=3)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_blocks_are_contiguous_in_time():
    for part in split_samples(snapshots(40), "blocks", seed=0).values():
        np.testing.assert_array_equal(np.diff(part), 1)


@pytest.mark.parametrize(
    "split",
    [
        (slice(0, 7), slice(7, 9), slice(9, None)),
        ([6, 0, 1, 2, 3, 5, 4], [8, 7], [-1]),
        (np.arange(10) < 7, (np.arange(10) >= 7) & (np.arange(10) < 9), [False] * 9 + [True]),
    ],
)
def test_split_by_indexers(split):
    parts = split_samples(snapshots(10), split, seed=0)
    for part, expected in zip(parts.values(), (range(7), range(7, 9), range(9, 10)), strict=True):
        np.testing.assert_array_equal(part, expected)


@pytest.mark.parametrize("empty", [[], slice(0, 0), np.zeros(10, dtype=bool), ()])
def test_test_part_may_be_empty(empty):
    assert sizes_of(split_samples(snapshots(10), (slice(0, 7), slice(7, 10), empty), seed=0)) == [
        7,
        3,
        0,
    ]


def test_snapshots_in_no_part_are_left_out():
    found = prepare_with(make_field(), levels=2, split=(slice(0, 5), [7, 8], []))
    assert float((found.training[0].constant ** 2).sum()) == pytest.approx(5)
    assert list(found.split.values[5:7]) == ["", ""]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ((0.0, 0.5, 0.5), "0 snapshots for training"),
        ((0.9, 0.0, 0.1), "0 for validation"),
        ((slice(0, 7), [6, 7], [8]), "disjoint"),
        (([0, 1, 12], [2], [3]), "does not fit 10 snapshots"),
        ((np.ones(9, dtype=bool), [2], [3]), "does not fit 10 snapshots"),
        (([0.5, 1.5], [2], [3]), "does not fit"),
        (([0], [1], [2]), "1 snapshots for training"),
    ],
)
def test_split_that_does_not_suit_the_snapshots_is_an_error(split, message):
    with pytest.raises(ValueError, match=message):
        split_samples(snapshots(10), split, seed=0)


# Centring and scaling


def training_of(obj, found):
    """The snapshots that the centre is taken from."""
    return obj.isel(time=(found.split == "training").values)


def test_centre_is_the_time_mean_of_training_snapshots():
    field = make_field(dtype=np.float64)
    found = prepare_with(field, levels=2)
    np.testing.assert_allclose(
        found.standard.centre[0, 0][VALUES], training_of(field, found).mean("time").values[VALUES]
    )


@pytest.mark.parametrize("use_cftime", [False, True])
def test_monthly_centre_is_the_climatology_of_training_snapshots(use_cftime):
    field = make_field(n_times=60, dtype=np.float64)
    calendar = "360_day" if use_cftime else "standard"
    field["time"] = xr.date_range(
        "2001-01-15", periods=60, freq="MS", calendar=calendar, use_cftime=use_cftime
    )
    found = prepare_with(field, levels=2, center="month")
    climatology = training_of(field, found).groupby("time.month").mean()
    assert climatology.sizes["month"] == 12
    np.testing.assert_allclose(
        found.standard.centre[:, 0][:, VALUES], climatology.values[:, VALUES]
    )


def test_month_without_training_snapshot_departs_from_the_time_mean():
    field = make_field(n_times=24, dtype=np.float64)
    may = field.time.dt.month.values == 5
    found = prepare_with(
        field, levels=2, center="month", split=(np.flatnonzero(~may)[:15], np.flatnonzero(may), [])
    )
    np.testing.assert_allclose(
        found.standard.centre[4, 0][VALUES], training_of(field, found).mean("time").values[VALUES]
    )


@pytest.mark.parametrize("time", [np.arange(20.0), None])
def test_monthly_centre_needs_dates(time):
    field = make_field().drop_vars("time")
    with pytest.raises(ValueError, match='center="month" needs'):
        prepare_with(
            field if time is None else field.assign_coords(time=time), levels=2, center="month"
        )


def test_scale_is_the_rms_about_the_centre():
    ds = make_two_variables(n_times=20, dtype=np.float64)
    found = prepare_with(ds, levels=2)
    departure = training_of(ds, found) - training_of(ds, found).mean("time")
    expected = [float(np.sqrt((departure[name] ** 2).mean())) for name in ds.data_vars]
    np.testing.assert_allclose(found.standard.scale, expected)
    np.testing.assert_allclose(found.rms, expected)


def test_minmax_maps_training_snapshots_to_0_and_1():
    field = make_field(dtype=np.float64)
    found = prepare_with(field, levels=2, center=False, scale="minmax")
    values = training_of(field, found).values[:, None]
    scaled = found.standard.apply(values, np.zeros(len(values), dtype=int))[..., VALUES]
    assert (scaled.min(), scaled.max()) == (0, 1)


def test_no_centre_and_no_scale_leave_the_data_as_they_are():
    field = make_field()
    standard = prepare_with(field, levels=2, center=False, scale=None).standard
    scaled = standard.apply(field.values[:, None], np.zeros(20, dtype=int))
    np.testing.assert_array_equal(scaled[:, 0], field.fillna(0))


@pytest.mark.parametrize(
    "options", [{}, {"center": "month"}, {"center": False, "scale": "minmax"}, {"scale": None}]
)
def test_undo_undoes_apply(options):
    field = make_field(dtype=np.float64)
    standard = prepare_with(field, levels=2, **options).standard
    season = field.time.dt.month.values - 1
    again = standard.undo(standard.apply(field.values[:, None], season), season)
    np.testing.assert_allclose(again[:, 0], field, rtol=1e-14)


def test_constant_data_are_not_divided_by_zero():
    found = prepare_with(make_field() * 0 + 4, levels=2)
    assert np.isfinite(found.training[-1].samples).all()
    np.testing.assert_array_equal(found.standard.scale, 1)


def test_missing_values_become_the_training_mean():
    field = make_field(dtype=np.float64)
    standard = prepare_with(field, levels=2).standard
    holes = field.where(field.lon > 60).values[:, None]
    scaled = standard.apply(
        standard.stand_in(holes, np.zeros(20, dtype=int)), np.zeros(20, dtype=int)
    )
    np.testing.assert_allclose(scaled[:, :, :, :6], 0, atol=1e-14)


def test_missing_values_become_the_climatology_of_their_month():
    field = make_field(n_times=60, dtype=np.float64)
    standard = prepare_with(field, levels=2, center="month").standard
    season = field.time.dt.month.values - 1
    holes = field.where(field.lon > 60).values[:, None]
    scaled = standard.apply(standard.stand_in(holes, season), season)
    np.testing.assert_allclose(scaled[:, :, :, :6], 0, atol=1e-14)
