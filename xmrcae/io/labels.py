"""Coordinates and attributes as plain numbers, text and JSON, to come back as they were.

Neither netCDF nor Zarr holds every name, data type and attribute that xarray does, and decoding by
CF's conventions guesses from attributes. So variables are written as plain numbers or text, and
what they were goes into a JSON record.
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import cftime  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import xarray as xr

UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
EPOCH = "since 1970-01-01"

#: Bytes of a coordinate or attribute, text filled up to its length: no more are taken.
LARGEST = 2**28


def file_names(
    others: Mapping[Hashable, str],
    *,
    taken: Iterable[Hashable] = (),
    endings: Sequence[str] = ("",),
) -> dict[Hashable, str]:
    """Return names that every format can hold, no two of which differ in case alone.

    Parameters
    ----------
    others : mapping of str
        By each name, the one in its place if no format can hold it, or if it is taken; with as
        many underscores as make that one free.
    taken : iterable of str
        Names that none may have.
    endings : sequence of str
        What the names of a variable's files end in: all have to be free.

    Returns
    -------
    dict of str
        By each name, what it is in files.
    """
    used, result = {str(name).lower() for name in taken}, {}
    # What the user has named comes first, so that names that are made up give way.
    for name in sorted(others, key=_is_plain, reverse=True):
        made_up = (others[name] + "_" * n for n in itertools.count())
        for each in itertools.chain([str(name)] if _is_plain(name) else (), made_up):
            wanted = {f"{each}{ending}".lower() for ending in endings}
            if used.isdisjoint(wanted):
                break
        used |= wanted
        result[name] = each
    return {name: result[name] for name in others}


def _is_plain(name: Hashable) -> bool:
    """Tell whether every format can hold a name."""
    return isinstance(name, str) and re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) is not None


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
    # A coordinate may have the name of a dimension only if it is that dimension's own.
    made_up = {dim: f"dimension_{i}" for i, dim in enumerate(dict.fromkeys([*dims, *coords.dims]))}
    in_file = file_names(made_up, taken=_unlike(coords.variables, made_up))
    made_up = {name: f"coordinate_{i}" for i, name in enumerate(coords.variables)}
    stored = file_names(made_up, taken=_unlike(in_file.values(), made_up))
    variables, records = {}, []
    for name, variable in coords.variables.items():
        values, attrs = _to_plain(variable.values)
        if values is None:
            warnings.warn(
                f"coordinate {name!r} holds neither numbers, text nor times: the file "
                "leaves it out",
                stacklevel=5,
            )
            continue
        attrs = {**readable_attributes(variable.attrs), **attrs}
        dims_in_file = [in_file[dim] for dim in variable.dims]
        variables[stored[name]] = xr.Variable(dims_in_file, values, attrs)
        records.append(
            {
                "name": name,
                "stored": stored[name],
                "dims": list(variable.dims),
                "dtype": type_of(variable.dtype),
                "attrs": attributes_to_json(variable.attrs),
            }
        )
    return variables, {"stacked": stacked, "dims": in_file, "coordinates": records}


def _unlike(names: Iterable[Hashable], others: Iterable[Hashable]) -> list[str]:
    """Return the names that are none of the others, whatever the case of letters."""
    known = {str(other).lower() for other in others}
    return [str(name) for name in names if str(name).lower() not in known]


def coordinates_from_plain(stored: xr.Dataset, record: Mapping[str, Any]) -> xr.Dataset:
    """Undo `coordinates_to_plain`; what is stored must not have been decoded."""
    for each in record["coordinates"]:
        if not isinstance(each["name"], str):
            raise ValueError(f"a coordinate has the name {each['name']!r}, which is no text")
    coords = {
        each["name"]: xr.Variable(
            each["dims"],
            _from_plain(stored.variables[each["stored"]], each["dtype"]),
            attributes_from_json(each["attrs"]),
        )
        for each in record["coordinates"]
    }
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
        return values.astype("int64"), time_attributes(values.dtype)
    texts = as_texts(values)
    if texts is not None:
        return texts, {}
    calendar = calendar_of(values)
    if calendar is not None:
        return dates_to_microseconds(values, calendar), date_attributes(calendar)
    return None, {}


def _from_plain(stored: xr.Variable, dtype: str) -> np.ndarray:
    values, kind = stored.values, dtype[1]
    read_type(dtype if kind != "T" else "|O", values.size)
    if kind == "S":
        return texts_to_bytes(values, dtype)
    if kind == "O" and "calendar" in stored.attrs:
        return dates_from_microseconds(values, stored.attrs["calendar"])
    return values.astype(object if kind == "T" else dtype)


def readable_attributes(attrs: Mapping[Any, Any]) -> dict[str, str]:
    """Return the attributes that help those who read a file without xmrcae."""
    found = {key: attrs.get(key) for key in ("standard_name", "long_name", "units")}
    return {
        key: text for key, text in found.items() if isinstance(text, str) and " since " not in text
    }


def type_of(dtype: Any) -> str:
    """Return the name of the type that values come back in; objects for text of any length.

    Neither NumPy's StringDType nor the types of pandas have a name that `numpy.dtype` could read.
    """
    return dtype.str if isinstance(dtype, np.dtype) and dtype.kind != "T" else "|O"


def read_type(name: str, size: int) -> np.dtype[Any]:
    """Undo `type_of`; a ValueError where `size` values could not be meant to be of such a type."""
    dtype = np.dtype(name)
    if dtype.kind not in "biufcmMSUO" or size * dtype.itemsize > LARGEST:
        raise ValueError(f"{size} values of {dtype.itemsize} bytes each, type {name!r}")
    return dtype


def time_attributes(dtype: np.dtype[Any]) -> dict[str, str]:
    """Return CF's attributes of times or durations that are counted in the unit of their type."""
    units = UNITS[np.datetime_data(dtype)[0]]
    return {"units": f"{units} {EPOCH}" if dtype.kind == "M" else units}


def date_attributes(calendar: str) -> dict[str, str]:
    """Return CF's attributes of dates in microseconds."""
    return {"units": f"microseconds {EPOCH}", "calendar": calendar}


def as_texts(values: np.ndarray) -> np.ndarray | None:
    """Return text as objects of type str, bytes by latin-1; None if anything else is among them."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "latin-1")
    texts = values.astype(object)
    return texts if all(isinstance(text, str) for text in texts.ravel()) else None


def texts_to_bytes(texts: np.ndarray, dtype: str) -> np.ndarray:
    """Undo `as_texts` for bytes."""
    return np.char.encode(texts.astype(object).astype(str), "latin-1").astype(dtype)


def calendar_of(values: np.ndarray) -> str | None:
    """Return the calendar of dates of cftime; None if anything else is among the values."""
    dates = values.ravel()
    if dates.size and all(isinstance(date, cftime.datetime) for date in dates):
        return str(dates[0].calendar)
    return None


def dates_to_microseconds(dates: np.ndarray, calendar: str) -> np.ndarray:
    """Count the microseconds from 1970 to dates of cftime."""
    return np.asarray(cftime.date2num(dates, **date_attributes(calendar)), dtype="int64")


def dates_from_microseconds(values: np.ndarray, calendar: str) -> np.ndarray:
    """Undo `dates_to_microseconds`."""
    dates = cftime.num2date(values, **date_attributes(calendar), only_use_cftime_datetimes=True)
    return np.asarray(dates, dtype=object)


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
    if isinstance(value, set | frozenset):
        return {"set": sorted((_to_json(each) for each in value), key=str)}
    if isinstance(value, bytes):
        return {"bytes": value.decode("latin-1")}
    if isinstance(value, np.dtype) or value is str:
        return {"type": "str" if value is str else type_of(value)}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}  # JSON has no NaN
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "value" in value:
        values = _from_json(value["value"])
        dtype = read_type(value["dtype"], np.size(values))
        return (
            np.asarray(values, dtype="int64").view(dtype)[()]
            if dtype.kind in "mM"
            else np.asarray(values, dtype)[()]
        )
    (tag, content), *_ = value.items()
    return _UNTAGGED[tag](content)


_UNTAGGED = {
    "mapping": attributes_from_json,
    "set": lambda values: {_from_json(each) for each in values},
    "bytes": lambda text: text.encode("latin-1"),
    "type": lambda name: str if name == "str" else np.dtype(name),
    "float": float,
}
