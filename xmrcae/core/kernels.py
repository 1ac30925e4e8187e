"""The products of tables.py as Triton kernels, channels and variables in one launch.

A program computes a block of a result, rows by samples, or a part of a sum; parts are added in a
fixed order afterwards. Offsets into fields have 64 bits: at a million pixels and 350 samples, six
variables make a field of more numbers than 32 bits can count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tables import StencilTables

#: Rows and samples of a block, and its warps: 1024 numbers, 8 for each thread. The narrow one is
#: for few samples.
WIDE, NARROW = (8, 128, 4), (32, 32, 4)

#: Entries of a tap that one program adds, and how many of them at a time.
SHARE, STEP = 16384, 4096

# A kernel is compiled once for all of these. Samples and strides that are multiples of 16 have one
# of their own: it loads four numbers at a time.
SIZES = ["n_channels", "n_rows", "n_taps", "n_entries", "n_parts", "n_products", "sign"]


@triton.jit
def _block(program, n_rows, n_samples, ROWS: tl.constexpr, SAMPLES: tl.constexpr):
    """Find the rows and samples of a block, and which of them exist."""
    n_blocks = tl.cdiv(n_samples, SAMPLES)
    row = program // n_blocks * ROWS + tl.arange(0, ROWS)
    sample = program % n_blocks * SAMPLES + tl.arange(0, SAMPLES)
    return row, sample, row < n_rows, (row < n_rows)[:, None] & (sample < n_samples)[None, :]


@triton.jit
def _at(field, row, stride, sample):
    """Point at samples of rows of a field."""
    return field + row.to(tl.int64)[:, None] * stride + sample[None, :]


@triton.jit
def _samples_of(field, row, stride, sample, there):
    """Load samples of rows of a field, 0 where they are not there."""
    return tl.load(_at(field, row, stride, sample), mask=there, other=0)


@triton.jit
def _place(rows, row, there):
    """Find where rows lie in a field of more rows, if it has more."""
    if rows is not None:
        row = tl.load(rows + row, mask=there, other=0)
    return row


@triton.jit
def _entry(columns, row, slot, exists, WIDTH: tl.constexpr):
    """Find the entry in a slot of each row, its column, and whether there is one."""
    entry = row * WIDTH + slot
    column = tl.load(columns + entry, mask=exists, other=-1)
    return entry, column, column >= 0


@triton.jit
def _scaled(value, factors, entry, there):
    """Multiply a value of each entry with the entry's factor, if entries have factors."""
    if factors is not None:
        value *= tl.load(factors + entry, mask=there, other=0)
    return value


@triton.jit
def _weight(weights, taps, factors, entry, there):
    """Look up the weight of an entry, times its factor."""
    value = tl.load(weights + tl.load(taps + entry, mask=there, other=0), mask=there, other=0)
    return _scaled(value, factors, entry, there)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=["weights"])
def _at_cells(
    weights,
    cells,
    pixels,
    rows,
    columns,
    taps,
    factors,
    products,
    out,
    n_channels,
    n_rows,
    n_samples,
    n_taps,
    channel_stride,
    cell_stride,
    pixel_stride,
    out_stride,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Gather, given weights; given cells, sum cell times pixel over the samples of a block.

    Given both, pixels are read once. Products are (channel, part, cell, slot), a part being a
    block of samples.
    """
    # Channels run fastest: the pixels that they share are still in the cache.
    channel = tl.program_id(0) % n_channels
    program = tl.program_id(0) // n_channels
    cell, sample, exists, inside = _block(program, n_rows, n_samples, ROWS, SAMPLES)
    if cells is not None:
        cells += channel.to(tl.int64) * channel_stride
        factor = _samples_of(cells, cell, cell_stride, sample, inside)
        n_parts = tl.cdiv(n_samples, SAMPLES)
        products += (channel * n_parts + program % n_parts).to(tl.int64) * n_rows * WIDTH
    total = tl.zeros((ROWS, SAMPLES), pixels.dtype.element_ty)
    for slot in tl.static_range(WIDTH):
        entry, column, there = _entry(columns, cell, slot, exists, WIDTH)
        pixel = _place(rows, column, there)
        field = _samples_of(pixels, pixel, pixel_stride, sample, inside & there[:, None])
        if weights is not None:
            value = _weight(weights + channel * n_taps, taps, factors, entry, there)
            total += value[:, None] * field
        if cells is not None:
            product = _scaled(tl.sum(factor * field, 1), factors, entry, there)
            tl.store(products + entry, product, mask=exists)
    if weights is not None:
        tl.store(_at(out, channel * n_rows + cell, out_stride, sample), total, mask=inside)


# One channel, as in a deepening, has a kernel of its own: it takes 32 registers, a loop 72.
@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=["weights", "channels"])
def _scatter(
    weights,
    cells,
    columns,
    taps,
    factors,
    bias,
    constant,
    rows,
    out,
    channels,
    n_rows,
    n_samples,
    n_taps,
    channel_stride,
    cell_stride,
    out_stride,
    sign,
    WIDTH: tl.constexpr,
    ADD: tl.constexpr,
    ROWS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Sum the cells that reach each pixel, times their weights, and its bias times `constant`."""
    program = tl.program_id(0)
    pixel, sample, exists, inside = _block(program, n_rows, n_samples, ROWS, SAMPLES)
    total = tl.zeros((ROWS, SAMPLES), out.dtype.element_ty)
    if bias is not None:
        level = tl.load(bias + pixel, mask=exists, other=0)
        factor = tl.load(constant + sample, mask=sample < n_samples, other=0)
        total += level[:, None] * factor[None, :]
    for _ in range(channels):
        for slot in tl.static_range(WIDTH):
            entry, cell, there = _entry(columns, pixel, slot, exists, WIDTH)
            value = _weight(weights, taps, factors, entry, there)
            field = _samples_of(cells, cell, cell_stride, sample, inside & there[:, None])
            total += value[:, None] * field
        cells += channel_stride
        weights += n_taps
    target = _at(out, _place(rows, pixel, exists), out_stride, sample)
    if ADD:
        total = tl.load(target, mask=inside) + sign * total
    tl.store(target, total, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def _sum_by_tap(
    products,
    entries,
    out,
    n_taps,
    n_entries,
    n_parts,
    n_products,
    SHARE: tl.constexpr,
    STEP: tl.constexpr,
):
    """Sum a share of the products (channel, part, entry) of a tap: (channel, tap, share)."""
    n_shares = tl.cdiv(n_entries, SHARE)
    share = tl.program_id(0) % n_shares
    tap = tl.program_id(0) // n_shares % n_taps
    channel = tl.program_id(0) // n_shares // n_taps
    entries += tap.to(tl.int64) * n_entries
    products += channel.to(tl.int64) * n_parts * n_products
    total = tl.zeros((STEP,), out.dtype.element_ty)
    for start in range(0, SHARE, STEP):
        place = share * SHARE + start + tl.arange(0, STEP)
        entry = tl.load(entries + place, mask=place < n_entries, other=-1)
        source = products + entry
        for _ in range(n_parts):
            total += tl.load(source, mask=entry >= 0, other=0)
            source += n_products
    tl.store(out + tl.program_id(0), tl.sum(total, 0))


@triton.jit(do_not_specialize=SIZES)
def _read(
    pixels,
    rows,
    other,
    out,
    n_rows,
    n_samples,
    pixel_stride,
    other_stride,
    out_stride,
    ROWS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Copy rows of a field, minus those of another one."""
    program = tl.program_id(0)
    row, sample, exists, inside = _block(program, n_rows, n_samples, ROWS, SAMPLES)
    pixel = tl.load(rows + row, mask=exists, other=0)
    value = tl.load(_at(pixels, pixel, pixel_stride, sample), mask=inside)
    if other is not None:
        value -= tl.load(_at(other, pixel, other_stride, sample), mask=inside)
    tl.store(_at(out, row, out_stride, sample), value, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def _dot(
    fields,
    rows,
    others,
    out,
    n_rows,
    n_samples,
    stride,
    other_stride,
    ROWS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Multiply rows of two fields sample by sample, and sum over samples."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = row < n_rows
    place = _place(rows, row, exists)
    total = tl.zeros((ROWS, SAMPLES), out.dtype.element_ty)
    for start in range(0, n_samples, SAMPLES):
        sample = start + tl.arange(0, SAMPLES)
        inside = exists[:, None] & (sample < n_samples)[None, :]
        value = _samples_of(fields, place, stride, sample, inside)
        total += value * _samples_of(others, place, other_stride, sample, inside)
    tl.store(out + row, tl.sum(total, 1), mask=exists)


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
        _launch(_scatter, shape, *fields, *sizes, **constants)
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
        by_bias = _dots(_in_rows(gradient), constant, 0, rows)
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
        _launch(_at_cells, shape, *fields, *sizes, times=n_channels, WIDTH=table.width)
        return out, products

    def _sum_by_tap(self, products: Tensor) -> Tensor:
        n_entries = self.by_tap.shape[1]
        n_shares = max(1, triton.cdiv(n_entries, SHARE))
        sums = products.new_zeros(len(products), self.n_taps, n_shares)
        if n_entries:
            sizes = self.n_taps, n_entries, *products.shape[1:]
            constants = {"SHARE": SHARE, "STEP": STEP, "num_warps": 8}
            _sum_by_tap[(sums.numel(),)](products, self.by_tap, sums, *sizes, **constants)
        return sums.sum(2) if n_shares > 1 else sums[:, :, 0]

    @staticmethod
    def read(pixels: Tensor, rows: Tensor, other: Tensor | None = None) -> Tensor:
        """Copy rows of a field, minus those of another one."""
        pixels, other = _in_rows(pixels), None if other is None else _in_rows(other)
        out = pixels.new_empty(len(rows), pixels.shape[1])
        strides = pixels.stride(0), 0 if other is None else other.stride(0), out.stride(0)
        _launch(_read, out.shape, pixels, rows, other, out, *out.shape, *strides)
        return out

    @staticmethod
    def along_samples(fields: Tensor, vector: Tensor) -> Tensor:
        """Compute the scalar products of rows (..., sample) with a vector (sample,)."""
        return _dots(_in_rows(fields.flatten(0, -2)), vector, 0).reshape(fields.shape[:-1])

    @staticmethod
    def squares(fields: Tensor) -> Tensor:
        """Sum the squares of rows (row, sample) over samples, (row,)."""
        fields = _in_rows(fields)
        return _dots(fields, fields, fields.stride(0))


def try_out(device: str) -> None:
    """Run a small kernel; an error of any kind if Triton cannot compile for the device."""
    rows = torch.zeros(1, dtype=torch.int64, device=device)
    StencilKernels.read(torch.zeros(1, 1, device=device), rows)


def _dots(fields: Tensor, others: Tensor, other_stride: int, rows: Tensor | None = None) -> Tensor:
    """Compute the scalar products of some rows of two fields, or of one field and a vector."""
    out = fields.new_empty(len(fields) if rows is None else len(rows))
    height, samples, warps = _block_shape(fields.shape[1])
    if len(out):
        sizes = len(out), fields.shape[1], fields.stride(0), other_stride
        constants = {"ROWS": height, "SAMPLES": samples, "num_warps": warps}
        _dot[(triton.cdiv(len(out), height),)](fields, rows, others, out, *sizes, **constants)
    return out


def _launch(
    kernel: Any, shape: Sequence[int], *arguments: Any, times: int = 1, **constants: Any
) -> None:
    """Run a kernel over blocks of rows and samples, as often as there are channels."""
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
