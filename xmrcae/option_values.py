"""Values of options: what arrays among them hold, what is allowed, and what JSON has of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from math import inf, isfinite
from numbers import Integral
from typing import Any

import numpy as np
import xarray as xr

#: Least and greatest value of each number; None will do where it is the default.
RANGES = {
    **dict.fromkeys(("encoding_size", "sketch"), (1, 10**12)),
    **dict.fromkeys(("dilation", "max_epochs"), (0, 10**12)),
    **dict.fromkeys(("min_decrease", "omega", "noise"), (0, 1)),
    "levels": (1, 30),
    "memory": (1, inf),
    "seed": (0, 2**64 - 1),  # as torch takes them
    "anchor": (0, 1e6),
    "energy": (0, inf),
    "land_value": (-inf, inf),
}
WHOLE = ("levels", "encoding_size", "sketch", "dilation", "max_epochs", "seed")

#: The same for a solver's own; with a step of 0, or one that overflows, nothing is learnt.
SOLVER_RANGES = {"learning_rate": (1e-12, 1e6), "weight_decay": (0, 1e6), "eps": (1e-12, 1e6)}

#: Values of a list of indices up to which attributes and files hold the list itself.
LONG = 50


def by_value(value: Any) -> Any:
    """Return what an option's value holds: arrays as numbers, text and lists of them."""
    if isinstance(value, Mapping):  # a Dataset of tolerances too
        return {key: by_value(each) for key, each in value.items()}
    if is_list(value):
        return (tuple if isinstance(value, tuple) else list)(map(by_value, value))
    if not hasattr(value, "__array__"):
        return value
    array = np.asarray(value)
    if array.dtype.kind == "f":
        array = array.astype(np.float64)  # as a number of Python is
    return value if array.dtype.kind in "mM" else array.tolist()


def to_choice(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """Return which of the allowed values an option has: True is not 1, but 0.0 is 0."""
    for choice in allowed:
        are_numbers = is_number(value) and is_number(choice)
        if (are_numbers or type(value) is type(choice)) and value == choice:
            return choice
    raise ValueError(f"{name}={value!r} is not an option; choose from {allowed}")


def to_channels(given: Any) -> list[list[int]]:
    """Return filters as lists of their own, one per level or one for all."""
    is_flat = is_list(given) and all(isinstance(each, Integral) for each in given)
    lists = [given] if is_flat else given
    if not (is_list(given) and given and all(is_list(filters) for filters in lists)):
        raise TypeError(f"channels={given!r}: one list of filters per level, as [[1, 1], [2]]")
    for filters in lists:
        for n in filters:
            check_number("channels", n, 1, whole=True)
    return [list(filters) for filters in lists]


def to_split(given: Any) -> Any:
    """Return "blocks", fractions, or indexers: lists, slices, arrays, booleans with labels."""
    if is_list(given) or np.ndim(given):
        split = tuple(_indexer(part) for part in (given if is_list(given) else np.asarray(given)))
    elif is_text(split := by_value(given), "blocks"):
        return split
    parts = split if isinstance(split, tuple) else ()
    fractions = all(is_number(part) for part in parts)
    kinds = slice, xr.DataArray
    indexers = all(isinstance(part, kinds) or np.ndim(part) == 1 for part in parts)
    got = f"split={to_plain(split)!r}"
    if len(parts) != 3 or not (fractions or indexers):
        raise ValueError(f'{got}: three fractions, "blocks", or three indexers')
    if fractions and not (min(parts) >= 0 and abs(sum(parts) - 1) <= 1e-6):
        raise ValueError(f"{got}: fractions from 0 to 1 that add up to 1")
    return split


def _indexer(part: Any) -> Any:
    if isinstance(part, slice):
        return slice(*map(by_value, (part.start, part.stop, part.step)))
    if isinstance(part, xr.DataArray) and part.dtype.kind == "b" and part.ndim:
        return part
    if isinstance(part, range) or (hasattr(part, "__array__") and np.ndim(part)):
        return np.asarray(part)
    return by_value(part)


def to_plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if isinstance(value, xr.DataArray) and value.ndim == 1:
        value = value.values  # booleans of split
    if isinstance(value, xr.DataArray) or (isinstance(value, np.ndarray) and value.ndim != 1):
        return f"<{type(value).__name__} {value.shape}>"
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, slice):
        return {"slice": [to_plain(each) for each in (value.start, value.stop, value.step)]}
    if isinstance(value, list | tuple | np.ndarray):
        values = [to_plain(each) for each in value]
        if len(values) <= LONG:
            return values
        digest = hashlib.sha256(json.dumps(values).encode()).hexdigest()
        return f"<{len(values)} values, {digest[:16]}>"
    if isinstance(value, np.generic):
        return str(value) if value.dtype.kind in "mM" else value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


def is_number(value: Any) -> bool:
    """Tell whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_list(value: Any) -> bool:
    """Tell whether a value is a list, tuple or range."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def is_text(value: Any, text: str) -> bool:
    """Tell whether a value is this text; arrays are compared with none."""
    return isinstance(value, str) and value == text


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, anything else as a list of one."""
    return list(value) if is_list(value) else [value]


def per_level(name: str, values: Sequence[Any], levels: int) -> list[Any]:
    """Return one value per level; a single one serves all."""
    if len(values) not in (1, levels):
        raise ValueError(
            f"{name} has {len(values)} entries for {levels} levels: "
            "give one, which serves all levels, or one per level, coarsest first"
        )
    return list(values) * (levels if len(values) == 1 else 1)


def check_number(name: str, value: Any, low: float, high: float = inf, whole: bool = False) -> None:
    """Refuse what is no finite number in a range."""
    allowed = f"{name}={value!r}: a {'whole' if whole else 'finite'} number"
    if high < inf:
        allowed += f" from {low:g} to {high:g}"
    elif low > -inf:
        allowed += f" of at least {low:g}"
    if not is_number(value) or (whole and not isinstance(value, Integral)):
        raise TypeError(allowed)
    if not (low <= value <= high and isfinite(value)):
        raise ValueError(allowed)


def level_number(level: Any, levels: int) -> int:
    """Return the number of a level, the finest for None.

    Raises
    ------
    ValueError
        If there is no such level.
    """
    if level is None:
        return levels - 1
    whole = isinstance(level, Integral) and not isinstance(level, bool)
    if not whole or not 0 <= level < levels:
        allowed = f"from 0, the coarsest, to {levels - 1}, the data's own"
        raise ValueError(f"level={level!r}: a whole number {allowed}")
    return int(level)
