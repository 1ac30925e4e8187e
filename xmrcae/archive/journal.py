"""The record of what is complete while an archive is written, from which a stopped run goes on."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .folder import LOCK, Folder
from .format import ABOUT, ArchiveError, ArchiveFault, plain
from .packing import chunk_counts

#: Name of the record.
JOURNAL = "writing.json"


def begin(
    about: Mapping[str, Any], n_before: int, fingerprint: Mapping[str, Any], *, appending: bool
) -> dict[str, Any]:
    """Return the record of a run that begins."""
    return plain(
        {
            "appending": appending,
            "fingerprint": fingerprint,
            "about": about,
            "n_before": n_before,
            "rows": {},
            "blocks": [],
        }
    )


def resumed(
    folder: Folder,
    fingerprint: Mapping[str, Any],
    root: Mapping[str, Any] | None,
    *,
    appending: bool,
) -> dict[str, Any] | None:
    """Return the record of the run that was stopped; None if there is nothing to go on with.

    What `fingerprint` leaves out is not compared.

    Raises
    ------
    ArchiveError
        If it cannot be read, or was made by another call.
    """
    try:
        journal = json.loads(folder.read(JOURNAL))
        known = journal["fingerprint"]
        same = journal["appending"] == appending and known | plain(fingerprint) == known
        complete = journal["n_before"] + len(journal["blocks"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveFault(f"{JOURNAL} of {folder.url} is damaged: {error}") from error
    if same:
        return journal
    # Another call's run that was stopped after its commit, or before its first block was complete.
    if root is not None and complete == len(root["attributes"][ABOUT]["blocks"]["length"]):
        return None
    way_out = (
        f"give up what it appended by removing the file {JOURNAL} there"
        if journal["appending"]
        else "remove the folder"
    )
    raise ArchiveError(
        f"writing of {folder.url} was stopped, and this is another call (other data or options): "
        f"finish it with the same call, or {way_out}"
    )


def appended(
    folder: Folder, fingerprint: Mapping[str, Any], root: Mapping[str, Any] | None
) -> bool:
    """Tell whether an append was stopped after its commit; its record is removed then.

    Raises
    ------
    ArchiveError
        As :func:`resumed`.
    """
    journal = resumed(folder, fingerprint, root, appending=True)
    if root is None or journal is None or not journal["blocks"]:
        return False
    n_blocks = journal["n_before"] + len(journal["blocks"])
    visible = n_blocks == len(root["attributes"][ABOUT]["blocks"]["length"])
    if visible:
        folder.remove(JOURNAL)
    return visible


def tidy(folder: Folder, n_blocks: int) -> None:
    """Remove the record and the lock of a run that was stopped after its commit of `n_blocks`.

    Nothing is done while another process writes, or if the record is of a run that is to go on.
    """
    if not (folder.exists(LOCK) or folder.exists(JOURNAL)):
        return
    with contextlib.suppress(ArchiveFault, FileNotFoundError), folder.lock():
        journal = json.loads(folder.read(JOURNAL))
        if journal["n_before"] + len(journal["blocks"]) == n_blocks:
            folder.remove(JOURNAL)


def check_free(folder: Folder, root: Mapping[str, Any] | None) -> None:
    """Check that nothing is where an archive is to be written."""
    if root is not None:
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
                if key != LOCK:
                    folder.remove(key)
        raise
