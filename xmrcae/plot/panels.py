"""Panels of fields that share a surface, with bars below that tell what their colours mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr

from ..grid.coordinates import Grid
from .surfaces import Surface
from .text import label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAND = "0.8"


@dataclass(frozen=True, eq=False)
class Scale:
    """What colours mean, on all panels that share it.

    The bar has the label `text` and the ends `low` and `high`, pointed where fields go beyond.
    With `n` there is one colour for each of the whole numbers below n, which `names` may name.
    """

    text: str
    low: float = -0.5
    high: float = 0.5
    cmap: Any = None
    n: int = 0
    names: Sequence[str] | None = None

    @classmethod
    def range_of(cls, field: xr.DataArray, cmap: Any) -> Scale:
        """Return the scale of a field's range; an empty one is widened as for all panels alike."""
        low, high = float(field.min()), float(field.max())
        room = 0.0 if high > low else 0.1 * abs(low) or 0.1
        return cls(label(field), low - room, high + room, cmap)

    @property
    def style(self) -> dict[str, Any]:
        """What matplotlib takes; land is grey."""
        from matplotlib import colormaps

        colours = colormaps.get_cmap(self.cmap or "viridis")
        colours = colours.resampled(self.n) if self.n else colours
        return {"cmap": colours.with_extremes(bad=LAND), "vmin": self.low, "vmax": self.high}

    def extend(self, fields: Sequence[xr.DataArray]) -> str:
        """Return at which ends fields go beyond the scale."""
        below = any(float(field.min()) < self.low for field in fields)
        above = any(float(field.max()) > self.high for field in fields)
        return ("both" if above else "min") if below else ("max" if above else "neither")


def surface_of(
    grid: Grid,
    valid: xr.DataArray,
    *,
    projection: Any = "auto",
    transform: Any = None,
    coastlines: str | None = "data",
    subplot_kws: Any = None,
) -> Surface:
    """Return what fields on a grid and its coarser levels are drawn on.

    `grid` is the finest level's, and `valid` (y, x) tells where it has no land. The options are
    those of :meth:`xmrcae.plot.ModelPlots.refinement`, and so are the errors.
    """
    choices = ("data", "natural_earth", None)
    if coastlines not in choices:
        raise ValueError(f"coastlines={coastlines!r} is not an option; choose from {choices}")
    kws = dict(subplot_kws or {})
    projection = kws.pop("projection", projection)
    if projection is None:
        return Surface(grid, kws)
    try:
        from .geographic import map_of
    except ImportError:  # cartopy
        if not isinstance(projection, str) or transform is not None:
            raise
        return Surface(grid, kws)
    return map_of(grid, valid, projection, transform, coastlines, kws) or Surface(grid, kws)


def draw_panels(
    rows: Sequence[Sequence[tuple[xr.DataArray, str, Scale]]],
    surface: Surface,
    *,
    fig: Any = None,
    right: int = 0,
) -> Figure:
    """Draw fields side by side, with a bar for each scale below.

    Parameters
    ----------
    rows : sequence of sequences of (xarray.DataArray (y, x), str, Scale)
        Fields, titles and scales. Each sequence begins a row, and goes on in the next where it is
        too long. There are one or two scales; the bar of the second is under the last column.
    surface : Surface
        What to draw on.
    fig : matplotlib.figure.Figure or SubFigure, optional
        Where to draw; a new figure of pyplot's by default.
    right : int
        So many of the last panels go to the right end of their row.
    """
    fields, titles, scales = zip(*(panel for row in rows for panel in row), strict=True)
    places = [surface.place(field) for field in fields]
    surface.frame(places)
    bars = list(dict.fromkeys(scales))
    columns = _columns(max(len(bars), *map(len, rows)), surface.shape)
    spots: list[tuple[int, int]] = []
    for each in rows:
        first = spots[-1][0] + 1 if spots else 0
        spots += [(first + i // columns, i % columns) for i in range(len(each))]
    for i in range(1, right + 1):
        spots[-i] = spots[-1][0], columns - i
    n_rows, width = spots[-1][0] + 1, {1: 6.0, 2: 4.6, 3: 3.7}.get(columns, 3.0)
    fig = fig or new_figure((columns * width, n_rows * (width * surface.shape + 0.3) + 1.0))
    heights = [1.0] * n_rows + [0.15 / (width * surface.shape)]
    cells = fig.add_gridspec(n_rows + 1, columns, height_ratios=heights)
    meshes: dict[Scale, Any] = {}
    first_axes = None  # whose limits all share
    for (row, column), place, title, scale in zip(spots, places, titles, scales, strict=True):
        outer = {"left": (row, column - 1) not in spots, "bottom": (row + 1, column) not in spots}
        ax = surface.panel(fig, cells[row, column], first_axes, **outer)
        first_axes = first_axes or ax
        meshes[scale] = surface.draw(ax, place, title, **scale.style)
    parts = [cells[-1, :]] if len(bars) == 1 else [cells[-1, :-1], cells[-1, -1]]
    for scale, part in zip(bars, parts, strict=True):
        shown = [field for field, own in zip(fields, scales, strict=True) if own is scale]
        kwargs = {"narrow": scale is not bars[0], "extend": scale.extend(shown)}
        bar = colour_bar(fig, meshes[scale], part, scale.text, **kwargs)
        if scale.n:
            bar.set_ticks(range(0, scale.n, 1 + (scale.n - 1) // 12), labels=scale.names)
    return fig


def _columns(n: int, shape: float) -> int:
    """Return how many of n panels of a height over width lie side by side."""
    return n if n <= (3 if shape < 0.65 else 5) else -(-n // 2)


def new_figure(size: tuple[float, float]) -> Figure:
    """Return a figure of pyplot's, so that notebooks show it."""
    return import_pyplot().figure(figsize=size, layout="constrained")


def import_pyplot() -> Any:
    """Import pyplot; an ImportError says how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            f'figures need matplotlib ({error}): pip install "xmrcae[plot]"'
        ) from error
    return plt


def colour_bar(fig: Any, mesh: Any, cell: Any, text: str, *, narrow: bool, **kwargs: Any) -> Any:
    """Draw a colour bar below the panels, with few enough numbers for its width."""
    from matplotlib.ticker import MaxNLocator

    ax = fig.add_subplot(cell, label="<colorbar>")  # as matplotlib names its own
    ticks = {"ticks": MaxNLocator(3 if narrow else 6, min_n_ticks=3)}
    bar = fig.colorbar(mesh, cax=ax, orientation="horizontal", label=text, **ticks | kwargs)
    bar.formatter.set_locs(bar.get_ticks())
    if bar.formatter.get_offset():  # room for a power of ten beside the label
        bar.ax.xaxis.labelpad += 10
    return bar
