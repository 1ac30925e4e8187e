"""From labelled data to what the network trains on."""

from __future__ import annotations

import hashlib
import logging
import warnings
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from .._version import __version__
from ..arrays import in_type_of, plain_numbers, where_not
from ..handover import LevelData
from ..options import Options
from . import compression
from .blocks import free_memory
from .conventions import Labelled
from .coordinates import Grid
from .dimensions import check_names, find_dimensions, fittable_variables
from .layout import Layout
from .pyramid import Pyramid
from .scaling import Standard
from .split import months, split_samples
from .survey import Rules, Survey, survey
from .units import check_units
from .valid import empty_snapshots, find_valid, named_valid, valid_from

log = logging.getLogger("xmrcae")


@dataclass(frozen=True)
class TrainingSet:
    """What a fit needs of the data, and what the fitted model keeps of it.

    Attributes
    ----------
    data : dict of str to list of LevelData
        "training", "validation" and, if there is one, "test": one a level, coarsest first.
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
    room : float
        Bytes that training may use beside the samples.
    """

    data: dict[str, list[LevelData]]
    pyramid: Pyramid
    standard: Standard
    split: xr.DataArray
    variables: list[Any]
    attrs: list[dict[str, Any]]
    is_dataset: bool
    dims: tuple[str, ...]
    sample: tuple[str, ...]
    dtype: np.dtype[Any]
    rms: np.ndarray
    room: float

    @property
    def training(self) -> list[LevelData]:
        """Those of the training snapshots."""
        return self.data["training"]

    @property
    def validation(self) -> list[LevelData]:
        """Those of the validation snapshots."""
        return self.data["validation"]


def fitted_variables(obj: Labelled, options: Options) -> Labelled:
    """Return `obj` as plain numbers, without what cannot be fitted, which the log names."""
    if isinstance(obj, xr.DataArray):
        _check_numeric(obj)
        return plain_numbers(obj)
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
    return plain_numbers(obj[suitable])


def _check_numeric(variable: xr.DataArray) -> None:
    if variable.dtype.kind not in "iuf":
        raise TypeError(
            f"{variable.name or 'the data'} are of type {variable.dtype}: real numbers are needed; fit real and "
            "imaginary parts as two variables, or convert with .astype"
        )


class Preparation:
    """What has to be known of the data before they are compressed: all that can be refused is refused here.

    One pass over the archive; `compress` is the second.

    Parameters
    ----------
    obj : xarray.DataArray or xarray.Dataset
        The data.
    options : Options
        Of the fit.
    memory : float, optional
        Bytes to use; by default the options', else half of what is free.
    products : bool
        Whether the first pass prepares the second.
    start : (Pyramid, Standard, list, list), optional
        Of a model to go on from: its pyramid is to be the coarsest levels, its scale is kept, its
        variables are named, and their attributes.
    """

    def __init__(
        self, obj: Labelled, options: Options, *, memory: float | None = None, products: bool = True,
        start: tuple[Pyramid, Standard, list[Any], list[dict[str, Any]]] | None = None,
    ) -> None:  # fmt: skip
        self.options = options
        named = named_valid(obj, options.valid)  # a variable that is not fitted, maybe
        self.obj = obj = fitted_variables(obj, options)
        check_names([*obj.dims, *obj.coords])
        self.dims = find_dimensions(obj, horizontal=options.horizontal, sample=options.sample)
        grid = Grid.of(obj, self.dims, periodic=options.periodic)
        grid = replace(grid, coords=grid.coords.compute())  # a model outlives the file that 2-D coordinates lie in
        self.pyramid = (
            Pyramid.of(grid, levels=options.levels, restriction=options.restriction)
            if start is None
            else start[0].refined(grid, levels=options.levels)
        )
        options.channels_of(self.pyramid.levels)
        self.layout = Layout.of(obj, self.dims, grid)
        n_samples = int(np.prod(self.layout.sample_shape))
        samples = _over_samples(np.arange(n_samples), self.layout, self.dims.sample)
        parts = split_samples(samples, options.split, seed=options.seed)
        self.season = np.zeros(n_samples, dtype=np.int64)
        if options.center == "month":
            self.season = np.asarray(months(samples.coords.to_dataset(), samples.dims, samples.shape))
        self.names: list[Any] = list(obj.data_vars) if isinstance(obj, xr.Dataset) else [obj.name]
        if start is not None:
            if self.names != start[2]:
                raise ValueError(f"start: the model describes {start[2]}, the data hold {self.names}")
            check_units(obj, start[3])
        options.epsilons(self.pyramid.levels, self.names, np.ones(len(self.names)), np.ones(len(self.names)))
        given = None if named is None else valid_from(named, grid)
        weights = grid_weights(options.weights, grid)
        self.split = _split_labels(parts, samples)
        self.parts = {part: positions for part, positions in parts.items() if len(positions)}

        self.memory = float(memory or options.memory or free_memory() / 2)
        array = self.layout.array(obj)
        if isinstance(array, da.Array) and array.nbytes < self.memory / 4:
            array = array.compute()
        self.array = array
        decompose = products and not options.activation
        land = self._land()
        rules = Rules(
            self.parts if decompose else {}, parts["training"], self.season, land, options.center, options.gaps
        )
        self.found, is_empty, self._products = survey(self.array, rules, given, memory=self.memory / 4)
        found = self.found
        never = found.finite + found.infinite == 0
        if land is not None:
            if not (never & (found.flagged > 0)).any():
                warnings.warn(f"land_value={options.land_value:g}: no pixel holds it at all times", stacklevel=2)
            self.array = _where_not(self.array, land)
        sizes = dict(zip(self.layout.dims.sample, self.layout.sample_shape, strict=True))
        valid = find_valid(
            given, found.finite, found.infinite, found.flagged, n_samples, gaps=options.gaps,
            missing=found.finite_in_training == 0, variables=self.names, land_value=options.land_value,
            empty=empty_snapshots(is_empty, self.layout.sample_coords, sizes, self.names),
        )  # fmt: skip
        self.weights = known_weights(weights, valid)
        standard, self.rms = _standard(found, valid, options)
        if start is not None:
            standard = replace(standard, scale=start[1].scale)
        self.standard = standard.astype(self.array.dtype)

    def _land(self) -> np.ndarray | None:
        """Return what each variable, (variable,), holds on land, as the array holds it."""
        if self.options.land_value is None:
            return None
        fields = self.obj.data_vars.values() if isinstance(self.obj, xr.Dataset) else [self.obj]
        values = [in_type_of(field, self.options.land_value) for field in fields]
        return np.concatenate([each.astype(self.array.dtype) for each in values])

    @property
    def epsilons(self) -> list[np.ndarray] | None:
        """The paper's epsilon for each level and variable."""
        return self.options.epsilons(self.pyramid.levels, self.names, self.rms, self.standard.scale)

    def fingerprint(self) -> dict[str, str]:
        """By name, digests of what a fit depends on beside its options."""
        grid, found, sample = self.pyramid.grid, self.found, self.layout.sample_coords
        contents = {
            "grid": [grid.coords[name].values for name in sorted(map(str, grid.coords.coords))],
            "snapshots": [self.split.values, *(sample[name].values for name in sorted(map(str, sample.coords)))],
            "variables": [np.array(list(map(str, self.names)))],
            "valid pixels": [self.standard.valid],
            "weights": [self.weights],
            "data": [found.finite, found.checksum, found.total, found.squares],
        }
        return {name: _digest(arrays) for name, arrays in contents.items()}

    def compress(self) -> TrainingSet:
        """The training set, by the second pass over the archive."""
        options, standard, pyramid = self.options, self.standard, self.pyramid
        energy = options.energy if options.energy is not None else 0.01
        epsilons = self.epsilons
        tail = None if epsilons is None and options.energy is None else _tail(epsilons, standard, self.rms, energy)
        if options.activation:
            wanted = {part: len(positions) for part, positions in self.parts.items()}
            room = compression.room_for(wanted, pyramid, len(self.names), 0.4 * self.memory)
            if room != wanted:
                raise ValueError(
                    f"activation={options.activation!r} trains on the snapshots themselves; memory={self.memory:.3g} "
                    f"bytes has room for {sum(room.values())} of {sum(wanted.values())}: allow more, or fit fewer"
                )
            compressed = compression.plain(self.array, self.parts, self.season, standard)
        else:
            vectors = {part: compression.directions(p, standard.scale) for part, p in self._products.items()}
            wanted = {part: 1 + len(each) for part, each in vectors.items()}
            room = compression.room_for(wanted, pyramid, len(self.names), 0.4 * self.memory)
            compressed = compression.compress(
                self.array, self.parts, self.season, standard,
                {part: each[: room[part] - 1] for part, each in vectors.items()},
                random=[part for part, each in self._products.items() if each.shape[1] != each.shape[2]],
                tail=tail, memory=self.memory / 4,
            )  # fmt: skip
            for part, each in compressed.items():
                cut = room[part] < wanted[part]
                compression.warn_of_loss(part, each, len(self.parts[part]), tail, cut=cut)
        return self._training_set(compressed)

    def outline(self) -> TrainingSet:
        """The training set without any sample: what is known of the data after the first pass."""
        size = self.standard.valid.shape
        return self._training_set(
            {"training": compression.Compressed(np.zeros((0, *size), np.float32), np.zeros(0), 0, np.zeros(size))}
        )

    def _training_set(self, compressed: dict[str, compression.Compressed]) -> TrainingSet:
        share = np.where(self.standard.valid, self.found.finite_in_training / len(self.parts["training"]), 0)
        data = {}
        for part in list(compressed):  # one after the other, so that memory holds what is needed
            data[part] = compression.level_data(compressed.pop(part), self.pyramid, self.standard, self.weights, share)
        is_dataset = isinstance(self.obj, xr.Dataset)
        variables = self.obj.data_vars.values() if isinstance(self.obj, xr.Dataset) else [self.obj]
        return TrainingSet(
            data=data, pyramid=self.pyramid, standard=self.standard, split=self.split, variables=self.names,
            attrs=[dict(each.attrs) for each in variables], is_dataset=is_dataset, dims=self.layout.order,
            sample=self.dims.sample, dtype=self.array.dtype, rms=self.rms, room=self.memory / 4,
        )  # fmt: skip


def prepare(obj: Labelled, options: Options) -> TrainingSet:
    """Find the grid, look at the data, and compress them."""
    return Preparation(obj, options).compress()


def _digest(arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        plain = np.array(list(map(str, array.ravel()))) if array.dtype.kind in "OMm" else array
        digest.update(f"{plain.dtype} {array.shape}".encode() + np.ascontiguousarray(plain).tobytes())
    return digest.hexdigest()


def _where_not(array: Any, land: np.ndarray) -> Any:
    """Return an archive, (sample, variable, y, x), with NaN where it holds the value of land."""
    where = da.where if isinstance(array, da.Array) else np.where
    return where(array == land[:, None, None], array.dtype.type(np.nan), array)


def grid_weights(weights: Any, grid: Grid) -> np.ndarray:
    """The weight of each pixel, (y, x), ascending, from None, "area" or a DataArray; NaN where latitude is missing."""
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


def known_weights(weights: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Weights, (y, x), that are known wherever a variable, (variable, y, x), is valid.

    Where they are missing on land they are the median of their row, since a point of a coarser level may lie there.
    """
    missing = np.isnan(weights)
    wanted = int((missing & valid.any(0)).sum())
    if wanted:
        raise ValueError(
            f'weights="area" needs the latitude of each valid pixel: that of {wanted} is missing, or no latitude; '
            "give the weights as a DataArray, or leave these pixels out with valid="
        )
    if not missing.any():
        return weights
    rows = np.ma.median(np.ma.masked_invalid(weights), axis=1).filled(np.nanmedian(weights))
    return np.where(missing, rows[:, None], weights)


def _standard(found: Survey, valid: np.ndarray, options: Options) -> tuple[Standard, np.ndarray]:
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
    return Standard(centre, scale, mean, valid, monthly, options.fill), rms


def _tail(epsilons: Any, standard: Standard, rms: np.ndarray, energy: float) -> np.ndarray:
    """Variance under which trailing singular vectors may be left out of training, in scaled units squared."""
    if epsilons is None:
        return energy * (rms / standard.scale) ** 2
    return energy * np.min(epsilons, axis=0)


def _over_samples(values: np.ndarray, layout: Layout, sample: tuple[str, ...]) -> xr.DataArray:
    """One value for each snapshot, over the sample dimensions and with their coordinates."""
    sizes = dict(zip(layout.dims.sample, layout.sample_shape, strict=True))
    coords = {name: c for name, c in layout.sample_coords.coords.items() if set(c.dims) <= set(sample)}
    return xr.DataArray(values.reshape([sizes[dim] for dim in sample]), coords, sample)


def _split_labels(parts: dict[str, np.ndarray], samples: xr.DataArray) -> xr.DataArray:
    labels = np.empty(samples.size, dtype="<U10")
    for name, positions in parts.items():
        labels[positions] = name
    return samples.copy(data=labels.reshape(samples.shape)).rename("split")


def build_pyramid(obj: Labelled, options: Options) -> xr.DataTree:
    """The pyramid of a DataArray or Dataset, labelled; of lazy data only coordinates and `valid` are read."""
    valid = named_valid(obj, options.valid)
    obj = fitted_variables(obj, options)
    slashed = [obj.name, *obj.coords] if isinstance(obj, xr.DataArray) else obj.variables
    check_names(name for name in slashed if "/" in str(name))
    dims = find_dimensions(obj, horizontal=options.horizontal, sample=options.sample)
    grid = Grid.of(obj, dims, periodic=options.periodic)
    pyramid = Pyramid.of(grid, levels=options.levels, restriction=options.restriction)
    if options.land_value is not None:
        obj = where_not(obj, options.land_value)
    attrs = {"xmrcae_version": __version__, "xmrcae_options": options.to_json()}
    given = None if valid is None else valid_from(valid, grid)
    return pyramid.tree(obj, Layout.of(obj, dims, grid), valid=given, attrs=attrs)
