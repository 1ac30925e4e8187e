"""Encodings as labelled data: a DataTree of levels, or one stack of features."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import xarray as xr

from .codec import Codec
from .fitted import Fitted
from .grid.conventions import Labelled, coords_along
from .grid.coordinates import REVERSED
from .grid.dimensions import CODES_OWN, Dimensions, check_names, check_text
from .grid.layout import Layout, map_samples

#: How netCDF compresses codes; Zarr ignores this and compresses anyway. No chunk sizes: those of
#: the whole would be wrong for a selection.
COMPRESSED = {"zlib": True, "shuffle": True}


def flat_codes(obj: Labelled, fitted: Fitted) -> tuple[Any, Layout]:
    """Return all codes (sample, code) of labelled data, and how they lie."""
    obj = fitted.variables_of(obj)
    layout = fitted.layout(obj)
    array = layout.array(obj).astype(fitted.dtype, copy=False)
    size = (sum(fitted.codec.sizes),)
    season = fitted.season(layout)
    codec = fitted.codec
    flat = map_samples(codec.encode, array, season, shape=size, dtype=np.float32, **codec.blocks)
    return flat, layout


def codes_to_tree(flat: Any, fitted: Fitted, layout: Layout) -> xr.DataTree:
    """Make a DataTree of all codes (sample, code).

    It has an `encoding` (sample, channel, y, x) per level.
    """
    codec, pyramid, attrs = fitted.codec, fitted.codec.pyramid, fitted.attributes
    grid = pyramid.grid
    check_names([*layout.order, *layout.sample_coords.coords])
    nodes: dict[str, xr.Dataset] = {"/": xr.Dataset(attrs=attrs)}
    for level, active in enumerate(codec.active):
        values = map_samples(
            codec.scatter,
            flat,
            shape=active.shape,
            dtype=np.float32,
            level=level,
            **codec.blocks,
        )
        coords = pyramid.encoding_coordinates(level).assign_coords(
            group=(
                "channel",
                codec.groups[level],
                {"long_name": "group of filters; 0 is the bottleneck"},
            )
        )
        encoding = layout.labelled(
            values,
            ("channel", *grid.dims),
            coords,
            name="encoding",
            attrs={"long_name": f"encoding of level {level}"},
        )
        encoding.encoding = dict(COMPRESSED)
        nodes[f"/level_{level}"] = layout.orient(encoding).to_dataset().assign_attrs(attrs)
    return xr.DataTree.from_dict(nodes)


def tree_to_codes(codes: xr.DataTree, fitted: Fitted, *, level: int) -> tuple[Any, Layout]:
    """Return the active codes (sample, code) of the levels up to one, and how they lie.

    Raises
    ------
    TypeError, ValueError
        If the codes do not fit the model: levels, channels, coordinates, or its id where it is
        still there.
    """
    if not isinstance(codes, xr.DataTree):
        raise TypeError(f"codes must be a DataTree as encode gives it, not {type(codes).__name__}")
    given = codes.attrs.get("xmrcae_model")
    if given is not None and given != fitted.id:
        raise ValueError(
            f"the codes were made by another model (id {given}; this one is "
            f"{fitted.id}); if they are meant for this one, "
            'delete their attribute "xmrcae_model"'
        )
    grid = fitted.codec.pyramid.grid
    own = "channel", *grid.dims
    encodings = [_encoding(codes, k, level, own) for k in range(level + 1)]
    sample = tuple(str(dim) for dim in encodings[-1].dims if dim not in own)
    pieces, layouts = [], []
    for k, encoding in enumerate(encodings):
        flat, layout = _active_codes(encoding, fitted.codec, k, sample)
        pieces.append(flat)
        layouts.append(layout)
    for k, layout in enumerate(layouts[:-1]):
        _check_same_samples(layout, layouts[-1], (k, level))
    return _side_by_side(pieces), layouts[-1]


def _encoding(codes: xr.DataTree, k: int, level: int, needed: tuple[str, ...]) -> xr.DataArray:
    """Return the encoding of level k, one of those that a level is decoded from."""
    if f"level_{k}" not in codes.children or "encoding" not in codes[f"level_{k}"].data_vars:
        raise ValueError(
            f"the codes have no /level_{k} with a variable 'encoding'; decode(level={level}) "
            f"needs levels 0 to {level}"
        )
    encoding = codes[f"level_{k}"].to_dataset()["encoding"]
    check_text([*encoding.dims, *encoding.coords])
    missing = [dim for dim in needed if dim not in encoding.dims]
    if missing:
        raise ValueError(
            f"the codes of level {k} have no dimension {missing[0]!r}; they have {encoding.dims}"
        )
    return encoding


def _check_same_samples(layout: Layout, finest: Layout, levels: tuple[int, int]) -> None:
    """Refuse codes of one snapshot that would be put together with another's.

    Coordinates that are dask arrays are not compared, so that nothing is computed.
    """
    if layout.sample_shape != finest.sample_shape:
        raise ValueError(
            "the levels of the codes differ in number of samples: "
            f"{[layout.sample_shape, finest.sample_shape]} in levels {levels[0]} and {levels[1]}"
        )
    given, others = layout.sample_coords.coords, finest.sample_coords.coords
    for name in (name for name in given if name in others and name not in CODES_OWN):
        one, other = given[name].variable, others[name].variable
        if not (one.chunks or other.chunks or one.broadcast_equals(other)):
            raise ValueError(
                f"the codes of levels {levels[0]} and {levels[1]} differ in coordinate {name!r}: "
                "bring them into the same order, or drop it where it tells nothing of a snapshot"
            )


def _side_by_side(pieces: list[Any]) -> Any:
    """Join the codes (sample, code) of several levels, in the chunks of the first lazy one.

    All codes of a sample are in one chunk: Zarr refuses chunks that differ in size.
    """
    chunks = next((piece.chunks[0] for piece in pieces if isinstance(piece, da.Array)), None)
    if chunks is None:
        return np.concatenate(pieces, axis=1)
    lazy = [da.asarray(piece).rechunk((chunks, -1)) for piece in pieces]
    size, dtype = sum(piece.shape[1] for piece in lazy), np.result_type(*lazy)
    # da.concatenate would take a task per level for each chunk.
    return da.map_blocks(
        _joined, *lazy, chunks=(chunks, (size,)), dtype=dtype, meta=np.empty((0, 0), dtype)
    )


def _joined(*pieces: np.ndarray) -> np.ndarray:
    return np.concatenate(pieces, axis=1)


def _active_codes(
    encoding: xr.DataArray, codec: Codec, level: int, sample: tuple[str, ...]
) -> tuple[Any, Layout]:
    """Return the active codes of one level, (sample, code), sample dimensions in an order."""
    pyramid, active = codec.pyramid, codec.active[level]
    grid = pyramid.grid
    if encoding.sizes["channel"] != len(active):
        raise ValueError(
            f"the codes of level {level} have {encoding.sizes['channel']} channels; the "
            f"model has {len(active)}"
        )
    if "group" in encoding.coords and not np.array_equal(
        encoding["group"].values, codec.groups[level]
    ):
        raise ValueError(
            f"the codes of level {level} have groups {encoding['group'].values}; the model has "
            f"{codec.groups[level]}"
        )
    if set(encoding.dims) != {*sample, "channel", *grid.dims}:
        raise ValueError(
            f"the codes of level {level} lie along {encoding.dims}; those of the finest level "
            f"given have the sample dimensions {sample}"
        )
    dims = Dimensions(sample, *grid.dims)
    coords = pyramid.encoding_coordinates(level).drop_vars("inside")
    cells = replace(grid, sizes=pyramid.shape(level - 1), coords=coords, periodic=False)
    try:
        indexers = cells.indexers(encoding)
    except ValueError as error:
        raise ValueError(f"the codes of level {level} do not fit the model: {error}") from None
    order = tuple(str(dim) for dim in encoding.dims if dim != "channel")
    shape = tuple(encoding.sizes[dim] for dim in sample)
    layout = Layout(dims, order, indexers, coords_along(encoding, sample), shape)
    values = encoding.transpose(*sample, "channel", *grid.dims).isel(indexers).variable.data
    values = values.reshape(int(np.prod(shape)), *values.shape[-3:])
    flat = map_samples(
        codec.gather,
        values,
        shape=(codec.sizes[level],),
        dtype=values.dtype,
        level=level,
        **codec.blocks,
    )
    return flat, layout


def codes_to_fields(flat: Any, fitted: Fitted, layout: Layout, *, level: int) -> Labelled:
    """Decode fields on a level's grid from the codes (sample, code) of the levels up to it."""
    season, attrs = fitted.season(layout), fitted.attributes
    codec, grid = fitted.codec, fitted.codec.pyramid.grid
    shape = codec.standards[level].valid.shape
    fields = map_samples(
        codec.decode,
        flat,
        season,
        shape=shape,
        dtype=fitted.dtype,
        level=level,
        **codec.blocks,
    )
    coords = codec.pyramid.coordinates(level)
    arrays = {
        name: layout.labelled(
            fields[:, v], grid.dims, coords, name=name, attrs=fitted.labels.attrs[v] | attrs
        )
        for v, name in enumerate(fitted.labels.variables)
    }
    return (
        xr.Dataset(arrays, attrs=attrs) if fitted.labels.is_dataset else next(iter(arrays.values()))
    )


def laid_as(given: Labelled, result: Labelled) -> Labelled:
    """Give a result the coordinates and dimensions of given data, variable by variable."""
    result = result.assign_coords(given.coords)
    if isinstance(result, xr.DataArray):
        return result
    return result.assign(
        {name: each.variable.set_dims(given[name].dims) for name, each in result.data_vars.items()}
    )


def with_gaps_of(given: Labelled, result: Labelled) -> Labelled:
    """Put NaN where the given data have it; nothing but values changes."""
    if isinstance(result, xr.Dataset):
        return result.assign(
            {name: with_gaps_of(given[name], each) for name, each in result.data_vars.items()}
        )
    known = given.variable.notnull().transpose(*result.dims)
    return result.copy(data=result.variable.where(known).data)


def feature_index(codec: Codec) -> pd.MultiIndex:
    """Return (level, channel, y, x) of every code.

    Rows and columns are told by their coordinates, or else by position.
    """
    pyramid = codec.pyramid
    grid = pyramid.grid
    parts = []
    for level, active in enumerate(codec.active):
        coords = pyramid.encoding_coordinates(level)
        channel, *cells = np.nonzero(active)
        labels = [
            coords[dim].values[cell] if dim in coords.coords else cell
            for dim, cell in zip(grid.dims, cells, strict=True)
        ]
        parts.append([np.full(len(channel), level), channel, *labels])
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return pd.MultiIndex.from_arrays(columns, names=["level", "channel", *grid.dims])


def stack(codes: xr.DataTree, fitted: Fitted) -> xr.DataArray:
    """Put all active codes side by side, as :meth:`xmrcae.MrCAE.stack` documents it."""
    flat, layout = tree_to_codes(codes, fitted, level=fitted.level(None))
    values = flat.reshape(*layout.sample_shape, flat.shape[1])
    stacked = xr.DataArray(
        values,
        dims=(*layout.dims.sample, "feature"),
        name="encoding",
        attrs=fitted.attributes | {"descending": json.dumps(layout.descending_dims)},
    )
    stacked.encoding = dict(COMPRESSED)
    index = xr.Coordinates.from_pandas_multiindex(feature_index(fitted.codec), "feature")
    return stacked.assign_coords(layout.sample_coords.coords).assign_coords(index)


def unstack(stacked: xr.DataArray, fitted: Fitted) -> xr.DataTree:
    """Make codes from a stack, as :meth:`xmrcae.MrCAE.unstack` documents it."""
    grid, index = fitted.codec.pyramid.grid, feature_index(fitted.codec)
    if "feature" not in stacked.dims or stacked.sizes["feature"] != len(index):
        raise ValueError(
            f"the stack has dimensions {dict(stacked.sizes)}; the model needs feature: {len(index)}"
        )
    _check_features(stacked, index)
    check_text([*stacked.dims, *stacked.coords])
    sample = tuple(str(dim) for dim in stacked.dims if dim != "feature")
    descending = grid.descending_dims
    if "descending" in stacked.attrs:
        descending = json.loads(stacked.attrs["descending"])
    layout = Layout(
        dims=Dimensions(sample, *grid.dims),
        order=(*sample, *grid.dims),
        indexers=dict.fromkeys(descending, REVERSED),
        sample_coords=coords_along(stacked, sample),
        sample_shape=tuple(stacked.sizes[dim] for dim in sample),
    )
    flat = (
        stacked.transpose(*sample, "feature")
        .variable.data.reshape(int(np.prod(layout.sample_shape)), len(index))
        .astype(np.float32)
    )
    return codes_to_tree(flat, fitted, layout)


def _check_features(stacked: xr.DataArray, index: pd.MultiIndex) -> None:
    """Refuse features of another model or order, by their index or what resetting it leaves."""
    if "feature" in stacked.indexes:
        same = stacked.indexes["feature"].equals(index)
    else:
        labels = {name: c for name, c in stacked.coords.items() if c.dims == ("feature",)}
        same = all(
            pd.Index(labels[name].values).equals(index.get_level_values(name))
            for name in index.names
            if name in labels
        )
    if not same:
        raise ValueError(
            "the features of the stack are not those of this model, or not in its order"
        )
