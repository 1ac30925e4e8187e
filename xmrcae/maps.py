"""Where the groups of a fitted model act, as labelled maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .fitted import Fitted


def refinement_map(fitted: Fitted, level: int, attrs: dict[str, Any]) -> xr.DataArray:
    """What :meth:`xmrcae.MrCAE.refinement_map` documents."""
    pyramid, groups = fitted.inference.pyramid, fitted.inference.network.levels[level].groups
    masks = np.zeros((len(groups), *pyramid.shape(level - 1)), dtype=bool)
    for mask, group in zip(masks, groups, strict=True):
        mask[:] = group.mask.cpu().numpy()
    dims = ("group", pyramid.grid.y, pyramid.grid.x)
    coords = pyramid.encoding_coordinates(level).assign_coords(group=np.arange(1, len(groups) + 1))
    attrs = {"long_name": f"refinement mask of level {level}"} | attrs
    return fitted.orient(xr.DataArray(masks, dims=dims, coords=coords.coords, name="refinement_map", attrs=attrs))


def refinement_count(fitted: Fitted, level: int, attrs: dict[str, Any]) -> xr.DataArray:
    """What :meth:`xmrcae.MrCAE.refinement_count` documents."""
    masks = refinement_map(fitted, level, attrs)
    filters = [group.channels for group in fitted.inference.network.levels[level].groups]
    n_filters = xr.DataArray(np.asarray(filters, dtype=np.int64), dims="group", coords={"group": masks["group"]})
    count = (masks * n_filters).sum("group", dtype=np.int64)
    attrs = {"long_name": f"filters at work on level {level}", "units": "1"} | attrs
    return count.rename("refinement_count").assign_attrs(attrs)
