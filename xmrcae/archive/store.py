"""An archive's arrays, read by block from any URL."""

from __future__ import annotations

import json
import math
import os
import re
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from .folder import Folder
from .format import ABOUT, FORMAT_VERSION, ArchiveError, ArchiveFault, dumps, require, sound
from .journal import JOURNAL
from .kept import Kept
from .packing import (
    LARGEST_CHUNK,
    check_document,
    checksum_of,
    chunk_counts,
    chunk_shape,
    open_array,
)

#: Name of an archive's description; it is written last.
ROOT = "zarr.json"

#: Bytes of decoded chunks that are kept.
CACHE = 2**26


class ArchiveStore:
    """An archive that is read; made by `open`. It pickles, and threads may share it.

    Attributes
    ----------
    about : dict
        What the archive says of itself.
    n_blocks : int
        Blocks of rows.
    arrays : dict of str to dict
        Metadata of every array, by path.
    """

    def __init__(self, folder: Folder, root: Mapping[str, Any]) -> None:
        self._folder = folder
        self.about: dict[str, Any] = root["attributes"][ABOUT]
        self._lengths, self._lanes = _sizes(self.about, folder.url)
        self.n_blocks = len(self._lengths)
        self.arrays = _arrays(root)
        for path, document in self.arrays.items():
            self._check_shape(path, document)
        self._store = folder.store(self._check_chunk)
        self._open: dict[str, Any] = {}
        self._kept = Kept(CACHE)

    @classmethod
    def open(
        cls, url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
    ) -> ArchiveStore:
        """Open an archive, as :func:`xmrcae.open_archive` documents it."""
        require()
        folder = Folder(url, storage_options)
        root = read_root(folder)
        if root is not None:
            return cls(folder, root)
        if folder.exists(JOURNAL):
            raise ArchiveError(
                f"writing of {folder.url} was stopped: the same call finishes it, "
                "or another process is writing it now"
            )
        raise ArchiveError(f"there is no archive at {folder.url}")

    def __reduce__(self) -> tuple[Callable[..., ArchiveStore], tuple[str]]:
        return partial(type(self).open, storage_options=self._folder.options), (self._folder.url,)

    def reopened(self) -> ArchiveStore:
        """Return the archive as it is now, with what was appended since this was opened."""
        return type(self).open(**self.location)

    @property
    def location(self) -> dict[str, Any]:
        """The URL and the options of its file system, as arguments of :meth:`open`."""
        return {"url": self._folder.url, "storage_options": self._folder.options}

    def static(self, path: str) -> np.ndarray:
        """Return a whole array without rows; an ArchiveError if it is missing or damaged."""
        checksum = self.about["checksums"].get(path)
        if path not in self.arrays or checksum is None:
            raise ArchiveFault(f"{self._folder.url} has no array {path!r}")
        values = self._read(path, ..., (0,) * len(self.arrays[path]["shape"]))
        if zlib.crc32(values.tobytes()) != checksum:
            raise ArchiveFault(f"{path!r} of {self._folder.url} is not what was written")
        return values

    def rows(self, path: str, block: int, lane: int = 0) -> np.ndarray:
        """Return the rows of one block and lane, (row, ...), read-only: the last chunks are kept.

        Lanes are numbered with the last of the other sample dimensions varying fastest. An
        ArchiveError tells of an array that is not there, or a chunk that is missing or damaged.
        """
        if path not in self.arrays or path in self.about["checksums"]:
            raise ArchiveFault(f"{self._folder.url} has no array {path!r} of rows")
        for name, got, size in (
            ("block", block, self.n_blocks),
            ("lane", lane, math.prod(self._lanes)),
        ):
            if not 0 <= got < size:
                raise IndexError(f"{name} must lie between 0 and {size - 1}, got {got}")
        key = (path, block, lane)
        values = self._kept.get(key)
        if values is None:
            values = self._chunk(path, block, lane)
            self._kept.put(key, values)
        return values[: self._lengths[block]]

    def n_bytes(self) -> dict[str, Any]:
        """Return the bytes of the archive's files, found by listing them.

        "time" are those of chunks that grow with the rows, "model" of all else, metadata included,
        "arrays" of the chunks of every array, by path.
        """
        arrays, total = dict.fromkeys(self.arrays, 0), 0
        for key, size in self._folder.sizes().items():
            path, _ = chunk_of(key)
            if path in arrays:
                arrays[path] += size
            total += size * (key != JOURNAL and is_of_archive(key))
        time = sum(size for path, size in arrays.items() if path not in self.about["checksums"])
        return {"model": total - time, "time": time, "arrays": arrays}

    def _chunk(self, path: str, block: int, lane: int) -> np.ndarray:
        """Return the rows of one block and lane, padding included, read-only."""
        size = self.about["rows_per_block"]
        lanes = tuple(int(index) for index in np.unravel_index(lane, self._lanes))
        document, n_leading = self.arrays[path], 1 + len(lanes)
        trailing = document["shape"][n_leading:]
        own = chunk_shape(document)[n_leading:]
        values = np.empty((size, *trailing), np.dtype(document["data_type"]))
        rows = slice(block * size, (block + 1) * size)
        for at in np.ndindex(*chunk_counts(document)[n_leading:]):
            inside = tuple(slice(i * c, (i + 1) * c) for i, c in zip(at, own, strict=True))
            found = self._read(path, (rows, *lanes, *inside), (block, *lanes, *at))
            values[:, *inside] = found
        values.flags.writeable = False
        return values

    def _read(self, path: str, selection: Any, chunk: tuple[int, ...]) -> np.ndarray:
        """Return the values of one chunk, which must be there and sound."""
        try:
            array = self._open.get(path)
            if array is None:
                array = self._open[path] = open_array(self._store, path, self.arrays[path])
            return np.asarray(array[selection])
        except (ArchiveError, OSError, MemoryError):
            raise
        except Exception as error:  # each codec has its own kinds
            raise ArchiveFault(
                f"chunk {chunk} of {path!r} of {self._folder.url} is damaged: {error}"
            ) from error

    def _check_chunk(self, key: str, data: bytes) -> None:
        """Check that a chunk of rows is the one that was written there, if that was noted."""
        path, _, at = key.rpartition("/c/")
        noted = self.about.get("chunks", {}).get(path)
        if noted is None:
            return
        place = tuple(map(int, at.split("/")))
        checksum = noted[np.ravel_multi_index(place, chunk_counts(self.arrays[path]))]
        if checksum not in (None, checksum_of(data)):
            raise ArchiveFault(f"{key} of {self._folder.url} is another chunk of it")

    def _check_shape(self, path: str, document: Mapping[str, Any]) -> None:
        """Check that an array has the chunks that the description asks for."""
        shape = list(document["shape"])
        chunk = chunk_shape(document)
        if path in self.about["checksums"]:
            good = chunk == [max(1, size) for size in shape]
        else:
            rows, lanes = self.about["rows_per_block"], list(self._lanes)
            n = 1 + len(lanes)
            good = shape[:n] == [rows * self.n_blocks, *lanes]
            good &= chunk[:n] == [rows, *(1 for _ in lanes)]
            good &= math.prod([rows, *shape[n:]]) <= LARGEST_CHUNK
            good &= all(size % own == 0 for size, own in zip(shape[n:], chunk[n:], strict=True))
        if not good:
            raise ArchiveFault(
                f"{path!r} of {self._folder.url} has the shape {shape} in chunks of {chunk}, "
                "which the archive's description does not allow"
            )


def read_root(folder: Folder) -> dict[str, Any] | None:
    """Return the metadata of an archive's root, less their own checksum; None if there are none.

    An ArchiveError tells of such as cannot be read, or are not an archive's, or of a later version.
    """
    try:
        root = json.loads(folder.read(ROOT))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ArchiveFault(f"{ROOT} of {folder.url} is damaged: {error}") from error
    attributes = root.get("attributes") if isinstance(root, dict) else None
    about = attributes.get(ABOUT) if isinstance(attributes, dict) else None
    if not isinstance(about, dict):
        raise ArchiveError(f"{folder.url} is no archive of xmrcae's: it has no {ABOUT!r}")
    version = about.get("format_version")
    if type(version) is not int or version < 1:
        raise ArchiveFault(f"the archive at {folder.url} is damaged: its version is {version!r}")
    if version > FORMAT_VERSION:
        raise ArchiveError(
            f"the archive at {folder.url} has format version {version}, this xmrcae reads up to "
            f"{FORMAT_VERSION}: install a newer one"
        )
    with sound():  # JSON has no NaN
        written, found = about.pop("checksum", None), zlib.crc32(dumps(root))
    if written != found:
        raise ArchiveFault(f"{ROOT} of {folder.url} is not what was written")
    return root


def n_visible(folder: Folder) -> int | None:
    """Return how many blocks the archive of a folder has; None if none opens there."""
    root = read_root(folder)
    return None if root is None else ArchiveStore(folder, root).n_blocks


def is_of_archive(key: str) -> bool:
    """Tell whether a file of an archive's folder is where writers put theirs.

    Users put others there: a README, what a catalogue or a desktop notes of a folder.
    """
    inside = re.fullmatch(r"(level_\d+|labels|rows|model|masks|season)/.+", key)
    is_part = bool(chunk_of(key)[0]) or PurePosixPath(key).name == ROOT
    return key in (ROOT, JOURNAL) or (inside is not None and is_part)


def chunk_of(key: str) -> tuple[str, int]:
    """Return the path of the array that a file is a chunk of, "" if none, and its first index.

    The first index counts the chunks along the rows.
    """
    found = re.fullmatch(r"(.+)/c((?:/\d+)*)", key)
    if found is None:
        return "", 0
    return found[1], int(found[2].split("/")[1]) if found[2] else 0


@sound()
def _sizes(about: Mapping[str, Any], url: str) -> tuple[list[int], tuple[int, ...]]:
    """Return the rows of every block, and the sizes of the other sample dimensions."""
    rows, lanes = about["rows_per_block"], about["lanes"]
    lengths, checksums = about["blocks"]["length"], about["checksums"]
    if not (
        all(type(n) is int and n >= 1 for n in (rows, *lanes))
        and all(type(n) is int and 1 <= n <= rows for n in lengths)
        and all(type(checksum) is int for checksum in checksums.values())
    ):
        raise ArchiveFault(f"the archive at {url} is damaged: the sizes of its blocks are lacking")
    return lengths, tuple(lanes)


@sound()
def _arrays(root: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metadata of the arrays, by path."""
    members = root["consolidated_metadata"]["metadata"]
    arrays = {path: one for path, one in members.items() if one["node_type"] != "group"}
    for path, document in arrays.items():
        check_document(document, path)
    return arrays
