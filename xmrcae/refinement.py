"""Where the groups of a fitted model act, and what each stage of its growth costs and gains.

Where they act is decided in `core.growth`, when a group is added in training.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

from .fitted import Fitted


def refinement_map(fitted: Fitted, level: int) -> xr.DataArray:
    """Return what :meth:`xmrcae.MrCAE.refinement_map` documents."""
    level = fitted.level(level)
    pyramid, groups = fitted.codec.pyramid, fitted.codec.network.levels[level].groups
    masks = np.zeros((len(groups), *pyramid.shape(level - 1)), dtype=bool)
    for mask, group in zip(masks, groups, strict=True):
        mask[:] = group.mask.cpu().numpy()
    coords = pyramid.encoding_coordinates(level).assign_coords(group=np.arange(1, len(groups) + 1))
    result = xr.DataArray(
        masks,
        dims=("group", *pyramid.grid.dims),
        coords=coords.coords,
        name="refinement_map",
        attrs={"long_name": f"refinement mask of level {level}"} | fitted.attributes,
    )
    return fitted.orient(result)


def refinement_count(fitted: Fitted, level: int) -> xr.DataArray:
    """Return what :meth:`xmrcae.MrCAE.refinement_count` documents."""
    masks = refinement_map(fitted, level)
    groups = fitted.codec.network.levels[fitted.level(level)].groups
    n_filters = np.array([group.channels for group in groups], dtype=np.int64)
    filters = xr.DataArray(n_filters, dims="group", coords={"group": masks["group"]})
    count = (masks * filters).sum("group", dtype=np.int64).rename("refinement_count")
    attrs = {"long_name": f"filters at work on level {level}", "units": "1"}
    return count.assign_attrs(attrs | fitted.attributes)


def stages(fitted: Fitted) -> xr.Dataset:
    """Return what :attr:`xmrcae.MrCAE.stages` documents."""
    network, history = fitted.codec.network, fitted.history
    options = json.loads(fitted.options_json)
    # Where cells of all levels compete, rounds of training belong to no stage.
    at_once = options.get("encoding_size") is not None and options.get("encoder") == "projection"
    spans = np.diff(history["epoch"].values, prepend=0)  # above 1 where only last rows are kept
    rows: list[dict[str, Any]] = []
    for level in range(len(network.levels)):
        shares = [1.0, *network.active_share(level)]
        costs = zip(network.stage_parameters(level), network.stage_sizes(level), strict=True)
        for group, ((parameters, size), share) in enumerate(zip(costs, shares, strict=True)):
            is_row = (history["level"].values == level) & (history["group"].values == group)
            at = np.flatnonzero(is_row & (not at_once))
            row: dict[str, Any] = {"level": level, "group": group, "epochs": int(spans[at].sum())}
            row |= {"parameters": parameters, "active_share": share, "encoding_size": size}
            for name in ("train_loss", "validation_mse", "validation_loss"):
                row[name] = float(history[name].values[at[-1]]) if len(at) else np.nan
            rows.append(row)
    columns = {name: ("stage", [row[name] for row in rows]) for name in rows[0]}
    coords = {name: columns.pop(name) for name in ("level", "group")}
    return xr.Dataset(columns, coords=coords, attrs=fitted.attributes)
