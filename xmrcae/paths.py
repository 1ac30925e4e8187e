"""Paths and URLs: where on which file system a text leads."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import fsspec.core


def file_system(
    url: str | os.PathLike[str], options: Mapping[str, Any] | None = None
) -> tuple[Any, str]:
    """Return fsspec's file system of a path or URL, and the path in it.

    A text without ``://`` is a path of this machine, absolute in the result.

    Parameters
    ----------
    url : str or os.PathLike
        Of fsspec's URLs, any.
    options : mapping, optional
        Options of the file system.

    Raises
    ------
    ValueError
        For a path of this machine that not every library would find under the same name.
    """
    url = os.fspath(url)
    if "://" in url:
        return fsspec.core.url_to_fs(url, **options or {})
    path = os.path.abspath(os.path.expanduser(url))
    if "::" in path:
        raise ValueError(f"{path} has '::', at which fsspec divides URLs: give a path without it")
    if os.sep == "/" and "\\" in path:
        raise ValueError(
            f"{path} has a backslash, which netCDF takes for a slash: write / between folders, "
            "and none in names"
        )
    try:
        path.encode(sys.getfilesystemencoding())
    except UnicodeEncodeError as error:
        wrong, encoding = path[error.start], error.encoding
        raise ValueError(
            f"{path!a} has the letter {wrong!a}, which names of files cannot have here, where "
            f"they are in {encoding}: give another path, or set LC_ALL=C.UTF-8"
        ) from error
    return fsspec.core.url_to_fs(path, **options or {})


def located(url: str | os.PathLike[str]) -> str:
    """Return a path or URL that leads to the same place from every working directory.

    What may be used later, or in another process, is kept as this. Of a URL such as
    ``zip://sst::data.zip``, the last part is the one that may be a path.

    Parameters
    ----------
    url : str or os.PathLike
        As for `file_system`.

    Raises
    ------
    ValueError
        As `file_system`.
    """
    text = os.fspath(url)
    before, colons, last = text.rpartition("::") if "://" in text else ("", "", text)
    if "://" in last and not last.startswith(("file://", "local://")):
        return text
    return f"{before}{colons}{file_system(last)[1]}"
