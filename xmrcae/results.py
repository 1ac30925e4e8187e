"""What a fitted model tells of itself: sizes, history, maps, errors, pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from . import refinement
from . import repr as representation
from .fitted import Fitted
from .grid.conventions import Labelled
from .options import Options

if TYPE_CHECKING:
    from .plot import ModelPlots


class Results:
    """The half of :class:`xmrcae.MrCAE` that neither fits nor encodes."""

    options: Options
    _fitted: Fitted | None

    @property
    def partial(self) -> bool:
        """Whether training was ended before its time, by Ctrl-C or an error."""
        return self._fitted is not None and self._fitted.partial

    @property
    def fitted(self) -> Fitted:
        """What fitting has left; an error before."""
        if self._fitted is None:
            raise ValueError(
                "this MrCAE is not fitted yet: call .fit(data) first, or xmrcae.open_model(path)"
            )
        return self._fitted

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return self.fitted.codec.pyramid.levels

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases."""
        return self.fitted.codec.network.n_parameters

    @property
    def history(self) -> xr.Dataset:
        """Losses over `epoch`, in scaled units squared.

        The last row of a stage belongs to the weights that were kept, and has the test losses too.
        Its attributes hold numbers of samples, and the share of variance that they leave out.
        """
        return self.fitted.history

    @property
    def stages(self) -> xr.Dataset:
        """What each stage, a deepening (group 0) or a widening, costs and gains, over `stage`.

        `level`, `group`; `epochs`; `parameters` and `encoding_size` that it adds; `active_share` of
        its cells; the last `train_loss`, `validation_mse` and `validation_loss` in scaled units
        squared, NaN for stages that were not trained, or whose cells competed for a size.
        """
        return refinement.stages(self.fitted)

    @property
    def split(self) -> xr.DataArray:
        """What each fitted snapshot served for: "training", "validation" or "test"."""
        return self.fitted.split

    @property
    def encoding_sizes(self) -> xr.DataArray:
        """Numbers per snapshot that decoding each level needs, cumulative over `level`."""
        return xr.DataArray(
            self.fitted.encoding_sizes,
            dims="level",
            coords={"level": np.arange(self.levels)},
            name="encoding_size",
        )

    def score(self, obj: Labelled, *, weights: Any = None) -> xr.Dataset:
        """Compare each level's reconstruction with the data restricted to that level.

        Parameters
        ----------
        obj : xarray.DataArray or xarray.Dataset
            Snapshots on the fitted grid, for example those that `split` calls "test". Missing
            values are left out.
        weights : None, "area" or xarray.DataArray, optional
            Weights of the means.

        Returns
        -------
        xarray.Dataset
            Over `level`: `rmse`, `worst_pixel_rmse` and `rmse_global` (against the finest data,
            3.4), in the data's units and over counted pixels; `encoding_size`,
            `encoding_size_paper`, `ratio` (valid values over encoding size), `n_parameters` and
            `active_share` (active cells over cells that can act).

        Raises
        ------
        ValueError
            For no value to compare with, data that `encode` refuses, or weights that do not fit.
        """
        from .score import score

        return score(self.fitted, obj, weights=weights)

    def refinement_map(self, *, level: int) -> xr.DataArray:
        """Tell where each group of filters acts (3.8).

        Parameters
        ----------
        level : int
            The level.

        Returns
        -------
        xarray.DataArray of bool, (group, y, x)
            On the level's encoding grid, groups 1 and up; size 0 along `group` if there is none.

        Raises
        ------
        ValueError
            For a level that the model does not have.
        """
        return refinement.refinement_map(self.fitted, level)

    def refinement_count(self, *, level: int) -> xr.DataArray:
        """Count the filters at work in each cell, without the deepening's: the paper's heat map.

        Parameters
        ----------
        level : int
            The level.

        Returns
        -------
        xarray.DataArray of int, (y, x)
            On the level's encoding grid.

        Raises
        ------
        ValueError
            For a level that the model does not have.
        """
        return refinement.refinement_count(self.fitted, level)

    @property
    def plot(self) -> ModelPlots:
        """Pictures: the methods of :class:`xmrcae.plot.ModelPlots`, as ``plot.refinement()``."""
        from .plot import ModelPlots

        return ModelPlots(self)

    def __repr__(self) -> str:
        return representation.text(self._fitted, self.options)

    def _repr_html_(self) -> str:
        return representation.as_html(self._fitted, self.options)
