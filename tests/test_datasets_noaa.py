"""NOAA's files, fetched over HTTP from a server on this machine that fails in the ways of real ones."""

import errno
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pytest
import xarray as xr
from helpers import ERSST, LAND_SEA_MASK
from mirror import Fault, Mirror, files, make_psl, read_psl, sha256

from xmrcae._version import __version__
from xmrcae.datasets import ersst_v5, noaa, oisst_v2_lsmask, oisst_v2_monthly, oisst_v21_daily

pytestmark = pytest.mark.minimum

FUNCTIONS = {
    "oisst_v2_monthly": (oisst_v2_monthly, "noaa.oisst.v2/sst.mnmean.nc"),
    "oisst_v2_lsmask": (oisst_v2_lsmask, "noaa.oisst.v2/lsmask.nc"),
    "ersst_v5": (ersst_v5, "noaa.ersst.v5/sst.mnmean.nc"),
    "oisst_v21_daily": (
        partial(oisst_v21_daily, 1990),
        "noaa.oisst.v2.highres/sst.day.mean.1990.nc",
    ),
}
NAME = FUNCTIONS["ersst_v5"][1]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("XMRCAE_DATA_DIR", str(folder))
    return folder


@pytest.fixture
def mirror(tmp_path, monkeypatch, cache):
    """A server of a folder, asked without a wait between tries."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    mirror = Mirror(folder)
    monkeypatch.setenv("XMRCAE_DATA_URL", f"{mirror.url}/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    yield mirror
    mirror.stop()


@pytest.fixture(params=FUNCTIONS)
def served(request, mirror, monkeypatch):
    """Each function, and the file that the mirror has for it; the mask is held to the checksum of that file."""
    function, name = FUNCTIONS[request.param]
    path = make_psl(mirror.path(name), lsmask=request.param == "oisst_v2_lsmask")
    monkeypatch.setattr(noaa, "LSMASK_SHA256", sha256(path))
    return function, path


# What is given


def test_data_are_lazy_and_follow_cf(served, no_compute):
    function, path = served
    with no_compute():
        data = function()
        values = data if isinstance(data, xr.DataArray) else data["sst"]
        assert values.chunks is not None
        assert (values.cf["latitude"].name, values.cf["longitude"].name) == ("lat", "lon")
        assert (values.cf["Y"].name, values.cf["X"].name) == ("lat", "lon")
        assert {"standard_name", "long_name", "units"} <= values.attrs.keys()
    if isinstance(data, xr.Dataset):
        assert list(data.data_vars) == ["sst"] and data["time_bnds"].dtype.kind == "M"
        assert data.cf["T"].name == "time" and data.cf.bounds["time"] == ["time_bnds"]
        assert values.chunksizes["time"] == (1, 1, 1, 1)
        assert (values.attrs["units"], values.attrs["standard_name"]) == (
            "degC",
            "sea_surface_temperature",
        )
        xr.testing.assert_equal(data.drop_vars("time_bnds"), read_psl(path))
    else:
        assert (data.name, data.dims, data.dtype, values.attrs["units"]) == (
            "lsmask",
            ("lat", "lon"),
            np.int8,
            "1",
        )
        np.testing.assert_array_equal(data, read_psl(path)["mask"][0])


def test_attributes_say_whose_data_these_are_and_when_they_were_got(served, mirror):
    function, path = served
    before = datetime.now(UTC).replace(microsecond=0)
    attrs = function().attrs
    name = path.relative_to(mirror.folder).as_posix()
    assert attrs["url"] == f"https://downloads.psl.noaa.gov/Datasets/{name}"
    assert attrs["sha256"] == sha256(path)
    assert (
        attrs["license"] == "No constraints on data access or use"
        and "https://doi.org/10.1175/" in attrs["citation"]
    )
    assert attrs["source"] == (
        "NOAA Physical Sciences Laboratory" if "lsmask" in name else "a made-up field"
    )
    assert before <= datetime.fromisoformat(attrs["accessed"]) <= datetime.now(UTC)


def test_real_mask_is_valid_of_its_own_grid(mirror, real_file, no_compute):
    shutil.copy(real_file(LAND_SEA_MASK), mirror.path("noaa.oisst.v2/lsmask.nc"))
    with no_compute():
        lsmask = oisst_v2_lsmask()
    with xr.open_dataset(real_file(LAND_SEA_MASK)) as ds:
        np.testing.assert_array_equal(lsmask, ds.mask[0])
        field = ds.mask[0].drop_vars("time").expand_dims(time=3).rename("sst")
    assert lsmask.sel(lat=0.5, lon=180.5) == 1 and lsmask.sel(lat=0.5, lon=25.5) == 0
    tree = field.mrcae.pyramid(levels=1, valid=lsmask)
    np.testing.assert_array_equal(tree["level_0"]["sst"].notnull().any("time"), lsmask)


def test_real_ersst_is_the_file_served(mirror, real_file):
    shutil.copy(real_file(ERSST), mirror.path(NAME))
    with xr.open_dataset(real_file(ERSST)) as expected:
        xr.testing.assert_equal(ersst_v5(), expected)


# How it is fetched


def test_a_second_call_asks_for_nothing(served, mirror, cache):
    function, path = served
    first = function().load()
    assert (cache / path.relative_to(mirror.folder)).is_file()
    path.unlink()
    xr.testing.assert_identical(function().load(), first)
    assert len(mirror.requests) == 1


def test_the_server_is_told_who_asks(mirror):
    make_psl(mirror.path(NAME))
    ersst_v5()
    ((_, headers),) = mirror.requests
    assert headers["User-Agent"] == f"xmrcae/{__version__}"


def test_a_dropped_connection_is_tried_again_from_the_start(served, mirror, cache):
    function, path = served
    mirror.faults = [Fault(sent=1024), Fault(sent=None)]
    function()
    assert len(mirror.requests) == 3
    assert (cache / path.relative_to(mirror.folder)).read_bytes() == path.read_bytes()


def test_half_a_download_is_not_kept_and_the_next_call_fetches_it_anew(served, mirror, cache):
    function, path = served
    mirror.faults = [Fault(sent=1024)] * 3
    with pytest.raises(ConnectionError, match=r"could not get .*1024 bytes read.*: get it in"):
        function()
    assert len(mirror.requests) == 3 and files(cache) == []
    function()
    assert len(mirror.requests) == 4 and files(cache) == [path.name]
    assert (cache / path.relative_to(mirror.folder)).read_bytes() == path.read_bytes()


def test_a_full_disk_is_no_fault_of_the_connection(mirror, cache, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    make_psl(mirror.path(NAME))
    monkeypatch.setattr("shutil.move", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        ersst_v5()
    assert not isinstance(caught.value, ConnectionError)


def test_without_a_folder_to_write_to_it_is_said_how_to_name_one(mirror, tmp_path, monkeypatch):
    make_psl(mirror.path(NAME))
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / ".cache"))
    monkeypatch.delenv("XMRCAE_DATA_DIR")
    with pytest.raises(NotADirectoryError, match=r"home/\.cache.*: name another.*XMRCAE_DATA_DIR"):
        ersst_v5()


def test_a_file_cut_off_unnoticed_is_named(mirror, cache):
    path = make_psl(mirror.path(NAME))
    mirror.faults = [Fault(sent=path.stat().st_size // 2, length=False)]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"sst\.mnmean\.nc cannot be read .*: delete it"):
            ersst_v5()
    (cache / NAME).unlink()
    xr.testing.assert_equal(ersst_v5().sst, read_psl(path).sst)


def test_the_folder_may_be_told_from_home(mirror, tmp_path, monkeypatch):
    make_psl(mirror.path(NAME))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XMRCAE_DATA_DIR", "~/data")
    monkeypatch.chdir(tmp_path)
    ersst_v5()
    assert ersst_v5().attrs["sha256"] and len(mirror.requests) == 1
    assert (tmp_path / "home" / "data" / NAME).is_file() and not (tmp_path / "~").exists()


def test_a_busy_server_is_asked_again(served, mirror):
    function, path = served
    mirror.faults = [Fault(503), Fault(429)]
    assert function().attrs["sha256"] == sha256(path)
    assert len(mirror.requests) == 3


@pytest.mark.parametrize("status", [404, 403])
def test_a_file_that_the_server_refuses_is_named(served, mirror, status):
    function, path = served
    mirror.faults = [Fault(status)] * 3
    with pytest.raises(
        ConnectionError, match=f"could not get .*/{re.escape(path.name)} .*{status}"
    ):
        function()


def test_a_page_in_place_of_a_file_is_named(mirror, cache):
    mirror.path(NAME).write_text("<html>Log in to this network</html>")
    with pytest.raises(ValueError, match=rf"{cache / NAME} cannot be read .*: delete it"):
        ersst_v5()
    (cache / NAME).unlink()
    make_psl(mirror.path(NAME))
    assert ersst_v5().sizes["time"] == 4


@pytest.mark.parametrize("dropped", [False, True])
def test_another_checksum_is_refused_and_the_file_not_kept(mirror, cache, monkeypatch, dropped):
    path = make_psl(mirror.path("noaa.oisst.v2/lsmask.nc"), lsmask=True)
    expected, body = sha256(path), path.read_bytes()
    monkeypatch.setattr(noaa, "LSMASK_SHA256", expected)
    path.write_bytes(body[:-1] + b"!")
    mirror.faults = [Fault(sent=1024)] if dropped else []
    with pytest.raises(ValueError, match=f"expected {expected} but got {sha256(path)}"):
        oisst_v2_lsmask()
    assert files(cache) == []
    path.write_bytes(body)
    assert oisst_v2_lsmask().attrs["sha256"] == expected


def test_a_call_beside_another_download_gets_the_whole_file(mirror, cache):
    path = make_psl(mirror.path(NAME))
    asked, released = threading.Event(), threading.Event()
    mirror.faults = [Fault(sent=1024, after=lambda: (asked.set(), released.wait(20)))]
    code = "from xmrcae.datasets import ersst_v5; print(ersst_v5(progress=False).attrs['sha256'])"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert asked.wait(20)
        assert ersst_v5().attrs["sha256"] == sha256(path)
        released.set()
        assert other.communicate()[0].strip() == sha256(path)
    assert files(cache) == [path.name] and (cache / NAME).read_bytes() == path.read_bytes()


def test_progress_is_shown_if_asked_for(mirror, capsys):
    make_psl(mirror.path(NAME))
    ersst_v5(progress=False)
    assert "B/s" not in capsys.readouterr().err
    shutil.rmtree(os.environ["XMRCAE_DATA_DIR"])
    ersst_v5()
    shown = capsys.readouterr().err
    assert "100%" in shown and "B/s" in shown
    with pytest.raises(TypeError, match="progress='bar': True or False"):
        ersst_v5(progress="bar")


# Without a network


def refused(mirror, monkeypatch):
    mirror.stop()
    return "Connection refused"


def unknown(mirror, monkeypatch):
    def lookup(*args, **kwargs):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.delenv("XMRCAE_DATA_URL")
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return "downloads.psl.noaa.gov.*Temporary failure in name resolution"


@pytest.mark.parametrize("cut_off", [refused, unknown])
def test_no_connection_is_told_with_what_to_do(served, mirror, cache, monkeypatch, cut_off):
    function, path = served
    reason = cut_off(mirror, monkeypatch)
    with pytest.raises(ConnectionError) as caught:
        function()
    name = path.relative_to(mirror.folder).as_posix()
    assert re.search(rf"could not get {name} from http.*/{name} \(.*{reason}", str(caught.value))
    assert f"put it at {cache / name}, or" in str(caught.value) and "XMRCAE_DATA_URL" in str(
        caught.value
    )


def test_a_file_put_there_by_hand_is_read(served, mirror, cache):
    function, path = served
    there = cache / path.relative_to(mirror.folder)
    there.parent.mkdir(parents=True)
    shutil.copy(path, there)
    os.utime(there, (1e9, 1e9))
    attrs = function().attrs
    assert (attrs["accessed"], attrs["sha256"]) == ("2001-09-09T01:46:40Z", sha256(path))
    assert mirror.requests == []


def test_a_file_put_there_by_hand_is_held_to_the_checksum(mirror, cache):
    there = cache / "noaa.oisst.v2" / "lsmask.nc"
    there.parent.mkdir(parents=True)
    make_psl(there, lsmask=True)
    mirror.stop()
    with pytest.raises(
        ConnectionError, match=r"in place of the one there, which has another checksum"
    ):
        oisst_v2_lsmask()


# The year


@pytest.mark.parametrize(
    ("year", "error", "message"),
    [
        (1980, ValueError, "year=1980: .* from 1981 to this year"),
        (9999, ValueError, "year=9999: .* from 1981 to this year"),
        (2000.0, TypeError, r"year=2000\.0: a whole number from 1981"),
        ("2000", TypeError, "year='2000': a whole number from 1981"),
        (True, TypeError, "year=True: a whole number from 1981"),
    ],
)
def test_years_without_data_are_refused_before_any_request(mirror, year, error, message):
    with pytest.raises(error, match=message):
        oisst_v21_daily(year)
    assert mirror.requests == []


def test_each_year_is_a_file_and_an_unfinished_one_is_named(mirror, cache, caplog):
    this_year = datetime.now(UTC).year
    for year in (this_year, np.int64(1981)):
        name = f"noaa.oisst.v2.highres/sst.day.mean.{year}.nc"
        make_psl(mirror.path(name))
        assert oisst_v21_daily(year).attrs["url"].endswith(f"/{name}")
    with caplog.at_level(logging.WARNING, "xmrcae"):
        oisst_v21_daily(this_year)
        assert caplog.text == ""
        os.utime(cache / name, (370e6, 370e6))  # in September 1981
        oisst_v21_daily(1981)
    assert "before its year was over: delete it" in caplog.text and name in caplog.text
