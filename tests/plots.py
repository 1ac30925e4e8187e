"""What a panel shows."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure


def panels(fig: Figure) -> list[Any]:
    return [ax for ax in fig.axes if ax.get_label() != "<colorbar>"]


def bars(fig: Figure) -> list[Any]:
    return [ax for ax in fig.axes if ax.get_label() == "<colorbar>"]


def mesh_of(ax: Any) -> Any:
    (mesh,) = (artist for artist in ax.collections if isinstance(artist, QuadMesh))
    return mesh


def drawn(ax: Any) -> xr.DataArray:
    """What a panel shows, NaN where it is grey, at the centres of its cells, both axes ascending."""
    mesh = mesh_of(ax)
    corners = mesh.get_coordinates()
    x, y = (corners[:-1, :-1, i] / 2 + corners[1:, 1:, i] / 2 for i in (0, 1))
    values = np.ma.filled(mesh.get_array().astype(float), np.nan).reshape(x.shape)
    return xr.DataArray(values, dims=("y", "x"), coords={"y": y[:, 0], "x": x[0]}).sortby(
        ["y", "x"]
    )


def colours_of_missing(ax: Any) -> np.ndarray:
    mesh = mesh_of(ax)
    return mesh.to_rgba(mesh.get_array())[np.ma.getmaskarray(mesh.get_array())]
