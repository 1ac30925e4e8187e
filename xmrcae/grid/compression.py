"""The compressed training set: few samples in place of many snapshots.

The network is affine, so time-mean squared errors of T snapshots are exactly those of their mean,
with bias, and of the left singular vectors times singular values of their departures from it,
without. The first pass over the archive gives the Gram matrix of the snapshots, or the product of
very many with random fields (Halko, Martinsson and Tropp, 2011, as in
`dask.array.linalg.svd_compressed`, in the same pass); either tells which combinations of snapshots
to keep, and the second pass makes these. They are orthonormal, so what they leave out at a pixel
is known: the variance of the pixel less that of the samples. Where memory has no room for all of
them, random combinations of the snapshots stand for what the leading ones leave out: their
expected sum of squares, at every pixel and after any linear map, is the same. Every sum runs over
blocks whose bounds depend on the sizes alone, so that chunks, order and orientation of the data
change no bit.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from ..handover import LevelData
from ..options import Options
from .blocks import BATCH, batches, over_batch
from .combinations import directions, room_for, shortened
from .description import Description
from .fill import fill_and_pad
from .pyramid import Pyramid, restrict_all
from .scaling import Scaling, check_departures
from .survey import GRAM_LIMIT, RANDOM_RANK, Survey
from .valid import counted

#: Share of memory that samples may take; the rest is for stages, which train on some of them.
SHARE = 0.35

#: Bytes per pixel and variable that the second pass holds beside archive and samples: what the
#: first has found, scaling, weights, and the variances of three parts.
PER_PIXEL = 150

#: Samples that are brought to all levels together.
WIDTH = 8


@dataclass(frozen=True, kw_only=True)
class FirstPass:
    """What a fit knows of its data once it has looked at all of them.

    Attributes
    ----------
    description : Description
        How they lie, and what they are called.
    parts : dict of str to numpy.ndarray
        Positions of the snapshots for training, validation and test.
    season : numpy.ndarray
        For each snapshot, which of the centres it departs from.
    array : dask.array.Array or numpy.ndarray, shape (sample, variable, y, x)
        The values.
    found : Survey
        What holds values where, centre and spread.
    standard : Scaling
        Centring, scaling and valid pixels.
    rms : numpy.ndarray, shape (variable,)
        Of the training snapshots about their centre.
    weights : numpy.ndarray, shape (y, x)
        Of each pixel in the means.
    memory : float
        Bytes that the fit may use.
    """

    description: Description
    parts: dict[str, np.ndarray]
    season: np.ndarray
    array: Any
    found: Survey
    standard: Scaling
    rms: np.ndarray
    weights: np.ndarray
    memory: float

    @property
    def split(self) -> xr.DataArray:
        """What each snapshot serves for, over the sample dimensions; "" for nothing."""
        samples = self.description.samples
        labels = np.empty(samples.size, dtype="<U10")
        for part, positions in self.parts.items():
            labels[positions] = part
        return samples.copy(data=labels.reshape(samples.shape)).rename("split")

    def epsilons(self, options: Options) -> list[np.ndarray] | None:
        """Return the paper's epsilon for each level and variable."""
        names = self.description.labels.variables
        levels = self.description.pyramid.levels
        return options.epsilons(levels, names, self.rms, self.standard.scale)


@dataclass(frozen=True)
class Compressed:
    """Samples that stand for the snapshots of one part.

    Attributes
    ----------
    samples : numpy.ndarray, shape (sample, variable, y, x)
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

    samples: np.ndarray
    constant: np.ndarray
    rank: int
    lost: np.ndarray
    total: np.ndarray
    n_random: int = 0

    @property
    def share_lost(self) -> float:
        """The share of the variance, over all pixels, that the singular vectors leave out.

        It is rounded to float32, as samples are: what is beyond depends on where it was computed.
        """
        lost, total = float(self.lost.sum()), float(self.total.sum())
        return float(np.float32(lost / total)) if lost > 1e-12 * total else 0.0


def compress(
    first: FirstPass, *, tail: np.ndarray | None, activation: str | None
) -> dict[str, list[LevelData]]:
    """Make the samples of each part on every level: the second pass over an archive.

    Parameters
    ----------
    first : FirstPass
        What the first pass has left.
    tail : numpy.ndarray, shape (variable,), or None
        Training may leave out trailing vectors while their variance is under this at every pixel.
    activation : str or None
        With one, samples are the snapshots themselves.

    Returns
    -------
    dict of str to list of LevelData
        For each part one per level, coarsest first.

    Raises
    ------
    ValueError
        If memory has no room for the snapshots that an activation needs.
    """
    pyramid, standard, parts = first.description.pyramid, first.standard, first.parts
    room = functools.partial(
        room_for, pyramid=pyramid, variables=len(standard.scale), memory=SHARE * first.memory
    )
    if activation:
        wanted = {part: len(positions) for part, positions in parts.items()}
        if room(wanted) != wanted:
            raise ValueError(
                f"activation={activation!r} trains on the snapshots themselves; "
                f"memory={first.memory:.3g} bytes has room for {sum(room(wanted).values())} of "
                f"{sum(wanted.values())}: allow more, or fit fewer"
            )
        samples = _snapshots(first)
    else:
        products = first.found.products
        vectors = {part: directions(each, standard.scale) for part, each in products.items()}
        wanted = {part: 1 + len(each) for part, each in vectors.items()}
        kept = {part: shortened(each, room(wanted)[part] - 1) for part, each in vectors.items()}
        random = [part for part, each in products.items() if each.shape[1] != each.shape[2]]
        samples = _combinations(first, kept, random=random, tail=tail)
        for part, each in samples.items():
            few_fields = part in random and products[part].shape[2] < RANDOM_RANK
            cut = few_fields or kept[part][1] + 1 < wanted[part]
            _warn_of_loss(part, each, len(parts[part]), tail, cut=cut)
    share = first.found.finite_in_training / len(parts["training"])
    share = np.where(standard.valid, share, 0)
    data = {}
    for part in list(samples):  # one after the other, so that memory holds what is needed
        data[part] = level_data(samples.pop(part), pyramid, standard, first.weights, share)
    return data


def _combinations(
    first: FirstPass,
    vectors: Mapping[str, tuple[np.ndarray, int]],
    *,
    random: Collection[str],
    tail: np.ndarray | None,
) -> dict[str, Compressed]:
    """Compute the mean and scaled left singular vectors of the snapshots of each part.

    In parts of `random`, whose products are with random fields, combinations are first rotated
    into singular vectors. Those that training leaves out are dropped: some variance is lost
    anyway, so a report with them would not be exact.
    """
    array, parts, standard = first.array, first.parts, first.standard
    size = array.shape[1:]
    heights = [1 + len(vectors[part][0]) for part in parts]
    samples = [np.empty((*size, n), dtype=np.float32) for n in heights]
    variance = [np.zeros((2, *size)) for _ in heights]  # lost, and in all
    arguments: dict[str, Any] = {"parts": parts, "season": first.season, "vectors": vectors}
    row = 4 * sum(heights) * size[0] * size[2]
    memory = first.memory - row * size[1] - PER_PIXEL * int(np.prod(size))
    for batch in batches(array, memory=BATCH * memory, result=row):
        bands, _ = over_batch(
            _project_band, array, batch, lambda band: (standard.rows(band),), **arguments
        )
        for band, results in zip(batch, bands, strict=True):
            for i, (values, each) in enumerate(results):
                samples[i][:, band] = values
                variance[i][:, :, band] = each
    found = {}
    for part, values, each in zip(parts, samples, variance, strict=True):
        ranked = _ranked(values, each, len(parts[part]), tail, is_random=part in random)
        combinations, n_leading = vectors[part]
        found[part] = replace(ranked, n_random=len(combinations) - n_leading)
    return found


def _ranked(
    values: np.ndarray, variance: np.ndarray, n: int, tail: np.ndarray | None, *, is_random: bool
) -> Compressed:
    """Say how many of the samples, (variable, y, x, sample), training needs."""
    if is_random:
        _rotate(values[..., 1:])
    rank = values.shape[-1]
    if tail is not None:
        behind = np.stack([_variance_behind(field[..., 1:], n) for field in values])
        rank = 1 + int((behind > tail[:, None]).any(0).sum())
    if is_random:
        variance[0] += np.square(values[..., rank:], dtype=np.float64).sum(-1) / n
        values = np.ascontiguousarray(values[..., :rank])
    constant = np.zeros(values.shape[-1])
    constant[0] = np.sqrt(n)
    return Compressed(np.moveaxis(values, -1, 0), constant, rank, *variance)


def _variance_behind(vectors: np.ndarray, n: int) -> np.ndarray:
    """Return, for each vector, the largest variance over pixels held by it and all later ones."""
    behind, total = np.zeros(vectors.shape[-1]), np.zeros(vectors.shape[:-1])
    for j in range(vectors.shape[-1] - 1, -1, -1):
        total += vectors[..., j].astype(np.float64) ** 2 / n
        behind[j] = total.max()
    return behind


def _rotate(vectors: np.ndarray) -> None:
    """Turn combinations, (variable, y, x, vector), into singular vectors times singular values."""
    gram = np.zeros(2 * vectors.shape[-1:])
    rows = [vectors[index] for index in np.ndindex(*vectors.shape[:2])]
    for row in rows:
        gram += row.astype(np.float64).T @ row.astype(np.float64)
    turn = np.linalg.eigh(gram)[1][:, ::-1]
    for row in rows:
        row[:] = row.astype(np.float64) @ turn


def _project_band(
    band: np.ndarray,
    standard: Scaling,
    *,
    parts: Mapping[str, np.ndarray],
    season: np.ndarray,
    vectors: Mapping[str, tuple[np.ndarray, int]],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Make the samples of each part on a band, sample last; find the variance they leave out."""
    valid, results = standard.valid, []
    for part, positions in parts.items():
        n = len(positions)
        departure = _standardized(band, positions, season, standard)
        average = departure.mean(0)
        check_departures(part, float(np.abs(average).max() * np.sqrt(n)))
        departure -= average
        flat = np.ascontiguousarray(departure[:, valid])
        combinations, n_leading = vectors[part]
        projected = combinations @ flat
        values = np.zeros((*average.shape, 1 + len(projected)), dtype=np.float32)
        values[..., 0] = average * np.sqrt(n)
        values[valid, 1:] = projected.T
        variance = np.zeros((2, *average.shape))
        total, captured = (flat**2).sum(0) / n, (projected[:n_leading] ** 2).sum(0) / n
        rounding = 1e-12 * total + 1e-28 * average[valid] ** 2
        variance[0, valid] = np.where(total - captured > rounding, total - captured, 0)
        variance[1, valid] = total
        results.append((values, variance))
    return results


def _standardized(
    band: np.ndarray, positions: np.ndarray, season: np.ndarray, standard: Scaling
) -> np.ndarray:
    values = np.ascontiguousarray(band[positions]).astype(np.float64)
    return standard.apply(standard.stand_in(values, season[positions]), season[positions])


def _snapshots(first: FirstPass) -> dict[str, Compressed]:
    """Take the snapshots of each part themselves, for a network with activations."""
    array, season, standard = first.array, first.season, first.standard
    size = array.shape[1:]
    result = {}
    for part, positions in first.parts.items():
        values = np.empty((*size, len(positions)), dtype=np.float32)
        for start in range(0, len(positions), WIDTH):
            some = positions[start : start + WIDTH]
            block = standard.stand_in(np.asarray(array[some]), season[some])
            block = standard.apply(block, season[some])
            check_departures(part, float(np.abs(block).max()))
            values[..., start : start + WIDTH] = np.moveaxis(block, 0, -1)
        samples = np.moveaxis(values, -1, 0)
        nothing = np.zeros(size)
        result[part] = Compressed(samples, np.ones(len(samples)), len(samples), nothing, nothing)
    return result


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
    n, variables = compressed.samples.shape[:2]
    dtype = compressed.samples.dtype
    fields = [
        np.empty((variables, *pyramid.shape(level), n), dtype) for level in range(pyramid.levels)
    ]
    for start in range(0, n, WIDTH):
        part = slice(start, start + WIDTH)
        padded = pyramid.pad(np.ascontiguousarray(compressed.samples[part]))
        for level, (values, has) in enumerate(restrict_all(pyramid, padded, has_data)):
            filled = fill_and_pad(values, has, pyramid, level, standard.fill)
            fields[level][..., part] = np.moveaxis(filled, 0, -1)
    shares = restrict_all(pyramid, pyramid.pad(share), has_data)
    result = []
    left_out = compressed.share_lost
    for level, (values, (shared, has)) in enumerate(zip(fields, shares, strict=True)):
        counts = np.zeros_like(has)
        counts[pyramid.cut(level)] = has[pyramid.cut(level)]
        weight = np.zeros(has.shape)
        weight[pyramid.cut(level)] = weights[pyramid.points(level)]
        samples = np.moveaxis(values, -1, 0)
        weight *= shared
        result.append(
            LevelData(samples, compressed.constant, has, counts, weight, compressed.rank, left_out)
        )
    return result


def _warn_of_loss(
    part: str, compressed: Compressed, n_snapshots: int, tail: np.ndarray | None, *, cut: bool
) -> None:
    """Warn if what the samples leave out is more than twice what training may leave out."""
    lost, share = compressed.lost, compressed.share_lost
    if not share or not (lost.max((1, 2)) > (0 if tail is None else 2 * tail)).any():
        return
    way_out = (
        "allow more with memory=" if cut else f"beyond {GRAM_LIMIT} there are {RANDOM_RANK} at most"
    )
    n_random = compressed.n_random
    n_vectors = len(compressed.constant) - 1 - n_random
    stand_in = f", for which {n_random} random combinations stand" if n_random else ""
    warnings.warn(
        f"{counted(n_vectors, 'singular vector')} stand for the {n_snapshots} {part} "
        f"snapshots, which leaves out {share:.2g} of their variance{stand_in}: {way_out}",
        stacklevel=2,
    )
