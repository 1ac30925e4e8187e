"""What layers ask of a stencil, however it is computed: matrices.py, tables.py or kernels.py."""

from __future__ import annotations

from abc import ABC, abstractmethod

import scipy.sparse as sp
from torch import Tensor


class Stencil(ABC):
    """The linear operator A(w) whose entry (cell, pixel) is the weight of one tap.

    One operator serves any number of channels, each with weights of its own.

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

    shape: tuple[int, int]
    n_taps: int

    @abstractmethod
    def gather(self, weights: Tensor, pixels: Tensor) -> Tensor:
        """Compute A(w) pixels: the convolution.

        Parameters
        ----------
        weights : Tensor, shape (channel, tap)
            Weights of each channel.
        pixels : Tensor, shape (pixel, sample)
            What all channels read.

        Returns
        -------
        Tensor, shape (channel, cell, sample)
            A(w) pixels for each channel.
        """

    @abstractmethod
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
        """Compute A(w)^T cells: the transposed convolution, summed over channels.

        Parameters
        ----------
        weights : Tensor, shape (channel, tap)
            Weights of each channel.
        cells : Tensor, shape (channel, cell, sample)
            What each channel spreads.
        bias : (Tensor, Tensor), shapes (pixel,) and (sample,), optional
            Two vectors whose outer product is added.
        into : Tensor, shape (row, sample), optional
            A field that the result is added to in place.
        rows : Tensor of int64, shape (pixel,), optional
            With `into`: the rows of that field that are the operator's pixels, each once.
        sign : {1, -1}
            With `into`: -1 subtracts the result.

        Returns
        -------
        Tensor, shape (pixel, sample)
            The result, or `into`.
        """

    @abstractmethod
    def weight_gradient(self, cells: Tensor, pixels: Tensor) -> Tensor:
        """Compute the derivative of <cells, A(w) pixels> with respect to w for each channel.

        Parameters
        ----------
        cells : Tensor, shape (channel, cell, sample)
            A field of cells for each channel.
        pixels : Tensor, shape (pixel, sample)
            One field of pixels.

        Returns
        -------
        Tensor, shape (channel, tap)
            The derivative.
        """

    def scatter_adjoint(
        self,
        weights: Tensor,
        cells: Tensor,
        constant: Tensor,
        gradient: Tensor,
        *,
        rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the adjoint of :meth:`scatter` with a bias.

        Parameters
        ----------
        weights, cells : Tensor
            What was scattered.
        constant : Tensor, shape (sample,)
            The second vector of the bias.
        gradient : Tensor, shape (pixel, sample)
            The gradient with respect to the result.
        rows : Tensor of int64, shape (pixel,), optional
            Where in `gradient` the operator's pixels are, if it is a field of more rows.

        Returns
        -------
        Tensor, shape (channel, tap)
            The gradient with respect to weights.
        Tensor, shape (pixel,)
            That with respect to the first vector of the bias.
        Tensor, shape (channel, cell, sample)
            That with respect to cells.
        """
        gradient = gradient if rows is None else gradient.index_select(0, rows)
        by_bias = self.along_samples(gradient, constant)
        return self.weight_gradient(cells, gradient), by_bias, self.gather(weights, gradient)

    @abstractmethod
    def scattering(self, weights: Tensor) -> sp.csr_array:
        """Return A(w)^T itself, for weights (tap,), as (pixel, cell), in float64 on the host."""

    @staticmethod
    def read(
        pixels: Tensor,
        rows: Tensor,
        other: Tensor | None = None,
    ) -> Tensor:
        """Copy rows of a field, minus those of another one."""
        result = pixels.index_select(0, rows)
        return result if other is None else result.sub_(other.index_select(0, rows))

    @staticmethod
    @abstractmethod
    def along_samples(fields: Tensor, vector: Tensor) -> Tensor:
        """Compute the scalar products of rows (..., sample) with a vector (sample,)."""

    @staticmethod
    @abstractmethod
    def squares(fields: Tensor, others: Tensor, *, into: Tensor | None = None) -> Tensor:
        """Sum the squares of differences of fields (row, sample) over samples, (row,).

        The differences are written into a contiguous field, if one is given.
        """

    @staticmethod
    @abstractmethod
    def sum_by(values: Tensor, groups: Tensor, n_groups: int) -> Tensor:
        """Sum values (row,) by the group of each row, (group,)."""
