"""Fits of fields of full rank.

As a script: write an archive, `full_rank.py STORE DEGREES SNAPSHOTS`.
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from common import THREADS, timed_fit

SNAPSHOTS, QUICK_SNAPSHOTS = 505, 30
YEAR = 365
MEMORY = 2**31

TITLE = "Fields of full rank"
TEXT = f"""\
{SNAPSHOTS} snapshots of the globe, or the {YEAR} of a daily year, in float32 with a spectrum of
k^-2 in space and red noise in time (correlation 0.8 from one to the next), in a Zarr store in
chunks of 32 x 90 x 180: no few singular vectors stand for them. Default options, but for `memory=`
of 2 GiB. `sketch` is the samples that a stage of the finest level trains on; where it says all,
`sketch=` asks for that. The error is that of the finest level on held-out snapshots, over their
rms. CPU time is of the whole process from the start of the fit, and its share in the kernel. The
goals at 0.25 degree are 15 minutes (`fit, min`), and 20 for the year, 3 GiB, a share of 0.05, and
16 threads 4 times as fast as 2; at 1 degree 1.02 times the error of all samples."""
COLUMNS = {
    "degrees": "spacing, degrees", "snapshots": "snapshots", "samples": "samples",
    "device": "device", "threads": "threads", "gib": "archive, GiB",
    "passes_s": "passes over the data, s", "training_s": "training, s", "minutes": "fit, min",
    "goal": "goal", "cpu_s": "CPU, s", "kernel": "in the kernel", "epochs": "epochs",
    "sketch": "samples of a stage", "peak_gib": "peak memory, GiB", "error": "held-out error",
    "ratio": "of that of all samples",
}  # fmt: skip

SPACINGS, QUICK_SPACINGS = (2.0, 1.0, 0.25), (6.0,)
CHUNKS = (32, 90, 180)
#: Minutes that a fit of so many snapshots at 0.25 degree may take.
GOALS = {SNAPSHOTS: 15, YEAR: 20}

#: Spacing from which all samples take too long for a benchmark.
FINE = 0.5


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """All samples and those of the default, but where all take too long."""
    n = QUICK_SNAPSHOTS if quick else SNAPSHOTS
    fits = [
        (degrees, n, samples)
        for degrees in (QUICK_SPACINGS if quick else SPACINGS)
        for samples in ("all", "default")
        if samples == "default" or degrees > FINE
    ]
    fits += [] if quick else [(SPACINGS[-1], YEAR, "default")]
    return [
        dict(zip(("degrees", "snapshots", "samples"), fit, strict=True))
        | {"device": "cpu", "threads": threads}
        for fit in fits
        for threads in (THREADS[-1:] if fit[0] > FINE else THREADS[1:] or THREADS)
    ]


def measure(
    *, degrees: float, snapshots: int, samples: str, device: str, threads: int, quick: bool
) -> dict[str, Any]:
    """One fit to an archive of that spacing."""
    every = {"sketch": snapshots} if samples == "all" else {}
    options = {"device": device, "memory": MEMORY} | every
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "archive.zarr")
        subprocess.run([sys.executable, __file__, store, str(degrees), str(snapshots)], check=True)
        with xr.open_zarr(store, consolidated=False) as dataset:
            field = dataset["field"]
            before = resource.getrusage(resource.RUSAGE_SELF)
            fit = timed_fit(field, options)
            after = resource.getrusage(resource.RUSAGE_SELF)
            held_out = (fit.model.split != "training").values
            score = fit.model.score(field.isel(time=held_out))
    user, kernel = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return fit.figures(field) | {
        "minutes": fit.seconds / 60,
        "goal": GOALS[snapshots] if degrees <= FINE else None,
        "cpu_s": user + kernel,
        "kernel": kernel / (user + kernel),
        "sketch": int(fit.model.history.attrs["train_samples_at_level"][-1]),
        "error": float(score["rmse"][-1]),  # of fields whose rms is 1
    }


def conclude(rows: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare each error with that of all samples on the same grid."""
    exact = {row["degrees"]: row["error"] for row in [*earlier, *rows] if row["samples"] == "all"}
    return [
        row | ({"ratio": row["error"] / exact[row["degrees"]]} if row["degrees"] in exact else {})
        for row in rows
    ]


def red_noise(degrees: float, n_snapshots: int) -> xr.DataArray:
    """Make the field in memory, one snapshot after the other; its rms is 1."""
    lat = -90 + degrees * (np.arange(round(180 / degrees)) + 0.5)
    lon = degrees * (np.arange(round(360 / degrees)) + 0.5)
    rows, columns = len(lat), len(lon)
    along_y, along_x = np.fft.fftfreq(rows, 1 / rows), np.fft.rfftfreq(columns, 1 / columns)
    wave = np.hypot(2 * along_y[:, None], along_x)
    amplitude = np.where(wave > 0, 1 / np.maximum(wave, 1), 0)
    rng = np.random.default_rng(0)
    values = np.empty((n_snapshots, rows, columns), np.float32)
    state = np.fft.rfft2(rng.standard_normal((rows, columns))) * amplitude
    for snapshot in values:
        snapshot[:] = np.fft.irfft2(state, (rows, columns))
        state = 0.8 * state + 0.6 * np.fft.rfft2(rng.standard_normal((rows, columns))) * amplitude
    values /= np.sqrt(np.mean(np.square(values), dtype=np.float64))
    coords = {
        "lat": ("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": ("lon", lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    return xr.DataArray(values, dims=("time", "lat", "lon"), coords=coords, name="field")


if __name__ == "__main__":
    field = red_noise(float(sys.argv[2]), int(sys.argv[3]))
    encoding = {"field": {"chunks": tuple(map(min, CHUNKS, field.shape))}}
    field.to_dataset().to_zarr(sys.argv[1], consolidated=False, encoding=encoding)
