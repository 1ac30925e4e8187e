"""The 3x3 stencils between a level of the pyramid and the next coarser one.

Points of the coarser grid sit on every second point of the finer one.
"""

import numpy as np

#: Bilinear prolongation, coarse to fine (paper, A.2).
BILINEAR = np.array([[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]])

#: Each restriction by its name: the weights by which a coarse point is made of the 3x3 fine points
#: around it; beside land, they are divided by their sum. The data are coarsened with them, and
#: untrained encoders start from them. A new one is a 3x3 array of sum 1 without negative weights,
#: and symmetric: else what is coarsened lies beside its coordinates. A rule that is no such sum (a
#: maximum, say) cannot work: training samples are combinations of snapshots.
RESTRICTIONS = {
    "full_weighting": np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16.0,
    # The value of the point itself (paper, A.1).
    "injection": np.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]),
}
