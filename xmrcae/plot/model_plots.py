"""Pictures of a fitted model: where filters act, levels of a snapshot, filters, errors, losses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..grid.conventions import Labelled
from .curves import chosen_variable, errors, losses
from .filters import draw_filters
from .panels import Scale, draw_panels, surface_of
from .pyramids import size_of
from .surfaces import Surface, with_positions
from .text import label, text_of, when

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ModelPlots:
    """What ``model.plot`` offers; every method returns the figure that it drew into.

    Parameters
    ----------
    model : MrCAE
        A fitted model.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import xmrcae
    >>> field = xmrcae.datasets.drifting_mode(n_times=20, size=31)
    >>> model = field.mrcae.fit(levels=2, tolerance=0.02, max_epochs=5, progress=False)
    >>> figures = [model.plot.refinement(), model.plot.reconstruction(field.isel(time=0))]
    >>> figures += [model.plot.filters(level=0, group=0), model.plot.errors(field)]
    >>> figures += [model.plot.history()]
    >>> plt.close("all")
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def refinement(
        self,
        *,
        level: int | None = None,
        cmap: Any = None,
        fig: Any = None,
        **map_options: Any,
    ) -> Figure:
        """Draw where filters act: their number in each cell of every level's encoding.

        This is the paper's heat map.

        Parameters
        ----------
        level : int, optional
            Adds a map of each group of this level.
        cmap : str or matplotlib.colors.Colormap, optional
            "viridis" by default; cut into one colour for each number of filters.
        fig : matplotlib.figure.Figure or SubFigure, optional
            Where to draw; a new figure of pyplot's by default.
        **map_options
            `projection` of maps ("auto", None or a cartopy.crs.Projection). "auto", the default:
            for longitudes and latitudes, along the dimensions or 2-D, the plate carrée about the
            middle of the data, and plain axes for other data or where cartopy is not installed.
            None: plain axes.
            `transform`, a cartopy.crs.CRS: what the coordinates along the dimensions are in, if
            that is not longitude and latitude.
            `coastlines` on maps: "data", the default, is the outline of the valid pixels,
            "natural_earth" Natural Earth's, which cartopy downloads, and None is none.
            `subplot_kws`, a mapping: handed on to ``fig.add_subplot`` for each panel; may hold the
            projection.

        Returns
        -------
        matplotlib.figure.Figure
            Cells that are never stored, because nothing under them is to be described, are grey.
            The share in a title is that of `score`: active cells of all groups over cells that can
            act. A map of the globe ends where the data do; cells that only serve the other side of
            that seam lie beyond it, plain axes show them too.

        Raises
        ------
        ValueError, TypeError
            For a level that does not exist, an unknown option, or a projection for data that have
            no place on Earth.
        """
        model, surface = self._model, self._surface(None, map_options)
        chosen = None if level is None else model.fitted.level(level)
        levels = range(model.levels)
        masks = [self._stored(model.refinement_map(level=k), k) for k in levels]
        counts = [self._stored(model.refinement_count(level=k), k) for k in levels]
        filters = "filters at work in a cell, the deepening's not counted [1]"
        n = max(int(count.max()) for count in counts) + 1
        scale = Scale(filters, high=n - 0.5, cmap=cmap, n=n)
        titles = [f"level {k}: {_share(mask)}" for k, mask in enumerate(masks)]
        rows = [[(self._cropped(counts[k], k), titles[k], scale) for k in levels]]
        if chosen is not None:
            active = Scale("group of filters", high=1.5, cmap=cmap, n=2, names=("idle", "active"))
            rows.append([])
            for mask in masks[chosen]:
                title = f"level {chosen}, group {int(mask['group'])}: {_share(mask)}"
                rows[1].append((self._cropped(mask, chosen), title, active))
        return draw_panels(rows, surface, fig=fig)

    def reconstruction(
        self,
        snapshot: Labelled,
        *,
        variable: Any = None,
        cmap: Any = None,
        fig: Any = None,
        **map_options: Any,
    ) -> Figure:
        """Draw one snapshot as every level reconstructs it, beside the data and the finest error.

        Parameters
        ----------
        snapshot : xarray.DataArray or xarray.Dataset
            On the fitted grid, at one time.
        variable : str, optional
            Which variable of a Dataset model to draw; the first by default.
        cmap : str or matplotlib.colors.Colormap, optional
            Of the fields, "viridis" by default. Their one scale is the data's range; that of the
            error, "RdBu_r", ends where 1 % of the pixels are further off.
        fig : matplotlib.figure.Figure or SubFigure, optional
            Where to draw; a new figure of pyplot's by default.
        **map_options
            As for `refinement`.

        Returns
        -------
        matplotlib.figure.Figure
            Land, and pixels missing in the data, are grey. The root-mean-square error of a level
            is that of `score`, against the data restricted to its grid.

        Raises
        ------
        ValueError, TypeError
            For several snapshots or one without a value, data on another grid, a variable that the
            model was not fitted to, or a projection for data that have no place on Earth.
        """
        variables = self._model.fitted.labels.variables
        if variable is not None and variable not in variables:
            fitted = ", ".join(map(str, variables))
            raise ValueError(f"variable={variable!r}: the model was fitted to {fitted}")
        surface = self._surface(variable, map_options)
        chosen = variables[0] if variable is None else variable
        *fields, data = self._levels_and_data(snapshot, chosen)
        error = (fields[-1] - data).assign_attrs(data.attrs)
        rmse = self._model.score(snapshot)["rmse"]
        if "variable" in rmse.dims:
            rmse = rmse.sel(variable=chosen)
        units = text_of(data.attrs, "units")
        units = f" {units}" if units not in ("", "1") else ""
        most = float(abs(error).quantile(0.99)) or float(abs(error).max()) or 1.0
        scale = Scale.range_of(data, cmap)
        off = Scale(label(error, "reconstruction − data"), -most, most, "RdBu_r")
        row = [
            (field, f"{size_of(k, field)}\nrmse {float(rmse[k]):.2g}{units}", scale)
            for k, field in enumerate(fields)
        ]
        row += [
            (data, f"data{when(snapshot, self._model.fitted.labels.sample)}", scale),
            (error, f"error of level {len(fields) - 1}", off),
        ]
        return draw_panels([row], surface, fig=fig, right=2)

    def filters(
        self,
        *,
        level: int | None = None,
        group: int | None = None,
        cmap: Any = None,
        fig: Any = None,
    ) -> Figure:
        """Draw the 3×3 filters of a level as small images, what reads above what writes.

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
            One column per filter, one row per variable. Coordinates ascend to the right and
            upwards. With ``encoder="projection"`` there are decoders alone. Fields are scaled, so
            that weights have no units.

        Raises
        ------
        ValueError
            For a level or group that does not exist.
        """
        fitted = self._model.fitted
        k = fitted.level(level)
        network = fitted.codec.network
        return draw_filters(
            network.levels[k], k, group, fitted.labels.variables, cmap=cmap, fig=fig
        )

    def errors(
        self,
        obj: Labelled,
        *,
        weights: Any = None,
        metric: str = "rmse_global",
        variable: Any = None,
        ax: Any = None,
    ) -> Figure:
        """Draw the error of each level against the size of encoding.

        This is ``xmrcae.plot.errors(model.score(obj))``.

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
            One point per level, on logarithmic axes.

        Raises
        ------
        ValueError, TypeError
            For data on another grid, another metric than a score has, or another variable than the
            model.
        """
        fitted = self._model.fitted
        chosen_variable(
            metric, variable, fitted.labels.variables if fitted.labels.is_dataset else None
        )
        name = ", ".join(
            "unnamed" if name is None else str(name) for name in fitted.labels.variables
        )
        score = self._model.score(obj, weights=weights)
        return errors({name: score}, metric=metric, variable=variable, ax=ax)

    def history(self, *, ax: Any = None) -> Figure:
        """Draw losses against epoch, with a band for each level and a line where each stage begins.

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
        return losses(self._model.history, ax)

    def _surface(self, variable: Any, map_options: dict[str, Any]) -> Surface:
        """Return what to draw on; coasts are those of one variable, or of all."""
        fitted, grid = self._model.fitted, self._pyramid.grid
        valid = fitted.standard.valid
        valid = valid.any(0) if variable is None else valid[fitted.labels.variables.index(variable)]
        pixels = xr.DataArray(valid, grid.coords.coords, dims=grid.dims)
        return surface_of(grid, pixels, **map_options)

    @property
    def _pyramid(self) -> Any:
        return self._model.fitted.codec.pyramid

    def _stored(self, field: xr.DataArray, level: int) -> xr.DataArray:
        """Return a field on a level's encoding grid, NaN in the cells that are never stored."""
        fitted, grid = self._model.fitted, self._pyramid.grid
        storable = fitted.codec.network.storable[level].any(0).cpu().numpy()
        return field.where(fitted.orient(xr.DataArray(storable, dims=grid.dims)))

    def _cropped(self, field: xr.DataArray, level: int) -> xr.DataArray:
        """Drop outer rows and columns that are neither within the data's extent nor stored."""
        grid = self._pyramid.grid
        dims, field = grid.dims, grid.turned(field)
        keep, field = field["inside"], field.drop_vars("inside")
        if all(coord.ndim < 2 for coord in field.coords.values()):  # 2-D ones are NaN outside
            keep = keep | field.notnull()
        field = with_positions(field, self._pyramid, level - 1, inside=False)
        return field.isel({d: np.flatnonzero(keep.any([o for o in dims if o != d])) for d in dims})

    def _levels_and_data(self, snapshot: Labelled, variable: Any) -> list[xr.DataArray]:
        """Return the decoded levels and the data, (y, x), on the fitted grid, ascending."""
        model, fitted, pyramid = self._model, self._model.fitted, self._pyramid
        dims = pyramid.grid.dims
        snapshot = fitted.variables_of(snapshot)
        others = {dim: n for dim, n in snapshot.sizes.items() if dim not in dims}
        if any(n != 1 for n in others.values()):
            got, first = ", ".join(f"{dim}: {n}" for dim, n in others.items()), next(iter(others))
            choose = f"select one, such as .isel({first}=0)"
            raise ValueError(f"one snapshot is drawn; got {got}: {choose}")
        snapshot = snapshot.isel(dict.fromkeys(others, 0))
        snapshot = snapshot.isel(fitted.layout(snapshot).indexers).compute()
        codes = model.encode(snapshot)
        results = [*(model.decode(codes, level=k) for k in range(model.levels)), snapshot]
        *fields, data = (
            field[variable] if fitted.labels.is_dataset else field for field in results
        )
        fields = [with_positions(field, pyramid, k) for k, field in enumerate(fields)]
        fields = [field.transpose(*dims) for field in fields]
        data = data.transpose(*dims).drop_vars(list(data.coords)).assign_coords(fields[-1].coords)
        data = data.where(fields[-1].notnull())
        if not data.notnull().any():
            what = f"the snapshot of {variable!r}"
            raise ValueError(f"{what} has no value on a valid pixel: there is nothing to draw")
        attrs = fitted.labels.attrs[fitted.labels.variables.index(variable)]
        return [*fields, data.assign_attrs(attrs | data.attrs)]


def _share(mask: xr.DataArray) -> str:
    return f"{float(mask.mean()):.0%} active" if mask.size else "no group"
