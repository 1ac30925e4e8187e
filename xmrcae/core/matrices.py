"""Stencils of stride 2 as sparse matrices.

A filter of 3x3 weights acts between the pixels of a level and the cells of its encoding grid. Written as a sparse
matrix A(w), the filter reads cells = A(w) pixels, its transposed convolution writes pixels = A(w)^T cells, and the
derivative by w is a sampled product of the two. Rows exist for active cells only, so cost follows the active cells.
Fields lie along the first axis and samples along the second, which makes every product one pass over memory.
"""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ..handover import BILINEAR

with warnings.catch_warnings():  # torch says once a process that CSR is in beta: let it say so here, unheard
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1), check_invariants=True)


def _row_pointers(rows: Tensor, n_rows: int) -> Tensor:
    pointers = torch.zeros(n_rows + 1, dtype=torch.int64, device=rows.device)
    pointers[1:] = torch.bincount(rows, minlength=n_rows).cumsum(0)
    return pointers.int()


def _csr(pointers: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(pointers, columns, values, shape, check_invariants=False)


class StencilMatrix:
    """The matrix A(w) whose entry (cell, pixel) is the weight of one tap.

    Parameters
    ----------
    cells, pixels, taps : Tensor of int64, shape (entry,)
        Row, column and index of the weight of every entry.
    shape : (int, int)
        Number of cells and of pixels.
    n_taps : int
        Number of weights.
    factors : Tensor, shape (entry,), optional
        What the weight of every entry is multiplied with; 1 by default.
    """

    def __init__(
        self, cells: Tensor, pixels: Tensor, taps: Tensor, shape: tuple[int, int], n_taps: int,
        factors: Tensor | None = None,
    ) -> None:  # fmt: skip
        self.shape, self.n_taps = shape, n_taps
        by_cell = torch.argsort(cells * shape[1] + pixels, stable=True)
        self._taps = taps[by_cell]
        self._cell_pointers = _row_pointers(cells, shape[0])
        self._pixels = pixels[by_cell].int()
        by_pixel = torch.argsort(pixels * shape[0] + cells, stable=True)
        self._taps_by_pixel = taps[by_pixel]
        self._pixel_pointers = _row_pointers(pixels, shape[1])
        self._cells = cells[by_pixel].int()
        self._tap_pointers = _row_pointers(taps, n_taps)
        self._entries_by_tap = torch.argsort(self._taps, stable=True).int()
        self._factors = None if factors is None else factors[by_cell]
        self._factors_by_pixel = None if factors is None else factors[by_pixel]

    def gather(self, weights: Tensor, pixels: Tensor) -> Tensor:
        """A(w) pixels: the convolution, (pixel, sample) to (cell, sample)."""
        values = weights.index_select(0, self._taps)
        if self._factors is not None:
            values *= self._factors
        return _csr(self._cell_pointers, self._pixels, values, self.shape) @ pixels

    def scatter(self, weights: Tensor, cells: Tensor) -> Tensor:
        """A(w)^T cells: the transposed convolution, (cell, sample) to (pixel, sample)."""
        values = weights.index_select(0, self._taps_by_pixel)
        if self._factors_by_pixel is not None:
            values *= self._factors_by_pixel
        matrix = _csr(self._pixel_pointers, self._cells, values, (self.shape[1], self.shape[0]))
        return matrix @ cells

    def scattering(self, weights: Tensor) -> sp.csr_array:
        """A(w)^T itself, (pixel, cell), in float64 on the host."""
        values = weights.index_select(0, self._taps_by_pixel)
        if self._factors_by_pixel is not None:
            values *= self._factors_by_pixel
        parts = (values.detach().double(), self._cells, self._pixel_pointers)
        return sp.csr_array(tuple(part.cpu().numpy() for part in parts), shape=(self.shape[1], self.shape[0]))

    def weight_gradient(self, cells: Tensor, pixels: Tensor) -> Tensor:
        """The derivative of <cells, A(w) pixels> by w, shape (tap,)."""
        zeros = torch.zeros(len(self._taps), dtype=cells.dtype, device=cells.device)
        pattern = _csr(self._cell_pointers, self._pixels, zeros, self.shape)
        if len(zeros) <= self.shape[0] * self.shape[1]:
            products = torch.sparse.sampled_addmm(pattern, cells, pixels.t(), beta=0.0).values()
        else:  # a bottleneck of one cell and its replicas, which torch refuses: several entries a place
            rows = torch.repeat_interleave(self._cell_pointers.diff())
            products = (cells @ pixels.t())[rows, self._pixels.long()]
        if self._factors is not None:
            products *= self._factors
        ones = torch.ones_like(products)
        return _csr(self._tap_pointers, self._entries_by_tap, ones, (self.n_taps, len(products))) @ products


def stencil_entries(cells: Tensor, shape: tuple[int, int]) -> Tensor:
    """The pixels under the 3x3 stencil of each cell.

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


def grid_matrix(shape: tuple[int, int], cells: Tensor, *, margin: int, factors: Tensor | None = None) -> StencilMatrix:
    """The matrix of one 3x3 filter a variable over a whole grid, variables kept apart.

    Parameters
    ----------
    shape : (int, int)
        Size of the pixel grid.
    cells : Tensor of bool, shape (variable, y, x)
        Cells that exist; only these have a row.
    margin : {0, 1}
        1 continues the cells by one replicated cell on each side, and so gives the outermost ring of a transposed
        convolution what the inside gets.
    factors : Tensor, shape (variable, cell, 9), optional
        What the weights of each cell are multiplied with, without a margin.
    """
    variables, rows, columns = cells.shape
    n_pixels, n_cells, device = shape[0] * shape[1], int(cells.sum()), cells.device
    position = torch.full(cells.shape, -1, dtype=torch.int64, device=device)
    position[cells] = torch.arange(n_cells, device=device)
    extended = torch.cartesian_prod(
        torch.arange(-margin, rows + margin, device=device), torch.arange(-margin, columns + margin, device=device)
    )
    source = position[:, extended[:, 0].clamp(0, rows - 1), extended[:, 1].clamp(0, columns - 1)][:, :, None]
    entries = stencil_entries(extended, shape)
    variable = torch.arange(variables, device=device)[:, None, None]
    keep = (source >= 0) & (entries >= 0)
    pixels = (entries + variable * n_pixels)[keep]
    taps = (torch.arange(9, device=device) + variable * 9).expand(keep.shape)[keep]
    size = (n_cells, variables * n_pixels)
    kept = None if factors is None else factors[keep]
    return StencilMatrix(source.expand(keep.shape)[keep], pixels, taps, size, variables * 9, kept)


def encoding_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """Size of the encoding grid of a level of the given size: a 3x3 filter of stride 2 without padding."""
    return (shape[0] - 1) // 2, (shape[1] - 1) // 2


def coastal_shares(has_data: Tensor, stencil: np.ndarray) -> Tensor:
    """What restriction makes of a filter's nine weights in each cell, (variable, cell, 9).

    Where some of the nine pixels have data, the others are left out, and what is left is divided by its share of the
    restriction's weights. Where none has, the filter reads what stands there.
    """
    variables, *shape = has_data.shape
    rows, columns = encoding_shape((shape[0], shape[1]))
    cells = torch.cartesian_prod(
        torch.arange(rows, device=has_data.device), torch.arange(columns, device=has_data.device)
    )
    under = has_data.reshape(variables, -1)[:, stencil_entries(cells, (shape[0], shape[1]))].double()
    share = under @ torch.as_tensor(stencil.ravel(), dtype=torch.float64, device=has_data.device)
    return torch.where(share[..., None] > 0, under / share.clamp_min(1e-9)[..., None], 1.0)


class Prolongation:
    """Bilinear interpolation of a level onto the next finer one (A.2), without parameters.

    At the border the coarse field is continued by one replicated cell. Where some of the coarse cells that a valid
    pixel would read have no data (under injection), the weights of the others are divided by their sum.

    Parameters
    ----------
    coarse, fine : Tensor of bool, shape (variable, y, x)
        Cells and pixels with data.
    """

    def __init__(self, coarse: Tensor, fine: Tensor, dtype: torch.dtype) -> None:
        shape = (fine.shape[1], fine.shape[2])
        self._matrix = grid_matrix(shape, torch.ones_like(coarse), margin=1)
        self._weights = torch.as_tensor(BILINEAR.ravel(), dtype=dtype, device=fine.device).repeat(len(fine))
        self._coarse = coarse.reshape(-1, 1).to(dtype)
        share = self._matrix.scatter(self._weights, self._coarse)
        partial = (share > 0) & (share < 1) & fine.reshape(-1, 1)
        self._partial = partial[:, 0].nonzero()[:, 0]
        self._share = share[self._partial]

    def __call__(self, cells: Tensor) -> Tensor:
        """(variable * cell, sample) to (variable * pixel, sample)."""
        fine = self._matrix.scatter(self._weights, cells)
        if len(self._partial):
            known = self._matrix.scatter(self._weights, cells * self._coarse)
            fine[self._partial] = known[self._partial] / self._share
        return fine
