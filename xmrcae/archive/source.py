"""The data that go into an archive: rows along one sample dimension, read block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from ..fitted import Fitted
from ..grid.conventions import Labelled, fields_of
from ..grid.coordinates import Grid
from ..grid.layout import Layout
from ..grid.split import time_of
from .format import ArchiveError

#: Rows of a sample at least: as many as a block of the largest fields has.
LEAST_SAMPLE = 8


@dataclass(frozen=True)
class Source:
    """Labelled data on a fitted grid, as rows of lanes.

    A row is a place along the dimension that an archive grows along; a lane is one combination of
    the other sample dimensions.

    Attributes
    ----------
    obj : xarray.DataArray or xarray.Dataset
        The variables to archive, as plain numbers, rows first.
    labelled : xarray.DataArray or xarray.Dataset
        All that was given, the archived variables among it as plain numbers.
    fitted : Fitted
        The model that describes them.
    append : str or None
        The dimension that rows lie along; None for a single snapshot that has none.
    others : tuple of str
        The other sample dimensions, in the order of the data.
    """

    obj: Labelled
    labelled: Labelled
    fitted: Fitted
    append: str | None
    others: tuple[str, ...]

    @classmethod
    def of(cls, obj: Labelled, fitted: Fitted, append: str | None = None) -> Source:
        """Find rows and lanes.

        Raises
        ------
        ArchiveError
            If `append` is none of the sample dimensions.
        """
        given, obj = obj, fitted.labels.of(obj)
        # Attributes that change no number come back, though a fit leaves them out.
        if isinstance(given, xr.Dataset):
            fields = {
                each.name: each.assign_attrs(given[each.name].attrs) for each in fields_of(obj)
            }
            labelled: Labelled = given.assign(fields)
        else:
            labelled = obj.assign_attrs(given.attrs)
        grid = fitted.codec.pyramid.grid
        append, others = rows_and_lanes(obj, grid, append)
        dims = [dim for dim in (append, *others) if dim is not None]
        return cls(obj.transpose(*dims, grid.y, grid.x), labelled, fitted, append, others)

    @property
    def n_rows(self) -> int:
        """Number of places along the dimension that the archive grows along."""
        return 1 if self.append is None else self.obj.sizes[self.append]

    @property
    def lanes(self) -> tuple[int, ...]:
        """Sizes of the other sample dimensions."""
        return tuple(self.obj.sizes[dim] for dim in self.others)

    @property
    def dtypes(self) -> list[np.dtype[Any]]:
        """The type of each variable."""
        return [field.dtype for field in fields_of(self.obj)]

    @cached_property
    def layout(self) -> Layout:
        """How the data lie on the fitted grid."""
        return self.fitted.layout(self.obj)

    @property
    def descending(self) -> list[bool]:
        """Whether rows and columns of the data run against the fitted grid's, which ascend.

        Raises
        ------
        ArchiveError
            If they are in an order of their own.
        """
        grid = self.fitted.codec.pyramid.grid
        for dim in (grid.y, grid.x):
            if not isinstance(self.layout.indexers[dim], slice):
                raise ArchiveError(
                    f"the data's {dim!r} is in another order than the model's: sort them, "
                    f".sortby({dim!r}), and fit the model to sorted data"
                )
        return [dim in self.layout.descending_dims for dim in (grid.y, grid.x)]

    def read(self, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """Read some rows.

        Returns
        -------
        numpy.ndarray, shape (row, lane, variable, y, x)
            Values, both coordinates ascending.
        numpy.ndarray of int, shape (row, lane)
            The centre that each snapshot departs from.
        """
        part = self.obj if self.append is None else self.obj.isel({self.append: rows})
        part = part.compute()
        layout = self.layout.of_part(part)
        values, season = layout.array(part), np.asarray(self.fitted.season(layout))
        shape = (-1, int(np.prod(self.lanes)))
        return values.reshape(*shape, *values.shape[1:]), season.reshape(shape)

    def blocks(self, n_rows: int) -> Iterator[slice]:
        """Cut all rows into blocks."""
        return (slice(i, i + n_rows) for i in range(0, self.n_rows, n_rows))

    def ever_finite(self, n_rows: int) -> np.ndarray:
        """Find pixels that hold a finite value at some time, (variable, y, x), in one pass."""
        found = np.zeros(self.fitted.standard.valid.shape, dtype=bool)
        for rows in self.blocks(n_rows):
            found |= np.isfinite(self.read(rows)[0]).any((0, 1))
        return found

    def sample(self, n_values: int) -> list[slice]:
        """Choose rows that stand for all: all of them, or runs spread evenly over the data."""
        per_row = int(np.prod(self.lanes)) * self.fitted.standard.valid.size
        rows = max(LEAST_SAMPLE, n_values // max(1, per_row))
        if rows >= self.n_rows:
            return [slice(0, self.n_rows)]
        runs = max(1, min(4, rows // 16))
        length = rows // runs
        starts = np.linspace(0, self.n_rows - length, runs).astype(int)
        return [slice(int(start), int(start) + length) for start in starts]


def rows_and_lanes(
    obj: Labelled, grid: Grid, append: str | None
) -> tuple[str | None, tuple[str, ...]]:
    """Return the dimension that rows lie along, `append` or else that of time, and the others.

    Raises
    ------
    ArchiveError
        If `append` is none of the sample dimensions.
    """
    sample = [str(dim) for dim in fields_of(obj)[0].dims if dim not in (grid.y, grid.x)]
    if append is None:
        time = time_of(obj.coords.to_dataset(), sample)
        append = next(iter([*map(str, () if time is None else time.dims), *sample]), None)
    elif append not in sample:
        raise ArchiveError(
            f"append_dim={append!r} is no sample dimension of the data; they have {sample}"
        )
    return append, tuple(dim for dim in sample if dim != append)
