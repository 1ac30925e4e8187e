"""Valid pixels: given, found, or taken from the nearest of another grid."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from .._version import __version__
from ..arrays import plain_numbers
from . import units
from .conventions import CIRCLE, Labelled
from .coordinates import Grid
from .dimensions import Dimensions, find_dimensions, fittable_variables
from .places import SAME_PLACE, Place, horizontal_coordinates, places

#: Share of the times at which a pixel may hold the land value and be filled with its mean: water
#: may have that value by chance. Where it stands more often, it is refused as a gap.
NOW_AND_THEN = 0.1


def named_valid(obj: Labelled, valid: Any) -> Any:
    """Return `valid`, or if it is a name the variable or coordinate of `obj` with that name.

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
            f"valid={valid!r}: the data have no such {what}; those of theirs with two "
            f"dimensions or more: {candidates}"
        )
    return obj[valid]


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


def valid_from(valid: xr.DataArray, grid: Grid) -> np.ndarray:
    """Return the user's own valid pixels as a boolean array (y, x), ascending.

    Raises
    ------
    ValueError
        If it has other dimensions or coordinates than the grid, or other values than True and
        False, 1 and 0.
    """
    valid = plain_numbers(valid).isel(
        {dim: 0 for dim in valid.dims if dim not in (grid.y, grid.x) and valid.sizes[dim] == 1}
    )
    if set(valid.dims) != {grid.y, grid.x}:
        raise ValueError(
            f"valid has dimensions {tuple(valid.dims)}; the grid has ({grid.y}, {grid.x}): "
            "select one of each but these with .isel, or combine them with .any or .all"
        )
    values = valid.isel(grid.indexers(valid)).transpose(grid.y, grid.x).values
    wrong = ~np.isin(values, (0, 1))
    if wrong.any():
        raise ValueError(
            f"valid holds {int(wrong.sum())} values other than True and False, 1 and 0, the "
            f"first of them {values[wrong][0]}: compare it with a threshold first"
        )
    return values.astype(bool)


def describe_pixels(pixels: np.ndarray) -> str:
    """Write '1 pixel', '9 pixels'."""
    return counted(int(pixels.sum()), "pixel")


def counted(n: int, what: str) -> str:
    """Write '1 value', '9 values'."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def describable(
    given: np.ndarray, finite: np.ndarray, flagged: np.ndarray, n_samples: int, *, gaps: str | None
) -> np.ndarray:
    """Return the pixels to be described, if nothing is to be refused; each is judged by itself.

    Parameters are those of `find_valid`.
    """
    valid = given & (finite > 0)
    if gaps == "mean":
        return valid
    fits = finite == n_samples
    return valid & (fits if gaps == "mask" else fits | _now_and_then(finite, flagged, n_samples))


def _now_and_then(finite: np.ndarray, flagged: np.ndarray, n_samples: int) -> np.ndarray:
    """Return the pixels that hold the land value at few times, and are never missing otherwise."""
    return (finite + flagged == n_samples) & (flagged <= NOW_AND_THEN * n_samples)


def find_valid(
    given: np.ndarray | None,
    finite: np.ndarray,
    infinite: np.ndarray,
    flagged: np.ndarray,
    n_samples: int,
    *,
    gaps: str | None,
    missing: np.ndarray,
    variables: Sequence[str],
    land_value: float | None,
    empty: str,
) -> np.ndarray:
    """Return which pixels are to be described.

    Parameters
    ----------
    given : numpy.ndarray of bool, shape (y, x), or None
        What the user says.
    finite, infinite, flagged : numpy.ndarray of int, shape (variable, y, x)
        How many of the `n_samples` snapshots hold a value, an infinite one, the land value.
    gaps : {None, "mask", "mean"}
        What happens to pixels that are missing at some times only.
    missing : numpy.ndarray of bool, shape (variable, y, x)
        Pixels without a value at any of the training times.
    variables : sequence of str
        For messages.
    land_value : float or None
        For messages.
    empty : str
        What `empty_snapshots` says.

    Returns
    -------
    numpy.ndarray of bool, shape (variable, y, x)

    Raises
    ------
    ValueError
        For infinite values on valid pixels, gaps in time, pixels declared valid that never hold a
        value, and where nothing is valid.
    """
    never = finite + infinite == 0
    if given is not None and (given & never).any():
        raise ValueError(
            f"valid is True at {describe_pixels(given & never)} where the data are missing at all "
            "times: correct valid there, or leave it out to describe all pixels that hold values"
        )
    valid = ~never if given is None else np.broadcast_to(given, finite.shape).copy()
    if infinite[valid].any():
        raise ValueError(
            f"the data hold {int(infinite[valid].sum())} infinite values at "
            f"{describe_pixels(valid & (infinite > 0))}: replace them by NaN"
        )
    partial = valid & (finite < n_samples)
    rare = partial & _now_and_then(finite, flagged, n_samples)
    if gaps is None and ((partial & ~rare).any() or (empty and rare.any())):
        _refuse_gaps((n_samples - finite)[partial], flagged[partial], land_value, empty)
    if gaps is None and rare.any():
        warnings.warn(
            f"land_value={land_value:g} stands at {describe_pixels(rare)} now and then "
            f"({counted(int(flagged[rare].sum()), 'value')}): these count as missing, and are "
            "filled with the pixel's mean over time",
            stacklevel=2,
        )
    if gaps == "mask" and empty:
        raise ValueError(f'gaps="mask" would leave no pixel: {empty}')
    if gaps == "mask":
        valid &= ~partial
    elif (valid & missing).any():
        raise ValueError(
            "gaps are filled with the mean over training times with a value: "
            f'{describe_pixels(valid & missing)} have none; use gaps="mask", or another split'
        )
    for name, each in zip(variables, valid, strict=True):
        if not each.any():
            raise ValueError(
                f"no pixel of {name!r} is valid: the data are missing everywhere, or valid "
                "leaves nothing"
            )
    return valid


def _refuse_gaps(
    missing: np.ndarray, flagged: np.ndarray, land_value: float | None, empty: str
) -> NoReturn:
    """Raise the error on gaps, with the numbers of missing and of land values of each pixel."""
    values = counted(int(missing.sum()), "value")
    if flagged.any():
        values += f", {int(flagged.sum())} of them the land_value={land_value:g}"
    ways = (
        'fit with gaps="mask" to treat these pixels as land, with gaps="mean" to fill them with '
        "their mean over time, or fill them first"
    )
    raise ValueError(
        f"the data have gaps in time: {counted(len(missing), 'pixel')} are missing at some times "
        f"only ({values}): {empty or ways}"
    )


def empty_snapshots(
    is_empty: np.ndarray, coords: xr.Dataset, sizes: Mapping[str, int], variables: Sequence[Any]
) -> str:
    """Say which snapshots hold no value, and how to leave them out; nothing if there is none.

    Parameters
    ----------
    is_empty : numpy.ndarray of bool, shape (sample, variable)
        Snapshots without any value.
    coords : xarray.Dataset
        Coordinates along the sample dimensions.
    sizes : mapping of str to int
        Sizes of the sample dimensions, in their order.
    variables : sequence
        Names of the variables.

    Returns
    -------
    str
        A sentence for each variable that has such snapshots, but not only such.
    """
    sentences = []
    for name, empty in zip(variables, is_empty.T, strict=True):
        positions = np.flatnonzero(empty)
        if not 0 < len(positions) < len(empty):
            continue
        shown = [_snapshot(int(at), coords, sizes) for at in positions[:3]]
        shown += ["..."] if len(positions) > 3 else []
        subset = f", subset=[{name!r}]" if len(variables) > 1 else ""
        drop = f'.dropna({next(iter(sizes))!r}, how="all"{subset}), where they are NaN'
        sentences.append(
            f"{len(positions)} of {len(empty)} snapshots of {name or 'the data'} hold no value at "
            f"all ({'; '.join(shown)}): leave them out"
            + (f", as by {drop}" if len(sizes) == 1 else "")
        )
    return ". ".join(sentences)


def _snapshot(position: int, coords: xr.Dataset, sizes: Mapping[str, int]) -> str:
    """Name a snapshot by its labels, or positions where there are none."""
    at = dict(zip(sizes, np.unravel_index(position, tuple(sizes.values())), strict=True))
    labels = {dim: coords.indexes[dim][i] if dim in coords.indexes else i for dim, i in at.items()}
    return ", ".join(f"{dim} {label}".removesuffix(" 00:00:00") for dim, label in labels.items())
