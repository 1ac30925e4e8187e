"""Which snapshots serve for training, validation and test, and the month of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

PARTS = ("training", "validation", "test")


def split_samples(n_samples: int, split: Any, *, seed: int) -> dict[str, np.ndarray]:
    """Positions of the snapshots for training, validation and test, each ascending.

    Parameters
    ----------
    n_samples : int
        Number of snapshots.
    split : three fractions, "blocks", or three indexers
        As the options have checked it. Fractions are drawn at random; "blocks" takes 70, 20 and 10 percent contiguous
        in time; indexers are positions, booleans or slices, disjoint, of which the last may be empty.
    seed : int
        For the random split.

    Raises
    ------
    ValueError
        If a part that must not be empty is, indexers do not fit, or parts overlap.
    """
    if isinstance(split, str):
        order, split = np.arange(n_samples), (0.7, 0.2, 0.1)
    else:
        order = np.random.default_rng(seed).permutation(n_samples)
    if all(np.ndim(part) == 0 and not isinstance(part, slice) for part in split):
        bounds = np.round(np.cumsum(split[:2]) * n_samples).astype(int)
        parts = np.split(order, bounds)
    else:
        parts = []
        for indexer in split:
            indexer = indexer if isinstance(indexer, slice) else np.asarray(indexer)
            if isinstance(indexer, np.ndarray) and not indexer.size:
                indexer = indexer.astype(int)
            try:
                parts.append(np.arange(n_samples)[indexer].reshape(-1))
            except IndexError as error:
                raise ValueError(f"split: an indexer does not fit {n_samples} snapshots: {error}") from None
        together = np.concatenate(parts)
        if len(np.unique(together)) < len(together):
            raise ValueError("split: the three indexers must be disjoint; some snapshots are in two of them")
    if len(parts[0]) < 2 or len(parts[1]) < 1:
        raise ValueError(
            f"split gives {len(parts[0])} snapshots for training and {len(parts[1])} for validation of {n_samples}; "
            "at least 2 and 1 are needed: bring more snapshots, or other fractions"
        )
    return {name: np.sort(part) for name, part in zip(PARTS, parts, strict=True)}


def seasons(time: xr.DataArray | None, n_samples: int, *, center: Any) -> np.ndarray:
    """For each snapshot, which of the centres it departs from: its calendar month, from 0, or always 0."""
    if center != "month":
        return np.zeros(n_samples, dtype=np.int64)
    if time is None:
        raise ValueError('center="month" needs a time coordinate along the sample dimension')
    try:
        return np.asarray(time.dt.month.values, dtype=np.int64).reshape(-1) - 1
    except (AttributeError, TypeError):
        raise ValueError(
            f'center="month" needs dates along {time.name!r}, not {time.dtype}: decode times first'
        ) from None
