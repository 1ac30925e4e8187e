"""The variables of an archive as arrays that are decoded where they are indexed.

Of a block only the snapshots up to the last one asked for are decoded: the rest of a snapshot is
predicted from those before it. A level below the finest needs its own base maps and the codes of
the levels up to it, nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from ..io.network_arrays import from_arrays
from .base import base_maps
from .block import BlockCoder, Variable, clipped
from .code_prediction import code_weights, undo_codes
from .decoder import Decoder
from .format import ArchiveFault, sound
from .kept import Kept
from .parts import PATH, unpacked
from .store import ArchiveStore
from .waves import Predictor

#: Bytes of decoded blocks that are kept: neighbours in time are often asked for one by one.
CACHE = 2**27

#: What was asked of a variable, which appended blocks keep to.
BOUNDS = ("max_error", "rmse", "lossless")

#: Blocks that are decoded at the same time.
THREADS = 2


class Reader:
    """Decoded fields of an archive, block by block. It pickles, and threads may share it.

    Parameters
    ----------
    store : ArchiveStore
        The archive.

    Attributes
    ----------
    levels : int
        Number of levels.
    arrays : list of str
        Names of the archived variables' arrays, in the order of the network.
    lengths : list of int
        Rows of every block.
    dims : list of str
        The sample dimensions, first the one that rows lie along if there is one; then y and x.
    """

    @sound()
    def __init__(self, store: ArchiveStore) -> None:
        self.store, about = store, store.about
        self.levels = len(about["levels"])
        self.arrays = [each["array"] for each in about["variables"]]
        self.dims = [*about["sample"], *about["horizontal"]]
        if about["append"] not in (None, *about["sample"]):
            raise ArchiveFault(f"the archive is damaged: it has no dimension {about['append']!r}")
        self.lengths: list[int] = about["blocks"]["length"]
        self._coders: dict[int, BlockCoder] = {}
        self._kept = Kept(CACHE)
        self._lock = threading.RLock()

    def __reduce__(self) -> tuple[Callable[..., Reader], tuple[ArchiveStore]]:
        return type(self), (self.store,)

    @cached_property
    def model(self) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
        """The model's part: Datasets of plain arrays, and what is beside them."""
        return unpacked(self.store.static(PATH))

    @cached_property
    @sound()
    def decoder(self) -> Decoder:
        """The decoder of the archive's model."""
        about, (datasets, header) = self.store.about, self.model
        arrays = {str(name): each.values for name, each in datasets["network"].items()}
        cuts = [(slice(*y), slice(*x)) for y, x in (level["cut"] for level in about["levels"])]
        decoder = Decoder(from_arrays(arrays, header["attrs"]["about"]["network"]), cuts)
        shapes = [tuple(level["shape"]) for level in about["levels"]]
        extents = [tuple(part.stop - part.start for part in cut) for cut in cuts]
        if not shapes == extents == [valid.shape[1:] for valid in decoder.valid]:
            raise ArchiveFault("the archive is damaged: its levels are not those of its model")
        return decoder

    @cached_property
    def kept(self) -> np.ndarray:
        """Pixels of the finest level that the archive has a place for, (variable, y, x)."""
        shape = len(self.arrays), *self.store.about["levels"][-1]["shape"]
        before = sum(valid.size for valid in self.decoder.valid[:-1])
        bits = np.unpackbits(self.store.static("masks"), count=before + int(np.prod(shape)))
        return bits[before:].astype(bool).reshape(shape)

    def pixels(self, level: int) -> np.ndarray:
        """Return the pixels of a level that may hold values, (variable, y, x)."""
        return self.kept if level == self.levels - 1 else self.decoder.valid[level]

    def points(self, level: int) -> list[np.ndarray]:
        """Return the rows and the columns of the data that a level's lie on, both ascending."""
        about, step = self.store.about["levels"], 2 ** (self.levels - 1 - level)
        cuts = zip(about[level]["cut"], about[-1]["cut"], strict=True)
        return [(np.arange(*own) + 1) * step - 1 - start for own, (start, _) in cuts]

    def base(self, level: int) -> list[np.ndarray]:
        """Return the base maps of each variable on a level's pixels, (season, pixel)."""
        about = self.store.about
        kept = self.pixels(level)
        ends = np.cumsum(kept.sum((1, 2)))[:-1]
        stored = np.split(self.store.static(f"level_{level}/base"), ends, axis=1)
        records = [each["base"] for each in about["variables"]]
        return [
            base_maps(own, mask, record["weights"][level], record["steps"][level], about["seasons"])
            for own, mask, record in zip(stored, kept, records, strict=True)
        ]

    @sound()
    def coder(self, level: int) -> BlockCoder:
        """Return what decodes the fields of one level."""
        with self._lock:
            if level not in self._coders:
                variables = [
                    self._variable(v, level, base) for v, base in enumerate(self.base(level))
                ]
                steps = [np.asarray(each) for each in self.store.about["code_steps"]]
                self._coders[level] = BlockCoder(self.decoder, variables, steps)
            return self._coders[level]

    def _variable(self, v: int, level: int, base: np.ndarray) -> Variable:
        """Return how a variable is kept, as far as decoding a level needs it."""
        about, predictor, classes = self.store.about["variables"][v], None, None
        finest = level == self.levels - 1
        if finest and about["weights"] is not None:
            predictor = Predictor(self.kept[v], about["weights"])
            classes = self.store.static(f"level_{level}/{about['array']}_classes")
        return Variable(
            dtype=np.dtype(about["dtype"]),
            predictor=predictor,
            classes=classes,
            # Of coarser levels a coder takes the valid pixels from its decoder.
            kept=self.kept[v] if finest else self.decoder.valid[-1][v],
            base=[base if k == level else np.empty((0, 0)) for k in range(self.levels)],
            **{name: about[name] for name in ("array", "scale", *BOUNDS)},
        )

    def codes(self, level: int, block: int, lane: int = 0) -> np.ndarray:
        """Return the codes that a level is decoded from, (row, code), in steps."""
        codes = [
            undo_codes(self.store.rows(f"level_{k}/codes", block, lane), weights)
            for k, weights in enumerate(code_weights(self.store.about)[: level + 1])
        ]
        return np.concatenate(codes, axis=1)

    def season(self, block: int, lane: int = 0) -> np.ndarray:
        """Return which of the base maps each snapshot of a block departs from, (row,)."""
        if self.store.about["seasons"] == 1:
            return np.zeros(self.lengths[block], dtype=np.int64)
        return self.store.rows("season", block, lane)

    def fields(self, v: int, level: int, block: int, lane: int, n_rows: int) -> np.ndarray:
        """Return the first rows of one variable in a block, `n_rows` of them or more, (row, y, x).

        In the variable's type, both coordinates ascending; not to be changed.
        """
        key = self.arrays[v], level, block, lane
        kept = self._kept.get(key)
        if kept is not None and len(kept) >= n_rows:
            return kept
        # A second request is likely a scan: decode the whole block now.
        n_rows = n_rows if kept is None else self.lengths[block]
        result = self._decoded(v, level, block, lane, n_rows)
        self._kept.put(key, result)
        return result

    @sound()
    def _decoded(self, v: int, level: int, block: int, lane: int, n_rows: int) -> np.ndarray:
        coder = self.coder(level)
        codes, season = self.codes(level, block, lane)[:n_rows], self.season(block, lane)[:n_rows]
        array, record = self.arrays[v], self.record(v, block, lane)
        if level < self.levels - 1:
            fields = coder.fields(codes, season, level)[:, v]
            return clipped(fields, record).astype(coder.variables[v].dtype)
        stored = self.stored(coder.variables[v], record, block, lane)
        stored = {name: values[:n_rows] for name, values in stored.items()}
        return coder.decode(stored, {array: record}, codes, season, [array])[0]

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the block of each row, and its place there."""
        ends = np.cumsum(self.lengths)
        blocks = np.searchsorted(ends, rows, side="right")
        return blocks, rows - np.append(0, ends)[blocks]

    def record(self, v: int, block: int, lane: int = 0) -> dict[str, Any]:
        """Return what the table says of a block of one variable."""
        table = self.store.about["blocks"][self.arrays[v]]
        at = block * int(np.prod(self.store.about["lanes"])) + lane
        return {name: column[at] for name, column in table.items()}

    def stored(
        self, variable: Variable, record: Mapping[str, Any], block: int, lane: int
    ) -> dict[str, np.ndarray]:
        """Return what is stored of a block beside its codes, as :class:`BlockCoder` has it."""
        array = variable.array
        kinds = {"exact": "lossless", "gaps": "gaps", "strays": "strays"}
        names = [f"{array}_{kind}" for kind, column in kinds.items() if record[column]]
        path = f"level_{self.levels - 1}"
        result = {name: self.store.rows(f"{path}/{name}", block, lane) for name in names}
        if variable.classes is not None and not record["lossless"]:
            rest = self.store.rows(f"{path}/{array}", block, lane)  # (row, class, pixel)
            result[array] = rest.reshape(len(rest), -1)[:, : len(variable.classes)]
        return result

    def variable(self, v: int, level: int, dims: Sequence[str]) -> xr.Variable:
        """Return a variable on one level, decoded where it is indexed, in some order of dimensions.

        Its encoding has the archive's blocks as the chunks that xarray prefers.
        """
        array = Fields(self, v, level, dims)
        encoding = {"preferred_chunks": array.chunks}
        return xr.Variable(array.dims, indexing.LazilyIndexedArray(array), encoding=encoding)


class Fields(BackendArray):
    """One variable of an archive on one level, decoded where it is indexed.

    `dims` are its dimensions in the data's order; those that the archive does not know have length
    1. `chunks` are the sizes of the blocks along each.
    """

    def __init__(self, reader: Reader, v: int, level: int, dims: Sequence[str]) -> None:
        about = reader.store.about
        if missing := set(reader.dims[-2:]).difference(dims):
            raise ArchiveFault(f"the archive is damaged: a variable lacks {missing.pop()!r}")
        self.dims, self._reader, self._v, self._level = tuple(dims), reader, v, level
        whole = [(size,) for size in about["levels"][level]["shape"]]
        single = [(1,) * size for size in about["lanes"]]
        known = {about["append"]: tuple(reader.lengths)}
        known |= zip(reader.dims[-len(single) - 2 :], [*single, *whole], strict=True)
        self.chunks = {dim: known.get(dim, (1,)) for dim in dims}
        self.shape = tuple(sum(sizes) for sizes in self.chunks.values())
        self.dtype = np.dtype(about["variables"][v]["dtype"])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Return what an outer indexer, one per dimension, takes of the array."""
        about, own = self._reader.store.about, self._reader.dims
        picks = dict(zip(self.dims, positions(key, self.shape), strict=True))
        first = np.zeros(1, dtype=np.int64)
        rows = picks.get(about["append"], first)
        lanes = [picks.get(dim, first) for dim in own[-len(about["lanes"]) - 2 : -2]]
        numbers = np.arange(int(np.prod(about["lanes"]))).reshape(about["lanes"])
        y, x = (
            size - 1 - picks[dim] if descends else picks[dim]
            for dim, size, descends in zip(
                own[-2:], about["levels"][self._level]["shape"], about["descending"], strict=True
            )
        )
        found = self._take(rows, numbers[np.ix_(*lanes)].ravel(), y, x)
        found = found.reshape([len(picks.get(dim, first)) for dim in own])
        absent = {dim: 0 for dim in own if dim not in self.dims}
        return squeezed(xr.Variable(own, found).isel(absent).set_dims(self.dims).values, key)

    def _take(
        self, rows: np.ndarray, lanes: np.ndarray, y: np.ndarray, x: np.ndarray
    ) -> np.ndarray:
        """Return some pixels of some snapshots, (row, lane, y, x), of ascending coordinates."""
        result = np.empty((len(rows), len(lanes), len(y), len(x)), self.dtype)
        blocks, within = self._reader.places(rows)
        of_y, of_x = sliced(y), sliced(x)

        def fill(job: tuple[int, int]) -> None:
            block, i = job
            at = sliced(np.flatnonzero(blocks == block))
            n_rows = int(within[at].max()) + 1
            fields = self._reader.fields(self._v, self._level, block, int(lanes[i]), n_rows)
            result[at, i] = fields[sliced(within[at])][:, of_y][:, :, of_x]

        jobs = list(product(np.unique(blocks).tolist(), range(len(lanes))))
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fill, jobs))
        return result


class Rows(BackendArray):
    """What lies along the rows beside the archived variables, read where it is indexed.

    `convert` makes values of type `dtype` of what the array at `path` holds.
    """

    def __init__(
        self,
        reader: Reader,
        path: str,
        convert: Callable[[np.ndarray], np.ndarray],
        dtype: np.dtype[Any],
    ) -> None:
        self._reader, self._path, self._convert, self.dtype = reader, path, convert, dtype
        about = reader.store.about
        trailing = reader.store.arrays[path]["shape"][1 + len(about["lanes"]) :]
        self.shape = sum(reader.lengths), *trailing

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        support = indexing.IndexingSupport.OUTER
        return indexing.explicit_indexing_adapter(key, self.shape, support, self._read)

    def _read(self, key: tuple[Any, ...]) -> np.ndarray:
        """Return what an outer indexer, one per dimension, takes of the array."""
        rows, *others = positions(key, self.shape)
        result = np.empty((len(rows), *map(len, others)), self.dtype)
        blocks, within = self._reader.places(rows)
        for block in np.unique(blocks).tolist():
            at = blocks == block
            stored = self._reader.store.rows(self._path, block)
            with sound():
                result[at] = self._convert(stored[np.ix_(within[at], *others)])
        return squeezed(result, key)


def positions(key: Sequence[Any], shape: Sequence[int]) -> list[np.ndarray]:
    """Return what an outer indexer takes along each dimension, as positions from 0."""
    pairs = zip(key, shape, strict=True)
    return [np.atleast_1d(np.arange(size)[each]) for each, size in pairs]


def sliced(at: np.ndarray) -> np.ndarray | slice:
    """Return positions as a slice if they are evenly spaced: that copies ten times as fast."""
    steps = np.diff(at[:2])
    if not steps.any() or (np.diff(at) != steps).any():
        return at
    stop = int(at[-1] + steps[0])
    return slice(int(at[0]), stop if stop >= 0 else None, int(steps[0]))


def squeezed(values: np.ndarray, key: Sequence[Any]) -> np.ndarray:
    """Drop the dimensions of which an indexer takes a single position."""
    return values[tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)]
