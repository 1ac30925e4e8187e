"""The weight of each pixel in the means."""

from __future__ import annotations

from typing import Any

import numpy as np

from .coordinates import Grid
from .values import plain_numbers


def grid_weights(weights: Any, grid: Grid) -> np.ndarray:
    """Return the weight of each pixel, (y, x), ascending; NaN where its latitude is missing.

    Parameters
    ----------
    weights : None, "area" or xarray.DataArray
        The option.
    grid : Grid
        The pixels.

    Raises
    ------
    ValueError
        For weights on another grid, or that are negative, infinite or 0 throughout.
    """
    if weights is None:
        return np.ones(grid.sizes)
    if isinstance(weights, str):
        return grid.area_weights().values
    weights = plain_numbers(weights)
    if set(weights.dims) != set(grid.dims):
        raise ValueError(
            f"weights has dimensions {tuple(weights.dims)}; the grid has ({grid.y}, {grid.x})"
        )
    values = weights.isel(grid.indexers(weights)).transpose(*grid.dims).values
    values = values.astype(np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
        raise ValueError("weights must be finite, at least 0, and somewhere above it")
    return values


def known_weights(weights: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return weights, (y, x), that are known wherever a variable, (variable, y, x), is valid.

    Where they are missing on land they are the median of their row, since a point of a coarser
    level may lie there.

    Raises
    ------
    ValueError
        If they are missing on a valid pixel, or 0 on all of a variable's.
    """
    if (np.where(valid, weights, 0) == 0).all((1, 2)).any():
        raise ValueError(
            "weights are 0 on all valid pixels of a variable, so nothing would be described: "
            "give weights that are above 0 where the data hold values"
        )
    missing = np.isnan(weights)
    wanted = int((missing & valid.any(0)).sum())
    if wanted:
        raise ValueError(
            f'weights="area" needs the latitude of each valid pixel: that of {wanted} is missing, '
            "or no latitude; give the weights as a DataArray, or leave these pixels out with valid="
        )
    if not missing.any():
        return weights
    rows = np.ma.median(np.ma.masked_invalid(weights), axis=1).filled(np.nanmedian(weights))
    return np.where(missing, rows[:, None], weights)
