"""A fitted model as a DataTree in netCDF-4 or Zarr.

Nothing is pickled and nothing is executed on reading: options and attributes are JSON, all else is arrays.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
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
from ..grid.split import PARTS
from ..options import Options
from .labels import attributes_from_json, attributes_to_json, coordinates_from_plain, coordinates_to_plain

if TYPE_CHECKING:
    from ..model import MrCAE

FORMAT, FORMAT_VERSION = "xmrcae-model", 2

#: What a snapshot served for, by the number in the file; the last is one that three indexers left out.
LABELS = (*PARTS, "")

#: Files of which each Zarr store has one.
ZARR_ROOTS = ("zarr.json", ".zgroup", ".zarray")

#: Name of the variable over the snapshots, none that a coordinate could have.
PART = "split.part"

#: Name of the weights of each pixel under which codes are found by projection; absent where filters find them.
PROJECTION = "projection"

#: Dimensions of the parameters in the file.
DEEPENING = {"encoder_weight": ["tap"], "encoder_bias": ["variable"],
             "decoder_weight": ["tap"], "decoder_bias": ["variable"]}  # fmt: skip
GROUP = {"encoder_weight": ["filter", "tap"], "encoder_bias": ["filter"],
         "decoder_weight": ["filter", "tap"], "decoder_bias": ["variable"]}  # fmt: skip


def save_model(model: MrCAE, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a fitted model.

    Parameters
    ----------
    model : MrCAE
        The model.
    path : str or os.PathLike
        File or, ending in ``.zarr``, folder; or any URL that fsspec knows.
    overwrite : bool
        Replace what is there, once the new file is complete. A folder is replaced only if it is a Zarr store.

    Raises
    ------
    ValueError
        If the model is not fitted, the path exists and `overwrite` is not set, or the path's folder does not exist.

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
    zarr, is_local = target.endswith(".zarr"), isinstance(filesystem, LocalFileSystem)
    target = os.path.realpath(target) if is_local else target
    if filesystem.exists(target):
        if not overwrite:
            raise ValueError(
                f"{os.fspath(path)} exists already: choose another path, or pass overwrite=True to replace it"
            )
        if filesystem.isdir(target) and not any(filesystem.exists(f"{target}/{name}") for name in ZARR_ROOTS):
            raise ValueError(
                f"{os.fspath(path)} is a folder and no Zarr store, so it is not replaced: give a file in it"
            )
    elif is_local and not os.path.isdir(os.path.dirname(target)):
        raise ValueError(f"no folder {os.path.dirname(target)} to write {os.path.basename(target)} to: create it first")
    part = f"{target}.{uuid.uuid4().hex}.part"
    try:
        if is_local:
            _write(tree, part, zarr=zarr)
        else:
            with tempfile.TemporaryDirectory() as folder:
                local = os.path.join(folder, "model")
                _write(tree, local, zarr=zarr)
                filesystem.put(local, part, recursive=zarr)
        _replace(filesystem, part, target)
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
            tree = _read(local)
        except Exception as error:  # whatever the libraries make of a file that is something else, or cut short
            raise ValueError(
                f"{os.fspath(path)} is no model: it cannot be read as netCDF-4 or Zarr ({error})"
            ) from error
    found = tree.attrs.get("format")
    if found != FORMAT:
        raise ValueError(f"{os.fspath(path)} is no model: its attribute 'format' is {found!r}, not {FORMAT!r}")
    if int(tree.attrs.get("format_version", 0)) > FORMAT_VERSION:
        raise ValueError(
            f"{os.fspath(path)} was written by a newer xmrcae ({tree.attrs.get('xmrcae_version')}): "
            f"this is {__version__}; update it to read the file"
        )
    try:
        return _from_tree(tree)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ValueError(f"{os.fspath(path)} is a damaged model: {type(error).__name__}: {error}") from error


def _read(path: str) -> xr.DataTree:
    """A local file or Zarr folder, in memory; nothing is decoded."""
    options: dict[str, Any] = dict.fromkeys(
        ("mask_and_scale", "decode_times", "decode_timedelta", "decode_coords"), False
    )
    if os.path.isdir(path):
        _refuse_pickles(path)
        options |= {"engine": "zarr", "consolidated": False}
    else:
        options |= {"engine": "netcdf4"}
    with xr.open_datatree(path, **options) as tree:
        return tree.load()


def _refuse_pickles(folder: str) -> None:
    """Raise a ValueError if reading a Zarr folder could execute code, as numcodecs' pickle filter long did."""
    for root, _, names in os.walk(folder, followlinks=True):
        for name in {"zarr.json", ".zarray"}.intersection(names):
            with open(os.path.join(root, name), encoding="utf-8") as file:
                metadata = json.load(file)
            codecs = json.dumps([metadata.get(key) for key in ("codecs", "filters", "compressor")])
            if "pickle" in codecs.lower():
                raise ValueError(f"{os.path.join(root, name)} names the codec pickle, which could execute code")


def _write(tree: xr.DataTree, path: str, *, zarr: bool) -> None:
    encoding = {}
    for group in tree.subtree:
        variables = group.to_dataset(inherit=False).variables
        encoding[group.path] = {name: {"_FillValue": None} for name, v in variables.items() if v.dtype.kind in "fMmO"}
    if zarr:
        tree.to_zarr(path, encoding=encoding, consolidated=False)
    else:
        tree.to_netcdf(path, encoding=encoding, engine="netcdf4", format="NETCDF4")


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
    """Move a file or folder file by file: an object store has no folders, and fsspec's own `mv` looks for one."""
    names = filesystem.find(source)
    filesystem.copy(names, [target + name[len(source) :] for name in names], on_error="raise")
    filesystem.rm(source, recursive=True)


def _to_tree(model: MrCAE) -> xr.DataTree:
    import torch

    fitted = model.fitted
    pyramid, network = fitted.inference.pyramid, fitted.inference.network
    grid, standard = pyramid.grid, fitted.standard
    on_grid, grid_record = coordinates_to_plain(grid.coords, ())
    on_samples, split_record = coordinates_to_plain(fitted.split.coords.to_dataset(), fitted.sample)
    part = np.select([fitted.split.values == label for label in LABELS], range(len(LABELS))).astype("int8")
    about = {
        "variables": fitted.variables, "attrs": [attributes_to_json(attrs) for attrs in fitted.attrs],
        "is_dataset": fitted.is_dataset, "dims": fitted.dims, "sample": fitted.sample, "dtype": fitted.dtype.name,
        "grid": {"y": grid.y, "x": grid.x, "sizes": grid.sizes, "descending": [bool(d) for d in grid.descending],
                 "periodic": bool(grid.periodic)},
        "axes": [[axis.padded, axis.before] for axis in (pyramid.y, pyramid.x)],
        "levels": pyramid.levels, "restriction": pyramid.restriction, "widening": network.widening,
        "activation": network.activation, "anchor": network.anchor, "monthly": standard.monthly, "fill": standard.fill,
        "groups": [len(level.groups) for level in network.levels], "history": list(fitted.history.data_vars),
        "grid_coordinates": grid_record, "split_coordinates": split_record,
    }  # fmt: skip
    attrs = {
        "format": FORMAT, "format_version": FORMAT_VERSION, "xmrcae_version": __version__, "xmrcae_model": fitted.id,
        "xmrcae_options": fitted.options_json, "partial": int(model.partial), "about": json.dumps(about),
        "versions": json.dumps({"torch": torch.__version__, "xarray": xr.__version__, "numpy": np.__version__}),
    }  # fmt: skip
    pixels = ("variable", "row", "column")
    nodes = {
        "/": xr.Dataset(attrs=attrs),
        "/grid": xr.Dataset(on_grid),
        "/standard": xr.Dataset({
            "centre": (("season", *pixels), standard.centre), "scale": ("variable", standard.scale),
            "mean": (pixels, standard.mean), "valid": (pixels, standard.valid.astype("int8")),
        }),
        "/history": fitted.history,
        "/split": xr.Dataset(on_samples | {PART: ([split_record["dims"][dim] for dim in fitted.split.dims], part)}),
    }  # fmt: skip
    for k, (level, has_data) in enumerate(zip(network.levels, network.has_data, strict=True)):
        bottleneck = level.deepening.cells.cpu().numpy().astype("int8")
        has = has_data.cpu().numpy().astype("int8")
        nodes[f"/level_{k}/deepening"] = _weights(level.deepening, DEEPENING).assign(
            cells=(("variable", "y", "x"), bottleneck), has_data=(pixels, has)
        )
        if network.projection is not None:
            nodes[f"/level_{k}/deepening"][PROJECTION] = pixels, network.projection[k].cpu().numpy()
        for j, group in enumerate(level.groups, start=1):
            mask = group.mask.cpu().numpy().astype("int8")
            nodes[f"/level_{k}/group_{j}"] = _weights(group, GROUP).assign(mask=(("y", "x"), mask))
    return xr.DataTree.from_dict(nodes)


def _weights(module: Any, dims: Mapping[str, list[str]]) -> xr.Dataset:
    """The parameters of a deepening or a group, by name."""
    return xr.Dataset({
        name: (dims[name], parameter.detach().cpu().numpy().copy()) for name, parameter in module.named_parameters()
    })  # fmt: skip


def _from_tree(tree: xr.DataTree) -> MrCAE:
    import torch

    from ..core.network import Network
    from ..fitted import Fitted
    from ..grid.coordinates import Grid
    from ..grid.pyramid import Pyramid
    from ..grid.scaling import Standard
    from ..inference import Inference
    from ..model import MrCAE

    about, stored = json.loads(tree.attrs["about"]), json.loads(tree.attrs["xmrcae_options"])
    on_grid = about["grid"]
    coords = coordinates_from_plain(tree["grid"].to_dataset(), about["grid_coordinates"])
    grid = Grid(
        on_grid["y"], on_grid["x"], tuple(on_grid["sizes"]), coords, tuple(on_grid["descending"]), on_grid["periodic"]
    )
    pyramid = Pyramid.of(grid, levels=about["levels"], restriction=about["restriction"])
    for name, (padded, before) in zip("yx", about.get("axes", ()), strict=False):
        axis = dataclasses.replace(getattr(pyramid, name), padded=padded, before=before)
        pyramid = dataclasses.replace(pyramid, **{name: axis})
    arrays = {name: v.values for name, v in tree["standard"].to_dataset().variables.items()}
    standard = Standard(
        arrays["centre"], arrays["scale"], arrays["mean"], arrays["valid"].astype(bool), about["monthly"], about["fill"]
    )
    levels = [tree.children[f"level_{k}"] for k in range(about["levels"])]
    deepenings = [level.children["deepening"].to_dataset() for level in levels]
    groups = [
        [level.children[f"group_{j}"].to_dataset() for j in range(1, n + 1)]
        for level, n in zip(levels, about["groups"], strict=True)
    ]
    counts = np.zeros(deepenings[-1]["has_data"].shape, dtype=bool)
    counts[pyramid.cut(pyramid.levels - 1)] = standard.valid
    projects = PROJECTION in deepenings[0]
    network = Network(
        [torch.as_tensor(stored["has_data"].values.astype(bool)) for stored in deepenings], torch.as_tensor(counts),
        widening=about["widening"], restriction=about["restriction"], activation=about["activation"],
        projection=[torch.as_tensor(stored[PROJECTION].values) for stored in deepenings] if projects else None,
        anchor=about.get("anchor", 0.0),
    )  # fmt: skip
    network.grow(
        [(stored["mask"].values.astype(bool), len(stored["decoder_weight"])) for stored in each] for each in groups
    )
    for grown, deepening, each in zip(network.levels, deepenings, groups, strict=True):
        for module, weights in zip([grown.deepening, *grown.groups], [deepening, *each], strict=True):
            _set_weights(module, weights)
    stored_split = tree["split"].to_dataset()
    split = xr.DataArray(
        np.array(LABELS)[stored_split[PART].values], dims=about["sample"], name="split",
        coords=coordinates_from_plain(stored_split, about["split_coordinates"]).coords,
    )  # fmt: skip
    model = MrCAE(**_options(stored))
    model.partial = bool(tree.attrs["partial"])
    model._fitted = Fitted(
        inference=Inference(network, pyramid, standard, tree.attrs["xmrcae_model"]), standard=standard,
        history=tree["history"].to_dataset()[about["history"]], split=split, variables=about["variables"],
        attrs=[attributes_from_json(attrs) for attrs in about["attrs"]], is_dataset=about["is_dataset"],
        dims=tuple(about["dims"]), sample=tuple(about["sample"]), dtype=np.dtype(about["dtype"]),
        id=tree.attrs["xmrcae_model"], options_json=tree.attrs["xmrcae_options"],
    )  # fmt: skip
    return model


def _set_weights(module: Any, stored: xr.Dataset) -> None:
    import torch

    module.load_state_dict({name: torch.as_tensor(stored[name].values) for name in module.state_dict()})


def _options(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they were; those that were arrays, which a fitted model no longer reads, at their defaults."""
    known = {field.name for field in dataclasses.fields(Options)}
    options = {name: value for name, value in stored.items() if name in known and '"<' not in json.dumps(value)}
    pairs = {name: tuple(options[name]) for name in ("split", "horizontal") if isinstance(options.get(name), list)}
    if "split" in pairs:
        pairs["split"] = tuple(slice(*p["slice"]) if isinstance(p, dict) else p for p in pairs["split"])
    return options | pairs
