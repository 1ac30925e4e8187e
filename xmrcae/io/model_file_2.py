"""Model files of the versions 1 and 2: a node per deepening and group, an array per parameter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from ..core.state import NetworkState
from .model_datasets import network_dataset, pyramid_of, standard_dataset
from .network_arrays import to_arrays

#: Parameters of a deepening or a group.
PARAMETERS = {"encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias"}

#: Name of the weights of each pixel under which codes are found by projection; absent where
#: filters find them.
PROJECTION = "projection"


def upgraded(tree: xr.DataTree) -> tuple[dict[str, xr.Dataset], dict[Any, Any]]:
    """Return the Datasets and attributes of the present version, history in float64.

    Parameters
    ----------
    tree : xarray.DataTree
        The file's content, undecoded.
    """
    about = json.loads(tree.attrs["about"])
    standard, grid = tree["standard"].to_dataset(), tree["grid"].to_dataset()
    pyramid = pyramid_of(grid, about)
    counts = np.zeros((len(about["variables"]), *pyramid.shape(pyramid.levels - 1)), dtype=bool)
    counts[pyramid.cut(pyramid.levels - 1)] = standard["valid"].values
    arrays, network = to_arrays(_network_state(tree, about, counts))
    history, columns = tree["history"].to_dataset(), ["epoch", *about["history"]]
    table = np.stack([history[name].values for name in columns], axis=1)
    datasets = {
        "network": network_dataset(arrays),
        "standard": standard_dataset(standard["centre"].values, standard["mean"].values),
        "history": xr.Dataset({"history": (("epoch", "column"), table)}, attrs=history.attrs),
        "grid": grid,
        "split": tree["split"].to_dataset(),
    }
    about |= {"network": network, "history": columns, "scale": standard["scale"].values.tolist()}
    return datasets, tree.attrs | {"about": about}


def _network_state(
    tree: xr.DataTree,
    about: Mapping[str, Any],
    counts: np.ndarray,
) -> NetworkState:
    """Return the network of a file; `counts` are the valid pixels of the finest level."""
    has_data, projection, masks, channels, weights = [], [], [], [], {}
    for k, n_groups in enumerate(about["groups"]):
        level = tree.children[f"level_{k}"]
        parts = {"deepening": level.children["deepening"].to_dataset()}
        groups = [level.children[f"group_{j + 1}"].to_dataset() for j in range(n_groups)]
        parts |= {f"groups.{j}": group for j, group in enumerate(groups)}
        for part, stored in parts.items():
            for name in sorted(PARAMETERS & stored.variables.keys()):
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
