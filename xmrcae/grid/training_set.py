"""From labelled data to what the network trains on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from .._version import __version__
from ..levels import LevelData
from ..options import Options
from . import land, snapshots
from .coordinates import Grid, Labelled, find_dimensions, fittable_variables
from .layout import Layout
from .pyramid import Pyramid

log = logging.getLogger("xmrcae")


@dataclass(frozen=True)
class TrainingSet:
    """What a fit needs of the data, and what the fitted model keeps of it.

    Attributes
    ----------
    training, validation : list of LevelData
        One a level, coarsest first.
    pyramid : Pyramid
        Grid and levels.
    standard : Standard
        Centring, scaling and valid pixels.
    split : xarray.DataArray
        Over the sample dimensions: "training", "validation" or "test".
    variables : list of str or None
        Names of the variables; None for a nameless DataArray.
    attrs : list of dict
        Their attributes.
    is_dataset : bool
        Whether a Dataset was fitted.
    dims : tuple of str
        The data's dimensions, in their order.
    sample : tuple of str
        Its sample dimensions.
    dtype : numpy.dtype
        float32 or float64.
    rms : numpy.ndarray, shape (variable,)
        Of the training snapshots about their centre.
    """

    training: list[LevelData]
    validation: list[LevelData]
    pyramid: Pyramid
    standard: snapshots.Standard
    split: xr.DataArray
    variables: list[Any]
    attrs: list[dict[str, Any]]
    is_dataset: bool
    dims: tuple[str, ...]
    sample: tuple[str, ...]
    dtype: np.dtype[Any]
    rms: np.ndarray


def fitted_variables(obj: Labelled, options: Options) -> Labelled:
    """`obj` without the variables of a Dataset that cannot be fitted, each of which the log names."""
    if isinstance(obj, xr.DataArray):
        _check_numeric(obj)
        return obj
    if not isinstance(obj, xr.Dataset):
        raise TypeError(f"fit takes a DataArray or a Dataset, not {type(obj).__name__}")
    suitable = fittable_variables(obj, horizontal=options.horizontal, sample=options.sample)
    for name in obj.data_vars:
        if name not in suitable:
            log.info(
                "variable %r is passed over: bounds, not numeric, or not on a sample and two horizontal dimensions",
                name,
            )
    if not suitable:
        for variable in obj.data_vars.values():
            _check_numeric(variable)
        find_dimensions(obj, horizontal=options.horizontal, sample=options.sample)
        names = ", ".join(map(str, obj.data_vars))
        raise ValueError(f"no variable of the Dataset has a sample and two horizontal dimensions: {names}")
    return obj[suitable]


def _check_numeric(variable: xr.DataArray) -> None:
    if variable.dtype.kind not in "iuf":
        raise TypeError(
            f"{variable.name or 'the data'} are of type {variable.dtype}: real numbers are needed; fit real and "
            "imaginary parts as two variables, or convert with .astype"
        )


def prepare(obj: Labelled, options: Options) -> TrainingSet:
    """Find the grid, look at the data, and compress them; everything that can be refused is refused before that."""
    obj = fitted_variables(obj, options)
    dims = find_dimensions(obj, horizontal=options.horizontal, sample=options.sample)
    grid = Grid.of(obj, dims, periodic=options.periodic)
    pyramid = Pyramid.of(grid, levels=options.levels, restriction=options.restriction)
    options.channels_of(pyramid.levels)
    layout = Layout.of(obj, dims, grid)
    n_samples = int(np.prod(layout.sample_shape))
    parts = snapshots.split_samples(n_samples, options.split, seed=options.seed)
    season = snapshots.seasons(_time(layout, obj), n_samples, center=options.center)
    is_dataset = isinstance(obj, xr.Dataset)
    names: list[Any] = list(obj.data_vars) if isinstance(obj, xr.Dataset) else [obj.name]
    options.epsilons(pyramid.levels, names, np.ones(len(names)), np.ones(len(names)))
    given = _valid(obj, options.valid, grid)
    weights = grid_weights(options.weights, grid)

    array = layout.array(obj)
    memory = options.memory or snapshots.free_memory() / 2
    if isinstance(array, da.Array) and array.nbytes < memory / 4:
        array = array.compute()
    array = array if isinstance(array, da.Array) else da.from_array(array, chunks=-1, name=False)
    found = snapshots.survey(array, parts["training"], season, center=options.center, land_value=options.land_value)
    valid = land.find_valid(
        given, found.finite, found.infinite, n_samples, is_land=None if options.land_value is None else found.is_land,
        gaps=options.gaps, missing=found.finite_in_training == 0, variables=names,
    )  # fmt: skip
    standard, rms = _standard(found, valid, options)
    standard = standard.astype(array.dtype)
    epsilons = options.epsilons(pyramid.levels, names, rms, standard.scale)
    energy = options.energy if options.energy is not None else 0.01
    tail = None if epsilons is None and options.energy is None else _tail(epsilons, standard, rms, energy)
    most = max(1, int(memory / 8 / (4 * valid.size)))
    share = np.where(valid, found.finite_in_training / len(parts["training"]), 0)
    levels = {}
    for part in ("training", "validation"):
        if options.activation:
            samples, one, rank = snapshots.plain(array, parts[part], season, standard)
        else:
            samples, one, rank = snapshots.compress(array, parts[part], season, standard, tail=tail, most=most)
        levels[part] = snapshots.level_data(samples, one, rank, pyramid, standard, weights, share)
    return TrainingSet(
        **levels, pyramid=pyramid, standard=standard, split=_split_labels(parts, layout, dims.sample),
        variables=names, attrs=[dict(each.attrs) for each in (obj.data_vars.values() if is_dataset else [obj])],
        is_dataset=is_dataset, dims=layout.order, sample=dims.sample, dtype=array.dtype, rms=rms,
    )  # fmt: skip


def _time(layout: Layout, obj: Labelled) -> xr.DataArray | None:
    """The coordinate with dates along the sample dimension."""
    sample = layout.dims.sample
    times = [obj.coords[dim] for dim in sample if dim in obj.coords]
    return times[0] if len(sample) == 1 and times else None


def _valid(obj: Labelled, valid: Any, grid: Grid) -> np.ndarray | None:
    if isinstance(valid, str):
        if valid not in obj.coords:
            raise ValueError(
                f"valid={valid!r}: no such coordinate of the data; they are {', '.join(map(str, obj.coords))}"
            )
        valid = obj.coords[valid]
    return None if valid is None else land.valid_from(valid, grid)


def grid_weights(weights: Any, grid: Grid) -> np.ndarray:
    """The weight of each pixel, (y, x), ascending, from None, "area" or a DataArray."""
    if weights is None:
        return np.ones(grid.sizes)
    if isinstance(weights, str):
        return grid.area_weights().values
    if set(weights.dims) != {grid.y, grid.x}:
        raise ValueError(f"weights has dimensions {tuple(weights.dims)}; the grid has ({grid.y}, {grid.x})")
    values = weights.isel(grid.indexers(weights)).transpose(grid.y, grid.x).values.astype(np.float64)
    if not (np.isfinite(values).all() and (values >= 0).all() and values.any()):
        raise ValueError("weights must be finite, at least 0, and somewhere above it")
    return values


def _standard(found: snapshots.Survey, valid: np.ndarray, options: Options) -> tuple[snapshots.Standard, np.ndarray]:
    """Centring and scaling from training snapshots and valid pixels, and the rms about the centre."""
    n = found.finite_in_training
    rms = np.array([np.sqrt(s[v].sum() / c[v].sum()) for s, v, c in zip(found.squares, valid, n, strict=True)])
    centre, scale = found.centre, np.ones(len(valid))
    mean = np.where(n > 0, found.total / np.maximum(n, 1), 0)
    if options.scale == "std":
        scale = np.where(rms > 0, rms, 1.0)
    elif options.scale == "minmax":
        least = np.array([a[v].min() for a, v in zip(found.least, valid, strict=True)])
        most = np.array([a[v].max() for a, v in zip(found.most, valid, strict=True)])
        scale = np.where(most > least, most - least, 1.0)
        centre = centre + least[None, :, None, None]
    monthly = options.center == "month"
    centre, mean = np.where(valid, centre, 0), np.where(valid, mean, 0)
    return snapshots.Standard(centre, scale, mean, valid, monthly, options.fill), rms


def _tail(epsilons: Any, standard: snapshots.Standard, rms: np.ndarray, energy: float) -> np.ndarray:
    """Variance under which trailing singular vectors may be left out of training, in scaled units squared."""
    if epsilons is None:
        return energy * (rms / standard.scale) ** 2
    return energy * np.min(epsilons, axis=0)


def _split_labels(parts: dict[str, np.ndarray], layout: Layout, sample: tuple[str, ...]) -> xr.DataArray:
    labels = np.empty(int(np.prod(layout.sample_shape)), dtype="<U10")
    for name, positions in parts.items():
        labels[positions] = name
    coords = layout.sample_coords
    return xr.DataArray(labels.reshape(layout.sample_shape), dims=sample, name="split", coords=coords.coords)


def build_pyramid(obj: Labelled, options: Options) -> xr.DataTree:
    """The pyramid of a DataArray or Dataset, labelled; nothing is computed for lazy data."""
    obj = fitted_variables(obj, options)
    dims = find_dimensions(obj, horizontal=options.horizontal, sample=options.sample)
    grid = Grid.of(obj, dims, periodic=options.periodic)
    pyramid = Pyramid.of(grid, levels=options.levels, restriction=options.restriction)
    if options.land_value is not None:
        obj = obj.where(obj != options.land_value)
    attrs = {"xmrcae_version": __version__, "xmrcae_options": options.to_json()}
    return pyramid.tree(obj, Layout.of(obj, dims, grid), valid=_valid(obj, options.valid, grid), attrs=attrs)
