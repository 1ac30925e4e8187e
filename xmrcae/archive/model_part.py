"""The model inside an archive, and the archive's codes as it labels them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .dataset import archived_names, level_dataset
from .format import sound
from .reader import Reader

if TYPE_CHECKING:
    from ..fitted import Fitted


@sound()
def read_fitted(reader: Reader) -> tuple[dict[str, Any], Fitted]:
    """Read the model that made an archive's codes.

    It departs from the archive's base maps, which also stand in for missing values.

    Returns
    -------
    dict
        Options by name.
    Fitted
        On the CPU.
    """
    from ..io.model_datasets import fitted_from_datasets, standard_dataset

    parts, header = reader.model
    datasets, attrs = dict(parts), header["attrs"]
    finest = reader.levels - 1
    valid = reader.decoder.valid[finest]
    centre = np.zeros((reader.store.about["seasons"], *valid.shape), attrs["about"]["dtype"])
    for v, maps in enumerate(reader.base(finest)):
        centre[:, v, valid[v]] = maps[:, valid[v][reader.kept[v]]]
    datasets["standard"] = standard_dataset(centre, centre[0])
    return fitted_from_datasets(datasets, attrs)


@sound()
def codes_tree(reader: Reader, fitted: Fitted) -> xr.DataTree:
    """Label an archive's codes as :meth:`xmrcae.MrCAE.encode` does; lazy, in the archive's blocks.

    Returns
    -------
    xarray.DataTree
        /level_k with `encoding` (time, channel, y, x), float32, in the model's units.
    """
    import dask.array as da
    from dask.delayed import delayed

    from ..codes import codes_to_tree

    about = reader.store.about
    data = level_dataset(reader)
    names = archived_names(about)
    layout = fitted.layout(data[names] if fitted.labels.is_dataset else data[names[0]])
    of, shared = delayed(_codes, pure=False), delayed(reader, pure=False)
    shape = *about["lanes"], sum(reader.decoder.sizes)
    blocks = [
        da.from_delayed(of(shared, block), (length, *shape), np.float32)
        for block, length in enumerate(reader.lengths)
    ]
    rows = [] if about["append"] is not None else ["row"]
    codes = xr.Variable([*rows, *about["sample"], "code"], da.concatenate(blocks))
    flat = codes.transpose(*rows, *layout.dims.sample, "code").data.reshape(-1, shape[-1])
    return codes_to_tree(flat, fitted, layout)


@sound()
def _codes(reader: Reader, block: int) -> np.ndarray:
    """Return a block's codes in the model's units, (row, *lanes, code)."""
    finest, lanes = reader.levels - 1, reader.store.about["lanes"]
    coder, n_lanes = reader.coder(finest), math.prod(lanes)
    codes = [coder.dequantise(reader.codes(finest, block, lane)) for lane in range(n_lanes)]
    return np.stack(codes, axis=1).astype(np.float32).reshape(-1, *lanes, codes[0].shape[-1])
