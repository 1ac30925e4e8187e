"""One block of one lane: values to integers and back, the bound checked on what a reader decodes.

A value on a kept pixel is stored as a whole number of steps that its decoded field is off, in
float64; reading adds them up and casts the sum to the data's type.

Differences are sorted by the `classes` of their pixels, that is by how much they vary, one class
per chunk: an entropy coder knows one distribution per chunk, and 8 classes save 6 to 15 % on sea
surface temperatures. What does not fit in:

- gaps, NaN on kept pixels: 1 in `<array>_gaps`, exclusive-or with the snapshot before;
- strays, finite values elsewhere: whole fields `<array>_strays` of the data's type, NaN where there
  is none, so that they cost a few bytes where they are few, and nothing in blocks without any;
- blocks whose bound is finer than their type can follow: kept values as they are,
  `<array>_exact`, NaN in gaps, where the caller allows it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

import numpy as np

from .decoder import Decoder
from .format import ArchiveError, ArchiveFault
from .waves import LIMIT, Predictor

#: By how much a step is reduced until every snapshot is within its root-mean-square bound.
FINER = 0.98


@dataclass(frozen=True, kw_only=True)
class Variable:
    """How one variable is kept.

    Attributes
    ----------
    array : str
        Name of its arrays in the archive.
    dtype : numpy.dtype
        float16, float32 or float64: that of the data.
    kept : numpy.ndarray of bool, shape (y, x)
        Pixels of the data's extent that the archive has a place for, all valid ones among them.
    scale : float
        What scaled units are multiplied with.
    base : list of numpy.ndarray of float64, shape (season, pixel)
        For each level, what is added to decoded fields: on the kept pixels of the finest level, on
        the valid ones of the others.
    predictor : Predictor or None
        Of the steps; None where nothing but the codes is kept.
    classes : numpy.ndarray of uint8, shape (pixel,), or None
        How much the steps of each kept pixel vary: those of a class are stored side by side. None
        without a predictor.
    max_error, rmse : float or None
        Bound of each value, and of each snapshot's root-mean-square error, in the data's units.
    lossless : bool
        Whether to store values as they are where the bound cannot be kept otherwise.
    """

    array: str
    dtype: np.dtype[Any]
    kept: np.ndarray
    scale: float = 1.0
    base: Sequence[np.ndarray] = ()
    predictor: Predictor | None = None
    classes: np.ndarray | None = None
    max_error: float | None = None
    rmse: float | None = None
    lossless: bool = False

    @property
    def bound(self) -> float | None:
        """Half the step of the rest, nearly; None where nothing but codes is kept."""
        each = [self.max_error, None if self.rmse is None else self.rmse * 3**0.5]
        return min((bound for bound in each if bound is not None), default=None)

    @cached_property
    def order(self) -> np.ndarray:
        """The kept pixels by class, row by row within each."""
        return np.argsort(np.asarray(self.classes), kind="stable")

    @cached_property
    def rank(self) -> np.ndarray:
        """Where each kept pixel is in that order."""
        return np.argsort(self.order)

    @cached_property
    def places(self) -> np.ndarray:
        """Flat places of the kept pixels."""
        return np.flatnonzero(self.kept)


class BlockCoder:
    """Values of consecutive snapshots of one lane to what an archive stores, and back.

    Parameters
    ----------
    decoder : Decoder
        What makes fields of codes.
    variables : sequence of Variable
        In the order of the network.
    code_steps : sequence of numpy.ndarray, shape (channel,)
        For each level, the steps that codes of each channel are stored in, in scaled units.
    """

    def __init__(
        self,
        decoder: Decoder,
        variables: Sequence[Variable],
        code_steps: Sequence[np.ndarray],
    ) -> None:
        self.decoder, self.variables = decoder, variables
        self._finest = len(decoder.valid) - 1
        pairs = zip(code_steps, decoder.channels, strict=True)
        self._code_steps = np.concatenate([np.asarray(step)[of] for step, of in pairs])
        # Where the valid pixels are among the kept ones: nearly always everywhere.
        self._valid: list[Any] = [slice(None)] * len(variables)
        for v, (variable, valid) in enumerate(zip(variables, decoder.valid[-1], strict=True)):
            if not np.array_equal(valid, variable.kept):
                self._valid[v] = np.flatnonzero(valid[variable.kept])

    def quantise(self, codes: np.ndarray) -> np.ndarray:
        """Round codes (snapshot, code) to steps, int32."""
        return np.rint(codes / self._code_steps).clip(-LIMIT, LIMIT).astype(np.int32)

    def dequantise(self, codes: np.ndarray) -> np.ndarray:
        """Return codes (snapshot, code) of the levels up to one, in scaled units, of steps."""
        return codes * self._code_steps[: codes.shape[1]]

    def fields(self, codes: np.ndarray, season: np.ndarray, level: int) -> np.ndarray:
        """Decode the fields of a level, (snapshot, variable, y, x), float64, NaN off kept pixels.

        `codes`, (snapshot, code), are those of the levels up to it in steps, coarsest first;
        `season`, (snapshot,), says which of the base maps each snapshot departs from.
        """
        finest = level == self._finest
        kept = [each.kept for each in self.variables] if finest else self.decoder.valid[level]
        result = np.full((len(codes), len(kept), *kept[0].shape), np.nan)
        for v, field in enumerate(self.on_kept(codes, season, level)):
            result[:, v, kept[v]] = field
        return result

    def encode(
        self, values: Sequence[np.ndarray], codes: np.ndarray, season: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Find what to store beside the codes, and check that it decodes within the bounds.

        Of each variable `values` are (snapshot, y, x), in its type, NaN where missing; codes are of
        all levels. An ArchiveError tells of infinite values, and of bounds that cannot be kept.

        Returns
        -------
        arrays : dict of str to numpy.ndarray, shape (snapshot, pixel)
            To be stored, by name.
        records : dict of str to dict
            For each variable's array its row of the block table: `step`; `lossless` and `gaps`, 0
            or 1; the number of `strays`; the `least` and the `most` of what was given on kept
            pixels, None if that is nothing; `count`, `mean` and mean `square` of decoded values;
            the `worst` error and the sum of squared ones, `squared_error`.
        """
        arrays: dict[str, np.ndarray] = {}
        records: dict[str, dict[str, Any]] = {}
        fields = self.on_kept(codes, season, self._finest)
        for variable, given in zip(self.variables, values, strict=True):
            # popped, so that its memory is free before the next one is encoded
            own, records[variable.array] = _encode(variable, given, fields.pop(0))
            arrays |= own
        decoded = self.decode(arrays, records, codes, season)
        for variable, given, found in zip(self.variables, values, decoded, strict=True):
            records[variable.array] |= _measured(variable, given, found)
        return arrays, records

    def decode(
        self,
        arrays: Mapping[str, np.ndarray],
        records: Mapping[str, Mapping[str, Any]],
        codes: np.ndarray,
        season: np.ndarray,
        variables: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        """Decode what :meth:`encode` made, or its first snapshots, of all variables or those named.

        Returns
        -------
        list of numpy.ndarray, shape (snapshot, y, x)
            Of each variable in the order of the network, in its type, NaN where missing.
        """
        fields = self.on_kept(codes, season, self._finest)
        return [
            _decode(variable, field, arrays, records[variable.array])
            for variable, field in zip(self.variables, fields, strict=True)
            if variables is None or variable.array in variables
        ]

    def on_kept(self, codes: np.ndarray, season: np.ndarray, level: int) -> list[np.ndarray]:
        """Decode as :meth:`fields`, each variable on its kept pixels alone, (snapshot, pixel)."""
        valid = self.decoder.valid[level]
        finest = level == self._finest
        decoded = self.decoder.decode(self.dequantise(codes), level)
        ends = np.cumsum(valid.sum((1, 2)))[:-1]
        result = []
        for v, own in enumerate(np.split(decoded, ends, axis=1)):
            field = self.variables[v].base[level][season]
            field[:, self._valid[v] if finest else slice(None)] += self.variables[v].scale * own
            result.append(field)
        return result


def clipped(values: np.ndarray, record: Mapping[str, Any]) -> np.ndarray:
    """Return values within the range of those that were given, where the record of a block has it.

    Errors get no larger, and none of frozen water below its freezing point, of rain below 0 or of
    a share above 1 is made.
    """
    if record.get("least") is None:
        return values
    return np.clip(values, record["least"], record["most"])


def _encode(
    variable: Variable, given: np.ndarray, field: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return what to store of a variable (snapshot, y, x), and how it is stored."""
    if n_infinite := int(np.isinf(given).sum()):
        raise ArchiveError(
            f"{variable.array}: {n_infinite} values are infinite: replace them by NaN"
        )
    kept = given[:, variable.kept]
    known = ~np.isnan(kept)
    stray = ~np.isnan(given) & ~variable.kept
    record: dict[str, Any] = {"step": 0.0, "lossless": 0, "gaps": 0, "strays": int(stray.sum())}
    ends = [float(end(kept[known])) for end in (np.min, np.max)] if known.any() else [None, None]
    record["least"], record["most"] = ends
    arrays = {}
    if record["strays"]:
        nothing = given.dtype.type(np.nan)
        arrays["strays"] = np.where(stray, given, nothing).reshape(len(given), -1)
    try:
        if variable.predictor is not None:
            record["step"], steps = _in_steps(variable, kept, known, field)
            arrays["rest"] = variable.predictor.differences(steps)[:, variable.order]
    except ArchiveError:
        if not variable.lossless:
            raise
        arrays["exact"], record["lossless"] = kept, 1
    if not (record["lossless"] or known.all()):
        gaps = (~known).astype(np.uint8)
        gaps[1:] ^= gaps[:-1].copy()
        arrays["gaps"], record["gaps"] = gaps, 1
    return {_name(variable, kind): array for kind, array in arrays.items()}, record


def _decode(
    variable: Variable,
    field: np.ndarray,
    arrays: Mapping[str, np.ndarray],
    record: Mapping[str, Any],
) -> np.ndarray:
    """Return a variable (snapshot, y, x) of its field (snapshot, pixel) and what is stored."""
    result = np.full((len(field), variable.kept.size), np.nan, dtype=variable.dtype)
    if record["strays"]:
        result[:] = arrays[_name(variable, "strays")]
    if record["lossless"]:
        kept = arrays[_name(variable, "exact")]
    elif variable.predictor is None:
        kept = field.astype(variable.dtype)
    else:
        differences = arrays[_name(variable, "rest")].take(variable.rank, axis=1)
        steps = variable.predictor.undo(differences)
        kept = _value(variable, field, record["step"], steps)
    kept = clipped(kept, record)
    if record["gaps"]:
        gaps = np.bitwise_xor.accumulate(arrays[_name(variable, "gaps")], axis=0)
        kept[gaps.astype(bool)] = np.nan
    for row, own in zip(result, kept, strict=True):  # takes a third of all rows at once
        row[variable.places] = own
    return result.reshape(-1, *variable.kept.shape)


def _name(variable: Variable, kind: str) -> str:
    """Return the name of one of a variable's arrays."""
    return variable.array if kind == "rest" else f"{variable.array}_{kind}"


def _value(variable: Variable, field: np.ndarray, step: float, steps: np.ndarray) -> np.ndarray:
    """Return what is read where a field is off by some steps, in the data's type."""
    with np.errstate(over="ignore"):
        return (field + step * steps).astype(variable.dtype)


def _in_steps(
    variable: Variable, kept: np.ndarray, known: np.ndarray, field: np.ndarray
) -> tuple[float, np.ndarray]:
    """Return the step that keeps the bounds, and how many the field is off, (snapshot, pixel).

    An ArchiveError tells of bounds that are too fine for the data's type, or for the steps.
    """
    largest = np.abs(kept).max(initial=0, where=known)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond the largest number of the type
        spacing = max(float(np.spacing(largest)), np.spacing(np.abs(field).max(initial=0)))
    departure = np.subtract(kept, field, out=np.zeros_like(field), where=known)
    most = np.abs(departure).max(initial=0)
    max_error = inf if variable.max_error is None else 2 * (variable.max_error - 2 * spacing)
    step = min(max_error, inf if variable.rmse is None else variable.rmse * np.sqrt(12))
    while step > 0 and most <= step * LIMIT:
        steps = np.rint(departure / step).astype(np.int32)
        if variable.rmse is None:
            return float(step), steps
        rms = _rms(kept, _value(variable, field, step, steps), known)
        if (rms <= variable.rmse).all():
            return float(step), steps
        step *= FINER
    bounds = {"max_error": variable.max_error, "rmse": variable.rmse}
    asked = ", ".join(f"{name}={bound!r}" for name, bound in bounds.items() if bound is not None)
    raise ArchiveError(
        f"{variable.array}: {asked} cannot be kept. Values are as large as {largest:g}, where "
        f"numbers of type {variable.dtype} are {spacing:g} apart, and codes leave up to {most:g}, "
        f"of which {LIMIT} steps are allowed: choose a bound of at least "
        f"{2.2 * spacing + most / LIMIT:.2g}, data in float64, or lossless=True"
    )


def _rms(given: np.ndarray, found: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the root-mean-square error of each snapshot over its known values, (snapshot,)."""
    error = np.subtract(found, given, out=np.zeros(given.shape), where=known, dtype=np.float64)
    return np.sqrt((error**2).sum(1) / known.sum(1).clip(1))


def _measured(variable: Variable, given: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Compare what a reader decodes with what was given, both (snapshot, y, x).

    Raises
    ------
    ArchiveError
        If it is not what was promised.
    """
    known = ~np.isnan(given)
    decoded = found[known].astype(np.float64)
    error = np.abs(decoded - given[known])
    worst = float(error.max(initial=0))
    if not np.array_equal(known, ~np.isnan(found)):
        raise ArchiveFault(f"{variable.array}: gaps do not come back as they were")
    if variable.max_error is not None and not worst <= variable.max_error:
        raise ArchiveFault(
            f"{variable.array}: an error of {worst!r} was found where max_error="
            f"{variable.max_error!r} was asked for"
        )
    rms = _rms(given[:, variable.kept], found[:, variable.kept], known[:, variable.kept])
    if variable.rmse is not None and not (rms <= variable.rmse).all():
        raise ArchiveFault(
            f"{variable.array}: a root-mean-square error of {rms.max()!r} was found where rmse="
            f"{variable.rmse!r} was asked for"
        )
    n = max(1, decoded.size)
    return {
        "mean": float(decoded.sum() / n),
        "square": float((decoded**2).sum() / n),
        "worst": worst,
        "squared_error": float((error**2).sum()),
        "count": int(decoded.size),
    }
