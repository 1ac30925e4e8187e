"""Seconds, and bytes of files, to write an archive and to read parts of it, beside other files."""

import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from archive_parts import QUICK_SNAPSHOTS, fitted
from common import THREADS, bytes_read, harmonically_filled, ocean, oceans
from throughput import least_seconds

BOUND = 0.1
ARCHIVE, NETCDF = "archive", "netCDF, deflated, lossless"

TITLE = "Access to an archive"
TEXT = f"""\
ERSST and the Mediterranean at a bound of {BOUND}, each kept in three ways: as an archive; as
float32 in a deflated netCDF file, a chunk a snapshot, read by h5netcdf (netCDF4 reads a file
whole); and as SZ3 in Zarr, the series one chunk. The write of an archive is without the fit. Then
everything is read, one time, the series of one pixel, and a first coarse picture of all times:
level 0 of the archive, 8 pixels averaged each way of the others. Files are opened anew for each,
and lie in the system's cache; seconds are the least of 5 calls. KiB are what is read of files
(Linux counts them). `MB/s` counts the decoded values (goal of the archive: 100 on two cores); `to
netCDF` compares it with the row of netCDF. What writing takes beside the encode that it contains
is in "What an archive consists of"."""
COLUMNS = {
    "data": "data", "kept": "kept as", "device": "device", "threads": "threads",
    "size": "KiB of files", "write_s": "write, s", "all_s": "read all, s", "mb_s": "MB/s",
    "ratio": "to netCDF", "time_s": "one time, s", "time_kib": "KiB",
    "series_s": "one series, s", "series_kib": "KiB ", "coarse_s": "coarse, s",
    "coarse_kib": "KiB  ",
}  # fmt: skip


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """What is there of both files, in each way."""
    ways = [ARCHIVE, NETCDF, *(["SZ3 in Zarr"] if find_spec("numcodecs_wasm_sz3") else [])]
    return [
        {"data": data, "kept": way, "device": "cpu", "threads": THREADS[-1]}
        for data in oceans()[: 1 if quick else None]
        for way in ways
    ]


def measure(*, data: str, kept: str, device: str, threads: int, quick: bool) -> dict[str, Any]:
    """Write it once, and read it."""
    field = ocean(data)[: QUICK_SNAPSHOTS if quick else None].rename("field").astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept"
        write = _writer(field, kept, path, quick=quick)
        start = time.perf_counter()
        write()
        write_s = time.perf_counter() - start
        result = {"write_s": write_s, "size": _size(path) / 1024}
        y, x = np.argwhere(field.notnull().all("time").values)[1000]
        for name, function in _reads(field, kept, path, int(y), int(x)).items():
            read = bytes_read(function)
            result |= {f"{name}_s": least_seconds(function)}
            result |= {f"{name}_kib": None if read is None else read / 1024}
    return result | {"mb_s": field.nbytes / result["all_s"] / 1e6}


def _writer(field: xr.DataArray, kept: str, path: Path, *, quick: bool) -> Callable[[], Any]:
    """What writes the field in one of the ways; what that takes is ready."""
    if kept == ARCHIVE:
        model = fitted(field, quick=quick)
        return lambda: model.to_archive(field, path, max_error=BOUND, progress=False)
    if kept == NETCDF:
        chunks = (1, *field.shape[1:])
        encoding = {"zlib": True, "complevel": 4, "shuffle": True, "chunksizes": chunks}
        return lambda: field.to_netcdf(path, encoding={"field": encoding})
    from numcodecs_wasm_sz3 import Sz3

    filled = field.copy(data=harmonically_filled(field)).to_dataset()
    filters = {"filters": [Sz3(eb_mode="abs", eb_abs=BOUND)], "compressors": None}
    encoding = filters | {"chunks": field.shape}
    return lambda: filled.to_zarr(path, zarr_format=2, encoding={"field": encoding})


def _reads(
    field: xr.DataArray, kept: str, path: Path, y: int, x: int
) -> dict[str, Callable[[], Any]]:
    """What is read: everything, one time, one series, a coarse picture."""
    engine = {ARCHIVE: "mrcae", NETCDF: "h5netcdf"}.get(kept, "zarr")
    middle = len(field) // 2

    def read(select: Callable[[xr.DataArray], xr.DataArray], **options: Any) -> Callable[[], Any]:
        def call() -> None:
            with xr.open_dataset(path, engine=engine, **options) as dataset:
                select(dataset["field"]).load()

        return call

    def coarsened(field: xr.DataArray) -> xr.DataArray:
        return field.coarsen({field.dims[1]: 8, field.dims[2]: 8}, boundary="trim").mean()

    coarse = read(lambda f: f, level=0) if kept == ARCHIVE else read(coarsened)
    return {
        "all": read(lambda f: f),
        "time": read(lambda f: f[middle]),
        "series": read(lambda f: f[:, y, x]),
        "coarse": coarse,
    }


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def conclude(rows: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare how fast everything is read with netCDF."""
    netcdf = {row["data"]: row.get("mb_s") for row in rows if row["kept"] == NETCDF}
    return [
        row
        | (
            {"ratio": row["mb_s"] / own}
            if (own := netcdf.get(row["data"])) and row.get("mb_s")
            else {}
        )
        for row in rows
    ]
