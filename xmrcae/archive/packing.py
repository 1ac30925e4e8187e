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


class Packer:
    """Chunks of one shape and dtype, packed as Zarr would.

    Parameters
    ----------
    shape : sequence of int
        Of a chunk; dimensions of length 0 have none.
    dtype : numpy.dtype
        bool, integers, or floats, of 1 to 8 bytes.
    dims : sequence of str
        Names of the dimensions.
    attrs : mapping, optional
        Attributes of the array, as JSON has them.

    Raises
    ------
    TypeError
        For another dtype.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: Any,
        dims: Sequence[str],
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        self.dtype = np.dtype(dtype).newbyteorder("=")
        if self.dtype.kind not in "biuf" or self.dtype.itemsize > 8:
            raise TypeError(f"an archive takes bool, integers and floats, got {self.dtype}")
        self.shape, self._dims, self._attrs = tuple(shape), list(dims), dict(attrs or {})
        self._by_pcodec = self.dtype.kind in "iuf" and self.dtype.itemsize >= 4

    def document(self, shape: Sequence[int]) -> dict[str, Any]:
        """Return the metadata of an array of this shape that is made of such chunks."""
        order = {"configuration": {"endian": "little"}} if self.dtype.itemsize > 1 else {}
        return {
            "shape": list(shape),
            "data_type": self.dtype.name,
            "chunk_grid": {
                "name": "regular",
                # A chunk has one number at least, though there may be none to put there.
                "configuration": {"chunk_shape": [max(1, size) for size in self.shape]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": _fill_value(self.dtype),
            "codecs": [
                *([_PCODEC] if self._by_pcodec else [{"name": "bytes"} | order, _ZSTD]),
                {"name": "crc32c"},
            ],
            "attributes": self._attrs,
            "dimension_names": self._dims,
            "zarr_format": 3,
            "node_type": "array",
        }

    def pack(self, values: np.ndarray) -> bytes | None:
        """Return the bytes of a chunk; None if it holds no numbers, so that none is stored."""
        if not values.size:
            return None
        import google_crc32c

        values = values.astype(self.dtype, order="C", casting="equiv", copy=False)
        packed = bytes(self._pack(values))
        return packed + google_crc32c.value(packed).to_bytes(4, "little")

    def _pack(self, values: np.ndarray) -> Any:
        """Return what stands in a chunk before its crc32c."""
        from numcodecs.pcodec import PCodec  # type: ignore[import-untyped]
        from numcodecs.zstd import Zstd  # type: ignore[import-untyped]

        if self._by_pcodec:
            _let_pcodec_find_numpy()
            return PCodec(**_PCODEC["configuration"]).encode(values)
        little = values.astype(self.dtype.newbyteorder("<"), copy=False)
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
    shape, chunk = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
    return [max(1, size // own) for size, own in zip(shape, chunk, strict=True)]


def checksum_of(chunk: bytes) -> int:
    """Return the crc32c in which the bytes of a chunk end."""
    return int.from_bytes(chunk[-4:], "little")


def kind_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an array's chunks must have in common."""
    return {
        "shape after rows": document["shape"][1:],
        "chunks": document["chunk_grid"]["configuration"]["chunk_shape"],
        "dtype": document["data_type"],
        "dims": document["dimension_names"],
        "codecs": [codec["name"] for codec in document["codecs"]],
    }


def check_document(document: Any, path: str) -> None:
    """Check that an array's metadata are of the kind that `Packer` writes.

    Raises
    ------
    ArchiveError
        If not, so that nothing is allocated by, or decoded with, what a damaged file says.
    """
    try:
        shape, chunk = document["shape"], document["chunk_grid"]["configuration"]["chunk_shape"]
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
