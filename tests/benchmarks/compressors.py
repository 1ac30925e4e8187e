"""What an archive is compared with: compressors at a maximal error that is checked.

Each method is a function of a field (time, y, x) with NaN on land and a bound; it gives bytes of
the whole series, and the largest error that the codec made when it was asked for the bound itself,
in bounds. Where that is more than 1, the codec is asked for less until its error is within.
"""

import importlib
import math
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numcodecs
import numpy as np
import xarray as xr
from common import harmonically_filled, packed_without_codes
from numcodecs.pcodec import PCodec

Encode = Callable[[np.ndarray, float], tuple[int, np.ndarray]]
Size = tuple[int, float]

#: What each codec of the numcodecs-wasm packages calls a bound on the absolute error.
OPTIONS: dict[str, Callable[[float], dict[str, object]]] = {
    "zfp": lambda bound: {"mode": "fixed-accuracy", "tolerance": bound},
    "SZ3": lambda bound: {"eb_mode": "abs", "eb_abs": bound},
    "SPERR": lambda bound: {"mode": "pwe", "pwe": bound},
    # From its default of 100 on, the corrections of EBCC leave up to twice the bound.
    "EBCC": lambda bound: {"residual": "absolute", "error": bound, "base_cr": 30.0},
}


def methods() -> dict[str, Callable[[xr.DataArray, float], Size]]:
    """All methods whose packages are there."""
    found: dict[str, Callable[[xr.DataArray, float], Size]] = {}
    for name in OPTIONS:
        if find_spec(_module(name)) is not None:
            found[f"{name} 2-D"] = partial(lossy, name, whole=False)
            if name != "EBCC":  # it codes a series as its snapshots
                found[f"{name} 3-D"] = partial(lossy, name, whole=True)
    return found | {
        "int16, deflated netCDF": deflated,
        "bit rounding, Zstd": bit_rounded,
        "steps, differences in time, pcodec": steps_in_time,
        "archive's coder without codes": packed_without_codes,
    }


def missing() -> list[str]:
    """Names of codecs that are not installed."""
    return [name for name in OPTIONS if find_spec(_module(name)) is None]


def _module(name: str) -> str:
    return f"numcodecs_wasm_{name.lower()}"


def lossy(name: str, field: xr.DataArray, bound: float, *, whole: bool) -> Size:
    """A published compressor, on a series or on each snapshot, land filled as it does best."""
    codec = getattr(importlib.import_module(_module(name)), name.capitalize())

    def encode(part: np.ndarray, parameter: float) -> tuple[int, np.ndarray]:
        own = codec(**OPTIONS[name](parameter))
        packed = own.encode(part)
        decoded = np.asarray(own.decode(packed))
        return memoryview(packed).nbytes, decoded.reshape(part.shape)

    given, known = field.values, field.notnull().values
    sizes = []
    for filled in _fills(field, alone=name == "EBCC"):  # it takes minutes
        filled = np.ascontiguousarray(filled, dtype=np.float32)
        parts = [slice(None)] if whole else [slice(i, i + 1) for i in range(len(filled))]
        each = [
            within(
                encode, filled[part] if whole else filled[part][0], given[part], known[part], bound
            )
            for part in parts
        ]
        sizes.append((sum(size for size, _ in each), max(error for _, error in each)))
    return min(sizes)


def _fills(field: xr.DataArray, *, alone: bool) -> Iterator[np.ndarray]:
    """The field with land filled harmonically, and, if not that alone, by the mean."""
    yield harmonically_filled(field)
    if not alone:
        yield field.fillna(field.mean()).values


def within(
    encode: Encode, filled: np.ndarray, given: np.ndarray, known: np.ndarray, bound: float
) -> Size:
    """Bytes at a parameter that keeps the bound, and the error, in bounds, when asked for it."""
    parameter, first = bound, None
    while True:
        size, decoded = encode(filled, parameter)
        error = np.abs(decoded.reshape(given.shape).astype(np.float64) - given)
        worst = float(error.max(where=known, initial=0)) / bound
        first = worst if first is None else first
        if worst <= 1:
            return size, first
        parameter *= 0.999 / worst


def deflated(field: xr.DataArray, bound: float) -> Size:
    """A netCDF file of int16 in steps of twice the bound, deflated; chunks as it does best."""

    def encode(part: np.ndarray, parameter: float, chunk: int) -> tuple[int, np.ndarray]:
        encoding = {
            "dtype": "int16", "scale_factor": 2 * parameter, "_FillValue": -(2**15), "zlib": True,
            "complevel": 9, "shuffle": True, "chunksizes": (chunk, *part.shape[1:]),
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "field.nc"
            field.to_dataset(name="field").to_netcdf(path, encoding={"field": encoding})
            with xr.open_dataset(path) as dataset:
                return path.stat().st_size, dataset["field"].values

    given, known = field.values, field.notnull().values
    chunks = (1, len(field))
    return min(within(partial(encode, chunk=n), given, given, known, bound) for n in chunks)


def bit_rounded(field: xr.DataArray, bound: float) -> Size:
    """Float32 of as few bits as keep the bound, with bits shuffled, packed by Zstd."""
    given, known = field.values, field.notnull().values
    pixels = known.all(0)

    def encode(part: np.ndarray, parameter: float) -> tuple[int, np.ndarray]:
        values = np.ascontiguousarray(part[:, pixels].astype(np.float32).T)
        exponent = math.floor(math.log2(np.abs(values).max()))
        rounding = numcodecs.BitRound(exponent - 1 - math.floor(math.log2(parameter)))
        decoded = np.full(part.shape, np.nan)
        rounded = rounding.decode(rounding.encode(values)).view(np.float32).reshape(values.shape)
        decoded[:, pixels] = rounded.T
        zstd = numcodecs.Blosc(cname="zstd", clevel=9, shuffle=numcodecs.Blosc.BITSHUFFLE)
        orders = (rounded, rounded.T)
        return min(len(zstd.encode(np.ascontiguousarray(a))) for a in orders), decoded

    return within(encode, given, given, known, bound)


def steps_in_time(field: xr.DataArray, bound: float) -> Size:
    """Valid pixels in steps of twice the bound, less those of the snapshot before."""
    given, known = field.values, field.notnull().values
    pixels = known.all(0)

    def encode(part: np.ndarray, parameter: float) -> tuple[int, np.ndarray]:
        steps = np.rint(part[:, pixels] / (2 * parameter)).astype(np.int32)
        decoded = np.full(part.shape, np.nan, part.dtype)
        decoded[:, pixels] = 2 * parameter * steps
        differences = np.diff(steps, axis=0, prepend=0)
        pcodec, orders = PCodec(level=9), (differences, differences.T)
        return min(len(pcodec.encode(np.ascontiguousarray(a).ravel())) for a in orders), decoded

    return within(encode, given, given, known, bound)
