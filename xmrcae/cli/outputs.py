"""The files that commands write: what they may be called, and what is said of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from fsspec.implementations.local import LocalFileSystem

from ..archive.backend import SUFFIX
from ..io.tree_file import replacing
from ..paths import file_system
from ..text import in_bytes
from .faults import UserError

#: What names of files of data, and of models, end in.
DATA = (".nc", ".nc4", ".zarr")


def check_name(path: str, endings: Sequence[str] = DATA) -> str:
    """Return what a name ends in, of the endings that are allowed.

    Raises
    ------
    UserError
        If it ends otherwise, or as archives do.
    """
    name = path.rstrip("/").lower()
    if name.endswith(SUFFIX):
        raise UserError(f"{path} would be taken for an archive by its name: give another")
    ending = os.path.splitext(name)[1]
    if ending not in endings:
        raise UserError(f"{path}: a name has to end in {', '.join(endings[:-1])} or {endings[-1]}")
    return ending


@contextlib.contextmanager
def writing(path: str, *, overwrite: bool) -> Iterator[str]:
    """Give a local path to write to that replaces `path` once it is complete; make its folder."""
    filesystem, target = file_system(path)
    if isinstance(filesystem, LocalFileSystem):
        os.makedirs(os.path.dirname(target.rstrip("/")), exist_ok=True)
    with replacing(path, overwrite=overwrite) as part:
        yield part


def n_bytes(path: str) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    filesystem, target = file_system(path)
    return sum(info["size"] for info in filesystem.find(target, detail=True).values())


def size_of(path: str) -> str:
    """Return the bytes of a file or of a folder as people read them."""
    return in_bytes(n_bytes(path))
