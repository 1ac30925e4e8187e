"""Codes by least squares: those whose reconstruction is nearest to the data.

A decoder is a linear map from codes to fields; its columns, one per code, are its atoms. Which
codes describe a snapshot best does not depend on any encoder: they are the orthogonal projection
of the snapshot onto the atoms. One sparse factorisation serves all snapshots.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from torch import Tensor, nn

from .network import Level, Network, Pass
from .state import NetworkState

#: Share of the diagonal of the normal matrix that is added to it: atoms may depend on each other.
RIDGE = 1e-6

#: Held while a factorisation is made, so that of several threads one makes it.
_MAKING = threading.Lock()


def atoms(levels: Sequence[Level]) -> list[sp.csr_array]:
    """Return what codes write onto each level's grid, (pixel, code), none of finer levels."""
    result: list[sp.csr_array] = []
    for level in levels:
        below = level.deepening.decoder_matrix.scattering(level.deepening.decoder_weight)
        if result:
            below = below @ result[-1]
        columns = [below]
        for group in level.groups:
            n_pixels = len(group.footprint)
            place = sp.csr_array(
                (np.ones(n_pixels), (group.footprint.cpu().numpy(), np.arange(n_pixels))),
                shape=(below.shape[0], n_pixels),
            )
            for weight in group.decoder_weight:
                columns.append(place @ group.decoder_matrix.scattering(weight))
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
        self._matrix, self._factors = matrix, None
        if not np.isfinite(normal.data).all():
            return  # the weights of a diverging solver, which have no codes
        self._factors = scipy.sparse.linalg.splu(
            normal + sp.diags_array(ridge, format="csc"),
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )

    def solve(self, values: np.ndarray) -> np.ndarray:
        """Find the codes (code, sample) for right-hand sides (row, sample)."""
        return self.solve_normal(self._matrix.T @ values)

    def solve_normal(self, values: np.ndarray) -> np.ndarray:
        """Return the solution of A^T A z = b, (code, sample); NaN if A has overflowed."""
        if self._factors is None:
            return np.full_like(values, np.nan)
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

    def __init__(
        self, atoms: list[sp.csr_array], weights: list[Tensor], offsets: list[Tensor]
    ) -> None:
        last = len(weights) - 1  # which counts even if no pixel of it does
        self.weights = {
            k: weight.reshape(-1, 1)
            for k, weight in enumerate(weights)
            if k == last or bool(weight.any())
        }
        self._atoms, self._offsets = atoms, offsets
        self._pixels = {k: weight[:, 0].nonzero()[:, 0] for k, weight in self.weights.items()}
        self._roots = {k: self.weights[k][pixels].sqrt() for k, pixels in self._pixels.items()}
        n_codes = atoms[-1].shape[1]
        rows = []
        for k, pixels in self._pixels.items():
            part = sp.diags_array(_host(self._roots[k])[:, 0]) @ atoms[k][pixels.cpu().numpy()]
            finer = sp.csr_array((part.shape[0], n_codes - part.shape[1]))
            rows.append(sp.hstack([part, finer], format="csr"))
        self.matrix: sp.csr_array = sp.vstack(rows, format="csr")
        self._solver = LeastSquares(self.matrix)

    def targets(self, inputs: Sequence[Tensor], constant: Tensor) -> np.ndarray:
        """Return what the codes are to write, (row, sample), given the data of each level."""
        parts = []
        for k, pixels in self._pixels.items():
            departure = inputs[k][pixels] - self._offsets[k][pixels] * constant
            parts.append(_host(departure * self._roots[k]))
        return np.concatenate(parts)

    def codes(self, inputs: Sequence[Tensor], constant: Tensor) -> Tensor:
        """Find all codes (code, sample) of the levels' data, each (variable * pixel, sample)."""
        codes = self._solver.solve(self.targets(inputs, constant))
        return torch.as_tensor(codes).to(inputs[-1])

    def adjoint(self, gradients: Mapping[int, Tensor]) -> Tensor:
        """Solve, (code, sample), for atoms times gradients with respect to reconstructions."""
        some = next(iter(gradients.values()))
        values = np.zeros((self.matrix.shape[1], some.shape[1]))
        for k, gradient in gradients.items():
            values[: self._atoms[k].shape[1]] += self._atoms[k].T @ _host(gradient)
        return torch.as_tensor(self._solver.solve_normal(values)).to(some)


class ProjectedNetwork(Network):
    """A network whose codes are found by least squares: it has decoders, but no encoders.

    Parameters
    ----------
    has_data, counts, **options
        As for :class:`Network`.
    projection : list of Tensor, shape (variable, y, x)
        For each level, weights of its pixels in the sum of squared errors that the codes make
        least.
    anchor : float
        Factor of the weights of levels coarser than the one to reconstruct.
    """

    encodes = False

    def __init__(
        self,
        has_data: list[Tensor],
        counts: Tensor,
        *,
        projection: list[Tensor],
        anchor: float,
        **options: Any,
    ) -> None:
        super().__init__(has_data, counts, **options)
        self.projection, self.anchor = projection, anchor
        self._projector: tuple[Any, Projector] | None = None

    def state(self) -> NetworkState:
        """Describe it as :meth:`Network.state`, with the weights of the projection."""
        weights = [weight.cpu().numpy() for weight in self.projection]
        return replace(super().state(), projection=weights, anchor=self.anchor)

    def remask(self, masks: Sequence[Sequence[Tensor]]) -> None:
        """Let groups keep their filters but act on other cells; take out those that act nowhere."""
        self._projector = None
        for k, (level, given) in enumerate(zip(self.levels, masks, strict=True)):
            before, level.groups = level.groups, nn.ModuleList()  # type: ignore[assignment]
            for group, mask in zip(before, given, strict=True):
                if bool(mask.any()):
                    again = self.widen(
                        k, mask, group.channels, noise=0.0, generator=torch.Generator()
                    )
                    again.load_state_dict(group.state_dict())

    @torch.no_grad()
    def projector(self, level: int) -> Projector:
        """Make what finds the codes of the levels up to one, with the weights as they are now."""
        with _MAKING:
            state = level, *((id(parameter), parameter._version) for parameter in self.parameters())
            known = self._projector
            if known is None or known[0] != state:
                levels = self.levels[: level + 1]
                written = atoms(levels)
                no_codes = torch.zeros(
                    written[-1].shape[1], 1, dtype=self.dtype, device=self.device
                )
                nothing = self.expand(no_codes, torch.ones_like(no_codes[0]), [None] * len(levels))
                coarser = [self.anchor * weight for weight in self.projection[:level]]
                weights = [*coarser, self.projection[level]]
                self._projector = known = state, Projector(written, weights, nothing.outputs)
            return known[1]

    @torch.no_grad()
    def forward(self, pixels: Tensor, constant: Tensor) -> Pass:
        """Compute as :meth:`Network.forward`, with the codes that describe the samples best."""
        inputs = self._inputs(pixels, constant)
        codes = self.projector(len(inputs) - 1).codes(inputs, constant)
        return self.expand(codes, constant, inputs)

    @torch.no_grad()
    def backward(self, result: Pass, constant: Tensor, gradients: dict[int, Tensor]) -> None:
        """Add as :meth:`Network.backward`: weights act directly, and through the codes.

        Codes z solve sum A^T W A z = sum A^T W x. With g the gradients with respect to
        reconstructions A z and l the solution for the right-hand side sum A^T g, the gradient with
        respect to A is (g - W A l) z^T + W (x - A z) l^T.
        """
        projector = self.projector(len(result.outputs) - 1)
        nothing = torch.zeros_like(constant)
        adjoint = self.expand(projector.adjoint(gradients), nothing, result.inputs)
        for k, weight in projector.weights.items():
            change = weight * adjoint.outputs[k]
            gradients[k] = gradients[k] - change if k in gradients else -change
        self._decode_adjoint(result, constant, gradients)
        residuals = {
            k: weight * (result.inputs[k] - result.outputs[k])
            for k, weight in projector.weights.items()
        }
        self._decode_adjoint(adjoint, nothing, residuals)


def from_state(state: NetworkState, device: torch.device | str = "cpu") -> Network:
    """Make the network that a state describes."""

    def tensors(arrays: Sequence[np.ndarray]) -> list[Tensor]:
        return [torch.tensor(array, device=device) for array in arrays]

    has_data, counts = tensors(state.has_data), torch.tensor(state.counts, device=device)
    options: dict[str, Any] = {
        "widening": state.widening,
        "restriction": state.restriction,
        "activation": state.activation,
        "dtype": getattr(torch, state.dtype),
    }
    network: Network
    if state.projection is None:
        network = Network(has_data, counts, **options)
    else:
        projection = tensors(state.projection)
        network = ProjectedNetwork(
            has_data, counts, projection=projection, anchor=state.anchor, **options
        )
    pairs = zip(state.masks, state.channels, strict=True)
    network.grow(zip(masks, channels, strict=True) for masks, channels in pairs)
    network.load_state_dict({name: torch.tensor(array) for name, array in state.weights.items()})
    return network


def _host(tensor: Tensor) -> np.ndarray:
    return tensor.double().cpu().numpy()
