"""Valid pixels: given or found."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr

from ..options import Options
from .conventions import Labelled
from .coordinates import Grid
from .description import Description
from .survey import Survey, now_and_then
from .values import plain_numbers


def named_valid(obj: Labelled, valid: Any) -> Any:
    """Return `valid`, or if it is a name the variable or coordinate of `obj` with that name.

    Raises
    ------
    ValueError
        If there is none; the message lists those that have two dimensions or more.
    """
    if not isinstance(valid, str) or not isinstance(obj, Labelled):
        return valid
    names = obj.variables if isinstance(obj, xr.Dataset) else obj.coords
    if valid not in names:
        candidates = ", ".join(str(name) for name in names if obj[name].ndim > 1) or "none"
        what = "variable or coordinate" if isinstance(obj, xr.Dataset) else "coordinate"
        raise ValueError(
            f"valid={valid!r}: the data have no such {what}; those that have two dimensions or "
            f"more: {candidates}"
        )
    return obj[valid]


def valid_from(valid: xr.DataArray, grid: Grid) -> np.ndarray:
    """Return the user's own valid pixels as a boolean array (y, x), ascending.

    Raises
    ------
    ValueError
        If it has other dimensions or coordinates than the grid, or other values than True and
        False, 1 and 0.
    """
    valid = plain_numbers(valid).isel(
        {dim: 0 for dim in valid.dims if dim not in grid.dims and valid.sizes[dim] == 1}
    )
    if set(valid.dims) != set(grid.dims):
        raise ValueError(
            f"valid has dimensions {tuple(valid.dims)}; the grid has ({grid.y}, {grid.x}): "
            "select one of each but these with .isel, or combine them with .any or .all"
        )
    values = valid.isel(grid.indexers(valid)).transpose(*grid.dims).values
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


def find_valid(
    found: Survey, given: np.ndarray | None, about: Description, options: Options
) -> np.ndarray:
    """Return which pixels are to be described.

    Parameters
    ----------
    found : Survey
        What the first pass has found.
    given : numpy.ndarray of bool, shape (y, x), or None
        What the user says.
    about : Description
        Names of snapshots and variables, for messages.
    options : Options
        `gaps`, and for messages `land_value`.

    Returns
    -------
    numpy.ndarray of bool, shape (variable, y, x)

    Raises
    ------
    ValueError
        For infinite values on valid pixels, gaps in time, pixels declared valid that never hold a
        value, and where nothing is valid.
    """
    never = found.finite + found.infinite == 0
    if options.land_value is not None and not (never & (found.flagged > 0)).any():
        warnings.warn(
            f"land_value={options.land_value:g}: no pixel holds it at all times", stacklevel=2
        )
    if given is not None and (given & never).any():
        raise ValueError(
            f"valid is True at {describe_pixels(given & never)} where the data are missing at all "
            "times: correct valid there, or leave it out to describe all pixels that hold values"
        )
    valid = ~never if given is None else np.broadcast_to(given, never.shape).copy()
    if found.infinite[valid].any():
        raise ValueError(
            f"the data hold {int(found.infinite[valid].sum())} infinite values at "
            f"{describe_pixels(valid & (found.infinite > 0))}: replace them by NaN"
        )
    partial = valid & (found.finite < about.samples.size)
    missing = valid & (found.finite_in_training == 0)
    empty = empty_snapshots(found.is_empty, about)
    if options.gaps is None:
        _judge_gaps(partial, found, options, empty)
    if options.gaps == "mask" and empty:
        raise ValueError(f'gaps="mask" would leave no pixel: {empty}')
    if options.gaps == "mask":
        valid &= ~partial
    elif missing.any():
        raise ValueError(
            "gaps are filled with the mean over training times with a value: "
            f'{describe_pixels(missing)} have none; use gaps="mask", or another split'
        )
    for name, each in zip(about.labels.variables, valid, strict=True):
        if not each.any():
            raise ValueError(
                f"no pixel of {name!r} is valid: the data are missing everywhere, or valid "
                "leaves nothing"
            )
    return valid


def _judge_gaps(partial: np.ndarray, found: Survey, options: Options, empty: str) -> None:
    """Refuse gaps of the valid pixels `partial`; warn where they are the land value, seldom seen.

    `empty` is what `empty_snapshots` says.
    """
    n_samples, flagged = len(found.is_empty), found.flagged
    rare = partial & now_and_then(found.finite, flagged, n_samples)
    if (partial & ~rare).any() or (empty and rare.any()):
        values = counted(int((n_samples - found.finite)[partial].sum()), "value")
        if n_flagged := int(flagged[partial].sum()):
            values += f", {n_flagged} of them the land_value={options.land_value:g}"
        ways = (
            'fit with gaps="mask" to treat these pixels as land, with gaps="mean" to fill them '
            "with their mean over time, or fill them first"
        )
        raise ValueError(
            f"the data have gaps in time: {describe_pixels(partial)} are missing at some times "
            f"only ({values}): {empty or ways}"
        )
    if rare.any():
        warnings.warn(
            f"land_value={options.land_value:g} stands at {describe_pixels(rare)} now and then "
            f"({counted(int(flagged[rare].sum()), 'value')}): these count as missing, and are "
            "filled with the pixel's mean over time",
            stacklevel=3,
        )


def empty_snapshots(is_empty: np.ndarray, about: Description) -> str:
    """Say which snapshots hold no value, and how to leave them out; nothing if there is none.

    There is a sentence for each variable that has such snapshots, but not only such; `is_empty`
    is (sample, variable).
    """
    samples, variables = about.samples, about.labels.variables
    sentences = []
    for name, empty in zip(variables, is_empty.T, strict=True):
        positions = np.flatnonzero(empty)
        if not 0 < len(positions) < len(empty):
            continue
        shown = [_snapshot(int(at), samples) for at in positions[:3]]
        shown += ["..."] if len(positions) > 3 else []
        subset = f", subset=[{name!r}]" if len(variables) > 1 else ""
        drop = f'.dropna({samples.dims[0]!r}, how="all"{subset}), where they are NaN'
        sentences.append(
            f"{len(positions)} of {len(empty)} snapshots of {name or 'the data'} hold no value at "
            f"all ({'; '.join(shown)}): leave them out"
            + (f", as by {drop}" if samples.ndim == 1 else "")
        )
    return ". ".join(sentences)


def _snapshot(position: int, samples: xr.DataArray) -> str:
    """Name a snapshot by its labels, or positions where there are none."""
    at = dict(zip(samples.dims, np.unravel_index(position, samples.shape), strict=True))
    indexes = samples.indexes
    labels = {dim: indexes[dim][i] if dim in indexes else i for dim, i in at.items()}
    return ", ".join(f"{dim} {label}".removesuffix(" 00:00:00") for dim, label in labels.items())
