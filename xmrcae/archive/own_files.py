"""Files that lie in a folder itself: a link in it could lead anywhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .format import ArchiveError


def check_own(folder: Path, key: str) -> None:
    """Raise an ArchiveError if what is at a path below a folder is there, but is no file of its."""
    path = os.path.join(os.path.realpath(folder), key)
    if os.path.realpath(path) != path or not stat.S_ISREG(_mode(path)):
        raise ArchiveError(f"{path} is a link or no file: put the file itself there")


def _mode(path: str) -> int:
    """Return the kind of a file; that of a plain one if there is none, which reading will find."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return stat.S_IFREG
