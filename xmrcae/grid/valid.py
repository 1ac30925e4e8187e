"""Valid pixels: given, found, or taken from the nearest of another grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from .._version import __version__
from .coordinates import CIRCLE, SAME_PLACE, Grid, Place, horizontal_coordinates, places
from .dimensions import Dimensions, Labelled, find_dimensions, fittable_variables


def named_valid(obj: Labelled, valid: Any) -> Any:
    """`valid`, or if it is a name the variable or coordinate of `obj` with that name.

    Raises
    ------
    ValueError
        If there is none; the message lists those that have two dimensions at least.
    """
    if not isinstance(valid, str) or not isinstance(obj, Labelled):
        return valid
    names = obj.variables if isinstance(obj, xr.Dataset) else obj.coords
    if valid not in names:
        candidates = ", ".join(str(name) for name in names if obj[name].ndim > 1) or "none"
        what = "variable or coordinate" if isinstance(obj, xr.Dataset) else "coordinate"
        raise ValueError(
            f"valid={valid!r}: the data have no such {what}; those of theirs with two dimensions or more: {candidates}"
        )
    return obj[valid]


def nearest_valid(
    valid: xr.DataArray, field: Labelled, *, horizontal: Sequence[str] | None = None, sample: Any = None
) -> xr.DataArray:
    """Valid pixels of another grid on the grid of a field: each pixel of the field takes the nearest one's value.

    For ``valid=``, which takes pixels of the field's own grid only, where a land-sea mask lies half a cell off. Both
    grids are assumed to be rectangular and of about the same spacing: on a field much coarser than the mask, one pixel
    of the mask speaks for a whole cell. Coasts move by up to half a cell, so pixels can come out valid that hold no
    data, which ``fit`` refuses; the example leaves them out.

    Parameters
    ----------
    valid : xarray.DataArray
        True or 1 where pixels are to be described; two horizontal dimensions, those of length 1 apart. Coordinates are
        1-D, in any order, and longitudes modulo 360.
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
        If horizontal dimensions or 1-D coordinates are not found, or a pixel of the field lies farther than one cell
        of `valid` from the nearest.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xmrcae
    >>> axes = {axis: {"standard_name": name} for axis, name in (("lat", "latitude"), ("lon", "longitude"))}
    >>> mask = xr.DataArray(
    ...     [[0, 1, 1, 1]] * 2,
    ...     dims=("lat", "lon"),
    ...     coords={"lat": ("lat", [45, -45], axes["lat"]), "lon": ("lon", [45, 135, 225, 315], axes["lon"])},
    ... )
    >>> sst = xr.DataArray(
    ...     np.ones((3, 2, 4)),
    ...     dims=("time", "lat", "lon"),
    ...     coords={"lat": ("lat", [-45, 45], axes["lat"]), "lon": ("lon", [0, 90, 180, 270], axes["lon"])},
    ... )
    >>> valid = xmrcae.nearest_valid(mask, sst)
    >>> valid.values
    array([[1, 0, 1, 1],
           [1, 0, 1, 1]])
    >>> valid = valid.astype(bool) & sst.notnull().any("time")
    """
    if not isinstance(valid, xr.DataArray):
        raise TypeError(
            f"valid is a {type(valid).__name__}: give a DataArray, True or 1 where pixels are to be described"
        )
    valid = valid.squeeze(drop=True)
    if valid.ndim != 2:
        raise ValueError(f"valid has dimensions {tuple(valid.dims)}: select one of each but the two horizontal ones")
    if isinstance(field, xr.Dataset):  # without bounds and the like
        field = field[fittable_variables(field, horizontal=horizontal, sample=sample) or [*map(str, field.data_vars)]]
    to = find_dimensions(_with_sample(field), horizontal=horizontal, sample=sample)
    same_names = {to.y, to.x} == set(valid.dims)
    source = find_dimensions(_with_sample(valid), horizontal=(to.y, to.x) if same_names else None)
    nearest = {
        dim: _nearest(_axis(valid, source, dim, kind, "valid"), _axis(field, to, target, kind, "field"))
        for dim, target, kind in ((source.y, to.y, "latitude"), (source.x, to.x, "longitude"))
    }
    values = valid.transpose(source.y, source.x).isel(nearest).variable.data
    coords = horizontal_coordinates(field, (to.y, to.x)).coords
    attrs = valid.attrs | {"interpolation": "nearest neighbour", "xmrcae_version": __version__}
    return xr.DataArray(values, coords, (to.y, to.x), valid.name, attrs)


def _with_sample(obj: Labelled) -> Labelled:
    """A single field as a series of one, which is what dimensions are found for."""
    return obj.expand_dims("time") if len(obj.dims) == 2 and "time" not in obj.dims else obj


def _axis(obj: Labelled, dims: Dimensions, dim: str, kind: str, argument: str) -> Place:
    """The 1-D coordinate by which rows or columns are known."""
    for place in places(horizontal_coordinates(obj, (dims.y, dims.x)), dim, kind):
        values = place.variable.values
        if place.is_numeric and values.ndim == 1 and np.isfinite(values).all():
            return place
    raise ValueError(
        f"{argument} has no finite numbers as 1-D coordinate along {dim!r}, so nothing tells which pixels are "
        "near: interpolate curvilinear grids by other means, such as xESMF"
    )


def _nearest(source: Place, target: Place) -> np.ndarray:
    """Position in `source` of the value nearest to each of `target`, of two the smaller one."""
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
        raise ValueError(f"valid has one value along {source.name!r}: give at least two, so that it has cells")
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


def valid_from(valid: xr.DataArray, grid: Grid) -> np.ndarray:
    """The user's own valid pixels as a boolean array (y, x), ascending.

    Raises
    ------
    ValueError
        If it has other dimensions or coordinates than the grid, or other values than True and False, 1 and 0.
    """
    valid = valid.isel({dim: 0 for dim in valid.dims if dim not in (grid.y, grid.x) and valid.sizes[dim] == 1})
    if set(valid.dims) != {grid.y, grid.x}:
        raise ValueError(
            f"valid has dimensions {tuple(valid.dims)}; the grid has ({grid.y}, {grid.x}): select one of each but "
            "these with .isel, or combine them with .any or .all"
        )
    values = valid.isel(grid.indexers(valid)).transpose(grid.y, grid.x).values
    wrong = ~np.isin(values, (0, 1))
    if wrong.any():
        raise ValueError(
            f"valid holds {int(wrong.sum())} values other than True and False, 1 and 0, the first of them "
            f"{values[wrong][0]}: compare it with a threshold first"
        )
    return values.astype(bool)


def describe_pixels(pixels: np.ndarray) -> str:
    """'1 pixel', '9 pixels'."""
    n = int(pixels.sum())
    return f"{n} pixel{'' if n == 1 else 's'}"


def describable(
    given: np.ndarray | None, finite: np.ndarray, n_samples: int, *, is_land: np.ndarray | None, gaps: str | None
) -> np.ndarray:
    """Pixels that the data and the user leave to be described, if nothing is to be refused.

    Parameters are those of `find_valid`; each pixel is judged by itself.
    """
    valid = finite > 0
    valid &= True if given is None else given
    if is_land is not None:
        valid &= ~is_land
    return valid if gaps == "mean" else valid & (finite == n_samples)


def find_valid(
    given: np.ndarray | None, finite: np.ndarray, infinite: np.ndarray, n_samples: int, *, is_land: np.ndarray | None,
    gaps: str | None, missing: np.ndarray, variables: Sequence[str],
) -> np.ndarray:  # fmt: skip
    """Which pixels are to be described.

    Parameters
    ----------
    given : numpy.ndarray of bool, shape (y, x), or None
        What the user says.
    finite, infinite : numpy.ndarray of int, shape (variable, y, x)
        How many of the `n_samples` snapshots hold a finite value, and an infinite one.
    is_land : numpy.ndarray of bool, shape (variable, y, x), or None
        Pixels that hold the land value throughout.
    gaps : {None, "mask", "mean"}
        What happens to pixels that are missing at some times only.
    missing : numpy.ndarray of bool, shape (variable, y, x)
        Pixels without a value at any of the training times.
    variables : sequence of str
        For messages.

    Returns
    -------
    numpy.ndarray of bool, shape (variable, y, x)

    Raises
    ------
    ValueError
        For infinite values on valid pixels, gaps in time, pixels declared valid that never hold a value, and where
        nothing is valid.
    """
    never = finite + infinite == 0
    if given is not None:
        wrong = given & never
        if wrong.any():
            raise ValueError(
                f"valid is True at {describe_pixels(wrong)} where the data are missing at all times: correct valid "
                "there, or leave it out to describe all pixels that hold values"
            )
        valid = np.broadcast_to(given, finite.shape).copy()
    else:
        valid = ~never if is_land is None else ~never & ~is_land
    if infinite[valid].any():
        raise ValueError(
            f"the data hold {int(infinite[valid].sum())} infinite values at {describe_pixels(valid & (infinite > 0))}: "
            "replace them by NaN"
        )
    partial = valid & (finite < n_samples)
    if partial.any() and gaps is None:
        n_values = int((n_samples - finite)[partial].sum())
        raise ValueError(
            f"the data have gaps in time: {describe_pixels(partial)} are missing at some times only ({n_values} "
            "values): "
            'fit with gaps="mask" to treat these pixels as land, with gaps="mean" to fill them with their mean over '
            "time, or fill them first"
        )
    if gaps == "mask":
        valid &= ~partial
    elif gaps == "mean" and (valid & missing).any():
        raise ValueError(
            f'gaps="mean" needs at least one training time with a value at each pixel: '
            f'{describe_pixels(valid & missing)} have none; use gaps="mask", or another split'
        )
    for name, each in zip(variables, valid, strict=True):
        if not each.any():
            raise ValueError(f"no pixel of {name!r} is valid: the data are missing everywhere, or valid leaves nothing")
    return valid
