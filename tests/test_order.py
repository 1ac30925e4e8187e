"""Results lie as the data came: order of dimensions, dimensions of length 1, all coordinates, attributes."""

from itertools import permutations

import numpy as np
import pytest
import xarray as xr
from helpers import make_field, make_two_variables

OPTIONS = {"levels": 2, "channels": [[1]], "max_epochs": 3, "progress": False}


@pytest.fixture(scope="module")
def field():
    """Of one depth, with coordinates along several dimensions."""
    field = make_field(n_times=12, shape=(15, 20)).expand_dims(depth=[5.0], axis=2)
    shape = [field.sizes[dim] for dim in ("time", "lat")]
    return field.assign_coords(
        sunrise=(("time", "lat"), np.arange(np.prod(shape)).reshape(shape)),
        quality=(field.dims, field.notnull().values),
        kelvin=(("depth",), [278.0]),
    )


@pytest.fixture(scope="module")
def model(field):
    return field.mrcae.fit(**OPTIONS)


@pytest.mark.parametrize("dims", list(permutations(["time", "lat", "depth", "lon"])))
def test_reconstructions_lie_as_the_data(model, field, dims):
    given = field.transpose(*dims)
    found = model.reconstruct(given)
    assert found.dims == dims
    np.testing.assert_array_equal(found, model.reconstruct(field).transpose(*dims))
    for name in field.coords:
        assert found[name].identical(given[name])


def test_codes_keep_dimensions_of_length_1(model, field):
    codes = model.encode(field)
    assert codes["level_1/encoding"].dims == ("time", "channel", "lat", "depth", "lon")
    assert model.stack(codes).dims == ("time", "depth", "feature")
    assert model.decode(codes).dims == field.dims
    assert model.split.dims == ("time",)


def test_pyramids_keep_dimensions_of_length_1(field):
    level = field.mrcae.pyramid(levels=2)["level_1/sst"]
    assert level.dims == field.dims
    np.testing.assert_array_equal(level, field)


def test_a_single_snapshot_keeps_its_time(model, field):
    found = model.reconstruct(field.isel(time=[3]))
    assert found.dims == field.dims
    np.testing.assert_array_equal(found, model.reconstruct(field).isel(time=[3]))


@pytest.mark.parametrize("keep_gaps", [False, True])
@pytest.mark.parametrize("lazy", [False, True])
def test_each_variable_of_a_dataset_comes_back_as_it_was(lazy, keep_gaps):
    ds = make_two_variables(n_times=12, shape=(15, 20))
    model = ds.mrcae.fit(["sst", "ssh"], **OPTIONS)
    given = ds.assign(
        sst=ds.sst.where(ds.time.dt.month != 3).expand_dims(depth=[3.0], axis=2),
        ssh=ds.ssh.transpose("lon", "lat", "time").expand_dims("run", axis=1),
    )
    found = model.reconstruct(given.chunk(time=5) if lazy else given, keep_gaps=keep_gaps)
    squeezed = given.squeeze(drop=True).transpose("time", "lat", "lon")
    expected = model.reconstruct(squeezed, keep_gaps=keep_gaps)
    for name in ("sst", "ssh"):
        assert found[name].dims == given[name].dims
        again = found[name].squeeze(drop=True).transpose("time", "lat", "lon")
        np.testing.assert_array_equal(again, expected[name])
    np.testing.assert_array_equal(found.depth, [3.0])


def test_a_dimension_that_one_variable_has_alone_is_refused():
    ds = make_two_variables(n_times=12, shape=(15, 20))
    model = ds.mrcae.fit(["sst", "ssh"], **OPTIONS)
    longer = ds.assign(ssh=xr.concat([ds.ssh] * 2, "depth"))
    with pytest.raises(ValueError, match="'ssh' has the dimension 'depth', which 'sst' has not"):
        model.reconstruct(longer)


@pytest.mark.parametrize("lazy", [False, True])
def test_keep_gaps_changes_values_alone(model, field, lazy):
    given = field.where(np.random.default_rng(0).random(field.shape) > 0.1)
    times = given.time.values.copy()
    times[3:5] = np.datetime64("NaT")  # that nothing can be aligned by
    given = given.assign_coords(time=times)
    given = given.chunk(time=5) if lazy else given
    whole, gappy = model.reconstruct(given), model.reconstruct(given, keep_gaps=True)
    xr.testing.assert_identical(
        gappy.isnull(), (whole.isnull() | given.isnull()).assign_attrs(gappy.isnull().attrs)
    )
    assert gappy.attrs == whole.attrs and gappy.name == whole.name
    assert gappy.dtype == whole.dtype
    np.testing.assert_array_equal(
        gappy.values[~gappy.isnull().values], whole.values[~gappy.isnull().values]
    )


def test_keep_gaps_of_several_variables():
    ds = make_two_variables(n_times=12, shape=(15, 20))
    model = ds.mrcae.fit(["sst", "ssh"], **OPTIONS)
    given = ds.assign(sst=ds.sst.where(ds.time.dt.month != 3)).transpose("lon", "time", "lat")
    found = model.reconstruct(given, keep_gaps=True)
    assert (
        found.sst.dims == ("lon", "time", "lat") and found.attrs == model.reconstruct(given).attrs
    )
    for name in ("sst", "ssh"):
        np.testing.assert_array_equal(found[name].isnull(), given[name].isnull())


@pytest.mark.parametrize("columns", [2, 4])
def test_codes_of_descending_longitudes_are_decoded_as_they_lie(columns):
    field = make_field(n_times=12, shape=(6, columns), land=False).isel(lon=slice(None, None, -1))
    model = field.mrcae.fit(**OPTIONS | {"levels": 1})
    xr.testing.assert_equal(model.decode(model.encode(field)), model.reconstruct(field))
