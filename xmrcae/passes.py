"""The two passes over the data: what a fit has to know of them, and what it trains on."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from .fitted import Fitted
from .grid.blocks import HOST, Backend
from .grid.compression import FirstPass, compress
from .grid.conventions import Labelled, fields_of
from .grid.description import Description, describe, fittable
from .grid.dimensions import check_names
from .grid.scaling import (
    Scaling,
    check_departures,
    check_magnitudes,
    largest_departure,
    scaling_of,
)
from .grid.split import months, split_samples
from .grid.survey import Survey, survey
from .grid.units import check_units
from .grid.valid import find_valid, named_valid, valid_from
from .grid.values import in_type_of
from .grid.weights import grid_weights, known_weights
from .handover import LevelData
from .memory import free_memory
from .options import Options


def first_pass(
    obj: Labelled,
    options: Options,
    *,
    backend: Backend = HOST,
    start: Fitted | None = None,
    memory: float | None = None,
    decompose: bool = True,
) -> FirstPass:
    """Look at all data once; what can be refused is refused here.

    Parameters
    ----------
    obj : xarray.DataArray or xarray.Dataset
        The data.
    options : Options
        Of the fit.
    backend : Backend
        What the passes compute with.
    start : Fitted, optional
        A model to go on from: its levels are to be the coarsest, and its scale is kept.
    memory : float, optional
        Bytes to use; by default the options', else half of what is free.
    decompose : bool
        Whether the second pass is to follow.

    Raises
    ------
    ValueError, TypeError
        For data that cannot be fitted under these options.
    """
    given = named_valid(obj, options.valid)  # a variable that is not fitted, maybe
    obj = _with_coordinates(fittable(obj, options))
    about = describe(obj, options, start=None if start is None else start.codec.pyramid)
    _check_before_reading(obj, about, options, start)
    weights = grid_weights(options.weights, about.pyramid.grid)
    mask = None if given is None else valid_from(given, about.pyramid.grid)
    parts = _parts(about, options)
    season = _season(about, options)
    memory = float(memory or options.memory or free_memory() / 2)
    array = _values(obj, about, memory)
    land = _land(obj, array.dtype, options)
    found = survey(
        array,
        mask,
        parts=parts if decompose and not options.activation else {},
        training=parts["training"],
        season=season,
        center=options.center,
        gaps=options.gaps,
        land=land,
        memory=memory,
        backend=backend.for_tasks_on(array),
    )
    standard, rms = _scaling(found, mask, about, options, start, array.dtype)
    return FirstPass(
        description=about,
        parts=parts,
        season=season,
        array=array if land is None else _without(array, land),
        found=found,
        standard=standard,
        rms=rms,
        weights=known_weights(weights, standard.valid),
        memory=memory,
        backend=backend.for_tasks_on(array),
    )


def _with_coordinates(obj: Labelled) -> Labelled:
    """Read lazy coordinates: a model outlives the file that they lie in."""
    check_names([*obj.dims, *obj.coords])
    return obj.assign_coords({name: c.compute() for name, c in obj.coords.items() if c.chunks})


def _parts(about: Description, options: Options) -> dict[str, np.ndarray]:
    """Return the positions of the snapshots of each part that has any."""
    parts = split_samples(about.samples, options.split, seed=options.seed)
    return {part: positions for part, positions in parts.items() if len(positions)}


def _scaling(
    found: Survey,
    mask: np.ndarray | None,
    about: Description,
    options: Options,
    start: Fitted | None,
    dtype: np.dtype[Any],
) -> tuple[Scaling, np.ndarray]:
    """Return centre and scale, and each variable's rms; refuse what cannot be computed with."""
    standard, rms = scaling_of(found, find_valid(found, mask, about, options), options)
    if start is not None:
        standard = replace(standard, scale=start.standard.scale)
    check_magnitudes(found, standard, rms, about.labels.variables, dtype)
    for part, products in found.products.items():
        check_departures(part, largest_departure(products, standard.scale))
    return standard.astype(dtype), rms


def _check_before_reading(
    obj: Labelled, about: Description, options: Options, start: Fitted | None
) -> None:
    """Refuse options and models to start from that do not fit levels and variables."""
    names, levels = about.labels.variables, about.pyramid.levels
    if start is not None:
        if names != start.labels.variables:
            raise ValueError(
                f"start: the model describes {start.labels.variables}, the data hold {names}"
            )
        check_units(fields_of(obj), start.labels.attrs)
    options.channels_of(levels)
    ones = np.ones(len(names))
    options.epsilons(levels, names, ones, ones)


def _values(obj: Labelled, about: Description, memory: float) -> Any:
    """Return the values, (sample, variable, y, x), read if memory has ample room for them."""
    array = about.layout.array(obj)
    is_small = array.nbytes < memory / 4
    return array.compute() if is_small and isinstance(array, da.Array) else array


def _season(about: Description, options: Options) -> np.ndarray:
    if options.center != "month":
        return np.zeros(about.samples.size, dtype=np.int64)
    samples = about.samples
    return np.asarray(months(samples.coords.to_dataset(), samples.dims, samples.shape))


def _land(obj: Labelled, dtype: Any, options: Options) -> np.ndarray | None:
    """Return what each variable, (variable,), holds on land, as the array holds it."""
    if options.land_value is None:
        return None
    values = [in_type_of(field, options.land_value) for field in fields_of(obj)]
    return np.concatenate([each.astype(dtype) for each in values])


def _without(array: Any, land: np.ndarray) -> Any:
    """Return data, (sample, variable, y, x), with NaN where they hold the value of land."""
    where = da.where if isinstance(array, da.Array) else np.where
    return where(array == land[:, None, None], array.dtype.type(np.nan), array)


def second_pass(first: FirstPass, options: Options) -> dict[str, list[LevelData]]:
    """Make the samples of each part on every level, reading the data once more."""
    energy = options.energy if options.energy is not None else 0.01
    epsilons, scale = first.epsilons(options), first.standard.scale
    tail: np.ndarray | None = None  # the variance that training may leave out, scaled units squared
    if epsilons is not None:
        tail = energy * np.min(epsilons, axis=0)
    elif options.energy is not None:
        tail = energy * (first.rms / scale) ** 2
    return compress(first, tail=tail, activation=options.activation)


def fingerprint(first: FirstPass) -> dict[str, str]:
    """Return, by name, digests of what a fit depends on beside its options."""
    about, found, split = first.description, first.found, first.split
    grid, coords = about.pyramid.grid.coords.coords, about.layout.sample_coords.coords
    contents = {
        "grid": [each for name in sorted(map(str, grid)) for each in _content(grid[name])],
        "snapshots": [split.values, *(coords[name].values for name in sorted(map(str, coords)))],
        "variables": [np.array([*map(str, about.labels.variables), first.array.dtype.str])],
        "units": [np.array([str(attrs.get("units", "")) for attrs in about.labels.attrs])],
        "valid pixels": [first.standard.valid],
        "weights": [first.weights],
        "data": [found.finite, found.checksum],
    }
    return {name: _digest(arrays) for name, arrays in contents.items()}


def _content(coordinate: xr.DataArray) -> list[np.ndarray]:
    return [coordinate.values, np.array(str(coordinate.attrs.get("units", "")))]


def _digest(arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        plain = np.array(list(map(str, array.ravel()))) if array.dtype.kind in "OMmT" else array
        shape = f"{plain.dtype} {array.shape}".encode()
        digest.update(shape + np.ascontiguousarray(plain).tobytes())
    return digest.hexdigest()
