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
    """What :meth:`xmrcae.plot.ModelPlots.filters` documents."""
    available = range(len(level.groups) + 1)
    whole = isinstance(group, int | np.integer) and not isinstance(group, bool)
    if group is not None and not (whole and group in available):
        raise ValueError(
            f"group={group!r}: level {number} has the groups {', '.join(map(str, available))} (0: its deepening)"
        )
    chosen = [*available] if group is None else [int(group)]
    weights = {
        "encoder": _weights(level, chosen, "encoder_weight"),
        "decoder": _weights(level, chosen, "decoder_weight"),
    }
    weights = {side: images for side, images in weights.items() if images}
    titles = []
    for j in chosen:
        n = level.groups[j - 1].channels if j else 1
        titles += [f"group {j}\nfilter {i + 1}" if j else "deepening" for i in range(n)]

    columns, rows = len(titles), len(weights) * len(variables)
    if fig is None:
        fig = new_figure((max(5.0, 0.95 * columns + 1.2), 0.95 * rows + 1.4))
    grid = fig.add_gridspec(rows + 1, 2 * columns, height_ratios=[1.0] * rows + [0.15])
    for k, (side, images) in enumerate(weights.items()):
        most = max(float(np.abs(image).max()) for image in images) or 1.0
        for v, name in enumerate(variables):
            row = k * len(variables) + v
            for i, image in enumerate(images):
                ax = fig.add_subplot(grid[row, 2 * i : 2 * i + 2])
                mesh = ax.imshow(image[v], cmap=cmap or "RdBu_r", vmin=-most, vmax=most, origin="lower")
                ax.set(xticks=[], yticks=[])
                if row == 0:
                    ax.set_title(titles[i], fontsize="small")
                if i == 0:
                    ax.set_ylabel(side if len(variables) == 1 else f"{side}\n{name}", fontsize="small")
        below = grid[-1, k * columns : (k + 1) * columns] if len(weights) > 1 else grid[-1, :]
        colour_bar(fig, mesh, fig.add_subplot(below, label="<colorbar>"), f"weight of the {side} [1]", narrow=True)
    fig.suptitle(f"filters of level {number}", fontsize="medium")
    return fig


def _weights(level: Level, chosen: Sequence[int], name: str) -> list[np.ndarray]:
    """The weights of all filters of some groups, (variable, y, x) each; none where the codes are found otherwise."""
    found: list[np.ndarray] = []
    for j in chosen:
        layer: Any = level.groups[j - 1] if j else level.deepening
        if name in dict(layer.named_parameters()):
            weight = getattr(layer, name).detach().cpu().numpy()
            found += list(weight.reshape(len(weight) if j else 1, -1, 3, 3))
    return found
