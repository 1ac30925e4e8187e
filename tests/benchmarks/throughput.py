"""Encode and decode throughput."""

import time
from collections.abc import Callable
from typing import Any

import xarray as xr
from common import ERSST, THREADS, open_archive, recipe, timed_fit

REPEATS = 5

#: MB a second that encoding and decoding are to reach on two idle cores.
GOALS = {"filters": {"encode": 500, "decode": 1000}, "projection": {"encode": 167, "decode": 1000}}

#: Bytes of snapshots that are encoded: an archive is repeated, so that labels, which take some
#: milliseconds a call, do not count.
BYTES = 2**26

TITLE = "Encode and decode"
TEXT = f"""\
Megabytes of float32 snapshots a second, in memory, the best of {REPEATS} calls; an archive is
repeated in time up to {BYTES / 2**20:.0f} MiB. The model has the options of the first table, and
at most 30 epochs a stage. `of copy` is the speed over that of `array.copy()` of the same array, in
one thread. The goals are for two idle cores; a projection is to encode within 3 times of it."""
COLUMNS = {
    "example": "example", "encoder": "encoder", "device": "device", "threads": "threads",
    "snapshots": "snapshots", "pixels": "valid pixels", "codes": "numbers a snapshot",
    "encode_mb_s": "encode, MB/s", "encode_goal": "goal", "encode_of_copy": "of copy",
    "decode_mb_s": "decode, MB/s", "decode_goal": "goal", "decode_of_copy": "of copy",
    "copy_mb_s": "copy, MB/s",
}  # fmt: skip


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """Two grids, both encoders, 1 and 2 threads, and the GPU."""
    names = ["two_modes", *(["ERSST"] if ERSST.is_file() and not quick else [])]
    runs = [("cpu", n) for n in (THREADS[-1:] if quick else THREADS)] + (
        [("cuda", THREADS[-1])] if cuda else []
    )
    return [
        {"example": name, "encoder": encoder, "device": device, "threads": threads}
        for name in names
        for encoder in GOALS
        for device, threads in runs
    ]


def measure(
    *, example: str, encoder: str, device: str, threads: int, quick: bool
) -> dict[str, Any]:
    """Encode all snapshots, and decode their codes."""
    field = open_archive(example, quick=quick).load()
    own = {"device": device, "encoder": encoder, "max_epochs": 3 if quick else 30}
    if encoder == "projection":
        own["widening"] = "residual"
    model = timed_fit(field, recipe(example) | own).model
    if not quick:
        field = xr.concat([field] * -(-BYTES // field.nbytes), "time")
    codes, megabytes = model.encode(field), field.nbytes / 1e6
    copy = megabytes / least_seconds(field.values.copy)
    result = {
        "snapshots": len(field),
        "pixels": int(field.notnull().any("time").sum()),
        "codes": int(model.encoding_sizes[-1]),
        "copy_mb_s": copy,
    }
    for name, function in (
        ("encode", lambda: model.encode(field)),
        ("decode", lambda: model.decode(codes)),
    ):
        speed = megabytes / least_seconds(function)
        result |= {f"{name}_mb_s": speed, f"{name}_goal": GOALS[encoder][name]}
        result |= {f"{name}_of_copy": speed / copy}
    return result


def least_seconds(function: Callable[[], Any]) -> float:
    """The least of a few calls, after one that is not timed."""
    function()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
