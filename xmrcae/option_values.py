"""Values of options: arrays as the numbers and lists that they hold, and what JSON has of them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

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


def indexers_by_value(split: Any) -> Any:
    """Return fractions as numbers; indexers as lists, slices, arrays, or booleans with labels."""
    if not is_list(split) and np.ndim(split) == 0:
        return by_value(split)
    return tuple(_indexer(part) for part in (split if is_list(split) else np.asarray(split)))


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
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def is_same(value: Any, choice: Any) -> bool:
    """Tell whether a value is a choice: True is not 1, but 0.0 is 0."""
    numbers = is_number(value) and is_number(choice)
    return (numbers or type(value) is type(choice)) and value == choice


def is_list(value: Any) -> bool:
    """Tell whether a value is a list, tuple or range."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def is_text(value: Any, text: str) -> bool:
    """Tell whether a value is this text; arrays are compared with none."""
    return isinstance(value, str) and value == text
