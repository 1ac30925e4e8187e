"""What the bytes of an archive are, how small later snapshots are, and what writing takes."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import xarray as xr
from common import THREADS, bytes_read, ocean, oceans, snapshots_in_all

BOUNDS, QUICK_BOUNDS, QUICK_SNAPSHOTS = (0.02, 0.05, 0.1, 0.4), (0.1,), 24
OVER_ENCODE = 1.5  # the goal for what writing takes, in units of the encoding
LONGER = 10

TITLE = "What an archive consists of"
TEXT = """\
The archives of the table above, in bytes per snapshot. `model` is all that does not grow with
time: filters, masks, mean maps, coordinates, metadata; the columns after it share it among the
snapshots of the file, and among 600 months or 10,950 days. `level 0, share` is what opening the
coarsest level reads, of the latter. `step` is the norm of what a step of a code writes, in
bounds. `appended` is a model fitted to the first half of the times: bytes per snapshot, without
the model, of that half and of the second one, which was appended. `write` is the whole call, the
choice of codes and steps (`choose`, goal: 3 s) included; `over encode` (goal: 1.5) compares the
rest of it with the encoding that it contains: codes found, quantised, decoded as a reader will,
predicted, compared with the data and packed; what is left is reading, checking, comparing the
coarse levels with the data, and files. `longer` is the same for a series of ten times as many
months or days, the file's over and over: what is done once per archive counts less in it."""
COLUMNS = {
    "data": "data", "bound": "bound", "device": "device", "threads": "threads",
    "codes": "codes", "step": "step", "of_codes": "codes, bytes", "along": "along time, bytes",
    "model": "model", "full": "in full", "shared": "model shared", "share": "level 0, share",
    "worst": "largest error, bounds", "rmse": "rmse, bounds", "first_half": "first half",
    "second_half": "appended", "write_s": "write, s", "choose_s": "choose, s",
    "over_encode": "over encode", "over_encode_longer": "longer", "goal": "goal",
}  # fmt: skip


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """Both files at all bounds, or one at one if quick."""
    return [
        {"data": data, "bound": bound, "device": "cpu", "threads": THREADS[-1]}
        for data in oceans()[: 1 if quick else None]
        for bound in (QUICK_BOUNDS if quick else BOUNDS)
    ]


def measure(*, data: str, bound: float, device: str, threads: int, quick: bool) -> dict[str, Any]:
    """One archive of everything, and one of two halves."""
    field = ocean(data)[: QUICK_SNAPSHOTS if quick else None]
    row = written(fitted(field, quick=quick), field, bound)
    return row | halves(field, bound, quick=quick)


def fitted(field: xr.DataArray, *, quick: bool, **options: Any) -> Any:
    """A model as an archive has it."""
    import xmrcae
    from xmrcae.archive.models import archive_options

    options = archive_options(field, **options) | ({"max_epochs": 2} if quick else {})
    return xmrcae.MrCAE(**options, progress=False).fit(field)


def written(model: Any, field: xr.DataArray, bound: float) -> dict[str, Any]:
    """Write an archive, and see what it consists of."""
    from xmrcae.archive.store import ArchiveStore

    n, many = len(field), snapshots_in_all(field)
    with tempfile.TemporaryDirectory() as folder:
        url = Path(folder) / "archive.zarr"
        archive, whole, choose, over_encode = timed(model, field, url, bound)
        sizes, checked = ArchiveStore.open(url).n_bytes(), archive.verify(field)
        read = bytes_read(lambda: xr.open_dataset(url, engine="mrcae", level=0).load())
        decoder, (variable,) = archive.reader.decoder, archive.about["variables"]
        norms = decoder.norms(np.array([variable["scale"] / bound]))
        steps = [
            np.multiply(*each) for each in zip(archive.about["code_steps"], norms, strict=True)
        ]
        *_, longer = timed(model, repeated(field), Path(folder) / "longer.zarr", bound)
    along, of_model = sizes["time"], sizes["model"]
    of_codes = {k: v for k, v in sizes["arrays"].items() if k.endswith("/codes")}
    coarse = of_codes["level_0/codes"] + sum(v for k, v in sizes["arrays"].items() if "rows/" in k)
    shared = along / n + of_model / many
    return {
        "codes": sum(decoder.sizes),
        "step": float(np.median(np.concatenate(steps))),
        "of_codes": round(sum(of_codes.values()) / n),
        "along": round(along / n),
        "model": of_model,
        "full": round((along + of_model) / n),
        "shared": round(shared),
        "share": (coarse / n + (read - coarse) / many) / shared,
        "worst": float(checked["worst"].max()) / bound,
        "rmse": float(archive.measured["rmse"][-1, 0]) / bound,
        "write_s": whole,
        "choose_s": choose,
        "over_encode": over_encode,
        "over_encode_longer": longer,
        "goal": OVER_ENCODE,
    }


def timed(
    model: Any, field: xr.DataArray, url: Path, bound: float
) -> tuple[Any, float, float, float]:
    """Write an archive; return it, the seconds of all and of choosing, and the rest in encodes."""
    with clocks() as seconds:
        start = time.perf_counter()
        archive = model.to_archive(field, url, max_error=bound, progress=False)
        whole = time.perf_counter() - start
    choose = seconds["choose"]
    return archive, whole, choose, (whole - choose) / seconds["encode"]


def repeated(field: xr.DataArray) -> xr.DataArray:
    """A longer series: the same snapshots over and over, at times that go on."""
    longer = xr.concat([field] * LONGER, "time")
    times = xr.date_range(field.time.values[0], periods=len(longer), freq=xr.infer_freq(field.time))
    return longer.assign_coords(time=times)


def halves(field: xr.DataArray, bound: float, *, quick: bool) -> dict[str, Any]:
    """Bytes along time of the first half, and of the second one by the first half's model."""
    from xmrcae.archive.store import ArchiveStore

    first, second = field[: len(field) // 2], field[len(field) // 2 :]
    model = fitted(first, quick=quick)
    with tempfile.TemporaryDirectory() as folder:
        url, along = Path(folder) / "archive.zarr", []
        for part, options in ((first, {"max_error": bound}), (second, {"mode": "a"})):
            model.to_archive(part, url, **options, progress=False)
            along.append(ArchiveStore.open(url).n_bytes()["time"])
    return {
        "first_half": round(along[0] / len(first)),
        "second_half": round((along[1] - along[0]) / len(second)),
    }


@contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Add up the seconds that the parts of writing an archive take: to choose, and to encode."""
    from xmrcae.archive import packing, prepare, store_writer
    from xmrcae.archive.block import BlockCoder
    from xmrcae.codec import Codec

    seconds, running = {"choose": 0.0, "encode": 0.0}, []

    def clocked(function: Any, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if running:  # choosing encodes too
                return function(*args, **kwargs)
            running.append(name)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[running.pop()] += time.perf_counter() - start

        return call

    with ExitStack() as stack:
        for owner, function, name in (
            (prepare, "choose", "choose"),
            (Codec, "encode", "encode"),
            (BlockCoder, "encode", "encode"),
            (packing, "pack", "encode"),
            (store_writer, "pack", "encode"),
        ):
            patched = clocked(getattr(owner, function), name)
            stack.enter_context(mock.patch.object(owner, function, patched))
        yield seconds
