"""What is written into an archive comes back within its bound, and all else as it was."""

import copy
import random
import weakref

import dask.array
import numpy as np
import pytest
import torch
import xarray as xr
from helpers import (
    AVISO,
    CLIMATOLOGY,
    CMAP,
    CYLINDER,
    ERSST,
    HADGEM,
    ICE,
    MITGCM,
    NEMO,
    make_field,
    open_real,
)

import xmrcae
from xmrcae.archive import prepare
from xmrcae.archive.backend import MrcaeBackend
from xmrcae.archive.format import ArchiveError

QUICK = {"levels": 2, "channels": [[1]], "max_epochs": 2, "progress": False}
ROWS = 4
BOUND = 0.1


def write(model, obj, url, **options):
    """Write an archive of small blocks."""
    options = {"max_error": BOUND, "rows_per_block": ROWS} | options
    return model.to_archive(obj, url, progress=False, **options)


def read(obj, url):
    """Open an archive as an object like the one that was archived."""
    opened = xr.open_dataset if isinstance(obj, xr.Dataset) else xr.open_dataarray
    return opened(url, engine=MrcaeBackend).load()


def errors(found, given):
    """Absolute errors of values, which are of one type and missing at the same places."""
    assert (found.dtype, found.dims) == (given.dtype, given.dims)
    found, given = found.values.astype("float64"), given.values.astype("float64")
    assert np.array_equal(np.isnan(found), np.isnan(given))
    return np.abs(found - given)


def assert_within(found, given, bounds):
    """Values are within bounds, by name; all else is identical."""
    if isinstance(given, xr.DataArray):
        assert np.nanmax(errors(found, given)) <= bounds
        xr.testing.assert_identical(found.copy(data=given.values), given)
    else:
        for name, bound in bounds.items():
            assert np.nanmax(errors(found[name], given[name])) <= bound
        assert list(found.variables) == list(given.variables)
        xr.testing.assert_identical(found.assign({name: given[name] for name in bounds}), given)


def several_times(field, dim="time"):
    """Made-up snapshots from a single one; what is 0 stays 0."""
    noise = np.random.default_rng(0).normal(1, 0.01, (9, *field.shape)).astype(field.dtype)
    return field.expand_dims({dim: 9}).copy(data=field.values * noise)


# Real files: what is archived, the bounds, and options of the fit


def ersst(real_file):
    ds = open_real(real_file, ERSST).isel(
        time=slice(26), lat=slice(None, None, 2), lon=slice(None, None, 2)
    )
    return ds, {"sst": 0.1}, {"center": "month"}


def aviso(real_file, gaps):
    ds = open_real(real_file, AVISO).isel(
        time=slice(None, None, 4), latitude=slice(40, 100), longitude=slice(100, 220)
    )
    assert (ds.adt.isnull().any("time") & ds.adt.notnull().any("time")).any()
    return ds.adt, 0.01, {"gaps": gaps}


def cmap(real_file):
    return open_real(real_file, CMAP).isel(time=slice(20)), {"precip": 0.5}, {}


def hadgem(real_file):
    return open_real(real_file, HADGEM).isel(time=slice(18)), {"air_temperature": 0.05}, {}


def ice(real_file):
    ds = open_real(real_file, ICE).isel(
        time=slice(12), lat=slice(None, None, 2), lon=slice(0, None, 4)
    )
    assert (ds.icec.isnull().any("time") & ds.icec.notnull().any("time")).any()
    return ds, {"icec": 0.01}, {"gaps": "mask"}


def cylinder(real_file):
    ds = open_real(real_file, CYLINDER).isel(
        time=slice(14), y=slice(None, None, 2), x=slice(None, None, 3)
    )
    return ds, {"u": 0.01, "v": 0.002}, {}


def nemo(real_file):
    tos = open_real(real_file, NEMO).tos.isel(
        time_counter=0, y=slice(None, None, 4), x=slice(None, None, 4)
    )
    return several_times(tos.drop_vars("time_counter")), 0.05, {}


def mitgcm(real_file):
    theta = open_real(real_file, MITGCM).THETA.isel(time=0, Z=0)
    return several_times(theta.drop_vars("time")), 0.05, {"land_value": 0.0}


def climatology(real_file):
    ds = open_real(real_file, CLIMATOLOGY).isel(lat=slice(None, None, 4), lon=slice(None, None, 4))
    return ds, {"sst": 0.1}, {}


REAL = {
    "ersst": ersst,
    "aviso, gaps masked": lambda real_file: aviso(real_file, "mask"),
    "aviso, gaps filled": lambda real_file: aviso(real_file, "mean"),
    "cmap": cmap,
    "hadgem": hadgem,
    "ice": ice,
    "cylinder": cylinder,
    "nemo": nemo,
    "mitgcm": mitgcm,
    "climatology": climatology,
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_come_back_within_their_bounds(real_file, tmp_path, name):
    obj, bounds, options = REAL[name](real_file)
    fitted_to = obj[list(bounds)] if isinstance(obj, xr.Dataset) else obj
    model = xmrcae.MrCAE(**QUICK | options).fit(fitted_to)
    write(model, obj, tmp_path / "a", max_error=bounds, rows_per_block=7)
    found = read(obj, tmp_path / "a")
    assert_within(found, obj, bounds)
    times = [name for name in obj.coords if obj[name].dtype.kind in "MO"]
    for name in times:
        was, now = obj[name].encoding, found[name].encoding
        assert [was.get(key) for key in ("units", "calendar")] == [
            now.get(key) for key in ("units", "calendar")
        ]


# Kinds of data


@pytest.fixture(scope="module")
def field():
    """A field with land."""
    return make_field(3 * ROWS + 1)


@pytest.fixture(scope="module")
def model(field):
    """A model of it."""
    return field.mrcae.fit(**QUICK)


def files(url):
    """All files of an archive: path to bytes."""
    return {str(p.relative_to(url)): p.read_bytes() for p in url.rglob("*") if p.is_file()}


def changed(field, change):
    """The field with other values, which `change` makes of a copy."""
    result = field.copy(deep=True)
    change(result.values)
    return result


def with_strays(values):
    at = np.isnan(values[0]).nonzero()
    values[2, at[0][:3], at[1][:3]] = 1e20


def with_a_place_that_is_known_once(values):
    at = np.isnan(values[0]).nonzero()
    values[2, at[0][0], at[1][0]] = 14.0


KINDS = {
    "float64": lambda field: field.astype("float64"),
    "one snapshot": lambda field: field[:1],
    "no time": lambda field: field[0],
    "constant": lambda field: field.where(field.isnull(), 3.25),
    "constant and large": lambda field: field.where(field.isnull(), 1e5),
    "a snapshot without values": lambda field: field.where(field.time != field.time[5]),
    "first snapshot without values": lambda field: field.where(field.time != field.time[0]),
    "no values in a block": lambda field: field.where(
        ~field.time.isin(field.time[ROWS : 2 * ROWS])
    ),
    "values on land at a time": lambda field: changed(field, with_a_place_that_is_known_once),
    "attributes of packing": lambda field: field.assign_attrs(scale_factor=1.0, valid_max=9.0),
    "times that go backwards": lambda field: field[::-1],
    "no coordinates": lambda field: field.drop_vars("time"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_data_comes_back_within_its_bound(model, field, tmp_path, kind):
    obj = KINDS[kind](field)
    write(model, obj, tmp_path / "a")
    assert_within(read(obj, tmp_path / "a"), obj, BOUND)


def test_half_precision_comes_back_within_its_bound(tmp_path):
    obj = make_field(2 * ROWS, dtype="float16")
    write(obj.astype("float32").mrcae.fit(**QUICK), obj, tmp_path / "a")
    assert_within(read(obj, tmp_path / "a"), obj, BOUND)


def test_values_where_the_archive_has_no_place_come_back_as_they_were(model, field, tmp_path):
    archive = write(model, field, tmp_path / "a")
    later = changed(field.assign_coords(time=field.time + np.timedelta64(600, "D")), with_strays)
    archive.append(later, progress=False)
    both = xr.concat([field, later], "time", combine_attrs="identical")
    found = read(both, tmp_path / "a")
    assert_within(found, both, BOUND)
    assert int((found == np.float32(1e20)).sum()) == 3


def test_every_snapshot_is_within_its_root_mean_square_error(model, field, tmp_path):
    write(model, field, tmp_path / "a", max_error=None, rmse=0.03)
    error = read(field, tmp_path / "a") - field
    assert 0.015 < float(((error**2).mean(("lat", "lon")) ** 0.5).max()) <= 0.03


def test_without_a_bound_only_codes_are_kept(model, field, tmp_path):
    archive = write(model, field, tmp_path / "a", max_error=None)
    found = read(field, tmp_path / "a")
    xr.testing.assert_identical(found.copy(data=field.values), field)
    assert errors(found, field)[~np.isnan(field.values)].max() == archive.measured["worst"][-1]
    assert not (tmp_path / "a" / "level_1" / "sst").exists()


def test_bounds_finer_than_the_type_are_refused_unless_values_are_kept_as_they_are(
    model, field, tmp_path
):
    obj = field + 1e4
    with pytest.raises(ArchiveError, match=r"max_error=0.0001 cannot be"):
        write(model, obj, tmp_path / "a", max_error=1e-4)
    write(model, obj, tmp_path / "b", max_error=1e-4, lossless=True)
    xr.testing.assert_identical(read(obj, tmp_path / "b"), obj)


@pytest.mark.parametrize("at", [(6, 0, 0), (6, 8, 8)], ids=["sea", "land"])
def test_infinite_values_are_refused_with_their_number(model, field, tmp_path, at):
    assert np.isnan(field.values[at]) == (at == (6, 8, 8))
    obj = changed(
        field, lambda values: values.__setitem__((*at[:2], slice(at[2], at[2] + 2)), -np.inf)
    )
    with pytest.raises(ValueError, match=r"\b2 (values are infinite|infinite values)"):
        write(model, obj, tmp_path / "a")


def test_chunks_of_any_size_give_the_same_archive_to_the_byte(model, field, tmp_path):
    write(model, field, tmp_path / "a")
    write(model, field.chunk(time=3, lat=5, lon=7), tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def random_states():
    """The states of the generators that a user may have seeded."""
    numpy = np.random.get_state()[1].tolist()  # noqa: NPY002
    return random.getstate(), numpy, torch.get_rng_state().tolist()


def test_nothing_of_the_users_is_changed(model, field, tmp_path):
    before = copy.deepcopy((field, random_states()))
    write(model, field, tmp_path / "a")
    xr.testing.assert_identical(field, before[0])
    assert field.encoding == before[0].encoding
    assert random_states() == before[1]


def test_lazy_data_are_held_a_block_at_a_time(model, field, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "SAMPLE", 1)
    n_blocks, loaded, most = 10, [], []

    def load(_):
        chunk = field.values[:ROWS].copy()
        loaded.append(weakref.ref(chunk))
        most.append(sum(each() is not None for each in loaded))
        return chunk

    values = dask.array.map_blocks(
        load, dask.array.zeros(n_blocks * ROWS, chunks=ROWS), dtype="float32", new_axis=[1, 2],
        chunks=((ROWS,) * n_blocks, (21,), (30,)),
    )  # fmt: skip
    coords = {name: field[name] for name in ("lat", "lon")}
    obj = xr.DataArray(values, coords, field.dims, "sst", field.attrs)
    write(model, obj, tmp_path / "a")
    assert len(most) >= 2 * n_blocks and max(most) <= 5  # 4 of them are the sample
