"""Damaged and hostile files: models, archives and checkpoints that are changed at random.

Each function changes a file or folder in place. What `forged` files hold has the checksums of what
is then there, as one who means harm would write them.
"""

import copy
import io
import json
import math
import os
import random
import shutil
import warnings
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

#: What stands in for a value somewhere in JSON.
HOSTILE: list[Any] = [
    None, True, -1, 0, 1, 7, 0.5, 2**31, 2**63, 10**12, 10**30, 1e308, math.nan, math.inf, "", "0",
    "../../x", "/etc/passwd", "a/b", "<script>alert(1)</script>", "\x00", "O", "|O", "<U99999999",
    "|S2000000000", "<f8", "<M8[ns]", [], {}, [[]], [1, 2, 3], {"value": 1, "dtype": "V9"},
    {"mapping": 1}, {"slice": [0, 1]}, "x" * 100_000,
]  # fmt: skip

#: The types that an array may be turned into.
TYPES = ("i1", "u1", "i2", "i4", "u4", "i8", "f4", "f8", ">f4", ">i8")


def damage(rng: random.Random, path: Path) -> None:
    """Change bytes of a file."""
    data = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "flip", "noise", "zero", "swap", "cut", "append"])
    at, size = rng.randrange(len(data) + 1), rng.choice([1, 8, 64, 512, 4096])
    if kind == "flip":
        for _ in range(rng.choice([1, 1, 4])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "noise":
        data[at : at + size] = rng.randbytes(len(data[at : at + size]))
    elif kind == "zero":
        data[at : at + size] = bytes(len(data[at : at + size]))
    elif kind == "swap":
        other = rng.randrange(len(data) + 1)
        first, second = data[at : at + size], data[other : other + size]
        data[at : at + len(second)], data[other : other + len(first)] = second, first
    elif kind == "cut":
        del data[at:]
    else:
        data += rng.randbytes(size)
    path.write_bytes(data)


def damage_folder(rng: random.Random, folder: Path) -> None:
    """Change bytes of a file in a folder."""
    damage(rng, rng.choice([path for path in files(folder) if path.stat().st_size]))


def rearrange(rng: random.Random, folder: Path) -> None:
    """Remove, exchange or replace whole files of a folder."""
    found = files(folder)
    one, other = rng.sample(found, 2)
    kind = rng.choice(["remove", "swap", "link", "loop", "pipe", "empty", "extra", "tree"])
    if kind == "swap":
        first, second = one.read_bytes(), other.read_bytes()
        one.write_bytes(second)
        other.write_bytes(first)
    elif kind == "extra":
        content = one.read_bytes()  # the place may be its own
        (other.parent / rng.choice(["x", "zarr.json", ".zarray", "0", "..x"])).write_bytes(content)
    elif kind == "tree":
        shutil.rmtree(one.parent if one.parent != folder else other.parent, ignore_errors=True)
    elif kind == "loop":
        for name in ("a", "b"):
            (one.parent / name).symlink_to(folder, target_is_directory=True)
    else:
        one.unlink()
        if kind == "link":
            one.symlink_to(rng.choice([other, Path("/dev/zero"), Path("/etc/passwd"), one]))
        elif kind == "pipe":
            os.mkfifo(one)
        elif kind == "empty":
            one.touch()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def change_json(rng: random.Random, content: Any) -> Any:
    """Return JSON with one value replaced, taken out, doubled, nested deeply, or two exchanged."""
    content = copy.deepcopy(content)
    places = list(_places(content))
    if not places:
        return rng.choice(HOSTILE)
    holder, key = rng.choice(places)
    kind = rng.choice(["replace"] * 4 + ["remove", "double", "exchange", "deep", "near"])
    value = holder[key]
    if kind == "remove":
        del holder[key]
    elif kind == "double" and isinstance(value, list | str):
        holder[key] = value * 2
    elif kind == "exchange":
        other, at = rng.choice(places)
        holder[key], other[at] = copy.deepcopy(other[at]), copy.deepcopy(value)
    elif kind == "deep":
        holder[key] = json.loads("[" * 900 + "]" * 900)
    elif kind == "near" and type(value) in (int, float):
        holder[key] = rng.choice([value + 1, value - 1, -value, value * 2, value / 3])
    else:
        holder[key] = rng.choice(HOSTILE)
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Give every place in JSON, as what holds it and its key."""
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])


def change_array(rng: random.Random, values: np.ndarray) -> np.ndarray:
    """Return an array with other values, of another type, or of another shape."""
    values, kind = values.copy(), rng.choice(["value"] * 3 + ["view", "type", "shape", "all"])
    if values.dtype.kind == "O":
        return np.array([rng.choice(["", "x", "<b>"]) for _ in values.ravel()], dtype=object)
    if kind in ("value", "all") and values.size:
        where = ... if kind == "all" else np.unravel_index(rng.randrange(values.size), values.shape)
        hostile = [math.nan, math.inf, -math.inf, 0.0, -1.0, 3.0, 1e6]
        new = rng.choice(hostile if values.dtype.kind == "f" else [0, 1, 2, 9, -1, 127])
        values[where] = np.asarray(new).astype(values.dtype)
    elif kind == "view" and values.ndim:
        same = [name for name in TYPES if np.dtype(name).itemsize == values.itemsize]
        values = values.view(rng.choice(same)) if same else values
    elif kind == "type":
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = values.astype(rng.choice(TYPES))
    elif kind == "shape" and values.ndim:
        values = rng.choice([
            lambda: values[:-1], lambda: values[::-1], lambda: np.concatenate([values, values]),
            lambda: values.T, lambda: values.ravel(), lambda: values[None], lambda: values[:0],
            lambda: np.roll(values, 1), lambda: values.reshape(-1, 1),
        ])()  # fmt: skip
    return values


def change_tree(rng: random.Random, path: Path, *, forged: bool) -> None:
    """Change what a model file holds; where it is forged, with checksums of what is then there."""
    from xmrcae.io import model_file, tree_file

    tree = tree_of(path.name).copy(deep=True)
    datasets = {name: node.to_dataset() for name, node in tree.children.items()}
    attrs = dict(tree.attrs)
    _change_model(rng, datasets, attrs)
    if forged:
        try:
            attrs["crc32"] = json.dumps(model_file._checksums(datasets, attrs))
        except Exception:  # what is changed has no checksum
            forged = False
    remove(path)
    changed = xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs)} | datasets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree_file._write(changed, str(path), zarr=path.suffix == ".zarr")


def _change_model(
    rng: random.Random, datasets: dict[str, xr.Dataset], attrs: dict[str, Any]
) -> None:
    """Change one thing of a model's Datasets and attributes."""
    node = rng.choice(sorted(datasets))
    name = rng.choice(sorted(map(str, datasets[node].variables)) or ["x"])
    kind = rng.choice(["array"] * 4 + ["about"] * 4 + ["options"] * 2 + [
        "attr", "node attr", "remove", "extra", "rename", "swap", "no node", "new node",
    ])  # fmt: skip
    if kind in ("about", "options"):
        key = "about" if kind == "about" else "xmrcae_options"
        attrs[key] = json.dumps(change_json(rng, json.loads(attrs[key])))
    elif kind == "attr":
        key = rng.choice(sorted(map(str, attrs)))
        attrs.pop(key)
        if new := rng.choice(["", 3, -1, 2.5, "[" * 100_000, "{}", "null", "<b>", [1, 2], "1e999"]):
            attrs[key] = new
    elif kind == "no node":
        del datasets[node]
    elif kind == "new node":
        datasets["extra"] = datasets[node]
    elif name in datasets[node].variables:
        datasets[node] = _change_dataset(rng, kind, datasets[node], name)


def _change_dataset(rng: random.Random, kind: str, dataset: xr.Dataset, name: str) -> xr.Dataset:
    """Change one variable of a Dataset, or its attributes."""
    if kind == "node attr":
        return dataset.assign_attrs(units="<b>", extra=rng.choice([1, 2.5, "x", [1, 2]]))
    variables = {str(key): each.to_base_variable() for key, each in dataset.variables.items()}
    one = variables.pop(name)
    if kind == "rename":
        variables[f"x{name}"] = one
    elif kind == "extra":
        variables[name] = one
        for new in ("mean", "projection", "extra"):
            variables.setdefault(new, one)
    elif kind == "swap":
        other = rng.choice(sorted([*variables, name]))
        variables[name], variables[other] = variables.get(other, one), one
    elif kind == "array":
        values = change_array(rng, np.asarray(one.values))
        variables[name] = xr.Variable([f"{name}_{i}" for i in range(values.ndim)], values)
    plain = {  # no dimension has the name of a variable, nor two sizes
        key: xr.Variable([f"{key}_{i}" for i in range(each.ndim)], each.values, each.attrs)
        for key, each in variables.items()
    }
    return xr.Dataset(plain, attrs=dataset.attrs)


@cache
def tree_of(name: str) -> xr.DataTree:
    """Return what a sound model file holds."""
    from xmrcae.io.tree_file import read_tree

    return read_tree(sound_files() / name)


def change_zarr(rng: random.Random, folder: Path) -> None:
    """Change JSON that describes an array or a group."""
    path = rng.choice([each for each in files(folder) if each.name == "zarr.json"])
    path.write_text(json.dumps(change_json(rng, json.loads(path.read_text()))))


def change_archive(rng: random.Random, folder: Path) -> None:
    """Change what an archive says or holds, with checksums of what is then there."""
    import zarr

    from xmrcae.archive.format import dumps

    root = json.loads((folder / "zarr.json").read_text())
    about = root["attributes"]["xmrcae_archive"]
    kind = rng.choice(["json"] * 5 + ["array"] * 3 + ["model"] * 3)
    if kind == "json":
        root = change_json(rng, root)
    elif kind == "model":
        _change_model_part(rng, folder, root)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = rng.choice(sorted(root["consolidated_metadata"]["metadata"]))
            array = zarr.open_group(folder, mode="r+")[path]
            if isinstance(array, zarr.Array) and array.size:
                values = np.asarray(array[...])
                new = change_array(rng, values)
                if new.shape == values.shape and new.dtype.kind != "c":
                    with np.errstate(all="ignore"):
                        array[...] = new.astype(values.dtype)
                    if path in about["checksums"]:
                        about["checksums"][path] = zlib.crc32(np.asarray(array[...]).tobytes())
    try:
        root["attributes"]["xmrcae_archive"].pop("checksum", None)
        root["attributes"]["xmrcae_archive"]["checksum"] = zlib.crc32(dumps(root))
    except Exception:  # it describes nothing any more
        pass
    (folder / "zarr.json").write_text(json.dumps(root))


def _change_model_part(rng: random.Random, folder: Path, root: dict[str, Any]) -> None:
    """Change the model in an archive."""
    import zarr

    from xmrcae.archive.packing import metadata, pack
    from xmrcae.archive.parts import packed, unpacked

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets, header = unpacked(np.asarray(zarr.open_group(folder, mode="r")["model"][...]))
    header = {name: header[name] for name in header if name not in ("datasets", "arrays")}
    if rng.random() < 0.5:
        header = change_json(rng, header)
    else:
        attrs = {name: json.dumps(header["attrs"][name]) for name in ("about",)}
        attrs["xmrcae_options"] = header["attrs"]["xmrcae_options"]
        _change_model(rng, datasets, attrs)
        about = attrs.get("about")
        header["attrs"]["about"] = json.loads(about) if isinstance(about, str) else about
        header["attrs"]["xmrcae_options"] = attrs.get("xmrcae_options", "")
    try:
        values = packed(datasets, header)
    except ValueError:  # no JSON has such a number
        return
    if rng.random() < 0.2:
        values = values.copy()
        values[rng.randrange(len(values))] ^= 1 << rng.randrange(8)
    document = metadata(values.shape, values.shape, np.uint8, ["byte"])
    root["consolidated_metadata"]["metadata"]["model"] = document
    (folder / "model" / "c" / "0").write_bytes(pack(values) or b"")
    root["attributes"]["xmrcae_archive"]["checksums"]["model"] = zlib.crc32(values.tobytes())


def change_checkpoint(rng: random.Random, folder: Path) -> None:
    """Change what a checkpoint holds."""
    import torch

    path = folder / "checkpoint.pt"
    content = torch.load(path, weights_only=True)
    if rng.random() < 0.5:
        content = change_json(rng, content)
    else:
        tensors = [(at, key) for at, key in _places(content) if torch.is_tensor(at[key])]
        holder, key = rng.choice(tensors)
        values = change_array(rng, holder[key].numpy())
        holder[key] = torch.as_tensor(values.astype(values.dtype.newbyteorder("=")))
    buffer = io.BytesIO()
    with suppress(RecursionError):  # lists too deep to be written
        torch.save(content, buffer)
        path.write_bytes(buffer.getvalue())


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _forged(rng: random.Random, path: Path) -> None:
    change_tree(rng, path, forged=True)


def _changed(rng: random.Random, path: Path) -> None:
    change_tree(rng, path, forged=False)


MODELS = ("filters", "projection")

#: For each kind of file: names of the sound ones, what changes them, and whether it is forged.
KINDS: dict[str, tuple[list[str], Any, bool]] = {
    "netCDF, bytes": ([f"{name}.nc" for name in MODELS], damage, False),
    "netCDF, content": ([f"{name}.nc" for name in MODELS], _changed, False),
    "netCDF, forged": ([f"{name}.nc" for name in MODELS], _forged, True),
    "netCDF, version 2": ([f"version_2_{name}.nc" for name in MODELS], damage, False),
    "Zarr, bytes": ([f"{name}.zarr" for name in MODELS], damage_folder, False),
    "Zarr, files": ([f"{name}.zarr" for name in MODELS], rearrange, False),
    "Zarr, metadata": ([f"{name}.zarr" for name in MODELS], change_zarr, False),
    "Zarr, forged": ([f"{name}.zarr" for name in MODELS], _forged, True),
    "archive, bytes": ([f"{name}.mrcae.zarr" for name in MODELS], damage_folder, False),
    "archive, files": ([f"{name}.mrcae.zarr" for name in MODELS], rearrange, False),
    "archive, forged": ([f"{name}.mrcae.zarr" for name in MODELS], change_archive, True),
    "checkpoint, bytes": (["begun", "finished"], damage_folder, False),
    "checkpoint, forged": (["begun", "finished"], change_checkpoint, True),
}


def mutate(kind: str, number: int, folder: Path) -> Path:
    """Copy one of the sound files and change it; the same kind and number give the same file."""
    names, change, _ = KINDS[kind]
    rng = random.Random(f"{kind} {number}")
    sound = sound_files() / rng.choice(names)
    path = folder / sound.name
    (shutil.copytree if sound.is_dir() else shutil.copy)(sound, path)
    change(rng, path)
    return path


def sound_files() -> Path:
    """Return the folder of the files that are to be changed."""
    return Path(os.environ["XMRCAE_TEST_SOUND_FILES"])
