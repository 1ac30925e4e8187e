"""Stencils of stride 2 as index tables: the products of matrices.py in a fixed order of sums.

A table lists, for each cell, the pixels and taps of its entries, and for each pixel its cells and
taps. Every number of a result has one writer, so that equal calls give equal bits on a GPU too,
where sparse matrices may add with atomics, in any order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .operator import Stencil


class Table(NamedTuple):
    """The entries of a matrix by row.

    Attributes
    ----------
    columns : Tensor of int32, shape (row, slot)
        Column of each entry; -1 where a row has fewer entries than the fullest one.
    taps : Tensor of int32, shape (row, slot)
        Which weight each entry is; 0 where there is none.
    factors : Tensor, shape (row, slot), or None
        What that weight is multiplied with.
    """

    columns: Tensor
    taps: Tensor
    factors: Tensor | None

    @classmethod
    def of(
        cls,
        rows: Tensor,
        columns: Tensor,
        taps: Tensor,
        factors: Tensor | None,
        shape: tuple[int, int],
    ) -> Table:
        """Sort entries by row, and by column within a row."""
        order = torch.argsort(rows * shape[1] + columns, stable=True)
        rows = rows[order]
        return cls(
            columns=by_row(rows, columns[order].int(), shape[0], fill=-1),
            taps=by_row(rows, taps[order].int(), shape[0], fill=0),
            factors=None if factors is None else by_row(rows, factors[order], shape[0], fill=0),
        )

    @property
    def width(self) -> int:
        """Number of slots."""
        return self.columns.shape[1]

    def values(self, weights: Tensor) -> Tensor:
        """Look the entries up in weights (channel, tap): (channel, row, slot)."""
        values = weights.detach()[:, self.taps]
        return values if self.factors is None else values * self.factors


def by_row(rows: Tensor, values: Tensor, n_rows: int, *, fill: int) -> Tensor:
    """Lay out values, sorted by row, as (row, slot), with as many slots as the fullest row has."""
    counts = torch.bincount(rows, minlength=n_rows)
    slots = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    width = int(slots.max()) + 1 if len(rows) else 0
    table = torch.full((n_rows, width), fill, dtype=values.dtype, device=values.device)
    table[rows, slots] = values
    return table


class StencilTables(Stencil):
    """A stencil by torch's index arithmetic: right everywhere, but slow."""

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
        self.by_cell = Table.of(cells, pixels, taps, factors, shape)
        self.by_pixel = Table.of(pixels, cells, taps, factors, shape[::-1])
        places = (self.by_cell.columns >= 0).flatten().nonzero()[:, 0]
        taps = self.by_cell.taps.flatten()[places].long()
        order = torch.argsort(taps, stable=True)
        #: Where the entries of each tap stand in the table by cell, (tap, entry), -1 for none.
        self.by_tap = by_row(taps[order], places[order].int(), n_taps, fill=-1)

    def gather(self, weights: Tensor, pixels: Tensor) -> Tensor:
        """Compute A(w) pixels, (channel, cell, sample)."""
        values = self.by_cell.values(weights)
        result = pixels.new_zeros(len(weights), self.shape[0], pixels.shape[1])
        for slot, index in enumerate(self.by_cell.columns.T):
            result.addcmul_(values[:, :, slot, None], _taken(pixels, index))
        return result

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
        result = cells.new_zeros(self.shape[1], cells.shape[2])
        if bias is not None:
            result.addcmul_(bias[0].detach()[:, None], bias[1])
        for channel, values in zip(cells, self.by_pixel.values(weights), strict=True):
            for slot, index in enumerate(self.by_pixel.columns.T):
                result.addcmul_(values[:, slot, None], _taken(channel, index))
        if into is None:
            return result
        assert rows is not None
        return into.index_copy_(0, rows, into.index_select(0, rows).add_(result, alpha=sign))

    def weight_gradient(self, cells: Tensor, pixels: Tensor) -> Tensor:
        """Compute the derivative of <cells, A(w) pixels> with respect to w, (channel, tap)."""
        products = cells.new_zeros(*cells.shape[:2], self.by_cell.width)
        for slot, index in enumerate(self.by_cell.columns.T):
            products[:, :, slot] = (cells * _taken(pixels, index)).sum(2)
        if self.by_cell.factors is not None:
            products *= self.by_cell.factors
        of_tap = products.flatten(1)[:, self.by_tap.clamp_min(0)]
        return of_tap.masked_fill_(self.by_tap < 0, 0).sum(2)

    def scattering(self, weights: Tensor) -> sp.csr_array:
        """Return A(w)^T itself, for weights (tap,), as (pixel, cell), in float64 on the host."""
        index = self.by_pixel.columns.cpu()
        kept = index >= 0
        values = self.by_pixel.values(weights[None])[0].double().cpu()[kept]
        pointers = np.concatenate([[0], kept.sum(1).cumsum(0).numpy()])
        parts = values.numpy(), index[kept].numpy(), pointers
        return sp.csr_array(parts, shape=self.shape[::-1])

    @staticmethod
    def along_samples(fields: Tensor, vector: Tensor) -> Tensor:
        """Compute the scalar products of rows (..., sample) with a vector (sample,)."""
        return (fields * vector).sum(-1)

    @staticmethod
    def squares(fields: Tensor, others: Tensor, *, into: Tensor | None = None) -> Tensor:
        """Sum the squares of differences of fields (row, sample) over samples, (row,)."""
        return torch.sub(fields, others, out=into).square().sum(1)

    @staticmethod
    def sum_by(values: Tensor, groups: Tensor, n_groups: int) -> Tensor:
        """Sum values (row,) by the group of each row, (group,)."""
        member = groups == torch.arange(n_groups, device=groups.device)[:, None]
        return torch.where(member, values, 0).sum(1)


def _taken(field: Tensor, index: Tensor) -> Tensor:
    """Copy rows of a field, zeros where the index is -1."""
    return field.index_select(0, index.clamp_min(0)).masked_fill_((index < 0)[:, None], 0)
