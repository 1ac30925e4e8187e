"""NOAA's files, fetched from a server on this machine that holds real ones or small ones of their form."""

import hashlib
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import xarray as xr
from helpers import ERSST, LAND_SEA_MASK, make_field

from xmrcae.datasets import ersst_v5, noaa, oisst_v2_lsmask, oisst_v2_monthly


class Mirror:
    """A server of a folder; `requests` are the paths that it was asked for."""

    def __init__(self, folder):
        self.folder, self.requests = folder, []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(handler, *args):
                self.requests.append(handler.path.lstrip("/"))

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def path(self, name):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("XMRCAE_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def mirror(tmp_path, monkeypatch, cache):
    folder = tmp_path / "mirror"
    folder.mkdir()
    mirror = Mirror(folder)
    monkeypatch.setenv("XMRCAE_DATA_URL", f"{mirror.url}/")
    yield mirror
    mirror.stop()


def make_oisst(path):
    """Write a small file of the form of PSL's: bounds of time, missing_value, no standard name of sst."""
    ds = make_field(4, (5, 8)).drop_attrs(deep=False).to_dataset()
    ds["time_bnds"] = ("time", "nbnds"), np.stack([ds.time, ds.time + np.timedelta64(28, "D")], axis=1)
    ds.time.attrs["bounds"] = "time_bnds"
    ds.assign_attrs(source="a made-up field").to_netcdf(path, encoding={"time": {"units": "days since 1800-01-01"}})
    return path


def test_oisst_is_lazy_and_says_whose_it_is(mirror, no_compute):
    path = make_oisst(mirror.path("noaa.oisst.v2/sst.mnmean.nc"))
    with no_compute():
        ds = oisst_v2_monthly()
    assert mirror.requests == ["noaa.oisst.v2/sst.mnmean.nc"]
    assert list(ds.data_vars) == ["sst"] and "time_bnds" in ds.coords
    assert ds.sst.attrs["standard_name"] == "sea_surface_temperature"
    assert ds.attrs["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert ds.attrs["url"] == "https://downloads.psl.noaa.gov/Datasets/noaa.oisst.v2/sst.mnmean.nc"
    assert "Reynolds" in ds.attrs["citation"] and "No constraints" in ds.attrs["license"]
    assert ds.attrs["source"] == "a made-up field"
    np.testing.assert_array_equal(ds.sst, xr.load_dataset(path).sst)


def test_ersst_is_the_file_served(mirror, real_file, no_compute):
    shutil.copy(real_file(ERSST), mirror.path("noaa.ersst.v5/sst.mnmean.nc"))
    with no_compute():
        ds = ersst_v5()
    assert mirror.requests == ["noaa.ersst.v5/sst.mnmean.nc"]
    with xr.open_dataset(real_file(ERSST)) as expected:
        xr.testing.assert_equal(ds, expected)
    assert "Huang" in ds.attrs["citation"]


def test_lsmask_is_valid_of_its_own_grid(mirror, real_file, no_compute):
    shutil.copy(real_file(LAND_SEA_MASK), mirror.path("noaa.oisst.v2/lsmask.nc"))
    with no_compute():
        lsmask = oisst_v2_lsmask()
    assert (lsmask.name, lsmask.dims, lsmask.dtype) == ("lsmask", ("lat", "lon"), np.int8)
    assert "time" not in lsmask.coords
    with xr.open_dataset(real_file(LAND_SEA_MASK)) as ds:
        np.testing.assert_array_equal(lsmask, ds.mask[0])
        field = ds.mask[0].drop_vars("time").expand_dims(time=3).rename("sst")
    assert lsmask.sel(lat=0.5, lon=180.5) == 1 and lsmask.sel(lat=0.5, lon=25.5) == 0
    tree = field.mrcae.pyramid(levels=1, valid=lsmask)
    np.testing.assert_array_equal(tree["level_0"]["sst"].notnull().any("time"), lsmask)


def test_a_second_call_asks_for_nothing(mirror, cache):
    make_oisst(mirror.path("noaa.oisst.v2/sst.mnmean.nc"))
    first = oisst_v2_monthly().load()
    assert (cache / "noaa.oisst.v2" / "sst.mnmean.nc").is_file()
    mirror.path("noaa.oisst.v2/sst.mnmean.nc").unlink()
    xr.testing.assert_identical(oisst_v2_monthly().load(), first)
    assert len(mirror.requests) == 1


def test_another_checksum_is_refused(mirror, cache):
    make_oisst(mirror.path("noaa.oisst.v2/lsmask.nc"))
    with pytest.raises(ValueError, match=f"does not match the known hash.*{noaa.LSMASK_SHA256}"):
        oisst_v2_lsmask()
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_the_message_of_no_connection_says_what_to_do(mirror, cache):
    mirror.stop()
    with pytest.raises(ConnectionError) as caught:
        ersst_v5()
    message = str(caught.value)
    assert f"could not get noaa.ersst.v5/sst.mnmean.nc from {mirror.url}/noaa.ersst.v5/sst.mnmean.nc" in message
    assert str(cache / "noaa.ersst.v5" / "sst.mnmean.nc") in message and "XMRCAE_DATA_URL" in message


def test_a_file_put_there_by_hand_is_read(mirror, cache):
    path = cache / "noaa.ersst.v5" / "sst.mnmean.nc"
    path.parent.mkdir(parents=True)
    make_oisst(path)
    assert ersst_v5().sst.sizes["time"] == 4
    assert mirror.requests == []


def test_a_file_that_the_server_lacks_is_named(mirror):
    with pytest.raises(ConnectionError, match=r"could not get noaa.oisst.v2/sst.mnmean.nc .*404"):
        oisst_v2_monthly()
