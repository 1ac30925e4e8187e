"""Encode and decode throughput."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import ERSST, THREADS, open_archive, recipe, timed_fit

REPEATS = 5

TITLE = "Encode and decode"
TEXT = f"""\
Snapshots a second for all snapshots of an archive in memory, the best of {REPEATS} calls; the
model has the options of the first table, and at most 30 epochs a stage. `of memory bandwidth` is
bytes read and written, the snapshots and their
codes, over the time, over the bandwidth of a large numpy copy in one thread, read and write counted."""
COLUMNS = {
    "example": "example", "device": "device", "threads": "threads", "snapshots": "snapshots", "pixels": "valid pixels",
    "codes": "numbers a snapshot", "encode_per_s": "encode, snapshots/s", "encode_share": "of memory bandwidth",
    "decode_per_s": "decode, snapshots/s", "decode_share": "of memory bandwidth", "copy_gb_s": "copy, GB/s",
}  # fmt: skip

COPY_BYTES = 2**28


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """Two grids, 1 and 2 threads, and the GPU."""
    names = ["two_modes", *(["ERSST"] if ERSST.is_file() and not quick else [])]
    runs = [("cpu", n) for n in (THREADS[-1:] if quick else THREADS)] + (
        [("cuda", THREADS[-1])] if cuda else []
    )
    return [
        {"example": name, "device": device, "threads": threads}
        for name in names
        for device, threads in runs
    ]


def measure(*, example: str, device: str, threads: int, quick: bool) -> dict[str, Any]:
    """Encode all snapshots, and decode their codes."""
    field = open_archive(example, quick=quick).load()
    model = timed_fit(
        field, recipe(example) | {"device": device, "max_epochs": 3 if quick else 30}
    ).model
    codes = model.encode(field)
    n_bytes = field.nbytes + sum(node["encoding"].nbytes for node in codes.children.values())
    copy = copy_bandwidth(COPY_BYTES // (16 if quick else 1))
    result = {
        "snapshots": len(field),
        "pixels": int(field.notnull().any("time").sum()),
        "codes": int(model.encoding_sizes[-1]),
        "copy_gb_s": copy / 1e9,
    }
    for name, function in (
        ("encode", lambda: model.encode(field)),
        ("decode", lambda: model.decode(codes)),
    ):
        seconds = least_seconds(function)
        result |= {f"{name}_per_s": len(field) / seconds, f"{name}_share": n_bytes / seconds / copy}
    return result


def copy_bandwidth(n_bytes: int) -> float:
    """Bytes a second, read and written, of a numpy copy."""
    source = np.ones(n_bytes // 8)
    target = np.empty_like(source)
    return 2 * source.nbytes / least_seconds(lambda: np.copyto(target, source))


def least_seconds(function: Callable[[], Any]) -> float:
    """The least of a few calls, after one that is not timed."""
    function()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
