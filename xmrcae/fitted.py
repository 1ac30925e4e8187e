"""What fitting leaves: the network with its grid, and what is needed to label results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ._version import __version__
from .grid.conventions import Labelled, fields_of
from .grid.description import Labels
from .grid.dimensions import Dimensions, check_text
from .grid.layout import Layout
from .grid.scaling import Scaling
from .grid.split import months, time_of
from .grid.values import where_not
from .handover import TERMS
from .option_values import level_number

if TYPE_CHECKING:
    from .codec import Codec


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted network, on which all that describes, scores, draws or stores it depends.

    Attributes
    ----------
    labels : Labels
        Names and attributes of the fitted data.
    codec : Codec
        The network, its grid, and what stands between it and the data.
    history : xarray.Dataset
        Losses over `epoch`.
    split : xarray.DataArray
        What each snapshot served for, over the sample dimensions.
    dtype : numpy.dtype
        float32 or float64, that of the data.
    options_json : str
        The options of the fit.
    id : str
        Of this model; codes carry it.
    partial : bool
        Whether training was ended before its time.
    """

    labels: Labels
    codec: Codec
    history: xr.Dataset
    split: xr.DataArray
    dtype: np.dtype[Any]
    options_json: str
    id: str
    partial: bool = False

    @property
    def standard(self) -> Scaling:
        """Centring, scaling and valid pixels of the finest level."""
        return self.codec.standards[-1]

    @property
    def encoder(self) -> str:
        """What finds codes, by the name that the options have for it."""
        return "filters" if self.codec.network.encodes else "projection"

    @property
    def attributes(self) -> dict[str, Any]:
        """What each result says of how it was made."""
        return {
            "xmrcae_version": __version__,
            "xmrcae_model": self.id,
            "xmrcae_options": self.options_json,
        }

    @property
    def encoding_sizes(self) -> np.ndarray:
        """Numbers per snapshot that decoding each level needs, cumulative over levels."""
        return np.cumsum(self.codec.sizes)

    def level(self, level: int | None) -> int:
        """Return the number of a level, the finest for None.

        Raises
        ------
        ValueError
            If there is no such level.
        """
        return level_number(level, self.codec.pyramid.levels)

    def variables_of(self, obj: Labelled) -> Labelled:
        """Return the fitted variables of `obj`, in the fitted order, NaN where they are missing."""
        obj = self.labels.of(obj)
        land_value = json.loads(self.options_json).get("land_value")
        return obj if land_value is None else where_not(obj, land_value)

    def layout(self, obj: Labelled) -> Layout:
        """Find how new data lie on the fitted grid; all but the two dimensions are samples."""
        check_text([*obj.dims, *obj.coords])
        grid = self.codec.pyramid.grid
        first = fields_of(obj)[0]
        sample = tuple(
            str(dim) for dim in first.dims if dim not in grid.dims and first.sizes[dim] != 1
        )
        return Layout.of(obj, Dimensions(sample, *grid.dims), grid)

    def season(self, layout: Layout) -> Any:
        """Return the centre that each snapshot departs from, (sample,): its month, or always 0."""
        sample, shape = layout.dims.sample, layout.sample_shape
        if not self.standard.monthly:
            return np.zeros(int(np.prod(shape)), dtype=np.int64)
        time = time_of(self.split.coords.to_dataset(), self.split.dims)
        name = None if time is None else time.name
        return months(layout.sample_coords, sample, shape, name=name, known=self.known_months)

    @cached_property
    def known_months(self) -> np.ndarray:
        """The calendar months, from 0, of the snapshots that the fit has used."""
        split = self.split
        found = np.asarray(months(split.coords.to_dataset(), split.dims, split.shape))
        return np.unique(found[split.values.ravel() != ""])

    def orient(self, result: xr.DataArray) -> xr.DataArray:
        """Turn a result on ascending rows and columns to where those of the fitted data lie."""
        grid = self.codec.pyramid.grid
        horizontal = [dim for dim in self.labels.dims if dim in grid.dims]
        return grid.turned(result).transpose(..., *horizontal)


def history_columns() -> list[str]:
    """Return the variables of a model's history."""
    names = ["level", "group", "seconds"]
    for part in ("train", "validation", "test"):
        for kind in ("", "_global"):
            names += [f"{part}{kind}_{term}" for term in TERMS]
    return names


def history_table(rows: Sequence[Mapping[str, float]], report: Mapping[str, Any]) -> xr.Dataset:
    """Return a history over `epoch`, one row per epoch, with a report as attributes."""
    table = pd.DataFrame(list(rows), columns=history_columns(), dtype="float64")
    table = table.astype({"level": "int64", "group": "int64"})
    table.index = pd.RangeIndex(1, len(table) + 1, name="epoch")
    attrs = {"units": "scaled units squared", **report}
    return xr.Dataset.from_dataframe(table).assign_attrs(attrs)
