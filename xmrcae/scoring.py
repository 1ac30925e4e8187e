"""Reconstruction errors of a fitted model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr

from .grid.conventions import Labelled
from .grid.layout import BLOCK_BYTES, as_node, call
from .grid.training_set import grid_weights, known_weights
from .grid.units import unit_text

if TYPE_CHECKING:
    from .model import MrCAE


def score(model: MrCAE, obj: Labelled, *, weights: Any) -> xr.Dataset:
    """The errors and sizes that :meth:`xmrcae.MrCAE.score` documents."""
    fitted = model.fitted
    inference = fitted.inference
    pyramid, network = inference.pyramid, inference.network
    obj = fitted.variables_of(obj)
    layout = fitted.layout(obj)
    pixel_weights = known_weights(grid_weights(weights, pyramid.grid), inference.standards[-1].valid)
    array = layout.array(obj).astype(fitted.dtype, copy=False)
    if not len(array):
        raise ValueError("score needs at least one snapshot; none was given")
    squares, counts = _total(model, layout, array)
    if not counts.any():
        raise ValueError(
            f"score needs values to compare with; of {len(array)} snapshots none holds one on a valid pixel"
        )

    shapes = [standard.valid.shape for standard in inference.standards]
    sizes = [int(np.prod(shape)) for shape in [*shapes, *[shapes[-1]] * len(shapes)]]
    bounds = np.cumsum(sizes)[:-1]
    local: dict[str, list[np.ndarray]] = {"rmse": [], "worst_pixel_rmse": [], "rmse_global": []}
    for position, (square, count) in enumerate(zip(np.split(squares, bounds), np.split(counts, bounds), strict=True)):
        level = position % len(shapes)
        shape = shapes[level] if position < len(shapes) else shapes[-1]
        square, count = square.reshape(shape), count.reshape(shape)
        rows, columns = (axis.positions(_own(level, position, shapes)) for axis in (pyramid.y, pyramid.x))
        rows = rows[pyramid.y.inside(_own(level, position, shapes))]
        columns = columns[pyramid.x.inside(_own(level, position, shapes))]
        weight = pixel_weights[rows[:, None], columns]
        total = (weight * count).sum((1, 2))
        rmse = np.sqrt((weight * square).sum((1, 2)) / total)
        if position < len(shapes):
            local["rmse"].append(rmse)
            local["worst_pixel_rmse"].append(np.sqrt((square / np.maximum(count, 1)).max((1, 2))))
        else:
            local["rmse_global"].append(rmse)

    names = {
        "rmse": "root-mean-square error",
        "worst_pixel_rmse": "largest root-mean-square error over time of any pixel",
        "rmse_global": "root-mean-square error against the finest data",
    }
    unit = None if fitted.is_dataset else unit_text(fitted.attrs[0])
    result: dict[str, Any] = {}
    for name, values in local.items():
        table = np.stack(values)
        attrs = {"long_name": names[name]} | ({} if unit is None else {"units": unit})
        result[name] = (("level", "variable"), table, attrs) if fitted.is_dataset else ("level", table[:, 0], attrs)
    encoding = model.encoding_sizes.values
    features = np.cumsum([0, *(shapes[0][0] * np.prod(pyramid.shape(k - 1)) for k in range(1, model.levels))])
    n_valid = int(inference.standards[-1].valid.sum())
    parameters = np.cumsum([sum(p.numel() for p in level.parameters()) for level in network.levels])
    shares = []
    for fitted_level, storable in zip(network.levels, network.storable, strict=True):
        possible = int(storable.any(0).sum()) * len(fitted_level.groups)
        shares.append(sum(group.n_cells for group in fitted_level.groups) / possible if possible else 0.0)
    result |= {
        "encoding_size": ("level", encoding, {"long_name": "numbers per snapshot that decoding needs"}),
        "encoding_size_paper": ("level", encoding + features, {"long_name": "the same by the authors' count"}),
        "ratio": ("level", n_valid / encoding, {"long_name": "valid values over encoding size"}),
        "n_parameters": ("level", parameters, {"long_name": "weights and biases up to this level"}),
        "active_share": ("level", shares, {"long_name": "active cells over cells that can act"}),
    }
    coords: dict[str, Any] = {"level": np.arange(model.levels)}
    if fitted.is_dataset:
        coords["variable"] = list(fitted.variables)
        coords["units"] = ("variable", [unit_text(attrs) or "" for attrs in fitted.attrs])
    return xr.Dataset(result, coords=coords, attrs=model._attrs())


def _own(level: int, position: int, shapes: list[Any]) -> int:
    """The level whose pixels an entry lies on: its own, or the finest for the global metric."""
    return level if position < len(shapes) else len(shapes) - 1


def _total(model: MrCAE, layout: Any, array: Any) -> np.ndarray:
    """Sums of squared errors and numbers of values of every pixel, over all snapshots."""
    errors = model.fitted.inference.squared_errors
    season = model.fitted.season(layout)
    if not isinstance(array, da.Array):
        length = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
        cuts = [slice(i, i + length) for i in range(0, len(array), length)]
        return np.sum([errors(array[cut], season[cut])[0] for cut in cuts], axis=0)
    array = array.rechunk({1: -1, 2: -1, 3: -1})
    beside = da.asarray(season).rechunk((array.chunks[0],))
    levels = model.fitted.inference.standards
    pixels = sum(s.valid.size for s in levels) + len(levels) * levels[-1].valid.size
    blocks = da.blockwise(
        call, "tkp", array, "tvyx", beside, "t", new_axes={"k": 2, "p": pixels}, adjust_chunks={"t": 1},
        concatenate=True, dtype=np.float64, meta=np.empty((0, 0, 0)), **as_node(errors),
    )  # fmt: skip
    return blocks.sum(0).compute()
