"""Files that were damaged, or made to do harm: the same results, or an error of ours."""

import json
import operator
import os
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import netCDF4
import numpy as np
import pytest
import xarray as xr
from helpers import QUICK, make_field
from mutations import KINDS
from openings import Worker, write_sound_files

import xmrcae
from xmrcae.archive.format import dumps
from xmrcae.io import model_file, tree_file

pytest.importorskip("pcodec")

#: Files of each kind: by pytest, and by `make soak`, 20,000 together.
FEW, MANY = 20, 1540


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The files that are changed."""
    folder = tmp_path_factory.mktemp("sound")
    write_sound_files(folder)
    os.environ["XMRCAE_TEST_SOUND_FILES"] = str(folder)
    yield folder
    del os.environ["XMRCAE_TEST_SOUND_FILES"]


@pytest.fixture(scope="module")
def worker(sound: Path) -> Iterator[Worker]:
    """What opens them."""
    worker = Worker()
    yield worker
    worker.close()


def assert_none_does_harm(worker: Worker, kind: str, numbers: range) -> None:
    """Open files; only HDF5 may crash, and each other is refused or opens to what it should."""
    found = {number: worker.outcome(kind, number) for number in numbers}
    counts = Counter(each.kind for each in found.values())
    print(f"{kind}: {dict(counts)}")
    assert counts["refused"], "these files test nothing"
    bad = {number: each for number, each in found.items() if each.kind == "defect"}
    assert not bad
    assert not counts["crash"] or kind.startswith("netCDF")


@pytest.mark.parametrize("kind", KINDS)
def test_changed_files_open_to_the_same_or_are_refused(worker: Worker, kind: str) -> None:
    assert_none_does_harm(worker, kind, range(FEW))


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_20000_changed_files_open_to_the_same_or_are_refused(worker: Worker, kind: str) -> None:
    assert_none_does_harm(worker, kind, range(FEW, FEW + MANY))


# Each that follows is something that was found.


def rewritten(
    model: xmrcae.MrCAE, path: Path, change: Callable[[dict[str, xr.Dataset], Any], None],
    *, forged: bool = False,
) -> None:  # fmt: skip
    """Save a model, then write it again with something changed; forged, with new checksums."""
    model.save(path)
    tree = tree_file.read_tree(path)
    datasets = {name: node.to_dataset() for name, node in tree.children.items()}
    attrs = dict(tree.attrs)
    change(datasets, attrs)
    if forged:
        attrs["crc32"] = json.dumps(model_file._checksums(datasets, attrs))
    changed = xr.DataTree.from_dict({"/": xr.Dataset(attrs=attrs)} | datasets)
    tree_file.write_tree(changed, path, overwrite=True)


def assert_refused(path: Path | str, match: str) -> None:
    with pytest.raises(ValueError, match=match) as error:
        xmrcae.open_model(path)
    assert type(error.value).__name__ == "ModelFileError"


def put(node: str, name: str, values: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Return a change of the values of an array."""

    def change(datasets: dict[str, xr.Dataset], attrs: Any) -> None:
        one = datasets[node][name]
        new = values(one.values.copy())
        dims = [f"{name}_{i}" for i in range(new.ndim)]
        datasets[node] = datasets[node].drop_vars(name).assign({name: (dims, new)})

    return change


def about(*keys: str, value: Any) -> Any:
    """Return a change of what JSON says of a model."""

    def change(datasets: Any, attrs: Any) -> None:
        content = holder = json.loads(attrs["about"])
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]] = value
        attrs["about"] = json.dumps(content)

    return change


def set_first(value: Any) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values.flat[0] = value
        return values

    return change


def without_counts(bits: np.ndarray) -> np.ndarray:
    """Leave the last masks alone of where there are data and groups act."""
    bits[:-40] = 0
    return bits


def add_mean(datasets: dict[str, xr.Dataset], attrs: Any) -> None:
    centre = datasets["standard"]["centre"]
    datasets["standard"] = datasets["standard"].assign(mean=centre[0] + 1)


def other_id(datasets: Any, attrs: Any) -> None:
    attrs["xmrcae_model"] = "another"


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
@pytest.mark.parametrize(("change", "match"), [
    (put("network", "weights", lambda values: values.view("int32")), "weights differs"),
    (put("standard", "centre", lambda values: values.swapaxes(-1, -2)), "centre differs"),
    (put("history", "history", np.ravel), "history differs"),
    (add_mean, "mean was added"),
    (other_id, "xmrcae_model differs"),
], ids=["type", "order", "shape", "added", "id"])  # fmt: skip
def test_checksums_hold_type_shape_and_what_is_there(
    model: xmrcae.MrCAE, tmp_path: Path, name: str, change: Any, match: str
) -> None:
    rewritten(model, tmp_path / name, change)
    assert_refused(tmp_path / name, match)


def options(**changes: Any) -> Any:
    def change(datasets: Any, attrs: Any) -> None:
        attrs["xmrcae_options"] = json.dumps(json.loads(attrs["xmrcae_options"]) | changes)

    return change


def attribute(**changes: Any) -> Any:
    return lambda datasets, attrs: attrs.update(changes)


@pytest.mark.parametrize(("change", "match"), [
    (put("network", "weights", set_first(np.nan)), "NaN or infinite weights"),
    (put("network", "weights", set_first(np.inf)), "NaN or infinite weights"),
    (put("standard", "centre", set_first(np.nan)), "NaN or infinite values"),
    (put("network", "bits", without_counts), "acts nowhere"),
    (put("split", "split.part", set_first(-1)), "parts of the snapshots"),
    (put("grid", "lat", lambda values: values[:-1]), "coordinates along 'lat'"),
    (put("history", "history", lambda values: values.astype("int32")), "history"),
    (about("levels", value=10**12), "levels=10"),
    (about("network", "levels", value=10**12), "levels=10"),
    (about("network", "dtype", value="load"), "weights of type 'load'"),
    (about("network", "channels", value=[[-1], [1]]), "size=-1"),
    (about("axes", value=[[10**12, 0], [31, 0]]), "size=10"),
    (about("scale", value=[0.0]), "scales"),
    (about("monthly", value=True), "monthly differs"),
    (about("variables", value=[{"x": 1}]), "unhashable"),
    (about("sample", value=["lat"]), "dimensions"),
    (about("attrs", value=[[["a", {"dtype": "<U300000000", "value": "x"}]]]), "bytes"),
    (about("split_coordinates", "coordinates", 0, "dtype", value="<U300000000"), "bytes"),
    (about("grid_coordinates", "coordinates", 1, "dims", value=[0]), "coordinates of the grid"),
    (put("standard", "centre", set_first(1e38)), "values over 1.1e\\+37"),
    (about("scale", value=[1e-300]), "scales of"),
    (about("scale", value=[1e300]), "scales of"),
    (about("grid", "descending", value=[False] * 3), "two dimensions"),
    (about("grid_coordinates", "coordinates", 0, "name", value=None), "which is no text"),
    (options(omega=2), "omega=2"),
    (options(land_value="<script>"), "land_value='<script>'"),
    (options(solver="sgd"), "solver='sgd' is not an option"),
    (attribute(partial=7), "partial is 7"),
], ids=lambda value: value if isinstance(value, str) else "content")  # fmt: skip
def test_content_that_cannot_be_a_model_is_refused_whatever_its_checksums(
    model: xmrcae.MrCAE, tmp_path: Path, change: Any, match: str
) -> None:
    rewritten(model, tmp_path / "model.nc", change, forged=True)
    assert_refused(tmp_path / "model.nc", match)


@pytest.mark.parametrize("attrs", [
    {"format": [1, 2]}, {"format_version": [1, 2]}, {"format_version": "new"},
    {"format_version": -3}, {"about": "[" * 100_000}, {"crc32": "[]"}, {"xmrcae_options": 5},
], ids=lambda attrs: str(attrs)[:30])  # fmt: skip
def test_attributes_of_any_kind_are_refused(
    model: xmrcae.MrCAE, tmp_path: Path, attrs: dict[str, Any]
) -> None:
    rewritten(model, tmp_path / "model.nc", attribute(**attrs))
    assert_refused(tmp_path / "model.nc", "model")


def test_a_file_without_checksums_opens_with_a_warning() -> None:
    path = Path(__file__).parent / "files" / "version_2_filters.nc"
    with pytest.warns(UserWarning, match="version 2, which has no checksums"):
        xmrcae.open_model(path)


def test_no_memory_is_taken_for_arrays_that_a_netcdf_file_cannot_hold(
    model: xmrcae.MrCAE, tmp_path: Path
) -> None:
    model.save(tmp_path / "model.nc")
    with netCDF4.Dataset(tmp_path / "model.nc", "a") as root:
        root["grid"].createDimension("huge", 2**33)
        root["grid"].createVariable("huge", "f8", ("huge",), chunksizes=(2**20,))
    assert_refused(tmp_path / "model.nc", "cannot hold the")


def test_numbers_that_hdf5_takes_from_another_file_are_refused(
    model: xmrcae.MrCAE, tmp_path: Path
) -> None:
    h5py = pytest.importorskip("h5py")
    model.save(tmp_path / "model.nc")
    (tmp_path / "other").write_bytes(bytes(10_000))
    with h5py.File(tmp_path / "model.nc", "a") as file:
        shape = file["network/weights"].shape
        del file["network/weights"]
        other = [(str(tmp_path / "other"), 0, 4 * shape[0])]
        file["network"].create_dataset("weights", shape=shape, dtype="f4", external=other)
    assert_refused(tmp_path / "model.nc", "weights differs")


def described(folder: Path, **changes: Any) -> None:
    """Change the description of the array `network/weights`."""
    path = folder / "network" / "weights" / "zarr.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(("changes", "match"), [
    ({"shape": [2**40]}, "cannot hold the"),
    ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1]}}}, "lacks files"),
    ({"codecs": [{"name": "numcodecs.pickle"}]}, "execute code"),
    ({"codecs": [{"name": "of_another_package"}]}, "execute code"),
    ({"data_type": {"name": "fixed_length_utf32", "configuration": {"length_bytes": 2**31}}},
     "model"),
], ids=["size", "chunks", "pickle", "codec", "type"])  # fmt: skip
def test_what_is_said_of_a_zarr_array_is_checked_before_it_is_read(
    model: xmrcae.MrCAE, tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    model.save(tmp_path / "model.zarr")
    described(tmp_path / "model.zarr", **changes)
    assert_refused(tmp_path / "model.zarr", match)


def replace_file(path: Path, kind: str, other: Path) -> None:
    """Put a link to a file elsewhere, or to a folder above, or a pipe in the place of a file."""
    path.rename(other)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(other)
        if kind == "loop":
            (path.parent / "loop").symlink_to(path.parent)


@pytest.mark.parametrize("kind", ["link", "pipe", "loop"])
def test_nothing_but_files_of_its_own_is_read_in_a_zarr_folder(
    model: xmrcae.MrCAE, tmp_path: Path, kind: str
) -> None:
    model.save(tmp_path / "model.zarr")
    replace_file(tmp_path / "model.zarr/network/weights/c/0", kind, tmp_path / "outside")
    assert_refused(tmp_path / "model.zarr", "is a link or no file")


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize("key", ["zarr.json", "model/c/0", "level_1/codes/c/1/0"])
def test_nothing_but_files_of_its_own_is_read_in_an_archive(
    sound: Path, tmp_path: Path, kind: str, key: str
) -> None:
    shutil.copytree(sound / "filters.mrcae.zarr", tmp_path / "a")
    replace_file(tmp_path / "a" / key, kind, tmp_path / "outside")
    with pytest.raises(xmrcae.ArchiveError, match="is a link or no file"):
        xmrcae.open_archive(tmp_path / "a").to_dataset().load()


def test_names_on_a_server_lead_to_no_file_outside(
    model: xmrcae.MrCAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    memory = fsspec.filesystem("memory")
    model.save("memory://hostile/model.zarr")
    key = next(key for key in memory.store if "hostile" in key)
    memory.store["/hostile/model.zarr/../../../evil"] = memory.store[key]
    try:
        assert_refused("memory://hostile/model.zarr", "leads out of the folder")
    finally:
        memory.store.clear()
    assert sorted(os.listdir(tmp_path)) == ["temporary"] and not os.listdir(place)


def forge(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what an archive says of itself, with a checksum that fits."""
    root = json.loads((folder / "zarr.json").read_text())
    said = root["attributes"]["xmrcae_archive"]
    del said["checksum"]
    change(root)
    said["checksum"] = zlib.crc32(dumps(root))
    (folder / "zarr.json").write_text(json.dumps(root))


def test_names_in_an_archive_lead_to_no_file_outside(sound: Path, tmp_path: Path) -> None:
    shutil.copytree(sound / "filters.mrcae.zarr", tmp_path / "a")
    (tmp_path / "a/labels/lat").rename(tmp_path / "lat")

    def change(root: dict[str, Any]) -> None:
        said = root["attributes"]["xmrcae_archive"]
        members = root["consolidated_metadata"]["metadata"]
        members["labels/../../lat"] = members.pop("labels/lat")
        said["checksums"]["labels/../../lat"] = said["checksums"].pop("labels/lat")
        record = next(each for each in said["labels"]["variables"] if each["name"] == "lat")
        record["stored"] = "../../lat"

    forge(tmp_path / "a", change)
    with pytest.raises(xmrcae.ArchiveError):
        xmrcae.open_archive(tmp_path / "a").to_dataset().load()


@pytest.mark.parametrize("change", [
    lambda said: said["labels"]["variables"][3].update(dims="lat"),  # of the archived variable
    lambda said: said.update(sample=["day"]),
    *(operator.methodcaller("pop", name)
      for name in ("labels", "variables", "levels", "code_steps", "sample")),
])  # fmt: skip
def test_an_archive_that_contradicts_itself_is_refused_whatever_its_checksum(
    sound: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    shutil.copytree(sound / "filters.mrcae.zarr", tmp_path / "a")
    forge(tmp_path / "a", lambda root: change(root["attributes"]["xmrcae_archive"]))
    with pytest.raises(xmrcae.ArchiveError, match="damaged"):
        xmrcae.open_archive(tmp_path / "a").to_dataset().load()


@pytest.mark.parametrize("value", [[10**5, 10**5], [9, 10**9], ["9", 14], [-9, 14]], ids=str)
@pytest.mark.parametrize("key", ["shape", "cut"])
def test_sizes_of_an_archive_are_those_of_its_model(
    sound: Path, tmp_path: Path, key: str, value: list[Any]
) -> None:
    shutil.copytree(sound / "filters.mrcae.zarr", tmp_path / "a")

    def change(root: dict[str, Any]) -> None:
        level = root["attributes"]["xmrcae_archive"]["levels"][-1]
        level[key] = value if key == "shape" else [[0, value[0]], [0, value[1]]]

    forge(tmp_path / "a", change)
    with pytest.raises(xmrcae.ArchiveError, match="damaged"):
        xmrcae.open_archive(tmp_path / "a").to_dataset().load()


@pytest.mark.parametrize("size", [2**31, 2**60])
def test_no_memory_is_taken_for_rows_that_an_archive_cannot_hold(
    sound: Path, tmp_path: Path, size: int
) -> None:
    shutil.copytree(sound / "filters.mrcae.zarr", tmp_path / "a")

    def change(root: dict[str, Any]) -> None:
        codes = root["consolidated_metadata"]["metadata"]["level_0/codes"]
        codes["shape"][-1], codes["chunk_grid"]["configuration"]["chunk_shape"][-1] = size, 1

    forge(tmp_path / "a", change)
    with pytest.raises(xmrcae.ArchiveError, match="does not allow"):
        xmrcae.open_archive(tmp_path / "a").to_dataset().load()


def test_names_and_attributes_are_escaped_in_html(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    field = make_field(20, (9, 14), name=bad).assign_attrs(long_name=bad, units=bad)
    model = field.mrcae.fit(levels=2, **QUICK)
    model.save(tmp_path / "model.nc")
    archive = model.to_archive(field, tmp_path / "a.mrcae.zarr", max_error=1.0, progress=False)
    for shown in (xmrcae.open_model(tmp_path / "model.nc"), archive, field.mrcae):
        assert "&lt;script" in shown._repr_html_() and "<script" not in shown._repr_html_()
