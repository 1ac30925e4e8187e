"""A DataTree in a netCDF-4 file or a Zarr store, at any URL, replaced as a whole."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

import fsspec
import fsspec.core
import xarray as xr
from fsspec.implementations.local import LocalFileSystem

#: Files of which each Zarr store has one.
ZARR_ROOTS = ("zarr.json", ".zgroup", ".zarray")


def write_tree(tree: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write a tree to a file or, ending in ``.zarr``, a folder; or to any URL that fsspec knows.

    What is there is replaced, if `overwrite` is set, once the new file is complete. A folder is
    replaced only if it is a Zarr store.

    Raises
    ------
    ValueError
        If the path exists and is not to be replaced, or its folder does not exist.
    """
    with replacing(path, overwrite=overwrite) as part:
        _write(tree, part, zarr=is_zarr(path))


def is_zarr(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is written as a Zarr store: it ends in ``.zarr``."""
    return os.fspath(path).rstrip("/").endswith(".zarr")


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool) -> Iterator[str]:
    """Give a local path to write to; once that is complete, it takes the place of `path`.

    Raises
    ------
    ValueError
        As :func:`check_target`, before anything is written.
    """
    filesystem, target = check_target(path, overwrite=overwrite)
    part = f"{target}.{uuid.uuid4().hex}.part"
    try:
        if isinstance(filesystem, LocalFileSystem):
            yield part
        else:
            with tempfile.TemporaryDirectory() as folder:
                local = os.path.join(folder, "part")
                yield local
                filesystem.put(local, part, recursive=os.path.isdir(local))
        _replace(filesystem, part, target)
    finally:
        if filesystem.exists(part):
            filesystem.rm(part, recursive=True)


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> tuple[Any, str]:
    """Return the file system and the path in it that a file or store is to be written to.

    Raises
    ------
    ValueError
        If something is there that may not be replaced, or no folder to write to.
    """
    filesystem, target = fsspec.core.url_to_fs(os.fspath(path))
    target = target.rstrip("/")
    is_local = isinstance(filesystem, LocalFileSystem)
    target = os.path.realpath(target) if is_local else target
    folder, name = os.path.split(target)
    if filesystem.exists(target):
        if not overwrite:
            raise ValueError(
                f"{path} exists already: choose another path, or pass overwrite=True to replace it"
            )
        roots = (filesystem.exists(f"{target}/{name}") for name in ZARR_ROOTS)
        if filesystem.isdir(target) and not any(roots):
            raise ValueError(
                f"{path} is a folder and no Zarr store, so it is not replaced: give a file in it"
            )
    elif is_local and not os.path.isdir(folder):
        raise ValueError(f"no folder {folder} to write {name} to: create it first")
    return filesystem, target


def read_tree(path: str | os.PathLike[str]) -> xr.DataTree:
    """Read a tree, from a file, a folder or any URL that fsspec knows, into memory, undecoded.

    Raises
    ------
    ValueError
        If there is no such file, or it cannot be read.
    """
    filesystem, target = fsspec.core.url_to_fs(os.fspath(path))
    if not filesystem.exists(target):
        raise ValueError(f"no file {os.fspath(path)}")
    with tempfile.TemporaryDirectory() as folder:
        local = target
        if not isinstance(filesystem, LocalFileSystem):
            is_zarr = target.rstrip("/").endswith(".zarr")
            local = os.path.join(folder, "model.zarr" if is_zarr else "model.nc")
            filesystem.get(target, local, recursive=filesystem.isdir(target))
        try:
            return _read(local)
        except Exception as error:  # of the libraries: the file is something else, or cut short
            raise ValueError(
                f"{os.fspath(path)} is no model: it cannot be read as netCDF-4 or Zarr ({error})"
            ) from error


def _read(path: str) -> xr.DataTree:
    """Read a local file or Zarr folder into memory; nothing is decoded."""
    options: dict[str, Any] = dict.fromkeys(
        ("mask_and_scale", "decode_times", "decode_timedelta", "decode_coords"), False
    )
    if os.path.isdir(path):
        _refuse_pickles(path)
        options |= {"engine": "zarr", "consolidated": False}
    else:
        options |= {"engine": "netcdf4"}
    with xr.open_datatree(path, **options) as tree:
        # DataTree.load skips variables that have the name of a group
        nodes = {node.path: node.to_dataset(inherit=False).load() for node in tree.subtree}
        return xr.DataTree.from_dict(nodes)


def _refuse_pickles(folder: str) -> None:
    """Raise a ValueError if reading a Zarr folder could execute code, as pickle filters would."""
    for root, _, names in os.walk(folder, followlinks=True):
        for name in {"zarr.json", ".zarray"}.intersection(names):
            with open(os.path.join(root, name), encoding="utf-8") as file:
                metadata = json.load(file)
            codecs = json.dumps([metadata.get(key) for key in ("codecs", "filters", "compressor")])
            if "pickle" in codecs.lower():
                raise ValueError(
                    f"{os.path.join(root, name)} names the codec pickle, which could execute code"
                )


def _write(tree: xr.DataTree, path: str, *, zarr: bool) -> None:
    encoding = {
        group.path: {
            name: _encoding(variable, zarr=zarr)
            for name, variable in group.to_dataset(inherit=False).variables.items()
        }
        for group in tree.subtree
    }
    if zarr:
        tree.to_zarr(path, encoding=encoding, consolidated=False)
    else:
        tree.to_netcdf(path, encoding=encoding, engine="netcdf4", format="NETCDF4")


def _encoding(variable: xr.Variable, *, zarr: bool) -> dict[str, Any]:
    """Return how to store a variable: its own values, compressed, in one chunk."""
    plain = {"_FillValue": None} if variable.dtype.kind in "fMmO" else {}
    if variable.size < 2 or variable.dtype.kind == "O":  # HDF5 does not compress text
        return plain
    if zarr:
        return plain | {"chunks": variable.shape}
    return plain | {"zlib": True, "shuffle": True, "chunksizes": variable.shape}


def _replace(filesystem: Any, part: str, target: str) -> None:
    """Put a complete file or folder in the place of another, which stays if that fails."""
    is_local = isinstance(filesystem, LocalFileSystem)
    if is_local and not (os.path.isdir(part) or os.path.isdir(target)):
        os.replace(part, target)
        return
    move = os.rename if is_local else functools.partial(_move, filesystem)
    if not filesystem.exists(target):
        move(part, target)
        return
    old = f"{target}.{uuid.uuid4().hex}.old"
    move(target, old)
    try:
        move(part, target)
    except BaseException:
        if filesystem.exists(target):
            filesystem.rm(target, recursive=True)
        move(old, target)
        raise
    filesystem.rm(old, recursive=True)


def _move(filesystem: Any, source: str, target: str) -> None:
    """Move a file or folder, file by file: fsspec's `mv` wants folders, and stores have none."""
    names = filesystem.find(source)
    filesystem.copy(names, [target + name[len(source) :] for name in names], on_error="raise")
    filesystem.rm(source, recursive=True)
