"""The pyramid of labelled data as a DataTree."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from .._version import __version__
from ..options import Options
from .conventions import Labelled, fields_of
from .description import Description, describe, fittable
from .dimensions import check_names
from .layout import map_samples, merge_samples
from .pyramid import Pyramid
from .valid import named_valid, valid_from
from .values import where_not


def build_pyramid(obj: Labelled, options: Options) -> xr.DataTree:
    """Restrict a DataArray or Dataset to every level.

    Each snapshot is averaged over what it holds itself.

    Parameters
    ----------
    obj : xarray.DataArray or xarray.Dataset
        The data; of lazy ones only coordinates and `valid` are read.
    options : Options
        Those that say where data lie and which pixels are valid.

    Returns
    -------
    xarray.DataTree
        /level_0, the coarsest, and up; lazy on lazy data.

    Raises
    ------
    TypeError, ValueError
        As `fittable` and `describe` do.
    """
    given = named_valid(obj, options.valid)
    obj = fittable(obj, options)
    if options.land_value is not None:
        obj = where_not(obj, options.land_value)
    about = describe(obj, options)
    check_names(name for name in (*obj.coords, *about.labels.variables) if "/" in str(name))
    valid = None if given is None else valid_from(given, about.pyramid.grid)
    attrs = {"xmrcae_version": __version__, "xmrcae_options": options.to_json()}
    pyramid, array = about.pyramid, about.layout.array(obj)
    nodes: dict[str, xr.Dataset] = {}
    for level in range(pyramid.levels - 1, -1, -1):
        how = {"shape": (array.shape[1], *pyramid.shape(level)), "dtype": array.dtype}
        if not nodes:
            array = map_samples(_padded, array, **how, pyramid=pyramid, valid=valid)
        else:
            array = map_samples(_restricted, array, **how, pyramid=pyramid, level=level)
            share = np.prod(pyramid.shape(level)) / np.prod(pyramid.shape(level + 1))
            array = merge_samples(array, share)  # chunks keep about their bytes
        nodes[f"/level_{level}"] = _labelled(array, obj, about, level).assign_attrs(attrs)
    tree = xr.DataTree.from_dict(dict(reversed(nodes.items())))
    tree.attrs.update(attrs)
    return tree


def _padded(values: np.ndarray, *, pyramid: Pyramid, valid: np.ndarray | None) -> np.ndarray:
    """Pad snapshots, NaN where pixels are not valid."""
    if valid is not None:
        values = np.where(valid, values, values.dtype.type(np.nan))
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise ValueError(f"the data hold {infinite} infinite values: replace them by NaN")
    values = pyramid.pad(values)
    return np.where(pyramid.may_have_data(pyramid.levels - 1), values, values.dtype.type(np.nan))


def _restricted(values: np.ndarray, *, pyramid: Pyramid, level: int) -> np.ndarray:
    coarse, has = pyramid.restrict(values, np.isfinite(values), level)
    return np.where(has, coarse, coarse.dtype.type(np.nan))


def _labelled(array: Any, obj: Labelled, about: Description, level: int) -> xr.Dataset:
    """Label a level of all variables, cut to the data's extent, as the data lie."""
    pyramid, layout = about.pyramid, about.layout
    cut, coords = array[pyramid.cut(level)], pyramid.coordinates(level)
    dims = pyramid.grid.dims
    fields = {}
    for v, field in enumerate(fields_of(obj)):
        labelled = layout.labelled(cut[:, v], dims, coords, attrs=field.attrs)
        fields[str(field.name or "data")] = layout.orient(labelled)
    return xr.Dataset(fields)
