"""A fitted model as a DataTree in netCDF-4 or Zarr.

Nothing is pickled and nothing is executed on reading: options and attributes are JSON, all else is arrays.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import fsspec
import fsspec.core
import numpy as np
import xarray as xr
from fsspec.implementations.local import LocalFileSystem

from .._version import __version__
from ..grid.snapshots import PARTS

if TYPE_CHECKING:
    from ..model import MrCAE

FORMAT, FORMAT_VERSION = "xmrcae-model", 1

#: What a snapshot served for, by the number in the file; the last is one that three indexers left out.
LABELS = (*PARTS, "")


def save_model(model: MrCAE, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a fitted model.

    Parameters
    ----------
    model : MrCAE
        The model.
    path : str or os.PathLike
        File or, ending in ``.zarr``, folder; or any URL that fsspec knows.
    overwrite : bool
        Replace what is there, once the new file is complete.

    Raises
    ------
    ValueError
        If the model is not fitted, or the path exists and `overwrite` is not set.

    Examples
    --------
    >>> import tempfile, xmrcae
    >>> field = xmrcae.datasets.drifting_mode(n_times=40, size=31)
    >>> model = field.mrcae.fit(levels=1, max_epochs=3, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     model.save(f"{folder}/model.nc")
    ...     xmrcae.open_model(f"{folder}/model.nc").n_parameters == model.n_parameters
    True
    """
    tree = _to_tree(model)
    filesystem, target = fsspec.core.url_to_fs(os.fspath(path))
    target = target.rstrip("/")
    if filesystem.exists(target) and not overwrite:
        raise ValueError(f"{os.fspath(path)} exists already: choose another path, or pass overwrite=True to replace it")
    part = f"{target}.{uuid.uuid4().hex}.part"
    try:
        if isinstance(filesystem, LocalFileSystem):
            _write(tree, part, zarr=target.endswith(".zarr"))
            _replace(part, target)
        else:
            with tempfile.TemporaryDirectory() as folder:
                local = os.path.join(folder, "model")
                _write(tree, local, zarr=target.endswith(".zarr"))
                filesystem.put(local, part, recursive=os.path.isdir(local))
            if filesystem.exists(target):
                filesystem.rm(target, recursive=True)
            filesystem.mv(part, target, recursive=True)
    finally:
        if filesystem.exists(part):
            filesystem.rm(part, recursive=True)


def open_model(path: str | os.PathLike[str]) -> MrCAE:
    """Read a model that was written with :meth:`xmrcae.MrCAE.save`.

    Parameters
    ----------
    path : str or os.PathLike
        File, folder or any URL that fsspec knows.

    Returns
    -------
    MrCAE
        On the CPU, with results equal to the bit to those of the model that was written.

    Raises
    ------
    ValueError
        If there is no such file, or it is no model.

    Examples
    --------
    >>> import xmrcae
    >>> xmrcae.open_model("nowhere.nc")
    Traceback (most recent call last):
    ValueError: no file nowhere.nc
    """
    filesystem, target = fsspec.core.url_to_fs(os.fspath(path))
    if not filesystem.exists(target):
        raise ValueError(f"no file {os.fspath(path)}")
    with tempfile.TemporaryDirectory() as folder:
        local = target
        if not isinstance(filesystem, LocalFileSystem):
            local = os.path.join(folder, "model.zarr" if target.rstrip("/").endswith(".zarr") else "model.nc")
            filesystem.get(target, local, recursive=filesystem.isdir(target))
        try:
            engine = {"engine": "zarr", "consolidated": False} if os.path.isdir(local) else {"engine": "netcdf4"}
            with xr.open_datatree(local, mask_and_scale=False, **engine) as tree:
                tree = tree.load()
        except (OSError, ValueError, KeyError, FileNotFoundError) as error:
            raise ValueError(
                f"{os.fspath(path)} is no model: it cannot be read as netCDF-4 or Zarr ({error})"
            ) from None
    found = tree.attrs.get("format")
    if found != FORMAT:
        raise ValueError(f"{os.fspath(path)} is no model: its attribute 'format' is {found!r}, not {FORMAT!r}")
    if int(tree.attrs["format_version"]) > FORMAT_VERSION:
        raise ValueError(
            f"{os.fspath(path)} was written by a newer xmrcae ({tree.attrs['xmrcae_version']}): this is {__version__}; "
            "update it to read the file"
        )
    return _from_tree(tree)


def _write(tree: xr.DataTree, path: str, *, zarr: bool) -> None:
    encoding = {}
    for group in tree.subtree:
        variables = group.to_dataset(inherit=False).variables
        encoding[group.path] = {name: {"_FillValue": None} for name, v in variables.items() if v.dtype.kind in "fMmO"}
    if zarr:
        tree.to_zarr(path, encoding=encoding, consolidated=False)
    else:
        tree.to_netcdf(path, encoding=encoding, engine="netcdf4", format="NETCDF4")


def _replace(part: str, target: str) -> None:
    """Put a complete file or folder in the place of another."""
    if os.path.isdir(target):
        old = f"{target}.{uuid.uuid4().hex}.old"
        os.rename(target, old)
        try:
            os.rename(part, target)
        except OSError:
            os.rename(old, target)
            raise
        shutil.rmtree(old)
    else:
        os.replace(part, target)


def _to_tree(model: MrCAE) -> xr.DataTree:
    import torch

    fitted = model.fitted
    pyramid, network = fitted.inference.pyramid, fitted.inference.network
    grid, standard = pyramid.grid, fitted.standard
    about = {
        "variables": fitted.variables, "attrs": [_tagged(attrs) for attrs in fitted.attrs],
        "is_dataset": fitted.is_dataset, "dims": fitted.dims, "sample": fitted.sample, "dtype": fitted.dtype.name,
        "grid": {"y": grid.y, "x": grid.x, "sizes": grid.sizes, "descending": [bool(d) for d in grid.descending],
                 "periodic": bool(grid.periodic)},
        "levels": pyramid.levels, "restriction": pyramid.restriction, "widening": network.widening,
        "activation": network.activation, "monthly": standard.monthly, "fill": standard.fill,
    }  # fmt: skip
    attrs = {
        "format": FORMAT, "format_version": FORMAT_VERSION, "xmrcae_version": __version__, "xmrcae_model": fitted.id,
        "xmrcae_options": fitted.options_json, "partial": int(model.partial), "about": json.dumps(about),
        "versions": json.dumps({"torch": torch.__version__, "xarray": xr.__version__, "numpy": np.__version__}),
    }  # fmt: skip
    pixels = ("variable", "row", "column")
    coords = grid.coords.reset_index(list(grid.coords.indexes)).reset_coords()
    nodes = {
        "/": xr.Dataset(attrs=attrs),
        "/grid": coords,
        "/standard": xr.Dataset({
            "centre": (("season", *pixels), standard.centre), "scale": ("variable", standard.scale),
            "mean": (pixels, standard.mean), "valid": (pixels, standard.valid.astype("int8")),
        }),
        "/history": fitted.history,
        "/split": _part_numbers(fitted.split).to_dataset(name="part"),
    }  # fmt: skip
    for k, (level, has_data) in enumerate(zip(network.levels, network.has_data, strict=True)):
        bottleneck = level.deepening.cells.cpu().numpy().astype("int8")
        has = has_data.cpu().numpy().astype("int8")
        nodes[f"/level_{k}/deepening"] = _weights(level.deepening).assign(
            cells=(("variable", "y", "x"), bottleneck), has_data=(pixels, has)
        )
        for j, group in enumerate(level.groups, start=1):
            mask = group.mask.cpu().numpy().astype("int8")
            nodes[f"/level_{k}/group_{j}"] = _weights(group).assign(mask=(("y", "x"), mask))
    return xr.DataTree.from_dict(nodes)


def _part_numbers(split: xr.DataArray) -> xr.DataArray:
    """Which of LABELS each snapshot belongs to."""
    return split.copy(data=np.select([split.values == part for part in LABELS], range(len(LABELS))).astype("int8"))


def _weights(module: Any) -> xr.Dataset:
    """The parameters of a deepening or a group, by name."""
    return xr.Dataset({
        name: ([f"{name}_{axis}" for axis in range(parameter.ndim)], parameter.detach().cpu().numpy().copy())
        for name, parameter in module.named_parameters()
    })  # fmt: skip


def _from_tree(tree: xr.DataTree) -> MrCAE:
    import torch

    from ..core.network import Network
    from ..fitted import Fitted
    from ..grid.coordinates import Grid
    from ..grid.pyramid import Pyramid
    from ..grid.snapshots import Standard
    from ..inference import Inference
    from ..model import MrCAE

    about, stored = json.loads(tree.attrs["about"]), json.loads(tree.attrs["xmrcae_options"])
    coords = tree["grid"].to_dataset()
    coords = coords.set_coords(list(coords.variables))
    on_grid = about["grid"]
    coords = coords.set_xindex(on_grid["y"]) if on_grid["y"] in coords.variables else coords
    coords = coords.set_xindex(on_grid["x"]) if on_grid["x"] in coords.variables else coords
    grid = Grid(
        on_grid["y"], on_grid["x"], tuple(on_grid["sizes"]), coords, tuple(on_grid["descending"]), on_grid["periodic"]
    )
    pyramid = Pyramid.of(grid, levels=about["levels"], restriction=about["restriction"])
    arrays = {name: v.values for name, v in tree["standard"].to_dataset().variables.items()}
    standard = Standard(
        arrays["centre"], arrays["scale"], arrays["mean"], arrays["valid"].astype(bool), about["monthly"], about["fill"]
    )
    levels = [tree.children[f"level_{k}"] for k in range(about["levels"])]
    has_data = [
        torch.as_tensor(level.children["deepening"].to_dataset()["has_data"].values.astype(bool)) for level in levels
    ]
    counts = np.zeros(has_data[-1].shape, dtype=bool)
    counts[pyramid.cut(pyramid.levels - 1)] = standard.valid
    network = Network(
        has_data, torch.as_tensor(counts), widening=about["widening"], restriction=about["restriction"],
        activation=about["activation"],
    )  # fmt: skip
    generator = torch.Generator()
    for k, level in enumerate(levels):
        network.deepen(noise=0.0, generator=generator)
        _set_weights(network.levels[k].deepening, level.children["deepening"].to_dataset())
        for j in range(1, len(level.children)):
            stored_group = level.children[f"group_{j}"].to_dataset()
            mask = torch.as_tensor(stored_group["mask"].values.astype(bool))
            channels = stored_group["encoder_weight"].shape[0]
            _set_weights(network.widen(k, mask, channels, noise=0.0, generator=generator), stored_group)
    split = xr.decode_cf(tree["split"].to_dataset(), mask_and_scale=False)["part"]
    split = split.copy(data=np.array(LABELS)[split.values]).rename("split")
    model = MrCAE(**_options(stored))
    model.partial = bool(tree.attrs["partial"])
    model._fitted = Fitted(
        inference=Inference(network, pyramid, standard, tree.attrs["xmrcae_model"]), standard=standard,
        history=tree["history"].to_dataset(), split=split, variables=about["variables"],
        attrs=[_untagged(attrs) for attrs in about["attrs"]], is_dataset=about["is_dataset"], dims=tuple(about["dims"]),
        sample=tuple(about["sample"]), dtype=np.dtype(about["dtype"]), id=tree.attrs["xmrcae_model"],
        options_json=tree.attrs["xmrcae_options"],
    )  # fmt: skip
    return model


def _set_weights(module: Any, stored: xr.Dataset) -> None:
    import torch

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.as_tensor(stored[name].values))


def _options(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they were; those that were arrays, which a fitted model no longer reads, at their defaults."""
    return {name: value for name, value in stored.items() if '"<' not in json.dumps(value)}


def _tagged(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as JSON: numpy values as [dtype, values]."""
    return {
        str(name): {"dtype": value.dtype.str, "value": value.tolist()} if isinstance(value, np.ndarray | np.generic)
        else value if isinstance(value, str | int | float | bool | list) else str(value)
        for name, value in attrs.items()
    }  # fmt: skip


def _untagged(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: np.asarray(value["value"], dtype=value["dtype"])[()] if isinstance(value, dict) else value
        for name, value in attrs.items()
    }
