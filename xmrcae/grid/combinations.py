"""Which combinations of snapshots a compressed set is made of."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .pyramid import Pyramid


def directions(product: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Find orthonormal combinations of snapshots, the leading first.

    Parameters
    ----------
    product : numpy.ndarray, shape (variable, n, m)
        As `survey` gives it.
    scale : numpy.ndarray, shape (variable,)
        What each variable is divided by.

    Returns
    -------
    numpy.ndarray, shape (mode, n)
    """
    n, m = product.shape[1:]
    if n == m:
        values, vectors = np.linalg.eigh(np.einsum("vij,v->ij", product, scale**-2.0))
        return vectors.T[values > values[-1] * 1e-14][::-1]
    return np.linalg.svd(np.einsum("vij,v->ij", product, scale**-1.0), full_matrices=False)[0].T


def shortened(vectors: np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """Keep the leading of some combinations of snapshots; let random ones stand for the others.

    Parameters
    ----------
    vectors : numpy.ndarray, shape (mode, snapshot)
        Orthonormal, the leading first.
    n : int
        The most combinations to keep, half of them leading ones.

    Returns
    -------
    numpy.ndarray, shape (mode, snapshot)
        The leading ones, then the random ones, which are orthogonal to them.
    int
        Number of leading ones; all, if there are no more than `n`.
    """
    if len(vectors) <= n:
        return vectors, len(vectors)
    leading = vectors[: n // 2]
    random = np.random.default_rng(n).standard_normal((n - len(leading), vectors.shape[1]))
    random -= (random @ leading.T) @ leading
    return np.concatenate([leading, random / np.sqrt(len(random))]), len(leading)


def room_for(
    parts: Mapping[str, int], pyramid: Pyramid, variables: int, memory: float
) -> dict[str, int]:
    """Count how many samples of each part memory can hold, of those wanted.

    Samples take their place on every level, and on the data's own grid while they are made. All
    parts give way alike.
    """
    pixels = 4 / 3 * np.prod(pyramid.shape(pyramid.levels - 1)) + np.prod(pyramid.grid.sizes)
    share = min(1.0, memory / (4 * variables * pixels) / max(1, sum(parts.values())))
    return {part: min(n, max(2, int(share * n))) for part, n in parts.items()}
