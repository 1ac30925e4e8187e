"""Files that lie in a folder itself: a link in it could lead anywhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from .format import ArchiveError


def check_own(folder: Path, key: str) -> None:
    """Raise an ArchiveError if what a path below a folder leads to is no plain file in it."""
    path = os.path.join(os.path.realpath(folder), key)
    if os.path.realpath(path) != path or not stat.S_ISREG(_mode(path)):
        raise ArchiveError(f"{path} is a link or no file: put the file itself there")


def _mode(path: str) -> int:
    """Return the mode of a file, or of a plain one if there is none: reading it tells of that."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return stat.S_IFREG
