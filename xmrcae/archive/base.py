"""Base maps: what is added to decoded fields, one map per season, in steps.

Maps of twelve months are kept as their first Fourier terms over the year, (term, pixel), predicted
from their neighbours like the steps of snapshots, the terms in place of times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .waves import LIMIT, Predictor


@dataclass(frozen=True, kw_only=True)
class Base:
    """The base maps of one variable, for each level, coarsest first.

    Attributes
    ----------
    differences : list of numpy.ndarray of int32, shape (term, pixel)
        To be stored.
    weights : list of list of int
        Of their prediction.
    steps : list of float
        In the data's units.
    maps : list of numpy.ndarray of float64, shape (season, pixel)
        What is read.
    """

    differences: list[np.ndarray]
    weights: list[list[int]]
    steps: list[float]
    maps: list[np.ndarray]


def quantise_base(
    maps: np.ndarray, kept: np.ndarray, step: float, n_terms: int, *, few_neighbours: bool = True
) -> tuple[np.ndarray, list[int], float, np.ndarray]:
    """Bring base maps (season, pixel) to predicted differences of steps.

    Parameters
    ----------
    maps : numpy.ndarray, shape (season, pixel)
        In the data's units.
    kept : numpy.ndarray of bool, shape (y, x)
        Where the pixels lie.
    step : float
        The step wanted; one is chosen that is large enough for the maps.
    n_terms : int
        Number of Fourier terms over the seasons that are kept.
    few_neighbours : bool, default: True
        Leave out neighbours that tell little: see :meth:`Predictor.fit`. The maps stay the same.

    Returns
    -------
    differences : numpy.ndarray of int32, shape (term, pixel)
        To be stored.
    weights : list of int
        Of the prediction.
    step : float
        The step.
    maps : numpy.ndarray of float64, shape (season, pixel)
        What :func:`base_maps` makes of them.
    """
    terms = _fourier(len(maps), n_terms).T @ maps
    step = max(step, float(np.abs(terms).max(initial=0)) / LIMIT)
    steps = np.rint(terms / step).astype(np.int32)
    predictor = Predictor.fit(kept, steps, few_neighbours=few_neighbours)
    read = _fourier(len(maps), n_terms) @ (steps * step)
    return predictor.differences(steps), predictor.weights, step, read


def base_maps(
    differences: np.ndarray, kept: np.ndarray, weights: Sequence[int], step: float, n_seasons: int
) -> np.ndarray:
    """Undo :func:`quantise_base`: return base maps (season, pixel) in float64."""
    terms = Predictor(kept, weights).undo(differences) * step
    return _fourier(n_seasons, len(terms)) @ terms


def _fourier(n_seasons: int, n_terms: int) -> np.ndarray:
    """Return the first orthonormal Fourier terms over the seasons, (season, term).

    They are the mean, then cosine and sine of each harmonic. What a climatology of a few years has
    in the higher ones is mostly noise, and dear to store.
    """
    season = np.arange(n_seasons)[:, None]
    harmonic = (np.arange(n_terms) + 1) // 2
    angle = 2 * np.pi * harmonic * season / n_seasons
    terms = np.where(np.arange(n_terms) % 2, np.cos(angle), np.sin(angle))
    terms[:, 0] = 1
    return terms / np.sqrt((terms**2).sum(0))
