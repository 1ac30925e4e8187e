"""Losses, global metric and refinement mask: equations (3.1) to (3.8), and the record of losses.

All of them follow from each pixel's time-mean squared error, shape (variable * pixel,), which a
compressed set gives as exactly as the snapshots do. Weights are those of counted pixels divided by
their sum, 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .samples import Samples, scalar_product

#: What is recorded of the losses of a level, in this order; `fitted.history_columns` names it too.
TERMS = ("mse", "max", "loss")


def mean_error(errors: Tensor, weights: Tensor) -> Tensor:
    """Return L_mse (3.2) and, of the finest data, (3.5)."""
    return scalar_product(errors, weights)


def max_error(errors: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return L_max (3.3) and, of the finest data, (3.6), and its gradient: 1 where it is.

    The maximum runs over counted pixels and variables.
    """
    errors = errors.masked_fill(~counts, 0)
    largest, pixel = errors.max(0, keepdim=True)
    return largest[0], torch.zeros_like(errors).scatter_(0, pixel, 1.0)


def combined(mean: Tensor, largest: Tensor, omega: float) -> Tensor:
    """Return the loss (3.1) and, of the finest data, (3.4)."""
    return omega * mean + (1 - omega) * largest


def smooth_max(errors: Tensor, counts: Tensor, power: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return the p-norm of errors over counted pixels, just above their maximum; its gradient."""
    errors = errors.masked_fill(~counts, 0)
    scale = errors.max().clamp_min(torch.finfo(errors.dtype).tiny)
    ratio = errors / scale
    total = ratio.pow(power).sum().clamp_min(torch.finfo(errors.dtype).tiny)
    return scale * total ** (1 / power), ratio.pow(power - 1) * total ** (1 / power - 1)


def stage_loss(
    errors: Mapping[int, Tensor],
    data: Sequence[Samples],
    level: int,
    *,
    power: float | Tensor | None,
    omega: float,
    anchor: float,
) -> tuple[Tensor, dict[int, Tensor]]:
    """Return (3.1) of a level plus `anchor` times (3.2) of coarser ones, and its gradients.

    The gradients are those with respect to errors.

    Parameters
    ----------
    errors : mapping of int to Tensor, shape (variable * pixel,)
        Of the level and of the coarser ones that are to count.
    data : sequence of Samples
        One per level.
    level : int
        The level in training.
    power : float, Tensor of shape (), or None
        Of the p-norm in place of the maximum.
    omega, anchor : float
        Weights of the mean, and of the coarser levels.
    """
    value, gradients = errors[level].new_zeros(()), {}
    for k in sorted(errors.keys() - {level}):
        value = value + anchor * mean_error(errors[k], data[k].weights)
        gradients[k] = anchor * data[k].weights
    samples = data[level]
    mean = mean_error(errors[level], samples.weights)
    if power is None:
        largest, by_largest = max_error(errors[level], samples.counts)
    else:
        largest, by_largest = smooth_max(errors[level], samples.counts, power)
    gradients[level] = combined(samples.weights, by_largest, omega)
    return value + combined(mean, largest, omega), gradients


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


def loss_terms(errors: Tensor, samples: Samples, omega: float) -> Tensor:
    """Return `TERMS` of given errors, (3,): mean, maximum and loss, of (3.1) or (3.4)."""
    mean = mean_error(errors, samples.weights)
    largest, _ = max_error(errors, samples.counts)
    return torch.stack([mean, largest, combined(mean, largest, omega)])


def record(terms: Mapping[str, Tensor]) -> dict[str, float]:
    """Return losses by name, each (3,), as entries of a history row, in scaled units squared."""
    values = torch.stack(list(terms.values())).tolist()  # one copy from the device
    return {
        f"{name}_{term}": value
        for name, row in zip(terms, values, strict=True)
        for term, value in zip(TERMS, row, strict=True)
    }
