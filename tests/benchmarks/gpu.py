"""What a GPU does: small fits, a large one, encoding and decoding."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import xarray as xr
from common import ERSST, THREADS, open_archive, recipe, timed_fit
from pixels import CONTINENTS
from throughput import least_seconds

TITLE = "On a GPU"
TEXT = """\
`a quarter degree` is a made-up field of 505 snapshots with the continents above and a spectrum of k^-2, different in
each snapshot, so that no sample is left out. Fits of it and of ERSST have 4 levels and are otherwise as they come;
the drifting mode has its recipe. `floor` is what 30 passes over the samples of the finest level would take at the
bandwidth of a copy on this device: what an epoch reads and writes if each evaluation touches 30 fields. `busy` is
the share of a stage of the finest level in which kernels ran, by torch's profiler. Encoding and decoding read and
write arrays on the host, and, in the last columns, tensors on the device, without scaling; bytes are those of the
fields."""
COLUMNS = {
    "example": "example", "device": "device", "threads": "threads", "grid": "grid", "gib": "data, GiB",
    "rank": "samples trained on", "passes_s": "passes over the data, s", "training_s": "training, s",
    "epochs": "epochs", "epoch_ms": "epoch of the finest level, ms", "floor_ms": "floor, ms", "busy": "busy",
    "peak_gib": "memory of the device, GiB", "encode_gb_s": "encode, GB/s", "decode_gb_s": "decode, GB/s",
    "encode_device_gb_s": "encode on the device, GB/s", "decode_device_gb_s": "decode on the device, GB/s",
}  # fmt: skip

QUARTER = "a quarter degree"
SNAPSHOTS, ROWS = 505, 720
#: Fields that an evaluation reads or writes, and snapshots that are encoded and decoded together.
FIELDS, WIDTH = 30, 32


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """Two small archives and a large one; without a GPU, a quick run shows that all works."""
    if not cuda and not quick:
        return []
    names = ["drifting_mode", *(["ERSST"] if ERSST.is_file() and not quick else []), QUARTER]
    device = "cuda" if cuda else "cpu"
    return [{"example": name, "device": device, "threads": THREADS[-1]} for name in names]


def measure(*, example: str, device: str, threads: int, quick: bool) -> dict[str, Any]:
    """One fit, and what its model encodes and decodes."""
    import torch

    if example == QUARTER:
        size = (
            {"n_snapshots": 20, "rows": 60} if quick else {"n_snapshots": SNAPSHOTS, "rows": ROWS}
        )
        field, options = globe(device=device, **size), {"levels": 4}
    else:
        field = open_archive(example, quick=quick).load()
        options = {"levels": 4} if example == "ERSST" else recipe(example)
    options = dict(options) | {"device": device} | ({"max_epochs": 3} if quick else {})
    with profiled_stage(device) as profile:
        fit = timed_fit(field, options)
    history = fit.model.history
    finest = history["level"].values == fit.model.levels - 1
    n_bytes = fit.rank * field[0].nbytes
    return {
        "grid": " x ".join(map(str, field.shape[1:])),
        **{name: value for name, value in fit.figures(field).items() if not name.endswith("_gib")},
        "epoch_ms": 1e3 * float(np.median(np.diff(history["seconds"].values[finest]))),
        "floor_ms": 1e3 * FIELDS * n_bytes / copy_bandwidth(device),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
        **profile,
        **throughput(fit.model, field, device),
    }


@contextmanager
def profiled_stage(device: str) -> Iterator[dict[str, float]]:
    """Measure in which share of the finest level's second stage kernels run."""
    import torch

    from xmrcae.core.training import Trainer

    found: dict[str, float] = {}
    train = Trainer._train

    def watched(self: Trainer, level: int, group: int, unfinished: Any) -> None:
        if device != "cuda" or (level, group) != (len(self.channels) - 1, 1):
            train(self, level, group, unfinished)
            return
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            torch.cuda.synchronize()
            start = time.perf_counter()
            train(self, level, group, unfinished)
            torch.cuda.synchronize()
            seconds = time.perf_counter() - start
        microseconds = sum(event.self_device_time_total for event in profile.key_averages())
        found["busy"] = microseconds / 1e6 / seconds

    with mock.patch.object(Trainer, "_train", watched):
        yield found


def throughput(model: Any, field: xr.DataArray, device: str) -> dict[str, float]:
    """Bytes a second of fields, encoded and decoded on the host and on the device."""
    import torch

    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None

    def gb_s(n_bytes: int, function: Callable[[], Any]) -> float:
        return n_bytes / 1e9 / least_seconds(lambda: (function(), synchronize()))

    some = field[: 4 * WIDTH]
    codes = model.encode(some)
    network = model.fitted.codec.network
    pixels = torch.rand(network.has_data[-1].numel(), WIDTH, device=network.device)
    constant = torch.ones(WIDTH, device=network.device)
    result = network(pixels, constant)
    flat = [result.flat_codes(level) for level in range(model.levels)]
    n_bytes = pixels.numel() * pixels.element_size()
    return {
        "encode_gb_s": gb_s(some.nbytes, lambda: model.encode(some)),
        "decode_gb_s": gb_s(some.nbytes, lambda: model.decode(codes)),
        "encode_device_gb_s": gb_s(n_bytes, lambda: network(pixels, constant)),
        "decode_device_gb_s": gb_s(n_bytes, lambda: network.decode(flat, constant)),
    }


def copy_bandwidth(device: str) -> float:
    """Bytes a second that a copy on the device reads, or writes."""
    import torch

    source = torch.ones(2**28 if device == "cuda" else 2**24, device=device)
    target = torch.empty_like(source)
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    n_bytes = 2 * source.numel() * source.element_size()
    return n_bytes / least_seconds(lambda: (target.copy_(source), synchronize()))


def globe(*, n_snapshots: int, rows: int, device: str) -> xr.DataArray:
    """The field of a quarter degree, or a coarser one, made on the device."""
    import torch

    columns = 2 * rows
    lat = (np.arange(rows) + 0.5) * 180 / rows - 90
    lon = np.arange(columns) * 360 / columns
    generator = torch.Generator(device).manual_seed(0)
    ky = torch.fft.fftfreq(rows, 1 / rows, device=device)[:, None]
    kx = torch.fft.rfftfreq(columns, 1 / columns, device=device)
    amplitude = (ky**2 + kx**2).clamp_min(1) ** -0.75  # k^-3 a mode, k of them on a ring
    values = np.empty((n_snapshots, rows, columns), dtype=np.float32)
    for start in range(0, n_snapshots, WIDTH):
        part = values[start : start + WIDTH]
        noise = torch.randn(part.shape, generator=generator, device=device)
        spectrum = torch.fft.rfft2(noise) * amplitude
        part[:] = torch.fft.irfft2(spectrum, s=(rows, columns)).cpu().numpy()
    for y, x, height, width in CONTINENTS:
        distance = (lon - x + 180) % 360 - 180
        values[:, ((lat[:, None] - y) / height) ** 2 + (distance / width) ** 2 < 1] = np.nan
    coords = {
        "lat": ("lat", lat, {"units": "degrees_north"}),
        "lon": ("lon", lon, {"units": "degrees_east"}),
    }
    return xr.DataArray(values, dims=("time", "lat", "lon"), coords=coords, name="field")
