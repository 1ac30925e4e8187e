"""The analytic examples of the paper (section 3), lazy."""

from __future__ import annotations

import dask.array as da
import numpy as np
import xarray as xr

#: What scales each example to [0, 1]: its least and most value at 127 points a side, over 4001
#: times.
BOUNDS = {"two_modes": (-2.4892, 2.5255), "drifting_mode": (-2.5272, 2.5432)}

SIGMA_0, SIGMA_1, OMEGA_0, OMEGA_1 = 10.0, 0.25, 0.5, 4.0


def two_modes(*, n_times: int = 500, size: int = 127) -> xr.DataArray:
    """Make a broad mode that swings slowly and a narrow one that swings fast, both in place.

    This is the example of the paper, 4.1.

    Parameters
    ----------
    n_times : int
        Snapshots on [0, 8 pi].
    size : int
        Points a side on [-5, 5].

    Returns
    -------
    xarray.DataArray, (time, y, x)
        float32, lazy, scaled to [0, 1] by constants.

    Raises
    ------
    ValueError
        If `n_times` or `size` is not at least 1.

    Examples
    --------
    >>> import xmrcae
    >>> xmrcae.datasets.two_modes(n_times=10, size=31).sizes
    Frozen({'time': 10, 'y': 31, 'x': 31})
    """
    return _example("two_modes", n_times, size, end=8 * np.pi)


def drifting_mode(*, n_times: int = 500, size: int = 127) -> xr.DataArray:
    """Make a broad mode that swings slowly and a narrow one that swings fast and drifts.

    It drifts along the diagonal (paper, 4.3).

    Parameters
    ----------
    n_times : int
        Snapshots on [0, 4 pi].
    size : int
        Points a side on [-5, 5].

    Returns
    -------
    xarray.DataArray, (time, y, x)
        float32, lazy, scaled to [0, 1] by constants.

    Raises
    ------
    ValueError
        If `n_times` or `size` is not at least 1.

    Examples
    --------
    >>> import xmrcae
    >>> xmrcae.datasets.drifting_mode().dtype
    dtype('float32')
    """
    return _example("drifting_mode", n_times, size, end=4 * np.pi)


def _example(name: str, n_times: int, size: int, *, end: float) -> xr.DataArray:
    if min(n_times, size) < 1:
        raise ValueError(f"n_times={n_times}, size={size}: whole numbers of at least 1")
    time = np.linspace(0, end, n_times)
    axis = np.linspace(-5, 5, size)
    chunk = max(1, 2**24 // (8 * size * size))
    values = da.from_array(time, chunks=chunk)[:, None, None].map_blocks(
        _snapshots,
        axis=axis,
        drifts=name == "drifting_mode",
        bounds=BOUNDS[name],
        chunks=((*da.core.normalize_chunks(chunk, (n_times,))[0],), (size,), (size,)),
        dtype=np.float32,
    )
    attrs = {
        "long_name": name.replace("_", " "),
        "units": "1",
        "references": "https://arxiv.org/abs/2004.04946",
    }
    coords = {
        "time": ("time", time, {"axis": "T"}),
        "y": ("y", axis, {"axis": "Y"}),
        "x": ("x", axis, {"axis": "X"}),
    }
    return xr.DataArray(values, dims=("time", "y", "x"), coords=coords, name=name, attrs=attrs)


def _snapshots(
    t: np.ndarray, *, axis: np.ndarray, drifts: bool, bounds: tuple[float, float]
) -> np.ndarray:
    """Compute u cos(omega_0 t) + v cos(omega_1 t + pi/4), scaled; t is (time, 1, 1)."""
    y, x = axis[:, None], axis[None, :]
    centre_x, centre_y = (3 - 0.5 * t, -3 + 0.5 * t) if drifts else (1.0, -1.0)
    u = 1 / (np.cosh((x + 1) / SIGMA_0) * np.cosh((y - 1) / SIGMA_0))
    v = (
        np.exp(-((x - centre_x) ** 2 + (y - centre_y) ** 2) / (2 * SIGMA_1**2))
        / np.sqrt(2 * np.pi)
        / SIGMA_1
    )
    field = u * np.cos(OMEGA_0 * t) + v * np.cos(OMEGA_1 * t + np.pi / 4)
    return ((field - bounds[0]) / (bounds[1] - bounds[0])).astype(np.float32)
