"""The record of what is complete while an archive is written, from which a stopped run goes on."""

from __future__ import annotations

import contextlib
import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .folder import LOCK, Folder
from .format import ArchiveError, ArchiveFault, dumps, plain
from .packing import chunk_counts

#: Name of the record.
JOURNAL = "writing.json"


def recorded(folder: Folder) -> dict[str, Any] | None:
    """Return the record of a run that writes or was stopped; None if there is none.

    It has whether the run is `appending`, its `fingerprint`, the number of blocks there were before
    (`n_before`), metadata of the `rows`, and of each of its `blocks` that is complete a record.

    Raises
    ------
    ArchiveError
        If it is not what was written, or of an earlier version, which noted less.
    """
    try:
        journal = json.loads(folder.read(JOURNAL))
        written, found = journal.pop("checksum"), zlib.crc32(dumps(journal))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, KeyError, AttributeError, TypeError):
        written, found = None, 0
    if written != found:
        raise ArchiveFault(
            f"{JOURNAL} of {folder.url} is damaged, or of an earlier version: if the archive "
            "opens, remove this file and append what the archive lacks; if not, remove the folder"
        )
    return journal


def record(folder: Folder, journal: Mapping[str, Any]) -> None:
    """Write what :func:`recorded` returns."""
    folder.write(JOURNAL, dumps({**journal, "checksum": zlib.crc32(dumps(journal))}))


def resumed(
    folder: Folder,
    n_visible: int | None,
    fingerprint: Mapping[str, Any],
    same_data: Callable[[Sequence[Mapping[str, Any]]], bool] | None = None,
    *,
    appending: bool,
) -> dict[str, Any] | None:
    """Return the record of the run of this call that was stopped; None if there is none.

    Parameters
    ----------
    folder : Folder
        Of the archive, locked.
    n_visible : int or None
        Blocks of the archive that opens there; None if none does.
    fingerprint : mapping
        What tells the call from others. Only its keys are compared.
    same_data : callable, optional
        Tells whether blocks, by their records, were written of the call's data.

    Raises
    ------
    ArchiveError
        If the record cannot be read, or another call's blocks wait to be finished.
    """
    journal = recorded(folder)
    if journal is None:
        return None
    complete, known = n_complete(journal), journal["fingerprint"]
    if (n_visible or 0) not in (journal["n_before"], complete):
        raise ArchiveError(
            f"writing of {folder.url} was stopped, and others have written there since: "
            f"{way_out(n_visible is not None)}"
        )
    if journal["appending"] == appending and known | plain(fingerprint) == known:
        if same_data is None or same_data(journal["blocks"]):
            return journal
    if complete == n_visible:  # it was stopped after its commit, or before its first block
        return None
    raise ArchiveError(
        f"writing of {folder.url} was stopped, and this is another call (other data or options): "
        f"finish it with the same call, or {way_out(n_visible is not None)}"
    )


def taken_up(
    folder: Folder,
    n_visible: int | None,
    fingerprint: Mapping[str, Any],
    same_data: Callable[[Sequence[Mapping[str, Any]]], bool] | None = None,
    *,
    appending: bool,
) -> dict[str, Any] | None:
    """Return the record of this call's run, a new one if none was stopped.

    None if the archive has all of it: the run was stopped after its commit. Parameters and errors
    are those of :func:`resumed`; an archive begins where nothing is.
    """
    journal = resumed(folder, n_visible, fingerprint, same_data, appending=appending)
    if journal is None:
        if not appending:
            check_free(folder, n_visible)
        begun = {"appending": appending, "fingerprint": fingerprint, "n_before": n_visible or 0}
        return plain({**begun, "rows": {}, "blocks": []})
    if journal["blocks"] and n_complete(journal) == n_visible:
        folder.remove(JOURNAL)
        return None
    return journal


def n_complete(journal: Mapping[str, Any]) -> int:
    """Return how many blocks an archive has once the run of a record is committed."""
    return int(journal["n_before"]) + len(journal["blocks"])


def way_out(opens: bool) -> str:
    """Say how a run is given up that cannot go on, where an archive opens or does not."""
    if opens:
        return f"give up what it appended by removing the file {JOURNAL} there, then append again"
    return "remove the folder"


def tidy(folder: Folder, n_visible: int) -> None:
    """Remove the record and the lock of a run that was stopped after its commit.

    Nothing is done while another process writes, or if the record is of a run that is to go on.
    """
    if not (folder.exists(LOCK) or folder.exists(JOURNAL)):
        return
    with contextlib.suppress(ArchiveFault), folder.lock():
        journal = recorded(folder)
        if journal is not None and n_complete(journal) == n_visible:
            folder.remove(JOURNAL)


def check_free(folder: Folder, n_visible: int | None) -> None:
    """Check that nothing is where an archive is to be written."""
    if n_visible is not None:
        raise ArchiveError(
            f"there is an archive at {folder.url} already: append to it, or remove it first"
        )
    others = [key for key in folder.sizes() if key not in (LOCK, f"{JOURNAL}.part")]
    if others == [""]:
        raise ArchiveError(f"{folder.url} is a file, and an archive a folder: give another place")
    if others:
        raise ArchiveError(
            f"{folder.url} holds other files, such as {others[0]}: give another place"
        )


def noted(
    rows: Mapping[str, Mapping[str, Any]],
    finished: Sequence[Mapping[str, Any]],
    before: Mapping[str, list[int | None]],
    n_before: int,
) -> dict[str, list[int | None]]:
    """Return the checksums of the chunks of every array of rows, in the order of the chunks.

    None stands for those of blocks that the array was not written in, or that were written before
    checksums were noted.

    Parameters
    ----------
    rows : mapping of str to mapping
        Metadata of the arrays, by path.
    finished : sequence of mapping
        Records of the blocks that were written.
    before : mapping of str to list
        The checksums of the blocks before, `n_before` of them.
    """
    result: dict[str, list[int | None]] = {}
    for path, document in sorted(rows.items()):
        lacking: list[int | None] = [None] * math.prod(chunk_counts(document)[1:])
        result[path] = list(before.get(path, lacking * n_before))
        for record in finished:
            result[path] += record.get("chunks", {}).get(path, lacking)
    return result
