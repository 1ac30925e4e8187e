"""A fitted model as a DataTree in netCDF-4 or Zarr.

Nothing is pickled and nothing is executed on reading: options and attributes are JSON, all else is
arrays.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from .._version import __version__
from ..core.state import NetworkState
from ..fitted import Fitted
from ..grid.coordinates import Grid
from ..grid.description import Labels
from ..grid.pyramid import Pyramid
from ..grid.scaling import Scaling
from ..grid.split import PARTS
from ..options import Options, renamed
from .labels import (
    attributes_from_json,
    attributes_to_json,
    coordinates_from_plain,
    coordinates_to_plain,
)
from .tree_file import read_tree, write_tree

FORMAT, FORMAT_VERSION = "xmrcae-model", 2

#: What a snapshot served for, by the number in the file; the last is one that three indexers left
#: out.
LABELS = (*PARTS, "")

#: Name of the variable over the snapshots, none that a coordinate could have.
PART = "split.part"

#: Name of the weights of each pixel under which codes are found by projection; absent where
#: filters find them.
PROJECTION = "projection"

#: Dimensions of fields on a level.
PIXELS = ("variable", "row", "column")

#: Dimensions of the parameters in the file.
DEEPENING = {
    "encoder_weight": ["tap"],
    "encoder_bias": ["variable"],
    "decoder_weight": ["tap"],
    "decoder_bias": ["variable"],
}
GROUP = {
    "encoder_weight": ["filter", "tap"],
    "encoder_bias": ["filter"],
    "decoder_weight": ["filter", "tap"],
    "decoder_bias": ["variable"],
}


def save_model(fitted: Fitted, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a fitted model, as :meth:`xmrcae.MrCAE.save` documents it."""
    write_tree(_to_tree(fitted), path, overwrite=overwrite)


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Fitted]:
    """Read the options and what was fitted, as :func:`xmrcae.open_model` documents it."""
    tree = read_tree(path)
    found = tree.attrs.get("format")
    if found != FORMAT:
        raise ValueError(
            f"{os.fspath(path)} is no model: its attribute 'format' is {found!r}, not {FORMAT!r}"
        )
    if int(tree.attrs.get("format_version", 0)) > FORMAT_VERSION:
        raise ValueError(
            f"{os.fspath(path)} was written by a newer xmrcae "
            f"({tree.attrs.get('xmrcae_version')}): this is {__version__}; update it to read "
            "the file"
        )
    try:
        return _from_tree(tree)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{os.fspath(path)} is a damaged model: {type(error).__name__}: {error}"
        ) from error


def _to_tree(fitted: Fitted) -> xr.DataTree:
    import torch

    network, state = fitted.codec.network, fitted.codec.network.state()
    on_grid, grid_record = coordinates_to_plain(fitted.codec.pyramid.grid.coords, ())
    samples = fitted.split.coords.to_dataset()
    on_samples, split_record = coordinates_to_plain(samples, fitted.labels.sample)
    labels = [fitted.split.values == label for label in LABELS]
    part = np.select(labels, range(len(LABELS))).astype("int8")
    split = {PART: ([split_record["dims"][dim] for dim in fitted.split.dims], part)}
    about = _about(fitted, state) | {
        "grid_coordinates": grid_record,
        "split_coordinates": split_record,
    }
    versions = {"torch": torch.__version__, "xarray": xr.__version__, "numpy": np.__version__}
    attrs = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "xmrcae_version": __version__,
        "xmrcae_model": fitted.id,
        "xmrcae_options": fitted.options_json,
        "partial": int(fitted.partial),
        "about": json.dumps(about),
        "versions": json.dumps(versions),
    }
    nodes = {
        "/": xr.Dataset(attrs=attrs),
        "/grid": xr.Dataset(on_grid),
        "/standard": _standard_to_dataset(fitted.standard),
        "/history": fitted.history,
        "/split": xr.Dataset(on_samples | split),
    }
    bottleneck = network.storable[0].cpu().numpy()
    return xr.DataTree.from_dict(nodes | _network_to_datasets(state, bottleneck))


def _about(fitted: Fitted, state: NetworkState) -> dict[str, Any]:
    """Everything that is no array, as JSON holds it."""
    pyramid = fitted.codec.pyramid
    grid = pyramid.grid
    return {
        "variables": fitted.labels.variables,
        "attrs": [attributes_to_json(attrs) for attrs in fitted.labels.attrs],
        "is_dataset": fitted.labels.is_dataset,
        "dims": fitted.labels.dims,
        "sample": fitted.labels.sample,
        "dtype": fitted.dtype.name,
        "grid": {
            "y": grid.y,
            "x": grid.x,
            "sizes": grid.sizes,
            "descending": [bool(d) for d in grid.descending],
            "periodic": bool(grid.periodic),
        },
        "axes": [[axis.padded, axis.before] for axis in (pyramid.y, pyramid.x)],
        "levels": pyramid.levels,
        "restriction": pyramid.restriction,
        "widening": state.widening,
        "activation": state.activation,
        "anchor": state.anchor,
        "monthly": fitted.standard.monthly,
        "fill": fitted.standard.fill,
        "groups": [len(masks) for masks in state.masks],
        "history": list(fitted.history.data_vars),
    }


def _standard_to_dataset(standard: Scaling) -> xr.Dataset:
    return xr.Dataset(
        {
            "centre": (("season", *PIXELS), standard.centre),
            "scale": ("variable", standard.scale),
            "mean": (PIXELS, standard.mean),
            "valid": (PIXELS, standard.valid.astype("int8")),
        }
    )


def _network_to_datasets(state: NetworkState, bottleneck: np.ndarray) -> dict[str, xr.Dataset]:
    """A node for each deepening and each group: its weights by name, and where it acts.

    `bottleneck`, (variable, y, x), are the cells that level 0 stores; those of finer levels all
    exist.
    """
    nodes = {}
    for k, masks in enumerate(state.masks):
        deepening = _weights(state, f"levels.{k}.deepening.", DEEPENING)
        cells = bottleneck if k == 0 else np.ones_like(state.has_data[k - 1])
        deepening["cells"] = ("variable", "y", "x"), cells.astype("int8")
        deepening["has_data"] = PIXELS, state.has_data[k].astype("int8")
        if state.projection is not None:
            deepening[PROJECTION] = PIXELS, state.projection[k]
        nodes[f"/level_{k}/deepening"] = deepening
        for j, mask in enumerate(masks):
            group = _weights(state, f"levels.{k}.groups.{j}.", GROUP)
            nodes[f"/level_{k}/group_{j + 1}"] = group.assign(
                mask=(("y", "x"), mask.astype("int8"))
            )
    return nodes


def _weights(state: NetworkState, prefix: str, dims: Mapping[str, list[str]]) -> xr.Dataset:
    """The parameters of a deepening or a group, by name."""
    found = {name: state.weights.get(prefix + name) for name in dims}
    return xr.Dataset(
        {name: (dims[name], each) for name, each in found.items() if each is not None}
    )


def _from_tree(tree: xr.DataTree) -> tuple[dict[str, Any], Fitted]:
    from ..codec import Codec
    from ..core.projection import from_state

    about = json.loads(tree.attrs["about"])
    pyramid, standard = _pyramid(tree, about), _standard(tree, about)
    counts = np.zeros((len(about["variables"]), *pyramid.shape(pyramid.levels - 1)), dtype=bool)
    counts[pyramid.cut(pyramid.levels - 1)] = standard.valid
    network = from_state(_network_state(tree, about, counts))
    stored_split = tree["split"].to_dataset()
    split = xr.DataArray(
        np.array(LABELS)[stored_split[PART].values],
        dims=about["sample"],
        name="split",
        coords=coordinates_from_plain(stored_split, about["split_coordinates"]).coords,
    )
    labels = Labels(
        variables=about["variables"],
        attrs=[attributes_from_json(attrs) for attrs in about["attrs"]],
        is_dataset=about["is_dataset"],
        dims=tuple(about["dims"]),
        sample=tuple(about["sample"]),
    )
    fitted = Fitted(
        labels=labels,
        codec=Codec(network, pyramid, standard, tree.attrs["xmrcae_model"]),
        history=tree["history"].to_dataset()[about["history"]],
        split=split,
        dtype=np.dtype(about["dtype"]),
        options_json=tree.attrs["xmrcae_options"],
        id=tree.attrs["xmrcae_model"],
        partial=bool(tree.attrs["partial"]),
    )
    return _options(json.loads(tree.attrs["xmrcae_options"])), fitted


def _pyramid(tree: xr.DataTree, about: Mapping[str, Any]) -> Pyramid:
    on_grid = about["grid"]
    coords = coordinates_from_plain(tree["grid"].to_dataset(), about["grid_coordinates"])
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
    return pyramid


def _standard(tree: xr.DataTree, about: Mapping[str, Any]) -> Scaling:
    arrays = {name: v.values for name, v in tree["standard"].to_dataset().variables.items()}
    valid = arrays["valid"].astype(bool)
    return Scaling(
        arrays["centre"], arrays["scale"], arrays["mean"], valid, about["monthly"], about["fill"]
    )


def _network_state(tree: xr.DataTree, about: Mapping[str, Any], counts: np.ndarray) -> NetworkState:
    """The network that a file describes; `counts` are the valid pixels of the finest level."""
    has_data, projection, masks, channels, weights = [], [], [], [], {}
    for k, n_groups in enumerate(about["groups"]):
        level = tree.children[f"level_{k}"]
        parts = {"deepening": level.children["deepening"].to_dataset()}
        groups = [level.children[f"group_{j + 1}"].to_dataset() for j in range(n_groups)]
        parts |= {f"groups.{j}": group for j, group in enumerate(groups)}
        for part, stored in parts.items():
            for name in DEEPENING.keys() & stored.variables:
                weights[f"levels.{k}.{part}.{name}"] = stored[name].values
        has_data.append(parts["deepening"]["has_data"].values.astype(bool))
        if PROJECTION in parts["deepening"]:
            projection.append(parts["deepening"][PROJECTION].values)
        masks.append([group["mask"].values.astype(bool) for group in groups])
        channels.append([len(group["decoder_weight"]) for group in groups])
    return NetworkState(
        has_data=has_data,
        counts=counts,
        widening=about["widening"],
        restriction=about["restriction"],
        activation=about["activation"],
        projection=projection or None,
        anchor=about.get("anchor", 0.0),
        masks=masks,
        channels=channels,
        weights=weights,
    )


def _options(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they were; those that were arrays, which nothing reads any more, at defaults."""
    known = {field.name for field in dataclasses.fields(Options)}
    options = {
        name: value
        for name, value in renamed(stored).items()
        if name in known and '"<' not in json.dumps(value)
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
