"""Which kinds of arrays a field may hold: NumPy's, a file's, a device's, and dask arrays of them."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr


def on_host(obj: xr.DataArray | xr.Dataset) -> xr.DataArray | xr.Dataset:
    """Take the arrays of a device to the host, by DLPack; nothing is read or computed of lazy data.

    Parameters
    ----------
    obj : xarray.DataArray or xarray.Dataset
        Of any arrays that xarray can hold.

    Returns
    -------
    xarray.DataArray or xarray.Dataset
        `obj`, if its arrays are NumPy's, dask arrays of them, or lie in a file; else a copy whose arrays are.

    Raises
    ------
    TypeError
        For arrays of any other kind.
    """
    if isinstance(obj, xr.DataArray):
        return _variable_on_host(obj)
    changed = {name: new for name, old in obj.data_vars.items() if (new := _variable_on_host(old)) is not old}
    return obj.assign(changed) if changed else obj


def _variable_on_host(field: xr.DataArray) -> xr.DataArray:
    none = field.variable[(slice(0),) * field.ndim].data  # what lies in a file stays there
    kind = none._meta if isinstance(none, da.Array) else none
    if isinstance(kind, np.ndarray):
        return field
    what = f"{field.name or 'the data'} are held by {type(kind).__module__.partition('.')[0]}.{type(kind).__name__}"
    if hasattr(kind, "magnitude"):
        raise TypeError(
            f"{what} [{kind.units}]: plain numbers are needed; .pint.dequantify() makes the units an attribute, which "
            "results keep"
        )
    if not hasattr(kind, "__dlpack__"):
        raise TypeError(
            f"{what}: NumPy arrays are needed, dask arrays of them, or arrays that can be had by DLPack, as CuPy's; "
            "convert with .as_numpy()"
        )
    values = field.data
    if isinstance(values, da.Array):
        meta = np.empty((0,) * values.ndim, values.dtype)
        return field.copy(data=da.map_blocks(_to_numpy, values, dtype=values.dtype, meta=meta))
    return field.copy(data=_to_numpy(values))


def _to_numpy(values: Any) -> np.ndarray:
    from torch.utils.dlpack import from_dlpack

    return from_dlpack(values).cpu().numpy()
