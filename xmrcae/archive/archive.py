"""An archive opened: its data at any level, its model and codes, what it promises and measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..text import Rows, as_lines, as_table, in_bytes, printable
from .dataset import archived_names, level_dataset, row_ends
from .format import sound
from .reader import Reader
from .store import ArchiveStore
from .verify import verify


class Archive:
    """A dataset kept as codes and what they leave; made by :func:`xmrcae.open_archive`.

    Parameters
    ----------
    store : ArchiveStore
        Where it is.
    make_model : callable
        Makes a model of options and what was fitted.

    Attributes
    ----------
    about : dict
        What the archive says of itself.
    reader : Reader
        What decodes it.

    Examples
    --------
    >>> import tempfile, xmrcae
    >>> field = xmrcae.datasets.drifting_mode(n_times=40, size=31).rename("height")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     url = f"{folder}/height.mrcae.zarr"
    ...     options = {"max_error": 0.01, "levels": 2, "progress": False}
    ...     archive = field[:30].mrcae.to_archive(url, **options)
    ...     archive = archive.append(field[30:], progress=False)
    ...     report = archive.verify(field)
    ...     archive.to_dataset(level=0).height.shape
    (40, 15, 15)
    """

    def __init__(self, store: ArchiveStore, make_model: Callable[..., Any]) -> None:
        self.about, self.reader, self._make_model = store.about, Reader(store), make_model
        self._store = store

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return self.reader.levels

    @cached_property
    def model(self) -> Any:
        """The :class:`xmrcae.MrCAE` that made the codes; torch is imported for it."""
        from .model_part import read_fitted

        return self._make_model(*read_fitted(self.reader))

    @property
    def codes(self) -> xr.DataTree:
        """The codes as :meth:`xmrcae.MrCAE.encode` labels them, as rounded; lazy.

        ``archive.model`` decodes, stacks and draws them.
        """
        from .model_part import codes_tree

        return codes_tree(self.reader, self.model.fitted)

    @property
    def max_error(self) -> Any:
        """The bound of every value, in the data's units; by name if there are several variables."""
        return self._bound("max_error")

    @property
    def rmse(self) -> Any:
        """The bound of each snapshot's root-mean-square error, as `max_error`."""
        return self._bound("rmse")

    @sound()
    def _bound(self, name: str) -> Any:
        bounds = [each[name] for each in self.about["variables"]]
        return bounds[0] if len(bounds) == 1 else dict(zip(self.names, bounds, strict=True))

    @property
    @sound()
    def names(self) -> list[Hashable]:
        """Names of the archived variables."""
        return archived_names(self.about)

    @property
    @sound()
    def measured(self) -> xr.Dataset:
        """What was measured at writing on decoded values, over `level` and `variable`.

        `rmse` against the data, which for coarser levels are restricted to their grids; and `worst`
        error, known of the finest alone. In the data's units.
        """
        blocks = self.about["blocks"]
        sums, counts = (np.sum(blocks["levels"][key], axis=0) for key in ("squared_error", "count"))
        columns = [blocks[array] for array in self.reader.arrays]
        own = [[sum(each[key]) for each in columns] for key in ("squared_error", "count")]
        shape = -1, len(columns)
        squares = np.vstack([np.reshape(sums, shape), own[0]])
        worst = np.full(squares.shape, np.nan)
        worst[-1] = [max(each["worst"]) for each in columns]
        rmse = np.sqrt(squares / np.maximum(np.vstack([np.reshape(counts, shape), own[1]]), 1))
        dims = ("level", "variable")
        coords = {"level": np.arange(self.levels), "variable": list(map(str, self.names))}
        return xr.Dataset({"rmse": (dims, rmse), "worst": (dims, worst)}, coords)

    @cached_property
    def _sizes(self) -> dict[str, Any]:
        return self._store.n_bytes()

    @property
    def n_bytes(self) -> int:
        """Bytes of all files of the archive; an OSError where a server does not tell them."""
        return self._sizes["model"] + self._sizes["time"]

    @property
    def level_bytes(self) -> list[int]:
        """Bytes of what each level has of its own, coarsest first."""
        arrays = self._sizes["arrays"].items()
        prefixes = [f"level_{k}/" for k in range(self.levels)]
        return [sum(n for path, n in arrays if path.startswith(prefix)) for prefix in prefixes]

    @property
    def ratio(self) -> float:
        """How many times the archived variables are larger in memory than all of the archive."""
        data = level_dataset(self.reader)
        return sum(data[name].nbytes for name in self.names) / self.n_bytes

    def to_dataset(self, level: int | None = None) -> xr.Dataset:
        """Return the data on one level's grid, decoded where they are indexed.

        Parameters
        ----------
        level : int, optional
            0 is the coarsest; the data's own grid by default.

        Returns
        -------
        xarray.Dataset
            As ``xr.open_dataset(url, engine="mrcae", level=level)``.

        Raises
        ------
        ValueError
            If there is no such level.
        """
        return level_dataset(self.reader, level)

    def verify(self, obj: xr.DataArray | xr.Dataset | None = None) -> xr.Dataset:
        """Decode everything, block by block, and compare it with what was found at writing.

        Parameters
        ----------
        obj : xarray.DataArray or xarray.Dataset, optional
            The data that were archived. Every value is then compared with the bound.

        Returns
        -------
        xarray.Dataset
            Over `variable`, `block` and `lane` (the combinations of the other sample dimensions):
            `count`, `mean` and mean `square` of decoded values; with the data also the `worst` and
            the `rmse` of each block.

        Raises
        ------
        ArchiveError
            Naming the block, if a checksum, a mean, a gap or an error is not what was written or
            promised.
        ValueError
            If `obj` has other labels than the archive.
        """
        return verify(self.reader, obj)

    def append(self, obj: Any, *, progress: bool = True) -> Archive:
        """Add later snapshots, encoded by the archive's own model; no chunk that is there changes.

        Parameters
        ----------
        obj : xarray.DataArray or xarray.Dataset
            Of the same variables on the same grid, at times after the last. Without any snapshot,
            the archive stays as it is.
        progress : bool
            Show a bar.

        Returns
        -------
        Archive
            With what was added.

        Raises
        ------
        ArchiveError
            For other variables, units or coordinates, for times that are not later, and as
            :meth:`xmrcae.MrCAE.to_archive`.
        """
        from .writer import append_archive

        append_archive(self.reader, obj, progress=progress)
        return Archive(self._store.reopened(), self._make_model)

    def __repr__(self) -> str:
        return f"{as_lines(self._title(), self._facts())}\n{self._table().to_string()}"

    def _repr_html_(self) -> str:
        facts = as_table(self._title(), self._facts())
        return f"<div>{facts}{self._table().to_html(escape=True)}</div>"

    @sound()
    def _title(self) -> str:
        names = ", ".join(map(printable, self.names))
        n = sum(self.reader.lengths) * math.prod(self.about["lanes"])
        return f"Archive ({names}; {self.levels} levels, {n} snapshot{'s' * (n != 1)})"

    @sound()
    def _facts(self) -> Rows:
        rows, ends = self.reader.lengths, row_ends(self.reader)
        given = [
            f"{key}={each[key]:g}" + f" of {printable(name)}" * (len(self.names) > 1)
            for name, each in zip(self.names, self.about["variables"], strict=True)
            for key in ("max_error", "rmse")
            if each[key] is not None
        ]
        facts = [
            ("bound", ", ".join(given) or "none: codes alone"),
            ("blocks", f"{len(rows)}, of up to {self.about['rows_per_block']} rows"),
        ]
        if ends is not None:
            first, last = (printable(_short(each)) for each in ends)
            facts.append(("rows", f"{sum(rows)}, {first} to {last}"))
        worst = with_units(self, self.measured["worst"][-1].values)
        return [*facts, ("worst error", f"{worst}, measured"), *self._size()]

    def _size(self) -> Rows:
        try:
            total, levels = self.n_bytes, sum(self.level_bytes)
        except OSError:  # servers of http do not tell it
            return [("size", "unknown: this server does not tell it")]
        parts = f"levels {in_bytes(levels)}, model and labels {in_bytes(total - levels)}"
        ratio = f"{self.ratio:.3g} times smaller than the data in memory"
        return [("size", f"{in_bytes(total)}: {parts}"), ("ratio", ratio)]

    @sound()
    def _table(self) -> pd.DataFrame:
        """Give a row per level: grid, bytes, errors that were measured."""
        try:
            sizes = [in_bytes(n) for n in self.level_bytes]
        except OSError:
            sizes = ["unknown"] * self.levels
        rmse = [with_units(self, row) for row in self.measured["rmse"].values]
        grids = [" x ".join(map(str, level["shape"])) for level in self.about["levels"]]
        index = pd.RangeIndex(self.levels, name="level")
        return pd.DataFrame({"grid": grids, "bytes": sizes, "rmse": rmse}, index)


def _short(label: np.ndarray) -> Any:
    """Return a label of length 1, a time without the parts that are 0."""
    return np.datetime_as_string(label, unit="auto")[0] if label.dtype.kind == "M" else label[0]


def with_units(archive: Archive, errors: np.ndarray) -> str:
    """Write an error of each archived variable, (variable,), in its units."""
    variables = archive.about["labels"]["variables"]
    units = {each["name"]: dict(each["attrs"]).get("units", "") for each in variables}
    pairs = zip(errors, archive.names, strict=True)
    return ", ".join(f"{error:.3g} {printable(units[name])}".rstrip() for error, name in pairs)
