"""The description of a network that is stored, copied and sent: arrays and plain values alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..errors import require


@dataclass(frozen=True, kw_only=True)
class NetworkState:
    """A network in numpy arrays and plain values: all that is needed to make it again.

    Attributes
    ----------
    has_data : list of numpy.ndarray of bool, shape (variable, y, x)
        Of each level that the network has or will have.
    counts : numpy.ndarray of bool, shape (variable, y, x)
        Valid pixels of the finest level.
    widening, restriction, activation
        The options of :class:`xmrcae.core.network.Network`.
    dtype : str
        Of the weights.
    projection : list of numpy.ndarray, shape (variable, y, x), or None
        Weights of each level's pixels if codes are found by projection.
    anchor : float
        With `projection`: factor of the weights of coarser levels.
    masks : list of list of numpy.ndarray of bool, shape (y, x)
        Refinement mask of each group, for each level so far.
    channels : list of list of int
        Number of filters of each group, for each level so far.
    weights : dict of str to numpy.ndarray
        Parameters by name.
    """

    has_data: list[np.ndarray]
    counts: np.ndarray
    widening: str
    restriction: str
    activation: str | None = None
    dtype: str = "float32"
    projection: list[np.ndarray] | None = None
    anchor: float = 0.0
    masks: list[list[np.ndarray]] = field(default_factory=list)
    channels: list[list[int]] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)


def check_state(state: NetworkState) -> None:
    """Check that the arrays of a network belong together, and that all weights are numbers.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    maps = [*state.has_data, state.counts, *(mask for masks in state.masks for mask in masks)]
    require(all(each.dtype == bool for each in maps), "maps of the network are not of bool")
    cells = storable(state.counts, len(state.has_data))
    shapes = [*(each.shape for each in cells[1:]), state.counts.shape]
    require([each.shape for each in state.has_data] == shapes, "levels are on other grids")
    for masks, able in zip(state.masks, cells, strict=False):
        for mask in masks:
            require(mask.shape == able.shape[1:] and mask.any(), "a group acts nowhere")
            require(not (mask & ~able.any(0)).any(), "a group acts where there are no data")
    for name, array in state.weights.items():
        require(array.dtype == state.dtype, f"{name} is of type {array.dtype}")
        require(np.isfinite(array).all(), f"{name} holds NaN or infinite weights")
    pixels = () if state.projection is None else zip(state.projection, state.has_data, strict=True)
    for weights, has_data in pixels:
        require(weights.dtype.kind == "f", f"weights of pixels are of type {weights.dtype}")
        require(np.isfinite(weights).all() and (weights >= 0).all(), "weights of pixels")
        require(not (weights.astype(bool) & ~has_data).any(), "pixels without data have weights")


def storable(counts: np.ndarray, n_levels: int) -> list[np.ndarray]:
    """Find the cells of each level's encoding grid that may store a code, coarsest level first.

    A cell exists only if its footprint on the finest grid, through all levels between, holds a
    valid pixel. The first are the cells of the bottleneck.

    Parameters
    ----------
    counts : numpy.ndarray of bool, shape (variable, y, x)
        Valid pixels of the finest level.
    n_levels : int
        Number of levels.

    Returns
    -------
    list of numpy.ndarray of bool, shape (variable, y, x)
        For each level, on the grid of the level below it.
    """
    reach = counts
    result: list[np.ndarray] = []
    for _ in range(n_levels):
        rows = reach[:, :-2:2] | reach[:, 1:-1:2] | reach[:, 2::2]
        reach = rows[..., :-2:2] | rows[..., 1:-1:2] | rows[..., 2::2]
        result.insert(0, reach)
    return result
