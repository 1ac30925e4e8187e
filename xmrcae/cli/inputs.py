"""The data that a command line names: files, folders, globs and Zarr stores as one Dataset."""

from __future__ import annotations

import functools
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import xarray as xr
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from ..archive.backend import MrcaeBackend
from ..grid.dimensions import select_variables
from ..io.tree_file import ZARR_ROOTS
from ..paths import file_system
from .faults import tell


def open_inputs(
    inputs: Sequence[str],
    variables: Sequence[str],
    options: Mapping[str, Any] | None = None,
    *,
    written: Sequence[str | None] = (),
) -> tuple[xr.Dataset, list[str], list[str]]:
    """Open data lazily, in the chunks that they are stored in, in order of their coordinates.

    What does not lie along these, as longitudes on a curvilinear grid, must be the same in all; a
    scalar that is not is left out, with a warning.

    Parameters
    ----------
    inputs : sequence of str
        NetCDF files, folders of them, globs, Zarr stores.
    variables : sequence of str
        Names of the variables wanted; the only suitable one without any.
    options : mapping, optional
        Those of the fit, of which `horizontal` and `sample` say which variable is suitable.
    written : sequence of str or None
        What a command writes, or wrote, which no glob finds: it may lie among the inputs.

    Returns
    -------
    xarray.Dataset
        These variables, and those that describe their coordinates.
    list of str
        The names of these variables.
    list of str
        The files that are read; none of Zarr stores.

    Raises
    ------
    ValueError
        If a file, or a variable, is not there, or the files do not fit together.
    """
    paths, engine = _find(inputs, [*filter(None, written)])
    dims = {key: (options or {}).get(key) for key in ("horizontal", "sample")}
    with _opened(paths[0], engine) as first:
        try:
            chosen = select_variables(first, list(variables) or None, **dims)
        except ValueError as error:
            raise ValueError(f"{paths[0]}: {error}") from error
        names = list(variables) or [str(chosen.name)]
    scalars: dict[Hashable, list[xr.Variable]] = {}
    try:
        ds = xr.open_mfdataset(
            paths,
            engine=engine,
            chunks={},
            combine="by_coords",
            preprocess=functools.partial(_without_scalars, names=names, scalars=scalars),
            data_vars="minimal",
            coords="minimal",
            compat="equals",
            join="exact",
            combine_attrs="override",
        )
    except (ValueError, KeyError, OSError) as error:
        for path in paths:
            _opened(path, engine).close()  # names the one that cannot be read
        if isinstance(error, OSError):
            raise
        said = str(error).partition(" You can skip this check")[0]  # with what no command takes
        raise ValueError(f"the inputs do not fit together: {said}") from error
    return _with_shared(ds, scalars, len(paths)), names, [] if engine == "zarr" else paths


def _without_scalars(
    ds: xr.Dataset, names: Sequence[str], scalars: dict[Hashable, list[xr.Variable]]
) -> xr.Dataset:
    """Select variables of one input; put its scalar coordinates beside those of the others."""
    chosen = select(ds, names)
    own = {name: each.variable for name, each in chosen.coords.items() if not each.ndim}
    for name, scalar in own.items():
        scalars.setdefault(name, []).append(scalar.load())
    return chosen.drop_vars(own)


def _with_shared(
    ds: xr.Dataset, scalars: Mapping[Hashable, Sequence[xr.Variable]], n_inputs: int
) -> xr.Dataset:
    """Give data the scalars that are the same in all inputs; warn of the others."""
    for name, found in scalars.items():
        if len(found) == n_inputs and all(found[0].equals(each) for each in found[1:]):
            ds = ds.assign_coords({name: found[0]})
        else:
            tell(f"warning: {name} is not the same in all inputs: it is left out")
    return ds


def _opened(path: str, engine: str | None) -> xr.Dataset:
    """Open one input.

    Raises
    ------
    ValueError
        Naming the path, if it is neither NetCDF nor Zarr, cut short, or damaged.
    OSError
        If the system cannot read it.
    """
    try:
        return xr.open_dataset(path, engine=engine)
    except Exception as error:  # each library has its own kinds
        if isinstance(error, OSError) and (error.errno or 0) > 0:
            raise
        reason = getattr(error, "strerror", None) or "it is neither"
        raise ValueError(f"{path} cannot be read as NetCDF or Zarr: {reason}") from error


def select(ds: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """Return some variables, with the bounds and mappings that they and their coordinates name."""
    wanted = ds[list(names)]
    keys = ("bounds", "climatology", "grid_mapping")
    named = {each.attrs.get(key) for each in wanted.variables.values() for key in keys}
    return ds[[*names, *(name for name in ds.data_vars if name in named - {*names})]]


def _find(inputs: Sequence[str], written: Sequence[str]) -> tuple[list[str], str | None]:
    """Return paths, and the engine of xarray's that opens them: None lets xarray find out."""
    found = {path: is_zarr for each in inputs for path, is_zarr in _expand(each, written)}
    if len({*found.values()}) > 1:
        raise ValueError(
            "the inputs are files and Zarr stores: give files, or Zarr stores, not both"
        )
    for path, is_zarr in found.items():
        if is_zarr and MrcaeBackend().guess_can_open(path):
            raise ValueError(f"{path} is an archive: xmrcae decode writes its data to a file first")
    return list(found), "zarr" if all(found.values()) else None


def _expand(text: str, written: Sequence[str]) -> list[tuple[str, bool]]:
    """Return the paths that a text stands for, and whether each is a Zarr store."""
    filesystem, path = file_system(text)
    left_out = {_real(*file_system(each)) for each in written}

    def is_zarr(each: str) -> bool:
        return any(filesystem.exists(f"{each}/{name}") for name in ZARR_ROOTS)

    if not filesystem.exists(path):
        paths = sorted(filesystem.glob(path)) if any(sign in path for sign in "*?[") else []
        paths = [each for each in paths if _real(filesystem, each) not in left_out]
        if not paths:
            raise ValueError(f"no file {text}")
    elif filesystem.isdir(path) and not is_zarr(path):
        paths = sorted(each for each in filesystem.ls(path, detail=False) if each.endswith(".nc"))
        if not paths:
            raise ValueError(f"{text} is a folder without *.nc, and no Zarr store")
    else:
        return [(text, filesystem.isdir(path))]
    local = isinstance(filesystem, LocalFileSystem)
    return [
        (each if local else filesystem.unstrip_protocol(each), filesystem.isdir(each))
        for each in paths
    ]


def _real(filesystem: AbstractFileSystem, path: str) -> str:
    """Return what tells a place from all others, however it is reached."""
    path = path.rstrip("/")
    local = isinstance(filesystem, LocalFileSystem)
    return os.path.realpath(path) if local else str(filesystem.unstrip_protocol(path))
