"""A linear inverse model (Penland and Sardeshmukh, 1995) of a few time series, and errors of forecasts.

The state x, the scores of the leading EOFs, is taken to follow x(t + 1) = G x(t) + noise, so that
the best forecast of x(t + lead) is G**lead x(t). G comes from covariances of the training months
alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr


def propagator(scores: xr.DataArray) -> np.ndarray:
    """The matrix that carries scores one step on: their covariance at lag 1 times the inverse of that at lag 0.

    Parameters
    ----------
    scores : xarray.DataArray, (time, mode)
        Of the training months, without a gap, about a mean of zero.

    Returns
    -------
    numpy.ndarray, shape (mode, mode)
    """
    x = scores.transpose("time", "mode").values
    lag_0, lag_1 = x.T @ x / len(x), x[1:].T @ x[:-1] / (len(x) - 1)
    return np.linalg.solve(lag_0, lag_1.T).T  # lag_0 is symmetric


def shifted(state: xr.DataArray, target: slice, lead: int) -> xr.DataArray:
    """The states `lead` steps before the target months, labelled with the months that they are to foretell.

    Parameters
    ----------
    state : xarray.DataArray, (time, ...)
        At all months.
    target : slice
        Positions of the target months.
    lead : int
        Months from a forecast's start to its target.

    Returns
    -------
    xarray.DataArray, (time, ...)

    Raises
    ------
    ValueError
        If the record begins less than `lead` months before the first target.
    """
    start, stop, _ = target.indices(state.sizes["time"])
    if start < lead:
        raise ValueError(
            f"the first target is month {start}: a forecast at lead {lead} would start before the record"
        )
    before = state.isel(time=slice(start - lead, stop - lead))
    return before.assign_coords(time=state["time"].values[target])


def foretold(
    scores: xr.DataArray, train: slice, target: slice, *, lead: int, modes: int
) -> xr.DataArray:
    """Forecasts of the leading scores at the target months, by the linear inverse model of the training months.

    Parameters
    ----------
    scores : xarray.DataArray, (time, mode)
        At all months; modes count from 1.
    train, target : slice
        Positions in time.
    lead : int
        Months ahead; 0 gives the scores themselves.
    modes : int
        How many to take.

    Returns
    -------
    xarray.DataArray, (time, mode)
    """
    leading = scores.transpose("time", "mode").sel(mode=slice(1, modes))
    step = np.linalg.matrix_power(propagator(leading.isel(time=train)), lead)
    before = shifted(leading, target, lead)
    return before.copy(data=before.values @ step.T)


def rmse(forecast: xr.DataArray, truth: xr.DataArray) -> float:
    """Root-mean-square error over the times of the forecast and all ocean pixels, each by its area.

    Parameters
    ----------
    forecast : xarray.DataArray, (time, lat, lon)
        Finite wherever `truth` is.
    truth : xarray.DataArray, (time, lat, lon)
        At these times too; NaN on land.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the forecast lacks pixels that the truth has.
    """
    truth = truth.sel(time=forecast["time"])
    missing = int((forecast.isnull() & truth.notnull()).sum())
    if missing:
        raise ValueError(f"the forecast lacks {missing} values that the truth has")
    squares = ((forecast - truth).astype(np.float64) ** 2).weighted(
        np.cos(np.deg2rad(truth["lat"]))
    )
    return float(np.sqrt(squares.mean()))


def least(errors: dict[int, Sequence[float]]) -> int:
    """The number of modes whose mean error over leads is the least.

    Parameters
    ----------
    errors : mapping of int to sequence of float
        Validation errors at every lead, by number of modes.

    Returns
    -------
    int
    """
    return min(errors, key=lambda modes: float(np.mean(errors[modes])))
