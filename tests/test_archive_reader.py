"""Archives open as the data that went into them, at any level, and read no more than is asked for."""

import json
import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr
from helpers import make_field, make_two_variables

import xmrcae
from xmrcae.archive.backend import MrcaeBackend
from xmrcae.archive.prepare import Request
from xmrcae.archive.reader import sliced
from xmrcae.archive.store import ArchiveStore
from xmrcae.archive.waves import Predictor
from xmrcae.archive.writer import create_archive

BOUND = 0.1
ROWS = 5
LEVELS = 3


def make_archive(obj, url, *, names=None, sample=None, **request):
    """Archive an object by a small model of some of its variables; return the model."""
    options = {"levels": LEVELS, "channels": [[1]], "max_epochs": 2, "progress": False}
    model = xmrcae.MrCAE(sample=sample, **options).fit(obj if names is None else obj[names])
    request = Request(rows_per_block=ROWS, **{"max_error": BOUND} | request)
    create_archive(model.fitted, obj, request, url=url, storage_options=None, progress=False)
    return model


def open_data(url, **options):
    """Open an archive with xarray as a Dataset."""
    return xr.open_dataset(url, engine=MrcaeBackend, **options)


def make_members():
    """A field of two members, whose dimension comes first."""
    field = make_field(2 * ROWS + 1)
    members = xr.concat([field, field + 1], "member", coords="minimal")
    return members.assign_coords(member=["a", "b"]).astype("float32")


def make_dataset():
    """Two variables in different orders, and others that are not fitted."""
    two = make_two_variables(n_times=2 * ROWS + 2)
    two["ssh"] = two["ssh"].transpose("lon", "time", "lat").astype("float64")
    return two.assign(
        depth=(("lat", "lon"), np.arange(630).reshape(21, 30)),
        count=("time", np.arange(2 * ROWS + 2, dtype="int8")),
        lat_bnds=(("lat", "side"), np.zeros((21, 2))),
    ).assign_attrs(title="two")


KINDS = {
    "ascending": lambda: make_field(2 * ROWS + 3),
    "descending": lambda: make_field(2 * ROWS).isel(lat=slice(None, None, -1)),
    "turned": lambda: make_field(ROWS + 1).transpose("lon", "time", "lat"),
    "no name": lambda: make_field(ROWS + 1).rename(None),
    "members": make_members,
    "dataset": make_dataset,
}


@pytest.fixture(scope="module", params=KINDS)
def archived(request, tmp_path_factory):
    """What was archived, where, and the model."""
    obj, url = KINDS[request.param](), tmp_path_factory.mktemp("archive") / "a.mrcae.zarr"
    sample = ["time", "member"] if request.param == "members" else None
    names = ["sst", "ssh"] if request.param == "dataset" else None
    return obj, str(url), make_archive(obj, url, names=names, sample=sample)


@pytest.fixture(scope="module")
def simple(tmp_path_factory):
    """A field, where its archive is, and the model."""
    obj, url = make_field(2 * ROWS + 3), tmp_path_factory.mktemp("archive") / "simple"
    return obj, str(url), make_archive(obj, url)


@pytest.fixture
def read_paths(monkeypatch):
    """What is read of a store from now on: paths, with blocks where there are rows."""
    seen = []
    for name in ("rows", "static"):
        method = getattr(ArchiveStore, name)

        def recorded(self, path, *where, method=method):
            seen.append((path, *where[:1]))
            return method(self, path, *where)

        monkeypatch.setattr(ArchiveStore, name, recorded)
    return seen


def fitted_fields(obj):
    """The fields that were archived, by name; what a DataArray is called in a file."""
    if isinstance(obj, xr.DataArray):
        return obj.to_dataset(name=obj.name or "__xarray_dataarray_variable__").data_vars
    return obj[["sst", "ssh"]].data_vars


# What comes back


def test_all_but_values_is_as_it_was(archived):
    obj, url, _ = archived
    opened = xr.open_dataset if isinstance(obj, xr.Dataset) else xr.open_dataarray
    found = opened(url, engine=MrcaeBackend).load()
    if isinstance(obj, xr.Dataset):
        assert list(found.variables) == list(obj.variables)
        found = found.assign({name: obj[name] for name in ("sst", "ssh")})
    else:
        assert (found.dtype, found.dims) == (obj.dtype, obj.dims)
        found = found.copy(data=obj.values)
    xr.testing.assert_identical(found, obj)


def test_values_are_within_the_bound_and_gaps_where_they_were(archived):
    obj, url, _ = archived
    found = open_data(url)
    for name, given in fitted_fields(obj).items():
        error = abs(found[name].astype("float64") - given.transpose(*found[name].dims))
        assert float(error.max()) <= BOUND
        assert error.isnull().identical(given.isnull().transpose(*error.dims).rename(error.name))


def test_a_level_has_the_coordinates_and_orientation_of_decoded_codes(archived):
    obj, url, model = archived
    codes = model.encode(obj)
    for level in range(LEVELS - 1):
        found, expected = open_data(url, level=level), model.decode(codes, level=level)
        if isinstance(expected, xr.DataArray):
            expected = expected.to_dataset(name=next(iter(fitted_fields(obj))))
        for name in expected.data_vars:
            assert found[name].dims == found_dims(obj, name)
            xr.testing.assert_equal(
                found[name].coords.to_dataset(), expected[name].coords.to_dataset()
            )


def found_dims(obj, name):
    """The dimensions of a variable as they were given."""
    return obj.dims if isinstance(obj, xr.DataArray) else obj[name].dims


def test_variables_on_the_finest_grid_alone_are_left_out_below(tmp_path):
    obj = make_dataset()
    make_archive(obj, tmp_path / "a", names=["sst", "ssh"])
    assert set(open_data(tmp_path / "a", level=1).data_vars) == {"sst", "ssh", "count"}


def test_measured_errors_are_those_against_the_restricted_data(simple):
    obj, url, _ = simple
    pyramid = obj.mrcae.pyramid(levels=LEVELS)
    measured = xmrcae.open_archive(url).measured
    for level in range(LEVELS):
        given = pyramid[f"level_{level}/sst"]
        error = open_data(url, level=level)["sst"].astype("float64") - given
        rmse = float((error**2).mean() ** 0.5)
        assert float(measured["rmse"].sel(level=level, variable="sst")) == pytest.approx(rmse, 1e-5)
    assert float(measured["worst"].isel(level=-1).max()) == float(abs(error).max())


def test_no_level_leaves_the_range_of_the_data_and_errors_are_measured_so(tmp_path):
    field = make_field(2 * ROWS).clip(14.8, 15.2)
    field[:ROWS] = field[:ROWS].clip(14.9)
    url = str(tmp_path / "a.mrcae.zarr")
    make_archive(field, url)
    measured = xmrcae.open_archive(url).measured
    tree = field.mrcae.pyramid(levels=LEVELS)
    for level in range(LEVELS):
        found = open_data(url, level=level)["sst"].load()
        assert found.min() >= np.float32(14.8) and found.max() <= np.float32(15.2)
        assert found[:ROWS].min() >= np.float32(14.9)
        given = tree[f"level_{level}/sst"]
        rmse = float(((found.astype(float) - given) ** 2).mean() ** 0.5)
        assert float(measured["rmse"][level, 0]) == pytest.approx(rmse, rel=1e-5)


def test_a_level_that_there_is_not_is_refused_as_decode_does(simple):
    obj, url, model = simple
    with pytest.raises(ValueError, match="level=7: a whole number") as expected:
        model.decode(model.encode(obj), level=7)
    with pytest.raises(ValueError, match=re.escape(str(expected.value))):
        open_data(url, level=7)


def test_every_level_is_a_node(archived):
    _, url, _ = archived
    tree = xr.open_datatree(url, engine=MrcaeBackend)
    assert list(tree.children) == [f"level_{k}" for k in range(LEVELS)]
    for level in range(LEVELS):
        xr.testing.assert_identical(
            tree[f"level_{level}"].to_dataset(), open_data(url, level=level)
        )


def test_variables_can_be_left_out(archived):
    _, url, _ = archived
    name = next(iter(open_data(url).data_vars))
    assert name not in open_data(url, drop_variables=name)
    assert "lat" not in open_data(url, drop_variables=["lat", "no such"])


# What is read


def random_indexers(sizes, seed):
    """Positions, reversed slices and lists along some dimensions."""
    rng = np.random.default_rng(seed)
    kinds = [
        lambda n: int(rng.integers(-n, n)),
        lambda n: rng.permutation(n)[: n // 2],
        lambda n: slice(None, None, -2),
        lambda n: slice(0, 0),
    ]
    return {dim: kinds[rng.choice(4, p=[0.3, 0.4, 0.2, 0.1])](n) for dim, n in sizes.items()}


@pytest.mark.parametrize("level", [0, LEVELS - 1])
def test_any_indexer_takes_what_it_takes_of_loaded_data(archived, level):
    _, url, _ = archived
    lazy, loaded = open_data(url, level=level), open_data(url, level=level).load()
    for seed in range(20):
        indexers = random_indexers(lazy.sizes, seed)
        xr.testing.assert_identical(lazy.isel(indexers).load(), loaded.isel(indexers))
    points = {"time": ("point", [3, 0, 4]), "lat": ("point", [1, 2, 1])}
    points = {dim: xr.Variable(*each) for dim, each in points.items()}
    xr.testing.assert_identical(lazy.isel(points).load(), loaded.isel(points))


def test_opening_decodes_nothing(archived, read_paths):
    _, url, _ = archived
    open_data(url)
    paths = {path for path, *_ in read_paths}
    assert paths
    assert all(path.split("/")[0] in ("labels", "rows") for path in paths), paths


def test_a_coarse_level_reads_its_own_codes_and_maps(simple, read_paths):
    open_data(simple[1], level=0).load()
    own = {path for path, *_ in read_paths if path.startswith("level_")}
    assert own == {"level_0/codes", "level_0/base", "level_0/lat", "level_0/lon"}
    assert not {"labels/lat", "labels/lon", "masks"} & {path for path, *_ in read_paths}


def test_a_time_reads_its_block_alone(simple, read_paths):
    data = open_data(simple[1])
    read_paths.clear()
    data["sst"].isel(time=ROWS + 1).load()
    assert {block for path, *block in read_paths for block in block} == {1}


def test_a_block_is_decoded_up_to_what_is_asked_for_then_as_a_whole(simple, monkeypatch):
    lengths, undo = [], Predictor.undo

    def recorded(self, differences):
        lengths.append(len(differences))
        return undo(self, differences)

    data = open_data(simple[1])["sst"]
    data.isel(time=0).load()  # base maps are predicted too
    monkeypatch.setattr(Predictor, "undo", recorded)
    for time in (ROWS + 1, ROWS, ROWS + 3, ROWS + 4, ROWS + 2):
        data.isel(time=time, lat=0).load()
    assert lengths == [2, ROWS]


def test_threads_may_share_what_is_opened(archived):
    _, url, _ = archived
    data, loaded = open_data(url), open_data(url).load()
    times = np.random.default_rng(0).integers(0, data.sizes["time"], 40)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda time: data.isel(time=time).load(), times))
    for time, each in zip(times, found, strict=True):
        xr.testing.assert_identical(each, loaded.isel(time=time))


def test_chunks_are_the_blocks(simple):
    data = open_data(simple[1], chunks={})["sst"]
    assert data.chunks == ((ROWS, ROWS, 3), (21,), (30,))
    again = pickle.loads(pickle.dumps(data))
    xr.testing.assert_identical(again.load(), open_data(simple[1])["sst"].load())


# How it is found


@pytest.mark.parametrize(
    ("name", "known"),
    [("s3://bucket/a.mrcae.zarr/", True), ("a.mrcae.zarr", True), ("a.zarr", False), (b"", False)],
)
def test_archives_are_known_by_their_names(name, known):
    assert MrcaeBackend().guess_can_open(name) is known


def test_archives_on_disk_are_known_by_what_they_hold(simple, tmp_path):
    assert MrcaeBackend().guess_can_open(simple[1])
    (tmp_path / "zarr.json").write_text(json.dumps({"attributes": {}}))
    assert not MrcaeBackend().guess_can_open(tmp_path)
    (tmp_path / "zarr.json").write_text("{")
    assert not MrcaeBackend().guess_can_open(tmp_path)


READ = """
import sys
hidden = ["torch", "dask", "cartopy", "cf_xarray", "matplotlib"]
sys.modules.update(dict.fromkeys(hidden))
import xarray as xr
from xmrcae.archive.backend import MrcaeBackend
assert "zarr" not in sys.modules
data = xr.open_dataset(sys.argv[1], engine=MrcaeBackend)
tree = xr.open_datatree(sys.argv[1], engine=MrcaeBackend)
coarse = xr.open_dataset(sys.argv[1], engine=MrcaeBackend, level=0)
import xmrcae
archive = xmrcae.open_archive(sys.argv[1])
archive.verify(data.load()), repr(archive), archive.measured
assert not [name for name in sys.modules if name.startswith("xmrcae.grid")]
print(float(data.sst.sum()), float(coarse.sst.sum()))
"""


def test_reading_needs_neither_torch_nor_dask(simple):
    run = subprocess.run(
        [sys.executable, "-c", READ, simple[1]], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    expected = [float(open_data(simple[1], level=level).sst.sum()) for level in (None, 0)]
    assert list(map(float, run.stdout.split())) == expected


@pytest.mark.parametrize(
    "at", [[], [3], [2, 3, 4], [4, 3, 2, 1, 0], [0, 2, 4], [1, 1], [0, 1, 3], [3, 1], [5, 2, 1]]
)
def test_positions_as_slices_take_the_same(at):
    values = np.arange(6)
    np.testing.assert_array_equal(values[sliced(np.array(at, int))], values[at] if at else [])
