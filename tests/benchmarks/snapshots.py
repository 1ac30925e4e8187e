"""Time and memory against the number of snapshots."""

import time
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from common import ERSST, THREADS, departure_rms, open_archive, timed_fit

BLOCK, NOISE, SEED = 128, 0.005, 0

TITLE = "Number of snapshots"
TEXT = f"""\
An archive of {BLOCK} snapshots, repeated, with independent noise of {NOISE} of its rms about the
time mean in every snapshot. The archive is lazy, made in chunks of {BLOCK} snapshots while it is
read, so it takes no memory itself, and making it is part of the passes. Every fit has 3 levels and
at most 10 epochs a stage, and may use 2 GiB (`memory=`).
`one read` only adds all values up. The goal of each fit is the time of the first one and of a read.
Peak memory is that of the whole process with Python and all libraries, which take what the column
before it says."""
COLUMNS = {
    "archive": "archive", "snapshots": "snapshots", "device": "device", "threads": "threads",
    "gib": "archive, GiB", "passes_s": "passes over the data, s", "training_s": "training, s",
    "fit_s": "fit, s", "read_s": "one read, s", "goal_s": "goal, s", "epochs": "epochs",
    "rank": "samples trained on", "start_gib": "memory before the fit, GiB", "peak_gib": "peak memory, GiB",
}  # fmt: skip

SIZES, QUICK_SIZES = (128, 512, 2048, 4096, 16384), (80, 160)
OPTIONS = {"levels": 3, "max_epochs": 10, "min_decrease": 0.0, "memory": 2 * 2**30}


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """One a number of snapshots."""
    name = "ERSST" if ERSST.is_file() and not quick else "drifting_mode"
    sizes = QUICK_SIZES if quick else SIZES
    return [
        {"archive": name, "snapshots": n, "device": "cpu", "threads": THREADS[-1]} for n in sizes
    ]


def measure(
    *, archive: str, snapshots: int, device: str, threads: int, quick: bool
) -> dict[str, Any]:
    """One fit to an archive of that many snapshots."""
    field = tiled(archive, snapshots, quick=quick)
    fit = timed_fit(field, OPTIONS | {"device": device})
    start = time.perf_counter()
    field.sum().compute()
    read_s = time.perf_counter() - start
    return fit.figures(field) | {"fit_s": fit.seconds, "read_s": read_s}


def conclude(rows: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Set the goal of each fit by the first."""
    first, *others = rows
    goals = [row | {"goal_s": first["fit_s"] + row["read_s"]} for row in others]
    return [first, *goals]


def tiled(name: str, n_snapshots: int, *, quick: bool) -> xr.DataArray:
    """The first 128 snapshots of an archive over and over with noise, lazy."""
    field = open_archive(name, quick=quick)[:BLOCK].load()
    n_block, *shape = field.shape
    position = da.arange(n_snapshots, chunks=n_block)
    values = position[:, None, None].map_blocks(
        _noisy, base=field.values, noise=NOISE * departure_rms(field), dtype=np.float32,
        chunks=(position.chunks[0], *((n,) for n in shape)),
    )  # fmt: skip
    y, x = field.dims[1:]
    return xr.DataArray(values, dims=field.dims, coords={y: field[y], x: field[x]}, name=field.name)


def _noisy(position: np.ndarray, *, base: np.ndarray, noise: float) -> np.ndarray:
    position = position.ravel()
    rng = np.random.default_rng([SEED, int(position[0])])
    values = rng.standard_normal((len(position), *base.shape[1:]), dtype=np.float32)
    values *= np.float32(noise)
    values += base[position % len(base)]
    return values
