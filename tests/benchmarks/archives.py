"""Bytes of an archive and of other compressors at the same guaranteed maximal error."""

import sys
from typing import Any

import xarray as xr
from archive_parts import BOUNDS, QUICK_BOUNDS, QUICK_SNAPSHOTS, fitted, written
from common import THREADS, ocean, oceans
from compressors import methods, missing

OURS, ALONG_TIME, IN_FULL = "archive", "archive, along time alone", "archive, model in full"

TITLE = "Bytes of an archive"
TEXT = """\
Bytes per snapshot at four bounds on the error of every value: 128 months of ERSST, degC, and 91
days of sea level in the Mediterranean, cm, without the pixels that have gaps in time. A series is
one chunk. `2-D` codes each snapshot by itself, `3-D` the series as one array; land is filled
harmonically or by the mean, as takes fewer bytes at that bound. EBCC has its land filled
harmonically alone, and starts from a compression ratio of 30, as its own 100 misses bounds by up
to a factor of 2. What is decoded is compared with the data: `largest error` is that of the bound
at which it is worst, in bounds, when the codec was asked for the bound itself, and `missed by`
what of it is over 1. There the codec was asked for less, for each of its arrays, until the bound
held, and the bytes are those it took then. zfp rounds a bound down to a power of two, and bit
rounding to a whole number of bits, so both stay well within.

`archive` counts all files but shares those that do not grow with time, the model, among 600
months or 10,950 days; `model in full` counts them for the snapshots that there are. `archive's
coder without codes` is the strongest other method known to us: departures from the climatology in
steps, predicted from their neighbours and packed as the archive does, with the climatology shared
as the model is and the best of 15 ways to keep it (3 for the Mediterranean).

What is counted differs: `archive` and netCDF are whole files. The others are coded values alone,
without metadata, coordinates, times, and the mask that tells land from sea, which an archive pays
for.

![Bytes per snapshot against the bound, for all methods](pictures/archive-bytes.png)"""
COLUMNS = {
    "data": "data", "method": "method", "device": "device", "threads": "threads",
    **{f"at_{bound}": f"at {bound}" for bound in BOUNDS}, "worst": "largest error, bounds",
    "missed": "missed by, %",
}  # fmt: skip


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """All methods on both files, or on one if quick; what is not there is named and left out."""
    for name in missing():
        print(
            f"{name} is not installed (extra `benchmarks`): its rows are left out", file=sys.stderr
        )
    if len(oceans()) < 2:
        print(f"of the data there is only {oceans()}: rows are left out", file=sys.stderr)
    names = [name for name in methods() if not (quick and name.startswith("EBCC"))]
    return [
        {"data": data, "method": method, "device": "cpu", "threads": THREADS[-1]}
        for data in oceans()[: 1 if quick else None]
        for method in (*names, OURS)
    ]


def measure(*, data: str, method: str, device: str, threads: int, quick: bool) -> dict[str, Any]:
    """Bytes of one method at all bounds."""
    field = ocean(data)[: QUICK_SNAPSHOTS if quick else None]
    bounds = QUICK_BOUNDS if quick else BOUNDS
    if method == OURS:
        return archived(field, bounds, quick=quick)
    sizes = {bound: methods()[method](field, bound) for bound in bounds}
    result = {f"at_{bound}": round(size / len(field)) for bound, (size, _) in sizes.items()}
    worst = float(max(error for _, error in sizes.values()))
    return result | {"worst": worst, "missed": 100 * (worst - 1) if worst > 1 else None}


def archived(field: xr.DataArray, bounds: tuple[float, ...], *, quick: bool) -> dict[str, Any]:
    """Bytes of our archives, with the model shared among many snapshots and in full."""
    model = fitted(field, quick=quick)
    each = {bound: written(model, field, bound) for bound in bounds}
    ways = {OURS: "shared", ALONG_TIME: "along", IN_FULL: "full"}
    return {
        "worst": max(row["worst"] for row in each.values()),
        "ways": {
            way: {f"at_{bound}": row[key] for bound, row in each.items()}
            for way, key in ways.items()
        },
    }


def conclude(rows: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give each way of counting the bytes of an archive a row of its own."""
    result = []
    for row in rows:
        ways = row.pop("ways", {row["method"]: {}})
        result += [row | {"method": method} | sizes for method, sizes in ways.items()]
    return result
