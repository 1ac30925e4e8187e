"""Coordinates and attributes as plain numbers, text and JSON, to come back as they were.

Neither netCDF nor Zarr holds every name, data type and attribute that xarray does, and decoding by
CF's conventions guesses from attributes. So variables are written as plain numbers or text, and
what they were goes into a JSON record.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import cftime  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import xarray as xr

UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
EPOCH = "since 1970-01-01"


def file_name(name: Hashable, other: str) -> str:
    """Return `name` if every format can hold it; else the other."""
    return name if isinstance(name, str) and re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) else other


def coordinates_to_plain(
    coords: xr.Dataset, dims: Sequence[Hashable]
) -> tuple[dict[str, xr.Variable], dict[str, Any]]:
    """Write coordinates as variables that every format can hold.

    Parameters
    ----------
    coords : xarray.Dataset
        The coordinates; a MultiIndex becomes its levels.
    dims : sequence of str
        Dimensions that may have no coordinate.

    Returns
    -------
    dict of xarray.Variable
        By their names in the file.
    dict
        What they were, as JSON: `stacked`, `dims` and `coordinates`. Those that are neither
        numbers, text nor times are left out, with a warning.
    """
    indexes = {dim: coords.indexes[dim] for dim in coords.dims if dim in coords.indexes}
    stacked = {
        dim: list(index.names) for dim, index in indexes.items() if isinstance(index, pd.MultiIndex)
    }
    coords = coords.reset_index(list(stacked))
    in_file = {
        dim: file_name(dim, f"dimension_{i}")
        for i, dim in enumerate(dict.fromkeys([*dims, *coords.dims]))
    }
    variables, records = {}, []
    for i, (name, variable) in enumerate(coords.variables.items()):
        values, attrs = _to_plain(variable.values)
        if values is None:
            warnings.warn(
                f"coordinate {name!r} holds neither numbers, text nor times: the file "
                "leaves it out",
                stacklevel=5,
            )
            continue
        for key in (
            "standard_name",
            "long_name",
            "units",
        ):  # for those who read the file without xmrcae
            text = variable.attrs.get(key)
            if isinstance(text, str) and key not in attrs and " since " not in text:
                attrs[key] = text
        stored = file_name(name, f"coordinate_{i}")
        variables[stored] = xr.Variable([in_file[dim] for dim in variable.dims], values, attrs)
        records.append({
            "name": name, "stored": stored, "dims": list(variable.dims),
            "dtype": _type_of(variable), "attrs": attributes_to_json(variable.attrs),
        })  # fmt: skip
    return variables, {"stacked": stacked, "dims": in_file, "coordinates": records}


def coordinates_from_plain(stored: xr.Dataset, record: Mapping[str, Any]) -> xr.Dataset:
    """Undo `coordinates_to_plain`; what is stored must not have been decoded."""
    coords = {
        each["name"]: xr.Variable(
            each["dims"], _from_plain(stored.variables[each["stored"]], each["dtype"]),
            attributes_from_json(each["attrs"]),
        )
        for each in record["coordinates"]
    }  # fmt: skip
    return xr.Dataset(coords=coords).set_index(record["stacked"])


def _to_plain(values: np.ndarray) -> tuple[np.ndarray | None, dict[str, Any]]:
    """Write values as numbers or text, with CF's attributes; None if neither nor a time."""
    kind = values.dtype.kind
    if kind in "iuf":
        return (
            values.astype("float32") if values.dtype.itemsize < 4 and kind == "f" else values
        ), {}
    if kind == "b":
        return values.astype("int8"), {}
    if kind in "mM":
        units = UNITS[np.datetime_data(values.dtype)[0]]
        return values.astype("int64"), {"units": f"{units} {EPOCH}" if kind == "M" else units}
    if kind == "S":
        values = np.char.decode(values, "latin-1")
    each = values.astype(object)
    first = next(iter(each.ravel()), "")
    if all(isinstance(value, str) for value in each.ravel()):
        return each, {}
    if isinstance(first, cftime.datetime) and all(
        isinstance(value, cftime.datetime) for value in each.ravel()
    ):
        attrs = {"units": f"microseconds {EPOCH}", "calendar": first.calendar}
        return np.asarray(cftime.date2num(each, **attrs), dtype="int64"), attrs
    return None, {}


def _type_of(variable: xr.Variable) -> str:
    """Return the type that values come back in; objects for text of any length.

    NumPy's StringDType has no name that `numpy.dtype` could read.
    """
    return "|O" if variable.dtype.kind == "T" else variable.dtype.str


def _from_plain(stored: xr.Variable, dtype: str) -> np.ndarray:
    values, kind = stored.values, dtype[1]
    if kind == "S":
        return np.char.encode(values.astype(object).astype(str), "latin-1").astype(dtype)
    if kind == "O" and "calendar" in stored.attrs:
        units, calendar = stored.attrs["units"], stored.attrs["calendar"]
        dates = cftime.num2date(values, units, calendar, only_use_cftime_datetimes=True)
        return np.asarray(dates, dtype=object)
    return values.astype(object if kind == "T" else dtype)


def attributes_to_json(attrs: Mapping[Any, Any]) -> list[Any]:
    """Write attributes as JSON, [name, value] each; numpy values and mappings tagged."""
    return [[name, _to_json(value)] for name, value in attrs.items()]


def attributes_from_json(attrs: Sequence[Any]) -> dict[Any, Any]:
    """Undo `attributes_to_json`."""
    return {name: _from_json(value) for name, value in attrs}


def _to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufmMUO":
        values = value.view("int64") if value.dtype.kind in "mM" else value
        return {"dtype": value.dtype.str, "value": _to_json(values.tolist())}
    if isinstance(value, Mapping):
        return {"mapping": attributes_to_json(value)}
    if isinstance(value, list | tuple):
        return [_to_json(each) for each in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _from_json(value: Any) -> Any:
    if isinstance(value, dict) and "mapping" in value:
        return attributes_from_json(value["mapping"])
    if isinstance(value, dict):
        dtype, values = np.dtype(value["dtype"]), _from_json(value["value"])
        return (
            np.asarray(values, dtype="int64").view(dtype)[()]
            if dtype.kind in "mM"
            else np.asarray(values, dtype)[()]
        )
    return [_from_json(each) for each in value] if isinstance(value, list) else value
