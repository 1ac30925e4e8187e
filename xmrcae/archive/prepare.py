"""What an archive holds before its first block: the model, base maps, coordinates, labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from .._version import __version__
from ..grid.conventions import Labelled, fields_of
from ..io.labels import file_names
from ..io.model_datasets import fitted_to_datasets
from . import labelling, parts
from .block import Variable
from .format import FORMAT_VERSION, ArchiveError
from .models import projecting
from .plan import Plan, choose
from .source import Source
from .store_writer import ArchiveWriter

#: Values of the sample that codes and steps are chosen on.
SAMPLE = 2**21

#: Base maps are costed as if at least so many snapshots shared them: archives grow.
GROWN = 600

#: Values in a chunk of the rest: whole years of small fields, some snapshots of large ones.
CHUNK = 2**22

#: Arrays of a level that are neither a variable's nor a coordinate's.
OF_LEVELS = ("base", "codes")

#: What the table of blocks has beside the columns of each variable, which go by its array.
OF_BLOCKS = ("length", "levels")

#: What the names of a variable's arrays end in.
ENDINGS = ("", "_classes", "_gaps", "_strays", "_exact")

#: Least snapshots in a block: the first two are predicted from fewer neighbours.
LEAST_ROWS = 8


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asks of an archive, as :meth:`xmrcae.MrCAE.to_archive` documents it."""

    max_error: Any = None
    rmse: Any = None
    levels: int | None = None
    codes: int | None = None
    rows_per_block: int | None = None
    append_dim: str | None = None
    lossless: bool = False

    def check_appends(self) -> None:
        """Refuse what an archive that is appended to has decided already."""
        if self != Request():
            raise ValueError('mode="a" takes bounds and sizes from the archive: leave them out')

    def bounds(self, names: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the bounds of each variable.

        Raises
        ------
        ValueError
            For what is no positive number, or names no variable.
        """
        result: list[dict[str, Any]] = [{} for _ in names]
        for option in ("max_error", "rmse"):
            given = getattr(self, option)
            by_name = given if isinstance(given, Mapping) else dict.fromkeys(names, given)
            if unknown := [name for name in by_name if name not in names]:
                raise ValueError(f"{option} names {unknown[0]!r}; the variables are {list(names)}")
            for bounds, name in zip(result, names, strict=True):
                bounds[option] = _bound(option, by_name.get(name))
        return result

    def rows(self, n_pixels: int, n_rows: int) -> int:
        """Return how many rows make a block, of fields of so many pixels."""
        rows = self.rows_per_block
        if rows is None:
            return max(1, min(n_rows, max(LEAST_ROWS, CHUNK // max(1, n_pixels))))
        if not isinstance(rows, int | np.integer) or isinstance(rows, bool) or rows < 1:
            raise ValueError(f"rows_per_block={rows!r}: a whole number of at least 1")
        return int(rows)


def _bound(option: str, value: Any) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float | np.integer | np.floating)
    if not number or isinstance(value, bool) or not (0 < value < math.inf):
        raise ValueError(f"{option}={value!r} must be a positive number, in the data's units")
    return float(value)


def check_types(obj: Labelled) -> None:
    """Refuse variables that would not come back in their type."""
    for field in fields_of(obj):
        if field.dtype.kind != "f":
            raise ArchiveError(
                f"{field.name!r} is of type {field.dtype}: an archive takes floating-point "
                "numbers; convert with .astype('float32') or .astype('float64')"
            )


def plan_for(source: Source, request: Request, rows: int) -> Plan:
    """Choose what the archive keeps, on a sample of the data; `rows` make a block."""
    fitted = source.fitted
    kept = fitted.standard.valid | source.ever_finite(rows)
    bounds = request.bounds(fitted.labels.variables)
    made_up = {name: f"variable_{v}" for v, name in enumerate(fitted.labels.variables)}
    arrays = file_names(made_up, taken=OF_LEVELS + OF_BLOCKS, endings=ENDINGS).values()
    wanted = [
        Variable(array=array, dtype=dtype, kept=own, lossless=request.lossless, **bound)
        for array, dtype, own, bound in zip(arrays, source.dtypes, kept, bounds, strict=True)
    ]
    values, season = (
        _joined([_by_lane(run) for run in runs])
        for runs in zip(*map(source.read, source.sample(SAMPLE)), strict=True)
    )
    return choose(
        projecting(fitted),
        values,
        season,
        wanted,
        length=max(GROWN, source.n_rows * math.prod(source.lanes)),
        levels=request.levels,
        codes=request.codes,
    )


def _by_lane(array: np.ndarray) -> np.ndarray:
    """Return (row, lane, ...) as one lane after the other, (snapshot, ...)."""
    return array.swapaxes(0, 1).reshape(-1, *array.shape[2:])


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return one array after the other; one alone is not copied."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def describe(source: Source, plan: Plan, rows: int, made_from: str) -> dict[str, Any]:
    """Return an archive's description, without blocks; what is put as arrays is not in it."""
    fitted, pyramid = plan.fitted, plan.fitted.codec.pyramid
    valid = [standard.valid for standard in fitted.codec.standards]
    cuts = [pyramid.cut(level)[1:] for level in range(pyramid.levels)]
    return {
        "format_version": FORMAT_VERSION,
        "xmrcae_version": __version__,
        "sample": [dim for dim in (source.append, *source.others) if dim is not None],
        "append": source.append,
        "lanes": list(source.lanes),
        "rows_per_block": rows,
        "horizontal": [pyramid.grid.y, pyramid.grid.x],
        "descending": source.descending,
        "levels": [
            {"shape": list(own.shape[1:]), "cut": [[cut.start, cut.stop] for cut in cuts[k]]}
            for k, own in enumerate(valid)
        ],
        "seasons": len(plan.bases[0].maps[-1]),
        "code_steps": [each.tolist() for each in plan.code_steps],
        "code_weights": plan.code_weights,
        "codes_by": fitted.encoder,
        "made_from": made_from,
        "names": fitted.labels.variables,
        "variables": [_variable(plan, v) for v in range(len(plan.bases))],
    }


def _variable(plan: Plan, v: int) -> dict[str, Any]:
    """Return the description of one variable."""
    variable, base = plan.coder.variables[v], plan.bases[v]
    return {
        "array": variable.array,
        "dtype": variable.dtype.name,
        "scale": variable.scale,
        "max_error": variable.max_error,
        "rmse": variable.rmse,
        "lossless": variable.lossless,
        "weights": None if variable.predictor is None else variable.predictor.weights,
        "base": {"steps": base.steps, "weights": base.weights},
    }


def put_arrays(writer: ArchiveWriter, plan: Plan, coordinates: list[Any]) -> None:
    """Write model, masks, classes and base maps."""
    coder, finest = plan.coder, len(plan.code_steps) - 1
    kept = np.stack([variable.kept for variable in coder.variables])
    masks = [*coder.decoder.valid[:-1], kept]
    bits = np.packbits(np.concatenate([mask.ravel() for mask in masks]))
    writer.put_static("masks", bits, ["byte"])
    for level in range(finest + 1):
        maps = np.concatenate([base.differences[level] for base in plan.bases], axis=1)
        writer.put_static(f"level_{level}/base", maps, ["term", "pixel"])
    for variable in coder.variables:
        if variable.classes is not None:
            path = f"level_{finest}/{variable.array}_classes"
            writer.put_static(path, variable.classes, ["pixel"])
    datasets, attrs = fitted_to_datasets(plan.fitted, base_maps=False, all_epochs=False)
    header = {"attrs": attrs, "coordinates": coordinates}
    writer.put_static(parts.PATH, parts.packed(datasets, header), ["byte"])


def put_labels(
    writer: ArchiveWriter, plan: Plan, source: Source, static: Mapping[str, xr.Variable]
) -> list[Any]:
    """Write labels that have no rows, and the coordinates of coarser levels.

    Returns
    -------
    list
        For each level but the finest, what labelling says of its coordinates.
    """
    for name, variable in static.items():
        writer.put_static(f"labels/{name}", variable.values, [str(dim) for dim in variable.dims])
    pyramid = plan.fitted.codec.pyramid
    layout = source.layout
    records = []
    for level in range(pyramid.levels - 1):
        coords = layout.orient(pyramid.coordinates(level))
        horizontal = pyramid.grid.y, pyramid.grid.x
        record, plain, _ = labelling.describe(coords, (), None, horizontal, taken=OF_LEVELS)
        records.append(record)
        attrs = labelling.stored(record)
        for name, variable in plain.items():
            dims, own = [str(dim) for dim in variable.dims], labelling.attributes(attrs[name])
            writer.put_static(f"level_{level}/{name}", variable.values, dims, own)
    return records
