"""Levels of a pyramid side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dask.base
import numpy as np
import xarray as xr

from ..grid.coordinates import Grid
from ..grid.dimensions import Dimensions, find_dimensions
from ..grid.pyramid import Pyramid
from .panels import board, colour_bar, columns_of, label, limits, when, with_land
from .surfaces import positions, surface_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pyramid(
    tree: xr.DataTree, *, variable: Any = None, cmap: Any = None, fig: Any = None, projection: Any = "auto",
    transform: Any = None, coastlines: str | None = "data", subplot_kws: Any = None,
) -> Figure:  # fmt: skip
    """One snapshot on every level of a pyramid.

    Parameters
    ----------
    tree : xarray.DataTree
        As ``da.mrcae.pyramid()`` gives it, at one time.
    variable : str, optional
        Which variable to draw; the first by default.
    cmap : str or matplotlib.colors.Colormap, optional
        "viridis" by default. Its scale is the range of the finest level.
    fig, projection, transform, coastlines, subplot_kws : optional
        As for :meth:`ModelPlots.reconstruction`. The coast is where the snapshot's finest level has no data.

    Returns
    -------
    matplotlib.figure.Figure
        What has no data is grey.

    Raises
    ------
    ValueError, TypeError
        If `tree` is no pyramid, holds several snapshots, or has no such variable.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import xmrcae
    >>> tree = xmrcae.datasets.drifting_mode(n_times=10, size=31).mrcae.pyramid(levels=2)
    >>> fig = xmrcae.plot.pyramid(tree.isel(time=0))
    >>> [ax.get_title() for ax in fig.axes[:2]]
    ['level 0 (15 × 15)', 'level 1 (31 × 31), time 0']
    >>> plt.close(fig)
    """
    if not isinstance(tree, xr.DataTree) or "level_0" not in tree.children:
        raise TypeError(f"tree: a DataTree with /level_0 and up, as da.mrcae.pyramid() gives it; got {type(tree)}")
    nodes = [tree[f"level_{k}"].to_dataset() for k in range(len(tree.children)) if f"level_{k}" in tree.children]
    names = [str(name) for name in nodes[-1].data_vars]
    variable = names[0] if variable is None and names else variable
    if any(variable not in node.data_vars for node in nodes):
        raise ValueError(f"variable={variable!r}: the pyramid holds {', '.join(names) or 'none'}")
    options = json.loads(tree.attrs.get("xmrcae_options", "{}"))
    fields = [node[variable] for node in nodes]
    sample, dims = _dimensions(fields[-1], options)
    fields = [field.isel(dict.fromkeys(set(field.dims) - {dims.y, dims.x}, 0)) for field in fields]
    fields = list(dask.base.compute(*fields))  # together, as they come from the same chunk

    grid = Grid.of(fields[-1], dims, periodic=options.get("periodic"))
    whole = Pyramid.of(grid, levels=len(fields), restriction="full_weighting")
    for k, field in enumerate(fields):
        at = [axis.positions(k)[axis.inside(k)] for axis in (whole.y, whole.x)]
        if [len(values) for values in at] == [field.sizes[dims.y], field.sizes[dims.x]]:
            fields[k] = field.assign_coords(positions((dims.y, dims.x), at))
    finest = fields[-1]
    surface = surface_of(
        grid, finest.notnull(), projection=projection, transform=transform, coastlines=coastlines,
        subplot_kws=subplot_kws,
    )  # fmt: skip
    places = [surface.place(field) for field in fields]
    surface.frame(places)
    columns = columns_of(len(places), surface.shape)
    fig, axes, bars = board(fig, [divmod(i, columns) for i in range(len(places))], surface, bars=1)
    low, high = limits(finest)
    for k, (ax, place) in enumerate(zip(axes, places, strict=True)):
        title = size_of(k, place.field) + when(finest, sample) * (k == len(places) - 1)
        mesh = surface.draw(ax, place, title, cmap=with_land(cmap), vmin=low, vmax=high)
    colour_bar(fig, mesh, bars[0], label(finest), extend=extension(fields, finest))
    surface.finish(axes)
    return fig


def size_of(level: int, field: xr.DataArray) -> str:
    """A level and its rows and columns, as text."""
    return f"level {level} ({' × '.join(map(str, field.shape))})"


def extension(fields: Sequence[xr.DataArray], scale: xr.DataArray) -> str:
    """At which ends of the range of `scale` other fields go beyond it."""
    below, above = (any(bool(way(f, end).any()) for f in fields) for way, end in (
        (np.less, scale.min()), (np.greater, scale.max())
    ))  # fmt: skip
    return ("both" if above else "min") if below else ("max" if above else "neither")


def _dimensions(field: xr.DataArray, options: dict[str, Any]) -> tuple[list[str], Dimensions]:
    """The names of what a snapshot lies along, and its horizontal dimensions."""
    alone = field.isel(
        {dim: 0 for dim, n in field.sizes.items() if n == 1 and dim not in (options.get("horizontal") or ())}
    )
    try:
        dims = find_dimensions(
            alone.expand_dims("(snapshot)"), horizontal=options.get("horizontal"), sample="(snapshot)"
        )
    except ValueError as error:
        got = ", ".join(f"{dim}: {n}" for dim, n in field.sizes.items())
        raise ValueError(
            f"one snapshot is drawn; got {got}: select one, such as tree.isel(time=0), that lies on two horizontal "
            f"dimensions ({error})"
        ) from None
    given = options.get("sample") or ["time", *(str(dim) for dim in field.dims if dim not in (dims.y, dims.x))]
    return [given] if isinstance(given, str) else list(dict.fromkeys(given)), dims
