"""The multi-resolution autoencoder: levels, groups, masks (paper, section 1).

The network is a straight line of products with sparse matrices, so forward and adjoint are written out one below the
other. Fields are tensors (variable * pixel, sample) without padding left to do. A level's encoding grid is the grid of
the level below it; level 0's is the bottleneck's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..stencils import BILINEAR, RESTRICTIONS
from .matrices import StencilMatrix, coastal_shares, grid_matrix, stencil_entries


def _parameter(values: Tensor, noise: float, generator: torch.Generator) -> nn.Parameter:
    """Start values, with uniform noise in [-noise, noise] that does not depend on the device."""
    uniform = torch.rand(values.shape, generator=generator, dtype=torch.float64).to(values) * 2 - 1
    return nn.Parameter(values + noise * uniform)


def _accumulate(parameter: nn.Parameter, gradient: Tensor) -> None:
    gradient = gradient.reshape(parameter.shape)
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


class Deepening(nn.Module):
    """d o f o c of (2.1): one filter down and one up for each variable, variables kept apart.

    The decoder's coarse input is extended by one replicated cell on each side and two fine cells are cut off, so
    that its outermost ring gets what the inside gets: bilinear prolongation keeps constants everywhere. The encoder
    reads at the coast as restriction does, over the pixels that have data, so that a level added untrained hands the
    level below it the very data that this was trained on.

    Parameters
    ----------
    has_data : Tensor of bool, shape (variable, y, x)
        Where the level has data.
    cells : Tensor of bool, shape (variable, y, x)
        Cells of the encoding grid that exist: all of them but in the bottleneck.
    """

    def __init__(
        self, has_data: Tensor, cells: Tensor, restriction: str, noise: float, generator: torch.Generator,
        dtype: torch.dtype,
    ) -> None:  # fmt: skip
        super().__init__()
        shape = (has_data.shape[1], has_data.shape[2])
        self.cells: Tensor
        self.register_buffer("cells", cells, persistent=False)
        variables, n_pixels, device = len(cells), shape[0] * shape[1], cells.device
        self.variable_of_cell = cells.nonzero()[:, 0]
        self.variable_of_pixel = torch.arange(variables, device=device).repeat_interleave(n_pixels)
        self.encoder_matrix = grid_matrix(
            shape, cells, margin=0, factors=coastal_shares(has_data, RESTRICTIONS[restriction]).to(dtype)
        )
        self.decoder_matrix = grid_matrix(shape, cells, margin=1)

        def start(stencil: np.ndarray) -> Tensor:
            return torch.as_tensor(np.tile(stencil.ravel(), variables), dtype=dtype, device=device)

        zeros = torch.zeros(variables, dtype=dtype, device=device)
        self.encoder_weight = _parameter(start(RESTRICTIONS[restriction]), noise, generator)
        self.encoder_bias = _parameter(zeros, noise, generator)
        self.decoder_weight = _parameter(start(BILINEAR), noise, generator)
        self.decoder_bias = _parameter(zeros, noise, generator)

    def encode(self, fine: Tensor, one: Tensor) -> Tensor:
        """C: (pixel, sample) to (cell, sample)."""
        cells = self.encoder_matrix.gather(self.encoder_weight, fine)
        return cells.addr_(self.encoder_bias.index_select(0, self.variable_of_cell), one)

    def encode_adjoint(self, fine: Tensor, one: Tensor, gradient: Tensor) -> None:
        """Add to the gradients of C."""
        _accumulate(self.encoder_weight, self.encoder_matrix.weight_gradient(gradient, fine))
        _accumulate(self.encoder_bias, torch.zeros_like(self.encoder_bias).index_add_(
            0, self.variable_of_cell, gradient @ one))  # fmt: skip

    def encode_transpose(self, cells: Tensor) -> Tensor:
        """C^T: from the gradient by the cells to that by the pixels."""
        return self.encoder_matrix.scatter(self.encoder_weight, cells)

    def decode(self, cells: Tensor, one: Tensor) -> Tensor:
        """D: (cell, sample) to (pixel, sample)."""
        fine = self.decoder_matrix.scatter(self.decoder_weight, cells)
        return fine.addr_(self.decoder_bias.index_select(0, self.variable_of_pixel), one)

    def decode_adjoint(self, cells: Tensor, one: Tensor, gradient: Tensor) -> Tensor:
        """Add to the gradients of D; hand on the gradient by its input."""
        _accumulate(self.decoder_weight, self.decoder_matrix.weight_gradient(cells, gradient))
        _accumulate(self.decoder_bias, (gradient @ one).reshape(len(self.decoder_bias), -1).sum(1))
        return self.decoder_matrix.gather(self.decoder_weight, gradient)


class Group(nn.Module):
    """w of (2.2): filters that act on the active cells of their mask, and, bias too, on the pixels under those only.

    Parameters
    ----------
    shape : (int, int)
        Size of the level.
    mask : Tensor of bool, shape (y, x)
        The refinement mask on the level's encoding grid.
    readable : Tensor of bool, shape (variable, y, x)
        Pixels that the filters may read.
    channels : int
        Number of filters.
    """

    def __init__(
        self, shape: tuple[int, int], mask: Tensor, readable: Tensor, channels: int, noise: float,
        generator: torch.Generator, dtype: torch.dtype, activation: str | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask, persistent=False)
        self.activation = activation
        variables, device = len(readable), mask.device
        n_pixels = shape[0] * shape[1]
        active = mask.nonzero()
        pixels = stencil_entries(active, shape)
        pixels = torch.cat([pixels + v * n_pixels for v in range(variables)], 1)  # (cell, tap), all on the grid
        self.footprint, local = torch.unique(pixels, return_inverse=True)
        self.variable_of_pixel = self.footprint // n_pixels
        rows = torch.arange(len(active), device=device)[:, None].expand(pixels.shape)
        taps = torch.arange(9 * variables, device=device).expand(pixels.shape)
        size = (len(active), len(self.footprint))

        def matrix(keep: Tensor) -> StencilMatrix:
            return StencilMatrix(rows[keep], local[keep], taps[keep], size, 9 * variables)

        self.encoder_matrix = matrix(readable.reshape(-1)[pixels])
        self.decoder_matrix = matrix(torch.ones_like(pixels, dtype=torch.bool))
        zeros = torch.zeros(channels, 9 * variables, dtype=dtype, device=device)
        self.encoder_weight = _parameter(zeros, noise, generator)
        self.encoder_bias = _parameter(zeros[:, 0], noise, generator)
        self.decoder_weight = _parameter(zeros, noise, generator)
        self.decoder_bias = _parameter(torch.zeros(variables, dtype=dtype, device=device), noise, generator)

    @property
    def channels(self) -> int:
        """Number of filters."""
        return len(self.encoder_weight)

    @property
    def n_cells(self) -> int:
        """Number of active cells."""
        return self.encoder_matrix.shape[0]

    def read(self, pixels: Tensor) -> Tensor:
        """The rows of a field that lie under active cells."""
        return pixels.index_select(0, self.footprint)

    @torch.no_grad()
    def start_from(self, blocks: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Let the encoder read what tells most, linearly, of the residual around each active cell.

        These are the leading directions of the regression of 3x3 patches of the residual on patches of what the
        filters read; where they read the residual itself, the leading singular vectors of its patches.

        Parameters
        ----------
        blocks : iterable of pairs of Tensor, shape (footprint, sample)
            What the filters read, and what the level has not yet reconstructed, for some samples each.
        """
        weight = self.encoder_weight
        taps = torch.eye(self.encoder_matrix.n_taps, dtype=weight.dtype, device=weight.device)
        variance, covariance = torch.zeros(2, len(taps), len(taps), dtype=torch.float64, device=weight.device)
        for read, residual in blocks:
            for pair in zip(read.split(8, dim=1), residual.split(8, dim=1), strict=True):
                patches, targets = (
                    torch.stack([self.encoder_matrix.gather(tap, part).reshape(-1) for tap in taps]) for part in pair
                )
                variance += (patches @ patches.T).double()
                covariance += (targets @ patches.T).double()
        values, vectors = torch.linalg.eigh(variance)
        whitening = vectors / values.clamp_min(values[-1] * 1e-6 + 1e-30).sqrt()
        directions = torch.linalg.svd(covariance @ whitening)[2][: self.channels] @ whitening.T
        directions /= directions.norm(dim=1, keepdim=True).clamp_min(1e-30)
        directions *= torch.sign(directions.gather(1, directions.abs().argmax(1, keepdim=True)))
        weight[: len(directions)] = directions.to(weight.dtype)

    def encode(self, footprint: Tensor, one: Tensor) -> Tensor:
        """M C: (footprint, sample) to (channel, cell, sample)."""
        code = torch.stack([self.encoder_matrix.gather(weight, footprint) for weight in self.encoder_weight])
        code += self.encoder_bias[:, None, None] * one
        return code.relu_() if self.activation == "relu" else code

    def encode_adjoint(self, footprint: Tensor, one: Tensor, code: Tensor, gradient: Tensor) -> Tensor:
        """Add to the gradients of M C; hand on the gradient before the activation."""
        if self.activation == "relu":
            gradient = gradient * (code > 0)
        weight = [self.encoder_matrix.weight_gradient(channel, footprint) for channel in gradient]
        _accumulate(self.encoder_weight, torch.stack(weight))
        _accumulate(self.encoder_bias, (gradient @ one).sum(1))
        return gradient

    def encode_transpose(self, code: Tensor) -> Tensor:
        """(M C)^T: from the gradient by the codes to that by the footprint."""
        return self._sum(self.encoder_matrix, self.encoder_weight, code)

    def decode(self, code: Tensor, one: Tensor) -> Tensor:
        """D: (channel, cell, sample) to (footprint, sample)."""
        footprint = self._sum(self.decoder_matrix, self.decoder_weight, code)
        return footprint.addr_(self.decoder_bias.index_select(0, self.variable_of_pixel), one)

    def decode_adjoint(self, code: Tensor, one: Tensor, gradient: Tensor) -> Tensor:
        """Add to the gradients of D; hand on the gradient by its input."""
        weight = [self.decoder_matrix.weight_gradient(channel, gradient) for channel in code]
        _accumulate(self.decoder_weight, torch.stack(weight))
        _accumulate(self.decoder_bias, torch.zeros_like(self.decoder_bias).index_add_(
            0, self.variable_of_pixel, gradient @ one))  # fmt: skip
        return torch.stack([self.decoder_matrix.gather(weight, gradient) for weight in self.decoder_weight])

    @staticmethod
    def _sum(matrix: StencilMatrix, weights: Tensor, cells: Tensor) -> Tensor:
        total = matrix.scatter(weights[0], cells[0])
        for weight, channel in zip(weights[1:], cells[1:], strict=True):
            total += matrix.scatter(weight, channel)
        return total


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
    """

    def __init__(
        self, has_data: list[Tensor], counts: Tensor, *, widening: str, restriction: str,
        activation: str | None = None, dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        super().__init__()
        self.has_data, self.widening, self.restriction = has_data, widening, restriction
        self.activation, self.dtype = activation, dtype
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
            Level(Deepening(self.has_data[level], cells, self.restriction, noise, generator, self.dtype))
        )

    def widen(self, level: int, mask: Tensor, channels: int, *, noise: float, generator: torch.Generator) -> Group:
        """Add a group to a level (2.2); its decoder starts at zero but for the noise."""
        readable = self.has_data[level]
        if self.widening == "parallel":
            readable = torch.ones_like(readable)
        group = Group(self.shape(level), mask, readable, channels, noise, generator, self.dtype, self.activation)
        self.levels[level].groups.append(group)
        return group

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
        split = [len(self.levels[0].deepening.variable_of_cell)]
        field, codes = codes[0][: split[0]], [codes[0][split[0] :], *codes[1:]]
        for level, flat in zip(self.levels, codes, strict=False):
            field = level.deepening.decode(field, one)
            pieces = flat.split([channels * cells for channels, cells in level.code_sizes])
            for group, piece in zip(level.groups, pieces, strict=True):
                code = piece.reshape(group.channels, group.n_cells, -1)
                field.index_add_(0, group.footprint, group.decode(code, one))
        return field
