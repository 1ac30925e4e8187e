"""Pictures of a fitted model: where its filters act, what each level reconstructs, its filters, how training went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..grid.coordinates import Grid
from ..grid.dimensions import Labelled
from .curves import chosen_variable, errors, losses
from .filters import draw_filters
from .levels import extension, size_of
from .panels import board, colour_bar, columns_of, label, limits, when, with_land
from .surfaces import Surface, positions, surface_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..model import MrCAE


class ModelPlots:
    """What ``model.plot`` offers. Every method returns the figure that it drew into; it shows and closes none.

    Parameters
    ----------
    model : MrCAE
        A fitted model.
    """

    def __init__(self, model: MrCAE) -> None:
        self._model = model

    def refinement(
        self, *, level: int | None = None, cmap: Any = None, fig: Any = None, projection: Any = "auto",
        transform: Any = None, coastlines: str | None = "data", subplot_kws: Any = None,
    ) -> Figure:  # fmt: skip
        """Where filters act: their number in each cell of every level's encoding, the paper's heat map.

        Parameters
        ----------
        level : int, optional
            Adds a map of each group of this level.
        cmap : str or matplotlib.colors.Colormap, optional
            "viridis" by default; cut into one colour a number of filters.
        fig : matplotlib.figure.Figure or SubFigure, optional
            Where to draw; a new figure of pyplot's by default.
        projection : "auto", None or cartopy.crs.Projection, optional
            Of maps. "auto": for longitudes and latitudes, along the dimensions or 2-D, the plate carrée about the
            middle of the data, and plain axes for other data or where cartopy is not installed. None: plain axes.
        transform : cartopy.crs.CRS, optional
            What the coordinates along the dimensions are in, if that is not longitude and latitude.
        coastlines : {"data", "natural_earth", None}
            On maps: the outline of the valid pixels; or Natural Earth's, which cartopy downloads; or none.
        subplot_kws : mapping, optional
            Handed on to ``fig.add_subplot`` for each panel; may hold the projection.

        Returns
        -------
        matplotlib.figure.Figure
            Cells that are never stored, because nothing under them is to be described, are grey. The share in a title
            is that of `score`: active cells of all groups over cells that can act. A map of the globe ends where the
            data do; cells that only serve the other side of that seam lie beyond it, plain axes show them too.

        Raises
        ------
        ValueError, TypeError
            For a level that does not exist, or a projection for data that have no place on Earth.

        Examples
        --------
        >>> import matplotlib.pyplot as plt
        >>> import xmrcae
        >>> field = xmrcae.datasets.drifting_mode(n_times=20, size=31)
        >>> model = field.mrcae.fit(levels=2, tolerance=0.02, max_epochs=5, progress=False)
        >>> fig = model.plot.refinement()
        >>> plt.close(fig)
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

        surface = self._surface(None, projection, transform, coastlines, subplot_kws)
        places = [surface.place(field) for field in fields]
        surface.frame(places)
        columns = columns_of(max(len(counts), len(single), 2 if single else 1), surface.shape)
        spots = [divmod(i, columns) for i in range(len(counts))]
        spots += [(spots[-1][0] + 1 + i // columns, i % columns) for i in range(len(single))]
        fig, axes, bars = board(fig, spots, surface, bars=2 if single else 1)
        most = max(int(count.max()) for count in counts)
        for i, (ax, place, title) in enumerate(zip(axes, places, titles, strict=True)):
            n = 2 if i >= len(counts) else most + 1
            mesh = surface.draw(ax, place, title, cmap=with_land(cmap, n), vmin=-0.5, vmax=n - 0.5)
            if i == 0:
                text, ticks = "filters at work in a cell, the deepening's not counted [1]", range(0, n, 1 + most // 12)
                colour_bar(fig, mesh, bars[0], text, ticks=ticks)
            elif i == len(counts):
                bar = colour_bar(fig, mesh, bars[1], "group of filters")
                bar.set_ticks([0, 1], labels=["idle", "active"])
        surface.finish(axes)
        return fig

    def reconstruction(
        self, snapshot: Labelled, *, variable: Any = None, cmap: Any = None, fig: Any = None, projection: Any = "auto",
        transform: Any = None, coastlines: str | None = "data", subplot_kws: Any = None,
    ) -> Figure:  # fmt: skip
        """One snapshot as every level reconstructs it, beside the data and the finest level's error.

        Parameters
        ----------
        snapshot : xarray.DataArray or xarray.Dataset
            On the fitted grid, at one time.
        variable : str, optional
            Which variable of a Dataset model to draw; the first by default.
        cmap : str or matplotlib.colors.Colormap, optional
            Of the fields, "viridis" by default. Their one scale is the data's range; that of the error, "RdBu_r", ends
            where 1 % of the pixels are further off.
        fig, projection, transform, coastlines, subplot_kws : optional
            As for `refinement`.

        Returns
        -------
        matplotlib.figure.Figure
            Land, and pixels missing in the data, are grey.

        Raises
        ------
        ValueError, TypeError
            For several snapshots or one without a value, data on another grid, a variable that the model was not fitted
            to, or a projection for data that have no place on Earth.

        Examples
        --------
        >>> import matplotlib.pyplot as plt
        >>> import xmrcae
        >>> field = xmrcae.datasets.drifting_mode(n_times=20, size=31)
        >>> model = field.mrcae.fit(levels=2, tolerance=0.02, max_epochs=5, progress=False)
        >>> fig = model.plot.reconstruction(field.isel(time=0))
        >>> plt.close(fig)
        """
        *fields, data = self._levels_and_data(snapshot, variable)
        error = (fields[-1] - data).assign_attrs(data.attrs)
        rms, units = float(np.sqrt((error.astype(np.float64) ** 2).mean())), data.attrs.get("units", "1")
        titles = [size_of(k, field) for k, field in enumerate(fields)]
        titles += [f"data{when(snapshot, self._model.fitted.sample)}"]
        titles += [f"error of level {len(fields) - 1}, rms {rms:.2g}" + f" {units}" * (units != "1")]

        surface = self._surface(variable, projection, transform, coastlines, subplot_kws)
        places = [surface.place(field) for field in (*fields, data, error)]
        surface.frame(places)
        columns = columns_of(len(places), surface.shape)
        spots = [divmod(i, columns) for i in range(len(fields))]
        spots += [((len(places) - 1) // columns, columns - i) for i in (2, 1)]
        fig, axes, bars = board(fig, spots, surface, bars=2)
        low, high = limits(data)
        most = float(abs(error).quantile(0.99)) or float(abs(error).max()) or 1.0
        for ax, place, title in zip(axes[:-1], places, titles, strict=False):
            mesh = surface.draw(ax, place, title, cmap=with_land(cmap), vmin=low, vmax=high)
        colour_bar(fig, mesh, bars[0], label(data), extend=extension(fields, data))
        mesh = surface.draw(axes[-1], places[-1], titles[-1], cmap=with_land("RdBu_r"), vmin=-most, vmax=most)
        ends = extension([error], xr.DataArray([-most, most]))
        colour_bar(fig, mesh, bars[1], label(error, "reconstruction − data"), narrow=True, extend=ends)
        surface.finish(axes)
        return fig

    def filters(
        self, *, level: int | None = None, group: int | None = None, cmap: Any = None, fig: Any = None
    ) -> Figure:
        """The 3×3 filters of a level as small images, what reads above what writes.

        Parameters
        ----------
        level : int, optional
            The finest by default.
        group : int, optional
            One group; 0 is the deepening. All of the level by default.
        cmap : str or matplotlib.colors.Colormap, optional
            "RdBu_r" by default; one scale about 0 for all encoders, one for all decoders.
        fig : matplotlib.figure.Figure or SubFigure, optional
            Where to draw; a new figure of pyplot's by default.

        Returns
        -------
        matplotlib.figure.Figure
            A column a filter, a row a variable. Coordinates ascend to the right and upwards. With
            ``encoder="projection"`` there are decoders alone. Fields are scaled, so that weights have no units.

        Raises
        ------
        ValueError
            For a level or group that does not exist.

        Examples
        --------
        >>> import matplotlib.pyplot as plt
        >>> import xmrcae
        >>> field = xmrcae.datasets.drifting_mode(n_times=20, size=31)
        >>> model = field.mrcae.fit(levels=2, tolerance=0.02, max_epochs=5, progress=False)
        >>> fig = model.plot.filters(level=0, group=0)
        >>> plt.close(fig)
        """
        fitted, k = self._model.fitted, self._model._level(level)
        return draw_filters(fitted.inference.network.levels[k], k, group, fitted.variables, cmap=cmap, fig=fig)

    def errors(
        self, obj: Labelled, *, weights: Any = None, metric: str = "rmse_global", variable: Any = None, ax: Any = None
    ) -> Figure:
        """Error of each level against the size of encoding: ``xmrcae.plot.errors(model.score(obj))``.

        Parameters
        ----------
        obj : xarray.DataArray or xarray.Dataset
            Snapshots on the fitted grid, for example those that `split` calls "test".
        weights : None, "area" or xarray.DataArray, optional
            Weights of the means.
        metric, variable, ax : optional
            As for :func:`xmrcae.plot.errors`, which also draws several models.

        Returns
        -------
        matplotlib.figure.Figure
            A point a level, on logarithmic axes.

        Raises
        ------
        ValueError, TypeError
            For data on another grid, another metric than a score has, or another variable than the model.

        Examples
        --------
        >>> import matplotlib.pyplot as plt
        >>> import xmrcae
        >>> field = xmrcae.datasets.drifting_mode(n_times=20, size=31)
        >>> model = field.mrcae.fit(levels=2, tolerance=0.02, max_epochs=5, progress=False)
        >>> fig = model.plot.errors(field)
        >>> plt.close(fig)
        """
        fitted = self._model.fitted
        chosen_variable(metric, variable, fitted.variables if fitted.is_dataset else None)
        name = ", ".join("unnamed" if name is None else str(name) for name in fitted.variables)
        score = self._model.score(obj, weights=weights)
        return errors({name: score}, metric=metric, variable=variable, ax=ax)

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

        Examples
        --------
        >>> import matplotlib.pyplot as plt
        >>> import xmrcae
        >>> field = xmrcae.datasets.drifting_mode(n_times=20, size=31)
        >>> model = field.mrcae.fit(levels=2, tolerance=0.02, max_epochs=5, progress=False)
        >>> fig = model.plot.history()
        >>> plt.close(fig)
        """
        return losses(self._model.history, ax)

    @property
    def _grid(self) -> Grid:
        return self._model.fitted.inference.pyramid.grid

    def _surface(
        self, variable: Any, projection: Any, transform: Any, coastlines: str | None, subplot_kws: Any
    ) -> Surface:
        """What to draw on; coasts are those of one variable, or of all."""
        fitted = self._model.fitted
        valid = (
            fitted.standard.valid.any(0)
            if variable is None
            else fitted.standard.valid[fitted.variables.index(variable)]
        )
        pixels = xr.DataArray(valid, self._grid.coords.coords, dims=(self._grid.y, self._grid.x))
        return surface_of(
            self._grid, pixels, projection=projection, transform=transform, coastlines=coastlines,
            subplot_kws=subplot_kws,
        )  # fmt: skip

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
        at = [axis.positions(level - 1) for axis in (pyramid.y, pyramid.x)]
        field = field.drop_vars("inside").assign_coords(positions(dims, at))
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
        if not panels[-1].notnull().any():
            raise ValueError(f"the snapshot of {variable!r} has no value on a valid pixel: there is nothing to draw")
        panels[-1].attrs = fitted.attrs[fitted.variables.index(variable)] | panels[-1].attrs
        for i, level in enumerate([*range(self._model.levels), self._model.levels - 1]):
            at = [axis.positions(level)[axis.inside(level)] for axis in (pyramid.y, pyramid.x)]
            coords = pyramid.coordinates(level).assign_coords(positions(dims, at))
            panels[i] = panels[i].assign_coords(coords.coords)
        return panels


def _share(mask: xr.DataArray) -> str:
    return f"{float(mask.mean()):.0%} active" if mask.size else "no group"
