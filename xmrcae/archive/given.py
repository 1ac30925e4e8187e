"""The data of one call, read block by block, and what tells them from other data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from .source import Source


class Digest:
    """What tells arrays from others: the crc32c of their bytes, quick beside the coding."""

    def __init__(self) -> None:
        self._crc32c = 0

    def add(self, array: np.ndarray) -> None:
        """Take in an array (row, ...) of any type."""
        if array.dtype.kind in "OTUS":  # bytes of dates of cftime, and of texts, are not their own
            self._add(repr(array.tolist()).encode())
            return
        for row in array:  # a row may have to be copied; that of all would take memory
            self._add(row.tobytes())

    def _add(self, data: bytes) -> None:
        import google_crc32c

        self._crc32c = google_crc32c.extend(self._crc32c, data)

    def __str__(self) -> str:
        return f"{self._crc32c:08x}"


@dataclass(frozen=True)
class Given:
    """The data of one call.

    Attributes
    ----------
    source : Source
        Of the archived variables.
    labels : mapping of str to xarray.Variable
        What lies along the rows beside them, by name, rows first.
    rows_per_block : int
    """

    source: Source
    labels: Mapping[str, xr.Variable]
    rows_per_block: int

    @property
    def blocks(self) -> list[slice]:
        """The rows of each block."""
        return list(self.source.blocks(self.rows_per_block))

    @property
    def lengths(self) -> list[int]:
        """How many rows each block has."""
        return [len(range(self.source.n_rows)[rows]) for rows in self.blocks]

    def values(self, rows: slice, digest: Digest) -> tuple[np.ndarray, np.ndarray]:
        """Read values and seasons of some rows as :meth:`Source.read`, and add them to a digest."""
        values, season = self.source.read(rows)
        digest.add(values)
        digest.add(season)
        return values, season

    def labels_of(self, rows: slice, digest: Digest) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the labels of some rows by their names, and add them to a digest."""
        for name, variable in self.labels.items():
            part = np.asarray(variable.isel({self.source.append: rows}).values)
            digest.add(part)
            yield name, part

    def matches(self, records: Sequence[Mapping[str, Any]], *, progress: bool) -> bool:
        """Tell whether the first blocks, by their records, were written of these data."""
        bar = tqdm(records, desc="compare", unit="block", disable=not (progress and records))
        return all(
            record["digest"] == self._digest(rows)
            for record, rows in zip(bar, self.blocks, strict=False)
        )

    def _digest(self, rows: slice) -> str:
        digest = Digest()
        self.values(rows, digest)
        for _ in self.labels_of(rows, digest):
            pass
        return str(digest)
