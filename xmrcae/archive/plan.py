"""Which codes an archive keeps, and in which steps: those of the least bytes on a sample.

Codes, what they leave (the rest) and base maps share the bytes: with more codes in finer steps the
rest is smaller. Every candidate is costed by packing the sample as the archive will be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from .base import Base, quantise_base
from .block import BlockCoder, Variable
from .code_prediction import code_differences, fit_codes
from .decoder import Decoder
from .models import centred, coarsest, group_counts, level_errors, truncated
from .packing import packed_bytes
from .waves import LIMIT, Predictor

if TYPE_CHECKING:
    from ..fitted import Fitted

#: Classes of pixels by how much their steps vary; more of them save under 0.3 %.
N_CLASSES = 8

#: By how much more a coarsest picture may be off than with unquantised codes of all groups.
COARSE_LOSS = 1.15

#: Least numbers per class in a block: pcodec finds distributions of 10,000 numbers or more.
LEAST_PER_CLASS = 10_000

#: Most Fourier terms over the months of a coarse level's base maps: mean, annual, half-annual.
COARSE_TERMS = 5


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a candidate differs in: number of groups, steps in units of the bounds, Fourier terms.

    `code_step` is the norm of what a step of a code writes.
    """

    n_groups: int
    code_step: float
    base_step: float
    n_terms: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How an archive is to be written.

    Attributes
    ----------
    fitted : Fitted
        The model with the groups that are kept; its centre is the finest base maps.
    coder : BlockCoder
        What encodes and decodes blocks.
    code_steps : list of numpy.ndarray, shape (channel,)
        For each level, in scaled units.
    code_weights : list of list of int
        For each level, what predicts codes from those before.
    bases : list of Base
        Of each variable.
    setting : Setting
        What was chosen.
    bytes : dict of str to float
        Estimated bytes per snapshot: `codes`, one number per level; `rest`; and `model`: base maps
        and classes, divided by the number of snapshots.
    coarse_loss : float
        Root-mean-square error of level 0, over that of unquantised codes of all groups.
    """

    fitted: Fitted
    coder: BlockCoder
    code_steps: list[np.ndarray]
    code_weights: list[list[int]]
    bases: list[Base]
    setting: Setting
    bytes: dict[str, Any]
    coarse_loss: float

    @property
    def total(self) -> float:
        """Estimated bytes per snapshot."""
        return float(sum(self.bytes["codes"]) + self.bytes["rest"] + self.bytes["model"])

    @property
    def cost(self) -> tuple[float, float]:
        """What the choice makes least: bytes, among plans that open with a good coarse picture.

        Where the rest is cheap to predict, the fewest bytes would be those of no codes at all.
        """
        return max(self.coarse_loss, COARSE_LOSS), self.total


def choose(
    fitted: Fitted,
    values: np.ndarray,
    season: np.ndarray,
    wanted: Sequence[Variable],
    *,
    length: int,
    levels: int | None = None,
    codes: int | None = None,
) -> Plan:
    """Choose codes, steps and base maps for the least bytes per snapshot.

    Parameters
    ----------
    fitted : Fitted
        The model, as :func:`projecting` returns it.
    values, season : numpy.ndarray, shape (snapshot, variable, y, x) and (snapshot,)
        A sample, runs of snapshots one after the other; which of the centres each departs from.
    wanted : sequence of Variable
        What is asked for each; scale, base maps and predictor are to be found.
    length : int
        Snapshots that the archive is to hold in the end, which share the bytes of base maps.
    levels, codes : int, optional
        Levels that keep codes of their own, and the most codes per snapshot; a ValueError if there
        are not so many levels, or the codes of level 0 alone are more.
    """
    planner = _Planner(fitted, values, season, wanted, length)
    counts = group_counts(fitted, levels, codes)
    best = planner.first_setting(counts[-1])
    if all(each.bound is None for each in wanted):
        return planner.plan(best)

    for factor in (2.0, 2**0.5):
        best = _descend(planner, best, "code_step", factor)
        best = min([best, *(replace(best, n_groups=n) for n in counts)], key=planner.cost)
        best = _descend(planner, best, "base_step", factor)
        fewer = [n for n in (7, 5, 3) if n < best.n_terms]
        best = _along(planner, best, "n_terms", fewer)
    best = _descend(planner, best, "code_step", factor)
    return planner.plan(best, few_neighbours=True)


def _descend(planner: _Planner, best: Setting, name: str, factor: float) -> Setting:
    """Change one step by a factor, up or down, for as long as the cost gets less."""
    start = getattr(best, name)
    for ratio in (factor, 1 / factor):
        found = _along(planner, best, name, (start * ratio**n for n in count(1)))
        if found != best:
            return found
    return best


def _along(planner: _Planner, best: Setting, name: str, values: Iterable[Any]) -> Setting:
    """Go along values of a setting for as long as the cost gets less."""
    for value in values:
        tried = replace(best, **{name: value})
        if planner.cost(tried) >= planner.cost(best):
            break
        best = tried
    return best


class _Planner:
    """Makes and costs plans on one sample."""

    def __init__(
        self,
        fitted: Fitted,
        values: np.ndarray,
        season: np.ndarray,
        wanted: Sequence[Variable],
        length: int,
    ) -> None:
        self.values, self.season, self.wanted, self.length = values, season, wanted, length
        self.fitted, self._kept = fitted, [each.kept for each in wanted]
        self._models: dict[int, tuple[Fitted, Decoder, list[np.ndarray]]] = {}
        self._costs: dict[Setting, tuple[float, float]] = {}
        self._last: tuple[Any, Any] | None = None
        self._bases: tuple[Any, list[Base]] | None = None
        self.errors = level_errors(fitted, values, season)  # (level, variable)
        bounds = [each.bound for each in wanted]
        pairs = zip(bounds, self.errors[-1], strict=True)
        self.units = np.array([bound or error for bound, error in pairs])
        self.coarsest = coarsest(fitted, values)

    def first_setting(self, n_groups: int) -> Setting:
        """Return steps that add one per cent to the error that the codes leave."""
        _, decoder, _ = self.model(n_groups)
        variance = float(np.mean((self.errors[-1] / self.units) ** 2))
        n_pixels, n_codes = int(decoder.valid[-1].sum()), sum(decoder.sizes)
        step = (0.01 * 12 * variance * n_pixels / n_codes) ** 0.5
        base_step = min(0.25, 0.2 * variance**0.5)
        n_terms = len(self.fitted.standard.centre)
        return Setting(n_groups=n_groups, code_step=step, base_step=base_step, n_terms=n_terms)

    def model(self, n_groups: int) -> tuple[Fitted, Decoder, list[np.ndarray]]:
        """Return the model with so many groups, its decoder, and the norms of what codes write."""
        if n_groups not in self._models:
            fitted = truncated(self.fitted, n_groups)
            pyramid = fitted.codec.pyramid
            cuts = [pyramid.cut(level)[1:] for level in range(pyramid.levels)]
            decoder = Decoder(fitted.codec.network.state(), cuts)
            norms = decoder.norms(fitted.standard.scale.astype(np.float64) / self.units)
            self._models[n_groups] = fitted, decoder, norms
        return self._models[n_groups]

    def cost(self, setting: Setting) -> tuple[float, float]:
        """Return :attr:`Plan.cost` alone: plans of a million pixels take 250 MB each."""
        if setting not in self._costs:
            self._costs[setting] = self.plan(setting).cost
        return self._costs[setting]

    def plan(self, setting: Setting, *, few_neighbours: bool = False) -> Plan:
        """Make the plan of a setting and pack the sample by it.

        With `few_neighbours`, as what is written has it, neighbours that predict little are left
        out: see :meth:`Predictor.fit`.
        """
        fitted, bases, exact = self._encoded(replace(setting, code_step=0.0), few_neighbours)
        _, decoder, norms = self.model(setting.n_groups)
        scale = fitted.standard.scale.astype(np.float64)
        floor = 1e-6 * max(each.max(initial=0) for each in norms)
        code_steps = [setting.code_step / np.maximum(each, floor) for each in norms]
        variables = [
            replace(wanted, scale=float(s), base=base.maps)
            for wanted, s, base in zip(self.wanted, scale, bases, strict=True)
        ]
        coder = BlockCoder(decoder, variables, code_steps)
        codes = coder.quantise(exact)
        n, model, rest = len(codes), 0.0, 0.0
        for v, field in enumerate(coder.on_kept(codes, self.season, len(decoder.sizes) - 1)):
            given = self.values[:, v][:, self.wanted[v].kept]
            left = np.where(np.isfinite(given), (given - field) / self.units[v], 0)
            variables[v], packed = with_predictor(variables[v], left, few_neighbours)
            rest, model = rest + packed["rest"], model + packed["classes"]
            model += sum(packed_bytes(each) for each in bases[v].differences)
        coarse = coder.fields(codes[:, : decoder.sizes[0]], self.season, 0) - self.coarsest
        parts = np.split(codes, np.cumsum(decoder.sizes)[:-1], axis=1)
        weights = [fit_codes(part) for part in parts]
        pairs = zip(parts, weights, strict=True)
        return Plan(
            fitted=fitted,
            coder=BlockCoder(decoder, variables, code_steps),
            code_steps=code_steps,
            code_weights=weights,
            bases=bases,
            setting=setting,
            bytes={
                "codes": [packed_bytes(code_differences(*pair)) / n for pair in pairs],
                "rest": rest / n,
                "model": model / self.length,
            },
            coarse_loss=float((_rms(coarse) / self.errors[0]).max()),
        )

    def _encoded(
        self, setting: Setting, few_neighbours: bool
    ) -> tuple[Fitted, list[Base], np.ndarray]:
        """Return the model, base maps and unquantised codes, which no step of codes changes."""
        if self._last is None or self._last[0] != (setting, few_neighbours):
            self._last = None  # make room
            fitted, decoder, _ = self.model(setting.n_groups)
            bases = self._bases_of(decoder, setting, few_neighbours)
            fitted = centred(fitted, [base.maps[-1] for base in bases], self._kept)
            dtype = fitted.standard.centre.dtype
            codes = fitted.codec.encode(self.values.astype(dtype, copy=False), self.season)
            self._last = (setting, few_neighbours), (fitted, bases, codes)
        return self._last[1]

    def _bases_of(self, decoder: Decoder, setting: Setting, few_neighbours: bool) -> list[Base]:
        """Return the base maps of each variable, which no number of groups changes."""
        key = setting.base_step, setting.n_terms, few_neighbours
        if self._bases is None or self._bases[0] != key:
            self._bases = None  # make room
            found = [
                self._base(v, decoder, setting, few_neighbours) for v in range(len(self.wanted))
            ]
            self._bases = key, found
        return self._bases[1]

    def _centres(self, v: int) -> list[np.ndarray]:
        """Return a variable's centre on the pixels of each level, (season, pixel).

        Kept pixels that the model does not know take their mean over the sample.
        """
        standards = self.fitted.codec.standards
        result = [each.centre[:, v][:, each.valid[v]].astype(np.float64) for each in standards]
        kept, valid = self.wanted[v].kept, standards[-1].valid[v]
        if (kept & ~valid).any():
            given = self.values[:, v][:, kept].astype(np.float64)
            known = np.isfinite(given)
            total = np.where(known, given, 0).sum(0)
            overall = total.sum() / max(1, known.sum())
            mean = np.where(known.any(0), total / known.sum(0).clip(1), overall)
            mean = np.broadcast_to(mean, (len(result[-1]), len(mean))).copy()
            mean[:, valid[kept]] = result[-1]
            result[-1] = mean
        return result

    def _base(self, v: int, decoder: Decoder, setting: Setting, few_neighbours: bool) -> Base:
        """Quantise a variable's base maps.

        The rest does not mend those of coarser levels: their steps add 4 % to the level's own
        error, and 1 % to that of level 0, whose few pixels keep all Fourier terms.
        """
        kept = [*(valid[v] for valid in decoder.valid[:-1]), self.wanted[v].kept]
        finest = setting.base_step * self.units[v]
        base = Base(differences=[], weights=[], steps=[], maps=[])
        for level, (maps, mask) in enumerate(zip(self._centres(v), kept, strict=True)):
            n_terms, step = setting.n_terms, finest
            if level < len(kept) - 1:
                n_terms = len(maps) if level == 0 else min(n_terms, COARSE_TERMS)
                share = 0.5 if level == 0 else (len(maps) / n_terms) ** 0.5
                step = max(finest, share * self.errors[level][v])
            differences, weights, step, read = quantise_base(
                maps, mask, step, n_terms, few_neighbours=few_neighbours
            )
            base.differences.append(differences)
            base.weights.append(weights)
            base.steps.append(step)
            base.maps.append(read)
        return base


def with_predictor(
    variable: Variable, left: np.ndarray, few_neighbours: bool
) -> tuple[Variable, dict[str, int]]:
    """Return a variable with predictor and classes for what codes leave, and the packed bytes.

    `left`, (snapshot, pixel), is in units of the bound.
    """
    if variable.max_error is None and variable.rmse is None:
        return variable, {"rest": 0, "classes": 0}
    steps = np.rint(left / 2).clip(-LIMIT, LIMIT).astype(np.int32)
    predictor = Predictor.fit(variable.kept, steps, few_neighbours=few_neighbours)
    differences = predictor.differences(steps)
    n_classes = int(np.clip(steps.size // LEAST_PER_CLASS, 1, N_CLASSES))
    activity = np.abs(differences, dtype=np.float64).mean(0)
    rank = np.argsort(np.argsort(activity, kind="stable"), kind="stable")
    classes = (rank * n_classes // max(1, len(rank))).astype(np.uint8)
    variable = replace(variable, predictor=predictor, classes=classes)
    chunks = np.array_split(differences[:, variable.order], n_classes, axis=1)
    return variable, {
        "rest": sum(packed_bytes(chunk) for chunk in chunks),
        "classes": packed_bytes(classes),
    }


def _rms(errors: np.ndarray) -> np.ndarray:
    """Return the root mean square of each variable's errors (snapshot, variable, y, x)."""
    known = np.isfinite(errors)
    squares = np.where(known, errors, 0) ** 2
    return np.sqrt(squares.sum((0, 2, 3)) / known.sum((0, 2, 3)).clip(1))
