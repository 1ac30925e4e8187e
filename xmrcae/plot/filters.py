"""The filters of a level as small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .panels import colour_bar, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..core.network import Level


def draw_filters(
    level: Level, number: int, group: int | None, variables: Sequence[Any], *, cmap: Any, fig: Any
) -> Figure:
    """Draw what :meth:`xmrcae.plot.ModelPlots.filters` documents."""
    available = range(len(level.groups) + 1)
    whole = isinstance(group, int | np.integer) and not isinstance(group, bool)
    if group is not None and not (whole and group in available):
        groups = f"{', '.join(map(str, available))} (0: its deepening)"
        raise ValueError(f"group={group!r}: level {number} has the groups {groups}")
    weights: dict[str, list[np.ndarray]] = {"encoder": [], "decoder": []}
    titles: list[str] = []
    for j in available if group is None else [int(group)]:
        layer: Any = level.groups[j - 1] if j else level.deepening
        n = layer.channels if j else 1
        titles += [f"group {j}\nfilter {i + 1}" for i in range(n)] if j else ["deepening"]
        known = dict(layer.named_parameters())
        for side in weights:
            if f"{side}_weight" in known:  # not where codes are found otherwise
                values = known[f"{side}_weight"].detach().cpu().numpy()
                weights[side] += list(values.reshape(n, -1, 3, 3))
    weights = {side: images for side, images in weights.items() if images}

    columns, rows = len(titles), len(weights) * len(variables)
    fig = fig or new_figure((max(5.0, 0.95 * columns + 1.2), 0.95 * rows + 1.4))
    cells = fig.add_gridspec(rows + 1, 2 * columns, height_ratios=[1.0] * rows + [0.15])
    for k, (side, images) in enumerate(weights.items()):
        most = max(float(np.abs(image).max()) for image in images) or 1.0
        style = {"cmap": cmap or "RdBu_r", "vmin": -most, "vmax": most, "origin": "lower"}
        for v, name in enumerate(variables):
            row = k * len(variables) + v
            for i, image in enumerate(images):
                ax = fig.add_subplot(cells[row, 2 * i : 2 * i + 2], xticks=[], yticks=[])
                mesh = ax.imshow(image[v], **style)
                if row == 0:
                    ax.set_title(titles[i], fontsize="small")
                if i == 0:
                    text = side if len(variables) == 1 else f"{side}\n{name}"
                    ax.set_ylabel(text, fontsize="small")
        below = cells[-1, k * columns : (k + 1) * columns] if len(weights) > 1 else cells[-1, :]
        colour_bar(fig, mesh, below, f"weight of the {side} [1]", narrow=True)
    fig.suptitle(f"filters of level {number}", fontsize="medium")
    return fig
