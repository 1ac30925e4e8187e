"""Time and memory of archiving a long series on a large grid. As a script: fit a model to it."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr
from archive_parts import fitted
from common import THREADS, peak_memory
from pixels import CONTINENTS, globe

MONTHS, BOUND, RMS, SEED = 505, 0.1, 5.0, 0
MEMORY = 2 * 2**30  # of the fit, beyond its start
GOAL = 2  # GiB, of the process that writes

TITLE = "Memory of archiving"
TEXT = f"""\
{MONTHS} months on a global grid with continents, float32: waves of all lengths whose power falls
with the square of the wave number, {RMS:g} degC in all, each of which turns at its own pace. The
months are made when they are read, 8 in a chunk, so that the field takes no memory itself, and
making it is part of the time. Another process fits the model (`memory=` 2 GiB); this one opens it
and writes the archive at a bound of {BOUND}. Peak memory is that of the whole process with Python
and all libraries, which take what `memory before` says. The goal is a peak under {GOAL} GiB."""
COLUMNS = {
    "degrees": "spacing, degrees", "grid": "grid", "months": "months", "device": "device",
    "threads": "threads", "gib": "data, GiB", "fit_s": "fit, s", "write_s": "write, s",
    "mib": "archive, MiB", "worst": "largest error, bounds", "start_gib": "memory before, GiB",
    "fit_gib": "peak of the fit, GiB", "peak_gib": "peak memory, GiB",
    "goal_gib": "goal, GiB",
}  # fmt: skip


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """One long series; a small one if quick."""
    degrees, months = (4.0, 24) if quick else (0.25, MONTHS)
    return [{"degrees": degrees, "months": months, "device": "cpu", "threads": THREADS[-1]}]


def measure(
    *, degrees: float, months: int, device: str, threads: int, quick: bool
) -> dict[str, Any]:
    """One fit, in a process of its own, and one archive."""
    import xmrcae
    from xmrcae.archive.store import ArchiveStore

    with tempfile.TemporaryDirectory() as folder:
        path, url = Path(folder) / "model.nc", Path(folder) / "archive.zarr"
        command = [sys.executable, __file__, path, str(degrees), str(months), str(int(quick))]
        fit = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        field, model, start_gib = waves(degrees, months), xmrcae.open_model(path), peak_memory()
        start = time.perf_counter()
        archive = model.to_archive(field, url, max_error=BOUND, progress=False)
        write_s, sizes = time.perf_counter() - start, ArchiveStore.open(url).n_bytes()
    return json.loads(fit.stdout.splitlines()[-1]) | {
        "grid": " x ".join(map(str, field.shape[1:])),
        "gib": field.nbytes / 2**30,
        "write_s": write_s,
        "mib": (sizes["model"] + sizes["time"]) / 2**20,
        "worst": float(archive.measured["worst"][-1, 0]) / BOUND,
        "start_gib": start_gib,
        "peak_gib": peak_memory(),
        "goal_gib": GOAL,
    }


def fit_and_save(path: str, degrees: float, months: int, *, quick: bool) -> dict[str, Any]:
    """Fit a model to the field and save it."""
    start = time.perf_counter()
    fitted(waves(degrees, months), quick=quick, memory=MEMORY).save(path)
    return {"fit_s": time.perf_counter() - start, "fit_gib": peak_memory()}


def waves(degrees: float, months: int) -> xr.DataArray:
    """The made-up field, lazy."""
    like = globe(degrees, months)
    shape, n = like.shape[1:], 8
    rng = np.random.default_rng(SEED)
    number = np.hypot(
        *np.meshgrid(
            np.fft.fftfreq(shape[0], 1 / shape[0]), np.arange(shape[1] // 2 + 1), indexing="ij"
        )
    )
    number[0, 0] = np.inf
    # Power falls with the square of the wave number; there are as many waves of one as it says.
    amplitude = number**-1.5 * np.exp(2j * np.pi * rng.random(number.shape))
    amplitude *= RMS / np.fft.irfft2(amplitude, shape).std()
    pace = rng.normal(0, 0.02, number.shape) * np.minimum(number, 100)
    lat, lon = like["lat"].values[:, None], like["lon"].values
    land = np.any(
        [((lat - y) / b) ** 2 + ((lon - x) / a) ** 2 < 1 for y, x, b, a in CONTINENTS], axis=0
    )

    def made(t: np.ndarray) -> np.ndarray:
        values = np.empty((len(t), *shape), np.float32)
        for value, month in zip(values, t.ravel(), strict=True):
            value[:] = 15 + np.fft.irfft2(amplitude * np.exp(1j * pace * month), shape)
            value[land] = np.nan
        return values

    t = da.arange(months, chunks=n)[:, None, None]
    values = t.map_blocks(
        made, dtype=np.float32, chunks=(t.chunks[0], *((size,) for size in shape))
    )
    time = pd.date_range("1980-01", periods=months, freq="MS")
    return xr.DataArray(values, {**like.coords, "time": time}, like.dims, name="field")


if __name__ == "__main__":
    path, degrees, months, quick = sys.argv[1:]
    print(json.dumps(fit_and_save(path, float(degrees), int(months), quick=quick == "1")))
