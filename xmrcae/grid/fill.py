"""Values on land and in the padding, where filters read too."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from array_api_compat import array_namespace, device, to_device

from ..handover import Array
from .pyramid import Pyramid


def fill_and_pad(values: Array, has_data: Array, pyramid: Pyramid, level: int, how: Any) -> Array:
    """Fill the land of a level, and its padding from the edge."""
    part = (..., pyramid.y.holds(level), pyramid.x.holds(level))
    result = array_namespace(values).zeros_like(values)
    result[part] = fill(values[part], has_data[part], how)
    return pyramid.repeat_edge(result, level)


def fill(values: Array, has_data: Array, how: Any) -> Array:
    """Fill in where there are no data: with 0, or by Laplace's equation from the coast inward.

    Both are linear in the data, so a compressed training set stays exact.

    Parameters
    ----------
    values : numpy.ndarray or Tensor, shape (sample, variable, y, x)
        Centred and scaled.
    has_data : numpy.ndarray or Tensor of bool, shape (variable, y, x)
        Where `values` count.
    how : {0, "harmonic"}
        What to fill with; Laplace's equation is solved on the host.
    """
    xp = array_namespace(values)
    filled = xp.where(has_data, values, 0)
    if how == "harmonic":
        for variable, has in enumerate(np.asarray(to_device(has_data, "cpu"))):
            if has.all() or not has.any():
                continue
            land, coast, solve = _laplace(has.tobytes(), has.shape)
            field = np.asarray(to_device(filled[:, variable], "cpu")).reshape(len(filled), -1)
            field[:, land] = solve(coast @ field.T.astype(np.float64)).T
            on_grid = field.reshape(filled[:, variable].shape)
            filled[:, variable] = xp.asarray(on_grid, device=device(filled))
    return filled


@lru_cache(maxsize=16)
def _laplace(has_data: bytes, shape: tuple[int, int]) -> tuple[np.ndarray, Any, Any]:
    """Return the land pixels, and the system of their discrete Laplace equation.

    The data are its boundary values.
    """
    has = np.frombuffer(has_data, dtype=bool)
    chains = [scipy.sparse.diags_array([1.0, 1.0], offsets=[-1, 1], shape=(n, n)) for n in shape]
    neighbours = scipy.sparse.kron(chains[0], scipy.sparse.eye_array(shape[1])) + scipy.sparse.kron(
        scipy.sparse.eye_array(shape[0]), chains[1]
    )
    neighbours = neighbours.tocsr()
    land = np.flatnonzero(~has)
    degree = scipy.sparse.diags_array(neighbours.sum(axis=1)[land])
    system = (degree - neighbours[land][:, land]).tocsc()
    coast = neighbours[land] @ scipy.sparse.diags_array(has.astype(np.float64))
    return land, coast.tocsr(), scipy.sparse.linalg.splu(system).solve
