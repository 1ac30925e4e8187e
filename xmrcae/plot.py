"""First pictures of a fitted model: where its filters act, what each level reconstructs, how training went.

Plain axes on the data's own coordinates, ascending to the right and upwards; land is grey.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .grid.coordinates import Grid, Labelled, is_geographic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

    from .model import MrCAE

LAND = "0.8"


class ModelPlots:
    """What ``model.plot`` offers. Every method returns the figure that it drew into; it shows and closes none."""

    def __init__(self, model: MrCAE) -> None:
        self._model = model

    def refinement(self, *, level: int | None = None, cmap: Any = None, fig: Any = None) -> Figure:
        """Where filters act: their number in each cell of every level's encoding, the paper's heat map.

        Parameters
        ----------
        level : int, optional
            Adds a map of each group of this level.
        cmap : str or matplotlib.colors.Colormap, optional
            "viridis" by default; cut into one colour a number of filters.
        fig : matplotlib.figure.Figure or SubFigure, optional
            Where to draw; a new figure of pyplot's by default.

        Returns
        -------
        matplotlib.figure.Figure
            Cells that are never stored, because nothing under them is to be described, are grey. The share in a title
            is that of `score`: active cells of all groups over cells that can act.
        """
        model = self._model
        chosen = None if level is None else model._level(level)
        masks = [model.refinement_map(level=k) for k in range(model.levels)]
        counts = [self._stored(model.refinement_count(level=k), k) for k in range(model.levels)]
        single = [] if chosen is None else [self._stored(group, chosen) for group in masks[chosen]]
        titles = [f"level {k}: {_share(self._stored(groups, k))}" for k, groups in enumerate(masks)]
        titles += [f"level {chosen}, group {int(mask['group'])}: {_share(mask)}" for mask in single]
        levels = [*range(len(counts)), *([chosen or 0] * len(single))]
        fields = [self._cropped(field, k) for field, k in zip([*counts, *single], levels, strict=True)]

        places = [_placed(field, self._grid) for field in fields]
        aspect, shape = _aspect(places[len(counts) - 1])
        columns = _columns(max(len(counts), len(single), 2 if single else 1), shape)
        spots = [divmod(i, columns) for i in range(len(counts))]
        spots += [(spots[-1][0] + 1 + i // columns, i % columns) for i in range(len(single))]
        fig, axes, bars = _board(fig, spots, shape, bars=2 if single else 1)
        most = max(int(count.max()) for count in counts)
        for i, (ax, place, title) in enumerate(zip(axes, places, titles, strict=True)):
            n = 2 if i >= len(counts) else most + 1
            mesh = _draw(ax, place, title, cmap=_with_land(cmap, n), vmin=-0.5, vmax=n - 0.5)
            if i == 0:
                label, ticks = "filters at work in a cell, the deepening's not counted", range(0, n, 1 + most // 12)
                ax.figure.colorbar(mesh, cax=bars[0], orientation="horizontal", label=label, ticks=ticks)
            elif i == len(counts):
                bar = ax.figure.colorbar(mesh, cax=bars[1], orientation="horizontal", label="group of filters")
                bar.set_ticks([0, 1], labels=["idle", "active"])
        self._finish(axes, aspect)
        return fig

    def reconstruction(self, snapshot: Labelled, *, variable: Any = None, cmap: Any = None, fig: Any = None) -> Figure:
        """One snapshot as every level reconstructs it, beside the data and the finest level's error.

        Parameters
        ----------
        snapshot : xarray.DataArray or xarray.Dataset
            On the fitted grid, at one time.
        variable : str, optional
            Which variable of a Dataset model to draw; the first by default.
        cmap : str or matplotlib.colors.Colormap, optional
            Of the fields, "viridis" by default. Their one scale is the data's range.
        fig : matplotlib.figure.Figure or SubFigure, optional
            Where to draw; a new figure of pyplot's by default.

        Returns
        -------
        matplotlib.figure.Figure
            Land, and pixels missing in the data, are grey.

        Raises
        ------
        ValueError
            For several snapshots, data on another grid, or a variable that the model was not fitted to.
        """
        *fields, data = self._levels_and_data(snapshot, variable)
        error = (fields[-1] - data).assign_attrs(data.attrs)
        rms, units = float(np.sqrt((error.astype(np.float64) ** 2).mean())), data.attrs.get("units", "1")
        titles = [f"level {k} ({' × '.join(map(str, field.shape))})" for k, field in enumerate(fields)]
        titles += [f"data{_when(snapshot, self._model.fitted.sample)}"]
        titles += [f"error of level {len(fields) - 1}, rms {rms:.2g}" + f" {units}" * (units != "1")]

        places = [_placed(field, self._grid) for field in (*fields, data, error)]
        aspect, shape = _aspect(places[-1])
        columns = _columns(len(places), shape)
        spots = [divmod(i, columns) for i in range(len(fields))]
        spots += [((len(places) - 1) // columns, columns - i) for i in (2, 1)]
        fig, axes, bars = _board(fig, spots, shape, bars=2)
        low, high, most = float(data.min()), float(data.max()), float(abs(error).max()) or 1.0
        for ax, place, title in zip(axes[:-1], places, titles, strict=False):
            mesh = _draw(ax, place, title, cmap=_with_land(cmap), vmin=low, vmax=high)
        below, above = any(bool((f < low).any()) for f in fields), any(bool((f > high).any()) for f in fields)
        extend = ("both" if above else "min") if below else ("max" if above else "neither")
        fig.colorbar(mesh, cax=bars[0], orientation="horizontal", label=_label(data), extend=extend)
        mesh = _draw(axes[-1], places[-1], titles[-1], cmap=_with_land("RdBu_r"), vmin=-most, vmax=most)
        fig.colorbar(mesh, cax=bars[1], orientation="horizontal", label=_label(error, "reconstruction − data"))
        self._finish(axes, aspect)
        return fig

    def history(self, *, ax: Any = None) -> Figure:
        """Losses against epoch, with a band a level and a line where each stage begins.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; in a new figure of pyplot's by default.

        Returns
        -------
        matplotlib.figure.Figure
            Stages too short for a label have only their line.

        Raises
        ------
        ValueError
            If training was interrupted before its first epoch.
        """
        history = self._model.history
        if not history.sizes["epoch"]:
            raise ValueError("the history is empty: training was interrupted before its first epoch; fit again")
        if ax is None:
            ax = _new_figure((9.0, 4.8)).add_subplot()
        epoch = history["epoch"].values
        for part, style in (("train", {"color": "C0"}), ("validation", {"color": "C1", "linestyle": "--"})):
            ax.plot(epoch, history[f"{part}_loss"], label=f"{part}, own level (3.1)", linewidth=1.2, **style)
        known = history["validation_global_loss"].dropna("epoch")
        ax.plot(known["epoch"], known, ".", color="black", markersize=4, label="validation, finest level (3.4)")
        ax.set(yscale="log", xlabel="epoch", xlim=(epoch[0] - 0.5, epoch[-1] + 0.5))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.set_ylabel(_label(history["train_loss"].assign_attrs(history.attrs), "loss"))
        _mark_stages(ax, history)
        ax.legend(fontsize="small", framealpha=0.9)
        return ax.figure

    @property
    def _grid(self) -> Grid:
        return self._model.fitted.inference.pyramid.grid

    def _finish(self, axes: list[Axes], aspect: float) -> None:
        """Show all of every panel, to scale and with north up."""
        for ax in axes:
            ax.set_aspect(aspect)
        axes[0].autoscale()  # which all share
        latitude = _curved(self._grid.coords.coords, "latitude")
        if latitude is not None and axes[0].get_ylabel().endswith("(position)"):
            northwards = self._grid.coords[latitude].transpose(self._grid.y, self._grid.x).diff(self._grid.y)
            axes[0].yaxis.set_inverted(bool(northwards.mean() < 0))

    def _stored(self, field: xr.DataArray, level: int) -> xr.DataArray:
        """A field on a level's encoding grid, NaN in the cells that are never stored."""
        fitted = self._model.fitted
        storable = fitted.inference.network.storable[level].any(0).cpu().numpy()
        return field.where(fitted.orient(xr.DataArray(storable, dims=(self._grid.y, self._grid.x))))

    def _cropped(self, field: xr.DataArray, level: int) -> xr.DataArray:
        """Without the outer rows and columns that are neither within the data's extent nor stored."""
        pyramid, dims = self._model.fitted.inference.pyramid, (self._grid.y, self._grid.x)
        keep = field["inside"]
        if all(coord.ndim < 2 for name, coord in field.coords.items() if name != "inside"):  # 2-D ones are NaN outside
            keep = keep | field.notnull()
        positions = [axis.positions(level - 1) for axis in (pyramid.y, pyramid.x)]
        field = field.drop_vars("inside").assign_coords(_positions(dims, positions))
        return field.isel({d: np.flatnonzero(keep.any([o for o in dims if o != d])) for d in dims})

    def _levels_and_data(self, snapshot: Labelled, variable: Any) -> list[xr.DataArray]:
        """The decoded levels and the data, (y, x), on ascending coordinates of the fitted grid."""
        fitted = self._model.fitted
        pyramid, dims = fitted.inference.pyramid, (self._grid.y, self._grid.x)
        variable = fitted.variables[0] if variable is None else variable
        if variable not in fitted.variables:
            raise ValueError(f"variable={variable!r}: the model was fitted to {', '.join(map(str, fitted.variables))}")
        snapshot = fitted.variables_of(snapshot)
        others = {dim: n for dim, n in snapshot.sizes.items() if dim not in dims}
        if any(n != 1 for n in others.values()):
            got = ", ".join(f"{dim}: {n}" for dim, n in others.items())
            raise ValueError(f"one snapshot is drawn; got {got}: select one, such as .isel({next(iter(others))}=0)")
        snapshot = snapshot.isel(dict.fromkeys(others, 0))
        snapshot = snapshot.isel(fitted.layout(snapshot).indexers).compute()
        codes = self._model.encode(snapshot)
        results = [*(self._model.decode(codes, level=k) for k in range(self._model.levels)), snapshot]
        panels = [result if isinstance(result, xr.DataArray) else result[variable] for result in results]
        panels = [panel.transpose(*dims).drop_vars(list(panel.coords)) for panel in panels]
        panels[-1] = panels[-1].where(panels[-2].notnull())
        panels[-1].attrs = fitted.attrs[fitted.variables.index(variable)] | panels[-1].attrs
        for i, level in enumerate([*range(self._model.levels), self._model.levels - 1]):
            positions = [axis.positions(level)[axis.inside(level)] for axis in (pyramid.y, pyramid.x)]
            coords = pyramid.coordinates(level).assign_coords(_positions(dims, positions))
            panels[i] = panels[i].assign_coords(coords.coords)
        return panels


def _positions(dims: Sequence[str], positions: Sequence[np.ndarray]) -> dict[str, Any]:
    """Coordinates of a grid that has none: where rows and columns lie, counted along the data."""
    return {f"{dim} (position)": (dim, values) for dim, values in zip(dims, positions, strict=True)}


def _placed(field: xr.DataArray, grid: Grid) -> tuple[xr.DataArray, str, str]:
    """A field and the names of what it is drawn along: 1-D coordinates; else 2-D that do not fold; else positions."""
    names: list[Any] = []
    for dim, kind in ((grid.y, "latitude"), (grid.x, "longitude")):
        flat = {name: c for name, c in field.coords.items() if c.dims == (dim,) and c.dtype.kind in "iuf"}
        names += [dim if dim in flat else next((name for name, c in flat.items() if is_geographic(c, kind)), None)]
    curved = [_curved(grid.coords.coords, kind) for kind in ("latitude", "longitude")]
    if None in names and None not in curved and min(field.shape) > 1:
        if all(_is_smooth(grid.coords[name].values) for name in curved):
            names = curved
    y, x = (name or f"{dim} (position)" for name, dim in zip(names, (grid.y, grid.x), strict=True))
    if is_geographic(field[x], "longitude"):  # from 359 to 360, not to 0
        axis = field[x].get_axis_num(grid.x)
        field = field.assign_coords({x: field[x].copy(data=np.unwrap(field[x].values, period=360, axis=axis))})
    return field, y, x


def _curved(coords: Any, kind: str) -> Any:
    """Name of the 2-D latitude or longitude."""
    return next((name for name, c in coords.items() if c.ndim == 2 and is_geographic(c, kind)), None)


def _is_smooth(values: np.ndarray) -> bool:
    """Whether no step between neighbours is far longer than most: not on a grid that folds or passes the date line."""
    steps = [np.abs(np.diff(values, axis=axis)) for axis in range(values.ndim)]
    return max(step.max() for step in steps) <= 10 * max(float(np.median(step)) for step in steps)


def _aspect(place: tuple[xr.DataArray, str, str]) -> tuple[float, float]:
    """How long a unit of y is drawn, in units of x, to scale where that is handy; and the map's height over width."""
    y, x = (place[0][name] for name in place[1:])
    ratio = float(np.ptp(y.values) or 1) / float(np.ptp(x.values) or 1)
    aspect = 1.0
    if is_geographic(y, "latitude"):
        aspect = 1 / float(np.cos(np.deg2rad((y.max() + y.min()) / 2)).clip(0.2))
    alike = is_geographic(x, "longitude") or y.attrs.get("units") == x.attrs.get("units")
    if not alike or not 0.2 < aspect * ratio < 3:
        aspect = 0.6 / ratio
    return aspect, aspect * ratio


def _draw(ax: Axes, place: tuple[xr.DataArray, str, str], title: str, **style: Any) -> QuadMesh:
    field, y, x = place
    mesh = field.plot.pcolormesh(y=y, x=x, ax=ax, add_colorbar=False, rasterized=True, **style)
    ax.set_title(title, fontsize="medium")
    return mesh


def _label(obj: xr.DataArray, what: str = "") -> str:
    """The name of an array, or what it is of, with its units."""
    name = what or obj.attrs.get("long_name") or obj.attrs.get("standard_name") or obj.name or "value"
    return f"{name} [{obj.attrs['units']}]" if "units" in obj.attrs else str(name)


def _when(snapshot: Labelled, sample: Sequence[str]) -> str:
    """The place of a snapshot along its sample dimensions, as text."""
    values = [(dim, snapshot[dim].squeeze()) for dim in sample if dim in snapshot.coords]
    texts = [f"{d} {v.item():.4g}" if v.dtype.kind in "iuf" else str(v.values)[:16] for d, v in values]
    return "".join(f", {text.replace('T00:00', '').removesuffix(' 00:00')}" for text in texts)


def _share(mask: xr.DataArray) -> str:
    return f"{float(mask.mean()):.0%} active" if mask.size else "no group"


def _with_land(cmap: Any, n: int | None = None) -> Any:
    """A colour map with grey land; of n colours."""
    from matplotlib import colormaps

    colours = colormaps.get_cmap(cmap or "viridis")
    return (colours if n is None else colours.resampled(n)).with_extremes(bad=LAND)


def _new_figure(size: tuple[float, float]) -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(f'plots need matplotlib ({error}): pip install "xmrcae[plot]"') from error
    return plt.figure(figsize=size, layout="constrained")


def _columns(n: int, shape: float) -> int:
    """Panels side by side, for maps of a shape."""
    return n if n <= (3 if shape < 0.65 else 5) else -(-n // 2)


def _board(fig: Any, spots: Sequence[Any], shape: float, *, bars: int) -> tuple[Any, list[Axes], list[Axes]]:
    """Panels at (row, column) that share their axes, and below them a colour bar; a second is under the last column."""
    rows, columns = (max(spot[i] for spot in spots) + 1 for i in (0, 1))
    width = {1: 6.0, 2: 4.6, 3: 3.7}.get(columns, 3.0)
    if fig is None:
        fig = _new_figure((columns * width, rows * (width * shape + 0.3) + 1.0))
    cells = fig.add_gridspec(rows + 1, columns, height_ratios=[1.0] * rows + [0.15 / (width * shape)])
    axes: list[Axes] = []
    for row, column in spots:
        first = axes[0] if axes else None
        ax = fig.add_subplot(cells[row, column], sharex=first, sharey=first)
        ax.xaxis.label.set_visible((row + 1, column) not in spots)
        ax.yaxis.label.set_visible((row, column - 1) not in spots)
        ax.tick_params(labelbottom=(row + 1, column) not in spots, labelleft=(row, column - 1) not in spots)
        axes.append(ax)
    parts = [cells[-1, :]] if bars == 1 else [cells[-1, :-1], cells[-1, -1]]
    return fig, axes, [fig.add_subplot(part, label="<colorbar>") for part in parts]  # as matplotlib names its own


def _mark_stages(ax: Axes, history: xr.Dataset) -> None:
    """Shade every second level; a line where each stage begins, and above it the stage's name where there is room."""
    level, group, size = history["level"].values, history["group"].values, 7.0
    starts = np.flatnonzero((np.diff(level, prepend=-1) != 0) | (np.diff(group, prepend=-1) != 0))
    begin, end = history["epoch"].values[starts] - 0.5, float(history["epoch"][-1]) + 0.5
    inches = ax.get_position().width * ax.get_figure(root=True).get_figwidth() * 0.9  # type: ignore[union-attr]
    room = 1.4 * size / 72 / inches * (end - begin[0])
    labelled: list[float] = []
    for i in sorted(range(len(starts)), key=lambda i: group[starts[i]] > 0):  # where there is little room, levels first
        k, j = level[starts[i]], group[starts[i]]
        ax.axvline(begin[i], color="0.5", linewidth=0.8, linestyle=":" if j else "-", zorder=0)
        if not j and k % 2:
            later = begin[level[starts] > k]
            ax.axvspan(begin[i], later[0] if len(later) else end, color="0.93", zorder=-1)
        if all(abs(begin[i] - other) >= room for other in labelled):
            labelled.append(begin[i])
            ax.annotate(
                f"group {j}" if j else f"level {k} deepen", (begin[i], 1), (0, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", rotation=90, ha="center", va="bottom", fontsize=size,
            )  # fmt: skip
