"""How models and accessors show themselves, as text and in notebooks: nothing is computed, and nothing raises."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from .grid.coordinates import Grid
from .grid.dimensions import find_dimensions, fittable_variables
from .grid.pyramid import Pyramid
from .grid.split import PARTS
from .grid.units import unit_text
from .options import Options

if TYPE_CHECKING:
    from .model import MrCAE

Rows = list[tuple[str, str]]


def text(model: MrCAE) -> str:
    """A line on the model and a row a level; the options that are not defaults before it is fitted."""
    if model._fitted is None:
        return _lines(_printable("MrCAE (not fitted)"), _options(model))
    lines = [_printable(summary(model)), table(model).to_string(), *advice(model)]
    return "\n".join(lines)


def as_html(model: MrCAE) -> str:
    """The same for notebooks, escaped."""
    if model._fitted is None:
        return _table("MrCAE (not fitted)", _options(model))
    first, *others = (f"<p>{html.escape(line)}</p>" for line in (summary(model), *advice(model)))
    return f"<div>{first}{table(model).to_html(escape=True)}{''.join(others)}</div>"


def summary(model: MrCAE) -> str:
    """Variables, levels, parameters, split."""
    fitted = model.fitted
    parts = fitted.split.values.ravel()
    counts = ", ".join(f"{int((parts == part).sum())} {part}" for part in PARTS)
    what = ", ".join("unnamed" if name is None else str(name) for name in fitted.variables)
    state = "partial, " if model.partial else ""
    return f"MrCAE ({state}{what}; {model.levels} levels, {model.n_parameters} parameters; snapshots: {counts})"


def advice(model: MrCAE) -> list[str]:
    """Return what to do where the encoding holds more numbers than the data; nothing elsewhere."""
    encoded = int(model.encoding_sizes[-1])
    n_values = int(model.fitted.inference.standards[-1].valid.sum())
    if encoded <= n_values:
        return []
    return [
        f"The encoding holds more numbers ({encoded}) than a snapshot ({n_values}): fit with a "
        "larger tolerance, fewer channels, or encoding_size="
    ]


def table(model: MrCAE) -> pd.DataFrame:
    """A row a level: grid, groups, active share of each, parameters, validation rmse, encoding size."""
    fitted, history = model.fitted, model.history
    network = fitted.inference.network
    sizes = model.encoding_sizes.values
    rows = []
    for k, level in enumerate(network.levels):
        storable = max(1, int(network.storable[k].any(0).sum()))
        last = np.flatnonzero(history["level"].values == k)
        rmse = float(history["validation_mse"].values[last[-1]]) ** 0.5 if len(last) else np.nan
        if not np.isfinite(rmse):  # trained by the model that this one went on from
            error = "-"
        elif fitted.is_dataset:
            error = f"{rmse:.3g} (scaled)"
        else:
            units = _printable(unit_text(fitted.attrs[0]) or "")
            error = f"{rmse * fitted.standard.scale[0]:.3g} {units}".strip()
        rows.append({
            "level": k,
            "grid": " x ".join(map(str, fitted.inference.standards[k].valid.shape[1:])),
            "groups": len(level.groups),
            "active share": " ".join(f"{group.n_cells / storable:.0%}" for group in level.groups) or "-",
            "parameters": sum(parameter.numel() for parameter in level.parameters()),
            "validation rmse": error,
            "encoding size": int(sizes[k]),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("level")


def accessor_text(obj: Any) -> str:
    """What the accessor sees of a DataArray or Dataset."""
    return _lines(f"mrcae accessor of {_kind(obj)}", seen(obj))


def accessor_html(obj: Any) -> str:
    """The same for notebooks, escaped."""
    return _table(f"mrcae accessor of {_kind(obj)}", seen(obj))


def seen(obj: Any) -> Rows:
    """Dimensions, levels by default and where the values are; or why `fit` and `pyramid` refuse the data."""
    try:
        return _seen(obj)
    except Exception as error:  # whatever is odd about data, looking at them works
        return [("not usable", _printable(error) or type(error).__name__)]


def _seen(obj: Any) -> Rows:
    if isinstance(obj, xr.Dataset):
        names = fittable_variables(obj)
        if len(names) != 1:
            what = f"one of, or a list of: {', '.join(map(_printable, names))}"
            if not names:
                return [("not usable", "no numeric variable has a sample and two horizontal dimensions")]
            return [("variables", what), ("next", f".fit({names[0]!r}) or .pyramid({names[0]!r})")]
        return [("variable", _printable(names[0])), *_seen(obj[names[0]])]
    if obj.dtype.kind not in "iuf":
        return [("not usable", f"numbers are needed; dtype is {_printable(obj.dtype)}")]
    dims = find_dimensions(obj)
    grid = Grid.of(obj, dims)
    pyramid = Pyramid.of(grid, levels=None, restriction="full_weighting")
    empty = [dim for dim in dims.sample if not obj.sizes[dim]]
    if empty:
        return [("not usable", f"no snapshot: dimension {_printable(empty[0])} has size 0")]
    shapes = [tuple(len(range(*axis.inside(k).indices(axis.length(k)))) for axis in (pyramid.y, pyramid.x))
              for k in range(pyramid.levels)]  # fmt: skip
    periodic = ", periodic" if grid.periodic else ""
    where = f"lazy, {int(np.prod([len(sizes) for sizes in obj.chunks]))} chunks" if obj.chunks else "not lazy"
    return [
        ("horizontal", f"{_size(obj, dims.y)}, {_size(obj, dims.x)}{periodic}"),
        ("sample", ", ".join(_size(obj, dim) for dim in dims.sample)),
        ("levels", f"{pyramid.levels} by default: {', '.join(f'{rows} x {columns}' for rows, columns in shapes)}"),
        ("values", f"{obj.dtype}, {where}"),
    ]


def _options(model: MrCAE) -> Rows:
    given, default = (json.loads(options.to_json()) for options in (model.options, Options()))
    rows = [(name, _printable(value)) for name, value in given.items() if value != default[name]]
    return rows or [("options", "all as by default")]


def _kind(obj: Any) -> str:
    name = f" {_printable(obj.name)}" if getattr(obj, "name", None) is not None else ""
    return f"{type(obj).__name__}{name}"


def _size(obj: Any, dim: str) -> str:
    return f"{_printable(dim)}: {obj.sizes[dim]}"


def _printable(value: Any) -> str:
    """A value as text of one line."""
    return "".join(each if each.isprintable() else " " for each in str(value))


def _lines(title: str, rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join([title, *(f"    {name + ':':<12} {value}" for name, value in rows)])


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return f"<div><p>{html.escape(title)}</p><table>{cells}</table></div>"
