"""What the grid hands to the network: the samples of one level, as plain arrays."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LevelData:
    """The samples of one level of the pyramid, centred, scaled, filled and padded.

    Attributes
    ----------
    samples : numpy.ndarray, shape (sample, variable, y, x)
        Either snapshots, or a compressed set: the mean times ``sqrt(T)`` and the scaled singular vectors of T
        snapshots. The trailing samples beyond `rank` are left out of training, and only reported on.
    one : numpy.ndarray, shape (sample,)
        What a bias is multiplied with: 1 for a snapshot, ``sqrt(T)`` for the mean, 0 for a singular vector. The sum of
        its squares is T.
    has_data : numpy.ndarray of bool, shape (variable, y, x)
        Valid pixels and, in the padding, their wrapped copies.
    counts : numpy.ndarray of bool, shape (variable, y, x)
        Valid pixels, each once.
    weights : numpy.ndarray, shape (variable, y, x)
        Weights of the means (3.2) and (3.5).
    rank : int
        Number of leading samples that training uses.
    spread : numpy.ndarray, shape (variable, y, x)
        Standard deviation over the T snapshots of what the samples leave out: 0, but for memory that is too small.
    """

    samples: np.ndarray
    one: np.ndarray
    has_data: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    rank: int
    spread: np.ndarray
