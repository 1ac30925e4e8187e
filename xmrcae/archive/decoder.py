"""Fields from codes as a reader computes them: sparse matrices in float64, without torch.

The decoder half of :mod:`xmrcae.core.layers`. A level's field is y_k = D_k y_{k-1} + G_k z_k + b_k
(2.1, 2.2): what its deepening makes of the level below, what the codes z_k of its groups write, and
the biases of both. Forms of widening and activations concern encoders alone, so all decode alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from ..core.state import NetworkState, storable

#: Cells per channel whose patterns are measured: their norms differ at coasts and borders alone.
SAMPLED_CELLS = 64


class Decoder:
    """The decoder of a network, on the valid pixels of each level.

    Parameters
    ----------
    state : NetworkState
        The network.
    cuts : sequence of (slice, slice)
        Rows and columns of each level that lie within the data's extent.

    Attributes
    ----------
    sizes : list of int
        Number of codes of each level.
    channels : list of numpy.ndarray of int, shape (code,)
        The channel that each code of a level belongs to: at level 0 first one per variable for the
        bottleneck; then the filters of each group.
    valid : list of numpy.ndarray of bool, shape (variable, y, x)
        Valid pixels of each level within the data's extent.
    """

    def __init__(self, state: NetworkState, cuts: Sequence[tuple[slice, slice]]) -> None:
        # Of the whole padded grid; of the finest level, which no other builds on, of valid pixels.
        self._deepenings: list[sp.csr_array] = []
        self._groups: list[sp.csr_array] = []
        self._biases: list[np.ndarray] = []
        self._inside: list[np.ndarray] = []  # the valid pixels on the padded grid
        self._n_channels: list[int] = []
        self._cut: dict[int, tuple[sp.csr_array, sp.csr_array, np.ndarray]] = {}
        self.valid: list[np.ndarray] = []
        self.channels: list[np.ndarray] = []
        cells = storable(state.counts, len(state.has_data))[0]
        for k, has_data in enumerate(state.has_data):
            extent = np.zeros_like(has_data)
            extent[:, *cuts[k]] = True
            self._inside.append(np.flatnonzero(has_data & extent))
            rows = self._inside[k] if k == len(state.has_data) - 1 else slice(None)
            weights, bias = _parameters(state, f"levels.{k}.deepening")
            self._deepenings.append(_deepening(weights, cells, has_data.shape[1:])[rows])
            groups = [  # of each, what its codes write and what its biases write
                _group(*_parameters(state, f"levels.{k}.groups.{j}"), mask, has_data.shape)
                for j, mask in enumerate(state.masks[k])
            ]
            none = sp.csr_array((has_data.size, 0))
            by_codes = sp.hstack([none, *(matrix for matrix, _ in groups)], format="csr")
            self._groups.append(by_codes[rows])
            own = np.repeat(bias, has_data[0].size)
            self._biases.append(sum((by_bias for _, by_bias in groups), own)[rows])
            n_cells = cells.sum((1, 2)) if k == 0 else []
            pairs = zip(state.masks[k], state.channels[k], strict=True)
            filters = [mask.sum() for mask, n_filters in pairs for _ in range(n_filters)]
            counts = np.array([*n_cells, *filters], dtype=np.int64)
            self.channels.append(np.repeat(np.arange(len(counts)), counts))
            self._n_channels.append(len(counts))
            cells = np.ones_like(has_data)
            self.valid.append(has_data[:, *cuts[k]])
        self.sizes = [len(channels) for channels in self.channels]

    def decode(self, codes: np.ndarray, level: int) -> np.ndarray:
        """Decode a level in scaled units, (snapshot, pixel), float64.

        `codes`, (snapshot, code), are those of the levels up to it, coarsest first. Pixels are the
        valid ones of one variable after the other, row by row.
        """
        # Snapshots lie along the last axis, which makes every product one pass over memory.
        columns = np.ascontiguousarray(codes.T, dtype=np.float64)  # (code, snapshot)
        n_bottleneck = self._deepenings[0].shape[1]
        field, rest = columns[:n_bottleneck], columns[n_bottleneck:]
        for k in range(level + 1):
            deepening, groups, bias = self._at_valid(k) if k == level else self._whole(k)
            own, rest = rest[: groups.shape[1]], rest[groups.shape[1] :]
            field = deepening @ field
            field += groups @ own
            field += bias[:, None]
        return np.ascontiguousarray(field.T)

    def norms(self, factors: np.ndarray) -> list[np.ndarray]:
        """Measure what codes write on the finest level's valid pixels.

        Parameters
        ----------
        factors : numpy.ndarray, shape (variable,)
            What each variable's pixels are multiplied with.

        Returns
        -------
        list of numpy.ndarray, shape (channel,)
            For each level, the median, over cells, of the norm of what a unit code writes; 0 for a
            filter that acts nowhere. One norm per code would need a list as long as the codes.
        """
        per_pixel = np.repeat(factors, self.valid[-1].sum((1, 2)))
        result = []
        for k, channels in enumerate(self.channels):
            chosen = [_spread(np.flatnonzero(channels == c)) for c in range(self._n_channels[k])]
            written = self._groups[k]
            if k == 0:
                written = sp.hstack([self._deepenings[0], written], format="csr")
            written = written[:, np.concatenate([np.zeros(0, dtype=int), *chosen])]
            for deepening in self._deepenings[k + 1 :]:
                written = deepening @ written
            written = sp.diags_array(per_pixel) @ written
            norms = np.sqrt(written.multiply(written).sum(0))
            ends = np.cumsum([len(cells) for cells in chosen])
            parts = [norms[end - len(cells) : end] for cells, end in zip(chosen, ends, strict=True)]
            medians = [np.median(part) if len(part) else 0.0 for part in parts]
            result.append(np.array(medians))
        return result

    def _whole(self, level: int) -> tuple[sp.csr_array, sp.csr_array, np.ndarray]:
        return self._deepenings[level], self._groups[level], self._biases[level]

    def _at_valid(self, level: int) -> tuple[sp.csr_array, sp.csr_array, np.ndarray]:
        """Return the matrices and biases of a level, on its valid pixels alone."""
        if level == len(self._inside) - 1:
            return self._whole(level)
        if level not in self._cut:
            deepening, groups, bias = self._whole(level)
            inside = self._inside[level]
            self._cut[level] = deepening[inside], groups[inside], bias[inside]
        return self._cut[level]


def _parameters(state: NetworkState, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the decoder's weights and biases of a part of the network, in float64."""
    weights = (state.weights[f"{name}.decoder_{kind}"] for kind in ("weight", "bias"))
    return tuple(each.astype(np.float64) for each in weights)  # type: ignore[return-value]


def _under(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the flat pixels, (cell, 9), under the 3x3 stencil of cells; -1 off the grid."""
    row = 2 * rows[:, None] + np.repeat(np.arange(3), 3)
    column = 2 * columns[:, None] + np.tile(np.arange(3), 3)
    inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
    return np.where(inside, row * shape[1] + column, -1)


def _deepening(weights: np.ndarray, cells: np.ndarray, shape: tuple[int, ...]) -> sp.csr_array:
    """Return a deepening's decoder, (pixel, cell), of weights (variable * 9,).

    Cells (variable, y, x) are continued by one replicated cell on each side.
    """
    variables, rows, columns = cells.shape
    number = np.full(cells.shape, -1)
    number[cells] = np.arange(cells.sum())
    row, column = np.mgrid[-1 : rows + 1, -1 : columns + 1].reshape(2, -1)
    pixels = _under(row, column, shape)
    source = number[:, row.clip(0, rows - 1), column.clip(0, columns - 1)]  # (variable, cell)
    variable, cell, tap = np.nonzero((source[:, :, None] >= 0) & (pixels >= 0))
    n_pixels = shape[0] * shape[1]
    places = variable * n_pixels + pixels[cell, tap], source[variable, cell]
    size = variables * n_pixels, int(cells.sum())
    return sp.csr_array((weights.reshape(variables, 9)[variable, tap], places), shape=size)


def _group(
    weights: np.ndarray, bias: np.ndarray, mask: np.ndarray, shape: tuple[int, ...]
) -> tuple[sp.csr_array, np.ndarray]:
    """Return what a group's codes write, (pixel, channel * cell), and what its biases write.

    Weights are (channel, variable * 9); biases, (variable,), reach the pixels under active cells.
    """
    variables, *grid = shape
    rows, columns = np.nonzero(mask)
    pixels = _under(rows, columns, tuple(grid))  # (cell, tap)
    first = np.arange(variables)[:, None] * (grid[0] * grid[1])  # pixel of each variable
    n_channels, n_cells = len(weights), len(pixels)
    size = n_channels, n_cells, variables, 9
    entries = np.broadcast_to(weights.reshape(n_channels, 1, variables, 9), size)
    written_to = np.broadcast_to(pixels[:, None] + first, size)
    codes = np.arange(n_channels * n_cells).reshape(n_channels, n_cells, 1, 1)
    n_pixels = variables * grid[0] * grid[1]
    places = written_to.ravel(), np.broadcast_to(codes, size).ravel()
    matrix = sp.csr_array((entries.ravel(), places), shape=(n_pixels, n_channels * n_cells))
    written = np.zeros(n_pixels)
    written[first + np.unique(pixels)] = bias[:, None]
    return matrix, written


def _spread(cells: np.ndarray) -> np.ndarray:
    """Return at most SAMPLED_CELLS of some cells, evenly spread."""
    return cells[np.linspace(0, len(cells) - 1, min(len(cells), SAMPLED_CELLS)).astype(int)]
