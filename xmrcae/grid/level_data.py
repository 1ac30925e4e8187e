"""The samples that stand for snapshots, on every level of the pyramid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, device

from ..handover import Array, LevelData
from .fill import fill_and_pad
from .pyramid import Pyramid, restrict_all
from .scaling import Scaling

#: Samples that are brought to all levels together.
WIDTH = 8


@dataclass(frozen=True)
class Compressed:
    """Samples that stand for the snapshots of one part.

    Attributes
    ----------
    samples : numpy.ndarray or Tensor, shape (sample, variable, y, x)
        sqrt(T) times the mean of T snapshots, centred and scaled, then the singular vectors times
        singular values of their departures from it; or the snapshots themselves. The sample lies
        last in memory.
    constant : numpy.ndarray, shape (sample,)
        sqrt(T), then zeros; or all ones.
    rank : int
        How many of the samples training needs.
    lost, total : numpy.ndarray, shape (variable, y, x)
        Variance over time that the singular vectors leave out, and all of it.
    n_random : int
        How many of the samples are random combinations, which stand for what is left out.
    """

    samples: Array
    constant: np.ndarray
    rank: int
    lost: np.ndarray
    total: np.ndarray
    n_random: int = 0

    @property
    def share_lost(self) -> float:
        """The share of the variance, over all pixels, that the singular vectors leave out.

        It is rounded to float32, as samples are: further digits differ between devices.
        """
        lost, total = float(self.lost.sum()), float(self.total.sum())
        return float(np.float32(lost / total)) if lost > 1e-12 * total else 0.0


def level_data(
    compressed: Compressed,
    pyramid: Pyramid,
    standard: Scaling,
    weights: np.ndarray,
    share: np.ndarray,
) -> list[LevelData]:
    """Bring the samples to every level: padded, restricted, filled.

    Parameters
    ----------
    compressed : Compressed
        The samples of one part.
    pyramid : Pyramid
        The levels.
    standard : Scaling
        Whose valid pixels and fill to use.
    weights : numpy.ndarray, shape (y, x)
        Weight of each pixel in the means; coarse levels take that of their own points.
    share : numpy.ndarray, shape (variable, y, x)
        Share of training times at which each pixel holds a value.
    """
    finest = pyramid.levels - 1
    has_data = pyramid.pad(standard.valid) & pyramid.may_have_data(finest)
    samples = compressed.samples
    xp, place = array_namespace(samples), device(samples)
    n, variables = samples.shape[:2]
    shapes = [(variables, *pyramid.shape(level), n) for level in range(pyramid.levels)]
    fields = [xp.empty(shape, dtype=samples.dtype, device=place) for shape in shapes]
    known = xp.asarray(has_data, device=place)
    for start in range(0, n, WIDTH):
        part = slice(start, start + WIDTH)
        levels = restrict_all(pyramid, pyramid.pad(samples[part]), known)
        for level, (values, has) in enumerate(levels):
            filled = fill_and_pad(values, has, pyramid, level, standard.fill)
            fields[level][..., part] = xp.moveaxis(filled, 0, -1)
    shares = restrict_all(pyramid, pyramid.pad(share), has_data)
    result = []
    left_out = compressed.share_lost
    for level, (values, (shared, has)) in enumerate(zip(fields, shares, strict=True)):
        counts = np.zeros_like(has)
        counts[pyramid.cut(level)] = has[pyramid.cut(level)]
        weight = np.zeros(has.shape)
        weight[pyramid.cut(level)] = weights[pyramid.points(level)]
        weight *= shared
        own = xp.moveaxis(values, -1, 0)
        result.append(
            LevelData(own, compressed.constant, has, counts, weight, compressed.rank, left_out)
        )
    return result
