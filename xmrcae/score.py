"""Reconstruction errors of a fitted model, level by level."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from .fitted import Fitted
from .grid.conventions import Labelled
from .grid.layout import Layout, map_samples
from .grid.units import unit_text
from .grid.weights import grid_weights, known_weights

LONG_NAMES = {
    "rmse": "root-mean-square error",
    "worst_pixel_rmse": "largest root-mean-square error over time of any pixel",
    "rmse_global": "root-mean-square error against the finest data",
    "encoding_size": "numbers per snapshot that decoding needs",
    "encoding_size_paper": "the same by the authors' count",
    "ratio": "valid values over encoding size",
    "n_parameters": "weights and biases up to this level",
    "active_share": "active cells over cells that can act",
}


def score(fitted: Fitted, obj: Labelled, *, weights: Any) -> xr.Dataset:
    """Return the errors and sizes that :meth:`xmrcae.MrCAE.score` documents."""
    pyramid, labels = fitted.codec.pyramid, fitted.labels
    obj = fitted.variables_of(obj)
    layout = fitted.layout(obj)
    pixel_weights = known_weights(grid_weights(weights, pyramid.grid), fitted.standard.valid)
    array = layout.array(obj).astype(fitted.dtype, copy=False)
    if not len(array):
        raise ValueError("score needs at least one snapshot; none was given")
    squares, counts = _total(fitted, layout, array)
    if not counts.any():
        raise ValueError(
            f"score needs values to compare with; of {len(array)} snapshots none holds one on a "
            "valid pixel"
        )
    shapes = [standard.valid.shape for standard in fitted.codec.standards]
    sizes = [int(np.prod(shape)) for shape in [*shapes, *[shapes[-1]] * len(shapes)]]
    pieces = [np.split(each, np.cumsum(sizes)[:-1]) for each in (squares, counts)]
    sums = list(zip(*pieces, strict=True))  # of each level's own pixels, then of the finest ones
    errors: dict[str, list[np.ndarray]] = {"rmse": [], "worst_pixel_rmse": [], "rmse_global": []}
    for level, shape in enumerate(shapes):
        square, count = (each.reshape(shape) for each in sums[level])
        own = pixel_weights[pyramid.points(level)]
        errors["rmse"].append(_rmse(square, count, own))
        worst = (square / np.maximum(count, 1)).max((1, 2))
        errors["worst_pixel_rmse"].append(np.sqrt(worst))
        square, count = (each.reshape(shapes[-1]) for each in sums[len(shapes) + level])
        errors["rmse_global"].append(_rmse(square, count, pixel_weights))
    unit = None if labels.is_dataset else unit_text(labels.attrs[0])
    units = {} if unit is None else {"units": unit}
    dims = ("level", "variable") if labels.is_dataset else ("level",)
    result: dict[str, Any] = {}
    for name, each in errors.items():
        table = np.stack(each) if labels.is_dataset else np.stack(each)[:, 0]
        result[name] = (dims, table, {"long_name": LONG_NAMES[name]} | units)
    for name, values in _sizes(fitted).items():
        result[name] = ("level", values, {"long_name": LONG_NAMES[name]})
    coords: dict[str, Any] = {"level": np.arange(pyramid.levels)}
    if labels.is_dataset:
        coords["variable"] = list(labels.variables)
        coords["units"] = ("variable", [unit_text(attrs) or "" for attrs in labels.attrs])
    return xr.Dataset(result, coords=coords, attrs=fitted.attributes)


def _rmse(square: np.ndarray, count: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the weighted root mean of squares, (variable,), summed over `count` values each.

    Where no value has a weight, all weigh alike.
    """
    known = (weight * count).sum((1, 2), keepdims=True)
    weight = np.where(known > 0, weight, 1.0)
    return np.sqrt((weight * square).sum((1, 2)) / (weight * count).sum((1, 2)))


def _sizes(fitted: Fitted) -> dict[str, Any]:
    """Count what each level and those below it take."""
    pyramid, network = fitted.codec.pyramid, fitted.codec.network
    n_variables, levels = len(fitted.labels.variables), range(pyramid.levels)
    features = [0, *(n_variables * int(np.prod(pyramid.shape(k - 1))) for k in levels[1:])]
    encoding = fitted.encoding_sizes
    shares = [network.active_share(k) for k in levels]
    return {
        "encoding_size": encoding,
        "encoding_size_paper": encoding + np.cumsum(features),
        "ratio": int(fitted.standard.valid.sum()) / encoding,
        "n_parameters": np.cumsum([sum(network.stage_parameters(k)) for k in levels]),
        "active_share": [float(np.mean(each)) if each else 0.0 for each in shares],
    }


def _total(fitted: Fitted, layout: Layout, array: Any) -> np.ndarray:
    """Sum squared errors and numbers of values of every pixel over all snapshots."""
    standards = fitted.codec.standards
    n_pixels = sum(s.valid.size for s in standards) + len(standards) * standards[-1].valid.size
    total = map_samples(
        fitted.codec.squared_errors,
        array,
        fitted.season(layout),
        shape=(2, n_pixels),
        dtype=np.float64,
        per_block=True,
        **fitted.codec.long_blocks,
    ).sum(0)
    return total.compute() if isinstance(total, da.Array) else total
