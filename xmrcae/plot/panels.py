"""What all pictures are put together from: a figure, its panels and colour bars, colours and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from ..grid.dimensions import Labelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .surfaces import Surface

LAND = "0.8"


def new_figure(size: tuple[float, float]) -> Figure:
    """A figure of pyplot's, so that notebooks show it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f'plots need matplotlib ({error}): pip install "xmrcae[plot]"') from error
    return plt.figure(figsize=size, layout="constrained")


def with_land(cmap: Any, n: int | None = None) -> Any:
    """A colour map with grey land; of n colours."""
    from matplotlib import colormaps

    colours = colormaps.get_cmap(cmap or "viridis")
    return (colours if n is None else colours.resampled(n)).with_extremes(bad=LAND)


def limits(field: xr.DataArray) -> tuple[float, float]:
    """The range of a field, wider than nothing: matplotlib widens an empty one for the panel with the bar alone."""
    low, high = float(field.min()), float(field.max())
    room = 0.0 if high > low else 0.1 * abs(low) or 0.1
    return low - room, high + room


def label(obj: xr.DataArray, what: str = "") -> str:
    """The name of an array, or what it is of, with its units."""
    name = what or obj.attrs.get("long_name") or obj.attrs.get("standard_name") or obj.name or "value"
    return f"{name} [{obj.attrs['units']}]" if "units" in obj.attrs else str(name)


def when(snapshot: Labelled, sample: Sequence[str]) -> str:
    """The place of a snapshot along its sample dimensions, as text."""
    places = [(dim, snapshot[dim].squeeze().values[()]) for dim in sample if dim in snapshot.coords]
    return "".join(f", {_place(dim, value)}" for dim, value in places)


def _place(dim: str, value: Any) -> str:
    """A value along one of them; the time of day only if it is not midnight."""
    if isinstance(value, tuple):  # of a stacked dimension
        return ", ".join(_place(dim, part) for part in value)
    if isinstance(value, np.timedelta64 | pd.Timedelta):  # before integers, which NumPy counts it among
        return f"{dim} {str(pd.Timedelta(value)).removesuffix(' 00:00:00')}"
    if isinstance(value, int | np.integer):
        return f"{dim} {value}"
    if isinstance(value, float | np.floating):
        return f"{dim} {value:.4g}"
    if isinstance(value, np.datetime64) or hasattr(value, "strftime"):
        return str(value)[:19].replace(" ", "T").removesuffix(":00").removesuffix("T00:00")
    return str(value)[:24]


def columns_of(n: int, shape: float) -> int:
    """Panels side by side, for n panels of a height over width."""
    return n if n <= (3 if shape < 0.65 else 5) else -(-n // 2)


def board(
    fig: Any, spots: Sequence[tuple[int, int]], surface: Surface, *, bars: int
) -> tuple[Any, list[Axes], list[Axes]]:
    """Panels at (row, column), and below them a colour bar; a second is under the last column."""
    rows, columns = (max(spot[i] for spot in spots) + 1 for i in (0, 1))
    width = {1: 6.0, 2: 4.6, 3: 3.7}.get(columns, 3.0)
    if fig is None:
        fig = new_figure((columns * width, rows * (width * surface.shape + 0.3) + 1.0))
    cells = fig.add_gridspec(rows + 1, columns, height_ratios=[1.0] * rows + [0.15 / (width * surface.shape)])
    axes: list[Axes] = []
    for row, column in spots:
        left, bottom = (row, column - 1) not in spots, (row + 1, column) not in spots
        axes.append(surface.panel(fig, cells[row, column], axes[0] if axes else None, left=left, bottom=bottom))
    parts = [cells[-1, :]] if bars == 1 else [cells[-1, :-1], cells[-1, -1]]
    return fig, axes, [fig.add_subplot(part, label="<colorbar>") for part in parts]  # as matplotlib names its own


def colour_bar(fig: Any, mesh: Any, ax: Axes, text: str, *, narrow: bool = False, **kwargs: Any) -> Any:
    """A colour bar below the panels, with few enough numbers for its width."""
    from matplotlib.ticker import MaxNLocator

    kwargs = {"ticks": MaxNLocator(3 if narrow else 6, min_n_ticks=3)} | kwargs
    bar = fig.colorbar(mesh, cax=ax, orientation="horizontal", label=text, **kwargs)
    bar.formatter.set_locs(bar.get_ticks())
    if bar.formatter.get_offset():  # room for a power of ten beside the label
        bar.ax.xaxis.labelpad += 10
    return bar
