"""From labelled fields to arrays (sample, variable, y, x), and back as they came."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from .conventions import Labelled, coords_along, fields_of
from .coordinates import REVERSED, Grid
from .dimensions import Dimensions

#: Bytes of a block of samples where the user's chunks do not say otherwise.
BLOCK_BYTES = 2**26


@dataclass(frozen=True)
class Layout:
    """How a labelled field lies on a grid.

    Attributes
    ----------
    dims : Dimensions
        Its horizontal dimensions; all others, those of length 1 too, are sample dimensions.
    order : tuple of str
        The order of its dimensions.
    indexers : mapping
        Where its rows and columns lie in the grid's.
    sample_coords : xarray.Dataset
        Coordinates along the sample dimensions, and scalars.
    sample_shape : tuple of int
        Sizes of the sample dimensions.
    """

    dims: Dimensions
    order: tuple[str, ...]
    indexers: Mapping[str, Any]
    sample_coords: xr.Dataset
    sample_shape: tuple[int, ...]

    @classmethod
    def of(cls, obj: Labelled, dims: Dimensions, grid: Grid) -> Layout:
        """Find the layout of `obj` on `grid`; a ValueError if `obj` lies on another grid."""
        fields = fields_of(obj)
        shared = [str(dim) for dim in fields[0].dims if all(dim in field.dims for field in fields)]
        for field in fields:
            long = [dim for dim in field.dims if dim not in shared and field.sizes[dim] != 1]
            if long:
                raise ValueError(
                    f"{field.name!r} has the dimension {long[0]!r}, which "
                    f"{fields[0].name!r} has not: select from it"
                )
        sample = *dims.sample, *(d for d in shared if d not in (*dims.sample, dims.y, dims.x))
        shape = tuple(obj.sizes[dim] for dim in sample)
        dims = Dimensions(sample, dims.y, dims.x)
        coords = coords_along(obj, sample)
        return cls(dims, tuple(shared), grid.indexers(obj), coords, shape)

    def of_part(self, part: Labelled) -> Layout:
        """Return the layout of some samples of the field: its grid need not be compared again."""
        coords = part.coords.to_dataset()[list(self.sample_coords.coords)]
        shape = tuple(part.sizes[dim] for dim in self.dims.sample)
        return replace(self, sample_coords=coords, sample_shape=shape)

    def array(self, obj: Labelled) -> Any:
        """Return the values as (sample, variable, y, x), both coordinates ascending.

        Lazy data give a dask array.
        """
        variables = fields_of(obj)
        dtype = np.result_type(np.float32, *(variable.dtype for variable in variables))
        dtype = dtype if dtype.itemsize <= 8 else np.dtype(np.float64)
        arrays = []
        for variable in variables:
            variable = variable.isel({dim: 0 for dim in variable.dims if dim not in self.order})
            variable = variable.transpose(*self.dims.sample, self.dims.y, self.dims.x).isel(
                self.indexers
            )
            values = variable.variable.data
            if not isinstance(values, da.Array):
                values = np.asarray(values)
            arrays.append(
                values.reshape(int(np.prod(self.sample_shape)), *values.shape[-2:]).astype(
                    dtype, copy=False
                )
            )
        if len(arrays) == 1:
            return arrays[0][:, None]
        lazy = any(isinstance(values, da.Array) for values in arrays)
        return (da if lazy else np).stack(arrays, axis=1)

    def labelled(
        self,
        values: Any,
        dims: Sequence[str],
        coords: xr.Dataset,
        *,
        name: Any = None,
        attrs: Any = None,
    ) -> xr.DataArray:
        """Label an array (sample, *dims), in the field's order of dimensions.

        Dimensions that the field does not have come right after its sample dimensions; of two
        coordinates of a name the field's own is kept.
        """
        sample = self.dims.sample
        values = values.reshape(*self.sample_shape, *values.shape[1:])
        result = xr.DataArray(values, dims=(*sample, *dims), name=name, attrs=attrs)
        own = self.sample_coords.coords
        others = coords.drop_vars([name for name in coords.coords if name in own])
        result = result.assign_coords(own).assign_coords(others.coords)
        long = [dim for dim, n in zip(sample, self.sample_shape, strict=True) if n != 1]
        at = max((self.order.index(dim) + 1 for dim in long or sample[:1]), default=0)
        new = [dim for dim in dims if dim not in self.order]
        order = [*self.order[:at], *new, *self.order[at:]]
        return result.transpose(*(dim for dim in order if dim in result.dims))

    @property
    def descending_dims(self) -> list[str]:
        """Those of its horizontal dimensions along which the field descends throughout."""
        slices = {dim: at for dim, at in self.indexers.items() if isinstance(at, slice)}
        return [dim for dim in (self.dims.y, self.dims.x) if slices.get(dim) == REVERSED]

    def orient(self, result: Labelled) -> Labelled:
        """Turn a result over where the field descends, from ascending rows and columns.

        It may lie on any level.
        """
        turned = [dim for dim in self.descending_dims if dim in result.dims]
        return result.isel(dict.fromkeys(turned, REVERSED))

    def restore(self, result: Labelled) -> Labelled:
        """Put a result in the order of the field's rows and columns."""
        inverse = {
            dim: i if isinstance(i, slice) else np.argsort(i) for dim, i in self.indexers.items()
        }
        return result.isel({dim: i for dim, i in inverse.items() if dim in result.dims})


def map_samples(
    function: Callable[..., Any],
    array: Any,
    *others: Any,
    shape: tuple[int, ...],
    dtype: Any,
    length: int | None = None,
    threads: int = 1,
    per_block: bool = False,
    **kwargs: Any,
) -> Any:
    """Apply a function of a block of samples, (t, ...) to (t, *shape), or (1, *shape) per block.

    On a lazy array there is one task per block. The `others`, (t,) each, are cut alike and passed
    after it; if one is lazy, so is the result. In memory, `threads` threads share blocks of
    `length` samples.
    """
    if any(isinstance(each, da.Array) for each in (array, *others)):
        array = da.asarray(array).rechunk({axis: -1 for axis in range(1, array.ndim)})
        beside = [da.asarray(other).rechunk((array.chunks[0],)) for other in others]
        out, inner = "t" + "opqr"[: len(shape)], "t" + "abcd"[: array.ndim - 1]
        return da.blockwise(
            call,
            out,
            array,
            inner,
            *(argument for other in beside for argument in (other, "t")),
            new_axes=dict(zip(out[1:], shape, strict=True)),
            adjust_chunks={"t": 1} if per_block else None,
            dtype=dtype,
            concatenate=True,
            meta=np.empty((0,) * len(out), dtype),
            **as_node(function),
            **kwargs,
        )
    length = length or block_length(array)
    starts = range(0, len(array), length)
    result = np.empty((len(starts if per_block else array), *shape), dtype)

    def fill(start: int) -> None:
        cut = slice(start, start + length)
        to = slice(start // length, start // length + 1) if per_block else cut
        result[to] = function(array[cut], *(other[cut] for other in others), **kwargs)

    if min(threads, len(starts)) < 2:
        for start in starts:
            fill(start)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, starts))
    return result


def block_length(array: np.ndarray) -> int:
    """Return how many samples of an array, (t, ...), make a block."""
    return max(1, BLOCK_BYTES // max(1, array[:1].nbytes))


def as_node(function: Callable[..., Any]) -> dict[str, Any]:
    """Return keywords of `call`.

    A method's object is a node of its own, so that it is sent once per worker.
    """
    if isinstance(function, MethodType):
        return {"function": function.__func__, "on": delayed(function.__self__, pure=True)}
    return {"function": function, "on": None}


def call(*arrays: np.ndarray, function: Callable[..., Any], on: Any, **kwargs: Any) -> Any:
    """Call a function, or the method of an object."""
    return function(*arrays, **kwargs) if on is None else function(on, *arrays, **kwargs)


def merge_samples(array: Any, share: float) -> Any:
    """Merge consecutive chunks of samples whose snapshots have shrunk by `share`.

    So chunks keep about their bytes.
    """
    if not isinstance(array, da.Array) or not len(array):
        return array
    least = max(array.chunks[0]) / share
    merged, size = [], 0
    for chunk in array.chunks[0]:
        size += chunk
        if size > 0.75 * least:
            merged.append(size)
            size = 0
    return array.rechunk({0: tuple([*merged, size] if size else merged)})
