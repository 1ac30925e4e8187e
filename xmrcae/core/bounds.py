"""How far recorded losses can be off, where memory had no room for all samples or training used random combinations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from . import losses
from .evaluation import Evaluation
from .matrices import Prolongation
from .samples import Losses, Samples

if TYPE_CHECKING:
    from ..options import Options


def bounds(
    parts: Mapping[str, Sequence[Samples]], evaluation: Evaluation, prolongations: Sequence[Prolongation],
    options: Options,
) -> dict[str, Any]:  # fmt: skip
    """How many samples there are, and the most that what they leave out can change in the last losses.

    Lists hold a value a level. `..._bound`, of every recorded loss (under projection, of the mean only), if memory had
    no room for all. With `sketch`, at most: `sketch_mse_std`, the standard deviation of the mean (3.2) in training
    under other random combinations, and `sketch_max_bias`, the expectation of what they add to the maximum (3.3).
    """
    report: dict[str, Any] = {}
    for part, data in parts.items():
        name = "train" if part == "training" else part
        report |= {f"{name}_samples": len(data[0].one), f"{name}_samples_in_training": data[0].rank}
        for level in range(len(data)) if bool(data[-1].spread.any()) else ():
            if evaluation.network.projection is not None:  # which lets no sum of squares grow, but moves it about
                own = [float(losses.mean_error(each.spread[:, 0] ** 2, each.weights)) for each in data]
                report.setdefault(f"{name}_mse_bound", []).append(own[level] + options.anchor * sum(own[:level]))
                continue
            whole = slice(None)
            errors = evaluation.errors(data, level, whole, prolongations=prolongations[level:])
            added = evaluation.bound(data, level, prolongations=prolongations[level:])
            pairs = (data[level], data[-1])
            for kind, error, more, samples in zip(("", "_global"), errors, added, pairs, strict=True):
                assert error is not None and more is not None
                low, high = (vars(Losses.of(each, samples, options.omega)) for each in (error, error + more))
                for term in low:
                    report.setdefault(f"{name}{kind}_{term}_bound", []).append(high[term] - low[term])
    return report | (_sketch_bounds(parts["training"], evaluation, options.sketch) if options.sketch else {})


def _sketch_bounds(training: Sequence[Samples], evaluation: Evaluation, n: int) -> dict[str, list[float]]:
    """Gaussian combinations: the variance of a sum of squares, and the largest of many chi-squared variables."""
    deviation, bias = [], []
    for level, samples in enumerate(training):
        tail = torch.zeros_like(samples.weights)
        if samples.rank > 1 + 2 * n:
            tail = evaluation.errors(training, level, slice(1 + n, samples.rank))[0]
        spread = math.log(int(samples.counts.sum()) + 1) / n
        deviation.append(Losses.of(tail, samples, 1.0).mse * math.sqrt(2 / n))
        bias.append(Losses.of(tail, samples, 0.0).max * 2 * (math.sqrt(spread) + spread))
    return {"sketch_mse_std": deviation, "sketch_max_bias": bias}
