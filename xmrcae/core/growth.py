"""How a network grows: levels and groups, their start values, and the cells where groups act."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..defaults import MOST_OF_DATA, TOLERANCE
from .allocation import choose_cells
from .evaluation import Evaluation
from .layers import Group
from .masks import refinement_mask, worst_cells
from .network import Network
from .projection import ProjectedNetwork
from .samples import Samples


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The rules by which a network grows.

    Attributes
    ----------
    evaluation : Evaluation
        Of the network that grows.
    training : sequence of Samples
        One per level: the samples whose errors say where to grow.
    epsilons : list of numpy.ndarray, shape (variable,), or None
        The paper's epsilon for each level and variable (3.8).
    n_cells : list of int or None
        For each level, how many cells of a group act, in place of `epsilons`. Without either, all.
    most_codes : int or None
        Numbers of the encoding at which groups stop, with `epsilons` met or not.
    dilation : int
        Cells by which a refinement mask is widened.
    noise : float
        Half-width of the uniform noise that is added to start values of filters.
    generator : torch.Generator
        Of the noise.
    start : Network, optional
        One whose levels, groups and weights are taken over.
    """

    evaluation: Evaluation
    training: Sequence[Samples]
    epsilons: list[np.ndarray] | None
    n_cells: list[int] | None
    most_codes: int | None
    dilation: int
    noise: float
    generator: torch.Generator
    start: Network | None

    def n_adopted(self, level: int) -> int:
        """Count the groups with which a level begins: those of the network to start from."""
        if self.start is None or level >= len(self.start.levels):
            return 0
        return len(self.start.levels[level].groups)

    def deepen(self, *, trained: bool = True) -> None:
        """Add a level (2.1), with what there is to take over.

        One that is not to be `trained` gets no noise: it restricts and prolongs.
        """
        network, start = self.evaluation.network, self.start
        level = len(network.levels)
        network.deepen(noise=self.noise if trained else 0.0, generator=self.generator)
        if start is None or level >= len(start.levels):
            return
        for group in start.levels[level].groups:
            mask = group.mask.to(network.device)
            network.widen(level, mask, group.channels, noise=0.0, generator=self.generator)
        network.levels[level].load_state_dict(start.levels[level].state_dict())

    def widen(self, level: int, n_filters: int) -> bool:
        """Add a group where the error is still high (2.2); False if it is nowhere."""
        mask, resolved = self.next_mask(level)
        if self.most_codes is not None and not resolved:
            mask = self._affordable(mask, level, n_filters)
        if resolved or not bool(mask.any()):
            return False
        self.add_groups(level, [(mask, n_filters)])
        return True

    def next_mask(self, level: int, errors: Tensor | None = None) -> tuple[Tensor, bool]:
        """Find where a further group of a level would act, and whether none is needed.

        Given a tolerance, where the error exceeds it (3.8); given a size of the encoding, on so
        many of the worst cells; given neither, on all cells.

        Parameters
        ----------
        level : int
            The level.
        errors : Tensor, shape (variable * pixel,), optional
            Time-mean squared errors of the level, if they are known.

        Returns
        -------
        mask : Tensor of bool, shape (y, x) of the encoding grid
            The cells.
        resolved : bool
            True if the level needs no further group.
        """
        storable = self.evaluation.network.storable[level]
        if self.epsilons is None and self.n_cells is None:
            return storable.any(0), False
        errors, counts = self.errors(level, errors)
        if self.n_cells is not None:
            return worst_cells(errors, counts, storable, self.n_cells[level]), False
        assert self.epsilons is not None
        epsilons = torch.as_tensor(self.epsilons[level]).to(errors)
        return refinement_mask(errors, counts, epsilons, storable, dilation=self.dilation)

    def errors(self, level: int, errors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return errors of a level, if they are not known yet, and counts: (variable, y, x)."""
        samples, shape = self.training[level], self.evaluation.network.has_data[level].shape
        if errors is None:
            errors, _ = self.evaluation.errors(self.training, level, samples.leading)
        return errors.view(shape), samples.counts.view(shape)

    def _affordable(self, mask: Tensor, level: int, n_filters: int) -> Tensor:
        """Return a mask, or as many cells of highest error as `most_codes` leaves numbers for."""
        assert self.most_codes is not None
        network = self.evaluation.network
        size = sum(sum(network.stage_sizes(k)) for k in range(len(network.levels)))
        n_cells = max(0, self.most_codes - size) // n_filters
        if int(mask.sum()) <= n_cells:
            return mask
        warnings.warn(
            f"the default tolerance, {TOLERANCE:g} of the rms about the centre, takes more than "
            f"{MOST_OF_DATA:g} times as many numbers as a snapshot has values: at "
            f"{self.most_codes} numbers no more cells are added, and those of highest error come "
            "first; give a tolerance that is to be met, or encoding_size= for the least error "
            "with a number of your own",
            stacklevel=2,
        )
        return worst_cells(*self.errors(level), network.storable[level], n_cells)

    def add_groups(self, level: int, groups: Sequence[tuple[Tensor, int]]) -> None:
        """Add groups of given masks and numbers of filters to a level (2.2).

        Without noise their filters start from the leading directions of what the level has not yet
        reconstructed, the first group from the first ones.
        """
        added = [
            self.evaluation.network.widen(
                level, mask, n_filters, noise=self.noise, generator=self.generator
            )
            for mask, n_filters in groups
        ]
        if not added or (self.noise and added[0].encodes):
            return
        network, samples = self.evaluation.network, self.training[level]

        def find_directions(blocks: list[slice]) -> Tensor:
            return added[0].directions(residual_patches(network, samples, level, added[0], blocks))

        directions = self.evaluation.in_blocks(find_directions, level, samples.leading)
        for group in added:
            group.start_from(directions)
            directions = directions[group.channels :]

    def grow_everywhere(self, channels: Sequence[Sequence[int]]) -> None:
        """Add the levels that are missing, with all their groups, which act on all cells."""
        network = self.evaluation.network
        for level in range(len(network.levels), len(channels)):
            self.deepen()
            everywhere = network.storable[level].any(0)
            added = channels[level][self.n_adopted(level) :]
            self.add_groups(level, [(everywhere, n_filters) for n_filters in added])


def residual_patches(
    network: Network, samples: Samples, level: int, group: Group, blocks: Sequence[slice]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return what a group's filters read, and what the level has not yet reconstructed.

    Both under the group's active cells, (footprint, sample), for each block of samples. Where
    codes are found by projection, only counted pixels are to be reconstructed.
    """
    counts = 1 if group.encodes else samples.counts[:, None]
    for block in blocks:
        pixels, constant = samples.block(block)
        residual = group.read((pixels - network(pixels, constant).outputs[level]) * counts)
        reads_input = group.encodes and network.widening == "parallel"
        yield group.read(pixels) if reads_input else residual, residual


def allocate(evaluation: Evaluation, samples: Samples, encoding_size: int) -> None:
    """Let groups of all levels act on those cells that gain most per number stored.

    Parameters
    ----------
    evaluation : Evaluation
        Of a network without encoders, with all its levels and groups, which keep their filters.
    samples : Samples
        Of the finest level: what is to be described.
    encoding_size : int
        The most numbers per snapshot, over all levels.
    """
    network = evaluation.network
    assert isinstance(network, ProjectedNetwork)
    last = len(network.levels) - 1
    every = [storable.any(0) for storable in network.storable]
    network.remask([[every[k] for _ in level.groups] for k, level in enumerate(network.levels)])
    projector = network.projector(last)

    def targets_of(blocks: list[slice]) -> np.ndarray:
        parts = []
        for block in blocks:
            pixels, constant = samples.block(block)
            parts.append(projector.targets(network(pixels, constant).inputs, constant))
        return np.concatenate(parts, axis=1)

    targets = evaluation.in_blocks(targets_of, last, samples.leading)
    sizes = [(cells, n) for level in network.levels for n, cells in level.code_sizes]
    chosen = iter(choose_cells(projector.matrix, targets, sizes, encoding_size))
    masks: list[list[Tensor]] = []
    for level in network.levels:
        masks.append([])
        for group in level.groups:
            mask = torch.zeros_like(group.mask)
            mask[group.mask] = torch.as_tensor(next(chosen), device=mask.device)
            masks[-1].append(mask)
    network.remask(masks)
