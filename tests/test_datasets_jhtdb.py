"""JHTDB: cutouts of both layouts, and slices through a stand-in for the client, by itself and over HTTP."""

import json
import sys
import time
import traceback
import types
import urllib.parse

import numpy as np
import pytest
import requests
import xarray as xr
from mirror import Fault, Mirror

from xmrcae.datasets import jhtdb_slice, open_jhtdb

pytestmark = pytest.mark.minimum

LEGACY = "jhtdb_isotropic_cutout_legacy.h5"
MODERN = "jhtdb_isotropic_cutout_pyjhtdb.h5"
TOKEN = "org.example/secret token-123"
DIMS = ("zcoor", "ycoor", "xcoor", "values")


# Files


def make_cutout(
    path,
    frames,
    *,
    dataset="isotropic1024coarse",
    start=(1, 1, 1),
    step=1,
    shape=(1, 4, 6),
    field="velocity",
):
    """Write a cutout as pyJHTDB does; the first component at (z, y, x) of frame n is 1000 n + 100 z + 10 y + x."""
    z, y, x = np.indices(shape)
    values = {
        f"{field}_{n:04d}": (
            DIMS,
            (1000 * n + 100 * z + 10 * y + x)[..., None] + 0.1 * np.arange(3, dtype=np.float32),
        )
        for n in frames
    }
    attrs = {"dataset": dataset} | {f"{a}_start": s for a, s in zip("xyz", start, strict=True)}
    coords = {"ycoor": ("ycoor", np.linspace(-1, 0, shape[1]) ** 3)}
    ds = xr.Dataset(values, coords, attrs | {f"{a}_step": step for a in "xyz"}).astype(np.float32)
    ds.to_netcdf(path)
    return path


def test_the_two_layouts_give_the_same(real_file):
    xr.testing.assert_identical(open_jhtdb(real_file(LEGACY)), open_jhtdb(str(real_file(MODERN))))


def test_values_and_coordinates_are_the_files(real_file):
    with xr.open_dataset(real_file(MODERN), decode_cf=False) as raw:
        ds = open_jhtdb(real_file(MODERN))
        for i, name in enumerate("uvw"):
            np.testing.assert_array_equal(ds[name], raw.Velocity_0101.values[..., i])
        np.testing.assert_array_equal(ds.p, raw.Pressure_0101.values[..., 0])
        for axis in "xyz":
            np.testing.assert_allclose(ds[axis], np.squeeze(raw[f"{axis}coor"]), rtol=1e-6)
    assert ds.time.values == pytest.approx(0.2)
    assert ds.u.dims == ("time", "y", "x")
    assert ds.u.dtype == np.float32


def test_opening_computes_nothing(real_file, no_compute):
    with no_compute():
        open_jhtdb([real_file(LEGACY)])
        open_jhtdb([real_file(MODERN)])


def test_attributes_say_whose_data_these_are(real_file):
    ds = open_jhtdb(real_file(MODERN))
    assert "10.1080/14685240802376389" in ds.attrs["citation"]
    assert ds.attrs["license"].startswith("ODC-By")
    assert {"title", "source", "references"} <= set(ds.attrs)
    assert all("long_name" in ds[name].attrs for name in "uvwp")


def test_slices_are_data_to_fit(tmp_path):
    ds = open_jhtdb(make_cutout(tmp_path / "a.h5", [1, 11]))
    tree = ds.mrcae.pyramid("u", levels=1)
    np.testing.assert_array_equal(tree["level_0"]["u"], ds.u)


def test_files_in_any_order_are_one_series(tmp_path):
    make_cutout(tmp_path / "a.h5", [21, 11])
    make_cutout(tmp_path / "b.h5", [1, 16])
    ds = open_jhtdb(tmp_path / "*.h5")
    np.testing.assert_allclose(ds.time, [0, 0.02, 0.03, 0.04])
    np.testing.assert_array_equal(ds.u.isel(y=0, x=0), [1000, 11000, 16000, 21000])
    xr.testing.assert_identical(ds, open_jhtdb([tmp_path / "b.h5", tmp_path / "a.h5"]))


def test_points_that_were_not_read_are_missing(tmp_path):
    path = make_cutout(tmp_path / "a.h5", [1])
    raw = xr.load_dataset(path)
    raw.velocity_0001[0, 1, 2, 0] = np.float32(-999.9)
    raw.to_netcdf(path)
    ds = open_jhtdb(path)
    assert np.isnan(ds.u[0, 1, 2])
    assert ds.to_array().isnull().sum() == 1


def test_cubes_keep_z_and_steps_count(tmp_path):
    ds = open_jhtdb(make_cutout(tmp_path / "a.h5", [1], start=(5, 9, 101), step=8, shape=(3, 4, 6)))
    spacing = 2 * np.pi / 1024
    assert ds.u.dims == ("time", "z", "y", "x")
    np.testing.assert_allclose(ds.x, spacing * (4 + 8 * np.arange(6)))
    np.testing.assert_allclose(ds.y, spacing * (8 + 8 * np.arange(4)))
    np.testing.assert_allclose(ds.z, spacing * (100 + 8 * np.arange(3)))
    np.testing.assert_array_equal(ds.u.isel(time=0, z=2, y=1, x=3), 1213)


def test_y_of_the_channel_is_the_files(tmp_path):
    path = make_cutout(tmp_path / "a.h5", [9], dataset="channel")
    ds = open_jhtdb(path)
    np.testing.assert_allclose(ds.y, np.linspace(-1, 0, 4) ** 3, rtol=1e-6)
    np.testing.assert_allclose(ds.time, 8 * 0.0065)
    xr.load_dataset(path).drop_vars("ycoor").to_netcdf(tmp_path / "b.h5")
    with pytest.raises(ValueError, match=r"b\.h5 has no ycoor"):
        open_jhtdb(tmp_path / "b.h5")


def test_two_files_of_one_time_are_named(real_file):
    with pytest.raises(ValueError, match=f"{MODERN} and .*{LEGACY} both hold time 0.2"):
        open_jhtdb([real_file(LEGACY), real_file(MODERN)])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"start": (2, 1, 1)}, r"b\.h5 and .*a\.h5 have different grids"),
        ({"shape": (1, 4, 7)}, r"b\.h5 and .*a\.h5 have different grids"),
        ({"start": (1, 1, 9)}, r"b\.h5 and .*a\.h5 have different grids"),
        ({"field": "pressure"}, r"b\.h5 holds p and .*a\.h5 u, v, w"),
    ],
)
def test_files_that_are_no_series_are_named(tmp_path, other, message):
    paths = [make_cutout(tmp_path / "a.h5", [1]), make_cutout(tmp_path / "b.h5", [2], **other)]
    with pytest.raises(ValueError, match=message):
        open_jhtdb(paths)


def test_files_that_are_no_cutouts_are_named(tmp_path, real_file):
    with pytest.raises(ValueError, match=r"jhtdb_channel_grid\.h5 names None"):
        open_jhtdb(real_file("jhtdb_channel_grid.h5"))
    with pytest.raises(ValueError, match=r"a\.h5 names 'mhd1024'.*isotropic1024coarse"):
        open_jhtdb(make_cutout(tmp_path / "a.h5", [1], dataset="mhd1024"))
    with pytest.raises(ValueError, match=r"b\.h5 must hold velocity or pressure"):
        open_jhtdb(make_cutout(tmp_path / "b.h5", [1], field="density"))
    with pytest.raises(FileNotFoundError, match=r"none\*\.h5"):
        open_jhtdb(tmp_path / "none*.h5")


# The client


class Client:
    """Stands in for givernylocal 3.6: the same calls, and what its documentation says that they give and refuse."""

    sizes = {"isotropic1024coarse": (1024, 1024, 1024, 5024), "channel": (2048, 512, 1536, 4000)}  # noqa: RUF012

    def __init__(self, y_of_channel):
        self.y_of_channel = y_of_channel
        self.output_paths, self.requests, self.fails_after = [], [], None

    def turb_dataset(self, dataset_title="", output_path="", auth_token=""):
        self.output_paths.append(output_path)
        return types.SimpleNamespace(dataset_title=dataset_title, auth_token=auth_token)

    def getCutout(
        self, cube, var, xyzt_axes_ranges_original, xyzt_strides, trace_memory=False, verbose=True
    ):
        ranges, strides = xyzt_axes_ranges_original, xyzt_strides
        assert cube.auth_token == TOKEN
        assert ranges.shape == (4, 2) and len(strides) == 4
        assert all(isinstance(stride, np.int64) for stride in strides)
        assert (ranges[:, 0] >= 1).all() and (ranges[:, 1] <= self.sizes[cube.dataset_title]).all()
        lengths = ranges[:3, 1] - ranges[:3, 0] + 1
        n_times = (ranges[3, 1] - ranges[3, 0]) // strides[3] + 1
        if np.prod(lengths) * n_times > 200**3:
            raise ValueError("max local cutout size exceeded")
        if self.fails_after is not None and len(self.requests) >= self.fails_after:
            spellings = [urllib.parse.quote(cube.auth_token, safe=safe) for safe in ("", "/")]
            raise OSError(f"no answer to {' '.join(spellings)} {cube.auth_token}")
        self.requests.append((var, ranges.copy(), strides.copy()))
        assert not verbose

        x, y, z, t = (np.arange(a, b + 1, s) for (a, b), s in zip(ranges, strides, strict=True))
        shape = (len(z), len(y), len(x), {"velocity": 3, "pressure": 1}[var])
        result = xr.Dataset()
        for frame in t:
            values = np.full(shape, frame, np.float32) + np.arange(shape[-1], dtype=np.float32) / 4
            values[0, 0, frame % len(x)] = -999.9
            result[f"{var}_{frame:04d}"] = DIMS, values
        y_values = (
            self.y_of_channel[y - 1]
            if cube.dataset_title == "channel"
            else (y - 1) * 2 * np.pi / 1024
        )
        return result.assign_coords(
            zcoor=(z - 1) * 2 * np.pi / 1024, ycoor=y_values, xcoor=(x - 1) * 0.01
        )


@pytest.fixture
def client(monkeypatch, tmp_path, data_dir):
    grid = data_dir / "jhtdb_channel_grid.h5"
    y = (
        xr.load_dataset(grid).y.values
        if grid.is_file()
        else np.sin(np.linspace(-np.pi / 2, np.pi / 2, 512))
    )
    client = Client(y)
    for name, held in {
        "turbulence_dataset": "turb_dataset",
        "turbulence_toolkit": "getCutout",
    }.items():
        module = types.ModuleType(f"givernylocal.{name}")
        setattr(module, held, getattr(client, held))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "givernylocal", types.ModuleType("givernylocal"))
    monkeypatch.setenv("XMRCAE_JHTDB_TOKEN", TOKEN)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    return client


def test_the_papers_isotropic_slice(client):
    frames = range(1, 5025, 10)
    ds = jhtdb_slice("isotropic1024coarse", frames)
    assert dict(ds.sizes) == {"time": 503, "y": 128, "x": 128}
    assert list(ds.data_vars) == ["u", "v", "w"]
    np.testing.assert_allclose(ds.time, 0.02 * np.arange(503))
    np.testing.assert_allclose(ds.x, np.arange(128) * 2 * np.pi / 128)
    np.testing.assert_allclose(ds.z, np.pi)
    np.testing.assert_array_equal(ds.v.isel(y=1, x=1), np.array(frames) + np.float32(0.25))


def test_the_papers_channel_slice(client):
    ds = jhtdb_slice("channel", range(1, 4001, 8))
    assert dict(ds.sizes) == {"time": 500, "y": 64, "x": 256}
    np.testing.assert_allclose(np.diff(ds.time), 0.052)
    np.testing.assert_array_equal(ds.y, client.y_of_channel[::8])
    np.testing.assert_allclose(ds.x, np.arange(256) * 8 * np.pi / 256)
    np.testing.assert_allclose(ds.z, 1.5 * np.pi)


def test_requests_name_planes_of_the_grid(client):
    jhtdb_slice("channel", [30, 10, 20, 31, 33], z=0.01, every=16, variable="pressure")
    assert [
        (var, ranges.tolist(), strides.tolist()) for var, ranges, strides in client.requests
    ] == [
        ("pressure", [[1, 2048], [1, 512], [3, 3], [10, 20]], [16, 16, 1, 10]),
        ("pressure", [[1, 2048], [1, 512], [3, 3], [30, 31]], [16, 16, 1, 1]),
        ("pressure", [[1, 2048], [1, 512], [3, 3], [33, 33]], [16, 16, 1, 1]),
    ]


def test_the_plane_is_the_nearest(client):
    spacing = 2 * np.pi / 1024
    for z, plane in [(0, 0), (2.4 * spacing, 2), (2.6 * spacing, 3), (1023.6 * spacing, 0)]:
        ds = jhtdb_slice("isotropic1024coarse", [1], z=z)
        assert float(ds.z) == pytest.approx(plane * spacing)


def test_missing_values_are_nan_and_nothing_else(client):
    ds = jhtdb_slice("isotropic1024coarse", [4, 2, 7])
    missing = np.zeros((3, 128, 128), bool)
    missing[range(3), 0, [2, 4, 7]] = True
    for name in "uvw":
        np.testing.assert_array_equal(ds[name].isnull(), missing)


def test_slice_and_file_agree(client, tmp_path):
    asked = jhtdb_slice("isotropic1024coarse", [101], z=0, every=256)
    path = make_cutout(tmp_path / "a.h5", [101], step=256, shape=(1, 4, 4))
    read = open_jhtdb(path).load()
    xr.testing.assert_identical(asked.drop_vars(["u", "v", "w"]), read.drop_vars(["u", "v", "w"]))
    assert all(asked[name].attrs == read[name].attrs for name in "uvw")


def test_the_token_is_in_nothing_that_lasts(client, tmp_path):
    ds = jhtdb_slice("isotropic1024coarse", [1, 2, 3], cache=tmp_path / "cache")
    assert TOKEN not in repr(ds) + str(ds.to_dict(data="list"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert not any(TOKEN in str(path) or TOKEN.encode() in path.read_bytes() for path in files)
    assert client.output_paths and not any((tmp_path / "temporary").iterdir())


def test_the_token_is_in_no_error(client, tmp_path):
    client.fails_after = 0
    with pytest.raises(
        RuntimeError, match="OSError: no answer to <token> <token> <token>"
    ) as caught:
        jhtdb_slice("isotropic1024coarse", [1], token=TOKEN)
    error = caught.value
    assert error.__cause__ is None and error.__context__ is None
    assert not any((tmp_path / "temporary").iterdir())


def test_what_the_cache_holds_is_not_asked_for_again(client, tmp_path, monkeypatch):
    ask = {"dataset": "isotropic1024coarse", "cache": tmp_path / "new" / "cache"}
    client.fails_after = 1
    with pytest.raises(RuntimeError):
        jhtdb_slice(times=[1, 11, 21, 31], **ask)
    client.fails_after = None
    got = jhtdb_slice(times=[1, 11, 21, 31], **ask)
    assert [ranges[3].tolist() for _, ranges, _ in client.requests] == [[1, 11], [21, 31]]

    monkeypatch.delenv("XMRCAE_JHTDB_TOKEN")
    xr.testing.assert_identical(jhtdb_slice(times=[31, 21, 1, 11], **ask), got)
    with pytest.raises(ValueError, match="no token"):
        jhtdb_slice(times=[1], every=4, **ask)
    monkeypatch.setenv("XMRCAE_JHTDB_TOKEN", TOKEN)
    xr.testing.assert_identical(jhtdb_slice("isotropic1024coarse", [1, 11, 21, 31]), got)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dataset": "mhd1024"}, "dataset='mhd1024': choose from isotropic1024coarse, channel"),
        ({"variable": "density"}, "variable='density': choose from velocity, pressure"),
        ({"every": 0}, "every=0"),
        ({"every": 2.0}, "every=2.0"),
        ({"every": 1024}, "every=1024"),
        ({"times": []}, "times must .* there is none"),
        ({"times": [0]}, "from 1 to 5024 .* 0 is none"),
        ({"times": [5025]}, "5025 is none"),
        ({"times": [0.02]}, "0.02 is none"),
        ({"times": [3, 3]}, "one is there twice"),
        ({"z": -0.1}, "z=-0.1"),
        ({"z": 2 * np.pi}, "below 6.28"),
    ],
)
def test_bad_arguments_are_refused_before_any_request(client, wrong, message):
    with pytest.raises(ValueError, match=message):
        jhtdb_slice(**({"dataset": "isotropic1024coarse", "times": [1]} | wrong))
    assert client.output_paths == []


def test_a_missing_token_is_refused_before_any_request(client, monkeypatch):
    monkeypatch.delenv("XMRCAE_JHTDB_TOKEN")
    with pytest.raises(ValueError, match="token=, or set XMRCAE_JHTDB_TOKEN"):
        jhtdb_slice("channel", [1])
    assert client.output_paths == []


def test_an_answer_with_other_times_is_refused(client, monkeypatch):
    asked = client.getCutout

    def late(cube, var, ranges, strides, **kwargs):
        return asked(cube, var, ranges + np.array([[0], [0], [0], [1]]), strides, **kwargs)

    monkeypatch.setattr(sys.modules["givernylocal.turbulence_toolkit"], "getCutout", late)
    with pytest.raises(RuntimeError, match=r"times \[0.002\] where \[0.\] were asked for"):
        jhtdb_slice("isotropic1024coarse", [1])


@pytest.fixture
def service(client, tmp_path, monkeypatch):
    """A server that the stand-in asks as givernylocal does: a GET with the token in the address, and no other try."""
    service = Mirror(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def ask(cube, var, ranges, strides, **kwargs):
        ds = client.getCutout(cube, var, ranges, strides, **kwargs)
        (tmp_path / "cutout").write_text(json.dumps(ds.to_dict()))
        response = requests.get(f"{service.url}/cutout?token={cube.auth_token}", timeout=5)
        response.raise_for_status()
        return xr.Dataset.from_dict(json.loads(response.content)).astype(np.float32)

    monkeypatch.setattr(sys.modules["givernylocal.turbulence_toolkit"], "getCutout", ask)
    yield service
    service.stop()


def test_slices_come_over_http(service, client):
    ask = {"dataset": "isotropic1024coarse", "times": [1, 11], "every": 128}
    got = jhtdb_slice(**ask)
    assert [name for name, _ in service.requests] == ["cutout"]
    sys.modules["givernylocal.turbulence_toolkit"].getCutout = client.getCutout
    xr.testing.assert_allclose(got, jhtdb_slice(**ask))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(503), "503 Server Error"),
        (Fault(sent=None), "ConnectionError: .*Remote end closed connection"),
        (Fault(sent=99), "IncompleteRead|Expecting|Unterminated"),
        (None, "ConnectionError: .*token=<token> .*Connection refused"),
    ],
    ids=["busy", "no answer", "dropped", "no connection"],
)
def test_requests_that_fail_are_told_at_once_and_what_came_before_is_kept(
    service, tmp_path, fault, message
):
    ask = {"dataset": "isotropic1024coarse", "every": 128, "cache": tmp_path / "cache"}
    first = jhtdb_slice(times=[1, 11], **ask)
    service.faults = [fault]
    if fault is None:
        service.stop()
    start = time.perf_counter()
    with pytest.raises(
        RuntimeError, match=f"the client of JHTDB failed with .*({message})"
    ) as caught:
        jhtdb_slice(times=[1, 11, 21], **ask)
    assert time.perf_counter() - start < 0.9
    assert TOKEN not in urllib.parse.unquote("".join(traceback.format_exception(caught.value)))
    xr.testing.assert_identical(jhtdb_slice(times=[1, 11], **ask), first)


def test_a_missing_client_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "givernylocal", None)
    with pytest.raises(ImportError, match=r"xmrcae\[jhtdb\]"):
        jhtdb_slice("channel", [1], token=TOKEN)
