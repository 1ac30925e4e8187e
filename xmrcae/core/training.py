"""Algorithm 3.1: deepen and widen, coarse to fine, and train after each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from . import losses, solvers
from .allocation import cells_per_group, check_encoding_size, choose_cells
from .evaluation import Evaluation
from .layers import Group
from .matrices import Prolongation
from .network import Network, NetworkState
from .projection import ProjectedNetwork, from_state
from .samples import Losses, Samples, sketched

if TYPE_CHECKING:
    from ..handover import LevelData
    from ..options import Options

#: Epochs over which a decrease is measured, and after which the global metric is recorded and the state saved.
WINDOW = 10

#: How often cells of all levels are chosen and filters trained.
ROUNDS = 2

#: Leading singular vectors, and as many random combinations of the others, by which cells are chosen.
DIRECTIONS = 64


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
        has_data = [each.has_data for each in data["training"]]
        self.counts = [torch.as_tensor(each.counts, device=device) for each in data["training"]]
        projection = [
            each.weights.view(has.shape).cpu().numpy() for each, has in zip(self.training, has_data, strict=True)
        ]
        state = NetworkState(
            has_data=has_data,
            counts=data["training"][-1].counts,
            widening=options.widening,
            restriction=options.restriction,
            activation=options.activation,
            projection=projection if options.encoder == "projection" else None,
            anchor=options.anchor,
        )
        self.network = from_state(state, device)
        self.evaluation = Evaluation(self.network, room=room)
        self.prolongations = [
            Prolongation(coarse, fine, self.network.dtype) for coarse, fine in pairwise(self.network.has_data)
        ]
        self.cells: list[int] | None = None
        if options.encoding_size is not None:
            storable = self.network.storable
            bottleneck = check_encoding_size(options.encoding_size, int(storable[0].sum()))
            if options.encoder == "filters":
                self.cells = cells_per_group(
                    options.encoding_size, bottleneck, [int(s.any(0).sum()) for s in storable], channels
                )
        self.generator = torch.Generator().manual_seed(options.seed)
        self.history: list[dict[str, float]] = []
        self.report: dict[str, Any] = {}
        for part, levels in data.items():
            name = "train" if part == "training" else part
            self.report[f"{name}_samples"] = len(levels[0].constant)
            self.report[f"{name}_samples_in_training"] = levels[0].rank
            self.report[f"{name}_variance_left_out"] = levels[0].variance_left_out
        self.started = time.perf_counter()
        self._resumed: tuple[tuple[int, int], dict[str, Any] | None] = ((-1, 0), None)

    def run(self) -> None:
        """Fit every level; after `restore`, what is left of it."""
        if self.options.encoding_size is not None and self.cells is None:
            self._run_at_once()
        else:
            self._run_coarse_to_fine()

    def _run_coarse_to_fine(self) -> None:
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
                        self._widen(level, [(mask, self.channels[level][group - 1])])
                    elif not self._deepen(level):
                        continue
                self._stage(level, group, stage if (level, group) == position else None)
                if self.save is not None:
                    self.save(self.state(level, group))

    def _run_at_once(self) -> None:
        """Let the cells of all levels compete for the size of the encoding; train the finest level's loss.

        Groups start on all cells, from the residual that is left when everything coarser is known. Cells are chosen,
        filters trained, and then both once more. The history counts these rounds as groups of the finest level.
        """
        last = len(self.channels) - 1
        for level in range(len(self.network.levels), last + 1):
            self._deepen(level)
            added = self.channels[level][len(self.network.levels[level].groups) :]
            everywhere = self.network.storable[level].any(0)
            self._widen(level, [(everywhere, n_filters) for n_filters in added])
        for turn in range(ROUNDS):
            position, stage = self._resumed
            if (last, turn) < position or ((last, turn) == position and stage is None):
                continue
            if (last, turn) != position:
                self._allocate()
            self._stage(last, turn, stage if (last, turn) == position else None)
            if self.save is not None:
                self.save(self.state(last, turn))

    def _allocate(self) -> None:
        """Choose, over all levels, the cells with the largest gain per number stored."""
        network, last = self.network, len(self.channels) - 1
        assert isinstance(network, ProjectedNetwork)
        every = [storable.any(0) for storable in network.storable]
        network.remask([[every[k] for _ in level.groups] for k, level in enumerate(network.levels)])
        samples = sketched(self.training, DIRECTIONS, (self.options.seed, last))
        part = slice(0, samples[last].rank)
        pixels, one = samples[last].block(part)
        projector = network.projector(last)
        blocks = [(group.n_cells, group.channels) for level in network.levels for group in level.groups]
        assert self.options.encoding_size is not None
        chosen = choose_cells(
            projector.matrix, projector.targets(network(pixels, one).inputs, one), blocks, self.options.encoding_size
        )
        masks: list[list[Tensor]] = []
        for k, level in enumerate(network.levels):
            masks.append([])
            for group in level.groups:
                mask = torch.zeros_like(group.mask)
                mask[group.mask] = torch.as_tensor(chosen.pop(0), device=mask.device)
                masks[k].append(mask)
        network.remask(masks)

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
        for group in given.groups:
            mask = group.mask.to(self.device)
            self.network.widen(level, mask, group.channels, noise=0.0, generator=self.generator)
        added.load_state_dict(given.state_dict())
        return level == len(self.start.levels) - 1 or bool(self.history)

    def _widen(self, level: int, groups: Sequence[tuple[Tensor, int]]) -> None:
        """Add groups of given masks and numbers of filters, which share out what tells most of the residual."""
        added = [
            self.network.widen(level, mask, n_filters, noise=self.options.noise, generator=self.generator)
            for mask, n_filters in groups
        ]
        if not added or (self.options.noise and added[0].encodes):
            return
        directions = added[0].directions(self._residual_patches(added[0], level))
        for group in added:
            group.start_from(directions)
            directions = directions[group.channels :]

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
                self.network.set_vector(solver.point)
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
            self.network.set_vector(now["kept"])
        if now["epoch"]:
            self.history.pop()
        parts = {"train" if part == "training" else part: data for part, data in self.data.items()}
        self._record(level, group, parts, metric=True, complete=True)

    def _solver(self, data: Sequence[Samples], level: int) -> solvers.LBFGS | solvers.Adam:
        options = self.options

        def objective(point: Tensor, power: float | None) -> solvers.Evaluated:
            self.network.set_vector(point)
            value, errors = self.evaluation.objective(
                data, level, power=power, omega=options.omega, anchor=options.anchor
            )
            gradients = [parameter.grad.flatten() for parameter in self.network.parameters()]  # type: ignore[union-attr]
            together = torch.cat([value[None], *gradients]).cpu()
            return solvers.Evaluated(float(together[0]), together[1:], errors)

        point = self.network.vector()
        given = {"learning_rate": options.learning_rate, "weight_decay": options.weight_decay}
        if options.solver == "adam":
            return solvers.Adam(point, objective, eps=options.adam_eps, **given)
        return solvers.LBFGS(point, objective, **given)

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

    def _residual_patches(self, group: Group, level: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What a group's filters read, and what the level has not yet reconstructed, under the active cells."""
        samples = self.training[level]
        counts = 1 if group.encodes else samples.counts[:, None]
        for block in self.evaluation.blocks(level, slice(0, samples.rank)):
            pixels, one = samples.block(block)
            residual = group.read((pixels - self.network(pixels, one).outputs[level]) * counts)
            of_input = group.encodes and self.options.widening == "parallel"
            yield group.read(pixels) if of_input else residual, residual

    def state(self, level: int | None = None, group: int = 0, stage: dict[str, Any] | None = None) -> dict[str, Any]:
        """What `restore` needs, of tensors, numbers, lists and dicts; without a level, after all of them."""
        return {
            "level": len(self.channels) if level is None else level, "group": group, "stage": stage,
            "history": self.history, "seconds": time.perf_counter() - self.started, "report": self.report,
            "generator": self.generator.get_state(), "network": self.network.state(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Go on, in `run`, where a trainer of the same data and options was whose state is given."""
        self.network = self.evaluation.network = from_state(state["network"], self.device)
        self.generator.set_state(state["generator"])
        self.history, self.report = state["history"], state["report"]
        self.started = time.perf_counter() - state["seconds"]
        self._resumed = (state["level"], state["group"]), state["stage"]
