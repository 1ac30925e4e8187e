"""The xarray backend `mrcae`: archives opened as the data that went into them, at any level.

xarray loads every backend at its first `open_dataset`, so what reads archives is imported when one
is opened.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import xarray as xr
from xarray.backends import BackendEntrypoint

from .format import ABOUT

#: What the names of archives end in, for xarray to know them by.
SUFFIX = ".mrcae.zarr"


class MrcaeBackend(BackendEntrypoint):
    """Opens archives; needs neither torch nor dask.

    Old releases of xarray take every http URL for netCDF's: there, say ``engine="mrcae"``.
    """

    description: ClassVar[str] = "Open archives of xmrcae (.mrcae.zarr) at any of their levels"
    url: ClassVar[str] = "https://xmrcae.readthedocs.io"
    supports_groups: ClassVar[bool] = True

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Tell whether a path or URL ends in ``.mrcae.zarr``, or a folder holds an archive."""
        if not isinstance(filename_or_obj, str | os.PathLike):
            return False
        path = os.fspath(filename_or_obj)
        if path.rstrip("/").endswith(SUFFIX):
            return True
        try:
            root = json.loads((Path(path) / "zarr.json").read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(root, dict) and ABOUT in root.get("attributes", ())

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        level: int | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """Open the data, decoded where they are indexed.

        Parameters
        ----------
        filename_or_obj : str or os.PathLike
            A path, or a URL that fsspec knows.
        drop_variables : str or iterable of str, optional
            Variables to leave out.
        level : int, optional
            The level wanted, 0 being the coarsest; the data's own grid by default.
        storage_options : mapping, optional
            Options of the file system.

        Returns
        -------
        xarray.Dataset
            Only what the level needs is read. ``chunks={}`` gives dask arrays in the archive's
            blocks.

        Raises
        ------
        ArchiveError
            If there is no archive, or it is damaged.
        ValueError
            If there is no such level.
        """
        from .dataset import level_dataset
        from .reader import Reader
        from .store import ArchiveStore

        reader = Reader(ArchiveStore.open(filename_or_obj, storage_options=storage_options))
        return level_dataset(reader, level).drop_vars(_listed(drop_variables), errors="ignore")

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> dict[str, xr.Dataset]:
        """Open every level, by the path of its node: /level_0 is the coarsest."""
        from .dataset import level_dataset
        from .reader import Reader
        from .store import ArchiveStore

        reader = Reader(ArchiveStore.open(filename_or_obj, storage_options=storage_options))
        dropped = _listed(drop_variables)
        levels = {
            f"/level_{k}": level_dataset(reader, k).drop_vars(dropped, errors="ignore")
            for k in range(reader.levels)
        }
        return {"/": xr.Dataset(attrs=levels["/level_0"].attrs), **levels}

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> xr.DataTree:
        """Open every level as a node, as `open_groups_as_dict` does."""
        return xr.DataTree.from_dict(self.open_groups_as_dict(filename_or_obj, **options))


def _listed(names: str | Iterable[str] | None) -> list[str]:
    if names is None:
        return []
    return [names] if isinstance(names, str) else list(names)
