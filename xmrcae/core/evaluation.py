"""Errors and gradients of a network over samples, in blocks that fit into memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from . import losses
from .matrices import Prolongation
from .network import Network, Pass
from .samples import Samples

log = logging.getLogger("xmrcae")

T = TypeVar("T")


class Evaluation:
    """Sums over samples, a block at a time.

    Errors add up over samples, so blocks change the order of summation only. The maximum over pixels needs all errors
    before any gradient: with more than one block, each goes through the network once for its errors and again for the
    gradient. A block that the device has no memory for is halved, here and from then on.

    Parameters
    ----------
    network : Network
        The network, with the levels that it has at the time of a call.
    room : float
        Bytes that a block may take on its way through the network.
    """

    def __init__(self, network: Network, *, room: float) -> None:
        self.network, self.room = network, room

    def errors(
        self, data: Sequence[Samples], level: int, part: slice, *, prolongations: Sequence[Prolongation] | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Time-mean squared errors of the level and, if given a list of prolongations, of its prolonged field (3.7).

        What the prolonged field is compared with are the finest data.
        """

        def add(blocks: list[slice]) -> tuple[Tensor, Tensor | None]:
            errors = torch.zeros_like(data[level].weights)
            finest = None if prolongations is None else torch.zeros_like(data[-1].weights)
            for block in blocks:
                field = self.network(*data[level].block(block)).outputs[level]
                errors += _squares(field - data[level].block(block)[0])
                if finest is None:
                    continue
                for prolong in prolongations or ():
                    field = prolong(field)
                finest += _squares(field - data[-1].block(block)[0])
            n = data[level].n_snapshots
            return errors / n, None if finest is None else finest / n

        return self._in_blocks(
            add, level, slice(*part.indices(len(data[level].constant))[:2]), metric=prolongations is not None
        )

    def objective(
        self, data: Sequence[Samples], level: int, *, power: float | None, omega: float, anchor: float
    ) -> tuple[Tensor, Tensor]:
        """(3.1) of a level plus `anchor` times (3.2) of the coarser ones; adds to the gradients of all parameters.

        Parameters
        ----------
        data : sequence of Samples
            A list over levels.
        level : int
            The level in training, the finest that the network has.
        power : float or None
            Of the p-norm in place of the maximum.
        omega, anchor : float
            Weights of the mean, and of the coarser levels.

        Returns
        -------
        value : Tensor, shape ()
            The objective.
        errors : Tensor, shape (variable * pixel,)
            Time-mean squared errors of the level.
        """
        terms = list(range(level + 1)) if anchor else [level]

        def residuals(block: slice) -> tuple[Pass, Tensor, dict[int, Tensor]]:
            pixels, constant = data[level].block(block)
            result = self.network(pixels, constant)
            return result, constant, {k: result.outputs[k] - data[k].block(block)[0] for k in terms}

        def add(blocks: list[slice]) -> tuple[Tensor, Tensor]:
            self.network.zero_grad(set_to_none=True)
            n = data[level].n_snapshots
            squares = {k: torch.zeros_like(data[k].weights) for k in terms}
            held = None
            for block in blocks:
                held = residuals(block)
                for k, residual in held[2].items():
                    squares[k] += _squares(residual)
            value, by_error = torch.zeros_like(n), {}
            for k in terms:
                errors, samples = squares[k] / n, data[k]
                mean, by_error[k] = losses.mean_error(errors, samples.weights), samples.weights
                if k < level:
                    value, by_error[k] = value + anchor * mean, anchor * by_error[k]
                    continue
                if power is None:
                    largest, by_largest = losses.hard_max(errors, samples.counts)
                else:
                    largest, by_largest = losses.smooth_max(errors, samples.counts, power)
                value = value + losses.combined(mean, largest, omega)
                by_error[k] = losses.combined(by_error[k], by_largest, omega)
            for block in blocks:
                if len(blocks) > 1:
                    held = None  # so that its memory is free
                    held = residuals(block)
                assert held is not None
                result, constant, fields = held
                gradients = {k: field.mul_((by_error[k] * (2 / n))[:, None]) for k, field in fields.items()}
                self.network.backward(result, constant, gradients)
            return value, errors

        return self._in_blocks(add, level, slice(0, data[level].rank))

    def blocks(self, level: int, part: slice, *, metric: bool = False) -> list[slice]:
        """A range of samples, all in one or cut into blocks of a power of two."""
        n = part.stop - part.start
        fit = int(self.room / self._size(level, metric)) if self.room < math.inf else n
        width = max(1, n) if fit >= n else 2 ** max(0, fit.bit_length() - 1)
        return [slice(i, min(i + width, part.stop)) for i in range(part.start, part.stop, width)]

    def _size(self, level: int, metric: bool) -> int:
        """Bytes of a sample on its way through the network and, for the metric, of its prolonged field."""
        return self.network.bytes_per_sample(level) + 12 * metric * self.network.has_data[-1].numel()

    def _in_blocks(self, function: Callable[[list[slice]], T], level: int, part: slice, *, metric: bool = False) -> T:
        while True:
            blocks = self.blocks(level, part, metric=metric)
            width = blocks[0].stop - blocks[0].start
            try:
                return function(blocks)
            except torch.cuda.OutOfMemoryError:
                if width == 1:
                    raise
            log.info("no memory on the device for a block of %d samples: halved", width)
            self.room = self._size(level, metric) * (width // 2)
            torch.cuda.empty_cache()


def _squares(residual: Tensor) -> Tensor:
    return torch.linalg.vecdot(residual, residual)
