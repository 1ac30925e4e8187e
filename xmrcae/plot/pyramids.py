"""Levels of a pyramid side by side."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import dask.base
import xarray as xr

from ..grid.coordinates import Grid
from ..grid.dimensions import Dimensions, find_dimensions
from ..grid.pyramid import Pyramid
from .panels import Scale, draw_panels, surface_of
from .surfaces import with_positions
from .text import when

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def pyramid(
    tree: xr.DataTree,
    *,
    variable: Any = None,
    cmap: Any = None,
    fig: Any = None,
    **map_options: Any,
) -> Figure:
    """Draw one snapshot on every level of a pyramid.

    Parameters
    ----------
    tree : xarray.DataTree
        As ``da.mrcae.pyramid()`` gives it, at one time.
    variable : str, optional
        Which variable to draw; the first by default.
    cmap : str or matplotlib.colors.Colormap, optional
        "viridis" by default. Its scale is the range of the finest level.
    fig : matplotlib.figure.Figure or SubFigure, optional
        Where to draw; a new figure of pyplot's by default.
    **map_options
        `projection`, `transform`, `coastlines` and `subplot_kws`, as for
        :meth:`ModelPlots.refinement`. The coast is where the finest level has no data.

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
        need = "a DataTree with /level_0 and up, as da.mrcae.pyramid() gives it"
        raise TypeError(f"tree: {need}; got {type(tree)}")
    levels = [f"level_{k}" for k in range(len(tree.children)) if f"level_{k}" in tree.children]
    nodes = [tree[level].to_dataset() for level in levels]
    names = [str(name) for name in nodes[-1].data_vars]
    variable = names[0] if variable is None and names else variable
    if any(variable not in node.data_vars for node in nodes):
        raise ValueError(f"variable={variable!r}: the pyramid holds {', '.join(names) or 'none'}")
    options = json.loads(tree.attrs.get("xmrcae_options", "{}"))
    fields = [node[variable] for node in nodes]
    sample, dims = _dimensions(fields[-1], options)
    others = dict.fromkeys(set(fields[-1].dims) - {dims.y, dims.x}, 0)
    fields = [field.isel(others).transpose(dims.y, dims.x) for field in fields]
    fields = list(dask.base.compute(*fields))  # together, as they come from the same chunk

    grid = Grid.of(fields[-1], dims, periodic=options.get("periodic"))
    fields = [grid.turned(field) for field in fields]
    surface = surface_of(grid, fields[-1].notnull(), **map_options)
    whole = Pyramid.of(grid, levels=len(fields), restriction="full_weighting")
    titles = [size_of(k, field) for k, field in enumerate(fields)]
    titles[-1] += when(fields[-1], sample)
    scale = Scale.range_of(fields[-1], cmap)
    fields = [with_positions(field, whole, k) for k, field in enumerate(fields)]
    row = [(field, title, scale) for field, title in zip(fields, titles, strict=True)]
    return draw_panels([row], surface, fig=fig)


def size_of(level: int, field: xr.DataArray) -> str:
    """Return a level and its rows and columns, as text."""
    return f"level {level} ({' × '.join(map(str, field.shape))})"


def _dimensions(field: xr.DataArray, options: dict[str, Any]) -> tuple[list[str], Dimensions]:
    """Return the names of what a snapshot lies along, and its horizontal dimensions."""
    horizontal = options.get("horizontal")
    single = [d for d, n in field.sizes.items() if n == 1 and d not in (horizontal or ())]
    alone = field.isel(dict.fromkeys(single, 0)).expand_dims("(snapshot)")
    try:
        dims = find_dimensions(alone, horizontal=horizontal, sample="(snapshot)")
    except ValueError as error:
        got = ", ".join(f"{dim}: {n}" for dim, n in field.sizes.items())
        raise ValueError(
            f"one snapshot is drawn; got {got}: select one, such as tree.isel(time=0), that lies "
            f"on two horizontal dimensions ({error})"
        ) from None
    others = [str(dim) for dim in field.dims if dim not in (dims.y, dims.x)]
    given = options.get("sample") or ["time", *others]
    return [given] if isinstance(given, str) else list(dict.fromkeys(given)), dims
