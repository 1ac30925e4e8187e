"""Solvers of a stage's objective: one accepted step per epoch.

Solvers see the parameters as one vector on the CPU. There are some hundred of them, and a step of
L-BFGS is some hundred products of such vectors: 0.6 ms there, and no less on a GPU, which takes
2 microseconds for any of them. So a GPU hands over value, gradient and losses together, once per
evaluation. A solver's state can be stored and restored to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..options import Options

#: Powers of the p-norm that stands in for the maximum, each started where the last one ended.
POWERS = (8.0, 32.0, 128.0)


class Evaluated(NamedTuple):
    """The objective at a point."""

    value: float
    gradient: Tensor
    """On the CPU."""
    errors: Tensor
    """Of each pixel of the level, on the device."""
    losses: dict[str, float] | None = None
    """Of training and validation, if they came with it."""


#: Gives the objective at a point, with the maximum or, if there is a power, with its p-norm.
EvaluateAt = Callable[[Tensor, float | None], Evaluated]


class LBFGS:
    """L-BFGS on the loss with its maximum replaced by a p-norm whose power rises.

    Parameters
    ----------
    point : Tensor, shape (parameter,)
        Where to start.
    objective : callable
        What to minimise.
    learning_rate, weight_decay : float
        Length of the first trial step; weight of half the squared norm of the parameters.
    """

    def __init__(
        self, point: Tensor, objective: EvaluateAt, *, learning_rate: float, weight_decay: float
    ) -> None:
        self._parameter, self._objective = torch.nn.Parameter(point.clone()), objective
        self._learning_rate, self._weight_decay = learning_rate, weight_decay
        self._start(POWERS)

    def _start(self, powers: tuple[float, ...]) -> None:
        self._powers = powers
        self._seen: list[tuple[Tensor, Evaluated]] = []
        self._optimizer = torch.optim.LBFGS(
            [self._parameter],
            lr=self._learning_rate,
            max_iter=1,
            max_eval=25,
            history_size=50,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

    @property
    def point(self) -> Tensor:
        """Where the solver is."""
        return self._parameter.detach()

    def step(self) -> Evaluated:
        """Take one iteration with its line search; return the objective where it ends."""

        def closure() -> float:
            found = self._evaluate()
            self._parameter.grad = found.gradient.clone()
            return found.value

        self._optimizer.step(closure)
        return self._evaluate()

    def raise_power(self) -> bool:
        """Go on to the next power of the p-norm; return False if there is none."""
        if len(self._powers) > 1:
            self._start(self._powers[1:])
            return True
        return False

    def _evaluate(self) -> Evaluated:
        """Return the objective here, from memory where the line search has been before."""
        for point, found in self._seen:
            if torch.equal(point, self.point):
                return found
        point = self.point.clone()
        found = self._objective(point, self._powers[0])
        if self._weight_decay:
            value = found.value + 0.5 * self._weight_decay * float(point.square().sum())
            gradient = found.gradient + self._weight_decay * point
            found = found._replace(value=value, gradient=gradient)
        self._seen = [(point, found), *self._seen[:9]]
        return found

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, of tensors, numbers, lists and dicts."""
        return {
            "point": self.point.clone(),
            "powers": list(self._powers),
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a solver was whose state is given."""
        self._parameter.data.copy_(state["point"])
        self._start(tuple(state["powers"]))
        self._optimizer.load_state_dict(state["optimizer"])


class Adam:
    """The authors' optimizer on the loss as it stands, all samples in one batch.

    Parameters
    ----------
    point, objective, learning_rate, weight_decay
        As for `LBFGS`; the weight decay is part of the gradient alone.
    eps : float
        Added to the root of the second moment.
    """

    def __init__(
        self,
        point: Tensor,
        objective: EvaluateAt,
        *,
        learning_rate: float,
        weight_decay: float,
        eps: float,
    ) -> None:
        self._parameter, self._objective = torch.nn.Parameter(point.clone()), objective
        self._optimizer = torch.optim.Adam(
            [self._parameter], lr=learning_rate, eps=eps, weight_decay=weight_decay
        )

    @property
    def point(self) -> Tensor:
        """Where the solver is."""
        return self._parameter.detach()

    def step(self) -> Evaluated:
        """Take one step, but for the first call; return the objective where it ends."""
        if self._parameter.grad is not None:
            self._optimizer.step()
        found = self._objective(self.point, None)
        self._parameter.grad = found.gradient
        return found

    def raise_power(self) -> bool:
        """Return False: there is no p-norm here."""
        return False

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs, of tensors, numbers, lists and dicts."""
        return {
            "point": self.point.clone(),
            "gradient": self._parameter.grad,
            "optimizer": self._optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where a solver was whose state is given."""
        self._parameter.data.copy_(state["point"])
        self._parameter.grad = state["gradient"]
        self._optimizer.load_state_dict(state["optimizer"])


def make_solver(options: Options, point: Tensor, objective: EvaluateAt) -> LBFGS | Adam:
    """Make the solver that the options name, at a point."""
    solver = Adam if options.solver == "adam" else LBFGS
    return solver(point, objective, **options.solver_options)
