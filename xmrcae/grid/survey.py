"""The first pass over the data.

It finds counts, sums and extremes of each pixel, and products of snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from array_api_compat import array_namespace, device

from ..handover import Array
from .blocks import BATCH, HOST, Backend, batches, over_batch

#: Training snapshots up to which the decomposition is exact, by Gram matrices.
GRAM_LIMIT = 3000

#: Random fields that more snapshots are multiplied with, if memory has room for the products: the
#: most singular vectors that a part then has.
RANDOM_RANK = 512

#: Share of memory for these products. Three are there at once: the sum over earlier batches, that
#: over earlier bands, and the new one; later, their singular vectors.
PRODUCTS = 1 / 16

#: Neighbouring pixels with the same random number: the signal is smooth at that scale, noise is
#: not.
RANDOM_RUN = 8

#: Share of the times at which a pixel may hold the land value and be filled with its mean: water
#: may have that value by chance. Where it stands more often, it is refused as a gap.
NOW_AND_THEN = 0.1


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What one look at the data tells; arrays are (variable, y, x) where nothing else is said.

    Attributes
    ----------
    finite, infinite, flagged : numpy.ndarray of int
        Numbers of snapshots with a value, an infinite one, the land value.
    finite_in_training : numpy.ndarray of int
        Numbers of training snapshots with a value.
    centre : numpy.ndarray, shape (season, variable, y, x)
        Time mean of the training snapshots in each season.
    total, squares, least, most : numpy.ndarray
        Of the training snapshots: their sum, the sum of squares about the centre, the extremes.
    checksum : numpy.ndarray of int
        The sum of the bits of all values, each times the number of its snapshot.
    is_empty : numpy.ndarray of bool, shape (sample, variable)
        Snapshots without a value where pixels are to be described.
    products : dict of str to numpy.ndarray, shape (variable, n, m)
        For each part of n snapshots, and each variable, the products of their departures from
        their mean over time: with each other, the Gram matrix (m = n), or, of many snapshots, with
        `RANDOM_RANK` random fields, or fewer.
    """

    finite: np.ndarray
    infinite: np.ndarray
    flagged: np.ndarray
    finite_in_training: np.ndarray
    centre: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    least: np.ndarray
    most: np.ndarray
    checksum: np.ndarray
    is_empty: np.ndarray
    products: dict[str, np.ndarray]


def survey(
    array: da.Array | np.ndarray,
    given: np.ndarray | None,
    *,
    parts: Mapping[str, np.ndarray],
    training: np.ndarray,
    season: np.ndarray,
    center: Any,
    gaps: str | None,
    land: np.ndarray | None,
    memory: float,
    backend: Backend = HOST,
) -> Survey:
    """Look at every pixel once: the first pass over the data.

    Parameters
    ----------
    array : dask.array.Array or numpy.ndarray, shape (sample, variable, y, x)
        The data.
    given : numpy.ndarray of bool, shape (y, x), or None
        Where the user says that pixels are to be described.
    parts : mapping of str to numpy.ndarray
        Positions of the snapshots of each part that is to be decomposed.
    training : numpy.ndarray
        Positions of the training snapshots.
    season : numpy.ndarray
        For each snapshot, which of the centres it departs from.
    center, gaps
        The options.
    land : numpy.ndarray, shape (variable,), or None
        The value that stands on land, and for missing values, in each variable.
    memory : float
        Bytes that the fit may use.
    backend : Backend
        What computes; but for more than `GRAM_LIMIT` snapshots NumPy.
    """
    given = np.ones(array.shape[2:], bool) if given is None else given
    number = np.arange(np.prod(array.shape[1:])).reshape(array.shape[1:])
    rank = _rank(parts, training, array.shape[1], memory)
    arguments = {"parts": parts, "training": training, "season": season, "center": center}
    arguments |= {"gaps": gaps, "land": land, "rank": rank}
    arguments["backend"] = backend if rank is None else HOST
    pixels: dict[str, np.ndarray] = {}
    total: Any = None
    for batch in batches(array, memory=BATCH * memory):
        bands, total = over_batch(
            _survey_band,
            array,
            batch,
            lambda band: (given[band], number[:, band]),
            add=_add,
            total=total,
            **arguments,
        )
        for band, found in zip(batch, bands, strict=True):
            for name, values in found.items():
                if name not in pixels:
                    shape = (*values.shape[:-2], *array.shape[2:])
                    pixels[name] = np.empty(shape, values.dtype)
                pixels[name][..., band, :] = values
    holds_values, *products = total
    by_part = dict(zip(parts, products, strict=True))
    return Survey(**pixels, is_empty=~holds_values, products=by_part)


def _survey_band(
    band: np.ndarray,
    given: np.ndarray,
    number: np.ndarray,
    *,
    parts: Mapping[str, np.ndarray],
    training: np.ndarray,
    season: np.ndarray,
    center: Any,
    gaps: str | None,
    land: np.ndarray | None,
    rank: int | None,
    backend: Backend,
) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Return what is kept of each pixel of a band of rows, and what `_add` takes."""
    xp, band, given = backend.xp, backend.array(band), backend.array(given)
    flags = xp.zeros_like(band[:1], dtype=xp.bool)
    if land is not None:
        flags = band == backend.array(land[:, None, None])
        band = xp.where(flags, xp.nan, band)
    finite = xp.isfinite(band)
    counted = {"finite": finite, "infinite": xp.isinf(band), "flagged": flags}
    found = {name: xp.sum(each, axis=0) for name, each in counted.items()}
    found |= _trained(band[training], finite[training], season, training, center)
    found["checksum"] = _checksum(xp.where(finite, band, 0))
    valid = _describable(given, found["finite"], found["flagged"], len(band), gaps=gaps)
    mean = found["total"] / xp.clip(found["finite_in_training"], min=1)
    sums: list[Any] = [HOST.array(xp.any(finite & given, axis=(2, 3)))]
    for positions in parts.values():
        at_season = season[positions]
        centres = xp.astype(found["centre"], band.dtype)
        stand_in = centres[at_season] if center == "month" else xp.astype(mean, band.dtype)
        values = xp.where(finite[positions], band[positions], stand_in)
        values = xp.astype(values, xp.float64)
        values -= centres[at_season]
        values -= xp.mean(values, axis=0)
        sums.append(_factors(values, valid, number, rank))
    return {name: HOST.array(each) for name, each in found.items()}, sums


def _checksum(values: Array) -> Array:
    """Add the bits of all values as whole numbers, each times the number of its snapshot.

    The sum wraps: the order in which a device adds changes nothing.
    """
    xp = array_namespace(values)
    numbers = xp.arange(1, len(values) + 1, device=device(values))[:, None, None, None]
    if values.dtype == xp.float32:
        return xp.sum(values.view(xp.int32) * numbers, axis=0)
    bits = values.view(xp.int64)

    def added(half: Array, factors: Array) -> Array:
        half *= factors
        return xp.sum(half, axis=0)

    # An odd multiple of the upper half: whole ones of its first bit, the sign, would wrap.
    return added(bits >> 32, 2654435761 * numbers) + added(bits & 0xFFFFFFFF, numbers)


def _describable(
    given: Array, finite: Array, flagged: Array, n_samples: int, *, gaps: str | None
) -> Array:
    """Return the pixels to be described, if nothing is to be refused; each is judged by itself."""
    valid = given & (finite > 0)
    if gaps == "mean":
        return valid
    fits = finite == n_samples
    return valid & (fits if gaps == "mask" else fits | now_and_then(finite, flagged, n_samples))


def now_and_then(finite: Array, flagged: Array, n_samples: int) -> Array:
    """Return the pixels that hold the land value at few times, and are never missing otherwise."""
    return (finite + flagged == n_samples) & (flagged <= NOW_AND_THEN * n_samples)


def _extremes(values: Array) -> dict[str, Array]:
    """Return the least and the largest of snapshots; NaN where all are missing."""
    if isinstance(values, np.ndarray):
        return {"least": np.fmin.reduce(values, axis=0), "most": np.fmax.reduce(values, axis=0)}
    xp = array_namespace(values)
    missing = xp.isnan(values)
    never = xp.all(missing, axis=0)
    least = xp.min(xp.where(missing, xp.inf, values), axis=0)
    most = xp.max(xp.where(missing, -xp.inf, values), axis=0)
    return {"least": xp.where(never, xp.nan, least), "most": xp.where(never, xp.nan, most)}


def _trained(
    trained: Array, known: Array, season: np.ndarray, training: np.ndarray, center: Any
) -> dict[str, Array]:
    """Find centre and spread of the training snapshots (sample, variable, row, x) of a band."""
    xp = array_namespace(trained)
    found = _extremes(trained)
    trained = xp.astype(trained, xp.float64)
    trained[~known] = 0
    found |= {"total": xp.sum(trained, axis=0), "finite_in_training": xp.sum(known, axis=0)}
    mean = found["total"] / xp.clip(found["finite_in_training"], min=1)
    seasons = season[training]
    constant = found["least"] == found["most"]  # whose mean a sum would give with rounding
    shape = int(season.max()) + 1, *trained.shape[1:]
    centre = xp.zeros(shape, dtype=trained.dtype, device=device(trained))
    for index in range(len(centre)):
        at = seasons == index if len(centre) > 1 else slice(None)
        if center is not False:
            n = xp.sum(known[at], axis=0)
            own = xp.where(n > 0, xp.sum(trained[at], axis=0) / xp.clip(n, min=1), mean)
            centre[index] = xp.where(constant, found["least"], own)
        trained[at] -= centre[index]
    trained[~known] = 0
    trained *= trained
    return found | {"centre": centre, "squares": xp.sum(trained, axis=0)}


def _rank(
    parts: Mapping[str, np.ndarray], training: np.ndarray, variables: int, memory: float
) -> int | None:
    """Return how many random fields to multiply snapshots with; None for exact Gram matrices."""
    if len(training) <= GRAM_LIMIT:
        return None
    n = variables * sum(map(len, parts.values()))
    return max(1, min(RANDOM_RANK, int(PRODUCTS * memory / 8 / max(1, n))))


def _add(total: list[np.ndarray] | None, more: list[Any]) -> list[np.ndarray]:
    """Add what a band tells of snapshots to what the bands before have told.

    Products with random fields are made here, one after the other: they take more memory than
    their factors, which wait in their place.
    """
    sums = []
    earlier: Sequence[Any] = [None] * len(more) if total is None else total
    for before, each in zip(earlier, more, strict=True):
        is_product = isinstance(each, np.ndarray)
        product = each if is_product else _with_random_fields(*each)
        if before is not None:  # not into what another task has returned
            product = np.add(before, product, out=None if is_product else product)
        sums.append(product)
    return sums


def _factors(
    departures: Array, valid: Array, number: np.ndarray, rank: int | None
) -> np.ndarray | tuple[list[tuple[np.ndarray, int]], int]:
    """Return Gram matrices of departures, (snapshot, variable, row, x), where they are exact.

    Where `rank` random fields take their place, return the arguments of `_with_random_fields`.
    """
    n, variables = departures.shape[:2]
    flats = (at_pixels(departures[:, variable], at) for variable, at in enumerate(valid))
    if rank is None or n <= rank:
        xp = array_namespace(departures)
        gram = xp.empty((variables, n, n), dtype=xp.float64, device=device(departures))
        for variable, flat in enumerate(flats):
            xp.matmul(flat, flat.T, out=gram[variable])
        return HOST.array(gram)
    factors = []
    for flat, numbers in zip(flats, (number[v, at] for v, at in enumerate(valid)), strict=True):
        starts = np.arange(0, len(numbers), RANDOM_RUN)
        seed = int(numbers[0]) if len(numbers) else 0
        runs = np.add.reduceat(flat, starts, axis=1)
        factors.append((runs, seed))
    return factors, rank


def at_pixels(values: Array, valid: Array) -> Array:
    """Return values (snapshot, ...) at valid pixels, (...): (snapshot, pixel)."""
    xp = array_namespace(values)
    (pixels,) = xp.nonzero(xp.reshape(valid, (-1,)))
    return xp.take(xp.reshape(values, (len(values), -1)), pixels, axis=1)


def _with_random_fields(factors: list[tuple[np.ndarray, int]], rank: int) -> np.ndarray:
    """Multiply departures with random fields: (variable, snapshot, field).

    Given are, for each variable, their sums over runs of pixels, (snapshot, run), and a seed: the
    number of the first pixel.
    """
    product = np.empty((len(factors), len(factors[0][0]), rank))
    for (runs, seed), out in zip(factors, product, strict=True):
        fields = np.random.default_rng(seed).standard_normal((runs.shape[1], rank))
        np.matmul(runs, fields, out=out)
    return product
