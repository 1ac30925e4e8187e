"""Which cells of a level are active: where the error is high (3.8), or so many of the worst."""

from __future__ import annotations

import torch
from torch import Tensor


def cell_errors(errors: Tensor, counts: Tensor) -> Tensor:
    """Return the mean of the errors over the counted pixels of the 3x3 around each encoding cell.

    From and to (variable, y, x); 0 where no pixel counts.
    """
    counted = counts.to(errors.dtype)
    average = torch.nn.functional.avg_pool2d
    return average(errors * counted, 3, stride=2) / average(counted, 3, stride=2).clamp_min(1e-6)


def refinement_mask(
    errors: Tensor, counts: Tensor, epsilons: Tensor, storable: Tensor, *, dilation: int
) -> tuple[Tensor, bool]:
    """Find where the error is still too high (3.8).

    Parameters
    ----------
    errors : Tensor, shape (variable, y, x)
        Time-mean squared error of each pixel of the level.
    counts : Tensor of bool, shape (variable, y, x)
        Valid pixels: what the mean over the 3x3 around a cell runs over.
    epsilons : Tensor, shape (variable,)
        Of each variable, in scaled units squared.
    storable : Tensor of bool, shape (variable, y, x)
        Cells whose footprint on the finest grid holds a valid pixel.
    dilation : int
        Cells by which the mask is widened.

    Returns
    -------
    mask : Tensor of bool, shape (y, x) of the encoding grid
        True where any variable exceeds its epsilon, widened, storable cells only.
    resolved : bool
        True if no cell exceeded it.
    """
    high = (cell_errors(errors, counts) > epsilons[:, None, None]).any(0)
    resolved = not bool(high.any())
    dilation = min(dilation, max(high.shape))
    if dilation and not resolved:
        dilate = torch.nn.MaxPool2d(2 * dilation + 1, stride=1, padding=dilation)
        high = dilate(high[None].to(errors.dtype))[0] > 0
    return high & storable.any(0), resolved


def worst_cells(errors: Tensor, counts: Tensor, storable: Tensor, n_cells: int) -> Tensor:
    """Return the storable cells with the highest error of any variable, not by (3.8)."""
    able = storable.any(0)
    high = cell_errors(errors, counts).amax(0).masked_fill(~able, -1).flatten()
    mask = torch.zeros_like(high, dtype=torch.bool)
    mask[high.argsort(descending=True, stable=True)[:n_cells]] = True
    return mask.reshape(able.shape) & able
