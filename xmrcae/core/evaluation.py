"""Errors and gradients of a network over samples, in blocks that fit into memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from .losses import loss_terms, record, stage_loss
from .matrices import Prolongation, stencils
from .network import Network, Pass
from .samples import Samples

log = logging.getLogger("xmrcae")

T = TypeVar("T")


class Evaluation:
    """Sums over samples, block by block.

    Errors add up over samples, so blocks change the order of summation only. The maximum over
    pixels needs all errors before any gradient: with more than one block, each goes through the
    network once for its errors and again for the gradient. A block that the device has no memory
    for is halved, here and from then on, which changes the last digits of what follows.

    Parameters
    ----------
    network : Network
        The network, with the levels that it has at the time of a call.
    block_bytes : float
        The most bytes that a block takes on its way through the network.
    """

    def __init__(self, network: Network, *, block_bytes: float) -> None:
        self.network, self.block_bytes = network, block_bytes

    def errors(
        self,
        data: Sequence[Samples],
        level: int,
        part: slice,
        *,
        prolongations: Sequence[Prolongation] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return time-mean squared errors of a level and, given prolongations, prolonged (3.7).

        Parameters
        ----------
        data : sequence of Samples
            One per level; the prolonged field is compared with the finest.
        level : int
            The level.
        part : slice
            Which samples to use.
        prolongations : sequence of Prolongation, optional
            From the level to the finest.
        """
        squares = stencils(self.network.device.type).squares

        def add(blocks: list[slice]) -> tuple[Tensor, Tensor | None]:
            errors = torch.zeros_like(data[level].weights)
            finest = None if prolongations is None else torch.zeros_like(data[-1].weights)
            for block in blocks:
                pixels, constant = data[level].block(block)
                field = self.network(pixels, constant).outputs[level]
                errors += squares(field, pixels)
                if finest is None:
                    continue
                for prolong in prolongations or ():
                    field = prolong(field)
                finest += squares(field, data[-1].block(block)[0])
            n = data[level].n_snapshots
            return errors / n, None if finest is None else finest / n

        part = slice(*part.indices(len(data[level].constant))[:2])
        return self.in_blocks(add, level, part, metric=prolongations is not None)

    def losses(
        self,
        name: str,
        data: Sequence[Samples],
        level: int,
        *,
        omega: float,
        part: slice,
        prolongations: Sequence[Prolongation] | None = None,
    ) -> dict[str, float]:
        """Return the losses of a level and, given prolongations, the global metric (3.4).

        As entries of a row of the history, which begin with `name`; the rest as for `errors`.
        """
        found = self.loss_terms(data, level, omega=omega, part=part, prolongations=prolongations)
        return record({name + suffix: terms for suffix, terms in found.items()})

    def loss_terms(
        self,
        data: Sequence[Samples],
        level: int,
        *,
        omega: float,
        part: slice,
        prolongations: Sequence[Prolongation] | None = None,
    ) -> dict[str, Tensor]:
        """Return these losses' terms, (3,), on the device: "" of the level, "_global" (3.4)."""
        errors, finest = self.errors(data, level, part, prolongations=prolongations)
        found = {"": loss_terms(errors, data[level], omega)}
        if finest is not None:
            found["_global"] = loss_terms(finest, data[-1], omega)
        return found

    def objective(
        self,
        data: Sequence[Samples],
        level: int,
        *,
        power: float | Tensor | None,
        omega: float,
        anchor: float,
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of a stage over the leading samples, and the gradients of parameters.

        Parameters
        ----------
        data, level, power, omega, anchor
            As for :func:`xmrcae.core.losses.stage_loss`; the level is the finest so far.

        Returns
        -------
        value : Tensor, shape ()
            The objective.
        errors : Tensor, shape (variable * pixel,)
            Time-mean squared errors of the level.
        """
        levels = range(level + 1) if anchor else [level]

        def add(blocks: list[slice]) -> tuple[Tensor, Tensor]:
            self.network.zero_grad(set_to_none=True)
            n = data[level].n_snapshots
            totals = {k: torch.zeros_like(data[k].weights) for k in levels}
            held = None
            for block in blocks:
                held = self._residuals(data, levels, block, totals)
            errors = {k: total / n for k, total in totals.items()}
            value, by_error = stage_loss(
                errors, data, level, power=power, omega=omega, anchor=anchor
            )
            for block in blocks:
                if len(blocks) > 1:
                    held = None  # so that its memory is free
                    held = self._residuals(data, levels, block)
                assert held is not None
                result, constant, fields = held
                gradients = {
                    k: field.mul_((by_error[k] * (2 / n))[:, None]) for k, field in fields.items()
                }
                self.network.backward(result, constant, gradients)
            return value, errors[level]

        return self.in_blocks(add, level, data[level].leading)

    def _residuals(
        self,
        data: Sequence[Samples],
        levels: Sequence[int],
        block: slice,
        totals: dict[int, Tensor] | None = None,
    ) -> tuple[Pass, Tensor, dict[int, Tensor]]:
        """Send a block through the network; given totals by level, add squared residuals to them.

        Returned are the pass, what biases were multiplied with, and the residuals by level.
        """
        targets = {k: data[k].block(block)[0] for k in levels}
        constant = data[levels[-1]].constant[block]
        result = self.network(targets[levels[-1]], constant)
        if totals is None:
            return result, constant, {k: result.outputs[k] - targets[k] for k in levels}
        fields = {k: target.new_empty(target.shape) for k, target in targets.items()}
        squares = stencils(self.network.device.type).squares
        for k, field in fields.items():
            totals[k] += squares(result.outputs[k], targets[k], into=field)
        return result, constant, fields

    def can_replay(self, data: Sequence[Samples], level: int) -> bool:
        """Tell whether passes over the leading samples can be replayed on a GPU.

        They can if they are in one block, without a copy from the host or a factorisation there.
        """
        return (
            self.network.encodes
            and all(each.pixels.is_cuda for each in data)
            and len(self.blocks(level, data[level].leading, metric=True)) == 1
        )

    def blocks(self, level: int, part: slice, *, metric: bool = False) -> list[slice]:
        """Cut a range of samples into blocks of a power of two, or leave it whole."""
        n = part.stop - part.start
        size = self._size(level, metric)
        fit = int(self.block_bytes / size) if self.block_bytes < math.inf else n
        width = max(1, n) if fit >= n else 2 ** max(0, fit.bit_length() - 1)
        return [slice(i, min(i + width, part.stop)) for i in range(part.start, part.stop, width)]

    def _size(self, level: int, metric: bool) -> int:
        """Return the bytes of a sample in the network, with its prolonged field if needed."""
        prolonged = self.network.has_data[-1].numel() if metric else 0
        return self.network.bytes_per_sample(level) + 12 * prolonged

    def in_blocks(
        self,
        function: Callable[[list[slice]], T],
        level: int,
        part: slice,
        *,
        metric: bool = False,
    ) -> T:
        """Call a function of blocks of samples; halve them while the device has no memory.

        Parameters
        ----------
        function : callable
            Takes the blocks, and begins anew each time.
        level : int
            The level that samples reach on their way through the network.
        part : slice
            Which samples.
        metric : bool
            Whether they are also prolonged to the finest level.
        """
        while True:
            blocks = self.blocks(level, part, metric=metric)
            width = blocks[0].stop - blocks[0].start
            try:
                return function(blocks)
            except torch.cuda.OutOfMemoryError:
                if width == 1 or torch.cuda.is_current_stream_capturing():
                    raise
            log.info("no memory on the device for a block of %d samples: halved", width)
            self.block_bytes = self._size(level, metric) * (width // 2)
