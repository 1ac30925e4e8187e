"""Codes by least squares: those whose reconstruction is nearest to the data.

A decoder is a linear map from codes to fields; its columns, one a code, are its atoms. Which codes describe a snapshot
best does not depend on any encoder: they are the orthogonal projection of the snapshot onto the atoms. One sparse
factorisation serves all snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .network import Level

#: What is added to the diagonal of the normal matrix, as a share of it: atoms may depend on each other.
RIDGE = 1e-6


def atoms(levels: Sequence[Level]) -> list[sp.csr_array]:
    """What each code writes onto each level's grid, (pixel, code), codes of finer levels left out."""
    result: list[sp.csr_array] = []
    for level in levels:
        below = level.deepening.decoder_matrix.scattering(level.deepening.decoder_weight)
        if result:
            below = below @ result[-1]
        columns = [below]
        for group in level.groups:
            place = sp.csr_array(
                (np.ones(len(group.footprint)), (group.footprint.cpu().numpy(), np.arange(len(group.footprint)))),
                shape=(below.shape[0], len(group.footprint)),
            )
            columns += [place @ group.decoder_matrix.scattering(weight) for weight in group.decoder_weight]
        result.append(sp.hstack(columns, format="csr"))
    return result


class LeastSquares:
    """The solution z of A z = b with the least squared error, for any number of right-hand sides.

    Parameters
    ----------
    matrix : sparse array, shape (row, code)
        A.
    """

    def __init__(self, matrix: sp.csr_array) -> None:
        normal = (matrix.T @ matrix).tocsc()
        diagonal = normal.diagonal()
        ridge = RIDGE * np.maximum(diagonal, max(diagonal.max(initial=0.0), 1e-30) * 1e-9)
        self._factors = scipy.sparse.linalg.splu(
            normal + sp.diags_array(ridge, format="csc"), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )  # fmt: skip
        self._matrix = matrix

    def solve(self, values: np.ndarray) -> np.ndarray:
        """Codes (code, sample) for right-hand sides (row, sample)."""
        return self.solve_normal(self._matrix.T @ values)

    def solve_normal(self, values: np.ndarray) -> np.ndarray:
        """The solution of A^T A z = b, (code, sample)."""
        return self._factors.solve(np.ascontiguousarray(values))


class Projector:
    """The codes that make the weighted sum of squared errors of some levels least.

    Parameters
    ----------
    atoms : list of sparse array, shape (pixel, code)
        For each level, as :func:`atoms` gives them.
    weights : list of Tensor, shape (variable, y, x)
        Of each pixel of each level; 0 where it does not count.
    offsets : list of Tensor, shape (variable * pixel, 1)
        What the biases alone write.

    Attributes
    ----------
    weights : dict of int to Tensor, shape (variable * pixel, 1)
        Of those levels that count.
    matrix : sparse array, shape (row, code)
        The atoms on the pixels that count, times the roots of their weights.
    """

    def __init__(self, atoms: list[sp.csr_array], weights: list[Tensor], offsets: list[Tensor]) -> None:
        self.weights = {k: weight.reshape(-1, 1) for k, weight in enumerate(weights) if bool(weight.any())}
        self._atoms, self._offsets = atoms, offsets
        self._pixels = {k: weight[:, 0].nonzero()[:, 0] for k, weight in self.weights.items()}
        self._roots = {k: self.weights[k][pixels].sqrt() for k, pixels in self._pixels.items()}
        n_codes = atoms[-1].shape[1]
        rows = []
        for k, pixels in self._pixels.items():
            part = sp.diags_array(_host(self._roots[k])[:, 0]) @ atoms[k][pixels.cpu().numpy()]
            rows.append(sp.hstack([part, sp.csr_array((part.shape[0], n_codes - part.shape[1]))], format="csr"))
        self.matrix: sp.csr_array = sp.vstack(rows, format="csr")
        self._solver = LeastSquares(self.matrix)

    def targets(self, inputs: Sequence[Tensor], one: Tensor) -> np.ndarray:
        """What the codes are to write, (row, sample), given the data of each level."""
        return np.concatenate([
            _host((inputs[k][pixels] - self._offsets[k][pixels] * one) * self._roots[k])
            for k, pixels in self._pixels.items()
        ])  # fmt: skip

    def codes(self, inputs: Sequence[Tensor], one: Tensor) -> Tensor:
        """All codes (code, sample) of the levels' data, each (variable * pixel, sample)."""
        return torch.as_tensor(self._solver.solve(self.targets(inputs, one))).to(inputs[-1])

    def adjoint(self, gradients: Mapping[int, Tensor]) -> Tensor:
        """The solution (code, sample) for sums of atoms times gradients by the reconstructions."""
        some = next(iter(gradients.values()))
        values = np.zeros((self.matrix.shape[1], some.shape[1]))
        for k, gradient in gradients.items():
            values[: self._atoms[k].shape[1]] += self._atoms[k].T @ _host(gradient)
        return torch.as_tensor(self._solver.solve_normal(values)).to(some)


def _host(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()
