"""The products of tables.py as Triton kernels, channels and variables in one launch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from . import kernel_code
from .tables import StencilTables

#: Rows and samples of a block, and its warps: 1024 numbers, 8 for each thread. The narrow one is
#: for few samples.
WIDE, NARROW = (8, 128, 4), (32, 32, 4)

#: Entries of a tap that one program adds, and how many of them at a time.
SHARE, STEP = 16384, 4096


class StencilKernels(StencilTables):
    """A stencil by Triton kernels."""

    def gather(self, weights: Tensor, pixels: Tensor) -> Tensor:
        """Compute A(w) pixels, (channel, cell, sample)."""
        return self._at_cells(weights, None, pixels, None)[0]

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
        cells, table = _in_rows(cells), self.by_pixel
        shape = self.shape[1], cells.shape[2]
        out = cells.new_empty(shape) if into is None else into
        if out.stride(1) != 1 and out.shape[1] != 1:
            raise ValueError("samples of a field have to lie next to each other")
        fields = weights.contiguous(), cells, *table, *(bias or (None, None)), rows, out
        sizes = len(cells), *shape, self.n_taps, *cells.stride()[:2], out.stride(0), sign
        constants = {"WIDTH": table.width, "ADD": into is not None}
        _launch(kernel_code.scatter, shape, *fields, *sizes, **constants)
        return out

    def weight_gradient(self, cells: Tensor, pixels: Tensor) -> Tensor:
        """Compute the derivative of <cells, A(w) pixels> with respect to w, (channel, tap)."""
        return self._sum_by_tap(self._at_cells(None, cells, pixels, None)[1])

    def scatter_adjoint(
        self,
        weights: Tensor,
        cells: Tensor,
        constant: Tensor,
        gradient: Tensor,
        *,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the gradients with respect to weights, the bias of each pixel, and cells."""
        by_cells, products = self._at_cells(weights, cells, gradient, rows)
        by_bias = _dots(gradient, constant, rows)
        return self._sum_by_tap(products), by_bias, by_cells

    def _at_cells(
        self, weights: Tensor | None, cells: Tensor | None, pixels: Tensor, rows: Tensor | None
    ) -> tuple[Any, Any]:
        """Compute A(w) pixels, given weights, and the products of entries, given cells."""
        pixels, table = _in_rows(pixels), self.by_cell
        n_channels = len(next(each for each in (weights, cells) if each is not None))
        n_samples = pixels.shape[1]
        out = products = None
        strides: Sequence[int] = 0, 0
        if weights is not None:
            weights = weights.contiguous()
            out = pixels.new_empty(n_channels, self.shape[0], n_samples)
        if cells is not None:
            cells = _in_rows(cells)
            strides = cells.stride()[:2]
            n_parts = triton.cdiv(n_samples, _block_shape(n_samples)[1])
            products = pixels.new_empty(n_channels, n_parts, table.columns.numel())
        fields = weights, cells, pixels, rows, *table, products, out
        shape = self.shape[0], n_samples
        sizes = n_channels, *shape, self.n_taps, *strides, pixels.stride(0), n_samples
        _launch(kernel_code.at_cells, shape, *fields, *sizes, times=n_channels, WIDTH=table.width)
        return out, products

    def _sum_by_tap(self, products: Tensor) -> Tensor:
        n_entries = self.by_tap.shape[1]
        n_shares = max(1, triton.cdiv(n_entries, SHARE))
        sums = products.new_zeros(len(products), self.n_taps, n_shares)
        if n_entries:
            arguments = products, self.by_tap, sums, self.n_taps, n_entries, *products.shape[1:]
            constants = {"SHARE": SHARE, "STEP": STEP, "num_warps": 8}
            kernel_code.sum_by_tap[(sums.numel(),)](*arguments, **constants)
        return sums.sum(2) if n_shares > 1 else sums[:, :, 0]

    @staticmethod
    def read(pixels: Tensor, rows: Tensor, other: Tensor | None = None) -> Tensor:
        """Copy rows of a field, minus those of another one."""
        pixels, other = _in_rows(pixels), None if other is None else _in_rows(other)
        out = pixels.new_empty(len(rows), pixels.shape[1])
        strides = pixels.stride(0), 0 if other is None else other.stride(0), out.stride(0)
        _launch(kernel_code.read, out.shape, pixels, rows, other, out, *out.shape, *strides)
        return out

    @staticmethod
    def along_samples(fields: Tensor, vector: Tensor) -> Tensor:
        """Compute the scalar products of rows (..., sample) with a vector (sample,)."""
        return _dots(fields.flatten(0, -2), vector).reshape(fields.shape[:-1])

    @staticmethod
    def squares(fields: Tensor, others: Tensor, *, into: Tensor | None = None) -> Tensor:
        """Sum the squares of differences of fields (row, sample) over samples, (row,)."""
        return _dots(fields, others, subtract=True, into=into)


def try_out(device: str) -> None:
    """Run a small kernel; an error of any kind if Triton cannot compile for the device."""
    rows = torch.zeros(1, dtype=torch.int64, device=device)
    StencilKernels.read(torch.zeros(1, 1, device=device), rows)


def _dots(
    fields: Tensor,
    others: Tensor,
    rows: Tensor | None = None,
    *,
    subtract: bool = False,
    into: Tensor | None = None,
) -> Tensor:
    """Sum over samples the products of two fields, or of a field and a vector, row by row.

    Given rows, of these alone. To subtract gives the squares of differences, which are written
    into a contiguous field if there is one.
    """
    fields, others = _in_rows(fields), _in_rows(others)
    out = fields.new_empty(len(fields) if rows is None else len(rows))
    height, samples, warps = _block_shape(fields.shape[1])
    if len(out):
        strides = fields.stride(0), others.stride(0) if others.ndim == 2 else 0
        arguments = fields, rows, others, into, out, len(out), fields.shape[1], *strides
        constants = {"SUBTRACT": subtract, "ROWS": height, "SAMPLES": samples, "num_warps": warps}
        kernel_code.dot[(triton.cdiv(len(out), height),)](*arguments, **constants)
    return out


def _launch(
    kernel: Any, shape: Sequence[int], *arguments: Any, times: int = 1, **constants: Any
) -> None:
    """Run a kernel over all blocks of rows and samples, so many `times` over."""
    rows, samples, warps = _block_shape(shape[1])
    n_programs = times * triton.cdiv(shape[0], rows) * triton.cdiv(shape[1], samples)
    if n_programs:
        block = {"ROWS": rows, "SAMPLES": samples, "num_warps": warps}
        kernel[(n_programs,)](*arguments, **constants, **block)


def _block_shape(n_samples: int) -> tuple[int, int, int]:
    return WIDE if n_samples > NARROW[1] else NARROW


def _in_rows(fields: Tensor) -> Tensor:
    """Lay the samples of a row next to each other, as kernels read them; mostly they are."""
    return fields if fields.stride(-1) == 1 else fields.contiguous()
