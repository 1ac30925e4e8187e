"""What a field may hold: arrays of NumPy, a file or a device; numbers that mean what they say."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import dask.array as da
import numpy as np
import xarray as xr

T = TypeVar("T", bound=xr.DataArray | xr.Dataset)

#: Attributes that name values which stand for missing ones.
FILL_VALUES = ("_FillValue", "missing_value")

#: Attributes of numbers that stand for others.
PACKING = ("scale_factor", "add_offset", "_Unsigned")

#: The host's memory, as DLPack numbers devices.
HOST = 1


def plain_numbers(obj: T) -> T:
    """Return data whose numbers mean what they say, on the host; nothing is read of lazy data.

    Arrays of a device are taken to the host, by DLPack. What holds a value that the attributes
    `_FillValue` or `missing_value` name is NaN, as decoding would have it, and these attributes
    are left out.

    Parameters
    ----------
    obj : xarray.DataArray or xarray.Dataset
        Of any arrays that xarray can hold.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        `obj` itself, where nothing has to change.

    Raises
    ------
    TypeError
        For arrays that cannot be taken to the host.
    ValueError
        For numbers that are packed, by their attributes `scale_factor`, `add_offset` or
        `_Unsigned`, and for fill values that are no numbers.
    """
    return _each_field(obj, lambda field: _decoded(_on_host(field)))  # type: ignore[return-value]


def where_not(obj: xr.DataArray | xr.Dataset, land_value: float) -> xr.DataArray | xr.Dataset:
    """Return data with NaN where they hold `land_value`, as `in_type_of` takes it."""
    return _each_field(obj, lambda field: _without(field, in_type_of(field, land_value)))


def in_type_of(field: xr.DataArray, land_value: float) -> np.ndarray:
    """Return `land_value` in a field's own type, shape (1,): 1.1 is another number in float32.

    Raises
    ------
    ValueError
        If the type does not hold it, as whole numbers do not hold 0.5.
    """
    value = _in_type(land_value, field.dtype)
    if not value.size:
        raise ValueError(
            f"land_value={land_value!r}: {field.name or 'the data'} are of type {field.dtype}, "
            "which does not hold this value: give the one that stands on land"
        )
    return value


def _each_field(
    obj: xr.DataArray | xr.Dataset, function: Callable[[xr.DataArray], xr.DataArray]
) -> xr.DataArray | xr.Dataset:
    """Apply a function to a DataArray, or to those variables of a Dataset that it changes."""
    if isinstance(obj, xr.DataArray):
        return function(obj)
    fields = {name: new for name, old in obj.data_vars.items() if (new := function(old)) is not old}
    return obj.assign(fields) if fields else obj


def _decoded(field: xr.DataArray) -> xr.DataArray:
    """Return a field whose attributes change no number any more."""
    attrs, kind, name = field.attrs, field.dtype.kind, field.name or "the data"
    neutral = {"scale_factor": 1, "add_offset": 0, "_Unsigned": "true" if kind == "u" else "false"}
    said = [key for key in PACKING if key in attrs]
    packed = [key for key in said if np.any(np.asarray(attrs[key]) != neutral[key])]
    if packed:
        raise ValueError(
            f"{name} have the attributes {', '.join(f'{key}={attrs[key]}' for key in packed)}, so "
            "their numbers stand for others: decode them with xr.decode_cf(dataset), or, if that "
            "has been done, delete these attributes"
        )
    if not {*FILL_VALUES, *PACKING}.intersection(attrs):
        return field
    given = {key: attrs[key] for key in FILL_VALUES if key in attrs}
    try:
        # Values of a float32 file, computed on in float64, hold fill values as float32 rounds them.
        flags = [
            _in_type(each, field.dtype)
            for value in given.values()
            for each in (value, np.asarray(value, np.float32))
        ]
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} have the attributes {given}, of which one is no number: correct or delete it"
        ) from None
    others = {key: value for key, value in attrs.items() if key not in (*FILL_VALUES, *PACKING)}
    field = _without(field, np.concatenate(flags) if flags else ()).copy(deep=False)
    field.attrs = others
    return field


def _in_type(values: Any, dtype: np.dtype[Any]) -> np.ndarray:
    """Return those of some numbers, (n,), that a type can hold, in that type; NaN is none."""
    given = np.atleast_1d(np.asarray(values)).ravel()
    given = given if given.dtype.kind in "iuf" else given.astype(np.float64)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        given = given[(given >= info.min) & (given <= info.max) & (given % 1 == 0)]
        return given.astype(dtype)
    with np.errstate(over="ignore"):
        stored = given.astype(dtype)
    return stored[np.isfinite(stored) | np.isinf(given)]


def _without(field: xr.DataArray, flags: Iterable[Any]) -> xr.DataArray:
    """Return a field with NaN where it holds one of some values; itself if it holds none."""
    each = (field.variable == flag for flag in flags)
    missing: Any = functools.reduce(operator.or_, each, False)
    if missing is False or not (field.chunks or missing.any()):
        return field
    return field.copy(data=field.variable.where(~missing).data)


def _on_host(field: xr.DataArray) -> xr.DataArray:
    """Return a field whose arrays are NumPy's, or in a file; lazily if it is lazy."""
    none = field.variable[(slice(0),) * field.ndim].data  # what lies in a file stays there
    kind = none._meta if isinstance(none, da.Array) else none
    if isinstance(kind, np.ndarray):
        return field
    library = type(kind).__module__.partition(".")[0]
    what = f"{field.name or 'the data'} are held by {library}.{type(kind).__name__}"
    if hasattr(kind, "magnitude"):
        raise TypeError(
            f"{what} [{kind.units}]: plain numbers are needed; .pint.dequantify() makes "
            "the units an attribute, which results keep"
        )
    if not hasattr(kind, "__dlpack__"):
        raise TypeError(
            f"{what}: NumPy arrays are needed, dask arrays of them, or arrays that can be had "
            "by DLPack, as CuPy's; convert with .as_numpy()"
        )
    values = field.data
    if isinstance(values, da.Array):
        meta = np.empty((0,) * values.ndim, values.dtype)
        return field.copy(data=da.map_blocks(_to_numpy, values, dtype=values.dtype, meta=meta))
    return field.copy(data=_to_numpy(values))


def _to_numpy(values: Any) -> np.ndarray:
    """Take a block to the host: by DLPack, or from a GPU by xarray, whose to_numpy knows CuPy."""
    if values.__dlpack_device__()[0] == HOST:
        return np.from_dlpack(values)
    return xr.Variable(range(values.ndim), values).to_numpy()
