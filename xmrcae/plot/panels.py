"""What all pictures are put together from: a figure, its panels and colour bars, colours and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import xarray as xr

from ..grid.coordinates import Labelled

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


def label(obj: xr.DataArray, what: str = "") -> str:
    """The name of an array, or what it is of, with its units."""
    name = what or obj.attrs.get("long_name") or obj.attrs.get("standard_name") or obj.name or "value"
    return f"{name} [{obj.attrs['units']}]" if "units" in obj.attrs else str(name)


def when(snapshot: Labelled, sample: Sequence[str]) -> str:
    """The place of a snapshot along its sample dimensions, as text."""
    values = [(dim, snapshot[dim].squeeze()) for dim in sample if dim in snapshot.coords]
    texts = [f"{d} {v.item():.4g}" if v.dtype.kind in "iuf" else str(v.values)[:16] for d, v in values]
    return "".join(f", {text.replace('T00:00', '').removesuffix(' 00:00')}" for text in texts)


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
    return fig.colorbar(mesh, cax=ax, orientation="horizontal", label=text, **kwargs)
