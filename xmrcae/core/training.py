"""Algorithm 3.1: deepen and widen, coarse to fine, and train after each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..defaults import MOST_OF_DATA
from ..memory import give_back_memory, keeping_memory
from .allocation import cells_per_group, check_encoding_size
from .evaluation import Evaluation
from .growth import Growth, allocate
from .matrices import Prolongation
from .network import Network
from .projection import from_state
from .samples import block_bytes, mean_weights, samples_of, sketch_size, sketched
from .stage import Objective, descend
from .state import NetworkState
from .threads import threads_for

if TYPE_CHECKING:
    from ..handover import LevelData
    from ..options import Options

#: Rounds of choosing cells and training, if all levels grow at once.
ROUNDS = 2

#: Leading singular vectors, and as many random combinations of the others, by which cells are
#: chosen.
DIRECTIONS = 64


def find_device(name: str) -> torch.device:
    """Find the device of that name; "auto" takes a GPU where there is one.

    Raises
    ------
    ValueError
        If it cannot be used, or is a GPU, and it or the current one is not the first: kernels are
        launched on the current one, which is the first in every new thread, such as those of dask.
    """
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(auto if name == "auto" else name)
        torch.empty(0, device=device)
        current = torch.cuda.current_device() if device.type == "cuda" else 0
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f'device={name!r} cannot be used here ({error}); choose "auto" or "cpu"'
        ) from None
    if device.index or current:
        raise ValueError(
            f"device={name!r}: a process computes on the first GPU that it sees, which is to be "
            f"the current one (now {current}); let CUDA_VISIBLE_DEVICES name another GPU before "
            'Python starts, and choose "cuda"'
        )
    return device


class Trainer:
    """One run of Algorithm 3.1.

    Parameters
    ----------
    data : mapping of str to list of LevelData
        "training", "validation" and perhaps "test": one per level, coarsest first.
    options : Options
        How to train.
    channels : list of list of int
        Filters of each group after the deepening, one list per level.
    epsilons : list of numpy.ndarray, shape (variable,), or None
        The paper's epsilon for each level and variable, in scaled units squared; None: no masks.
    device : torch.device
        Where to train.
    progress : object with ``update``, ``set_postfix``
        A progress bar.
    memory : float
        Bytes of the host's memory that the fit may use.
    start : Network, optional
        One whose levels, groups and weights to take over. Its last level is trained again, and
        every level that gets a further group, with those above it.
    save : callable, optional
        Takes the state after every stage and every tenth epoch.
    saved : dict, optional
        A state of a run with the same data and options, from which to go on to the same end.

    Attributes
    ----------
    network : Network
        With the best weights so far at every moment outside a stage.
    history : list of dict
        One row per epoch.
    report : dict
        Numbers of samples, and the share of variance that they leave out.
    """

    def __init__(
        self,
        data: Mapping[str, Sequence[LevelData]],
        options: Options,
        *,
        channels: list[list[int]],
        epsilons: list[np.ndarray] | None,
        device: torch.device,
        progress: Any,
        memory: float = math.inf,
        start: Network | None = None,
        save: Callable[[dict[str, Any]], None] | None = None,
        saved: dict[str, Any] | None = None,
    ) -> None:
        self.options, self.channels, self.progress, self.save = options, channels, progress, save
        self.data = samples_of(data, device)
        state = saved["network"] if saved else _without_levels(data["training"], options)
        self.network = from_state(state, device)
        pairs = pairwise(self.network.has_data)
        self.prolongations = [Prolongation(*pair, self.network.dtype) for pair in pairs]
        self.evaluation = Evaluation(self.network, block_bytes=block_bytes(device, memory))
        self.growth = Growth(
            evaluation=self.evaluation,
            training=self.data["training"],
            epsilons=epsilons,
            n_cells=_cells_per_group(self.network, channels, options),
            most_codes=_most_codes(self.network, options),
            dilation=options.dilation,
            noise=options.noise,
            generator=torch.Generator().manual_seed(options.seed),
            start=start,
        )
        self.history: list[dict[str, float]] = []
        self.samples_at_level = _samples_at_level(data["training"], options)
        self.report = _report(data) | {"train_samples_at_level": self.samples_at_level}
        self._started = time.perf_counter()
        self._position, self._unfinished = (-1, 0), None
        if saved is not None:
            self._go_on_from(saved)

    def run(self) -> None:
        """Fit every level; if there is a saved state, what it leaves to do."""
        growth = self.growth
        if self.options.encoding_size is not None and growth.n_cells is None:
            self._run_at_once()
            return
        for level, filters in enumerate(self.channels):
            adopted = growth.n_adopted(level)
            self._reach(level, adopted, partial(self._deepen, level))  # (2.1)
            for group in range(adopted + 1, len(filters) + 1):
                widen = partial(growth.widen, level, filters[group - 1])  # (2.2)
                if not self._reach(level, group, widen):
                    break  # the error is low enough everywhere (3.8)

    def _run_at_once(self) -> None:
        """Let cells of all levels compete for the size of the encoding; train the finest level.

        Groups start on all cells, from the residual that is left when everything coarser is known.
        Cells are chosen, filters trained, and then both once more. The history counts these rounds
        as groups of the finest level.
        """
        self.growth.grow_everywhere(self.channels)
        for turn in range(ROUNDS):
            self._reach(len(self.channels) - 1, turn, self._allocate)

    def _reach(self, level: int, group: int, grow: Callable[[], bool]) -> bool:
        """Let the network grow for a stage, and train it; False if it has no need to grow.

        This is the only place that uses a saved state. Earlier stages are done. The saved stage
        goes on, unless it was saved at its end.
        """
        position = (level, group)
        is_saved = position == self._position
        if position < self._position or (is_saved and self._unfinished is None):
            return True
        with threads_for(self._work(level)):
            give_back_memory()  # of the stage before, whose arrays had other sizes
            if not is_saved and not grow():
                return False
            self._train(level, group, self._unfinished if is_saved else None)
        return True

    def _work(self, level: int) -> int:
        """Count the numbers, samples times pixels, that an epoch of a level goes through."""
        pixels = sum(len(each.weights) for each in self.data["training"][: level + 1])
        return pixels * self.samples_at_level[level]

    def _deepen(self, level: int) -> bool:
        """Add a level; False if it is adopted and need not be trained before it is widened.

        An adopted level is trained again if it is the last one, or stands on one that has been.
        """
        self.growth.deepen()
        start = self.growth.start
        return start is None or level >= len(start.levels) - 1 or bool(self.history)

    def _allocate(self) -> bool:
        """Choose the cells of all groups anew."""
        options, training = self.options, self.data["training"]
        samples = sketched(training, DIRECTIONS, (options.seed, len(training) - 1))[-1]
        assert options.encoding_size is not None
        allocate(self.evaluation, samples, options.encoding_size)
        return True

    def finish(self) -> None:
        """Give back the memory of gradients, and add missing levels without training.

        So every level can be decoded after an interruption.
        """
        self.network.zero_grad(set_to_none=True)
        while len(self.network.levels) < len(self.channels):
            self.growth.deepen(trained=False)

    def _train(self, level: int, group: int, unfinished: dict[str, Any] | None) -> None:
        """Train all parameters so far on one level's objective.

        On all samples, the weights kept are no worse than those at the start. The last row of the
        stage is replaced by one that belongs to them.
        """
        options = self.options
        training, validation = self.data["training"], self.data["validation"]
        if not options.activation:
            n, seed = _sketch(len(training[level].weights), options), (options.seed, level, group)
            training, validation = (sketched(each, n, seed) for each in (training, validation))
        objective = Objective(
            evaluation=self.evaluation,
            training=training,
            validation=validation,
            level=level,
            omega=options.omega,
            anchor=options.anchor,
            prolongations=self.prolongations[level:],
        )
        begin = unfinished.pop("begin") if unfinished else self.network.vector()
        with keeping_memory():
            n_epochs = descend(
                objective,
                begin,
                lambda errors: self.growth.next_mask(level, errors)[1],
                options=options,
                on_epoch=partial(self._record_epoch, level, group),
                save=lambda stage: self._save(level, group, stage | {"begin": begin}),
                resumed=unfinished,
            )
        if n_epochs:
            self.history.pop()
        losses = self._final_losses(level)
        if objective.training[level].rank < self.data["training"][level].rank:
            losses = self._better(level, begin, losses)
        self._record(level, group, losses)
        self._save(level, group)

    def _better(self, level: int, begin: Tensor, losses: dict[str, float]) -> dict[str, float]:
        """Go back to the weights at the start of a stage if they are better on all samples.

        A stage that trains on some of them cannot tell. Return the losses of what is kept.
        """
        kept = self.network.vector()
        self.network.set_vector(begin)
        before = self._final_losses(level)
        if before["train_loss"] < losses["train_loss"]:
            return before
        self.network.set_vector(kept)
        return losses

    def _final_losses(self, level: int) -> dict[str, float]:
        """Return the losses of all parts of the snapshots, on all their samples."""
        found: dict[str, float] = {}
        for part, data in self.data.items():
            found |= self.evaluation.losses(
                _column(part),
                data,
                level,
                omega=self.options.omega,
                part=slice(None),
                prolongations=self.prolongations[level:],
            )
        return found

    def _record_epoch(self, level: int, group: int, losses: dict[str, float]) -> None:
        self._record(level, group, losses)
        loss = f"{losses['train_loss']:.3g}"
        self.progress.update()
        self.progress.set_postfix(level=level, group=group, loss=loss, refresh=False)

    def _record(self, level: int, group: int, losses: dict[str, float]) -> None:
        row = {"level": level, "group": group, **losses, "seconds": self._seconds()}
        self.history.append(row)

    def _seconds(self) -> float:
        """Return how long the fit has run, before an interruption too; a clock may jump back."""
        return max(0.0, time.perf_counter() - self._started)

    def _save(self, level: int, group: int, unfinished: dict[str, Any] | None = None) -> None:
        if self.save is not None:
            self.save(self.state(level, group, unfinished))

    def state(
        self, level: int | None = None, group: int = 0, unfinished: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return what a run needs to go on from here; without a level, from behind all of them.

        Of tensors, numbers, lists and dicts, and the network as a :class:`NetworkState`.
        """
        return {
            "level": len(self.channels) if level is None else level,
            "group": group,
            "stage": unfinished,
            "history": self.history,
            "seconds": self._seconds(),
            "report": self.report,
            "generator": self.growth.generator.get_state(),
            "network": self.network.state(),
        }

    def _go_on_from(self, saved: dict[str, Any]) -> None:
        """Take over a saved state; raise an error if it cannot be that of a run."""
        self.growth.generator.set_state(saved["generator"])
        self.history, self.report = saved["history"], saved["report"]
        self._started = time.perf_counter() - saved["seconds"]
        self._position, self._unfinished = (saved["level"], saved["group"]), saved["stage"]
        level = len(self.network.levels) - 1
        errors, _ = self.growth.errors(level)
        if not errors.isfinite().all():
            raise ValueError("what its weights reconstruct is not finite")


def _column(part: str) -> str:
    """Return what the history calls a part of the snapshots."""
    return "train" if part == "training" else part


def _report(data: Mapping[str, Sequence[LevelData]]) -> dict[str, Any]:
    """Return the numbers of samples of each part, and the share of variance that they leave out."""
    report: dict[str, Any] = {}
    for part, (first, *_) in data.items():
        name = _column(part)
        report[f"{name}_samples"] = len(first.constant)
        report[f"{name}_samples_in_training"] = first.rank
        report[f"{name}_variance_left_out"] = first.variance_left_out
    return report


def _samples_at_level(data: Sequence[LevelData], options: Options) -> list[int]:
    """Return how many samples the stages of each level are trained on."""
    if options.activation:
        return [each.rank for each in data]
    return [min(each.rank, 1 + 2 * _sketch(each.counts.size, options)) for each in data]


def _sketch(n_pixels: int, options: Options) -> int:
    """Return how many leading vectors, and combinations of the others, a level is trained on."""
    return options.sketch or sketch_size(n_pixels)


def _without_levels(data: Sequence[LevelData], options: Options) -> NetworkState:
    """Return the state of a network on the grid of the data that is still to grow."""
    weights = [mean_weights(each).astype(np.float32) for each in data]
    return NetworkState(
        has_data=[each.has_data for each in data],
        counts=data[-1].counts,
        widening=options.widening,
        restriction=options.restriction,
        activation=options.activation,
        projection=weights if options.encoder == "projection" else None,
        anchor=options.anchor,
    )


def _most_codes(network: Network, options: Options) -> int | None:
    """Return the most numbers of an encoding under the default tolerance; None under others."""
    if not isinstance(options.tolerance, str) or options.encoding_size is not None:
        return None
    return int(MOST_OF_DATA * int(network.counts.sum()))


def _cells_per_group(
    network: Network, channels: Sequence[Sequence[int]], options: Options
) -> list[int] | None:
    """Return the active cells of each group of a level, for encodings of a given size."""
    if options.encoding_size is None:
        return None
    bottleneck = check_encoding_size(options.encoding_size, int(network.storable[0].sum()))
    if options.encoder == "projection":
        return None
    storable = [int(each.any(0).sum()) for each in network.storable]
    return cells_per_group(options.encoding_size, bottleneck, storable, channels)
