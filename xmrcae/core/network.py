"""The multi-resolution autoencoder: levels, groups, masks (paper, section 1).

The network is a straight line of products with sparse matrices, so forward and adjoint are written out one below the
other. Fields are tensors (variable * pixel, sample) without padding left to do. A level's encoding grid is the grid of
the level below it; level 0's is the bottleneck's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .layers import Deepening, Group
from .projection import Projector, atoms


class Level(nn.Module):
    """One resolution: its deepening and the groups that widened it."""

    def __init__(self, deepening: Deepening) -> None:
        super().__init__()
        self.deepening = deepening
        self.groups: list[Group] = nn.ModuleList()  # type: ignore[assignment]

    @property
    def code_sizes(self) -> list[tuple[int, int]]:
        """(channels, cells) of each group."""
        return [(group.channels, group.n_cells) for group in self.groups]


@dataclass
class Pass:
    """What a forward pass leaves behind for its adjoint, one entry a level."""

    inputs: list[Tensor]
    bottleneck: Tensor
    outputs: list[Tensor] = field(default_factory=list)
    footprints: list[list[Tensor]] = field(default_factory=list)
    codes: list[list[Tensor]] = field(default_factory=list)

    def flat_codes(self, level: int) -> Tensor:
        """All codes of one level, (code, sample)."""
        codes = [code.flatten(0, 1) for code in self.codes[level]]
        return torch.cat([self.bottleneck if level == 0 else self.bottleneck[:0], *codes])


class Network(nn.Module):
    """MrCAE of the levels fitted so far.

    Parameters
    ----------
    has_data : list of Tensor of bool, shape (variable, y, x)
        For each level that the network will have: what filters of residual groups may read.
    counts : Tensor of bool, shape (variable, y, x)
        Valid pixels of the finest level. A cell exists only if its footprint on the finest grid holds one.
    widening : {"residual", "parallel"}
        Whether a group reads what the level has not yet reconstructed, or the level's input (2.2).
    restriction : {"full_weighting", "injection"}
        What the deepening's encoder starts from.
    activation : {None, "relu"}
        Applied to the codes of groups.
    projection : list of Tensor, shape (variable, y, x), optional
        For each level, weights of its pixels in the sum of squared errors that the codes are to make least; without
        it, codes are what the encoders' filters read.
    anchor : float
        With `projection`: what the weights of levels coarser than the one to reconstruct are multiplied with.
    """

    def __init__(
        self, has_data: list[Tensor], counts: Tensor, *, widening: str, restriction: str,
        activation: str | None = None, dtype: torch.dtype = torch.float32, projection: list[Tensor] | None = None,
        anchor: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.has_data, self.widening, self.restriction = has_data, widening, restriction
        self.activation, self.dtype, self.projection, self.anchor = activation, dtype, projection, anchor
        self._projector: tuple[Any, Projector] | None = None
        self.levels: list[Level] = nn.ModuleList()  # type: ignore[assignment]
        reach = counts
        self.storable: list[Tensor] = []
        for _ in has_data:  # finest first: a cell reaches a valid pixel if a pixel under it does
            reach = torch.nn.functional.max_pool2d(reach.float(), 3, stride=2) > 0
            self.storable.insert(0, reach)

    def shape(self, level: int) -> tuple[int, int]:
        """Rows and columns of a level's grid."""
        return tuple(self.has_data[level].shape[1:])  # type: ignore[return-value]

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return sum(parameter.numel() for parameter in self.parameters())

    def bytes_per_sample(self, level: int) -> int:
        """About what a sample takes on its way through the levels up to one, and back."""
        in_groups = sum((n + 4) * cells for each in self.levels[: level + 1] for n, cells in each.code_sizes)
        return 4 * (6 * sum(has.numel() for has in self.has_data[: level + 1]) + 2 * in_groups)

    def deepen(self, *, noise: float, generator: torch.Generator) -> None:
        """Add a level (2.1)."""
        level = len(self.levels)
        cells = self.storable[level] if level == 0 else torch.ones_like(self.has_data[level - 1])
        self.levels.append(
            Level(Deepening(self.has_data[level], cells, self.restriction, noise, generator, self.dtype,
                            encodes=self.projection is None))
        )  # fmt: skip

    def widen(self, level: int, mask: Tensor, channels: int, *, noise: float, generator: torch.Generator) -> Group:
        """Add a group to a level (2.2); its decoder starts at zero but for the noise."""
        readable = self.has_data[level]
        if self.widening == "parallel":
            readable = torch.ones_like(readable)
        group = Group(
            self.shape(level), mask, readable, channels, noise, generator, self.dtype, self.activation,
            encodes=self.projection is None,
        )  # fmt: skip
        self.levels[level].groups.append(group)
        return group

    def grow(self, groups: Iterable[Iterable[tuple[Any, int]]]) -> None:
        """Add levels with groups of given masks, arrays or tensors, and numbers of filters; weights are to follow."""
        generator = torch.Generator()
        for added in groups:
            self.deepen(noise=0.0, generator=generator)
            for mask, channels in added:
                mask = torch.as_tensor(mask, device=self.has_data[0].device)
                self.widen(len(self.levels) - 1, mask, channels, noise=0.0, generator=generator)

    def remask(self, masks: Sequence[Sequence[Tensor]]) -> None:
        """Let the groups keep their filters but act on other cells; one that is to act nowhere is taken out."""
        self._projector = None
        for k, (level, given) in enumerate(zip(self.levels, masks, strict=True)):
            before, level.groups = level.groups, nn.ModuleList()  # type: ignore[assignment]
            for group, mask in zip(before, given, strict=True):
                if bool(mask.any()):
                    again = self.widen(k, mask, group.channels, noise=0.0, generator=torch.Generator())
                    again.load_state_dict(group.state_dict())

    @torch.no_grad()
    def forward(self, pixels: Tensor, one: Tensor, *, upper_bound: bool = False) -> Pass:
        """Codes and reconstructions of every level up to that of the input.

        Parameters
        ----------
        pixels : Tensor, shape (variable * pixel, sample)
            Samples of the last level so far, or of a coarser one.
        one : Tensor, shape (sample,)
            What biases are multiplied with.
        upper_bound : bool
            Let residual groups read the sum of input and reconstruction: with weights by their absolute values, what
            comes out bounds a sum of absolute values.
        """
        level = next(k for k in range(len(self.levels)) if self.has_data[k].numel() == len(pixels))
        inputs = [pixels]
        for k in range(level, 0, -1):
            inputs.insert(0, self.levels[k].deepening.encode(inputs[0], one))
        if self.projection is not None:
            return self._expand(self.projector(level).codes(inputs, one), one, inputs)
        result = Pass(inputs, self.levels[0].deepening.encode(inputs[0], one))
        field = result.bottleneck
        for k in range(level + 1):
            field = self.levels[k].deepening.decode(field, one)
            result.footprints.append([])
            result.codes.append([])
            for group in self.levels[k].groups:
                footprint = group.read(inputs[k])
                if self.widening == "residual":
                    footprint.add_(group.read(field), alpha=1 if upper_bound else -1)
                code = group.encode(footprint, one)
                field.index_add_(0, group.footprint, group.decode(code, one))
                result.footprints[k].append(footprint)
                result.codes[k].append(code)
            result.outputs.append(field)
        return result

    @torch.no_grad()
    def backward(self, result: Pass, one: Tensor, gradients: dict[int, Tensor]) -> None:
        """Add to the gradients of all parameters, given those by reconstructions, by level, which it uses up."""
        if self.projection is not None:
            self._backward_projected(result, one, gradients)
            return
        last = len(result.outputs) - 1
        residual = self.widening == "residual"
        to_inputs: dict[int, Tensor] = {}
        gradient = gradients[last]
        for k in range(last, -1, -1):
            level = self.levels[k]
            if k < last and level.groups:
                to_inputs[k] = torch.zeros_like(gradient)
            for group, footprint, code in zip(
                reversed(level.groups), reversed(result.footprints[k]), reversed(result.codes[k]), strict=True
            ):
                by_code = group.decode_adjoint(code, one, group.read(gradient))
                by_code = group.encode_adjoint(footprint, one, code, by_code)
                if residual or k in to_inputs:
                    by_footprint = group.encode_transpose(by_code)
                if residual:
                    gradient.index_add_(0, group.footprint, by_footprint, alpha=-1)
                if k in to_inputs:
                    to_inputs[k].index_add_(0, group.footprint, by_footprint)
            cells = result.outputs[k - 1] if k else result.bottleneck
            gradient = level.deepening.decode_adjoint(cells, one, gradient)
            if k - 1 in gradients:
                gradient += gradients[k - 1]
        for k in range(last + 1):
            deepening = self.levels[k].deepening
            deepening.encode_adjoint(result.inputs[k], one, gradient)
            if k < last:
                gradient = deepening.encode_transpose(gradient)
            if k in to_inputs:
                gradient += to_inputs[k]

    @torch.no_grad()
    def decode(self, codes: list[Tensor], one: Tensor) -> Tensor:
        """Reconstruction from the flat codes of the levels 0 to k, each (code, sample), on level k's grid."""
        return self._expand(torch.cat(codes), one, [None] * len(codes)).outputs[-1]

    def _expand(self, codes: Tensor, one: Tensor, inputs: Sequence[Any]) -> Pass:
        """Reconstructions of as many levels as there are inputs, from all their codes, (code, sample)."""
        levels = self.levels[: len(inputs)]
        n_cells = len(self.levels[0].deepening.variable_of_cell)
        sizes = [channels * cells for level in levels for channels, cells in level.code_sizes]
        field, *pieces = codes.split([n_cells, *sizes])
        result = Pass(list(inputs), field)
        for level in levels:
            field = level.deepening.decode(field, one)
            result.codes.append([])
            for group in level.groups:
                code = pieces.pop(0).reshape(group.channels, group.n_cells, -1)
                field.index_add_(0, group.footprint, group.decode(code, one))
                result.codes[-1].append(code)
            result.outputs.append(field)
        return result

    @torch.no_grad()
    def projector(self, level: int) -> Projector:
        """What finds the codes of the levels up to one, with the weights as they are now."""
        assert self.projection is not None
        state = level, *((id(parameter), parameter._version) for parameter in self.parameters())
        known = self._projector
        if known is None or known[0] != state:
            levels = self.levels[: level + 1]
            written = atoms(levels)
            no_codes = torch.zeros(written[-1].shape[1], 1, dtype=self.dtype, device=self.has_data[0].device)
            offsets = self._expand(no_codes, torch.ones_like(no_codes[0]), [None] * len(levels)).outputs
            coarser = [self.anchor * weight for weight in self.projection[:level]]
            self._projector = known = state, Projector(written, [*coarser, self.projection[level]], offsets)
        return known[1]

    def _backward_projected(self, result: Pass, one: Tensor, gradients: dict[int, Tensor]) -> None:
        """As `backward`: reconstructions depend on the decoders' weights directly, and through the codes.

        Codes z solve sum A^T W A z = sum A^T W x. With g the gradients by reconstructions A z and l the solution for
        the right-hand side sum A^T g, the gradient by A is (g - W A l) z^T + W (x - A z) l^T.
        """
        projector = self.projector(len(result.outputs) - 1)
        adjoint = self._expand(projector.adjoint(gradients), torch.zeros_like(one), result.inputs)
        for k, weight in projector.weights.items():
            change = weight * adjoint.outputs[k]
            gradients[k] = gradients[k] - change if k in gradients else -change
        self._decoders_adjoint(result, one, gradients)
        residuals = {k: weight * (result.inputs[k] - result.outputs[k]) for k, weight in projector.weights.items()}
        self._decoders_adjoint(adjoint, torch.zeros_like(one), residuals)

    def _decoders_adjoint(self, result: Pass, one: Tensor, gradients: dict[int, Tensor]) -> None:
        """Add to the gradients of the decoders, codes being given."""
        last = len(result.outputs) - 1
        gradient = gradients[last]
        for k in range(last, -1, -1):
            level = self.levels[k]
            for group, code in zip(level.groups, result.codes[k], strict=True):
                group.decode_adjoint(code, one, group.read(gradient))
            cells = result.outputs[k - 1] if k else result.bottleneck
            gradient = level.deepening.decode_adjoint(cells, one, gradient)
            if k - 1 in gradients:
                gradient += gradients[k - 1]
