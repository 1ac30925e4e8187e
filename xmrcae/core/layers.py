"""What a level is made of: its deepening and the groups that widen it (paper, section 1).

Forward and adjoint are written out one below the other. Fields are tensors (variable * pixel,
sample). A sample is a combination of snapshots; `constant`, (sample,), is the same combination of
ones, and what biases are multiplied with.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from ..stencils import BILINEAR, RESTRICTIONS
from .matrices import coastal_shares, grid_matrix, stencil_entries, stencils
from .operator import Stencil
from .samples import product


def _parameter(values: Tensor, noise: float, generator: torch.Generator) -> nn.Parameter:
    """Make a parameter: start values with uniform noise that does not depend on the device."""
    uniform = torch.rand(values.shape, generator=generator, dtype=torch.float64).to(values) * 2 - 1
    return nn.Parameter(values + noise * uniform)


def _accumulate(parameter: Tensor, gradient: Tensor) -> None:
    gradient = gradient.reshape(parameter.shape)
    parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)


class Deepening(nn.Module):
    """d o f o c of (2.1): one filter down and one up for each variable, variables kept apart.

    The decoder's coarse input is extended by one replicated cell on each side and two fine cells
    are cut off, so that the outermost ring has the full sum of weights, like the inside: bilinear
    prolongation keeps constants everywhere. The encoder reads at the coast as restriction does,
    over the pixels that have data, so that a level added untrained gives the level below it the
    very data that this was trained on.

    Parameters
    ----------
    has_data : Tensor of bool, shape (variable, y, x)
        Where the level has data.
    cells : Tensor of bool, shape (variable, y, x)
        Cells of the encoding grid that exist: all of them but in the bottleneck.
    encodes : bool
        Whether the encoder has weights of its own. If not, it stays the restriction that it would
        start from.
    """

    def __init__(
        self,
        has_data: Tensor,
        cells: Tensor,
        restriction: str,
        noise: float,
        generator: torch.Generator,
        dtype: torch.dtype,
        *,
        encodes: bool,
    ) -> None:
        super().__init__()
        shape = (has_data.shape[1], has_data.shape[2])
        self.cells: Tensor
        self.register_buffer("cells", cells, persistent=False)
        variables, n_pixels, device = len(cells), shape[0] * shape[1], cells.device
        self.variable_of_cell = cells.nonzero()[:, 0]
        self.variable_of_pixel = torch.arange(variables, device=device).repeat_interleave(n_pixels)
        shares = coastal_shares(has_data, RESTRICTIONS[restriction]).to(dtype)
        self.encoder_matrix = grid_matrix(shape, cells, margin=0, factors=shares)
        self.decoder_matrix = grid_matrix(shape, cells, margin=1)

        def start(stencil: np.ndarray) -> Tensor:
            return torch.as_tensor(np.tile(stencil.ravel(), variables), dtype=dtype, device=device)

        zeros = torch.zeros(variables, dtype=dtype, device=device)
        self.encoder_weight: Tensor
        self.encoder_bias: Tensor
        if encodes:
            self.encoder_weight = _parameter(start(RESTRICTIONS[restriction]), noise, generator)
            self.encoder_bias = _parameter(zeros, noise, generator)
        else:
            weight = start(RESTRICTIONS[restriction])
            self.register_buffer("encoder_weight", weight, persistent=False)
            self.register_buffer("encoder_bias", zeros, persistent=False)
        self.decoder_weight = _parameter(start(BILINEAR), noise, generator)
        self.decoder_bias = _parameter(zeros, noise, generator)

    def encode(self, fine: Tensor, constant: Tensor) -> Tensor:
        """Apply C: (pixel, sample) to (cell, sample)."""
        cells = self.encoder_matrix.gather(self.encoder_weight[None], fine)[0]
        return cells.addr_(self.encoder_bias.index_select(0, self.variable_of_cell), constant)

    def encode_adjoint(self, fine: Tensor, constant: Tensor, gradient: Tensor) -> None:
        """Add to the gradients of C."""
        matrix, bias = self.encoder_matrix, self.encoder_bias
        _accumulate(self.encoder_weight, matrix.weight_gradient(gradient[None], fine))
        by_cell = matrix.along_samples(gradient, constant)
        _accumulate(bias, matrix.sum_by(by_cell, self.variable_of_cell, len(bias)))

    def encode_transpose(self, cells: Tensor) -> Tensor:
        """Apply C^T to the gradient with respect to cells; return that with respect to pixels."""
        return self.encoder_matrix.scatter(self.encoder_weight[None], cells[None])

    def decode(self, cells: Tensor, constant: Tensor) -> Tensor:
        """Apply D: (cell, sample) to (pixel, sample)."""
        bias = self.decoder_bias.index_select(0, self.variable_of_pixel)
        weight = self.decoder_weight[None]
        return self.decoder_matrix.scatter(weight, cells[None], bias=(bias, constant))

    def decode_adjoint(self, cells: Tensor, constant: Tensor, gradient: Tensor) -> Tensor:
        """Add to the gradients of D; return the gradient with respect to its input."""
        by_weight, by_pixel, by_cell = self.decoder_matrix.scatter_adjoint(
            self.decoder_weight[None],
            cells[None],
            constant,
            gradient,
        )
        _accumulate(self.decoder_weight, by_weight)
        _accumulate(self.decoder_bias, by_pixel.reshape(len(self.decoder_bias), -1).sum(1))
        return by_cell[0]


class Group(nn.Module):
    """w of (2.2): filters on the active cells of a mask.

    They change, bias too, only the group's footprint: the pixels under the active cells.

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
    encodes : bool
        Whether the group has encoders: not where codes are found by projection.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        mask: Tensor,
        readable: Tensor,
        channels: int,
        noise: float,
        generator: torch.Generator,
        dtype: torch.dtype,
        activation: str | None,
        *,
        encodes: bool,
    ) -> None:
        super().__init__()
        self.mask: Tensor
        self.register_buffer("mask", mask, persistent=False)
        self.activation = activation
        variables, device = len(readable), mask.device
        n_pixels = shape[0] * shape[1]
        active = mask.nonzero()
        pixels = stencil_entries(active, shape)
        # (cell, variable * tap); under an active cell, all of them are on the grid
        pixels = torch.cat([pixels + v * n_pixels for v in range(variables)], 1)
        self.footprint, local = torch.unique(pixels, return_inverse=True)
        self.variable_of_pixel = self.footprint // n_pixels
        rows = torch.arange(len(active), device=device)[:, None].expand(pixels.shape)
        taps = torch.arange(9 * variables, device=device).expand(pixels.shape)
        size = (len(active), len(self.footprint))

        def matrix(keep: Tensor) -> Stencil:
            entries = rows[keep], local[keep], taps[keep]
            return stencils(device.type)(*entries, size, 9 * variables)

        self.encoder_matrix = matrix(readable.reshape(-1)[pixels])
        self.decoder_matrix = matrix(torch.ones_like(pixels, dtype=torch.bool))
        zeros = torch.zeros(channels, 9 * variables, dtype=dtype, device=device)
        self.encodes = encodes
        if encodes:
            self.encoder_weight = _parameter(zeros, noise, generator)
            self.encoder_bias = _parameter(zeros[:, 0], noise, generator)
        self.decoder_weight = _parameter(zeros, noise, generator)
        bias = torch.zeros(variables, dtype=dtype, device=device)
        self.decoder_bias = _parameter(bias, noise, generator)

    @property
    def channels(self) -> int:
        """Number of filters."""
        return len(self.decoder_weight)

    @property
    def n_cells(self) -> int:
        """Number of active cells."""
        return self.encoder_matrix.shape[0]

    def read(self, pixels: Tensor, other: Tensor | None = None) -> Tensor:
        """Copy the rows of a field under active cells, minus those of another one."""
        return self.encoder_matrix.read(pixels, self.footprint, other)

    @torch.no_grad()
    def directions(self, blocks: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """Find what tells most of the residual around active cells, strongest first.

        These are the leading directions, (direction, tap), of the regression of 3x3 patches of the
        residual on patches of what the filters read; where they read the residual itself, the
        leading singular vectors of its patches.

        Parameters
        ----------
        blocks : iterable of pairs of Tensor, shape (footprint, sample)
            What the filters read, and what the level has not yet reconstructed, for some samples
            each.
        """
        weight = self.decoder_weight
        taps = torch.eye(self.encoder_matrix.n_taps, dtype=weight.dtype, device=weight.device)
        size = 2, len(taps), len(taps)
        variance, covariance = torch.zeros(size, dtype=torch.float64, device=weight.device)
        for read, residual in blocks:
            for pair in zip(read.split(8, dim=1), residual.split(8, dim=1), strict=True):
                codes = [self.encoder_matrix.gather(taps, part) for part in pair]
                patches, targets = (code.flatten(1) for code in codes)  # (tap, cell * sample)
                variance += product(patches, patches.T).double()
                covariance += product(targets, patches.T).double()
        variance, covariance = variance.cpu(), covariance.cpu()  # too small for a GPU
        values, vectors = torch.linalg.eigh(variance)
        whitening = vectors / values.clamp_min(values[-1] * 1e-6 + 1e-30).sqrt()
        directions = torch.linalg.svd(covariance @ whitening)[2] @ whitening.T
        directions /= directions.norm(dim=1, keepdim=True).clamp_min(1e-30)
        directions *= torch.sign(directions.gather(1, directions.abs().argmax(1, keepdim=True)))
        return directions.to(weight)

    @torch.no_grad()
    def start_from(self, directions: Tensor) -> None:
        """Let the encoder, or without one the decoder, start from (direction, tap)."""
        weight = self.encoder_weight if self.encodes else self.decoder_weight
        weight[: len(directions)] = directions[: len(weight)]

    def encode(self, footprint: Tensor, constant: Tensor) -> Tensor:
        """Apply M C: (footprint, sample) to (channel, cell, sample)."""
        code = self.encoder_matrix.gather(self.encoder_weight, footprint)
        code += self.encoder_bias[:, None, None] * constant
        return code.relu_() if self.activation == "relu" else code

    def encode_adjoint(
        self,
        footprint: Tensor,
        constant: Tensor,
        code: Tensor,
        gradient: Tensor,
    ) -> Tensor:
        """Add to the gradients of M C; return the gradient before the activation."""
        if self.activation == "relu":
            gradient = gradient * (code > 0)
        matrix = self.encoder_matrix
        _accumulate(self.encoder_weight, matrix.weight_gradient(gradient, footprint))
        _accumulate(self.encoder_bias, matrix.along_samples(gradient, constant).sum(1))
        return gradient

    def encode_transpose(self, code: Tensor, field: Tensor, *, sign: int = 1) -> None:
        """Apply (M C)^T to the gradient with respect to codes; add it to a field, or subtract it.

        What is added is the gradient with respect to pixels.
        """
        weight, rows = self.encoder_weight, self.footprint
        self.encoder_matrix.scatter(weight, code, into=field, rows=rows, sign=sign)

    def decode(self, code: Tensor, constant: Tensor, field: Tensor) -> None:
        """Apply D: add what a code (channel, cell, sample) decodes to, to (pixel, sample)."""
        bias = self.decoder_bias.index_select(0, self.variable_of_pixel), constant
        weight, rows = self.decoder_weight, self.footprint
        self.decoder_matrix.scatter(weight, code, bias=bias, into=field, rows=rows)

    def decode_adjoint(self, code: Tensor, constant: Tensor, gradient: Tensor) -> Tensor:
        """Add to the gradients of D; return the gradient with respect to its input.

        `gradient` is that with respect to the field.
        """
        matrix, bias = self.decoder_matrix, self.decoder_bias
        by_weight, by_pixel, by_code = matrix.scatter_adjoint(
            self.decoder_weight,
            code,
            constant,
            gradient,
            rows=self.footprint,
        )
        _accumulate(self.decoder_weight, by_weight)
        _accumulate(bias, matrix.sum_by(by_pixel, self.variable_of_pixel, len(bias)))
        return by_code
