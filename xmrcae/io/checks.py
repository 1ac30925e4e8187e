"""What must hold of a model that was read, whoever wrote its file.

Checksums tell damage, not intent: a file may be made to have them. What is checked here keeps
wrong content from ending in an error, or in NaN, at first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core.state import NetworkState, check_state
from ..errors import require
from ..grid.pyramid import Axis, Pyramid
from ..grid.scaling import Scaling, magnitudes
from ..option_values import check_number, to_choice
from ..options import CHOICES, Options

FLOATS = ("float32", "float64")


def check_about(about: Mapping[str, Any], attrs: Mapping[Any, Any], options: Options) -> None:
    """Check names, types and ranges of what JSON holds, against the options of the fit.

    Raises
    ------
    KeyError, TypeError, ValueError
        Naming what is wrong.
    """
    names, dims, sample = about["variables"], about["dims"], about["sample"]
    horizontal = [about["grid"][name] for name in "yx"]
    for listed in (dims, sample, horizontal, names):
        require(isinstance(listed, list), f"{listed!r} is no list of names")
        require(len(set(listed)) == len(listed), f"{listed!r} has a name twice")
    # A single field without a name has None, which only a DataArray may.
    texts = [*dims, *sample, *horizontal, *names * (names != [None] or about["is_dataset"])]
    require(all(isinstance(name, str) for name in texts), f"names are not text: {texts!r}")
    require(names and len(about["attrs"]) == len(names), "attributes are not one per variable")
    require(set(horizontal) <= set(dims) and not set(horizontal) & set(sample), "dimensions")
    for name in ("is_dataset", "monthly"):
        require(isinstance(about[name], bool), f"{name} is {about[name]!r}")
    descending, periodic = about["grid"]["descending"], about["grid"]["periodic"]
    require(len(descending) == 2, f"two dimensions descend or not: {descending!r}")
    for value in (*descending, periodic):
        require(isinstance(value, bool), f"of the grid, {value!r} is neither true nor false")
    require(about["dtype"] in FLOATS, f"data of type {about['dtype']!r}")
    to_choice("fill", about["fill"], CHOICES["fill"])
    require(about["monthly"] == (options.center == "month"), "monthly differs from center")
    require(isinstance(attrs["xmrcae_model"], str), "the model's id is no text")
    require(attrs["partial"] in (0, 1), f"partial is {attrs['partial']}")


def check_axes(axes: Sequence[Axis]) -> None:
    """Check that the data lie within their padding."""
    for axis in axes:
        for size in (axis.size, axis.padded, axis.before):
            check_number("size", size, 0, 2**31, whole=True)
        inside = axis.before + axis.size <= axis.padded
        require(inside and (axis.padded + 1) % 2**axis.levels == 0, f"padding of {axis}")


def check_network(
    state: NetworkState, pyramid: Pyramid, about: Mapping[str, Any], options: Options
) -> None:
    """Check a network against the grid, the options of the fit, and for numbers that are none.

    Raises
    ------
    TypeError, ValueError
        Naming what is wrong.
    """
    for name in ("widening", "restriction", "activation"):
        value = to_choice(name, getattr(state, name), CHOICES[name])
        require(value == getattr(options, name), f"{name}={value!r} is not that of the options")
    levels = pyramid.levels
    require(len(state.has_data) == len(state.masks) == levels, "levels of network and grid differ")
    require(pyramid.restriction == state.restriction, "restrictions of network and grid differ")
    shape = (len(about["variables"]), *pyramid.shape(levels - 1))
    require(state.counts.shape == shape, f"the network is on another grid than {shape}")
    require(state.dtype in FLOATS, f"weights of type {state.dtype!r}")
    check_number("anchor", state.anchor, 0)
    check_state(state)


def check_scaling(standard: Scaling, about: Mapping[str, Any], sizes: Sequence[int]) -> None:
    """Check the maps that are added to decoded fields."""
    shape, seasons = (len(about["variables"]), *sizes), standard.centre.shape[:1]
    least, most = magnitudes(np.dtype(about["dtype"]))
    require(seasons[0] in range(1, 13 if about["monthly"] else 2), f"{seasons[0]} seasons")
    for maps, lead in ((standard.centre, seasons), (standard.mean, ())):
        require(maps.shape == (*lead, *shape), f"a map of shape {maps.shape}")
        require(maps.dtype == about["dtype"], f"a map of type {maps.dtype}")
        require(np.isfinite(maps).all(), "a map holds NaN or infinite values")
        require((np.abs(maps) <= most).all(), f"a map holds values over {most:.2g}")
    scale = standard.scale
    require(scale.shape == shape[:1] and scale.dtype.kind in "if", "scales are no numbers")
    require(((least <= scale) & (scale <= 2 * most)).all(), f"scales of {scale}")
