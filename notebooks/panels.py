"""What the notebooks share: where real data lie, and the tables beside the paper's figures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

import xmrcae

if TYPE_CHECKING:
    from xarray.plot import FacetGrid

REPOSITORY = Path(__file__).resolve().parents[1]


class DataAbsent(FileNotFoundError):
    """Data that a notebook needs are not here: the runner skips it."""


def data_file(name: str) -> Path:
    """Path of a real data file, in the folder XMRCAE_TEST_DATA, else in shared/data beside the repository."""
    path = REPOSITORY / (os.environ.get("XMRCAE_TEST_DATA") or "../shared/data") / name
    if not path.is_file():
        raise DataAbsent(f"{name} is not here: set XMRCAE_TEST_DATA to the folder that holds it")
    return path


def stages(model: xmrcae.MrCAE, authors: Mapping[str, str]) -> pd.DataFrame:
    """Validation errors and sizes at the end of every stage of training, beside what the authors printed.

    Parameters
    ----------
    model : xmrcae.MrCAE
        Fitted to one variable.
    authors : mapping of str to str
        Columns of the authors: their figures of all stages, with "|" between levels.

    Returns
    -------
    pandas.DataFrame
        Over level and group; group 0 is the deepening. Losses are in scaled units squared. "local"
        compares with the level's own data (3.1), "global" with the finest (3.4). A stage that one
        of both did not need has a dash.
    """
    history = model.history
    stage = history["level"].values * 100 + history["group"].values
    last = history.isel(epoch=np.flatnonzero(np.diff(stage, append=-1)))
    index = pd.MultiIndex.from_arrays(
        [last["level"].values, last["group"].values], names=["level", "group"]
    )
    columns = {
        "local mse": "validation_mse",
        "local max": "validation_max",
        "local loss": "validation_loss",
        "global loss": "validation_global_loss",
    }
    ours = pd.DataFrame({"epochs": np.diff(last["epoch"], prepend=0)}, index=index)
    for title, name in columns.items():
        ours[title] = [f"{value:.5f}" for value in last[name].values]
    filters = [
        model.options.channels_of(model.levels)[level][group - 1] if group else 1
        for level, group in index
    ]
    ours["parameters"] = np.cumsum([19 * n + 1 for n in filters])
    masks = [model.refinement_map(level=level) for level in range(model.levels)]
    coded = [
        n * int(masks[level].sel(group=group).sum()) if group else 0
        for n, (level, group) in zip(filters, index, strict=True)
    ]
    bottleneck = int(model.encoding_sizes[-1]) - sum(coded)
    ours["encoding size"] = bottleneck + np.cumsum(coded)

    theirs = {}
    for title, text in authors.items():
        for level, figures in enumerate(text.split("|")):
            for group, figure in enumerate(figures.split()):
                theirs.setdefault(f"authors' {title}", {})[level, group] = figure
    table = pd.concat([ours.astype(object), pd.DataFrame(theirs)], axis=1).sort_index().fillna("–")
    return table.rename_axis(index=index.names)


def sizes(model: xmrcae.MrCAE, held_out: xr.DataArray) -> pd.DataFrame:
    """Errors and sizes of every level on held-out snapshots, with the share of filters at work."""
    score = model.score(held_out)
    names = [
        "rmse",
        "worst_pixel_rmse",
        "encoding_size",
        "encoding_size_paper",
        "ratio",
        "active_share",
    ]
    table = score[names].to_dataframe()
    return table.round({"rmse": 4, "worst_pixel_rmse": 4, "ratio": 2, "active_share": 2})


def grey_land(grid: FacetGrid[xr.DataArray]) -> None:
    """Grey under the maps of a grid of xarray's, where they are NaN, and a panel's value alone as its title."""
    grid.set_titles("{value}", maxchar=40)
    for ax in grid.axs.flat:
        ax.set_facecolor("0.8")
