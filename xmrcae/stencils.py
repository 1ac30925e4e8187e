"""The two 3x3 constants that the grid and the network share.

Both act between a level of the pyramid and the next coarser one, whose cells sit on every second point of the
finer grid.
"""

import numpy as np

#: Restriction by full weighting, fine to coarse (before land is left out and the weights are divided by their sum).
FULL_WEIGHTING = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16.0

#: Restriction by injection: the value of the point itself (paper, A.1).
INJECTION = np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])

#: Bilinear prolongation, coarse to fine (paper, A.2).
BILINEAR = np.array([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])

#: The stencil of each restriction by its name.
RESTRICTIONS = {"full_weighting": FULL_WEIGHTING, "injection": INJECTION}
