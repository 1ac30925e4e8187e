"""The compressed training set: few samples in place of many snapshots.

The network is affine, so time-mean squared errors of T snapshots are exactly those of their mean,
with bias, and of the left singular vectors times singular values of their departures from it,
without. The first pass over the data gives the Gram matrix of the snapshots, or the product of
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
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from array_api_compat import array_namespace, device

from ..handover import Array, LevelData
from ..options import Options
from .blocks import BATCH, HOST, Backend, batches, over_batch
from .combinations import directions, room_for, shortened
from .description import Description
from .level_data import WIDTH, Compressed, level_data
from .scaling import Scaling, check_departures
from .survey import GRAM_LIMIT, RANDOM_RANK, Survey, at_pixels
from .valid import counted

#: Share of memory that samples may take; the rest is for stages, which train on some of them.
SHARE = 0.35

#: Bytes per pixel and variable that the second pass holds beside the data and the samples: what the
#: first has found, scaling, weights, and the variances of three parts.
PER_PIXEL = 150


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
    backend : Backend
        What the passes compute with.
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
    backend: Backend

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


def compress(
    first: FirstPass, *, tail: np.ndarray | None, activation: str | None
) -> dict[str, list[LevelData]]:
    """Make the samples of each part on every level: the second pass over the data.

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
    home = _home(first, sum(heights))
    samples = [home.zeros((*size, n)) for n in heights]
    vectors = {part: (first.backend.array(each), n) for part, (each, n) in vectors.items()}
    variance = [np.zeros((2, *size)) for _ in heights]  # lost, and in all
    arguments: dict[str, Any] = {"parts": parts, "season": first.season, "vectors": vectors}
    arguments |= {"backend": first.backend, "samples": None if home is HOST else samples}
    row = 4 * sum(heights) * size[0] * size[2]
    memory = first.memory - row * size[1] - PER_PIXEL * int(np.prod(size))
    for batch in batches(array, memory=BATCH * memory, result=row):
        bands, _ = over_batch(
            _project_band, array, batch, lambda band: (band, standard.rows(band)), **arguments
        )
        for band, results in zip(batch, bands, strict=True):
            for i, (values, each) in enumerate(results):
                variance[i][:, :, band] = each
                if values is not None:
                    samples[i][:, band] = values
    found = {}
    for part, values, each in zip(parts, samples, variance, strict=True):
        ranked = _ranked(values, each, len(parts[part]), tail, is_random=part in random, home=home)
        combinations, n_leading = vectors[part]
        found[part] = replace(ranked, n_random=len(combinations) - n_leading)
    return found


def _home(first: FirstPass, n_samples: int) -> Backend:
    """Return where the samples lie: where they are computed, if they have room there.

    While they are brought to all levels, which takes 4/3 of their bytes, and padded to the number
    that training takes, they take twice as much: half as much again as there is room for later.
    """
    n_bytes = 4 / 3 * 4 * n_samples * np.prod(first.array.shape[1:])
    return first.backend if 1.5 * n_bytes < first.backend.room else HOST


def _ranked(
    values: Array,
    variance: np.ndarray,
    n: int,
    tail: np.ndarray | None,
    *,
    is_random: bool,
    home: Backend,
) -> Compressed:
    """Say how many of the samples, (variable, y, x, sample), training needs."""
    xp = home.xp
    if is_random:
        _rotate(values[..., 1:])
    rank = values.shape[-1]
    if tail is not None:
        behind = np.stack([_variance_behind(field[..., 1:], n) for field in values])
        rank = 1 + int((behind > tail[:, None]).any(0).sum())
    if is_random:
        dropped = xp.astype(values[..., rank:], xp.float64)
        dropped *= dropped
        variance[0] += HOST.array(xp.sum(dropped, axis=-1)) / n
        del dropped
        values = home.array(values[..., :rank])
    constant = np.zeros(values.shape[-1])
    constant[0] = np.sqrt(n)
    return Compressed(xp.moveaxis(values, -1, 0), constant, rank, *variance)


def _variance_behind(vectors: Array, n: int) -> np.ndarray:
    """Return, for each vector, the largest variance over pixels held by it and all later ones."""
    xp, behind = array_namespace(vectors), np.zeros(vectors.shape[-1])
    total = xp.zeros(vectors.shape[:-1], dtype=xp.float64, device=device(vectors))
    for j in range(vectors.shape[-1] - 1, -1, -1):
        held = xp.astype(vectors[..., j], xp.float64)
        held *= held
        held /= n
        total += held
        behind[j] = float(xp.max(total))
    return behind


def _rotate(vectors: Array) -> None:
    """Turn combinations, (variable, y, x, vector), into singular vectors times singular values."""
    xp, n = array_namespace(vectors), vectors.shape[-1]
    gram = xp.zeros((n, n), dtype=xp.float64, device=device(vectors))
    rows = [vectors[index] for index in np.ndindex(*vectors.shape[:2])]
    for row in rows:
        gram += xp.astype(row, xp.float64).T @ xp.astype(row, xp.float64)
    turn = np.linalg.eigh(HOST.array(gram))[1][:, ::-1]
    turn = xp.asarray(np.ascontiguousarray(turn), device=device(vectors))
    for row in rows:
        row[:] = xp.astype(xp.astype(row, xp.float64) @ turn, row.dtype)


def _project_band(
    band: np.ndarray,
    rows: slice,
    standard: Scaling,
    *,
    parts: Mapping[str, np.ndarray],
    season: np.ndarray,
    vectors: Mapping[str, tuple[Array, int]],
    backend: Backend,
    samples: Sequence[Array] | None,
) -> list[tuple[np.ndarray | None, np.ndarray]]:
    """Make the samples of each part on a band, sample last; find the variance they leave out.

    They are written to those rows of `samples` if these lie where they are computed.
    """
    xp, standard, results = backend.xp, standard.converted(backend.array), []
    valid = standard.valid
    for i, (part, positions) in enumerate(parts.items()):
        n = len(positions)
        departure = xp.astype(backend.array(band[positions]), xp.float64)
        departure = standard.stand_in(departure, season[positions])
        departure = standard.apply(departure, season[positions])
        average = xp.mean(departure, axis=0)
        check_departures(part, float(xp.max(xp.abs(average))) * math.sqrt(n))
        departure -= average
        flat = at_pixels(departure, valid)
        combinations, n_leading = vectors[part]
        projected = combinations @ flat
        values = backend.zeros((*average.shape, 1 + len(projected)))
        values[..., 0] = average * math.sqrt(n)
        values[valid, 1:] = xp.astype(projected, xp.float32).T
        variance = backend.zeros((2, *average.shape), "float64")
        total = xp.sum(flat**2, axis=0) / n
        captured = xp.sum(projected[:n_leading] ** 2, axis=0) / n
        rounding = 1e-12 * total + 1e-28 * average[valid] ** 2
        variance[0, valid] = xp.where(total - captured > rounding, total - captured, 0)
        variance[1, valid] = total
        if samples is not None:
            samples[i][:, rows] = values
        results.append((HOST.array(values) if samples is None else None, HOST.array(variance)))
    return results


def _snapshots(first: FirstPass) -> dict[str, Compressed]:
    """Take the snapshots of each part themselves, for a network with activations."""
    array, season, backend = first.array, first.season, first.backend
    xp, size, result = backend.xp, array.shape[1:], {}
    standard = first.standard.converted(backend.array)
    home = _home(first, sum(map(len, first.parts.values())))
    for part, positions in first.parts.items():
        values = home.zeros((*size, len(positions)))
        for start in range(0, len(positions), WIDTH):
            some = positions[start : start + WIDTH]
            block = backend.array(np.asarray(array[some]))
            block = standard.apply(standard.stand_in(block, season[some]), season[some])
            check_departures(part, float(xp.max(xp.abs(block))))
            values[..., start : start + WIDTH] = home.array(xp.moveaxis(block, 0, -1))
        samples = home.xp.moveaxis(values, -1, 0)
        nothing = np.zeros(size)
        result[part] = Compressed(samples, np.ones(len(samples)), len(samples), nothing, nothing)
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
