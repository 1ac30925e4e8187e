"""What fitting leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from .arrays import plain_numbers, where_not
from .grid.conventions import Labelled
from .grid.dimensions import Dimensions
from .grid.layout import Layout
from .grid.scaling import Standard
from .grid.split import months, time_of
from .grid.units import check_units

if TYPE_CHECKING:
    from .codec import Codec
    from .grid.training_set import TrainingSet


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The network with its grid, and what is needed to label results.

    Attributes
    ----------
    inference : Codec
        The network, and what stands between it and the data.
    options_json : str
        The options of the fit.
    id : str
        Of this model; codes carry it.
    standard, split, variables, attrs, is_dataset, dims, sample, dtype
        Those of :class:`xmrcae.grid.training_set.TrainingSet`.
    history : xarray.Dataset
        Over `epoch`.
    """

    inference: Codec
    standard: Standard
    history: xr.Dataset
    split: xr.DataArray
    variables: list[Any]
    attrs: list[dict[str, Any]]
    is_dataset: bool
    dims: tuple[str, ...]
    sample: tuple[str, ...]
    dtype: np.dtype[Any]
    options_json: str
    id: str

    @classmethod
    def of(
        cls, prepared: TrainingSet, network: Any, history: list[dict[str, float]], options_json: str, model_id: str, *,
        report: dict[str, Any],
    ) -> Fitted:  # fmt: skip
        """That of a training set and the network trained on it."""
        from .codec import Codec

        table = pd.DataFrame(history, columns=history_columns(), dtype="float64").astype(
            {"level": "int64", "group": "int64"}
        )
        table.index = pd.RangeIndex(1, len(table) + 1, name="epoch")
        return cls(
            inference=Codec(network, prepared.pyramid, prepared.standard, model_id),
            standard=prepared.standard, options_json=options_json,
            history=xr.Dataset.from_dataframe(table).assign_attrs({"units": "scaled units squared"} | report),
            split=prepared.split, variables=prepared.variables, attrs=prepared.attrs, is_dataset=prepared.is_dataset,
            dims=prepared.dims, sample=prepared.sample, dtype=np.dtype(prepared.dtype), id=model_id,
        )  # fmt: skip

    def level(self, level: int | None) -> int:
        """Return the number of a level, the finest for None; an error if there is none such."""
        levels = self.inference.pyramid.levels
        if level is None:
            return levels - 1
        whole = isinstance(level, int | np.integer) and not isinstance(level, bool)
        if not whole or not 0 <= level < levels:
            allowed = f"from 0, the coarsest, to {levels - 1}, the data's own"
            raise ValueError(f"level={level!r}: a whole number {allowed}")
        return int(level)

    def variables_of(self, obj: Labelled) -> Labelled:
        """Return the fitted variables of `obj`, in the fitted order, NaN where they are missing."""
        if isinstance(obj, xr.DataArray):
            if self.is_dataset:
                raise TypeError(
                    f"the model was fitted to a Dataset of {', '.join(self.variables)}; a DataArray was given"
                )
            return self._values_of(obj)
        if not isinstance(obj, xr.Dataset):
            raise TypeError(f"a DataArray or a Dataset is needed, not {type(obj).__name__}")
        missing = [name for name in self.variables if name not in obj.data_vars]
        if missing:
            raise ValueError(
                f"the Dataset has no variable {', '.join(map(repr, missing))}, to which the model was fitted"
            )
        return self._values_of(obj[self.variables] if self.is_dataset else obj[self.variables[0]])

    def _values_of(self, obj: Labelled) -> Labelled:
        check_units(obj, self.attrs)
        land_value = json.loads(self.options_json).get("land_value")
        obj = plain_numbers(obj)
        return obj if land_value is None else where_not(obj, land_value)

    def layout(self, obj: Labelled) -> Layout:
        """How new data lie on the fitted grid; sample dimensions are all but the horizontal ones."""
        grid = self.inference.pyramid.grid
        first = obj[self.variables[0]] if isinstance(obj, xr.Dataset) else obj
        sample = tuple(str(dim) for dim in first.dims if dim not in (grid.y, grid.x) and first.sizes[dim] != 1)
        return Layout.of(obj, Dimensions(sample, grid.y, grid.x), grid)

    def season(self, layout: Layout) -> Any:
        """The centre that each snapshot of a layout departs from, (sample,): its month, or always 0."""
        if not self.standard.monthly:
            return np.zeros(int(np.prod(layout.sample_shape)), dtype=np.int64)
        time = time_of(self.split.coords.to_dataset(), self.split.dims)
        name = None if time is None else time.name
        return months(layout.sample_coords, layout.dims.sample, layout.sample_shape, name=name)

    def orient(self, result: xr.DataArray) -> xr.DataArray:
        """A result on ascending rows and columns, in the fitted data's order and orientation."""
        grid = self.inference.pyramid.grid
        flips = {dim: slice(None, None, -1) for dim, d in zip((grid.y, grid.x), grid.descending, strict=True) if d}
        horizontal = [dim for dim in self.dims if dim in (grid.y, grid.x)]
        return result.isel(flips).transpose(..., *horizontal)


def history_columns() -> list[str]:
    """The variables of a model's history."""
    names = ["level", "group", "seconds"]
    for part in ("train", "validation", "test"):
        for kind in ("", "_global"):
            names += [f"{part}{kind}_{term}" for term in ("mse", "max", "loss")]
    return names
