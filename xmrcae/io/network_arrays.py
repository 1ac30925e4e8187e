"""A network as few arrays: all weights as one vector, all boolean maps as one row of bits.

Hundreds of arrays of some numbers each would cost a file more in their descriptions than in their
content.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..core.state import NetworkState
from ..option_values import check_number

#: Fields of a state that are plain values, which JSON holds.
PLAIN = ("widening", "restriction", "activation", "dtype", "anchor", "channels")

#: More levels than any grid has room for.
MOST_LEVELS = 64


def to_arrays(state: NetworkState) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Write a network as arrays and plain values.

    Parameters
    ----------
    state : NetworkState
        The network.

    Returns
    -------
    dict of str to numpy.ndarray
        `weights`, 1-D: the parameters that :func:`parameters` lists, one after the other. `bits`,
        1-D, uint8: `has_data` of every level, `counts`, and the masks of every level's groups,
        one after the other, coarsest level first, packed by :func:`numpy.packbits`. `projection`,
        1-D: weights of the pixels of every level; only where codes are found by projection.
    dict
        What :func:`from_arrays` needs beside them, as JSON holds it.
    """
    shapes = parameters(state.channels, len(state.counts), encodes=state.projection is None)
    maps = [*state.has_data, state.counts, *(mask for masks in state.masks for mask in masks)]
    arrays = {
        "weights": _joined([state.weights[name] for name in shapes], state.dtype),
        "bits": np.packbits(_joined(maps, bool)),
    }
    if state.projection is not None:
        arrays["projection"] = _joined(state.projection, state.projection[0].dtype)
    about = {name: getattr(state, name) for name in PLAIN}
    return arrays, about | {"levels": len(state.has_data), "shape": list(state.counts.shape)}


def from_arrays(arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> NetworkState:
    """Undo :func:`to_arrays`.

    Raises
    ------
    KeyError, TypeError, ValueError
        If arrays and plain values do not belong together.
    """
    check_number("levels", about["levels"], 1, MOST_LEVELS, whole=True)
    for size in (*about["shape"], *(n for groups in about["channels"] for n in groups)):
        check_number("size", size, 1, 2**31, whole=True)
    n_variables, *finest = about["shape"]
    channels, encodes = about["channels"], "projection" not in arrays
    # Grids from the bottleneck, which is the encoding grid of level 0, to the finest level.
    grids = [_coarsened(finest, times) for times in range(about["levels"], -1, -1)]
    fields = [(n_variables, *grid) for grid in grids[1:]]
    masks = [grids[k] for k, groups in enumerate(channels) for _ in groups]
    maps = iter(_unpacked(arrays["bits"], [*fields, fields[-1], *masks]))
    shapes = parameters(channels, n_variables, encodes=encodes)
    weights = _parts(arrays["weights"], shapes.values())
    return NetworkState(
        has_data=[next(maps) for _ in fields],
        counts=next(maps),
        masks=[[next(maps) for _ in groups] for groups in channels],
        projection=None if encodes else _parts(arrays["projection"], fields),
        weights=dict(zip(shapes, weights, strict=True)),
        **{name: about[name] for name in PLAIN},
    )


def parameters(
    channels: Sequence[Sequence[int]], n_variables: int, *, encodes: bool
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of a network, by name, in the order of storage.

    Parameters
    ----------
    channels : list of list of int
        Number of filters of each group, for each level.
    n_variables : int
        Number of variables; each has 9 taps of a filter.
    encodes : bool
        Whether encoders have weights: not where codes are found by projection.
    """
    taps = 9 * n_variables
    deepening = {"weight": (taps,), "bias": (n_variables,)}
    shapes: dict[str, tuple[int, ...]] = {}
    for k, groups in enumerate(channels):
        for side in ("encoder", "decoder")[not encodes :]:
            for name, shape in deepening.items():
                shapes[f"levels.{k}.deepening.{side}_{name}"] = shape
        for j, filters in enumerate(groups):
            group = f"levels.{k}.groups.{j}"
            if encodes:
                shapes |= {f"{group}.encoder_weight": (filters, taps)}
                shapes |= {f"{group}.encoder_bias": (filters,)}
            shapes |= {f"{group}.decoder_weight": (filters, taps)}
            shapes |= {f"{group}.decoder_bias": (n_variables,)}
    return shapes


def _coarsened(shape: Sequence[int], times: int) -> tuple[int, int]:
    """Return rows and columns of the grid that is so many levels below one."""
    rows, columns = ((size + 1) // 2**times - 1 for size in shape)
    return rows, columns


def _joined(arrays: Iterable[np.ndarray], dtype: Any) -> np.ndarray:
    """Return all values as one vector."""
    return np.concatenate([np.zeros(0, dtype), *(array.ravel() for array in arrays)])


def _parts(flat: np.ndarray, shapes: Collection[tuple[int, ...]]) -> list[np.ndarray]:
    """Undo :func:`_joined`."""
    stops = np.cumsum([0, *map(math.prod, shapes)])
    if len(flat) != stops[-1]:
        raise ValueError(f"{len(flat)} numbers for {stops[-1]} of the network")
    pieces = (flat[start:stop] for start, stop in pairwise(stops))
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _unpacked(bits: np.ndarray, shapes: Collection[tuple[int, ...]]) -> list[np.ndarray]:
    """Return boolean maps of such shapes; fewer than 8 bits are left over."""
    n_bits = sum(map(math.prod, shapes))
    if len(bits) != math.ceil(n_bits / 8):
        raise ValueError(f"{len(bits)} bytes for the {n_bits} bits of the network's maps")
    return _parts(np.unpackbits(bits, count=n_bits).astype(bool), shapes)
