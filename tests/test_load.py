"""Load: many files, snapshots, tasks, fits and threads. Fits of large grids are in test_compression."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import netCDF4
import numpy as np
import pytest
import xarray as xr
from helpers import QUICK, counted, make_field

import xmrcae

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")


def run_alone(program: str, **arguments: Any) -> dict[str, Any]:
    """Run a program in a process of its own; its last line is JSON. The figures are printed."""
    call = [sys.executable, "-W", "ignore", "-c", TOOLS + program, json.dumps(arguments)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return json.loads(done.stdout.splitlines()[-1])


#: What the programs share: their arguments, and what a process holds at a time.
TOOLS = """
import glob, json, os, resource, sys, tempfile, threading, time
import numpy as np, xarray as xr, xmrcae
from xmrcae.cli import main

arguments = json.loads(sys.argv[1])

def mib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

def peak():
    # What getrusage tells begins with the peak of the process that started this one.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024

def n_open():
    return len(os.listdir("/proc/self/fd"))

def tell(what):
    print(f"{what}: {time.process_time():.0f} s of CPU, {mib():.0f} MiB, at most {peak():.0f}")
"""

# Many files


def write_days(folder: Path, n: int) -> xr.DataArray:
    """Write one file per day, of 6 x 9 cells; return the days together."""
    field = make_field(n_times=n, shape=(6, 9), land=False, freq="D")
    for i, values in enumerate(field.values):
        with netCDF4.Dataset(folder / f"{i:05d}.nc", "w") as file:
            for dim in field.dims:
                file.createDimension(dim, None if dim == "time" else field.sizes[dim])
            time = file.createVariable("time", "i4", ("time",))
            time.units, time[:] = "days since 1990-01-01", [i]
            for dim in ("lat", "lon"):
                file.createVariable(dim, "f8", (dim,))[:] = field[dim].values
            file.createVariable("sst", "f4", field.dims)[:] = values[None]
    return field


MANY_FILES = """
resource.setrlimit(resource.RLIMIT_NOFILE, (arguments["limit"],) * 2)
tell("imported")
ds = xr.open_mfdataset(sorted(glob.glob("*.nc")), engine="netcdf4")
tell("opened")
model = ds.sst.mrcae.fit(max_epochs=3, progress=False)
tell("fitted")
codes = model.encode(ds.sst).load()
tell("encoded")
model.to_archive(ds.sst, "python.mrcae.zarr", max_error=0.1, progress=False)
tell("archived")
same = codes.identical(model.encode(ds.sst.load()))
ds.close()
status = [main(["fit", "*.nc", "model.zarr", "--options", "max_epochs=3", "--quiet"])]
tell("fitted from the command line")
call = ["archive", "*.nc", "shell.mrcae.zarr", "--model", "model.zarr", "--max-error", "0.1"]
status.append(main([*call, "--quiet"]))
tell("archived from the command line")
print(json.dumps({"same": same, "status": status, "peak": peak()}))
"""


@linux
@pytest.mark.parametrize(
    ("n", "limit"), [(180, 160), pytest.param(10_000, 256, marks=pytest.mark.soak)]
)
def test_many_files_are_fitted_and_archived_with_few_of_them_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, limit: int
) -> None:
    field = write_days(tmp_path, n)
    monkeypatch.chdir(tmp_path)
    found = run_alone(MANY_FILES, limit=limit)  # xarray itself keeps 128 files open
    assert found["same"] and found["status"] == [0, 0]
    assert found["peak"] < 1024 + 0.1 * n  # MiB
    for name in ("python", "shell"):
        archived = xmrcae.open_archive(f"{name}.mrcae.zarr").to_dataset()["sst"]
        assert float(abs(archived.values - field.values).max()) <= 0.1


# Many snapshots


def test_a_pass_over_many_snapshots_reads_each_once(tmp_path: Path) -> None:
    field = make_field(2048, (8, 12), land=False).assign_coords(time=np.arange(2048))
    model = field[:64].mrcae.fit(levels=2, **QUICK)

    def most_reads(use: Callable[[xr.DataArray], Any], chunks: int = 64) -> int:
        lazy, reads = counted(field, (chunks, 8, 12))
        use(lazy)
        assert len(reads) == 2048 // chunks
        return max(reads.values())

    def archived(lazy: xr.DataArray) -> None:
        options = {"max_error": 2.0, "rows_per_block": 256, "progress": False}
        model.to_archive(lazy, tmp_path / "a.mrcae.zarr", **options)

    def appended(lazy: xr.DataArray) -> None:
        later = lazy.assign_coords(time=field["time"] + 2048)
        xmrcae.open_archive(tmp_path / "a.mrcae.zarr").append(later, progress=False)

    assert most_reads(lambda lazy: dask.compute(*encodings(model.encode(lazy)))) == 1
    assert most_reads(lambda lazy: model.reconstruct(lazy).load()) == 1
    assert most_reads(model.score) == 1
    assert most_reads(archived) <= 3  # where there are values; the sample; the blocks
    assert most_reads(appended) == 1


SNAPSHOTS = """
import dask, dask.array as da

shape, bound = (60, 90), arguments["bound"]
y, x = np.linspace(0, 3, shape[0])[:, None], np.linspace(0, 4, shape[1])
modes = np.stack([np.cos(k * y / 2 + k) * np.sin((k % 5 + 1) * x) for k in range(12)])

def made(block_info=None):
    (first, last), *_ = block_info[None]["array-location"]
    random = np.random.default_rng(first)
    amplitudes = random.standard_normal((last - first, 12)) / np.arange(1, 13)
    noise = random.standard_normal((last - first, *shape), np.float32)
    return (15 + np.tensordot(amplitudes, modes, 1) + 0.005 * noise).astype(np.float32)

def field(n, start=0):
    chunks = da.core.normalize_chunks((128, -1, -1), (n, *shape))
    values = da.map_blocks(made, chunks=chunks, dtype=np.float32)
    coords = {"time": np.arange(start, start + n)}
    return xr.DataArray(values, dims=("time", "lat", "lon"), coords=coords, name="sst")

def work(n, folder):
    data = field(n)
    options = {"levels": 3, "channels": [[1]], "max_epochs": 5, "progress": False}
    model = data.mrcae.fit(memory=bound * 2**20, **options)
    tell(f"{n} fitted")
    of_fit = peak()
    codes = [node["encoding"] for node in model.encode(data).subtree if "encoding" in node]
    dask.compute(*(each.mean() for each in codes))
    tell(f"{n} encoded")
    archive = model.to_archive(data, f"{folder}/{n}.mrcae.zarr", max_error=0.02, progress=False)
    tell(f"{n} archived")
    archive.append(field(n // 16, n), progress=False)
    tell(f"{n} appended")
    return data.nbytes / 2**20, of_fit

dask.config.set(scheduler="threads", num_workers=2)
with tempfile.TemporaryDirectory() as folder:
    work(128, folder)
    before = peak()
    data, of_fit = work(arguments["n"], folder)
print(json.dumps({"data": data, "fit": of_fit - before, "all": peak() - before}))
"""


@linux
@pytest.mark.soak
def test_very_many_snapshots_take_bounded_memory() -> None:
    found = run_alone(SNAPSHOTS, n=16_384, bound=256)
    assert found["data"] > 256
    assert found["fit"] < 256
    assert found["all"] < 512


# Many tasks


def encodings(codes: xr.DataTree) -> list[xr.DataArray]:
    """The codes of each level."""
    return [node["encoding"] for node in codes.children.values()]


def n_tasks(result: Any) -> int:
    """Number of tasks that dask would run for all of a result."""
    nodes = [each.ds for each in result.subtree] if isinstance(result, xr.DataTree) else [result]
    graphs = [dict(dask.optimize(node)[0].__dask_graph__()) for node in nodes if node.chunks]
    return len(set(itertools.chain(*graphs)))


@pytest.fixture(scope="module", params=[1, 2, 3])
def modelled(request: pytest.FixtureRequest) -> tuple[xr.Dataset, xmrcae.MrCAE]:
    """Some variables, and a model of as many levels as there are by default."""
    fields = {f"v{i}": make_field(64, (40, 50), seed=i) for i in range(request.param)}
    data = xr.Dataset(fields)
    return data, data.mrcae.fit(list(fields), levels=4, **QUICK)


@pytest.mark.parametrize(
    "chunks", [{"time": 3}, {"time": 24}, {"time": -1}, {"time": 8, "lat": 13, "lon": 25}]
)
def test_graphs_have_few_tasks_per_chunk(
    modelled: tuple[xr.Dataset, xmrcae.MrCAE], chunks: dict[str, int]
) -> None:
    data, model = modelled
    lazy = data.chunk(chunks)
    most = 20 * sum(each.data.npartitions for each in lazy.data_vars.values())
    codes = model.encode(lazy)
    assert 0 < n_tasks(codes) <= most
    assert 0 < n_tasks(model.decode(codes)) <= most
    assert 0 < n_tasks(model.reconstruct(lazy, keep_gaps=True)) <= most
    assert 0 < n_tasks(lazy.mrcae.pyramid(list(data), levels=4)) <= most


# Many times

REPEATED = """
import gc
import torch, zarr
from helpers import make_field

torch.set_num_threads(1)
zarr.config.set({"threading.max_workers": 1})  # else threads come one by one, up to a few
field, folder = make_field(12, (8, 12)), tempfile.TemporaryDirectory()
options = {"levels": 1, "channels": [[1]], "max_epochs": 2, "progress": False}
url = folder.name + "/a.mrcae.zarr"
field.mrcae.to_archive(url, max_error=0.1, rows_per_block=4, **options)

def fit():
    field.mrcae.fit(**options)

def open_it():
    with xr.open_dataset(url, engine="mrcae") as ds:
        ds["sst"].isel(time=0).load()
    xmrcae.open_archive(url).to_dataset(level=0)["sst"].isel(time=0).load()

def held():
    gc.collect()
    return mib(), n_open(), len(os.listdir("/proc/self/task"))

found = {}
for call in (fit, open_it):
    for _ in range(20):
        call()
    before = held()
    for _ in range(arguments["n"]):
        call()
    found[call.__name__] = [after - was for after, was in zip(held(), before)]
    tell(call.__name__)
print(json.dumps(found))
"""


@linux
@pytest.mark.parametrize("n", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_fits_and_opened_archives_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{Path(xmrcae.__file__).parents[1]}:{Path(__file__).parent}")
    for memory, files, threads in run_alone(REPEATED, n=n).values():
        assert memory < 10  # MiB
        assert (files, threads) == (0, 0)


# Many threads


def test_threads_encode_and_decode_to_the_same_bits(model: xmrcae.MrCAE) -> None:
    fields = [make_field(40, seed=seed) for seed in range(8)]
    codes = [model.encode(each) for each in fields]
    again = [model.decode(each) for each in codes]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(4):
            found = list(pool.map(model.encode, fields))
            assert all(map(xr.DataTree.identical, found, codes))
            assert all(map(xr.DataArray.identical, pool.map(model.decode, found), again))
