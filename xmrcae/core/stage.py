"""One stage of training: descent on one level's objective until little more is gained.

A stage knows nothing of growth: what it trains on, and when its level is good enough, come from
outside.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..handover import TERMS
from .evaluation import Evaluation
from .graphs import Graphs
from .losses import loss_terms, record
from .matrices import Prolongation
from .samples import Samples
from .solvers import Evaluated, make_solver

if TYPE_CHECKING:
    from ..options import Options

#: Epochs over which a decrease is measured. After each such window the global metric is recorded,
#: the state saved, and the end considered.
WINDOW = 10


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What one stage minimises, and the losses by which it is watched, at given weights.

    Made once per stage: network, samples and weights of the terms stay the same throughout.

    Attributes
    ----------
    evaluation : Evaluation
        Of the network in training.
    training, validation : sequence of Samples
        One per level.
    level : int
        The level in training.
    omega, anchor : float
        Weights of the mean, and of the coarser levels.
    prolongations : sequence of Prolongation
        From the level to the finest.
    """

    evaluation: Evaluation
    training: Sequence[Samples]
    validation: Sequence[Samples]
    level: int
    omega: float
    anchor: float
    prolongations: Sequence[Prolongation]

    def __call__(self, point: Tensor, power: float | None) -> Evaluated:
        """Compute the objective at a point, with the maximum or, given a power, its p-norm."""
        if self._graphs is not None:
            return self._replayed(self._graphs, point, power)
        self.evaluation.network.set_vector(point)
        parts, errors = self._objective(power)
        together = torch.cat(parts).cpu()  # one copy from the device
        return Evaluated(float(together[0]), together[1:], errors)

    def losses(
        self, point: Tensor, found: Evaluated | None = None, *, metric: bool = False
    ) -> dict[str, float]:
        """Return the losses of training and validation at a point, as entries of a history row.

        Parameters
        ----------
        point : Tensor, shape (parameter,)
            All parameters.
        found : Evaluated, optional
            The objective at this point, if it is known.
        metric : bool
            Whether to add the global metric (3.4).
        """
        if metric and self._graphs is not None:
            self._graphs.point.copy_(point)
            return record(self._graphs.run("metric", partial(self._loss_terms, metric=True)))
        if not metric and found is not None and found.losses is not None:
            return found.losses
        self.evaluation.network.set_vector(point)
        return record(self._loss_terms(None if found is None else found.errors, metric=metric))

    def _objective(self, power: float | Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Compute value, (1,), gradient, a vector per parameter, and the errors of all pixels."""
        value, errors = self.evaluation.objective(
            self.training, self.level, power=power, omega=self.omega, anchor=self.anchor
        )
        parameters = self.evaluation.network.parameters()
        gradients = [each.grad.flatten() for each in parameters]  # type: ignore[union-attr]
        return [value[None], *gradients], errors

    def _loss_terms(self, errors: Tensor | None = None, *, metric: bool) -> dict[str, Tensor]:
        """Return losses by name, each (3,), from errors of the level in training if known."""
        prolongations = self.prolongations if metric else None
        found = {}
        for name, data in (("train", self.training), ("validation", self.validation)):
            samples = data[self.level]
            if name == "train" and errors is not None and not metric:
                found[name] = loss_terms(errors, samples, self.omega)
                continue
            terms = self.evaluation.loss_terms(
                data,
                self.level,
                omega=self.omega,
                part=samples.leading,
                prolongations=prolongations,
            )
            found |= {name + suffix: each for suffix, each in terms.items()}
        return found

    @cached_property
    def _graphs(self) -> Graphs | None:
        """What replays all this on a GPU, where it can be."""
        parts = self.training, self.validation
        able = all(self.evaluation.can_replay(data, self.level) for data in parts)
        return Graphs(self.evaluation.network) if able else None

    def _replayed(self, graphs: Graphs, point: Tensor, power: float | None) -> Evaluated:
        """Compute objective and losses: one copy to the device, one launch, one copy back."""

        def together() -> tuple[Tensor, Tensor]:
            parts, errors = self._objective(None if power is None else graphs.power)
            terms = self._loss_terms(errors, metric=False)
            return torch.cat([*parts, *terms.values()]), errors

        graphs.point.copy_(point)
        if power is not None:
            graphs.power.fill_(power)
        found, errors = graphs.run("objective", together)
        value, gradient, *terms = found.cpu().split([1, len(point), len(TERMS), len(TERMS)])
        losses = record(dict(zip(("train", "validation"), terms, strict=True)))
        return Evaluated(float(value), gradient, errors.clone(), losses)


@dataclass
class Descent:
    """How far a stage has come."""

    start: float
    """Training loss at the start of the stage."""
    best: float
    """Validation loss of the weights to keep."""
    kept: Tensor
    """The weights to keep, by value."""
    epoch: int = 0
    values: list[float] = field(default_factory=list)
    """The objective in the last epochs, since the power of the p-norm was raised."""


def descend(
    objective: Objective,
    point: Tensor,
    until: Callable[[Tensor], bool],
    *,
    options: Options,
    on_epoch: Callable[[dict[str, float]], None],
    save: Callable[[dict[str, Any]], None],
    resumed: dict[str, Any] | None = None,
) -> int:
    """Minimise a stage's objective; leave the network with the best weights on validation.

    Weights are kept only if their training loss is no higher than at the start. The network has the
    best so far when an interruption is raised again, too.

    Parameters
    ----------
    objective : Objective
        What to minimise.
    point : Tensor, shape (parameter,)
        Where to start.
    until : callable
        Whether errors of the level in training, (variable * pixel,), are low enough to stop.
    options : Options
        The solver and its own options, `max_epochs` and `min_decrease`.
    on_epoch : callable
        Takes the losses after each epoch.
    save : callable
        Takes, every tenth epoch, what to go on from.
    resumed : dict, optional
        What `save` was given: the stage goes on from there to the same end, to the bit.

    Returns
    -------
    int
        Number of epochs.
    """
    solver = make_solver(options, point, objective)
    if resumed is None:
        losses = objective.losses(point)
        now = Descent(losses["train_loss"], losses["validation_loss"], solver.point.clone())
    else:
        solver.restore(resumed["solver"])
        now = Descent(**{name: value for name, value in resumed.items() if name != "solver"})
    try:
        while now.epoch < options.max_epochs:
            found = solver.step()
            is_tenth = (now.epoch + 1) % WINDOW == 0
            losses = objective.losses(solver.point, found, metric=is_tenth)
            if not all(map(math.isfinite, (found.value, *losses.values()))):
                _warn_of_divergence(objective.level, now.epoch)
                break
            now.epoch += 1
            on_epoch(losses)
            if losses["validation_loss"] < now.best and losses["train_loss"] <= now.start:
                now.best, now.kept = losses["validation_loss"], solver.point.clone()
            now.values = [*now.values[-WINDOW:], found.value]
            if is_tenth and until(found.errors):
                break
            if has_stalled(now.values, options.min_decrease):
                now.values = []
                if not solver.raise_power():
                    break
            if is_tenth:
                save(vars(now) | {"solver": solver.state()})
    finally:
        objective.evaluation.network.set_vector(now.kept)
    return now.epoch


def _warn_of_divergence(level: int, n_epochs: int) -> None:
    warnings.warn(
        f"a stage of level {level} diverged after {n_epochs} epochs: the loss was no longer "
        "finite. The best weights before are kept; a smaller learning_rate, anchor or noise may "
        "help",
        stacklevel=2,
    )


def has_stalled(values: Sequence[float], min_decrease: float) -> bool:
    """Tell whether the objective has decreased by no more than a share over the last epochs."""
    return len(values) > WINDOW and values[0] - values[-1] <= min_decrease * values[0]
