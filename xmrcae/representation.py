"""How a fitted model shows itself: nothing is computed but what is known."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .grid.snapshots import PARTS

if TYPE_CHECKING:
    from .model import MrCAE


def text(model: MrCAE) -> str:
    """A line on the model and a row a level."""
    return f"{summary(model)}\n{table(model).to_string()}"


def as_html(model: MrCAE) -> str:
    """The same for notebooks, escaped."""
    return f"<div><p>{html.escape(summary(model))}</p>{table(model).to_html(escape=True)}</div>"


def summary(model: MrCAE) -> str:
    """Variables, levels, parameters, split."""
    fitted = model.fitted
    parts = fitted.split.values.ravel()
    counts = ", ".join(f"{int((parts == part).sum())} {part}" for part in PARTS)
    what = ", ".join(str(name) for name in fitted.variables)
    state = "partial, " if model.partial else ""
    return f"MrCAE ({state}{what}; {model.levels} levels, {model.n_parameters} parameters; snapshots: {counts})"


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
        if fitted.is_dataset:
            error = f"{rmse:.3g} (scaled)"
        else:
            error = f"{rmse * fitted.standard.scale[0]:.3g} {fitted.attrs[0].get('units', '')}".strip()
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
