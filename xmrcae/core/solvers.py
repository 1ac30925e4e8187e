"""Descent on a stage's objective: one accepted step an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

#: Powers of the p-norm that stands in for the maximum, each started where the last one ended.
POWERS = (8.0, 32.0, 128.0)


class Objective(Protocol):
    """The objective of a stage: sets the parameters' gradients; returns its value and the errors of each pixel."""

    def __call__(self, power: float | None) -> tuple[float, Tensor]:
        """At the parameters as they are, with the maximum or, if there is a power, with its p-norm."""


class Step(NamedTuple):
    """An accepted step."""

    value: float
    errors: Tensor
    harder: Callable[[], bool]
    """Go on to the next power; False if there is none."""


class _Remembered:
    """The objective with a memory of its last points, since a line search ends at a point that it has seen."""

    def __init__(self, parameters: Sequence[nn.Parameter], evaluate: Callable[[], tuple[float, Tensor]]) -> None:
        self.parameters, self.evaluate = parameters, evaluate
        self.seen: list[tuple[Tensor, float, Tensor, list[Tensor | None]]] = []

    def __call__(self) -> float:
        return self.recall()[0]

    def recall(self) -> tuple[float, Tensor]:
        """Value and errors at the parameters as they are; sets their gradients."""
        point = nn.utils.parameters_to_vector(self.parameters).detach()
        known = next((entry for entry in self.seen if torch.equal(entry[0], point)), None)
        if known is None:
            for parameter in self.parameters:
                parameter.grad = None
            known = (point, *self.evaluate(), [parameter.grad for parameter in self.parameters])
            self.seen = [known, *self.seen[:9]]
        _, value, errors, gradients = known
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        return value, errors


def lbfgs(
    parameters: Sequence[nn.Parameter], objective: Objective, *, learning_rate: float, weight_decay: float
) -> Iterator[Step]:
    """L-BFGS on the loss with its maximum replaced by a p-norm whose power rises."""
    powers = list(POWERS)
    remembered: _Remembered
    optimizer: torch.optim.LBFGS

    def start() -> None:
        nonlocal remembered, optimizer

        def evaluate() -> tuple[float, Tensor]:
            value, errors = objective(powers[0])
            for parameter in parameters if weight_decay else ():
                value += 0.5 * weight_decay * float(parameter.detach().square().sum())
                parameter.grad.add_(parameter.detach(), alpha=weight_decay)  # type: ignore[union-attr]
            return value, errors

        remembered = _Remembered(parameters, evaluate)
        optimizer = torch.optim.LBFGS(
            parameters, lr=learning_rate, max_iter=1, max_eval=25, history_size=50,
            tolerance_grad=0.0, tolerance_change=0.0, line_search_fn="strong_wolfe",
        )  # fmt: skip

    def harder() -> bool:
        powers.pop(0)
        if powers:
            start()
        return bool(powers)

    start()
    while powers:
        optimizer.step(remembered)
        yield Step(*remembered.recall(), harder)


def adam(
    parameters: Sequence[nn.Parameter], objective: Objective, *, learning_rate: float, weight_decay: float, eps: float
) -> Iterator[Step]:
    """The authors' optimizer on the loss as it stands, all samples in one batch; yields as `lbfgs` does."""
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, eps=eps, weight_decay=weight_decay)
    while True:
        optimizer.zero_grad(set_to_none=True)
        yield Step(*objective(None), lambda: False)
        optimizer.step()
