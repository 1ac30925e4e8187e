"""Algorithm 3.1: deepen and widen, coarse to fine, and train after each."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from . import losses, solvers
from .allocation import cells_per_group
from .matrices import Prolongation
from .network import Group, Network

if TYPE_CHECKING:
    from ..levels import LevelData
    from ..options import Options

#: Epochs over which a decrease is measured, and after which the global metric is recorded again.
WINDOW = 10


@dataclass(frozen=True)
class Samples:
    """The samples of one level as tensors: fields along the first axis, samples along the second."""

    pixels: Tensor
    one: Tensor
    counts: Tensor
    weights: Tensor

    @classmethod
    def of(cls, data: LevelData, device: torch.device, *, rank: int | None = None) -> Samples:
        """Those of `data`, or its leading `rank` samples."""
        samples = data.samples[: None if rank is None else rank]
        fields = np.ascontiguousarray(samples.reshape(len(samples), -1).T)
        weights = (data.weights * data.counts).ravel()
        dtype = torch.float32
        return cls(
            pixels=torch.as_tensor(fields, dtype=dtype, device=device),
            one=torch.as_tensor(data.one[: len(samples)], dtype=dtype, device=device),
            counts=torch.as_tensor(data.counts.ravel(), device=device),
            weights=torch.as_tensor(weights / weights.sum(), dtype=dtype, device=device),
        )

    def errors(self, field: Tensor) -> Tensor:
        """Time-mean squared error of each pixel."""
        return losses.pixel_errors(field - self.pixels, self.one)


@dataclass(frozen=True)
class Losses:
    """The terms of (3.1) or (3.4), in scaled units squared."""

    mse: float
    max: float
    loss: float

    @classmethod
    def of(cls, errors: Tensor, samples: Samples, omega: float) -> Losses:
        """Those of the given errors."""
        mean = losses.mean_error(errors, samples.weights)
        largest = losses.max_error(errors, samples.counts)
        return cls(*torch.stack([mean, largest, losses.combined(mean, largest, omega)]).tolist())

    def record(self, prefix: str) -> dict[str, float]:
        """As entries of a row of the history."""
        return {f"{prefix}_{name}": value for name, value in vars(self).items()}


def find_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one. An error if it cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f'device={name!r} cannot be used here ({error}); choose "auto" or "cpu"') from None
    return device


class Trainer:
    """One run of Algorithm 3.1.

    Parameters
    ----------
    training, validation : list of LevelData
        One a level, coarsest first.
    options : Options
        How to train.
    channels : list of list of int
        Filters of each group after the deepening, a list a level.
    epsilons : list of numpy.ndarray, shape (variable,), or None
        The paper's epsilon for each level and variable, in scaled units squared; None: no masks.
    device : torch.device
        Where to train.
    progress : object with ``update``, ``set_postfix``
        A progress bar.

    Attributes
    ----------
    network : Network
        With the best weights so far at every moment outside a stage.
    history : list of dict
        One row an epoch.
    """

    def __init__(
        self, training: Sequence[LevelData], validation: Sequence[LevelData], options: Options, *,
        channels: list[list[int]], epsilons: list[np.ndarray] | None, device: torch.device, progress: Any,
    ) -> None:  # fmt: skip
        self.options, self.channels, self.device, self.progress = options, channels, device, progress
        self.training = [Samples.of(data, device, rank=data.rank) for data in training]
        self.validation = [Samples.of(data, device, rank=data.rank) for data in validation]
        self.complete = {"train": training, "validation": validation}
        self.epsilons = None if epsilons is None else [
            torch.as_tensor(e, dtype=torch.float32, device=device) for e in epsilons
        ]  # fmt: skip
        has_data = [torch.as_tensor(data.has_data, device=device) for data in training]
        self.counts = [torch.as_tensor(data.counts, device=device) for data in training]
        self.network = Network(
            has_data, self.counts[-1], widening=options.widening, restriction=options.restriction,
            activation=options.activation,
        )  # fmt: skip
        self.prolongations = [Prolongation(coarse, fine, self.network.dtype) for coarse, fine in pairwise(has_data)]
        self.cells: list[int] | None = None
        if options.encoding_size is not None:
            storable = self.network.storable
            self.cells = cells_per_group(
                options.encoding_size, int(storable[0].sum()), [int(s.any(0).sum()) for s in storable], channels
            )
        self.generator = torch.Generator().manual_seed(options.seed)
        self.history: list[dict[str, float]] = []
        self.started = time.perf_counter()

    def run(self) -> None:
        """Fit every level."""
        for level, channels in enumerate(self.channels):
            self.network.deepen(noise=self.options.noise, generator=self.generator)
            self._stage(level, group=0)
            for group, n_filters in enumerate(channels, start=1):
                mask, resolved = self._refinement_mask(level)
                if resolved or not bool(mask.any()):
                    break
                added = self.network.widen(level, mask, n_filters, noise=self.options.noise, generator=self.generator)
                if not self.options.noise:
                    self._start_from_residual(added, level)
                self._stage(level, group)

    def finish(self) -> None:
        """Deepen, untrained, what an interrupted run has not reached, so that every level can be decoded."""
        while len(self.network.levels) < len(self.training):
            self.network.deepen(noise=0.0, generator=self.generator)

    def _stage(self, level: int, group: int) -> None:
        """Train all parameters so far on one level's objective; keep the best weights on validation, by value.

        Weights are kept only if their training loss is no higher than at the start of the stage.
        """
        options, parameters = self.options, list(self.network.parameters())
        start, best = (
            self._losses(part, level, self._errors(part, level, metric=False)[0]).loss
            for part in ("train", "validation")
        )
        kept = [parameter.detach().clone() for parameter in parameters]
        values: list[float] = []
        try:
            for epoch, (value, errors, harder) in enumerate(self._steps(level), start=1):
                if epoch % WINDOW == 0:
                    self._record(level, group, metric=True)
                else:
                    self._record(level, group, train_errors=errors)
                row = self.history[-1]
                self.progress.update()
                self.progress.set_postfix(level=level, group=group, loss=f"{row['train_loss']:.3g}", refresh=False)
                if row["validation_loss"] < best and row["train_loss"] <= start:
                    best = row["validation_loss"]
                    kept = [parameter.detach().clone() for parameter in parameters]
                values.append(value)
                if epoch >= options.max_epochs:
                    break
                if epoch % WINDOW == 0 and self._refinement_mask(level, errors)[1]:
                    break
                if len(values) > WINDOW and values[-1 - WINDOW] - value <= options.min_decrease * values[-1 - WINDOW]:
                    values.clear()
                    if not harder():
                        break
        finally:
            with torch.no_grad():
                for parameter, weights in zip(parameters, kept, strict=True):
                    parameter.copy_(weights)
                    parameter.grad = None
        self.history.pop()
        self._record(level, group, metric=True, complete=True)

    def _steps(self, level: int) -> Iterator[solvers.Step]:
        options, parameters = self.options, list(self.network.parameters())

        def objective(power: float | None) -> tuple[float, Tensor]:
            return self._objective(level, power)

        if options.solver == "adam":
            return solvers.adam(parameters, objective, learning_rate=options.learning_rate,
                                weight_decay=options.weight_decay, eps=options.adam_eps)  # fmt: skip
        return solvers.lbfgs(
            parameters, objective, learning_rate=options.learning_rate, weight_decay=options.weight_decay
        )

    def _objective(self, level: int, power: float | None) -> tuple[float, Tensor]:
        """(3.1) of the level, its maximum smoothed, plus `anchor` times (3.2) of the coarser ones; with gradients."""
        omega, anchor, one = self.options.omega, self.options.anchor, self.training[level].one
        result = self.network(self.training[level].pixels, one)
        value = torch.zeros((), device=self.device)
        gradients: dict[int, Tensor] = {}
        for k, (field, samples) in enumerate(zip(result.outputs, self.training, strict=False)):
            if k < level and not anchor:
                continue
            residual = field - samples.pixels
            errors = losses.pixel_errors(residual, one)
            mean, by_error = losses.mean_error(errors, samples.weights), samples.weights
            if k < level:
                value, by_error = value + anchor * mean, anchor * by_error
            else:
                if power is None:
                    largest, by_largest = losses.max_error(errors, samples.counts), torch.zeros_like(errors)
                    by_largest[errors.masked_fill(~samples.counts, 0).argmax()] = 1
                else:
                    largest, by_largest = losses.smooth_max(errors, samples.counts, power)
                value = value + losses.combined(mean, largest, omega)
                by_error = losses.combined(by_error, by_largest, omega)
            gradients[k] = residual.mul_((by_error * (2 / torch.dot(one, one)))[:, None])
        self.network.backward(result, one, gradients)
        return value.item(), errors

    def _errors(self, part: str, level: int, *, metric: bool, complete: bool = False) -> tuple[Tensor, Tensor | None]:
        """Time-mean squared errors of the level, and of its reconstruction prolonged to the finest data (3.7)."""
        data = self.training if part == "train" else self.validation
        if complete and len(self.complete[part][-1].samples) > self.complete[part][-1].rank:
            data = [Samples.of(levels, self.device) for levels in self.complete[part]]
        field = self.network(data[level].pixels, data[level].one).outputs[level]
        errors = data[level].errors(field)
        if not metric:
            return errors, None
        for prolong in self.prolongations[level:]:
            field = prolong(field)
        return errors, data[-1].errors(field)

    def _losses(self, part: str, level: int, errors: Tensor) -> Losses:
        samples = (self.training if part == "train" else self.validation)[level]
        return Losses.of(errors, samples, self.options.omega)

    def _record(
        self,
        level: int,
        group: int,
        *,
        metric: bool = False,
        complete: bool = False,
        train_errors: Tensor | None = None,
    ) -> None:
        """Append a row to the history."""
        row: dict[str, float] = {"level": level, "group": group, "seconds": time.perf_counter() - self.started}
        for part in ("train", "validation"):
            if part == "train" and train_errors is not None:
                errors, finest = train_errors, None
            else:
                errors, finest = self._errors(part, level, metric=metric, complete=complete)
            row |= self._losses(part, level, errors).record(part)
            if finest is not None:
                row |= self._losses(part, -1, finest).record(f"{part}_global")
        self.history.append(row)

    def _refinement_mask(self, level: int, errors: Tensor | None = None) -> tuple[Tensor, bool]:
        """Where a new group of the level would act, and whether none is needed (3.8)."""
        storable, counts = self.network.storable[level], self.counts[level]
        if self.epsilons is None and self.cells is None:
            return storable.any(0), False
        if errors is None:
            errors, _ = self._errors("train", level, metric=False)
        errors = errors.reshape(counts.shape)
        if self.cells is not None:
            return losses.worst_cells(errors, counts, storable, self.cells[level]), False
        assert self.epsilons is not None
        return losses.refinement_mask(errors, counts, self.epsilons[level], storable, dilation=self.options.dilation)

    def _start_from_residual(self, group: Group, level: int) -> None:
        """Let the encoder of a new group read what tells most of the residual."""
        samples = self.training[level]
        residual = samples.pixels - self.network(samples.pixels, samples.one).outputs[level]
        footprint = group.read(residual)
        group.start_from(footprint if self.options.widening == "residual" else group.read(samples.pixels), footprint)
