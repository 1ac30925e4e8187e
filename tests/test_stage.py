"""One stage: where it stops, what it keeps, and where it goes on."""

from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from xmrcae.core.solvers import Evaluated
from xmrcae.core.stage import WINDOW, descend
from xmrcae.options import make_options


class Bowl:
    """A quadratic in place of an objective; its validation loss is least at another point."""

    def __init__(self, best_on_validation: float) -> None:
        self.kept: list[torch.Tensor] = []
        self.powers: list[float | None] = []
        self.evaluation = SimpleNamespace(network=SimpleNamespace(set_vector=self.kept.append))
        self.best_on_validation = best_on_validation

    def __call__(self, point: torch.Tensor, power: float | None) -> Evaluated:
        self.powers.append(power)
        return Evaluated(float(point.square().sum()), 2 * point, point.square())

    def losses(
        self, point: torch.Tensor, found: Any = None, *, metric: bool = False
    ) -> dict[str, float]:
        """Losses at a point."""
        validation = float((point - self.best_on_validation).square().sum())
        return {"train_loss": float(point.square().sum()), "validation_loss": validation}


def run(
    bowl: Any,
    *,
    until: Any = lambda errors: False,
    record: Any = lambda losses: None,
    save: Any = lambda state: None,
    resumed: Any = None,
    learning_rate: float = 0.05,
    **options: Any,
) -> int:
    """Descend from (1, 1, 1); the number of epochs."""
    given = {"solver": "adam", "solver_options": {"learning_rate": learning_rate}}
    given |= {"min_decrease": 0.0, "max_epochs": 95} | options
    start, chosen = torch.ones(3), make_options(given)
    return descend(bowl, start, until, options=chosen, on_epoch=record, save=save, resumed=resumed)


def test_the_best_weights_on_validation_are_left() -> None:
    bowl, rows = Bowl(best_on_validation=0.5), []
    assert run(bowl, record=rows.append) == len(rows) > WINDOW
    losses = [row["validation_loss"] for row in rows]
    assert min(losses) < losses[-1]
    assert bowl.losses(bowl.kept[-1])["validation_loss"] == min(losses)


def test_the_best_weights_are_left_when_interrupted() -> None:
    bowl, rows = Bowl(best_on_validation=0.5), []

    def interrupt(losses: dict[str, float]) -> None:
        rows.append(losses)
        if len(rows) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(bowl, record=interrupt)
    assert bowl.losses(bowl.kept[-1])["validation_loss"] == min(
        row["validation_loss"] for row in rows[:-1]
    )


def test_weights_above_the_start_are_never_left() -> None:
    bowl = Bowl(best_on_validation=9.0)  # less on validation would be more in training
    run(bowl, learning_rate=3.0)
    assert torch.equal(bowl.kept[-1], torch.ones(3))


def test_a_stage_ends_at_the_first_tenth_epoch_that_is_good_enough() -> None:
    assert run(Bowl(0.0), until=lambda errors: float(errors.max()) < 0.3) % WINDOW == 0
    asked: list[float] = []

    def third(errors: torch.Tensor) -> bool:
        asked.append(float(errors.max()))
        return len(asked) == 3

    assert run(Bowl(0.0), until=third, learning_rate=0.01) == 3 * WINDOW


def test_a_stage_ends_when_little_is_gained() -> None:
    assert run(Bowl(0.0), min_decrease=0.9, learning_rate=0.001) == WINDOW + 1
    bowl = Bowl(0.0)
    run(bowl, min_decrease=1.0, solver="lbfgs")
    powers = list(dict.fromkeys(bowl.powers))
    assert powers == [8.0, 32.0, 128.0]  # the p-norm's power is raised first


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_stage_goes_on_to_the_same_end(solver: str) -> None:
    whole, states, rows = Bowl(0.5), [], []
    options = {"solver": solver, "learning_rate": 0.01, "max_epochs": 25}
    run(whole, save=lambda state: states.append(deepcopy(state)), record=rows.append, **options)
    resumed, after = Bowl(0.5), []
    assert run(resumed, resumed=states[0], record=after.append, **options) == 25
    assert after == rows[WINDOW:]
    assert torch.equal(resumed.kept[-1], whole.kept[-1])
