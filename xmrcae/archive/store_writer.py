"""An archive's arrays, written block by block so that a run that was stopped can go on."""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from .folder import Folder
from .format import ABOUT, dumps, group, plain
from .journal import JOURNAL, noted, record
from .packing import checksum_of, chunk_counts, kind_of, metadata, pack, packed_rows
from .store import ROOT, chunk_of, is_of_archive


class ArchiveWriter:
    """An archive that is written, while its folder is locked.

    Blocks are written in order: `put_rows` of every array and lane, then `finish_block`. The
    archive opens, or shows what was appended, after `commit`. Without it, what is complete is
    kept: the same call, taken up by its record, goes on after it, and every file ends up the same
    to the byte.

    Parameters
    ----------
    folder : Folder
        Where.
    journal : mapping
        As :func:`xmrcae.archive.journal.taken_up` returns it.
    about : mapping
        "rows_per_block" and "lanes"; all that an archive that is appended to says of itself.
    arrays : mapping of str to mapping, optional
        Metadata of the arrays of an archive that is appended to, by path.

    Attributes
    ----------
    n_before : int
        Blocks that were there before.
    finished : list of dict
        Records of the blocks that are complete since then, a stopped run's included.
    n_bytes : int
        Bytes of the chunks that this run has written.
    checksums : dict of str to int
        Of the arrays without rows.
    """

    def __init__(
        self,
        folder: Folder,
        journal: Mapping[str, Any],
        about: Mapping[str, Any],
        arrays: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        self._folder, self._journal, self.about = folder, journal, about
        self.n_before: int = journal["n_before"]
        self.finished: list[dict[str, Any]] = list(journal["blocks"])
        self.checksums: dict[str, int] = dict(about.get("checksums", {}))
        there = arrays or {}
        self._static = {path: there[path] for path in there if path in self.checksums}
        rows = {path: there[path] for path in there if path not in self.checksums}
        self._rows: dict[str, dict[str, Any]] = journal["rows"] | rows
        self._chunks: dict[str, list[int | None]] = {}  # checksums of those of this block
        self.n_bytes = 0
        self._clear()
        self._write_journal()

    def put_static(
        self,
        path: str,
        values: np.ndarray,
        dims: Sequence[str],
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Write an array that has no rows, in one chunk.

        Its attributes are given as JSON has them. A TypeError is raised unless `values` are bool,
        integers, or floats of 2 to 8 bytes.
        """
        self._static[path] = metadata(values.shape, values.shape, values.dtype, dims, attrs)
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        self.checksums[path] = zlib.crc32(native.tobytes())
        self._put_document(path, self._static[path])
        self._put_chunk(path, (0,) * values.ndim, pack(values))

    def put_rows(
        self,
        path: str,
        lane: int,
        values: np.ndarray,
        dims: Sequence[str],
        *,
        attrs: Mapping[str, Any] | None = None,
        chunk: Sequence[int] | None = None,
    ) -> None:
        """Write the rows of one lane of the next block; they count once that is finished.

        Parameters
        ----------
        values : numpy.ndarray
            (row, ...), of a type as for `put_static`; blocks that are not full are padded.
        dims : sequence of str
            Names of all dimensions of the array: rows, lanes, those of a row.
        attrs : mapping, optional
            Attributes of the array, as JSON has them; those that it has already stay.
        chunk : sequence of int, optional
            What of a row a chunk holds, a divisor of its shape; all of it by default.

        Raises
        ------
        ValueError
            If `values` do not fit the block, or the array that is there.
        """
        lanes, n_rows = tuple(self.about["lanes"]), self.about["rows_per_block"]
        place = tuple(map(int, np.unravel_index(lane, lanes)))
        own = values.shape[1:] if chunk is None else tuple(chunk)
        whole = (n_rows, *(1 for _ in lanes), *own)
        put = metadata((0, *lanes, *values.shape[1:]), whole, values.dtype, dims, attrs)
        there = self._rows.setdefault(path, put)
        if kind_of(put) != kind_of(there):
            was, now = kind_of(there), kind_of(put)
            raise ValueError(f"{path!r} of the archive is {was}; what was put there is {now}")
        counts = chunk_counts(there)[1:]
        checksums = self._chunks.setdefault(path, [None] * math.prod(counts))
        for at, data in packed_rows(values, n_rows, own):
            self._put_chunk(path, (self.n_complete, *place, *at), data)
            if data is not None:
                checksums[np.ravel_multi_index((*place, *at), counts)] = checksum_of(data)

    @property
    def n_complete(self) -> int:
        """Number of complete blocks, those that were there before included."""
        return self.n_before + len(self.finished)

    def finish_block(self, measured: Mapping[str, Any]) -> None:
        """Note that a block is complete, and what was measured; a run that goes on begins after it.

        A ValueError is raised if JSON cannot hold it, as NaN.
        """
        self.finished.append(plain({**measured, "chunks": self._chunks}))
        self._chunks = {}
        self._write_journal()

    def commit(self, about: Mapping[str, Any], attributes: Mapping[str, Any]) -> None:
        """Make the archive, or what was appended, visible, by replacing one file.

        Parameters
        ----------
        about : mapping
            The archive's description, as JSON has it; "checksums", "chunks" and "checksum" are
            added.
        attributes : mapping
            Other attributes of the root.

        Raises
        ------
        ValueError
            If ``about["blocks"]["length"]`` does not list the blocks, or JSON cannot hold it.
        """
        n_blocks = self.n_complete
        if len(about["blocks"]["length"]) != n_blocks:
            raise ValueError(
                f"about['blocks']['length'] must list {n_blocks} blocks, "
                f"got {len(about['blocks']['length'])}"
            )
        about = dict(about) | {"checksums": dict(sorted(self.checksums.items()))}
        about["chunks"] = noted(
            self._rows, self.finished, self.about.get("chunks", {}), self.n_before
        )
        rows = n_blocks * self.about["rows_per_block"]
        changed = self._group_documents()
        for path, own in self._rows.items():
            changed[path] = own | {"shape": [rows, *own["shape"][1:]]}
        members = dict(sorted((self._static | changed).items()))
        root = group({**attributes, ABOUT: about}) | {
            "consolidated_metadata": {
                "kind": "inline",
                "must_understand": False,
                "metadata": members,
            }
        }
        about["checksum"] = zlib.crc32(dumps(root))  # raises before anything is written
        for path in sorted(changed):
            self._put_document(path, changed[path])
        self._folder.write(ROOT, dumps(root))
        self._folder.remove(JOURNAL)

    def _clear(self) -> None:
        """Remove what a stopped run left beyond its complete blocks; others' files stay."""
        members = *self._static, *self._rows, *self._group_documents()
        kept = {JOURNAL, ROOT, *(f"{path}/{ROOT}" for path in members)}
        for key in self._folder.sizes():
            path, first = chunk_of(key)
            complete = path in self._rows and first < self.n_complete
            if is_of_archive(key.removesuffix(".part")) and not (
                key in kept or complete or path in self.checksums
            ):
                self._folder.remove(key)

    def _put_chunk(self, path: str, at: Sequence[int], data: bytes | None) -> None:
        if data is not None:
            self._folder.write("/".join([path, "c", *map(str, at)]), data)
            self.n_bytes += len(data)

    def _put_document(self, path: str, own: Mapping[str, Any]) -> None:
        self._folder.write(f"{path}/{ROOT}", dumps(own))

    def _group_documents(self) -> dict[str, dict[str, Any]]:
        """Return the metadata of every group above an array."""
        paths = {
            str(parent)
            for path in (*self._static, *self._rows)
            for parent in (PurePosixPath(path) / "_").parents
        } - {".", *self._static, *self._rows}
        return {path: group({}) for path in paths}

    def _write_journal(self) -> None:
        record(self._folder, {**self._journal, "rows": self._rows, "blocks": self.finished})


@contextlib.contextmanager
def forgotten(folder: Folder, finished: Sequence[Any]) -> Iterator[None]:
    """Remove what a run that fails has written of a new archive before a block was complete.

    Another call finds the place free then. A run that is killed leaves what the same call goes on
    with.
    """
    try:
        yield
    except Exception:
        with contextlib.suppress(Exception):  # the first error tells more
            for key in () if finished else folder.sizes():
                if is_of_archive(key.removesuffix(".part")):
                    folder.remove(key)
        raise
