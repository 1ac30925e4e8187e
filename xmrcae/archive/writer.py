"""Write a dataset as codes and what they leave, block by block, and add later times to it.

What a user gave is read once per block. A block is encoded, decoded as a reader will, compared with
what was given, written, and noted in the journal; a run that was stopped goes on after it.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..fitted import Fitted
from ..grid.conventions import Labelled
from ..grid.pyramid import restrict_known
from ..memory import give_back_memory
from . import labelling, prepare
from .appending import check_append
from .block import BlockCoder, clipped
from .block_table import joined
from .code_prediction import code_differences, code_weights
from .dataset import StaticLabels, row_ends
from .folder import LOCK, Folder
from .format import ArchiveError, dumps, multiscales, require
from .given import Digest, Given
from .journal import check_free, resumed, taken_up, way_out
from .model_part import read_fitted
from .packing import packed_rows
from .prepare import Request
from .reader import Reader
from .source import Source
from .store import n_visible
from .store_writer import ArchiveWriter, forgotten

#: Bytes in units of those of as many snapshots at the start, from which a model fits badly.
TOO_MANY = 1.5

# Bytes of fields that are coarsened at once: in all levels together as much as a cache holds.
_IN_CACHE = 4 * 2**20


def create_archive(
    fitted: Fitted,
    obj: Labelled,
    request: Request,
    *,
    url: Any,
    storage_options: Mapping[str, Any] | None,
    progress: bool,
) -> None:
    """Write an archive, or go on with one that the same call has begun."""
    require()
    source = Source.of(obj, fitted, request.append_dim)
    call = call_of(request, fitted.labels.variables, source.obj, source.append)
    fingerprint = call | {"model": content_id(fitted)}
    rows = request.rows(max(int(each.sum()) for each in fitted.standard.valid), source.n_rows)
    record, static, along = labelling.describe(
        source.labelled, fitted.labels.variables, source.append, _horizontal(fitted)
    )
    given = Given(source, along, rows)
    folder = Folder(url, storage_options)
    with folder.lock():
        same_data = partial(given.matches, progress=progress)
        journal = taken_up(folder, n_visible(folder), fingerprint, same_data, appending=False)
        if journal is None:
            return
        writer = ArchiveWriter(
            folder, journal, {"rows_per_block": rows, "lanes": list(source.lanes)}
        )
        with forgotten(folder, writer.finished):
            give_back_memory()  # of what opened the model, or fitted it
            plan = prepare.plan_for(source, request, rows)
            give_back_memory()
            about = prepare.describe(source, plan, rows, content_id(fitted))
            about["labels"] = record
            prepare.put_arrays(writer, plan, prepare.put_labels(writer, plan, source, static))
            coders, own = [plan.coder] * len(about["levels"]), plan.fitted
            del plan  # maps in steps, which are written, of a million pixels take 50 MB
            run = Run(writer, given, own, coders, about)
            run.write(progress=progress)
            run.commit(blocks={})


def call_of(
    request: Request, names: Sequence[Any], obj: Labelled, append: str | None
) -> dict[str, Any]:
    """Check what is asked of an archive of some fields, and return what tells it from other calls.

    Raises
    ------
    ValueError
        For bounds or sizes that cannot be, and types that would not come back.
    """
    prepare.check_types(obj)
    if empty := [dim for dim, size in obj.sizes.items() if not size]:
        raise ValueError(f"the data have no snapshot, their {empty[0]!r} has size 0: give some")
    request.rows(1, 1)
    asked = {
        name: getattr(request, name) for name in ("levels", "codes", "rows_per_block", "lossless")
    }
    return asked | {"bounds": request.bounds(names), **_extent(obj, append)}


def check_place(
    url: Any, storage_options: Mapping[str, Any] | None, call: Mapping[str, Any]
) -> None:
    """Check that a call may begin an archive somewhere, or go on with what is there.

    Raises
    ------
    ArchiveError
        If something else is there, another call was stopped there, or another process writes.
    """
    folder = Folder(url, storage_options)
    if folder.exists(LOCK):
        with folder.lock():
            pass
    n_blocks = n_visible(folder)
    if resumed(folder, n_blocks, call, appending=False) is None:
        check_free(folder, n_blocks)


def append_archive(
    reader: Reader, obj: Labelled, *, fitted: Fitted | None = None, progress: bool
) -> None:
    """Add later rows, if any, to an archive, by the model that it was written with."""
    folder = Folder(**reader.store.reopened().location)  # where none is, a lock would make a folder
    with folder.lock():
        reader = Reader(reader.store.reopened())  # others may have appended since it was opened
        about, store = reader.store.about, reader.store
        if about["append"] is None:
            raise ArchiveError(
                f"the archive at {folder.url} holds a single snapshot, and has no dimension to "
                "grow along: write another archive, of snapshots along one such as time"
            )
        if fitted is not None and content_id(fitted) != about["made_from"]:
            raise ArchiveError(
                f"the archive at {folder.url} was written by another model: append with "
                "the same one, or with xmrcae.open_archive(url).append(data), by the archive's own"
            )
        own = read_fitted(reader)[1]
        source = Source.of(obj, own, about["append"])
        prepare.check_types(source.obj)
        if not source.n_rows:
            return
        fingerprint = {"model": own.id, **_extent(source.obj, source.append)}
        labels = labelling.describe(
            source.labelled,
            own.labels.variables,
            source.append,
            _horizontal(own),
            archive=about["labels"],
        )
        given = Given(source, labels.rows, about["rows_per_block"])
        same_data = partial(given.matches, progress=progress)
        journal = taken_up(folder, store.n_blocks, fingerprint, same_data, appending=True)
        if journal is None:
            return
        ends = row_ends(reader)
        last = None if ends is None else ends[1]
        record = check_append(about["labels"], StaticLabels(store), last, labels)
        expected = _expected_bytes(reader, given.lengths)  # what cannot be read is told before
        writer = ArchiveWriter(folder, journal, about, store.arrays)
        coders = [reader.coder(level) for level in range(reader.levels)]
        run = Run(writer, given, own, coders, about | {"labels": record})
        run.write(progress=progress)
        run.commit(blocks=about["blocks"])
        _warn_of_bad_fit(run, expected)


def _expected_bytes(reader: Reader, lengths: Sequence[int]) -> float:
    """Return the bytes of blocks of some rows, were they like those at the start of an archive.

    The first snapshots of any block take more than others, so a block is compared with as many
    snapshots from the start of the first one.
    """
    most = reader.lengths[0]
    starts = {n: n_bytes_at_start(reader, n) / n for n in {min(n, most) for n in lengths}}
    return sum(n * starts[min(n, most)] for n in lengths)


def n_bytes_at_start(reader: Reader, n_rows: int) -> int:
    """Return how many bytes the first rows of an archive would take as a block of their own."""
    total, about, coder = 0, reader.store.about, reader.coder(reader.levels - 1)
    for lane in range(math.prod(about["lanes"])):
        arrays: dict[str, np.ndarray] = {}
        for v, variable in enumerate(coder.variables):
            arrays |= reader.stored(variable, reader.record(v, 0, lane), 0, lane)
        codes = reader.codes(reader.levels - 1, 0, lane)[:n_rows]
        first = {name: array[:n_rows] for name, array in arrays.items()}
        for _, values, _, chunk in _stored(coder, about, codes, first):
            chunks = packed_rows(values, about["rows_per_block"], chunk)
            total += sum(len(data or b"") for _, data in chunks)
    return total


def _warn_of_bad_fit(run: Run, expected: float) -> None:
    """Warn if what was appended takes many more bytes than are expected."""
    records = run.writer.finished
    taken = sum(record["n_bytes"] for record in records)
    if taken > TOO_MANY * expected:
        n = sum(record["length"] for record in records) * math.prod(run.source.lanes)
        warnings.warn(
            f"the appended data take {taken / n:.0f} bytes per snapshot, {taken / expected:.1f} "
            "times as many as those at the start of the archive: its model fits them badly. A new "
            "archive, by a model that is fitted to recent data too, would be smaller",
            stacklevel=4,
        )


def content_id(fitted: Fitted) -> str:
    """Return what tells a model from others that decode otherwise, the same in every process."""
    digest = hashlib.sha256(fitted.codec.network.vector().numpy().tobytes())
    digest.update(fitted.standard.centre.tobytes())
    digest.update(fitted.standard.scale.tobytes())
    return digest.hexdigest()[:32]


def _horizontal(fitted: Fitted) -> tuple[str, str]:
    grid = fitted.codec.pyramid.grid
    return grid.y, grid.x


def _extent(obj: Labelled, append: str | None) -> dict[str, Any]:
    """Return sizes and the first and last label of some data: what tells a call from another."""
    index = None if append is None else obj.indexes.get(append)
    ends = [] if index is None or not len(index) else [str(index[0]), str(index[-1])]
    return {"sizes": {str(dim): n for dim, n in obj.sizes.items()}, "ends": ends}


class Run:
    """The blocks of one call."""

    def __init__(
        self,
        writer: ArchiveWriter,
        given: Given,
        fitted: Fitted,
        coders: Sequence[BlockCoder],
        about: dict[str, Any],
    ) -> None:
        self.writer, self.given, self.source, self.fitted = writer, given, given.source, fitted
        self.coders, self.coder = coders, coders[-1]  # of each level, coarsest first
        self.about, source = about, given.source
        self._dims = [source.append or "row", *source.others]

    def write(self, *, progress: bool) -> None:
        """Write all blocks that are not complete."""
        blocks = self.given.blocks
        done = len(self.writer.finished)
        self._check_goes_on()
        with tqdm(
            desc="archive", total=len(blocks), initial=done, unit="block", disable=not progress
        ) as bar:
            for number, rows in enumerate(blocks):
                if number < done:
                    continue
                self._write_block(rows)
                bar.set_postfix_str(f"{self.writer.n_bytes / 1e6:.1f} MB")
                bar.update()

    def _check_goes_on(self) -> None:
        """Refuse to go on after blocks that were written by other choices than those of now."""
        before = {record["written_by"] for record in self.writer.finished}
        if before - {self._written_by}:
            raise ArchiveError(
                "the blocks that are complete were written by other versions of packages, on "
                "another machine, or of data with other labels, attributes or types: "
                f"{way_out(self.writer.n_before > 0)}"
            )

    @cached_property
    def _written_by(self) -> str:
        """What tells the choices that blocks are written by, base maps and classes among them."""
        checksums = self.writer.checksums.items()  # that of the model holds times of training
        maps = {path: own for path, own in checksums if path.startswith(("masks", "level_"))}
        return hashlib.sha256(dumps({**self.about, "checksums": maps})).hexdigest()[:16]

    def _write_block(self, rows: slice) -> None:
        digest = Digest()
        values, season = self.given.values(rows, digest)
        n_lanes, n_before = values.shape[1], self.writer.n_bytes
        records: list[dict[str, dict[str, Any]]] = []
        coarse = []
        for lane in range(n_lanes):
            own = values[:, lane].astype(self.fitted.dtype, copy=False)
            codes = self.coder.quantise(self.fitted.codec.encode(own, season[:, lane]))
            given = [
                values[:, lane, v].astype(variable.dtype, copy=False)
                for v, variable in enumerate(self.coder.variables)
            ]
            arrays, record = self.coder.encode(given, codes, season[:, lane])
            records.append(record)
            coarse.append(self._coarse_errors(values[:, lane], codes, season[:, lane], record))
            for path, part, dims, chunk in _stored(self.coder, self.about, codes, arrays):
                self.writer.put_rows(path, lane, part, [*self._dims, *dims], chunk=chunk)
        n_bytes = self.writer.n_bytes - n_before
        self._put_labels(rows, season, digest)
        columns = {}
        for variable in self.coder.variables:
            of = [record[variable.array] for record in records]
            columns[variable.array] = {key: [each[key] for each in of] for key in of[0]}
        measured = {
            "length": len(values),
            "written_by": self._written_by,
            "n_bytes": n_bytes,
            "digest": str(digest),
            "levels": np.sum(coarse, axis=0).tolist(),
            "variables": columns,
        }
        self.writer.finish_block(measured)

    def _put_labels(self, rows: slice, season: np.ndarray, digest: Digest) -> None:
        """Write what of the labels lies along the rows: coordinates, variables not fitted."""
        if self.about["seasons"] > 1:
            season = season.astype(np.int16)
            for lane in range(season.shape[1]):
                self.writer.put_rows("season", lane, season[:, lane], self._dims)
        records = labelling.stored(self.about["labels"])
        for name, part in self.given.labels_of(rows, digest):
            plain = labelling.to_plain(records[name], part)
            dims = [*self._dims, *map(str, self.given.labels[name].dims[1:])]
            attrs = labelling.attributes(records[name])
            self.writer.put_rows(f"rows/{name}", 0, plain, dims, attrs=attrs)

    def _coarse_errors(
        self,
        values: np.ndarray,
        codes: np.ndarray,
        season: np.ndarray,
        records: Mapping[str, Mapping[str, Any]],
    ) -> np.ndarray:
        """Compare coarser levels with the data restricted to them: (2, level, variable).

        Squared errors are summed, and values counted.
        """
        pyramid, sizes = self.fitted.codec.pyramid, self.coder.decoder.sizes
        result = np.zeros((2, len(sizes) - 1, len(self.coder.variables)))
        n_at_once = max(1, _IN_CACHE // values[0].nbytes)
        for start in range(0, len(values), n_at_once):
            rows = slice(start, start + n_at_once)
            known = np.where(self.fitted.standard.valid, values[rows], np.nan)
            targets = restrict_known(pyramid, known)
            for level, target in enumerate(targets[:-1]):
                own = codes[rows, : sum(sizes[: level + 1])]
                fields = self.coders[level].fields(own, season[rows], level)
                for v, variable in enumerate(self.coder.variables):
                    fields[:, v] = clipped(fields[:, v], records[variable.array])
                error = fields - target[pyramid.cut(level)]
                has_both = np.isfinite(error)
                result[0, level] += (error**2).sum((0, 2, 3), where=has_both)
                result[1, level] += has_both.sum((0, 2, 3))
        return result

    def commit(self, blocks: Mapping[str, Any]) -> None:
        """Make what was written visible, beside the blocks that were there before."""
        about = self.about | {"blocks": joined(blocks, self.writer.finished)}
        self.writer.commit(about, multiscales(len(about["levels"])))


def _stored(
    coder: BlockCoder, about: Mapping[str, Any], codes: np.ndarray, arrays: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray, list[str], tuple[int, ...]]]:
    """Yield what a block of one lane is stored as.

    Path, values, names of the dimensions of a row, and what of it a chunk holds.
    """
    ends = np.cumsum(coder.decoder.sizes)
    weights = code_weights(about)
    for level, part in enumerate(np.split(codes, ends[:-1], axis=1)):
        differences = code_differences(part, weights[level])
        yield f"level_{level}/codes", differences, ["code"], differences.shape[1:]
    names = {variable.array: variable for variable in coder.variables}
    for name, array in arrays.items():
        path = f"level_{len(ends) - 1}/{name}"
        if name in names:
            classes = names[name].classes
            n_classes = 1 if classes is None else int(classes.max(initial=0)) + 1
            array = _in_classes(array, n_classes)
            yield path, array, ["class", "pixel"], (1, array.shape[2])
        else:
            wide = np.float32 if array.dtype == np.float16 else array.dtype
            yield path, array.astype(wide), ["pixel"], array.shape[1:]


def _in_classes(array: np.ndarray, n_classes: int) -> np.ndarray:
    """Cut pixels (t, pixel) into classes of equal size, (t, class, pixel), zeros at the end."""
    size = math.ceil(array.shape[1] / n_classes)
    full = np.zeros((len(array), n_classes * size), array.dtype)
    full[:, : array.shape[1]] = array
    return full.reshape(len(array), n_classes, size)
