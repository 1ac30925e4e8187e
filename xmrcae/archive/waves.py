"""Integers predicted from their neighbours in space and time, and undone in waves.

A step q at (t, y, x) is predicted as ``floor(sum_k w_k q_k / 2**12 + 1/2)``, where q_k is the
step at ``TERMS[k]`` back and 0 at places that are not kept; what is packed is the step less its
prediction, modulo 2**32. All (t, y, x) with one value of x + 2 y + 4 t depend on earlier waves
alone, so a wave is undone by one expression.

The sums are made in float64 and are exact, in any order and on any machine: a step is an int32,
``|q| <= 2**31``, the magnitudes of the weights sum to ``2**21`` at most, so every partial sum is
a multiple of 2**-12 below ``2**(31 + 21 - 12) = 2**40``: less than 53 bits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

_SQUARE = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]

#: Neighbours that predict a step: how far back in (t, y, x).
TERMS = (
    *((0, y, x) for y, x in [(0, 1), (0, 2), (1, -1), (1, 0), (1, 1), (1, 2), (2, 0)]),
    *((1, y, x) for y, x in _SQUARE),
    *((2, y, x) for y, x in _SQUARE),
)

#: Fractional bits of a weight.
BITS = 12

#: The largest magnitude of a step.
LIMIT = 2**30

_WEIGHTS = 2**21  # the largest sum of the weights' magnitudes; see above
_WEIGHT = 2**16  # the largest weight of a fit, 16.0: far beyond what predicts anything
_RING = 1 + 4 * 2 + 2 + 1  # waves that are kept while undoing: this, and back to (2, 1, 1)
_SAMPLES = 2**17  # steps that a fit reads that is to last
_QUICK_SAMPLES = 2**15  # those of one that is compared with others
_THREADED = 9216  # numbers from which BLAS takes threads for a matrix times a vector
_ROUNDS = 4  # solutions for least absolute differences; more change nothing
_LOSS = 0.002  # by how much more differences may take so that fewer neighbours are gathered
_AT_ONCE = 2**15  # places whose neighbours are held at once: 6 MiB, which caches hold


class Predictor:
    """Steps predicted from their neighbours.

    Parameters
    ----------
    kept : numpy.ndarray
        (y, x), bool: the pixels that steps are given for, in row-major order.
    weights : sequence of int
        One weight per neighbour in `TERMS`, in units of ``2**-12``.

    Raises
    ------
    ValueError
        If `weights` are not one integer per neighbour, or so large that sums would be inexact.
    """

    def __init__(self, kept: np.ndarray, weights: Sequence[int]) -> None:
        self.kept = np.asarray(kept, bool)
        self.weights = [int(weight) for weight in weights]
        if self.weights != list(weights) or len(self.weights) != len(TERMS):
            raise ValueError(f"weights must be {len(TERMS)} integers, got {list(weights)}")
        if sum(map(abs, self.weights)) > _WEIGHTS:
            raise ValueError(
                f"the magnitudes of weights must sum to {_WEIGHTS} at most, got {self.weights}"
            )
        used = [k for k, weight in enumerate(self.weights) if weight]
        self._terms = [TERMS[k] for k in used]
        self._scaled = scaled(self.weights)[used]

    @classmethod
    def fit(cls, kept: np.ndarray, steps: np.ndarray, *, few_neighbours: bool = False) -> Predictor:
        """Return the predictor whose differences pack best, on steps (t, pixel), evenly spaced.

        With `few_neighbours`, those that tell little are left out, as undoing takes as long as they
        are many, and 130,000 steps are read, four times as many. Weights are 0 if all steps are 0,
        or if there are none. A ValueError tells of steps that `differences` would refuse.
        """
        every = cls(kept, [1] * len(TERMS))
        steps = every._checked(steps)
        # An odd stride: one that divides the row's length would visit few columns.
        stride = steps.size // (_SAMPLES if few_neighbours else _QUICK_SAMPLES) | 1
        parts = [(np.zeros((len(TERMS), 0)), np.zeros(0))]
        for t, at, shifted in every._snapshots(steps):
            sample = slice(-t * at.size % stride, None, stride)
            parts.append((_gather(shifted, at[sample]), steps[t, sample]))
        near, here = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
        return cls(kept, best_weights(near, here, _LOSS if few_neighbours else 0.0))

    def differences(self, steps: np.ndarray) -> np.ndarray:
        """Return steps (t, pixel) less their predictions, int32, modulo 2**32.

        A ValueError tells of steps that do not fit `kept` or have magnitudes beyond `LIMIT`.
        """
        steps = self._checked(steps)
        differences = steps.astype(np.int32)
        for t, at, shifted in self._snapshots(steps):
            for first in range(0, at.size, _AT_ONCE):
                part = slice(first, first + _AT_ONCE)
                differences[t, part] -= predict(self._scaled, _gather(shifted, at[part]))
        return differences

    def undo(self, differences: np.ndarray) -> np.ndarray:
        """Return the steps (t, pixel), int32, of differences, or of those of the first snapshots.

        Beside the result, 12 planes (t, y) of float64 are in use: less than its bytes for grids
        whose rows keep more than 24 pixels. A ValueError tells of differences that do not fit
        `kept`.
        """
        self._check_shape(differences)
        order, rows, starts = self._by_wave()
        steps = differences.take(order, axis=1).astype(np.int32, copy=False)
        flat = steps.reshape(-1)  # a view
        times, height = len(steps), self.kept.shape[0] + 2
        ring = np.zeros((_RING, (times + 3) * height))
        used = [np.zeros(0, np.intp)] * _RING  # the places of each plane that are not 0
        # For a wave in each plane of the ring: one view per term, shifted to that neighbour.
        shifted = [
            [
                ring[(now - (4 * t + 2 * y + x)) % _RING, (3 - t) * height - y :]
                for t, y, x in self._terms
            ]
            for now in range(_RING)
        ]
        for wave, at, here in _waves(times, height, rows, starts):
            now = wave % _RING
            value = flat.take(at)
            value += predict(self._scaled, _gather(shifted[now], here))
            flat[at] = value
            plane = ring[now, 3 * height :]
            plane[used[now]] = 0
            plane[here] = value
            used[now] = here
        for row in steps:
            row[order] = row.copy()
        return steps

    def _snapshots(self, steps: np.ndarray) -> Iterator[tuple[int, np.ndarray, list[np.ndarray]]]:
        """Yield every snapshot's number, the places of its pixels and the planes to read there.

        One plane per term, shifted so that the pixel's place holds that neighbour.
        """
        height, width = self.kept.shape
        width += 2  # neighbours reach two places before a row and one behind
        y, x = np.nonzero(self.kept)
        at = y * width + x
        planes = np.zeros((3, (height + 5) * width))  # of this snapshot and the two before
        for t, step in enumerate(steps):
            planes[t % 3, 3 * width + at] = step
            yield (
                t,
                at,
                [planes[(t - back) % 3, (3 - y) * width - x :] for back, y, x in self._terms],
            )

    def _by_wave(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the pixels' order by 2 y + x, their rows in it, and where each sum begins."""
        y, x = np.nonzero(self.kept)
        order = np.argsort(2 * y + x, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(2 * y + x))])
        return order, y[order], starts

    def _checked(self, steps: np.ndarray) -> np.ndarray:
        """Return the steps as an array that fits the pixels and the limit."""
        steps = np.asarray(steps)
        self._check_shape(steps)
        if steps.size and not -LIMIT <= steps.min() <= steps.max() <= LIMIT:
            raise ValueError(
                f"steps must lie within -2**30 and 2**30, got {steps.min()} to {steps.max()}"
            )
        return steps

    def _check_shape(self, steps: np.ndarray) -> None:
        pixels = np.count_nonzero(self.kept)
        if steps.ndim != 2 or steps.shape[1] != pixels or steps.dtype.kind not in "iu":
            raise ValueError(
                f"steps must be integers of shape (t, {pixels}), "
                f"got {steps.dtype} of shape {steps.shape}"
            )


def scaled(weights: Sequence[int]) -> np.ndarray:
    """Return weights as the numbers that they stand for, float64."""
    return np.array(weights) / 2.0**BITS


def predict(weights: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the predictions, int32 modulo 2**32, from neighbours (term, place) in float64.

    `weights`, (term,), are as `scaled` returns them.
    """
    total = _combined(weights, near)
    total += 0.5
    return np.floor(total, out=total).astype(np.int64).astype(np.int32)


def best_weights(near: np.ndarray, here: np.ndarray, loss: float = 0.0) -> list[int]:
    """Return the weights whose differences pack best, of neighbours (term, step) in float64.

    Of those of least squared and of least absolute differences, the ones are taken that leave the
    lower entropy: squares are ruled by few large steps, magnitudes by steps of 0. With a `loss`,
    as many are 0 as add no more than this share to the entropy.
    """

    def entropy(weights: list[int]) -> float:
        return _entropy(here - predict(scaled(weights), near))

    found = [(_solved(*each), each) for each in _equations(near, here)]
    weights, equations = min(found, key=lambda each: entropy(each[0]))
    most, used = (1 + loss) * entropy(weights), np.ones(len(near), bool)
    while loss and used.any():
        used[_least(*equations, used)] = False
        fewer = _solved(*equations, used)
        if entropy(fewer) > most:
            break
        weights = fewer
    return weights


def _equations(near: np.ndarray, here: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the normal equations of least squared and of nearly least absolute differences.

    Neighbours are (term, step). The second are those of weighted least squares, each difference
    weighted by the inverse of its magnitude in the round before.
    """
    result, square_root = [], np.ones(here.size)
    for _ in range(_ROUNDS):
        products = _products(np.vstack([near, here]) * square_root)
        matrix, right = products[:-1, :-1], products[:-1, -1]
        result.append((matrix, right))
        left = np.abs(here - _combined(_inverse(matrix) @ right, near))
        square_root = (left + 0.5 * max(0.5, np.median(left) if left.size else 0)) ** -0.5
    return [result[0], result[-1]]


def _solved(matrix: np.ndarray, right: np.ndarray, used: Any = slice(None)) -> list[int]:
    """Solve normal equations for the weights that are used; the others are 0."""
    found = np.zeros(len(right))
    found[used] = _inverse(matrix[used][:, used]) @ right[used]
    return np.clip(np.round(found * 2**BITS), -_WEIGHT, _WEIGHT).astype(int).tolist()


def _least(matrix: np.ndarray, right: np.ndarray, used: np.ndarray) -> int:
    """Return which of the terms that are used adds least to the differences if it is left out."""
    inverse = _inverse(matrix[used][:, used])
    added = (inverse @ right[used]) ** 2 / np.maximum(np.diag(inverse), 1e-300)
    return int(np.flatnonzero(used)[np.argmin(added)])


def _products(rows: np.ndarray) -> np.ndarray:
    """Return the scalar products of all rows (row, place) with each other.

    In pieces so short that BLAS takes one thread for each: where another process keeps a core busy,
    its threads wait for each other for up to forty times as long.
    """
    width = 2**18 // len(rows) ** 2
    whole = rows.shape[1] // width * width
    pieces = rows[:, :whole].reshape(len(rows), -1, width).transpose(1, 0, 2)
    return (pieces @ pieces.transpose(0, 2, 1)).sum(0) + rows[:, whole:] @ rows[:, whole:].T


def _combined(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the weighted sum of rows (row, place), without the threads that BLAS may take."""
    return weights @ rows if rows.size < _THREADED else np.einsum("i,ij->j", weights, rows)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    # A pseudo-inverse bears neighbours that are equal, as with one row.
    return np.linalg.pinv(matrix, rcond=1e-10, hermitian=True)


def _entropy(differences: np.ndarray) -> float:
    """Return the bits that an ideal packer would take for integers of these frequencies."""
    counts = np.unique(differences, return_counts=True)[1]
    return float(-np.sum(counts * np.log2(counts / differences.size)))


def _gather(shifted: Sequence[np.ndarray], at: np.ndarray) -> np.ndarray:
    """Return the neighbours (term, place) of some places, float64."""
    near = np.empty((len(shifted), at.size))
    for plane, row in zip(shifted, near, strict=True):
        plane.take(at, out=row, mode="clip")  # "raise" would copy through a buffer
    return near


def _waves(
    times: int, height: int, rows: np.ndarray, starts: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield every wave's number and its places, in (t, pixel by wave) and in (t, row)."""
    pixels, groups = len(rows), len(starts) - 1
    sizes = np.concatenate([np.diff(starts), [0]])  # the last one for sums that do not occur
    waves = groups + 4 * (times - 1)
    # Few pixels fill many waves, whose times are many too: both bound what is laid out at once.
    chunk = min(1 + _AT_ONCE * waves // (1 + times * pixels), math.isqrt(_AT_ONCE))
    for first in range(0, waves if times and pixels else 0, chunk):
        # The places of one wave and time are adjacent pixels; all such runs are laid out at once.
        last = min(first + chunk, waves) - 1
        t = np.arange(max(0, (first - groups) // 4 + 1), min(times, last // 4 + 1))
        group = np.arange(first, last + 1)[:, None] - 4 * t
        group[(group < 0) | (group >= groups)] = groups
        size = sizes[group]
        ends = np.cumsum(size.ravel()).reshape(size.shape)
        index = np.arange(ends[-1, -1])
        pixel = index + np.repeat((starts[group] - ends + size).ravel(), size.ravel())
        here = rows.take(pixel) + np.repeat(np.tile(t * height, len(group)), size.ravel())
        pixel += np.repeat(np.tile(t * pixels, len(group)), size.ravel())
        bounds = [0, *ends[:, -1].tolist()]
        for wave, (i, j) in enumerate(itertools.pairwise(bounds), start=first):
            yield wave, pixel[i:j], here[i:j]
