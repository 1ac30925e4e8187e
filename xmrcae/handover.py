"""What the grid and the network share: the samples of a level, and the 3x3 stencils.

The stencils act between a level of the pyramid and the next coarser one, whose cells sit on every
second point of the finer grid.
"""

from dataclasses import dataclass

import numpy as np

#: Restriction by full weighting, fine to coarse. Beside land, weights are divided by their sum.
FULL_WEIGHTING = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16.0

#: Restriction by injection: the value of the point itself (paper, A.1).
INJECTION = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])

#: Bilinear prolongation, coarse to fine (paper, A.2).
BILINEAR = np.array([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])

#: The stencil of each restriction by its name, fine to coarse: of the data, and of the filters that
#: a network starts from. The sample sets are combinations of snapshots, so a restriction has to be
#: linear: the largest of nine, say, of a combination is not that of its snapshots combined.
RESTRICTIONS = {"full_weighting": FULL_WEIGHTING, "injection": INJECTION}


@dataclass(frozen=True)
class LevelData:
    """The samples of one level of the pyramid, centred, scaled, filled and padded.

    Attributes
    ----------
    samples : numpy.ndarray, shape (sample, variable, y, x)
        Either snapshots, or a compressed set: the mean times ``sqrt(T)`` and the scaled singular
        vectors of T snapshots. The trailing samples beyond `rank` are left out of training, and
        only reported on.
    constant : numpy.ndarray, shape (sample,)
        Each sample is a combination of snapshots; this is the same combination of ones: 1 for a
        snapshot, ``sqrt(T)`` for the mean, 0 for a singular vector. The sum of its squares is T.
    has_data : numpy.ndarray of bool, shape (variable, y, x)
        Valid pixels and, in the padding, their wrapped copies.
    counts : numpy.ndarray of bool, shape (variable, y, x)
        Valid pixels, each once.
    weights : numpy.ndarray, shape (variable, y, x)
        Weights of the means (3.2) and (3.5).
    rank : int
        Number of leading samples that training uses.
    variance_left_out : float
        Share of the snapshots' variance that the samples leave out: above 0 only where memory is
        too small for all of them.
    """

    samples: np.ndarray
    constant: np.ndarray
    has_data: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    rank: int
    variance_left_out: float
