"""What a GPU does: small fits, a large one, encoding and decoding."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import numpy as np
import xarray as xr
from common import ERSST, THREADS, open_archive, recipe, timed_fit
from pixels import CONTINENTS
from throughput import least_seconds

QUARTER = "a quarter degree"
SNAPSHOTS, ROWS = 505, 720
#: Fields that an evaluation reads or writes, and snapshots that are encoded and decoded together.
FIELDS, WIDTH = 30, 32
#: Snapshots and epochs a stage of the fit that is profiled.
PROFILED, PROFILED_EPOCHS = 64, 20

TITLE = "On a GPU"
TEXT = f"""\
`{QUARTER}` is a made-up field of {SNAPSHOTS} snapshots with the continents above and a spectrum of
k^-2, different in each snapshot, so that no sample is left out. Fits of it and of ERSST have 4
levels and are otherwise as they come; the drifting mode has its recipe. The speed of the passes
over the data is the size of the data over the seconds of both passes. The floor is what
{FIELDS} passes over the samples that train the finest level would take at the bandwidth of a copy
on this device: what an epoch reads and writes if it is one evaluation that touches {FIELDS}
fields. Busy is the share of a stage of the finest level in which kernels ran, by torch's profiler,
in another fit, of {PROFILED} snapshots and at most {PROFILED_EPOCHS} epochs a stage. Encoding and
decoding read and write arrays on the host; on the device, tensors, without scaling. The goals are
for one H100 or H200."""
COLUMNS = {
    "example": "example", "device": "device", "threads": "threads", "figure": "figure",
    "goal": "goal", "measured": "measured",
}  # fmt: skip
#: What is needed to measure anything.
NEEDS = (
    "a GPU that torch sees: PYTHON=python3 takes the machine's own Python and its torch, and "
    "QUICK=1 shows on a CPU that all works"
)

#: Figures of a measurement, in the order of the page.
FIGURES = {
    "grid": "grid",
    "gib": "data, GiB",
    "samples": "samples that train the finest level",
    "epochs": "epochs",
    "fit_s": "fit, s",
    "passes_s": "of it passes over the data, s",
    "passes_gb_s": "passes over the data, GB/s",
    "training_s": "training, s",
    "epoch_ms": "epoch of the finest level, ms",
    "floor_ms": "floor, ms",
    "epoch_of_floor": "epoch of the finest level, times the floor",
    "busy": "busy",
    "device_gib": "memory of the device, GiB",
    "encode_gb_s": "encode, GB/s",
    "decode_gb_s": "decode, GB/s",
    "encode_device_gb_s": "encode on the device, GB/s",
    "decode_device_gb_s": "decode on the device, GB/s",
}

#: What one H100 or H200 is to reach.
GOALS = {
    "drifting_mode": {"fit_s": "2 at most"},
    "ERSST": {"fit_s": "6 at most"},
    QUARTER: {
        "fit_s": "30 at most",
        "passes_gb_s": "1 or more",
        "epoch_of_floor": "3 at most",
        "busy": "0.6 or more",
        "encode_gb_s": "2 or more",
        "decode_gb_s": "2 or more",
        "encode_device_gb_s": "10 or more",
        "decode_device_gb_s": "10 or more",
    },
}


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
    fit = timed_fit(field, options)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    history = fit.model.history
    finest = history["level"].values == fit.model.levels - 1
    samples = history.attrs["train_samples_at_level"][-1]
    epoch = float(np.median(np.diff(history["seconds"].values[finest])))
    floor = FIELDS * samples * field[0].nbytes / copy_bandwidth(device)
    found = {
        "grid": " x ".join(map(str, field.shape[1:])),
        **fit.figures(field),
        "samples": samples,
        "fit_s": fit.seconds,
        "passes_gb_s": field.nbytes / 1e9 / fit.passes,
        "epoch_ms": 1e3 * epoch,
        "floor_ms": 1e3 * floor,
        "epoch_of_floor": epoch / floor,
        "busy": busy(field, options) if example == QUARTER else None,
        "device_gib": None if peak is None else peak / 2**30,
        **throughput(fit.model, field, device),
    }
    return {"figures": {name: found[name] for name in FIGURES}}


def conclude(rows: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each figure a row of its own, beside its goal."""
    result = []
    for row in rows:
        figures = row.pop("figures", {})
        goals = GOALS[row["example"]]
        result += [
            row | {"figure": heading, "goal": goals.get(name), "measured": figures.get(name)}
            for name, heading in FIGURES.items()
            if figures.get(name) is not None or name in goals
        ]
    return result


def synchronize(device: str) -> None:
    """Wait until the device has computed all that it was given."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def busy(field: xr.DataArray, options: Mapping[str, Any]) -> float:
    """Measure in which share of the finest level's second stage kernels run, in a short fit."""
    import torch

    import xmrcae
    from xmrcae.core.training import Trainer

    kind, device = torch.profiler.ProfilerActivity, options["device"]
    activity, time_of = (
        (kind.CUDA, "self_device_time_total")
        if device == "cuda"
        else (kind.CPU, "self_cpu_time_total")
    )
    shares: list[float] = []
    train = Trainer._train

    def watched(self: Trainer, level: int, group: int, unfinished: Any) -> None:
        if (level, group) != (len(self.channels) - 1, 1):
            train(self, level, group, unfinished)
            return
        with torch.profiler.profile(activities=[activity]) as profile:
            synchronize(device)
            start = time.perf_counter()
            train(self, level, group, unfinished)
            synchronize(device)
            seconds = time.perf_counter() - start
        microseconds = sum(getattr(event, time_of) for event in profile.key_averages())
        shares.append(microseconds / 1e6 / seconds)

    few = dict(options) | {"max_epochs": min(PROFILED_EPOCHS, options.get("max_epochs", math.inf))}
    with mock.patch.object(Trainer, "_train", watched):
        xmrcae.MrCAE(progress=False, **few).fit(field[:PROFILED])
    return shares[0]


def throughput(model: Any, field: xr.DataArray, device: str) -> dict[str, float]:
    """Bytes a second of fields, encoded and decoded on the host and on the device."""
    import torch

    def gb_s(n_bytes: int, function: Callable[[], Any]) -> float:
        return n_bytes / 1e9 / least_seconds(lambda: (function(), synchronize(device)))

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
    n_bytes = 2 * source.numel() * source.element_size()
    return n_bytes / least_seconds(lambda: (target.copy_(source), synchronize(device)))


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
