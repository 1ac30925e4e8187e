"""How arrays become bytes: the Zarr codecs of each kind of array, one chunk at a time.

Numbers of 32 and 64 bits are packed by pcodec, others (bool, 8 and 16 bits) by Zstandard; both
losslessly, and every chunk ends in its crc32c.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from ..storage import uninterrupted
from .format import ArchiveFault

#: Numbers that one chunk may hold: more than any that was written, less than memory has.
LARGEST_CHUNK = 2**30

# Steps take 0.5 % more at level 8; at level 10 they take 0.3 % less, but floats half the speed.
_PCODEC: dict[str, Any] = {"name": "numcodecs.pcodec", "configuration": {"level": 9}}
_ESTIMATE = 8  # level by which sizes are estimated
_ZSTD: dict[str, Any] = {"name": "zstd", "configuration": {"level": 12, "checksum": False}}

_FILTERS = threading.Lock()  # warnings.catch_warnings changes the whole process's filters


def metadata(
    shape: Sequence[int],
    chunk: Sequence[int],
    dtype: Any,
    dims: Sequence[str],
    attrs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the metadata of an array, with its attributes as JSON has them.

    Raises
    ------
    TypeError
        Unless `dtype` is bool, integers or floats of 1 to 8 bytes.
    """
    dtype = np.dtype(dtype).newbyteorder("=")
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise TypeError(f"an archive takes bool, integers and floats, got {dtype}")
    order = {"configuration": {"endian": "little"}} if dtype.itemsize > 1 else {}
    return {
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {
            "name": "regular",
            # A chunk has one number at least, though there may be none to put there.
            "configuration": {"chunk_shape": [max(1, size) for size in chunk]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _fill_value(dtype),
        "codecs": [
            *([_PCODEC] if _by_pcodec(dtype) else [{"name": "bytes"} | order, _ZSTD]),
            {"name": "crc32c"},
        ],
        "attributes": dict(attrs or {}),
        "dimension_names": list(dims),
        "zarr_format": 3,
        "node_type": "array",
    }


def pack(values: np.ndarray) -> bytes | None:
    """Return the bytes of a chunk; None if it holds no numbers, so that none is stored."""
    if not values.size:
        return None
    import google_crc32c

    native = values.astype(values.dtype.newbyteorder("="), order="C", copy=False)
    packed = bytes(_encoded(native))
    return packed + google_crc32c.value(packed).to_bytes(4, "little")


def packed_rows(
    values: np.ndarray, n_rows: int, chunk: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], bytes | None]]:
    """Yield the chunks of the rows of one block and lane, padded with zeros to `n_rows`.

    `chunk` is their shape after the rows, a divisor of that of `values` (row, ...). With each comes
    its place among them.
    """
    full = np.zeros((n_rows, *values.shape[1:]), values.dtype)
    full[: len(values)] = values
    for at in np.ndindex(*_counts(values.shape[1:], chunk)):
        inside = tuple(slice(i * n, (i + 1) * n) for i, n in zip(at, chunk, strict=True))
        yield at, pack(full[:, *inside])


def _by_pcodec(dtype: np.dtype) -> bool:
    return dtype.kind in "iuf" and dtype.itemsize >= 4


def _encoded(values: np.ndarray) -> Any:
    """Return what stands in a chunk before its crc32c."""
    from numcodecs.pcodec import PCodec  # type: ignore[import-untyped]
    from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

    if _by_pcodec(values.dtype):
        _let_pcodec_find_numpy()
        return PCodec(**_PCODEC["configuration"]).encode(values)
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return Zstd(**_ZSTD["configuration"]).encode(little)


def packed_bytes(integers: np.ndarray) -> int:
    """Estimate the bytes that an array of integers takes as one chunk, 0.5 % above the truth."""
    from pcodec import ChunkConfig, standalone  # type: ignore[import-untyped]

    if not integers.size:
        return 0
    _let_pcodec_find_numpy()
    flat = np.ascontiguousarray(integers, dtype=np.int32).ravel()
    return len(standalone.simple_compress(flat, ChunkConfig(compression_level=_ESTIMATE)))


@cache
def _let_pcodec_find_numpy() -> None:
    """Use pcodec a first time where Ctrl-C does not reach it: interrupted there, it panics."""
    from pcodec import ChunkConfig, standalone

    uninterrupted(standalone.simple_compress, np.zeros(1, np.int32), ChunkConfig())


def chunk_counts(document: Mapping[str, Any]) -> list[int]:
    """Return how many chunks an array has along each dimension."""
    return _counts(document["shape"], chunk_shape(document))


def chunk_shape(document: Mapping[str, Any]) -> list[int]:
    """Return the shape of an array's chunks."""
    return list(document["chunk_grid"]["configuration"]["chunk_shape"])


def _counts(shape: Sequence[int], chunk: Sequence[int]) -> list[int]:
    return [max(1, size // max(1, own)) for size, own in zip(shape, chunk, strict=True)]


def checksum_of(chunk: bytes) -> int:
    """Return the crc32c in which the bytes of a chunk end."""
    return int.from_bytes(chunk[-4:], "little")


def kind_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an array's chunks must have in common."""
    return {
        "shape after rows": document["shape"][1:],
        "chunks": chunk_shape(document),
        "dtype": document["data_type"],
        "dims": document["dimension_names"],
        "codecs": [codec["name"] for codec in document["codecs"]],
    }


def check_document(document: Any, path: str) -> None:
    """Check that an array's metadata are of the kind that :func:`metadata` makes.

    Raises
    ------
    ArchiveError
        If not, so that nothing is allocated by, or decoded with, what a damaged file says.
    """
    try:
        shape, chunk = document["shape"], chunk_shape(document)
        codecs = [codec["name"] for codec in document["codecs"]]
        good = (
            document["node_type"] == "array"
            and all(type(size) is int for size in (*shape, *chunk))
            and len(shape) == len(chunk) == len(document.get("dimension_names") or ())
            and min((0, *shape)) == 0
            and min((1, *chunk)) == 1
            and math.prod(chunk) <= LARGEST_CHUNK
            and codecs in (["numcodecs.pcodec", "crc32c"], ["bytes", "zstd", "crc32c"])
            and document["chunk_key_encoding"]
            == {"name": "default", "configuration": {"separator": "/"}}
            and np.dtype(document["data_type"]).kind in "biuf"
        )
    except (KeyError, TypeError, IndexError, ValueError):
        good = False
    if not good:
        raise ArchiveFault(f"the metadata of {path!r} are damaged, or not those of an archive")


def open_array(store: Any, path: str, document: Mapping[str, Any]) -> Any:
    """Return the Zarr array at a path of a store, of metadata that are known already."""
    import zarr
    from zarr.storage import StorePath

    with _without_warning():
        return zarr.Array.from_dict(StorePath(store, path), dict(document))


def _fill_value(dtype: np.dtype) -> Any:
    """Return what stands at places that were never written: a value that hardly any number has."""
    if dtype.kind == "f":
        return "NaN"
    if dtype.kind == "b":
        return False
    limits = np.iinfo(dtype)
    return int(limits.min if dtype.kind == "i" else limits.max)


@contextmanager
def _without_warning() -> Iterator[None]:
    """Silence Zarr on pcodec, which its specification lacks, while an array is opened."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr version 3")
        yield
