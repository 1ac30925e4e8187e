"""Valid pixels: given or found."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .conventions import Labelled
from .coordinates import Grid
from .values import plain_numbers

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
    if gaps is None:
        _judge_gaps(partial, finite, flagged, n_samples, land_value=land_value, empty=empty)
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


def _judge_gaps(
    partial: np.ndarray,
    finite: np.ndarray,
    flagged: np.ndarray,
    n_samples: int,
    *,
    land_value: float | None,
    empty: str,
) -> None:
    """Refuse gaps of the valid pixels `partial`; warn where they are the land value, seldom seen.

    Parameters are those of `find_valid`.
    """
    rare = partial & _now_and_then(finite, flagged, n_samples)
    if (partial & ~rare).any() or (empty and rare.any()):
        values = counted(int((n_samples - finite)[partial].sum()), "value")
        if flagged[partial].any():
            values += f", {int(flagged[partial].sum())} of them the land_value={land_value:g}"
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
            f"land_value={land_value:g} stands at {describe_pixels(rare)} now and then "
            f"({counted(int(flagged[rare].sum()), 'value')}): these count as missing, and are "
            "filled with the pixel's mean over time",
            stacklevel=3,
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
