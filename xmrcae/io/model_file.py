"""A fitted model as a DataTree in netCDF-4 or Zarr."""

from __future__ import annotations

import json
import os
import warnings
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from .._version import __version__
from ..errors import ModelFileError
from ..fitted import Fitted
from .model_datasets import fitted_from_datasets, fitted_to_datasets
from .model_file_2 import upgraded
from .tree_file import read_tree, write_tree

FORMAT, FORMAT_VERSION = "xmrcae-model", 3

#: Attributes that are written as JSON.
JSON = ("about", "versions")

#: Other attributes that are read.
PLAIN = ("xmrcae_options", "xmrcae_model", "partial")


def save_model(fitted: Fitted, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a fitted model, as :meth:`xmrcae.MrCAE.save` documents it."""
    datasets, attrs = fitted_to_datasets(fitted)
    attrs |= {name: json.dumps(attrs[name]) for name in JSON}
    attrs |= {"format": FORMAT, "format_version": FORMAT_VERSION}
    attrs["crc32"] = json.dumps(_checksums(datasets, attrs))
    tree = xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs)} | datasets)
    write_tree(tree, path, overwrite=overwrite)


def read_model(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Fitted]:
    """Read the options and what was fitted, as :func:`xmrcae.open_model` documents it."""
    tree = read_tree(path)
    found = tree.attrs.get("format")
    if not (isinstance(found, str) and found == FORMAT):
        raise ModelFileError(
            f"{os.fspath(path)} is no model: its attribute 'format' is {found!r}, not {FORMAT!r}"
        )
    version = tree.attrs.get("format_version")
    if not (isinstance(version, int | np.integer) and version > 0):
        raise ModelFileError(f"{os.fspath(path)} is a damaged model: its version is {version!r}")
    if version > FORMAT_VERSION:
        raise ModelFileError(
            f"{os.fspath(path)} was written by a newer xmrcae "
            f"({tree.attrs.get('xmrcae_version')}): this is {__version__}; update it to read "
            "the file"
        )
    try:
        result = fitted_from_datasets(*(_checked(tree) if version > 2 else upgraded(tree)))
    except Exception as error:  # whatever is made of content that is something else
        raise ModelFileError(
            f"{os.fspath(path)} is a damaged model: {type(error).__name__}: {error}"
        ) from error
    if version < 3:
        warnings.warn(
            f"{os.fspath(path)} is a model file of version {version}, which has no checksums: "
            "if a weight in it was changed, nothing tells; saved again, it has them",
            stacklevel=3,
        )
    return result


def _checked(tree: xr.DataTree) -> tuple[dict[str, xr.Dataset], dict[Any, Any]]:
    """Return Datasets and attributes as they were written; an error if one was not."""
    datasets = {name: node.to_dataset() for name, node in tree.children.items()}
    written, found = json.loads(tree.attrs["crc32"]), _checksums(datasets, tree.attrs)
    if missing := sorted(written.keys() - found.keys()):
        raise ValueError(f"{missing[0]} is missing")
    if added := sorted(found.keys() - written.keys()):
        raise ValueError(f"{added[0]} was added")
    if changed := [name for name, checksum in written.items() if found[name] != checksum]:
        raise ValueError(f"{changed[0]} differs from what was written (checksum)")
    return datasets, tree.attrs | {name: json.loads(tree.attrs[name]) for name in JSON}


def _checksums(datasets: Mapping[str, xr.Dataset], attrs: Mapping[Any, Any]) -> dict[str, int]:
    """Return the CRC-32 of every array, by path, and of every attribute that is read."""
    arrays = {
        f"{path}/{name}": _bytes(variable.values)
        for path, dataset in datasets.items()
        for name, variable in dataset.variables.items()
    }
    texts = {name: str(attrs[name]).encode() for name in (*JSON, *PLAIN)}
    return {name: zlib.crc32(content) for name, content in (arrays | texts).items()}


def _bytes(values: np.ndarray) -> bytes:
    """Return type, shape and values as bytes, whatever order and kind of text a file has."""
    if values.dtype.kind in "OUT":
        return json.dumps(values.tolist()).encode()
    values = values.astype(values.dtype.newbyteorder("<"))
    return f"{values.dtype.str}{values.shape}".encode() + values.tobytes()
