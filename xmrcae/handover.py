"""What rooms that do not import each other share: arrays, samples, and names of losses."""

from dataclasses import dataclass
from typing import Any

import numpy as np

#: An array of NumPy, or a tensor of torch.
Array = Any

#: What is recorded of the losses of a level, in this order: mean (3.2), maximum (3.3), both (3.1).
TERMS = ("mse", "max", "loss")


@dataclass(frozen=True)
class LevelData:
    """The samples of one level of the pyramid, centred, scaled, filled and padded.

    Attributes
    ----------
    samples : numpy.ndarray or Tensor, shape (sample, variable, y, x)
        Either snapshots, or a compressed set: the mean times ``sqrt(T)`` and the scaled singular
        vectors of T snapshots. The trailing samples beyond `rank` are left out of training, and
        only reported on.
    constant : numpy.ndarray, shape (sample,)
        Each sample is a combination of snapshots; this is the same combination of ones: 1 for a
        snapshot, ``sqrt(T)`` for the mean, 0 for a singular vector. The sum of its squares is T.
    has_data : numpy.ndarray of bool, shape (variable, y, x)
        Valid pixels and, in the padding, their wrapped copies.
    counts : numpy.ndarray of bool, shape (variable, y, x)
        Valid pixels that errors are averaged over: those of `has_data` but for the copies.
    weights : numpy.ndarray, shape (variable, y, x)
        Weights of the means (3.2) and (3.5).
    rank : int
        Number of leading samples that training uses.
    variance_left_out : float
        Share of the snapshots' variance that the samples leave out: above 0 only where memory is
        too small for all of them.
    """

    samples: Array
    constant: np.ndarray
    has_data: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    rank: int
    variance_left_out: float
