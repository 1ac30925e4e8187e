"""How arrays become bytes: the Zarr codecs of each kind of array, one chunk at a time.

Numbers of 32 and 64 bits are packed by pcodec, others (bool, 8 and 16 bits) by Zstandard; both
losslessly, and every chunk ends in its crc32c.
"""

from __future__ import annotations

import json
import math
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .format import ArchiveFault

#: Numbers that one chunk may hold: more than any that was written, less than memory has.
LARGEST_CHUNK = 2**30

# Steps take 0.5 % more at level 8; at level 10 they take 0.3 % less, but floats half the speed.
_PCODEC: dict[str, Any] = {"name": "numcodecs.pcodec", "configuration": {"level": 9}}
_BYTES: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
_ZSTD: dict[str, Any] = {"name": "zstd", "configuration": {"level": 12, "checksum": False}}
_CHECKSUM: dict[str, Any] = {"name": "crc32c"}

_FILTERS = threading.Lock()  # warnings.catch_warnings changes the whole process's filters


class Packer:
    """Chunks of one shape and dtype, packed in memory as Zarr does.

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
    transpose : bool, default: False
        Pack with the last dimension first: numbers that are adjacent along the first dimension
        stand together, which packs better where they resemble each other more.

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
        *,
        transpose: bool = False,
    ) -> None:
        import zarr
        from zarr.storage import MemoryStore

        self.dtype = np.dtype(dtype).newbyteorder("=")
        if self.dtype.kind not in "biuf" or self.dtype.itemsize > 8:
            raise TypeError(f"an archive takes bool, integers and floats, got {self.dtype}")
        by_pcodec = self.dtype.kind in "iuf" and self.dtype.itemsize >= 4
        self.shape = tuple(shape)
        dims = list(dims)
        # Zarr's own transpose would give pcodec an array in Fortran's order, which numcodecs
        # packs as it lies in memory and so undoes the transpose: the values would come back
        # mixed up. Here the array is transposed, and what document() says of it is not.
        self._order = [len(shape) - 1, *range(len(shape) - 1)] if transpose else None
        if self._order is not None:
            shape, dims = ([of[axis] for axis in self._order] for of in (shape, dims))
        self._files: dict[str, Any] = {}
        with _without_warning():
            self._array = zarr.create_array(
                MemoryStore(self._files),
                shape=tuple(shape),
                # A chunk has one number at least, though there may be none to put there.
                chunks=tuple(max(1, size) for size in shape),
                dtype=self.dtype,
                filters=[],
                serializer=_PCODEC if by_pcodec else _BYTES,
                compressors=[_CHECKSUM] if by_pcodec else [_ZSTD, _CHECKSUM],
                fill_value=_fill_value(self.dtype),
                dimension_names=tuple(dims),
                attributes=dict(attrs or {}),
                config={"write_empty_chunks": True},
            )

    def document(self, shape: Sequence[int]) -> dict[str, Any]:
        """Return the metadata of an array of this shape that is made of such chunks."""
        document = json.loads(json.dumps(self._array.metadata.to_dict()))  # lists for tuples
        document["shape"] = list(shape)
        if not document.get("storage_transformers"):
            document.pop("storage_transformers", None)
        if self._order is not None:
            back = np.argsort(self._order)
            grid, dims = document["chunk_grid"]["configuration"], document["dimension_names"]
            grid["chunk_shape"] = [grid["chunk_shape"][axis] for axis in back]
            document["dimension_names"] = [dims[axis] for axis in back]
            codec = {"name": "transpose", "configuration": {"order": self._order}}
            document["codecs"].insert(0, codec)
        return document

    def pack(self, values: np.ndarray) -> bytes | None:
        """Return the bytes of a chunk; None if it holds no numbers, so that none is stored."""
        if self._order is not None:
            values = values.transpose(self._order)
        self._array[...] = values.astype(self.dtype, order="C", casting="equiv", copy=False)
        chunks = [self._files.pop(key) for key in [*self._files] if key != "zarr.json"]
        return chunks[0].to_bytes() if chunks else None


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
            and codecs[codecs[0] == "transpose" :]
            in (
                ["numcodecs.pcodec", "crc32c"],
                ["bytes", "zstd", "crc32c"],
            )
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
        return float("nan")
    if dtype.kind == "b":
        return False
    limits = np.iinfo(dtype)
    return limits.min if dtype.kind == "i" else limits.max


@contextmanager
def _without_warning() -> Iterator[None]:
    """Silence Zarr on pcodec, which its specification lacks, while an array is opened."""
    with _FILTERS, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Numcodecs codecs are not in the Zarr version 3")
        yield
