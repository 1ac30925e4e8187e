"""The multi-resolution autoencoder: levels, groups, masks (paper, section 1).

Forward pass and adjoint are chains of products with sparse matrices. The adjoint is written by hand
because autograd takes 1.4 to 1.7 times as long (3 levels, one thread, equal gradients).

Fields are tensors (variable * pixel, sample), padded already. A level's encoding grid is the grid
of the level below it; level 0's is the bottleneck's. A sample is a combination of snapshots;
`constant` is the same combination of ones, and what biases are multiplied with: 1 for a snapshot,
sqrt(T) for the scaled mean of T snapshots, 0 for a singular vector of their departures from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .layers import Deepening, Group
from .state import NetworkState, storable


class Level(nn.Module):
    """One resolution: its deepening and the groups that widened it."""

    def __init__(self, deepening: Deepening, groups: Iterable[Group] = ()) -> None:
        super().__init__()
        self.deepening = deepening
        self.groups: list[Group] = nn.ModuleList(groups)  # type: ignore[assignment]

    @property
    def code_sizes(self) -> list[tuple[int, int]]:
        """(channels, cells) of each group."""
        return [(group.channels, group.n_cells) for group in self.groups]


@dataclass
class Pass:
    """What a forward pass leaves behind for its adjoint, one entry per level."""

    inputs: list[Tensor]
    bottleneck: Tensor
    outputs: list[Tensor] = field(default_factory=list)
    footprints: list[list[Tensor]] = field(default_factory=list)
    codes: list[list[Tensor]] = field(default_factory=list)

    def flat_codes(self, level: int) -> Tensor:
        """Return all codes of one level, (code, sample)."""
        codes = [code.flatten(0, 1) for code in self.codes[level]]
        return torch.cat([self.bottleneck if level == 0 else self.bottleneck[:0], *codes])


class Network(nn.Module):
    """MrCAE of the levels fitted so far.

    Parameters
    ----------
    has_data : list of Tensor of bool, shape (variable, y, x)
        For each level that the network will have: what filters of residual groups may read.
    counts : Tensor of bool, shape (variable, y, x)
        Valid pixels of the finest level. A cell exists only if its footprint on the finest grid
        holds one.
    widening : {"residual", "parallel"}
        Whether a group reads what the level has not yet reconstructed, or the level's input (2.2).
    restriction : {"full_weighting", "injection"}
        What the deepening's encoder starts from.
    activation : {None, "relu"}
        Applied to the codes of groups.
    dtype : torch.dtype
        Of the weights.
    """

    #: Whether encoders have weights of their own. If not, the encoder of a deepening stays the
    #: restriction, and groups have no encoder.
    encodes = True

    def __init__(
        self,
        has_data: list[Tensor],
        counts: Tensor,
        *,
        widening: str,
        restriction: str,
        activation: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.has_data, self.counts = has_data, counts
        self.widening, self.restriction = widening, restriction
        self.activation, self.dtype = activation, dtype
        self.levels: list[Level] = nn.ModuleList()  # type: ignore[assignment]
        cells = storable(counts.cpu().numpy(), len(has_data))
        self.storable = [torch.as_tensor(each, device=counts.device) for each in cells]

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.has_data[0].device

    def state(self) -> NetworkState:
        """Describe the network in arrays; :func:`xmrcae.core.projection.from_state` undoes it."""
        return NetworkState(
            has_data=[_array(has) for has in self.has_data],
            counts=_array(self.counts),
            widening=self.widening,
            restriction=self.restriction,
            activation=self.activation,
            dtype=str(self.dtype).removeprefix("torch."),
            masks=[[_array(group.mask) for group in level.groups] for level in self.levels],
            channels=[[group.channels for group in level.groups] for level in self.levels],
            weights={name: _array(weight) for name, weight in self.state_dict().items()},
        )

    # What the network is made of

    def shape(self, level: int) -> tuple[int, int]:
        """Return the rows and columns of a level's grid."""
        return tuple(self.has_data[level].shape[1:])  # type: ignore[return-value]

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(sum(self.stage_parameters(level)) for level in range(len(self.levels)))

    def stage_parameters(self, level: int) -> list[int]:
        """Count the parameters that each stage of a level adds: its deepening, then groups."""
        parts = [self.levels[level].deepening, *self.levels[level].groups]
        return [sum(parameter.numel() for parameter in part.parameters()) for part in parts]

    def stage_sizes(self, level: int) -> list[int]:
        """Return the numbers per snapshot that each stage of a level adds to the encoding."""
        bottleneck = int(self.storable[0].sum()) if level == 0 else 0
        return [bottleneck, *(n * cells for n, cells in self.levels[level].code_sizes)]

    def active_share(self, level: int) -> list[float]:
        """Return the share of active cells, of all that can act, in each group of a level."""
        n_storable = max(1, int(self.storable[level].any(0).sum()))
        return [group.n_cells / n_storable for group in self.levels[level].groups]

    def bytes_per_sample(self, level: int) -> int:
        """Estimate the bytes of a sample on its way through the levels up to one, and back."""
        levels = self.levels[: level + 1]
        in_groups = sum((n + 4) * cells for each in levels for n, cells in each.code_sizes)
        return 4 * (6 * sum(has.numel() for has in self.has_data[: level + 1]) + 2 * in_groups)

    def vector(self) -> Tensor:
        """Return all parameters as one vector, on the CPU."""
        return torch.nn.utils.parameters_to_vector(self.parameters()).detach().cpu()

    def set_vector(self, vector: Tensor) -> None:
        """Set all parameters from one vector.

        Equal values are not written: a projection keeps its factorisation as long as no parameter
        has been written to.
        """
        parameters = list(self.parameters())
        if torch.equal(self.vector(), vector):
            return
        pieces = vector.to(self.device).split([parameter.numel() for parameter in parameters])
        with torch.no_grad():
            for parameter, values in zip(parameters, pieces, strict=True):
                parameter.copy_(values.view_as(parameter))

    def tied_vector(self) -> Tensor:
        """Make all parameters parts of one vector on the device; to write to it sets them."""
        parameters = list(self.parameters())
        vector = torch.nn.utils.parameters_to_vector(parameters).detach()
        pieces = vector.split([parameter.numel() for parameter in parameters])
        for parameter, values in zip(parameters, pieces, strict=True):
            parameter.data = values.view_as(parameter)
        return vector

    # Growth

    def deepen(self, *, noise: float, generator: torch.Generator) -> None:
        """Add a level (2.1)."""
        level = len(self.levels)
        cells = self.storable[level] if level == 0 else torch.ones_like(self.has_data[level - 1])
        deepening = Deepening(
            self.has_data[level],
            cells,
            self.restriction,
            noise,
            generator,
            self.dtype,
            encodes=self.encodes,
        )
        self.levels.append(Level(deepening))

    def widen(
        self, level: int, mask: Tensor, channels: int, *, noise: float, generator: torch.Generator
    ) -> Group:
        """Add a group to a level (2.2); its decoder starts at zero but for the noise."""
        readable = self.has_data[level]
        if self.widening == "parallel":
            readable = torch.ones_like(readable)
        group = Group(
            self.shape(level),
            mask,
            readable,
            channels,
            noise,
            generator,
            self.dtype,
            self.activation,
            encodes=self.encodes,
        )
        self.levels[level].groups.append(group)
        return group

    def grow(self, groups: Iterable[Iterable[tuple[Any, int]]]) -> None:
        """Add levels with groups of given masks, arrays or tensors, and numbers of filters.

        Weights are at their start values.
        """
        generator = torch.Generator()
        for added in groups:
            self.deepen(noise=0.0, generator=generator)
            for mask, channels in added:
                mask = torch.as_tensor(mask, device=self.device)
                self.widen(len(self.levels) - 1, mask, channels, noise=0.0, generator=generator)

    # Forward

    @torch.no_grad()
    def forward(self, pixels: Tensor, constant: Tensor) -> Pass:
        """Compute codes and reconstructions of every level up to that of the input.

        Parameters
        ----------
        pixels : Tensor, shape (variable * pixel, sample)
            Samples of the last level so far, or of a coarser one.
        constant : Tensor, shape (sample,)
            What biases are multiplied with.
        """
        inputs = self._inputs(pixels, constant)
        result = Pass(inputs, self.levels[0].deepening.encode(inputs[0], constant))

        def encode(level: int, group: Group, field: Tensor) -> Tensor:
            other = field if self.widening == "residual" else None
            footprint = group.read(inputs[level], other)  # (footprint, sample)
            result.footprints[level].append(footprint)
            return group.encode(footprint, constant)  # (channel, cell, sample)

        return self._decode(result, constant, encode)

    @torch.no_grad()
    def decode(self, codes: list[Tensor], constant: Tensor) -> Tensor:
        """Reconstruct level k from the flat codes of the levels 0 to k, each (code, sample)."""
        return self.expand(torch.cat(codes), constant, [None] * len(codes)).outputs[-1]

    @torch.no_grad()
    def expand(self, codes: Tensor, constant: Tensor, inputs: Sequence[Any]) -> Pass:
        """Reconstruct as many levels as there are inputs from all their codes, (code, sample)."""
        levels = self.levels[: len(inputs)]
        n_cells = len(self.levels[0].deepening.variable_of_cell)
        sizes = [channels * cells for level in levels for channels, cells in level.code_sizes]
        bottleneck, *pieces = codes.split([n_cells, *sizes])

        def given(level: int, group: Group, field: Tensor) -> Tensor:
            return pieces.pop(0).reshape(group.channels, group.n_cells, -1)

        return self._decode(Pass(list(inputs), bottleneck), constant, given)

    def _inputs(self, pixels: Tensor, constant: Tensor) -> list[Tensor]:
        """Return what each level reads, coarsest first: the samples, encoded level by level."""
        sizes = [has.numel() for has in self.has_data[: len(self.levels)]]
        inputs = [pixels]
        for k in range(sizes.index(len(pixels)), 0, -1):
            inputs.insert(0, self.levels[k].deepening.encode(inputs[0], constant))
        return inputs

    def _decode(
        self, result: Pass, constant: Tensor, code_of: Callable[[int, Group, Tensor], Tensor]
    ) -> Pass:
        """Reconstruct as many levels as there are inputs: y = D y + sum of w (2.1, 2.2).

        `code_of` gives a group's codes, knowing its level and what is reconstructed before it.
        """
        field = result.bottleneck
        for k, level in enumerate(self.levels[: len(result.inputs)]):
            field = level.deepening.decode(field, constant)
            result.footprints.append([])
            result.codes.append([])
            for group in level.groups:
                code = code_of(k, group, field)
                group.decode(code, constant, field)
                result.codes[k].append(code)
            result.outputs.append(field)
        return result

    # Adjoint

    @torch.no_grad()
    def backward(self, result: Pass, constant: Tensor, gradients: dict[int, Tensor]) -> None:
        """Add to the gradients of all parameters.

        Given are, by level, those with respect to reconstructions, which are used up.
        """
        last = len(result.outputs) - 1
        residual = self.widening == "residual"
        to_inputs = {
            k: torch.zeros_like(result.outputs[k]) for k in range(last) if self.levels[k].groups
        }

        def encode_adjoint(k: int, j: int, by_code: Tensor, gradient: Tensor) -> None:
            group = self.levels[k].groups[j]
            footprint, code = result.footprints[k][j], result.codes[k][j]
            by_code = group.encode_adjoint(footprint, constant, code, by_code)
            if residual:
                group.encode_transpose(by_code, gradient, sign=-1)
            if k in to_inputs:
                group.encode_transpose(by_code, to_inputs[k])

        gradient = self._decode_adjoint(result, constant, gradients, encode_adjoint)
        for k in range(last + 1):
            deepening = self.levels[k].deepening
            deepening.encode_adjoint(result.inputs[k], constant, gradient)
            if k < last:
                gradient = deepening.encode_transpose(gradient)
            if k in to_inputs:
                gradient += to_inputs[k]

    def _decode_adjoint(
        self,
        result: Pass,
        constant: Tensor,
        gradients: dict[int, Tensor],
        to_code: Callable[[int, int, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """Add to the gradients of the decoders; return that with respect to the bottleneck.

        `to_code` takes level and number of a group, the gradient with respect to its codes, and
        that with respect to what is reconstructed before it, to which it may add.
        """
        last = len(result.outputs) - 1
        gradient = gradients[last]
        for k in range(last, -1, -1):
            level = self.levels[k]
            for j in range(len(level.groups) - 1, -1, -1):
                group, code = level.groups[j], result.codes[k][j]
                by_code = group.decode_adjoint(code, constant, gradient)
                if to_code is not None:
                    to_code(k, j, by_code, gradient)
            cells = result.outputs[k - 1] if k else result.bottleneck
            gradient = level.deepening.decode_adjoint(cells, constant, gradient)
            if k - 1 in gradients:
                gradient += gradients[k - 1]
        return gradient


def _array(tensor: Tensor) -> np.ndarray:
    """Make a copy on the host: later steps write to the parameters in place."""
    return tensor.detach().cpu().numpy().copy()
