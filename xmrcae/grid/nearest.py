"""A land-sea mask of another grid on the grid of a field, by the nearest pixel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from .._version import __version__
from . import units
from .conventions import CIRCLE, Labelled
from .dimensions import Dimensions, find_dimensions, fittable_variables
from .places import SAME_PLACE, Place, horizontal_coordinates, places


def nearest_valid(
    valid: xr.DataArray,
    field: Labelled,
    *,
    horizontal: Sequence[str] | None = None,
    sample: Any = None,
) -> xr.DataArray:
    """Put a land-sea mask of another grid on the grid of a field, by the nearest pixel.

    For ``valid=``, which takes the field's own grid only, where a mask lies half a cell off. Both
    grids are assumed rectangular and of about the same spacing: on a much coarser field, one pixel
    of the mask speaks for a whole cell. Coasts move by up to half a cell, so pixels without data
    can come out valid, which ``fit`` refuses; the example leaves them out.

    Parameters
    ----------
    valid : xarray.DataArray
        True or 1 where pixels are to be described; two horizontal dimensions, those of length 1
        apart. Coordinates are 1-D, in any order, and longitudes modulo 360.
    field : xarray.DataArray or xarray.Dataset
        What is to be fitted.
    horizontal, sample : optional
        The field's dimensions, as the options of :class:`xmrcae.MrCAE`, where they are not found.

    Returns
    -------
    xarray.DataArray, (y, x)
        On the field's coordinates, an index or such as ``lat(y)``, and under its names, with the
        type, the name and the attributes of `valid`; lazy if `valid` is. Nearest is judged along
        each coordinate by itself. Of two that are equally near, the one at the smaller coordinate
        is taken: the southern, and the western, across the seam of longitude too.

    Raises
    ------
    TypeError
        If `valid` is no DataArray.
    ValueError
        If horizontal dimensions or 1-D coordinates are not found, or a pixel of the field lies
        farther than one cell of `valid` from the nearest.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xmrcae
    >>> axes = {
    ...     axis: {"standard_name": name}
    ...     for axis, name in (("lat", "latitude"), ("lon", "longitude"))
    ... }
    >>> mask = xr.DataArray(
    ...     [[0, 1, 1, 1]] * 2,
    ...     dims=("lat", "lon"),
    ...     coords={
    ...         "lat": ("lat", [45, -45], axes["lat"]),
    ...         "lon": ("lon", [45, 135, 225, 315], axes["lon"]),
    ...     },
    ... )
    >>> sst = xr.DataArray(
    ...     np.ones((3, 2, 4)),
    ...     dims=("time", "lat", "lon"),
    ...     coords={
    ...         "lat": ("lat", [-45, 45], axes["lat"]),
    ...         "lon": ("lon", [0, 90, 180, 270], axes["lon"]),
    ...     },
    ... )
    >>> valid = xmrcae.nearest_valid(mask, sst)
    >>> valid.values
    array([[1, 0, 1, 1],
           [1, 0, 1, 1]])
    >>> valid = valid.astype(bool) & sst.notnull().any("time")
    """
    if not isinstance(valid, xr.DataArray):
        raise TypeError(
            f"valid is a {type(valid).__name__}: give a DataArray, True or 1 where "
            "pixels are to be described"
        )
    valid = valid.squeeze(drop=True)
    if valid.ndim != 2:
        raise ValueError(
            f"valid has dimensions {tuple(valid.dims)}: select one of each but the two "
            "horizontal ones"
        )
    if isinstance(field, xr.Dataset):  # without bounds and the like
        field = field[
            fittable_variables(field, horizontal=horizontal, sample=sample)
            or [*map(str, field.data_vars)]
        ]
    to = find_dimensions(_with_sample(field), horizontal=horizontal, sample=sample)
    same_names = {to.y, to.x} == set(valid.dims)
    source = find_dimensions(_with_sample(valid), horizontal=(to.y, to.x) if same_names else None)
    nearest = {
        dim: _nearest(
            *_alike(_along(valid, source, dim, kind), _along(field, to, target, kind), dim)
        )
        for dim, target, kind in ((source.y, to.y, "latitude"), (source.x, to.x, "longitude"))
    }
    values = valid.transpose(source.y, source.x).isel(nearest).variable.data
    coords = horizontal_coordinates(field, (to.y, to.x)).coords
    attrs = valid.attrs | {"interpolation": "nearest neighbour", "xmrcae_version": __version__}
    return xr.DataArray(values, coords, (to.y, to.x), valid.name, attrs)


def _with_sample(obj: Labelled) -> Labelled:
    """Make a single field a series of one, for which dimensions are found."""
    return obj.expand_dims("time") if len(obj.dims) == 2 and "time" not in obj.dims else obj


def _along(obj: Labelled, dims: Dimensions, dim: str, kind: str) -> list[Place]:
    """Return the 1-D coordinates of numbers by which rows or columns are known."""
    found = places(horizontal_coordinates(obj, (dims.y, dims.x)), dim, kind)
    return [p for p in found if p.is_numeric and np.isfinite(p.variable.values).all()]


def _alike(valid: list[Place], field: list[Place], dim: str) -> tuple[Place, Place]:
    """Return the coordinates of a mask and of a field that can be compared."""
    for a, b in product(valid, field):
        plain = not (a.is_geographic or b.is_geographic) and not units.differ(a.units, b.units)
        if a.kind == b.kind or plain:
            return a, b
    names = [", ".join(str(place.name) for place in each) or "none" for each in (valid, field)]
    raise ValueError(
        f"along {dim!r} valid and field have no finite 1-D coordinates of one kind and unit "
        f"(valid: {names[0]}; field: {names[1]}), so nothing tells which pixels are near: "
        "interpolate curvilinear and rotated grids by other means, such as xESMF"
    )


def _nearest(source: Place, target: Place) -> np.ndarray:
    """Find the position in `source` of the value nearest to each of `target`, or the smaller."""
    a, b = source.variable.values, target.variable.values
    wraps = bool(source.circle and target.circle)
    if wraps:  # one more on each side of the seam
        a, b = a % CIRCLE, b % CIRCLE
    a, order = np.unique(a, return_index=True)
    if wraps:
        order, a = order[np.r_[-1, : len(a), 0]], np.r_[a[-1] - CIRCLE, a, a[0] + CIRCLE]
    # All steps once round; the widest is no cell where the rest is a region.
    steps = np.sort(np.diff(a[1:]))[:-1] if wraps else np.diff(a)
    if not len(steps):
        raise ValueError(
            f"valid has one value along {source.name!r}: give at least two, so that it has cells"
        )
    above = np.searchsorted(a, b).clip(1, len(a) - 1)
    to_below, to_above = b - a[above - 1], a[above] - b
    is_above = to_above < to_below - SAME_PLACE * (to_below + to_above)
    at = np.where(is_above, above, above - 1)
    far = np.abs(b - a[at]) > (1 + SAME_PLACE) * steps.max()
    if far.any():
        raise ValueError(
            f"field reaches beyond valid: along {target.name!r}, {int(far.sum())} of its {len(b)} "
            f"pixels, the first at {target.variable.values[far][0]:g}, lie farther than one cell "
            f"({steps.max():g}) from the nearest of valid: select the part of the field that valid "
            "covers, or take another mask"
        )
    return order[at]
