"""Valid pixels, gaps, and what stands on land while filters run over it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import xarray as xr

from .coordinates import Grid


def valid_from(valid: xr.DataArray, grid: Grid) -> np.ndarray:
    """The user's own valid pixels as a boolean array (y, x), ascending.

    Raises
    ------
    ValueError
        If it has other dimensions or coordinates than the grid, or other values than True and False, 1 and 0.
    """
    valid = valid.isel({dim: 0 for dim in valid.dims if dim not in (grid.y, grid.x) and valid.sizes[dim] == 1})
    if set(valid.dims) != {grid.y, grid.x}:
        raise ValueError(f"valid has dimensions {tuple(valid.dims)}; the grid has ({grid.y}, {grid.x})")
    values = valid.isel(grid.indexers(valid)).transpose(grid.y, grid.x).values
    wrong = ~np.isin(values, (0, 1))
    if wrong.any():
        raise ValueError(
            f"valid holds {int(wrong.sum())} values other than True and False, 1 and 0, the first of them "
            f"{values[wrong][0]}: compare it with a threshold first"
        )
    return values.astype(bool)


def describe_pixels(pixels: np.ndarray) -> str:
    """'1 pixel', '9 pixels'."""
    n = int(pixels.sum())
    return f"{n} pixel{'' if n == 1 else 's'}"


def describable(
    given: np.ndarray | None, finite: np.ndarray, n_samples: int, *, is_land: np.ndarray | None, gaps: str | None
) -> np.ndarray:
    """Pixels that the data and the user leave to be described, if nothing is to be refused.

    Parameters are those of `find_valid`; each pixel is judged by itself.
    """
    valid = finite > 0
    valid &= True if given is None else given
    if is_land is not None:
        valid &= ~is_land
    return valid if gaps == "mean" else valid & (finite == n_samples)


def find_valid(
    given: np.ndarray | None, finite: np.ndarray, infinite: np.ndarray, n_samples: int, *, is_land: np.ndarray | None,
    gaps: str | None, missing: np.ndarray, variables: Sequence[str],
) -> np.ndarray:  # fmt: skip
    """Which pixels are to be described.

    Parameters
    ----------
    given : numpy.ndarray of bool, shape (y, x), or None
        What the user says.
    finite, infinite : numpy.ndarray of int, shape (variable, y, x)
        How many of the `n_samples` snapshots hold a finite value, and an infinite one.
    is_land : numpy.ndarray of bool, shape (variable, y, x), or None
        Pixels that hold the land value throughout.
    gaps : {None, "mask", "mean"}
        What happens to pixels that are missing at some times only.
    missing : numpy.ndarray of bool, shape (variable, y, x)
        Pixels without a value at any of the training times.
    variables : sequence of str
        For messages.

    Returns
    -------
    numpy.ndarray of bool, shape (variable, y, x)

    Raises
    ------
    ValueError
        For infinite values on valid pixels, gaps in time, pixels declared valid that never hold a value, and where
        nothing is valid.
    """
    never = finite + infinite == 0
    if given is not None:
        wrong = given & never
        if wrong.any():
            raise ValueError(
                f"valid is True at {describe_pixels(wrong)} where the data are missing at all times: correct valid "
                "there, or leave it out to describe all pixels that hold values"
            )
        valid = np.broadcast_to(given, finite.shape).copy()
    else:
        valid = ~never if is_land is None else ~never & ~is_land
    if infinite[valid].any():
        raise ValueError(
            f"the data hold {int(infinite[valid].sum())} infinite values at {describe_pixels(valid & (infinite > 0))}: "
            "replace them by NaN"
        )
    partial = valid & (finite < n_samples)
    if partial.any() and gaps is None:
        n_values = int((n_samples - finite)[partial].sum())
        raise ValueError(
            f"the data have gaps in time: {describe_pixels(partial)} are missing at some times only ({n_values} "
            "values): "
            'fit with gaps="mask" to treat these pixels as land, with gaps="mean" to fill them with their mean over '
            "time, or fill them first"
        )
    if gaps == "mask":
        valid &= ~partial
    elif gaps == "mean" and (valid & missing).any():
        raise ValueError(
            f'gaps="mean" needs at least one training time with a value at each pixel: '
            f'{describe_pixels(valid & missing)} have none; use gaps="mask", or another split'
        )
    for name, each in zip(variables, valid, strict=True):
        if not each.any():
            raise ValueError(f"no pixel of {name!r} is valid: the data are missing everywhere, or valid leaves nothing")
    return valid


def fill(values: np.ndarray, has_data: np.ndarray, how: Any) -> np.ndarray:
    """Values where there is no data: 0, or those that solve Laplace's equation from the coast inward.

    Both are linear in the data, so a compressed training set stays exact.

    Parameters
    ----------
    values : numpy.ndarray, shape (sample, variable, y, x)
        Centred and scaled.
    has_data : numpy.ndarray of bool, shape (variable, y, x)
        Where `values` count.
    how : {0, "harmonic"}
        What to fill with.
    """
    filled = np.where(has_data, values, values.dtype.type(0))
    if how == "harmonic":
        for variable, has in enumerate(has_data):
            if has.all() or not has.any():
                continue
            land, coast, solve = _laplace(has.tobytes(), has.shape)
            field = filled[:, variable].reshape(len(filled), -1)
            field[:, land] = solve(coast @ field.T.astype(np.float64)).T
            filled[:, variable] = field.reshape(filled[:, variable].shape)
    return filled


@lru_cache(maxsize=16)
def _laplace(has_data: bytes, shape: tuple[int, int]) -> tuple[np.ndarray, Any, Any]:
    """The land pixels, and the system of their discrete Laplace equation with the data as boundary values."""
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
