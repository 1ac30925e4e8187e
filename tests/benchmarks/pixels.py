"""Time and memory against the number of pixels. As a script: write an archive, `pixels.py STORE DEGREES SNAPSHOTS`."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from common import THREADS, timed_fit

SNAPSHOTS, QUICK_SNAPSHOTS = 505, 40

TITLE = "Number of pixels"
TEXT = f"""\
Global grids with continents, {SNAPSHOTS} snapshots in float32: 12 made-up waves of several lengths
and periods, and noise of 0.002 of their rms. Each archive is a Zarr store in chunks of 32 x 90 x
180, written by another process just before. Every fit has 4 levels and at most 3 epochs a stage,
and may use 2.5 GiB (`memory=`). Peak memory is that of the
whole process with Python and all libraries, which take what the column before it says."""
COLUMNS = {
    "degrees": "spacing, degrees", "grid": "grid", "device": "device", "threads": "threads", "gib": "archive, GiB",
    "passes_s": "passes over the data, s", "training_s": "training, s", "epochs": "epochs",
    "rank": "samples trained on", "start_gib": "memory before the fit, GiB", "peak_gib": "peak memory, GiB",
}  # fmt: skip

SPACINGS, QUICK_SPACINGS = (2.0, 1.0, 0.5, 0.25), (6.0, 4.0)
CHUNKS = (32, 90, 180)
NOISE, SEED = 0.002, 0
OPTIONS = {
    "levels": 4,
    "channels": [[1]],
    "max_epochs": 3,
    "min_decrease": 0.0,
    "memory": int(2.5 * 2**30),
}
QUICK_OPTIONS = OPTIONS | {"levels": 2}

#: Waves around the globe of each mode, and their amplitudes.
WAVES = np.array([1, 1, 2, 2, 3, 3, 5, 5, 8, 8, 12, 12])
AMPLITUDES = 1 / WAVES
#: Land: latitude and longitude of the middles of ellipses, and their half axes, in degrees.
CONTINENTS = (
    (45, 80, 25, 50),
    (0, 20, 30, 18),
    (40, 260, 20, 35),
    (-15, 300, 25, 15),
    (-85, 180, 12, 181),
)


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """One a spacing."""
    spacings = QUICK_SPACINGS if quick else SPACINGS
    return [{"degrees": degrees, "device": "cpu", "threads": THREADS[-1]} for degrees in spacings]


def measure(*, degrees: float, device: str, threads: int, quick: bool) -> dict[str, Any]:
    """One fit to an archive of that spacing."""
    n = QUICK_SNAPSHOTS if quick else SNAPSHOTS
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "archive.zarr")
        subprocess.run([sys.executable, __file__, store, str(degrees), str(n)], check=True)
        with xr.open_zarr(store, consolidated=False) as dataset:
            field = dataset["field"]
            fit = timed_fit(field, (QUICK_OPTIONS if quick else OPTIONS) | {"device": device})
    return {"grid": " x ".join(map(str, field.shape[1:]))} | fit.figures(field)


def globe(degrees: float, n_snapshots: int) -> xr.DataArray:
    """The made-up field, lazy."""
    n_rows, n_columns = round(180 / degrees), round(360 / degrees)
    lat, lon = -90 + degrees * (np.arange(n_rows) + 0.5), degrees * (np.arange(n_columns) + 0.5)
    axes = (np.arange(n_snapshots), lat, lon)
    t, y, x = (da.from_array(axis, chunks=n) for axis, n in zip(axes, CHUNKS, strict=True))
    values = da.map_blocks(
        _waves, t[:, None, None], y[None, :, None], x[None, None, :],
        dtype=np.float32, chunks=(t.chunks[0], y.chunks[0], x.chunks[0]),
    )  # fmt: skip
    coords = {
        "lat": ("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": ("lon", lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    return xr.DataArray(values, dims=("time", "lat", "lon"), coords=coords, name="field")


def _waves(t: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    t, y, x = t.ravel(), np.deg2rad(lat.ravel()), np.deg2rad(lon.ravel())
    mode = np.arange(len(WAVES))
    in_time = AMPLITUDES * np.cos(t[:, None] * 2 * np.pi / (7 + 5 * mode) + mode)
    along_y = np.cos(WAVES[:, None] * y + mode[:, None])
    along_x = np.cos(WAVES[:, None] * x + 2 * mode[:, None])
    in_space = along_y[:, :, None] * along_x[:, None, :]
    values = np.tensordot(in_time.astype(np.float32), in_space.astype(np.float32), 1)
    rng = np.random.default_rng(
        [SEED, int(t[0]), *(round(1e3 * float(a.flat[0])) + 10**6 for a in (lat, lon))]
    )
    rms = np.sqrt((AMPLITUDES**2 / 8).sum())
    values += np.float32(NOISE * rms) * rng.standard_normal(values.shape, dtype=np.float32)
    for middle_y, middle_x, half_y, half_x in CONTINENTS:
        land = ((lat - middle_y) / half_y) ** 2 + ((lon - middle_x) / half_x) ** 2 < 1
        values[:, land[0]] = np.nan
    return values


if __name__ == "__main__":
    globe(float(sys.argv[2]), int(sys.argv[3])).to_dataset().to_zarr(
        sys.argv[1], consolidated=False
    )
