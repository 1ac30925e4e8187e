"""The first pass over the archive: what holds values where, centre and spread, and the products of snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import dask.array as da
import numpy as np

from .blocks import batches, over_batch
from .valid import describable

#: Training snapshots up to which the decomposition is exact, by Gram matrices.
GRAM_LIMIT = 3000

#: Random fields that more snapshots are multiplied with: the most singular vectors that a part then has.
RANDOM_RANK = 512

#: Neighbouring pixels that share a value of a random field: the data are smooth at that scale, what is noise is not.
RANDOM_RUN = 8


@dataclass(frozen=True)
class Survey:
    """What one look at the archive tells of each pixel; arrays are (variable, y, x) but for `centre`.

    `finite`, `infinite` and `flagged` count snapshots with a value, an infinite one, the land value.
    `checksum` adds up all values, each times the number of its snapshot.
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


@dataclass(frozen=True)
class Rules:
    """What the first pass has to know of the options.

    Attributes
    ----------
    parts : mapping of str to numpy.ndarray
        Positions of the snapshots of each part that is to be decomposed.
    training : numpy.ndarray
        Positions of the training snapshots.
    season : numpy.ndarray
        For each snapshot, which of the centres it departs from.
    land : numpy.ndarray, shape (variable,), or None
        The value that each variable holds on land, and where it is missing.
    center, gaps
        The options.
    """

    parts: Mapping[str, np.ndarray]
    training: np.ndarray
    season: np.ndarray
    land: np.ndarray | None
    center: Any
    gaps: str | None


def survey(
    array: da.Array | np.ndarray, rules: Rules, given: np.ndarray | None, *, memory: float
) -> tuple[Survey, np.ndarray, dict[str, np.ndarray]]:
    """Look at every pixel once.

    Parameters
    ----------
    array : dask.array.Array or numpy.ndarray, shape (sample, variable, y, x)
        The archive.
    rules : Rules
        What to look for.
    given : numpy.ndarray of bool, shape (y, x), or None
        Where the user says that pixels are to be described.
    memory : float
        Bytes that a batch may hold.

    Returns
    -------
    found : Survey
        Missing and infinite values, centre and spread over the training snapshots.
    is_empty : numpy.ndarray of bool, shape (sample, variable)
        Snapshots without a value where pixels are to be described.
    products : dict of str to numpy.ndarray, shape (variable, n, m)
        For each part of n snapshots, and each variable, the products of their departures from their mean over time:
        with each other, the Gram matrix (m = n), or, of many snapshots, with `RANDOM_RANK` random fields.
    """
    given = np.ones(array.shape[2:], bool) if given is None else given
    number = np.arange(np.prod(array.shape[1:])).reshape(array.shape[1:])
    kept: list[tuple[np.ndarray, ...]] = []
    total = None
    for batch in batches(array, memory=memory):
        bands, total = over_batch(_survey_band, array, batch, given, number, total=total, rules=rules)
        kept += bands
    found = Survey(*(np.concatenate(arrays, axis=-2) for arrays in zip(*kept, strict=True)))
    holds_values, *products = total or []
    return found, ~holds_values, dict(zip(rules.parts, products, strict=True))


def _survey_band(
    band: np.ndarray, given: np.ndarray, number: np.ndarray, *, rules: Rules
) -> tuple[tuple[np.ndarray, ...], list[np.ndarray]]:
    band = np.ascontiguousarray(band)
    flagged = np.zeros(band.shape[1:], int)
    if rules.land is not None:
        flags = band == rules.land[:, None, None]
        flagged, band = flags.sum(0), np.where(flags, band.dtype.type(np.nan), band)
    finite = np.isfinite(band)
    infinite = np.isinf(band).sum(0)
    trained, known = band[rules.training], finite[rules.training]
    least, most = np.fmin.reduce(trained, axis=0), np.fmax.reduce(trained, axis=0)
    trained = trained.astype(np.float64)
    trained[~known] = 0
    total, n_known = trained.sum(0), known.sum(0)
    mean = total / np.maximum(n_known, 1)
    seasons = rules.season[rules.training]
    centre = np.zeros((int(rules.season.max()) + 1, *band.shape[1:]))
    for index in range(len(centre)):
        at = seasons == index if len(centre) > 1 else slice(None)
        if rules.center is not False:
            n = known[at].sum(0)
            centre[index] = np.where(n > 0, trained[at].sum(0) / np.maximum(n, 1), mean)
        trained[at] -= centre[index]
    trained[~known] = 0
    squares = np.square(trained, out=trained).sum(0)
    del trained, known
    numbered = np.where(finite, band, 0).astype(np.float64)
    numbered *= np.arange(1, len(band) + 1)[:, None, None, None]
    found = Survey(
        finite.sum(0), infinite, flagged, n_known, centre, total, squares, least, most, numbered.sum(0)
    )  # fmt: skip
    del numbered
    valid = describable(given, found.finite, flagged, len(band), gaps=rules.gaps)
    sums = [(finite & given).any((2, 3))]
    exact = len(rules.training) <= GRAM_LIMIT
    for positions in rules.parts.values():
        season = rules.season[positions]
        centres = centre.astype(band.dtype)
        stand_in = centres[season] if rules.center == "month" else mean.astype(band.dtype)
        values = np.where(finite[positions], band[positions], stand_in).astype(np.float64) - centres[season]
        values -= values.mean(0)
        sums.append(np.stack([_product(values[:, v, at], number[v, at], exact) for v, at in enumerate(valid)]))
    return tuple(getattr(found, field.name) for field in fields(found)), sums


def _product(departures: np.ndarray, number: np.ndarray, exact: bool) -> np.ndarray:
    """Departures (snapshot, pixel) times their transpose, or times random fields; the first pixel's number seeds."""
    flat = np.ascontiguousarray(departures)
    if exact or len(flat) <= RANDOM_RANK:
        return flat @ flat.T
    if not len(number):
        return np.zeros((len(flat), RANDOM_RANK))
    starts = np.arange(0, len(number), RANDOM_RUN)
    fields = np.random.default_rng(int(number[0])).standard_normal((len(starts), RANDOM_RANK))
    return np.add.reduceat(flat, starts, axis=1) @ fields
