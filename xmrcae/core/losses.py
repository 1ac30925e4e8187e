"""Losses, global metric and refinement mask: equations (3.1) to (3.8).

All of them follow from each pixel's time-mean squared error e, shape (variable * pixel,), which a compressed set gives
as exactly as the snapshots do. Weights are those of counted pixels divided by their sum, 0 elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mean_error(errors: Tensor, weights: Tensor) -> Tensor:
    """L_mse (3.2) and, of the finest data, (3.5)."""
    return torch.dot(errors, weights)


def max_error(errors: Tensor, counts: Tensor) -> Tensor:
    """L_max (3.3) and, of the finest data, (3.6): the largest over counted pixels and variables."""
    return errors.masked_fill(~counts, 0).max()


def hard_max(errors: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """L_max (3.3) and its gradient: one at the pixel with the largest error."""
    errors = errors.masked_fill(~counts, 0)
    largest, pixel = errors.max(0, keepdim=True)
    return largest[0], torch.zeros_like(errors).scatter_(0, pixel, 1.0)


def combined(mean: Tensor, largest: Tensor, omega: float) -> Tensor:
    """The loss (3.1) and, of the finest data, (3.4)."""
    return omega * mean + (1 - omega) * largest


def smooth_max(errors: Tensor, counts: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """The p-norm of the errors over counted pixels, at most a little above their maximum, and its gradient."""
    errors = errors.masked_fill(~counts, 0)
    scale = errors.max().clamp_min(torch.finfo(errors.dtype).tiny)
    ratio = errors / scale
    total = ratio.pow(power).sum().clamp_min(torch.finfo(errors.dtype).tiny)
    return scale * total ** (1 / power), ratio.pow(power - 1) * total ** (1 / power - 1)


def cell_errors(errors: Tensor, counts: Tensor) -> Tensor:
    """The mean of the errors over the counted pixels of the 3x3 around each cell of the encoding grid, 0 without any.

    From and to (variable, y, x).
    """
    counted = counts.to(errors.dtype)
    average = torch.nn.functional.avg_pool2d
    return average(errors * counted, 3, stride=2) / average(counted, 3, stride=2).clamp_min(1e-6)


def worst_cells(errors: Tensor, counts: Tensor, storable: Tensor, n_cells: int) -> Tensor:
    """The storable cells with the highest error of any variable, (y, x): a mask of given size in place of (3.8)."""
    high = cell_errors(errors, counts).amax(0).masked_fill(~storable.any(0), -1).flatten()
    mask = torch.zeros_like(high, dtype=torch.bool)
    mask[high.argsort(descending=True, stable=True)[:n_cells]] = True
    return mask.reshape(storable.shape[1:]) & storable.any(0)


def refinement_mask(
    errors: Tensor, counts: Tensor, tolerances: Tensor, storable: Tensor, *, dilation: int
) -> tuple[Tensor, bool]:
    """Where the error is still too high (3.8).

    Parameters
    ----------
    errors : Tensor, shape (variable, y, x)
        Time-mean squared error of each pixel of the level.
    counts : Tensor of bool, shape (variable, y, x)
        Valid pixels: what the mean over the 3x3 around a cell runs over.
    tolerances : Tensor, shape (variable,)
        The paper's epsilon for each variable.
    storable : Tensor of bool, shape (variable, y, x)
        Cells whose footprint on the finest grid holds a valid pixel.
    dilation : int
        Cells by which the mask is widened.

    Returns
    -------
    mask : Tensor of bool, shape (y, x) of the encoding grid
        True where any variable exceeds its tolerance, widened, storable cells only.
    resolved : bool
        True if no cell exceeded it.
    """
    high = (cell_errors(errors, counts) > tolerances[:, None, None]).any(0)
    resolved = not bool(high.any())
    if dilation and not resolved:
        size = 2 * dilation + 1
        high = torch.nn.functional.max_pool2d(high[None].to(errors.dtype), size, stride=1, padding=dilation)[0] > 0
    return high & storable.any(0), resolved
