"""A fitted model as few Datasets of plain arrays, and attributes that JSON holds.

They are what a model file and the model part of an archive consist of. Options and attributes are
JSON, all else is arrays: nothing is pickled, and nothing is executed on reading.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .._version import __version__
from ..errors import require
from ..fitted import Fitted, history_columns
from ..grid.coordinates import Grid
from ..grid.description import Labels
from ..grid.pyramid import Pyramid
from ..grid.scaling import Scaling
from ..grid.split import PARTS
from ..option_values import RANGES, check_number
from ..options import Options, make_options, renamed
from .checks import check_about, check_axes, check_network, check_scaling
from .labels import (
    attributes_from_json,
    attributes_to_json,
    coordinates_from_plain,
    coordinates_to_plain,
)
from .network_arrays import MOST_LEVELS, from_arrays, to_arrays

#: What a snapshot served for, by the number in the file; the last is one that three indexers left
#: out.
LABELS = (*PARTS, "")

#: Name of the variable over the snapshots, none that a coordinate could have.
PART = "split.part"

#: Dimension of each array of the network.
NETWORK = {"weights": "weight", "bits": "byte", "projection": "pixel"}

#: Dimensions of fields on the data's grid.
PIXELS = ("variable", "row", "column")

#: Columns of the history that hold whole numbers.
WHOLE = ("epoch", "level", "group")


def fitted_to_datasets(
    fitted: Fitted, *, base_maps: bool = True, all_epochs: bool = True
) -> tuple[dict[str, xr.Dataset], dict[str, Any]]:
    """Write a fitted model as plain arrays.

    Parameters
    ----------
    fitted : Fitted
        The model.
    base_maps : bool
        Whether to write the maps that are added to decoded fields, `centre` and `mean`.
    all_epochs : bool
        Whether to write the history of every epoch, or of the last one of each stage.

    Returns
    -------
    dict of str to xarray.Dataset
        `network`, as :func:`xmrcae.io.network_arrays.to_arrays` gives it; `history` (epoch,
        column), in float32; `grid` and `split`, with the coordinates of the fitted data; and
        `standard`, the maps, where asked for: `centre` (season, variable, row, column), and
        `mean` (variable, row, column) if it is another.
    dict
        Attributes: text, whole numbers, and `about` and `versions`, which JSON holds.
    """
    import torch

    arrays, network = to_arrays(fitted.codec.network.state())
    on_grid, grid_record = coordinates_to_plain(fitted.codec.pyramid.grid.coords, ())
    split, split_record = _split_to_dataset(fitted.split)
    history, columns = _history_to_dataset(fitted.history, all_epochs=all_epochs)
    datasets = {
        "network": network_dataset(arrays),
        "history": history,
        "grid": xr.Dataset(on_grid),
        "split": split,
    }
    if base_maps:
        datasets["standard"] = standard_dataset(fitted.standard.centre, fitted.standard.mean)
    about = _about(fitted) | {
        "network": network,
        "history": columns,
        "grid_coordinates": grid_record,
        "split_coordinates": split_record,
    }
    versions = {"torch": torch.__version__, "xarray": xr.__version__, "numpy": np.__version__}
    return datasets, {
        "xmrcae_version": __version__,
        "xmrcae_model": fitted.id,
        "xmrcae_options": fitted.options_json,
        "partial": int(fitted.partial),
        "about": about,
        "versions": versions,
    }


def fitted_from_datasets(
    datasets: Mapping[str, xr.Dataset], attrs: Mapping[Any, Any]
) -> tuple[dict[str, Any], Fitted]:
    """Undo :func:`fitted_to_datasets`.

    Parameters
    ----------
    datasets : mapping of str to xarray.Dataset
        As written, nothing decoded. Where the maps were left out, `standard` is to be made by
        :func:`standard_dataset`.
    attrs : mapping
        As written.

    Returns
    -------
    dict
        Options by name.
    Fitted
        The model, on the CPU.
    """
    from ..codec import Codec
    from ..core.projection import from_state

    about = attrs["about"]
    options = make_options(options_of(json.loads(attrs["xmrcae_options"])))
    check_about(about, attrs, options)
    state = from_arrays(_values(datasets["network"]), about["network"])
    maps = _values(datasets["standard"])
    pyramid = pyramid_of(datasets["grid"], about)
    check_network(state, pyramid, about, options)
    standard = Scaling(
        centre=maps["centre"],
        scale=np.array(about["scale"]),
        mean=maps.get("mean", maps["centre"][0]),
        valid=state.counts[pyramid.cut(pyramid.levels - 1)],
        monthly=about["monthly"],
        fill=about["fill"],
    )
    check_scaling(standard, about, pyramid.grid.sizes)
    labels = Labels(
        variables=about["variables"],
        attrs=[attributes_from_json(each) for each in about["attrs"]],
        is_dataset=about["is_dataset"],
        dims=tuple(about["dims"]),
        sample=tuple(about["sample"]),
    )
    fitted = Fitted(
        labels=labels,
        codec=Codec(from_state(state), pyramid, standard, attrs["xmrcae_model"]),
        history=_history_from_dataset(datasets["history"], about["history"]),
        split=_split_from_dataset(datasets["split"], about),
        dtype=np.dtype(about["dtype"]),
        options_json=attrs["xmrcae_options"],
        id=attrs["xmrcae_model"],
        partial=bool(attrs["partial"]),
    )
    if fitted.standard.monthly:
        months = fitted.known_months  # an error, where the snapshots have no times
        require(months.max(initial=0) < len(standard.centre), "a month has no map of its mean")
    return vars(options), fitted


def network_dataset(arrays: Mapping[str, np.ndarray]) -> xr.Dataset:
    """Label the arrays of a network."""
    return xr.Dataset({name: (NETWORK[name], array) for name, array in arrays.items()})


def standard_dataset(centre: np.ndarray, mean: np.ndarray) -> xr.Dataset:
    """Label the maps that are added to decoded fields, and what stands in for missing values."""
    centres = xr.Dataset({"centre": (("season", *PIXELS), centre)})
    return centres if np.array_equal(centre[0], mean) else centres.assign(mean=(PIXELS, mean))


def _values(stored: xr.Dataset) -> dict[str, np.ndarray]:
    return {str(name): variable.values for name, variable in stored.data_vars.items()}


def _about(fitted: Fitted) -> dict[str, Any]:
    """Return what is no array as JSON holds it, without what the network's arrays need."""
    pyramid = fitted.codec.pyramid
    grid = pyramid.grid
    return {
        "variables": fitted.labels.variables,
        "attrs": [attributes_to_json(attrs) for attrs in fitted.labels.attrs],
        "is_dataset": fitted.labels.is_dataset,
        "dims": list(fitted.labels.dims),
        "sample": list(fitted.labels.sample),
        "dtype": fitted.dtype.name,
        "grid": {
            "y": grid.y,
            "x": grid.x,
            "sizes": list(grid.sizes),
            "descending": [bool(d) for d in grid.descending],
            "periodic": bool(grid.periodic),
        },
        "axes": [[axis.padded, axis.before] for axis in (pyramid.y, pyramid.x)],
        "levels": pyramid.levels,
        "restriction": pyramid.restriction,
        "scale": fitted.standard.scale.tolist(),
        "monthly": fitted.standard.monthly,
        "fill": fitted.standard.fill,
    }


def _history_to_dataset(history: xr.Dataset, *, all_epochs: bool) -> tuple[xr.Dataset, list[str]]:
    """Write a history as one array (epoch, column); its columns are named beside it."""
    columns = ["epoch", *map(str, history.data_vars)]
    table = np.stack([history[name].values for name in columns], axis=1).astype("float32")
    if not all_epochs:
        stage = table[:, [columns.index(name) for name in ("level", "group")]]
        is_last = np.append((np.diff(stage, axis=0) != 0).any(1), True)
        table = table[is_last[: len(table)]]
    return xr.Dataset({"history": (("epoch", "column"), table)}, attrs=history.attrs), columns


def _history_from_dataset(stored: xr.Dataset, columns: list[str]) -> xr.Dataset:
    table = stored["history"].values
    require(table.dtype.kind == "f" and {*columns} >= {"epoch", *history_columns()}, "the history")
    frame = pd.DataFrame(table, columns=columns, dtype="float64")
    frame = frame.astype(dict.fromkeys(WHOLE, "int64")).set_index("epoch")
    return xr.Dataset.from_dataframe(frame).assign_attrs(stored.attrs)


def _split_to_dataset(split: xr.DataArray) -> tuple[xr.Dataset, dict[str, Any]]:
    """Write what each snapshot served for, and what its coordinates were."""
    coords, record = coordinates_to_plain(split.coords.to_dataset(), split.dims)
    part = np.select([split.values == label for label in LABELS], range(len(LABELS)))
    dims = [record["dims"][dim] for dim in split.dims]
    return xr.Dataset(coords | {PART: xr.Variable(dims, part.astype("int8"))}), record


def _split_from_dataset(stored: xr.Dataset, about: Mapping[str, Any]) -> xr.DataArray:
    part = stored[PART].values
    require(part.dtype == "int8" and (0 <= part).all(), "parts of the snapshots")
    return xr.DataArray(
        np.array(LABELS)[part],
        dims=about["sample"],
        name="split",
        coords=coordinates_from_plain(stored, about["split_coordinates"]).coords,
    )


def pyramid_of(stored: xr.Dataset, about: Mapping[str, Any]) -> Pyramid:
    """Return the pyramid over the grid whose coordinates are stored."""
    on_grid = about["grid"]
    check_number("levels", about["levels"], 1, MOST_LEVELS, whole=True)
    coords = coordinates_from_plain(stored, about["grid_coordinates"])
    require({*coords.dims} <= {on_grid["y"], on_grid["x"]}, "coordinates of the grid")
    for name, size in zip((on_grid["y"], on_grid["x"]), on_grid["sizes"], strict=True):
        require(coords.sizes.get(name, size) == size, f"coordinates along {name!r}")
    grid = Grid(
        on_grid["y"],
        on_grid["x"],
        tuple(on_grid["sizes"]),
        coords,
        tuple(on_grid["descending"]),
        on_grid["periodic"],
    )
    pyramid = Pyramid.of(grid, levels=about["levels"], restriction=about["restriction"])
    for name, (padded, before) in zip("yx", about.get("axes", ()), strict=False):
        axis = dataclasses.replace(getattr(pyramid, name), padded=padded, before=before)
        pyramid = dataclasses.replace(pyramid, **{name: axis})
    check_axes((pyramid.y, pyramid.x))
    return pyramid


def options_of(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as they were; those that were arrays, which nothing reads, at defaults."""
    known = {field.name for field in dataclasses.fields(Options)}
    options = {
        name: value
        for name, value in renamed(stored).items()
        if name in known and (name in RANGES or '"<' not in json.dumps(value))  # numbers stay
    }
    pairs = {
        name: tuple(options[name])
        for name in ("split", "horizontal")
        if isinstance(options.get(name), list)
    }
    if "split" in pairs:
        pairs["split"] = tuple(
            slice(*p["slice"]) if isinstance(p, dict) else p for p in pairs["split"]
        )
    return options | pairs
