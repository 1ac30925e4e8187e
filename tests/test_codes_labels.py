"""Codes are put together and taken apart by their labels, and keep those of new data."""

import numpy as np
import pytest
import xarray as xr
from helpers import make_field

OPTIONS = {"levels": 2, "channels": [[1]], "max_epochs": 3, "progress": False}


@pytest.fixture(scope="module")
def field():
    return make_field(n_times=12, shape=(15, 20))


@pytest.fixture(scope="module")
def model(field):
    return field.mrcae.fit(**OPTIONS)


@pytest.fixture(scope="module")
def ensemble(field):
    return xr.concat([field, field + 1, field - 1], "member")


def with_level_0(codes, change):
    """The same codes, level 0 changed."""
    levels = {name: node.to_dataset() for name, node in codes.children.items()}
    return xr.DataTree.from_dict(levels | {"level_0": change(levels["level_0"])})


# Levels


@pytest.mark.parametrize("order", [("time", "member"), ("member", "time")])
def test_levels_with_other_orders_of_samples_belong_together_by_name(model, ensemble, order):
    codes = model.encode(ensemble.transpose(*order, ...))
    found = model.decode(with_level_0(codes, lambda level: level.transpose(*order[::-1], ...)))
    xr.testing.assert_identical(found, model.decode(codes))


@pytest.mark.parametrize(
    "change",
    [
        lambda level: level.isel(time=slice(None, None, -1)),
        lambda level: level.assign_coords(time=level.time + np.timedelta64(365, "D")),
    ],
    ids=["reversed", "a year apart"],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_levels_of_other_times_are_refused(model, field, change, lazy):
    codes = with_level_0(model.encode(field.chunk(time=5) if lazy else field), change)
    for use in (model.decode, model.stack):
        with pytest.raises(ValueError, match="of levels 0 and 1 differ in coordinate 'time'"):
            use(codes)


def test_levels_of_single_snapshots_of_other_times_are_refused(model, field):
    codes = model.encode(field.isel(time=3))
    other = model.encode(field.isel(time=4))["level_0"].to_dataset()
    with pytest.raises(ValueError, match="of levels 0 and 1 differ in coordinate 'time'"):
        model.decode(with_level_0(codes, lambda level: other))


def test_levels_along_other_dimensions_are_refused(model, ensemble):
    codes = with_level_0(model.encode(ensemble), lambda level: level.isel(member=0))
    with pytest.raises(ValueError, match=r"codes of level 0 lie along .*'time', 'member'|'member'"):
        model.decode(codes)


@pytest.mark.parametrize(
    "change",
    [
        lambda level: level.drop_vars("time"),
        lambda level: level.assign_coords(level=0),
        lambda level: level.assign_coords(run="a"),
    ],
    ids=["without times", "with the number of the level", "with a coordinate more"],
)
def test_levels_need_not_have_the_same_coordinates(model, field, change):
    codes = model.encode(field)
    xr.testing.assert_identical(model.decode(with_level_0(codes, change)), model.decode(codes))


def test_lazy_coordinates_of_codes_are_not_computed(model, field, no_compute):
    hours = xr.DataArray(np.arange(12), dims="time").chunk(time=4)
    codes = model.encode(field.chunk(time=5).assign_coords(hours=hours))
    with no_compute():
        found = model.decode(codes)
    np.testing.assert_array_equal(found.hours, hours)


# Features


def test_features_without_their_index_are_known_by_its_levels(model, field, tmp_path):
    codes = model.encode(field)
    stacked = model.stack(codes).reset_index("feature")
    stacked.to_netcdf(tmp_path / "stack.nc")
    with xr.open_dataarray(tmp_path / "stack.nc") as read:
        for given in (stacked, read.load()):
            xr.testing.assert_identical(model.decode(model.unstack(given)), model.decode(codes))


@pytest.mark.parametrize("name", ["level", "channel", "lat", "lon"])
def test_features_in_another_order_are_refused_without_their_index(field, name):
    model = field.mrcae.fit(**OPTIONS | {"channels": [[2]]})
    stacked = model.stack(model.encode(field)).reset_index("feature")
    alone = stacked.drop_vars({"level", "channel", "lat", "lon"} - {name})
    assert model.unstack(alone)["level_1/encoding"].shape == (12, 2, 7, 13)
    with pytest.raises(ValueError, match="features of the stack are not those of this model"):
        model.unstack(alone.isel(feature=np.argsort(-alone[name].values, kind="stable")))


def test_features_elsewhere_are_refused_without_their_index(model, field):
    stacked = model.stack(model.encode(field)).reset_index("feature")
    with pytest.raises(ValueError, match="features of the stack are not those of this model"):
        model.unstack(stacked.assign_coords(lat=stacked.lat + 1))


# Coordinates of new data whose name is one of the fitted grid


def test_a_coordinate_of_the_new_data_comes_before_one_of_the_grid(field):
    depth = xr.DataArray(np.full((15, 20), 10.0), dims=("lat", "lon"))
    model = field.assign_coords(depth=depth).mrcae.fit(**OPTIONS)
    for own in (xr.DataArray(5.0), xr.DataArray(np.arange(12.0), dims="time")):
        given = field.assign_coords(depth=own)
        codes = model.encode(given)
        for found in (codes["level_1"], model.decode(codes), model.decode(codes, level=0)):
            assert found["depth"].variable.identical(own.variable)
    assert model.decode(model.encode(field))["depth"].dims == ("lat", "lon")
