"""What Triton compiles for kernels.py.

A program computes a block of a result, rows by samples, or a part of a sum; parts are added in a
fixed order afterwards. Offsets into fields have 64 bits: at a million pixels and 350 samples, six
variables make a field of more numbers than 32 bits can count.
"""

from __future__ import annotations

import triton
import triton.language as tl

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
    """Look up where rows lie in a larger field, if there is a table of them."""
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
def at_cells(
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
def scatter(
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
def sum_by_tap(
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
def read(
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
def dot(
    fields,
    rows,
    others,
    differences,
    out,
    n_rows,
    n_samples,
    stride,
    other_stride,
    SUBTRACT: tl.constexpr,
    ROWS: tl.constexpr,
    SAMPLES: tl.constexpr,
):
    """Sum over samples: products of rows of two fields or, of their differences, the squares.

    Differences are written as well, (row, sample), if there is where to.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    exists = row < n_rows
    place = _place(rows, row, exists)
    total = tl.zeros((ROWS, SAMPLES), out.dtype.element_ty)
    for start in range(0, n_samples, SAMPLES):
        sample = start + tl.arange(0, SAMPLES)
        inside = exists[:, None] & (sample < n_samples)[None, :]
        value = _samples_of(fields, place, stride, sample, inside)
        other = _samples_of(others, place, other_stride, sample, inside)
        if SUBTRACT:
            value -= other
            other = value
        if differences is not None:
            tl.store(_at(differences, row, n_samples, sample), value, mask=inside)
        total += value * other
    tl.store(out + row, tl.sum(total, 1), mask=exists)
