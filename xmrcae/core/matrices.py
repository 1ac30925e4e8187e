"""Stencils of stride 2 as sparse matrices.

A filter of 3x3 weights acts between the pixels of a level and the cells of its encoding grid.
Written as a sparse matrix A(w), the filter reads cells = A(w) pixels, its transposed convolution
writes pixels = A(w)^T cells, and the derivative with respect to w is a sampled product of the two.
Rows exist for active cells only, so cost follows the active cells. Fields lie along the first axis
and samples along the second, which makes every product one pass over memory.
"""

from __future__ import annotations

import logging
import warnings
from functools import cache

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..stencils import BILINEAR
from .operator import Stencil
from .tables import StencilTables

log = logging.getLogger("xmrcae")

# torch warns once per process that CSR is in beta: make it do so here, where nobody sees it.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(
        torch.tensor([0, 1]),
        torch.tensor([0]),
        torch.ones(1),
        (1, 1),
        check_invariants=True,
    )


def _row_pointers(rows: Tensor, n_rows: int) -> Tensor:
    pointers = torch.zeros(n_rows + 1, dtype=torch.int64, device=rows.device)
    pointers[1:] = torch.bincount(rows, minlength=n_rows).cumsum(0)
    return pointers.int()


def _csr(pointers: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(pointers, columns, values, shape, check_invariants=False)


class StencilMatrix(Stencil):
    """A stencil by sparse matrices."""

    def __init__(
        self,
        cells: Tensor,
        pixels: Tensor,
        taps: Tensor,
        shape: tuple[int, int],
        n_taps: int,
        factors: Tensor | None = None,
    ) -> None:
        self.shape, self.n_taps = shape, n_taps
        by_cell = torch.argsort(cells * shape[1] + pixels, stable=True)
        self._taps = taps[by_cell].int()
        self._cell_pointers = _row_pointers(cells, shape[0])
        self._pixels = pixels[by_cell].int()
        by_pixel = torch.argsort(pixels * shape[0] + cells, stable=True)
        self._taps_by_pixel = taps[by_pixel].int()
        self._pixel_pointers = _row_pointers(pixels, shape[1])
        self._cells = cells[by_pixel].int()
        self._tap_pointers = _row_pointers(taps, n_taps)
        self._entries_by_tap = torch.argsort(self._taps, stable=True).int()
        self._factors = None if factors is None else factors[by_cell]
        self._factors_by_pixel = None if factors is None else factors[by_pixel]

    def gather(self, weights: Tensor, pixels: Tensor) -> Tensor:
        """Compute A(w) pixels, (channel, cell, sample)."""
        cells = []
        for channel in weights:
            values = channel.index_select(0, self._taps)
            if self._factors is not None:
                values *= self._factors
            cells.append(_csr(self._cell_pointers, self._pixels, values, self.shape) @ pixels)
        return _stacked(cells)

    def scatter(
        self,
        weights: Tensor,
        cells: Tensor,
        *,
        bias: tuple[Tensor, Tensor] | None = None,
        into: Tensor | None = None,
        rows: Tensor | None = None,
        sign: int = 1,
    ) -> Tensor:
        """Compute A(w)^T cells, (pixel, sample), or add it to rows of a field in place."""
        total = self._transposed(weights[0], cells[0])
        for channel, values in zip(weights[1:], cells[1:], strict=True):
            total += self._transposed(channel, values)
        if bias is not None:
            total.addr_(*bias)
        if into is None:
            return total
        assert rows is not None
        return into.index_add_(0, rows, total, alpha=sign)

    def _transposed(self, weights: Tensor, cells: Tensor) -> Tensor:
        pointers, columns = self._pixel_pointers, self._cells
        return _csr(pointers, columns, self._by_pixel(weights), self.shape[::-1]) @ cells

    def _by_pixel(self, weights: Tensor) -> Tensor:
        values = weights.index_select(0, self._taps_by_pixel)
        if self._factors_by_pixel is not None:
            values *= self._factors_by_pixel
        return values

    def scattering(self, weights: Tensor) -> sp.csr_array:
        """Return A(w)^T itself, for weights (tap,), as (pixel, cell), in float64 on the host."""
        parts = (self._by_pixel(weights).detach().double(), self._cells, self._pixel_pointers)
        return sp.csr_array(tuple(part.numpy() for part in parts), shape=self.shape[::-1])

    def weight_gradient(self, cells: Tensor, pixels: Tensor) -> Tensor:
        """Compute the derivative of <cells, A(w) pixels> with respect to w, (channel, tap)."""
        return _stacked([self._weight_gradient(channel, pixels) for channel in cells])

    def _weight_gradient(self, cells: Tensor, pixels: Tensor) -> Tensor:
        zeros = torch.zeros(len(self._taps), dtype=cells.dtype, device=cells.device)
        pattern = _csr(self._cell_pointers, self._pixels, zeros, self.shape)
        if len(zeros) <= self.shape[0] * self.shape[1]:
            products = torch.sparse.sampled_addmm(pattern, cells, pixels.t(), beta=0.0).values()
        else:  # a bottleneck of one cell and its replicas: torch refuses several entries per place
            rows = torch.repeat_interleave(self._cell_pointers.diff())
            products = (cells @ pixels.t())[rows, self._pixels.long()]
        if self._factors is not None:
            products *= self._factors
        ones = torch.ones_like(products)
        size = (self.n_taps, len(products))
        return _csr(self._tap_pointers, self._entries_by_tap, ones, size) @ products

    @staticmethod
    def along_samples(fields: Tensor, vector: Tensor) -> Tensor:
        """Compute the scalar products of rows (..., sample) with a vector (sample,)."""
        return fields @ vector

    @staticmethod
    def squares(fields: Tensor, others: Tensor, *, into: Tensor | None = None) -> Tensor:
        """Sum the squares of differences of fields (row, sample) over samples, (row,)."""
        differences = torch.sub(fields, others, out=into)
        return torch.linalg.vecdot(differences, differences)

    @staticmethod
    def sum_by(values: Tensor, groups: Tensor, n_groups: int) -> Tensor:
        """Sum values (row,) by the group of each row, (group,)."""
        return values.new_zeros(n_groups).index_add_(0, groups, values)


def _stacked(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts) if len(parts) > 1 else parts[0][None]


@cache
def stencils(device_type: str) -> type[StencilMatrix | StencilTables]:
    """Choose what computes the products of stencils on a kind of device.

    Sparse matrices do on a CPU. On a GPU they may add in any order, and so give other bits each
    time: there kernels take their place, or torch's index arithmetic where Triton is missing,
    older than 3.2, or without a C compiler.
    """
    if device_type != "cuda":
        return StencilMatrix
    try:
        from .kernels import StencilKernels, try_out

        try_out(device_type)
    except Exception as error:  # of whatever kind: torch alone gives as good a result
        log.warning(
            "Triton cannot be used (%s): filters are computed by torch alone, which is much "
            "slower. To mend it, install a C compiler, and triton in the version that this torch "
            "(%s) asks for",
            error,
            torch.__version__,
        )
        return StencilTables
    return StencilKernels


def stencil_entries(cells: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the pixels under the 3x3 stencil of each cell.

    Parameters
    ----------
    cells : Tensor of int64, shape (cell, 2)
        Row and column on the encoding grid; -1 and the first index beyond it are cells outside.
    shape : (int, int)
        Size of the pixel grid.

    Returns
    -------
    Tensor of int64, shape (cell, 9)
        Flat index of each pixel, -1 where it falls off the grid.
    """
    offsets = torch.arange(3, device=cells.device)
    rows = (2 * cells[:, 0, None] + offsets)[:, :, None]
    columns = (2 * cells[:, 1, None] + offsets)[:, None, :]
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    return torch.where(inside, rows * shape[1] + columns, -1).reshape(-1, 9)


def grid_matrix(
    shape: tuple[int, int],
    cells: Tensor,
    *,
    margin: int,
    factors: Tensor | None = None,
) -> Stencil:
    """Make the operator of one 3x3 filter per variable over a whole grid, variables kept apart.

    Parameters
    ----------
    shape : (int, int)
        Size of the pixel grid.
    cells : Tensor of bool, shape (variable, y, x)
        Cells that exist; only these have a row.
    margin : {0, 1}
        1 continues the cells by one replicated cell on each side, so that the outermost ring
        of a transposed convolution has the full sum of weights, like the inside.
    factors : Tensor, shape (variable, cell, 9), optional
        What the weights of each cell are multiplied with, without a margin.
    """
    variables, rows, columns = cells.shape
    n_pixels, n_cells, device = shape[0] * shape[1], int(cells.sum()), cells.device
    position = torch.full(cells.shape, -1, dtype=torch.int64, device=device)
    position[cells] = torch.arange(n_cells, device=device)
    sides = (torch.arange(-margin, n + margin, device=device) for n in (rows, columns))
    extended = torch.cartesian_prod(*sides)
    row, column = extended[:, 0].clamp(0, rows - 1), extended[:, 1].clamp(0, columns - 1)
    source = position[:, row, column][:, :, None]
    entries = stencil_entries(extended, shape)
    variable = torch.arange(variables, device=device)[:, None, None]
    keep = (source >= 0) & (entries >= 0)
    pixels = (entries + variable * n_pixels)[keep]
    taps = (torch.arange(9, device=device) + variable * 9).expand(keep.shape)[keep]
    size = (n_cells, variables * n_pixels)
    kept = None if factors is None else factors[keep]
    of_cell = source.expand(keep.shape)[keep]
    return stencils(device.type)(of_cell, pixels, taps, size, variables * 9, kept)


def encoding_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Return the size of a level's encoding grid: by a 3x3 filter of stride 2, no padding."""
    return (shape[0] - 1) // 2, (shape[1] - 1) // 2


def coastal_shares(has_data: Tensor, stencil: np.ndarray) -> Tensor:
    """Return the factors by which coastal cells change a filter's nine weights.

    Their shape is (variable, cell, 9).

    Where some of the nine pixels have data, the others are left out, and what is left is divided
    by its share of the restriction's weights. Where none has, the filter reads what stands there.
    """
    variables, *shape = has_data.shape
    rows, columns = encoding_shape((shape[0], shape[1]))
    cells = torch.cartesian_prod(
        torch.arange(rows, device=has_data.device), torch.arange(columns, device=has_data.device)
    )
    entries = stencil_entries(cells, (shape[0], shape[1]))
    under = has_data.reshape(variables, -1)[:, entries].double()
    share = under @ torch.as_tensor(stencil.ravel(), dtype=torch.float64, device=has_data.device)
    return torch.where(share[..., None] > 0, under / share.clamp_min(1e-9)[..., None], 1.0)


class Prolongation:
    """Bilinear interpolation of a level onto the next finer one (A.2), without parameters.

    At the border the coarse field is continued by one replicated cell. Where some of the coarse
    cells that a valid pixel would read have no data (under injection), the weights of the others
    are divided by their sum.

    Parameters
    ----------
    coarse, fine : Tensor of bool, shape (variable, y, x)
        Cells and pixels with data.
    """

    def __init__(self, coarse: Tensor, fine: Tensor, dtype: torch.dtype) -> None:
        shape = (fine.shape[1], fine.shape[2])
        self._matrix = grid_matrix(shape, torch.ones_like(coarse), margin=1)
        weights = torch.as_tensor(BILINEAR.ravel(), dtype=dtype, device=fine.device)
        self._weights = weights.repeat(len(fine))[None]
        self._coarse = coarse.reshape(-1, 1).to(dtype)
        share = self._matrix.scatter(self._weights, self._coarse[None])
        partial = (share > 0) & (share < 1) & fine.reshape(-1, 1)
        self._partial = partial[:, 0].nonzero()[:, 0]
        self._share = share[self._partial]

    def __call__(self, cells: Tensor) -> Tensor:
        """Prolong (variable * cell, sample) to (variable * pixel, sample)."""
        fine = self._matrix.scatter(self._weights, cells[None])
        if len(self._partial):
            known = self._matrix.scatter(self._weights, (cells * self._coarse)[None])
            fine[self._partial] = known[self._partial] / self._share
        return fine
