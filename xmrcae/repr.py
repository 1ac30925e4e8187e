"""How models and accessors show themselves: nothing is computed, and nothing raises."""

from __future__ import annotations

import html
import json
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from .fitted import Fitted
from .grid.description import describe
from .grid.dimensions import fittable_variables
from .grid.split import PARTS
from .grid.units import unit_text
from .options import Options
from .text import Rows, as_lines, as_table, printable


def text(fitted: Fitted | None, options: Options) -> str:
    """Describe a model on a line and with a row per level; before a fit, by its options."""
    if fitted is None:
        return as_lines("MrCAE (not fitted)", _options(options))
    return "\n".join([printable(summary(fitted)), table(fitted).to_string(), *advice(fitted)])


def as_html(fitted: Fitted | None, options: Options) -> str:
    """Describe the same for notebooks, escaped."""
    if fitted is None:
        return as_table("MrCAE (not fitted)", _options(options))
    first, *others = (f"<p>{html.escape(line)}</p>" for line in (summary(fitted), *advice(fitted)))
    return f"<div>{first}{table(fitted).to_html(escape=True)}{''.join(others)}</div>"


def summary(fitted: Fitted) -> str:
    """Name variables, levels, parameters, split."""
    parts = fitted.split.values.ravel()
    counts = ", ".join(f"{int((parts == part).sum())} {part}" for part in PARTS)
    names = fitted.labels.variables
    what = ", ".join("unnamed" if name is None else str(name) for name in names)
    state = "partial, " if fitted.partial else ""
    levels, parameters = fitted.codec.pyramid.levels, fitted.codec.network.n_parameters
    return f"MrCAE ({state}{what}; {levels} levels, {parameters} parameters; snapshots: {counts})"


def advice(fitted: Fitted) -> list[str]:
    """Say what to do where the encoding holds more numbers than the data; nothing elsewhere."""
    encoded = int(fitted.encoding_sizes[-1])
    n_values = int(fitted.standard.valid.sum())
    if encoded <= n_values:
        return []
    return [
        f"The encoding holds more numbers ({encoded}) than a snapshot ({n_values}): fit with a "
        "larger tolerance, fewer channels, or encoding_size="
    ]


def table(fitted: Fitted) -> pd.DataFrame:
    """Give a row per level: grid, groups, active shares, parameters, error, encoding size."""
    history, network = fitted.history, fitted.codec.network
    rows = []
    for level, standard in enumerate(fitted.codec.standards):
        last = np.flatnonzero(history["level"].values == level)
        mse = float(history["validation_mse"].values[last[-1]]) if len(last) else np.nan
        shares = network.active_share(level)
        row = {
            "level": level,
            "grid": " x ".join(map(str, standard.valid.shape[1:])),
            "groups": len(shares),
            "active share": " ".join(f"{share:.0%}" for share in shares) or "-",
            "parameters": sum(network.stage_parameters(level)),
            "validation rmse": _error(fitted, mse**0.5),
            "encoding size": int(fitted.encoding_sizes[level]),
        }
        rows.append(row)
    return pd.DataFrame(rows).set_index("level")


def _error(fitted: Fitted, rmse: float) -> str:
    """Write an error of scaled data in the data's units, if there is one variable."""
    if not np.isfinite(rmse):  # trained by the model that this one went on from
        return "-"
    if fitted.labels.is_dataset:
        return f"{rmse:.3g} (scaled)"
    units = printable(unit_text(fitted.labels.attrs[0]) or "")
    return f"{rmse * fitted.standard.scale[0]:.3g} {units}".strip()


def accessor_text(obj: Any) -> str:
    """Describe what the accessor sees of a DataArray or Dataset."""
    return as_lines(f"mrcae accessor of {_kind(obj)}", seen(obj))


def accessor_html(obj: Any) -> str:
    """Describe the same for notebooks, escaped."""
    return as_table(f"mrcae accessor of {_kind(obj)}", seen(obj))


def seen(obj: Any) -> Rows:
    """Find dimensions, default levels and where values are; or why the data are refused."""
    try:
        return _seen(obj)
    except Exception as error:  # whatever is odd about data, looking at them works
        return [("not usable", printable(error) or type(error).__name__)]


def _seen(obj: Any) -> Rows:
    if isinstance(obj, xr.Dataset):
        names = fittable_variables(obj)
        if len(names) != 1:
            what = f"one of, or a list of: {', '.join(map(printable, names))}"
            if not names:
                return [
                    ("not usable", "no numeric variable has a sample and two horizontal dimensions")
                ]
            return [("variables", what), ("next", f".fit({names[0]!r}) or .pyramid({names[0]!r})")]
        return [("variable", printable(names[0])), *_seen(obj[names[0]])]
    if obj.dtype.kind not in "iuf":
        return [("not usable", f"numbers are needed; dtype is {printable(obj.dtype)}")]
    about = describe(obj, Options())
    pyramid, sample = about.pyramid, about.labels.sample
    empty = [dim for dim in sample if not obj.sizes[dim]]
    if empty:
        return [("not usable", f"no snapshot: dimension {printable(empty[0])} has size 0")]
    points = [pyramid.points(level) for level in range(pyramid.levels)]
    shapes = [f"{len(rows)} x {len(columns)}" for rows, columns in points]
    grid = pyramid.grid
    periodic = ", periodic" if grid.periodic else ""
    n_chunks = int(np.prod([len(sizes) for sizes in obj.chunks])) if obj.chunks else 0
    where = f"lazy, {n_chunks} chunks" if n_chunks else "not lazy"
    return [
        ("horizontal", f"{_size(obj, grid.y)}, {_size(obj, grid.x)}{periodic}"),
        ("sample", ", ".join(_size(obj, dim) for dim in sample)),
        ("levels", f"{pyramid.levels} by default: {', '.join(shapes)}"),
        ("values", f"{obj.dtype}, {where}"),
    ]


def _options(options: Options) -> Rows:
    given, default = (json.loads(each.to_json()) for each in (options, Options()))
    rows = [(name, printable(value)) for name, value in given.items() if value != default[name]]
    return rows or [("options", "all as by default")]


def _kind(obj: Any) -> str:
    name = f" {printable(obj.name)}" if getattr(obj, "name", None) is not None else ""
    return f"{type(obj).__name__}{name}"


def _size(obj: Any, dim: str) -> str:
    return f"{printable(dim)}: {obj.sizes[dim]}"
