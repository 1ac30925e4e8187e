"""What writing a model never loses, and what reading one refuses."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from helpers import QUICK, make_field, with_split
from test_mutated_files import assert_refused, put, rewritten

import xmrcae
from xmrcae.io import model_file, tree_file


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_an_existing_file_stays_unless_told(model: xmrcae.MrCAE, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("mine")
    with pytest.raises(ValueError, match="overwrite=True"):
        model.save(path)
    assert path.read_text() == "mine"
    path.unlink()
    model.save(path)
    model.save(path, overwrite=True)
    assert xmrcae.open_model(path).n_parameters == model.n_parameters
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_a_failed_write_leaves_what_was_there(
    model: xmrcae.MrCAE, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path / name)
    write = tree_file._write

    def fail(tree: xr.DataTree, path: str, *, zarr: bool) -> None:
        write(tree, path, zarr=zarr)
        raise OSError("disk full")

    monkeypatch.setattr(tree_file, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path / name, overwrite=True)
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path / "other.nc")
    assert os.listdir(tmp_path) == [name]
    assert xmrcae.open_model(tmp_path / name).n_parameters == model.n_parameters


@pytest.mark.parametrize("place", ["local", "memory"])
def test_a_failed_replacement_puts_the_old_file_back(
    model: xmrcae.MrCAE, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path) if place == "local" else f"memory://{os.urandom(4).hex()}"
    filesystem, root = fsspec.core.url_to_fs(folder)
    model.save(f"{folder}/model.zarr")
    owner, name = (os, "rename") if place == "local" else (type(filesystem), "copy")
    move = getattr(owner, name)

    def fail(*args: Any, **kwargs: Any) -> Any:
        if any(".part" in str(arg) for arg in args):
            raise OSError("connection lost")
        return move(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fail)
        patch.setattr(tree_file, "_exchange", lambda *_: False)  # as where the system has none
        with pytest.raises(OSError, match="connection lost"):
            with_split(model, run="new").save(f"{folder}/model.zarr", overwrite=True)
    assert [os.path.basename(found) for found in filesystem.ls(root, detail=False)] == [
        "model.zarr"
    ]
    xr.testing.assert_identical(xmrcae.open_model(f"{folder}/model.zarr").split, model.split)
    with_split(model, run="new").save(f"{folder}/model.zarr", overwrite=True)
    assert xmrcae.open_model(f"{folder}/model.zarr").split.run == "new"


@pytest.mark.parametrize("name", ["results", "results.zarr"])
def test_overwriting_never_deletes_a_folder_of_other_files(
    model: xmrcae.MrCAE, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match="no Zarr store"):
        model.save(tmp_path / name, overwrite=True)
    assert (tmp_path / name / "thesis.tex").read_text() == "mine"


def test_a_folder_replaces_a_file_and_the_reverse(model: xmrcae.MrCAE, tmp_path: Path) -> None:
    (tmp_path / "model.zarr").write_text("mine")
    model.save(tmp_path / "model.zarr", overwrite=True)
    (tmp_path / "model.zarr").rename(tmp_path / "model.nc")
    model.save(tmp_path / "model.nc", overwrite=True)
    assert (tmp_path / "model.nc").is_file() and os.listdir(tmp_path) == ["model.nc"]
    xr.testing.assert_identical(xmrcae.open_model(tmp_path / "model.nc").split, model.split)


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_a_link_stays_a_link(model: xmrcae.MrCAE, tmp_path: Path, name: str) -> None:
    model.save(tmp_path / name)
    link = tmp_path / f"latest.{name}"
    link.symlink_to(tmp_path / name)
    with_split(model, run="new").save(link, overwrite=True)
    assert link.is_symlink() and xmrcae.open_model(tmp_path / name).split.run == "new"
    assert sorted(os.listdir(tmp_path)) == sorted([name, link.name])


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_a_missing_folder_is_named_and_not_made(
    model: xmrcae.MrCAE, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ValueError, match=r"no folder .*nowhere"):
        model.save(tmp_path / "nowhere" / name)
    assert not os.listdir(tmp_path)


def test_files_that_are_no_models(model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        xmrcae.open_model(tmp_path / "nowhere.nc")
    (tmp_path / "text.nc").write_text("not a model")
    with pytest.raises(ValueError, match="no model"):
        xmrcae.open_model(tmp_path / "text.nc")
    field.to_netcdf(tmp_path / "field.nc")
    with pytest.raises(ValueError, match="no model"):
        xmrcae.open_model(tmp_path / "field.nc")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ValueError, match="no model"):
        xmrcae.open_model(tmp_path / "empty.zarr")


def test_a_damaged_file_is_named(model: xmrcae.MrCAE, tmp_path: Path) -> None:
    model.save(tmp_path / "model.nc")
    content = (tmp_path / "model.nc").read_bytes()
    for length in (0, 1000, len(content) // 2):
        (tmp_path / "cut.nc").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.nc is no model"):
            xmrcae.open_model(tmp_path / "cut.nc")
    model.save(tmp_path / "model.zarr")
    shutil.rmtree(tmp_path / "model.zarr" / "network" / "bits")
    with pytest.raises(ValueError, match=r"model\.zarr is a damaged model.*network/bits"):
        xmrcae.open_model(tmp_path / "model.zarr")
    xr.DataTree(xr.Dataset(attrs={"format": model_file.FORMAT})).to_netcdf(tmp_path / "empty.nc")
    with pytest.raises(ValueError, match=r"empty\.nc is a damaged model"):
        xmrcae.open_model(tmp_path / "empty.nc")


CHANGES: dict[str, Callable[[Any], Any]] = {
    "network/weights": lambda values: values + np.float32(1e-30),
    "network/bits": lambda values: values ^ 1,
    "standard/centre": lambda values: np.where(values == values.max(), 0, values),
    "history/history": lambda values: -values,
    "split/time": lambda values: values + 1,
    "split/zone": lambda values: values[::-1],
    "grid/lat": lambda values: values * 2,
    "about": lambda text: text.replace("false", "true", 1),
    "xmrcae_options": lambda text: text.replace("0.5", "0.6", 1),
}


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
@pytest.mark.parametrize(("part", "change"), CHANGES.items(), ids=CHANGES.keys())
def test_what_changed_in_a_file_is_named(
    model: xmrcae.MrCAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    name: str, part: str, change: Callable[[Any], Any],
) -> None:  # fmt: skip
    write = model_file.write_tree

    def write_changed(tree: xr.DataTree, *args: Any, **kwargs: Any) -> None:
        if part in tree.attrs:
            tree.attrs[part] = change(tree.attrs[part])
        else:
            variable = tree[part].variable
            values = variable.dims, change(variable.values), variable.attrs
            node, array = part.split("/")
            tree[node].dataset = tree[node].to_dataset().assign({array: values})
        write(tree, *args, **kwargs)

    monkeypatch.setattr(model_file, "write_tree", write_changed)
    zones = with_split(model, zone=("time", [f"zone {i}" for i in range(model.split.size)]))
    zones.save(tmp_path / name)
    with pytest.raises(ValueError, match=rf"damaged model.*{part} differs"):
        xmrcae.open_model(tmp_path / name)


class Code:
    """What runs when it is unpickled."""

    ran = False

    @staticmethod
    def run() -> str:
        Code.ran = True
        return "ran"

    def __reduce__(self) -> tuple[Callable[[], str], tuple[()]]:
        return Code.run, ()


def test_no_code_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pickles = pytest.importorskip("numcodecs.pickles")
    monkeypatch.setattr(
        pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False
    )  # as numcodecs long did
    store = tmp_path / "model.zarr"
    (store / "x").mkdir(parents=True)
    (store / ".zgroup").write_text('{"zarr_format": 2}')
    array = {"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "|O", "compressor": None, "fill_value": None,
             "order": "C", "filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 4}]}  # fmt: skip
    (store / "x" / ".zarray").write_text(json.dumps(array).replace("pickle", "\\u0070ickle"))
    (store / "x" / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["x"]}')
    (store / "x" / "0").write_bytes(pickle.dumps(Code(), protocol=4))
    with pytest.raises(ValueError, match="execute code"):
        xmrcae.open_model(store)
    assert not Code.ran


def test_a_newer_format_is_refused(
    model: xmrcae.MrCAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model_file, "FORMAT_VERSION", 99)
        model.save(tmp_path / "model.nc")
    with pytest.raises(ValueError, match="newer"):
        xmrcae.open_model(tmp_path / "model.nc")


def test_an_unfitted_model_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        xmrcae.MrCAE().save(tmp_path / "model.nc")
    assert not os.listdir(tmp_path)


def test_every_month_of_the_fit_has_a_map_of_its_mean(tmp_path: Path) -> None:
    model = make_field(24, (9, 14)).mrcae.fit(levels=1, center="month", **QUICK)
    rewritten(model, tmp_path / "a.nc", put("standard", "centre", lambda maps: maps), forged=True)
    assert xmrcae.open_model(tmp_path / "a.nc").levels == 1
    fewer = put("standard", "centre", lambda maps: maps[:-1])
    rewritten(model, tmp_path / "b.nc", fewer, forged=True)
    assert_refused(tmp_path / "b.nc", "a month has no map")
