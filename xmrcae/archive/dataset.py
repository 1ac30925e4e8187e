"""An archive, or one of its levels, as the labelled data that went into it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from xarray.core import indexing

from ..option_values import level_number
from . import labelling
from .appending import order
from .format import sound
from .reader import Reader, Rows
from .store import ArchiveStore


def archived_names(about: Mapping[str, Any]) -> list[Hashable]:
    """Return the names of the archived variables, in the order of the network."""
    if about["labels"]["is_dataset"]:
        return list(about["names"])
    variables = about["labels"]["variables"]
    return [each["name"] for each in variables if each["kind"] == "archived"]


def level_dataset(reader: Reader, level: int | None = None) -> xr.Dataset:
    """Return the data on one level's grid; decoded where they are indexed.

    Parameters
    ----------
    reader : Reader
        Of the archive.
    level : int, optional
        The level; the finest, the data's own, by default. On a coarser one, what lay along the
        horizontal dimensions beside its coordinates and the archived variables is left out.

    Returns
    -------
    xarray.Dataset
        The encoding of archived variables has the archive's blocks as the chunks to prefer.

    Raises
    ------
    ValueError
        If there is no such level.
    """
    return _level_dataset(reader, level_number(level, reader.levels))


@sound()
def _level_dataset(reader: Reader, level: int) -> xr.Dataset:
    """Label a level's variables as the data were."""
    about = reader.store.about
    record = about["labels"]
    dims = {each["name"]: each["dims"] for each in record["variables"]}
    archived = {
        name: reader.variable(v, level, dims[name]) for v, name in enumerate(archived_names(about))
    }
    rows = {}
    for stored, each in labelling.stored(record).items():
        if each["kind"] == "rows":
            convert, dtype = partial(labelling.from_plain, each), np.dtype(each["dtype"])
            array = Rows(reader, f"rows/{stored}", convert, dtype)
            rows[stored] = indexing.LazilyIndexedArray(array)
    coords = None if level == reader.levels - 1 else _coordinates(reader, level)
    result = labelling.assemble(record, StaticLabels(reader.store), rows, archived, coords)
    for name, variable in archived.items():
        result[name].encoding |= variable.encoding
    return result


def _coordinates(reader: Reader, level: int) -> xr.Dataset:
    """Return the horizontal coordinates of a level below the finest."""
    record = reader.model[1]["coordinates"][level]
    arrays = {
        name: reader.store.static(f"level_{level}/{name}") for name in labelling.stored(record)
    }
    return labelling.assemble(record, arrays, {}, {})


@sound()
def row_ends(reader: Reader) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the first and the last value, (1,) each, of what rows are ordered by, if any."""
    ordered = order(reader.store.about["labels"])
    if ordered is None:
        return None
    path, last = f"rows/{ordered['stored']}", len(reader.lengths) - 1
    first, final = reader.store.rows(path, 0)[:1], reader.store.rows(path, last)[-1:]
    return labelling.from_plain(ordered, first), labelling.from_plain(ordered, final)


class StaticLabels(Mapping[str, np.ndarray]):
    """Labels without rows, each read when it is asked for."""

    def __init__(self, store: ArchiveStore) -> None:
        self._store = store
        self._names = [path[7:] for path in store.arrays if path.startswith("labels/")]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._store.static(f"labels/{name}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
