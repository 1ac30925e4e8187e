"""Algorithm 3.1: deepen and widen, coarse to fine, and train after each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from . import losses, solvers
from .allocation import cells_per_group
from .evaluation import Evaluation
from .layers import Group
from .matrices import Prolongation
from .network import Network
from .samples import Losses, Samples, sketched

if TYPE_CHECKING:
    from ..levels import LevelData
    from ..options import Options

#: Epochs over which a decrease is measured, and after which the global metric is recorded and the state saved.
WINDOW = 10


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
    data : mapping of str to list of LevelData
        "training", "validation" and perhaps "test": one a level, coarsest first.
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
    room : float
        Bytes that a block of samples may take on its way through the network.
    start : Network, optional
        One whose levels, groups and weights to take over. Its last level is trained again, and every level that gets
        a further group, with those above it.
    save : callable, optional
        Called with the state after every stage and every tenth epoch.

    Attributes
    ----------
    network : Network
        With the best weights so far at every moment outside a stage.
    history : list of dict
        One row an epoch.
    """

    def __init__(
        self, data: Mapping[str, Sequence[LevelData]], options: Options, *, channels: list[list[int]],
        epsilons: list[np.ndarray] | None, device: torch.device, progress: Any, room: float = math.inf,
        start: Network | None = None, save: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:  # fmt: skip
        self.options, self.channels, self.device, self.progress = options, channels, device, progress
        self.start, self.save = start, save
        self.data = {part: [Samples.of(each, device) for each in levels] for part, levels in data.items()}
        self.training = self.data["training"]
        self.epsilons = None if epsilons is None else [
            torch.as_tensor(e, dtype=torch.float32, device=device) for e in epsilons
        ]  # fmt: skip
        has_data = [torch.as_tensor(each.has_data, device=device) for each in data["training"]]
        self.counts = [torch.as_tensor(each.counts, device=device) for each in data["training"]]
        self.network = Network(
            has_data, self.counts[-1], widening=options.widening, restriction=options.restriction,
            activation=options.activation,
        )  # fmt: skip
        self.evaluation = Evaluation(self.network, room=room)
        self.prolongations = [Prolongation(coarse, fine, self.network.dtype) for coarse, fine in pairwise(has_data)]
        self.cells: list[int] | None = None
        if options.encoding_size is not None:
            storable = self.network.storable
            self.cells = cells_per_group(
                options.encoding_size, int(storable[0].sum()), [int(s.any(0).sum()) for s in storable], channels
            )
        self.generator = torch.Generator().manual_seed(options.seed)
        self.history: list[dict[str, float]] = []
        self.report: dict[str, Any] = {}
        self.started = time.perf_counter()
        self._resumed: tuple[tuple[int, int], dict[str, Any] | None] = ((-1, 0), None)

    def run(self) -> None:
        """Fit every level; after `restore`, what is left of it."""
        for level in range(len(self.channels)):
            first = self._first_group(level)
            for group in range(first, max(first, len(self.channels[level])) + 1):
                position, stage = self._resumed
                if (level, group) < position or ((level, group) == position and stage is None):
                    continue
                if (level, group) != position:
                    if group > first:
                        mask, resolved = self._refinement_mask(level)
                        if resolved or not bool(mask.any()):
                            break
                        self._widen(level, mask, self.channels[level][group - 1])
                    elif not self._deepen(level):
                        continue
                self._stage(level, group, stage if (level, group) == position else None)
                if self.save is not None:
                    self.save(self.state(level, group))
        self.report = self._bounds()

    def finish(self) -> None:
        """Deepen, untrained, what an interrupted run has not reached, so that every level can be decoded."""
        while len(self.network.levels) < len(self.training):
            self._deepen(len(self.network.levels), noise=0.0)

    def _first_group(self, level: int) -> int:
        """The last of the groups that a level begins with."""
        adopted = self.start is not None and level < len(self.start.levels)
        return len(self.start.levels[level].groups) if adopted and self.start is not None else 0

    def _deepen(self, level: int, *, noise: float | None = None) -> bool:
        """Add a level, with its groups if there is one to take over; whether it is to be trained as it is."""
        self.network.deepen(noise=self.options.noise if noise is None else noise, generator=self.generator)
        if self.start is None or level >= len(self.start.levels):
            return True
        given, added = self.start.levels[level], self.network.levels[level]
        added.deepening.load_state_dict(given.deepening.state_dict())
        for group in given.groups:
            mask = group.mask.to(self.device)
            adopted = self.network.widen(level, mask, group.channels, noise=0.0, generator=self.generator)
            adopted.load_state_dict(group.state_dict())
        return level == len(self.start.levels) - 1 or bool(self.history)

    def _widen(self, level: int, mask: Tensor, n_filters: int) -> None:
        added = self.network.widen(level, mask, n_filters, noise=self.options.noise, generator=self.generator)
        if not self.options.noise:
            self._start_from_residual(added, level)

    def _stage(self, level: int, group: int, resumed: dict[str, Any] | None = None) -> None:
        """Train all parameters so far on one level's objective; keep the best weights on validation, by value.

        Weights are kept only if their training loss is no higher than at the start of the stage.
        """
        options = self.options
        active = self.training
        if options.sketch:
            active = sketched(self.training, options.sketch, (options.seed, level, group))
        solver = self._solver(active, level)
        if resumed is None:
            start, best = (
                Losses.of(self._errors(data, level)[0], data[level], options.omega).loss
                for data in (active, self.data["validation"])
            )
            now: dict[str, Any] = {
                "epoch": 0, "start": start, "best": best, "kept": solver.point.clone(), "values": []
            }  # fmt: skip
        else:
            solver.restore(resumed["solver"])
            now = {name: value for name, value in resumed.items() if name != "solver"}
        try:
            while now["epoch"] < options.max_epochs:
                now["epoch"] += 1
                value, _, errors = solver.step()
                self._set_weights(solver.point)
                self._record(level, group, {"train": active, "validation": self.data["validation"]},
                             metric=now["epoch"] % WINDOW == 0, train_errors=errors)  # fmt: skip
                row = self.history[-1]
                self.progress.update()
                self.progress.set_postfix(level=level, group=group, loss=f"{row['train_loss']:.3g}", refresh=False)
                if row["validation_loss"] < now["best"] and row["train_loss"] <= now["start"]:
                    now |= {"best": row["validation_loss"], "kept": solver.point.clone()}
                values = now["values"] = [*now["values"][-WINDOW:], value]
                if now["epoch"] % WINDOW == 0 and self._refinement_mask(level, errors)[1]:
                    break
                if len(values) > WINDOW and values[0] - value <= options.min_decrease * values[0]:
                    now["values"] = []
                    if not solver.harder():
                        break
                if self.save is not None and now["epoch"] % WINDOW == 0:
                    self.save(self.state(level, group, now | {"solver": solver.state()}))
        finally:
            self._set_weights(now["kept"])
        if now["epoch"]:
            self.history.pop()
        parts = {"train" if part == "training" else part: data for part, data in self.data.items()}
        self._record(level, group, parts, metric=True, complete=True)

    def _solver(self, data: Sequence[Samples], level: int) -> solvers.LBFGS | solvers.Adam:
        options = self.options

        def objective(point: Tensor, power: float | None) -> solvers.Evaluated:
            self._set_weights(point)
            value, errors = self.evaluation.objective(
                data, level, power=power, omega=options.omega, anchor=options.anchor
            )
            gradients = [parameter.grad.flatten() for parameter in self.network.parameters()]  # type: ignore[union-attr]
            together = torch.cat([value[None], *gradients]).cpu()
            return solvers.Evaluated(float(together[0]), together[1:], errors)

        point = torch.nn.utils.parameters_to_vector(self.network.parameters()).detach().cpu()
        given = {"learning_rate": options.learning_rate, "weight_decay": options.weight_decay}
        if options.solver == "adam":
            return solvers.Adam(point, objective, eps=options.adam_eps, **given)
        return solvers.LBFGS(point, objective, **given)

    def _set_weights(self, point: Tensor) -> None:
        parameters = list(self.network.parameters())
        pieces = point.to(self.device).split([parameter.numel() for parameter in parameters])
        with torch.no_grad():
            for parameter, values in zip(parameters, pieces, strict=True):
                parameter.copy_(values.view_as(parameter))

    def _errors(
        self, data: Sequence[Samples], level: int, *, metric: bool = False, complete: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Time-mean squared errors of the level, and of its reconstruction prolonged to the finest data (3.7)."""
        part = slice(0, None if complete else data[level].rank)
        return self.evaluation.errors(data, level, part, prolongations=self.prolongations[level:] if metric else None)

    def _record(
        self, level: int, group: int, parts: Mapping[str, Sequence[Samples]], *, metric: bool = False,
        complete: bool = False, train_errors: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Append a row to the history."""
        omega = self.options.omega
        row: dict[str, float] = {"level": level, "group": group}
        for part, data in parts.items():
            if part == "train" and train_errors is not None and not metric:
                errors, finest = train_errors, None
            else:
                errors, finest = self._errors(data, level, metric=metric, complete=complete)
            row |= Losses.of(errors, data[level], omega).record(part)
            if finest is not None:
                row |= Losses.of(finest, data[-1], omega).record(f"{part}_global")
        self.history.append(row | {"seconds": time.perf_counter() - self.started})

    def _refinement_mask(self, level: int, errors: Tensor | None = None) -> tuple[Tensor, bool]:
        """Where a new group of the level would act, and whether none is needed (3.8)."""
        storable, counts = self.network.storable[level], self.counts[level]
        if self.epsilons is None and self.cells is None:
            return storable.any(0), False
        if errors is None:
            errors, _ = self._errors(self.training, level)
        errors = errors.reshape(counts.shape)
        if self.cells is not None:
            return losses.worst_cells(errors, counts, storable, self.cells[level]), False
        assert self.epsilons is not None
        return losses.refinement_mask(errors, counts, self.epsilons[level], storable, dilation=self.options.dilation)

    def _start_from_residual(self, group: Group, level: int) -> None:
        """Let the encoder of a new group read what tells most of the residual."""
        samples = self.training[level]

        def patches(block: slice) -> tuple[Tensor, Tensor]:
            pixels, one = samples.block(block)
            residual = group.read(pixels - self.network(pixels, one).outputs[level])
            return residual if self.options.widening == "residual" else group.read(pixels), residual

        group.start_from(map(patches, self.evaluation.blocks(level, slice(0, samples.rank))))

    def _bounds(self) -> dict[str, Any]:
        """How many samples there are, and the most that what they leave out can change in the last losses.

        Lists hold a value a level. `..._bound`, of every recorded loss, if memory had no room for all. With `sketch`,
        at most: `sketch_mse_std`, the standard deviation of the mean (3.2) in training under other random combinations,
        and `sketch_max_bias`, the expectation of what they add to the maximum (3.3).
        """
        report: dict[str, Any] = {}
        omega = self.options.omega
        for part, data in self.data.items():
            name = "train" if part == "training" else part
            report |= {f"{name}_samples": len(data[0].one), f"{name}_samples_in_training": data[0].rank}
            for level in range(len(data)) if bool(data[-1].spread.any()) else ():
                errors = self._errors(data, level, metric=True, complete=True)
                added = self.evaluation.bound(data, level, prolongations=self.prolongations[level:])
                own = (data[level], data[-1])
                for kind, error, more, samples in zip(("", "_global"), errors, added, own, strict=True):
                    assert error is not None and more is not None
                    low, high = (vars(Losses.of(each, samples, omega)) for each in (error, error + more))
                    for term in low:
                        report.setdefault(f"{name}{kind}_{term}_bound", []).append(high[term] - low[term])
        return report | (self._sketch_bounds(self.options.sketch) if self.options.sketch else {})

    def _sketch_bounds(self, n: int) -> dict[str, list[float]]:
        """Gaussian combinations: the variance of a sum of squares, and the largest of many chi-squared variables."""
        deviation, bias = [], []
        for level, samples in enumerate(self.training):
            tail = torch.zeros_like(samples.weights)
            if samples.rank > 1 + 2 * n:
                tail = self.evaluation.errors(self.training, level, slice(1 + n, samples.rank))[0]
            spread = math.log(int(samples.counts.sum()) + 1) / n
            deviation.append(Losses.of(tail, samples, 1.0).mse * math.sqrt(2 / n))
            bias.append(Losses.of(tail, samples, 0.0).max * 2 * (math.sqrt(spread) + spread))
        return {"sketch_mse_std": deviation, "sketch_max_bias": bias}

    def state(self, level: int | None = None, group: int = 0, stage: dict[str, Any] | None = None) -> dict[str, Any]:
        """What `restore` needs, of tensors, numbers, lists and dicts; without a level, after all of them."""
        return {
            "level": len(self.channels) if level is None else level, "group": group, "stage": stage,
            "history": self.history, "seconds": time.perf_counter() - self.started, "report": self.report,
            "generator": self.generator.get_state(),
            "masks": [[each.mask.cpu() for each in grown.groups] for grown in self.network.levels],
            "channels": [[each.channels for each in grown.groups] for grown in self.network.levels],
            "weights": torch.nn.utils.parameters_to_vector(self.network.parameters()).detach().cpu(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on, in `run`, where a trainer of the same data and options was whose state is given."""
        for level, (masks, channels) in enumerate(zip(state["masks"], state["channels"], strict=True)):
            self.network.deepen(noise=0.0, generator=self.generator)
            for mask, n_filters in zip(masks, channels, strict=True):
                self.network.widen(level, mask.to(self.device), n_filters, noise=0.0, generator=self.generator)
        self._set_weights(state["weights"])
        self.generator.set_state(state["generator"])
        self.history, self.report = state["history"], state["report"]
        self.started = time.perf_counter() - state["seconds"]
        self._resumed = (state["level"], state["group"]), state["stage"]
