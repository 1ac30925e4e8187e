"""Archives opened by their URL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .archive import Archive
from .store import ArchiveStore

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from ..fitted import Fitted
    from ..model import MrCAE


def open_archive(
    url: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> Archive:
    """Open an archive; one file is read.

    Parameters
    ----------
    url : str or os.PathLike
        A path, or a URL that fsspec knows.
    storage_options : mapping, optional
        Options of the file system.

    Returns
    -------
    Archive
        With its model, its codes and its data; neither torch nor dask is imported until they are
        needed.

    Raises
    ------
    ArchiveError
        If there is no archive, or it is damaged, unfinished or of a later version.
    ImportError
        Naming the packages that are missing.
    """
    return Archive(ArchiveStore.open(url, storage_options=storage_options), _model)


def _model(options: Mapping[str, Any], fitted: Fitted) -> MrCAE:
    from ..model import fitted_model

    return fitted_model(options, fitted)
