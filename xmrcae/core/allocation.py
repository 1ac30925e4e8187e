"""Which cells each group may have, when the size of the encoding is given, not a tolerance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from .projection import LeastSquares

#: More steps choose better: each sees what earlier cells left over.
STEPS = 12


def check_encoding_size(encoding_size: int, bottleneck: int) -> int:
    """Return the numbers that the bottleneck takes, if something is left beside it.

    Raises
    ------
    ValueError
        If not.
    """
    if encoding_size <= bottleneck:
        raise ValueError(
            f"encoding_size={encoding_size}: the bottleneck alone takes {bottleneck} numbers; "
            "allow more, or choose more levels"
        )
    return bottleneck


def choose_cells(
    matrix: sp.csr_array, targets: np.ndarray, groups: Sequence[tuple[int, int]], encoding_size: int
) -> list[np.ndarray]:
    """Choose the cells that describe the targets best at a given number of codes.

    Approximate: orthogonal matching pursuit in `STEPS` steps. Each takes the cells whose atoms
    reduce the remaining error most per number stored.

    Parameters
    ----------
    matrix : sparse array, shape (row, code)
        The atoms: of the bottleneck, which always is part of the encoding, and of each group's
        codes (channel, cell).
    targets : numpy.ndarray, shape (row, sample)
        What is to be described.
    groups : sequence of (int, int)
        Number of cells and of channels of each group.
    encoding_size : int
        The most codes.

    Returns
    -------
    list of numpy.ndarray of bool, shape (cell,)
        For each group.
    """
    if not groups:
        return []
    sizes = [n_cells for n_cells, _ in groups]
    cost = np.repeat([channels for _, channels in groups], sizes)
    each = np.split(np.arange(len(cost)), np.cumsum(sizes)[:-1])
    cells = np.concatenate(
        [np.tile(own, channels) for own, (_, channels) in zip(each, groups, strict=True)]
    )
    bottleneck = matrix.shape[1] - len(cells)
    norms = np.maximum(matrix.multiply(matrix).sum(0)[bottleneck:], 1e-30)
    chosen = np.zeros(len(cost), dtype=bool)
    for size in np.geomspace(min(1.5 * bottleneck, encoding_size), encoding_size, STEPS):
        codes = np.concatenate([np.ones(bottleneck, dtype=bool), chosen[cells]])
        part = matrix[:, codes]
        left = targets - part @ LeastSquares(part).solve(targets)
        gains = (
            np.bincount(cells, ((matrix.T[bottleneck:] @ left) ** 2).sum(1) / norms, len(cost))
            / cost
        )
        order = np.argsort(np.where(chosen, -1.0, gains), kind="stable")[::-1][: (~chosen).sum()]
        chosen[order[np.cumsum(cost[order]) <= size - codes.sum()]] = True
    return [chosen[own] for own in each]


def cells_per_group(
    encoding_size: int,
    bottleneck: int,
    storable: Sequence[int],
    channels: Sequence[Sequence[int]],
) -> list[int]:
    """Return the active cells of each group of a level, for at most `encoding_size` codes in all.

    A group of a coarse level costs a quarter of one of the next finer level and serves every pixel
    under it, so each level gets twice the share of its cells that the next finer one gets, at most
    all of them.

    Parameters
    ----------
    encoding_size : int
        The most numbers per snapshot over all levels.
    bottleneck : int
        Numbers that the bottleneck takes.
    storable : sequence of int
        Cells that can act, for each level.
    channels : sequence of sequences of int
        Filters of each group, for each level.
    """
    levels = len(storable)

    def cells(share: float) -> list[int]:
        return [int(n * min(1.0, share * 2 ** (levels - 1 - k))) for k, n in enumerate(storable)]

    def size(share: float) -> int:
        return bottleneck + sum(
            n * sum(filters) for n, filters in zip(cells(share), channels, strict=True)
        )

    low, high = 0.0, 1.0
    if size(high) <= encoding_size:
        return cells(high)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) <= encoding_size else (low, middle)
    return cells(low)
