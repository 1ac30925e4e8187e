"""Codes predicted from those of the two snapshots before.

A code q(t), in steps, is predicted as ``floor((w_1 q(t - 1) + w_2 q(t - 2)) / 2**12 + 1/2)`` with
two weights for each level, 0 before a block's first row; what is packed is the code less its
prediction, modulo 2**32. Neighbours in space tell nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .waves import best_weights, predict, scaled

_BACK = 2  # snapshots before


def code_weights(about: Mapping[str, Any]) -> list[Sequence[int]]:
    """Return the weights of each level of an archive; the first archives packed codes as such."""
    return about.get("code_weights") or [(0,) * _BACK] * len(about["levels"])


def fit_codes(codes: np.ndarray) -> list[int]:
    """Return the weights whose differences pack best, for codes (snapshot, code) in steps."""
    return best_weights(_before(codes), codes.ravel())


def code_differences(codes: np.ndarray, weights: Sequence[int]) -> np.ndarray:
    """Return codes (snapshot, code), int32, less their predictions."""
    return codes - predict(scaled(weights), _before(codes)).reshape(codes.shape)


def undo_codes(differences: np.ndarray, weights: Sequence[int]) -> np.ndarray:
    """Return the codes that these are the differences of, (snapshot, code), int32."""
    codes = np.pad(differences, [(_BACK, 0), (0, 0)])
    backwards = scaled(weights)[::-1].copy()
    for t in range(_BACK, len(codes)):
        codes[t] += predict(backwards, codes[t - _BACK : t].astype(np.float64))
    return codes[_BACK:]


def _before(codes: np.ndarray) -> np.ndarray:
    """Return the codes of the snapshots before, (back, snapshot * code), float64."""
    padded = np.pad(codes.astype(np.float64), [(_BACK, 0), (0, 0)])
    return np.stack([padded[_BACK - back : -back].ravel() for back in range(1, _BACK + 1)])
