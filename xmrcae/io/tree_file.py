"""A DataTree in a netCDF-4 file or a Zarr store, at any URL, replaced as a whole."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import math
import os
import re
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import netCDF4
import numpy as np
import xarray as xr
from fsspec.implementations.local import LocalFileSystem

from ..errors import ModelFileError
from ..paths import file_system
from ..storage import cleaned, in_storage, is_there, uninterrupted

#: Files of which each Zarr store has one.
ZARR_ROOTS = ("zarr.json", ".zgroup", ".zarray")

#: Codecs of the arrays of a model; others, as pickle, could execute code or have other limits.
CODECS = {"bytes", "vlen-utf8", "zstd", "blosc", "gzip", "zlib", "crc32c"}

#: How many times smaller zeros become at most, by Zstandard and by Deflate.
PACKED = {"zarr": 2**15, "netcdf4": 1100}


def write_tree(tree: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Write a tree to a file or, ending in ``.zarr``, a folder; or to any URL that fsspec knows.

    What is there is replaced, if `overwrite` is set, once the new file is complete. A folder is
    replaced only if it is a Zarr store.

    Raises
    ------
    ValueError
        If the path exists and is not to be replaced, or its folder does not exist.
    StorageError
        If the disk is full, or writing fails otherwise: what was there is there.
    """
    with replacing(path, overwrite=overwrite) as part:
        uninterrupted(_write, tree, part, zarr=is_zarr(path))


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
    StorageError
        If the disk is full, or writing fails otherwise: what was there is there.
    """
    filesystem, target = check_target(path, overwrite=overwrite)
    part = f"{target}.{uuid.uuid4().hex}.part"
    is_local = isinstance(filesystem, LocalFileSystem)
    failing = functools.partial(
        in_storage,
        f"{os.fspath(path)} could not be written",
        "What was there is as it was: make room, or give another path, and write it again",
        folder=os.path.dirname(target) if is_local else tempfile.gettempdir(),
    )
    with cleaned(lambda: _remove_part(filesystem, part)), contextlib.ExitStack() as stack:
        local = part
        if not is_local:
            local = os.path.join(stack.enter_context(tempfile.TemporaryDirectory()), "part")
        try:
            with failing(kinds=(OSError, RuntimeError)):  # HDF5's too; errors of the caller pass
                yield local
        except BaseException:
            if os.path.isdir(local):
                time.sleep(0.5)  # a thread of Zarr's ends the files that it had begun
            raise
        with failing():
            if not is_local:
                filesystem.put(local, part, recursive=os.path.isdir(local))
            (_replace_local if is_local else _replace)(filesystem, part, target)


def _remove_part(filesystem: Any, part: str) -> None:
    """Remove what was written to, if it is still there, even if Ctrl-C comes at this moment."""
    if isinstance(filesystem, LocalFileSystem) and os.path.isfile(part):
        # HDF5 keeps a file open that it could not complete; cut, it takes less room.
        os.truncate(part, 0)
    try:
        _forget(filesystem, part)
    except KeyboardInterrupt:
        _forget(filesystem, part)
        raise


def _forget(filesystem: Any, path: str) -> None:
    """Remove what nothing needs any more."""
    with in_storage(f"{path} could not be removed", "Nothing needs it: remove it later"):
        _remove(filesystem, path)


def _remove(filesystem: Any, path: str) -> None:
    """Remove a file or folder, if there is one."""
    if is_there(filesystem, path):
        filesystem.rm(path, recursive=True)


def check_target(path: str | os.PathLike[str], *, overwrite: bool) -> tuple[Any, str]:
    """Return the file system and the path in it that a file or store is to be written to.

    Raises
    ------
    ValueError
        If something is there that may not be replaced, or no folder to write to.
    """
    filesystem, target = file_system(path)
    target = target.rstrip("/")
    is_local = isinstance(filesystem, LocalFileSystem)
    target = os.path.realpath(target) if is_local else target
    folder, name = os.path.split(target)
    if is_there(filesystem, target):
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
    ModelFileError
        If there is no such file, it cannot be read, or it is unsafe to read.
    StorageError
        If a store fails.
    """
    path = os.fspath(path)
    filesystem, target = file_system(path)
    is_local = isinstance(filesystem, LocalFileSystem)
    with tempfile.TemporaryDirectory() as folder:
        local = target
        with in_storage(f"{path} could not be read", "It may be sound: try again"):
            if not is_there(filesystem, target):
                raise ModelFileError(f"no file {path}")
            if not is_local:
                local = os.path.join(folder, "model.zarr" if is_zarr(target) else "model.nc")
                _download(filesystem, target, local)
        try:
            return uninterrupted(_read, local)
        except Exception as error:  # of the libraries: the file is something else, or cut short
            raise ModelFileError(
                f"{path} is no model: it cannot be read as netCDF-4 or Zarr ({error})"
            ) from error


def _download(filesystem: Any, target: str, local: str) -> None:
    """Copy a file or folder to a local path; no name in it may lead out of there."""
    is_folder = filesystem.isdir(target)
    for name in filesystem.find(target) if is_folder else ():
        if ".." in re.split(r"[/\\]", name[len(target) :]):
            raise ModelFileError(f"{name} leads out of the folder")
    filesystem.get(target, local, recursive=is_folder)


def _read(path: str) -> xr.DataTree:
    """Read a local file or Zarr folder into memory; nothing is decoded."""
    options: dict[str, Any] = dict.fromkeys(
        ("mask_and_scale", "decode_times", "decode_timedelta", "decode_coords"), False
    )
    if os.path.isdir(path):
        _check_folder(path)
        options |= {"engine": "zarr", "consolidated": False}
    else:
        _check_netcdf(path)
        options |= {"engine": "netcdf4"}
    with xr.open_datatree(path, **options) as tree:
        # DataTree.load skips variables that have the name of a group
        nodes = {node.path: node.to_dataset(inherit=False).load() for node in tree.subtree}
        return xr.DataTree.from_dict(nodes)


def _check_netcdf(path: str) -> None:
    """Raise a ValueError if the arrays of a file are larger than its bytes can be unpacked to."""
    with netCDF4.Dataset(path) as root:
        groups = [root]
        n_bytes = 0
        for group in groups:
            groups += group.groups.values()
            for variable in group.variables.values():
                itemsize = 8 if variable.dtype is str else np.dtype(variable.dtype).itemsize
                n_bytes += itemsize * math.prod(variable.shape)
    _check_size(n_bytes, os.path.getsize(path), "netcdf4")


def _check_folder(folder: str) -> None:
    """Raise a ValueError if reading a Zarr folder could run code, leave it, or fill the memory."""
    for root, folders, files in os.walk(folder):
        modes = {name: os.lstat(os.path.join(root, name)).st_mode for name in (*folders, *files)}
        for name, mode in modes.items():
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise ValueError(
                    f"{os.path.join(root, name)} is a link or no file: put the file itself there"
                )
        for name in {"zarr.json", ".zarray"}.intersection(files):
            with open(os.path.join(root, name), encoding="utf-8") as file:
                metadata = json.load(file)
            if name == ".zarray" or metadata["node_type"] == "array":
                paths = (os.path.join(at, each) for at, _, names in os.walk(root) for each in names)
                _check_array(metadata, [os.path.getsize(path) for path in paths])


def _check_array(metadata: Mapping[str, Any], sizes: list[int]) -> None:
    """Check what is said of a Zarr array against the bytes of each of its files."""
    codecs = [each["name"] for each in metadata.get("codecs", ())]
    codecs += [each["id"] for each in metadata.get("filters") or ()]
    codecs += [metadata["compressor"]["id"]] if metadata.get("compressor") else []
    if unknown := set(codecs) - CODECS:
        raise ValueError(f"the codec {unknown.pop()!r}, which could execute code, is in no model")
    old = metadata["zarr_format"] == 2
    name = metadata["dtype" if old else "data_type"]
    dtype = np.dtype("O" if name == "string" else name)
    if dtype.kind not in "biufO":
        raise ValueError(f"no model has an array of type {name}")
    shape = metadata["shape"]
    chunk = metadata["chunks"] if old else metadata["chunk_grid"]["configuration"]["chunk_shape"]
    _check_size(dtype.itemsize * math.prod(shape), sum(sizes), "zarr")
    # What is 0 everywhere has no file but the description.
    if math.prod(-(-size // own) for size, own in zip(shape, chunk, strict=True)) > len(sizes):
        raise ValueError(f"an array of shape {shape} in chunks of {chunk} lacks files")


def _check_size(declared: int, stored: int, engine: str) -> None:
    """Check that arrays could have been packed into so many bytes."""
    if declared > PACKED[engine] * stored:
        raise ValueError(f"{stored} bytes cannot hold the {declared} that the arrays are to have")


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


def _replace_local(filesystem: Any, part: str, target: str) -> None:
    """Put a complete file or folder in the place of another, which stays if that fails."""
    if not (os.path.isdir(part) or os.path.isdir(target)):
        os.replace(part, target)
        return
    there = os.path.lexists(target)
    if there and _exchange(part, target):  # what was there is at `part` now, and removed with it
        return
    old = f"{target}.{uuid.uuid4().hex}.old"
    if there:
        os.rename(target, old)
    try:
        os.rename(part, target)
    except BaseException:
        if there:
            os.rename(old, target)
        raise
    _forget(filesystem, old)


def _replace(filesystem: Any, part: str, target: str) -> None:
    """Put a complete file or folder in the place of another, in a store that can only copy.

    If that fails, what was there is put back.
    """
    if filesystem.isfile(part) and not filesystem.isdir(target):
        filesystem.copy(part, target)  # an object is replaced as a whole
        return
    old = f"{target}.{uuid.uuid4().hex}.old"
    there, kept = is_there(filesystem, target), False
    try:
        if there:
            _copy(filesystem, target, old)
        kept = True
        _remove(filesystem, target)
        _copy(filesystem, part, target)
    except BaseException:
        with in_storage(
            f"{target} could be neither replaced nor put back",
            f"Copy there what is at {old}" if there else "Remove it: it is not complete",
        ):
            if kept:
                _remove(filesystem, target)
            if kept and there:
                _copy(filesystem, old, target)
            _remove(filesystem, old)
        raise
    _forget(filesystem, old)


def _exchange(one: str, other: str) -> bool:
    """Let two local folders change places as one act; False where the system cannot.

    By two renames, a process that is killed between them leaves nothing at the path.
    """
    at_working_directory, exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # Linux alone has it
        return False
    paths = [os.fsencode(path) for path in (one, other)]
    return bool(
        renameat2(at_working_directory, paths[0], at_working_directory, paths[1], exchange) == 0
    )


def _copy(filesystem: Any, source: str, target: str) -> None:
    """Copy a file or folder, file by file: fsspec's own wants folders, and stores have none."""
    names = filesystem.find(source)
    filesystem.copy(names, [target + name[len(source) :] for name in names], on_error="raise")
