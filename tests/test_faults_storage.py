"""Disks and stores that fail: what was complete stays, the error says what happened, the same call goes on."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from faults import (
    BOUND,
    CHANGES,
    OPTIONS,
    faulty,
    faulty_store,
    field,
    files,
    full_disk,
    memory,
    model,
    no_larger_than,
    refused,
    some,
)
from fsspec.implementations.memory import MemoryFileSystem
from helpers import with_split
from test_checkpoint import assert_same_fit

import xmrcae
from xmrcae.archive.format import ArchiveError
from xmrcae.cli import main
from xmrcae.storage import StorageError

__all__ = ["field", "memory", "model"]  # fixtures


def on_a_full_disk(
    call: Callable[[], Any], place: Path, check: Callable[[], Any], step: int, prepare: Any = None
) -> int:
    """Let a call fail at every so many changes of files, and check what is left; return how often."""
    for count, at in enumerate(range(0, 10**6, step)):
        if prepare is not None:
            prepare()
        with faulty(place.parent, at, full_disk()) as hit:
            failed = refused(call, place)
        assert failed == bool(hit)
        if not hit:
            return count
        assert not [name for name in files(place.parent) if name.endswith((".part", ".old"))]
        check()
    raise AssertionError("there was no end")


def run_of(path: Any) -> str:
    """Which of the models that tests save a file holds."""
    coords = xmrcae.open_model(path).split.coords
    return str(coords["run"].item()) if "run" in coords else "old"


# A disk that is full


@some(9)
@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_a_model_stays_as_it_was_when_the_disk_is_full(model, tmp_path, name, step):
    path, new = tmp_path / "models" / name, with_split(model, run="new")
    path.parent.mkdir()
    model.save(path)
    before = files(path)

    def check() -> None:
        assert files(path) == before and os.listdir(path.parent) == [name]

    count = on_a_full_disk(lambda: new.save(path, overwrite=True), path, check, step)
    assert count >= {"model.nc": 1, "model.zarr": 100 // step}[name]
    assert run_of(path) == "new" and os.listdir(path.parent) == [name]


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_a_model_half_of_which_could_be_written_is_removed(model, tmp_path, name):
    path, new = tmp_path / name, with_split(model, run="new")
    model.save(path)
    before, sizes = files(path), [len(each) for each in files(path).values()]
    for size in range(0, max(sizes), max(sizes) // 12):
        with no_larger_than(size):
            assert refused(lambda: new.save(path, overwrite=True), path, "")
        assert files(path) == before and os.listdir(tmp_path) == [name]
    new.save(path, overwrite=True)
    assert run_of(path) == "new"


@some(4)
def test_a_fit_goes_on_to_the_same_end_when_there_is_room_again(field, model, tmp_path, step):
    folder = tmp_path / "fit" / "state"
    folder.parent.mkdir()

    def fit() -> xmrcae.MrCAE:
        return field.mrcae.fit(**OPTIONS, checkpoint=folder)

    def check() -> None:
        assert not folder.exists() or set(os.listdir(folder)) <= {"checkpoint.pt"}
        assert_same_fit(fit(), model)
        shutil.rmtree(folder)

    assert on_a_full_disk(fit, folder, check, step) >= 10 // step
    size = (folder / "checkpoint.pt").stat().st_size
    shutil.rmtree(folder)
    with no_larger_than(size - 1):
        assert refused(fit, folder, "File too large")
    check()


@some(110)
def test_an_archive_is_finished_by_the_same_call_when_there_is_room_again(
    field, model, tmp_path, step
):
    url = tmp_path / "archive" / "a.mrcae.zarr"
    url.parent.mkdir()
    model.to_archive(field, url, **BOUND)
    whole = files(url)

    def write() -> None:
        model.to_archive(field, url, **BOUND)

    def check() -> None:
        if "/zarr.json" not in files(url):
            with pytest.raises(ArchiveError, match=str(url)):
                xmrcae.open_archive(url)
        write()
        assert files(url) == whole

    clear = partial(shutil.rmtree, url, ignore_errors=True)
    assert on_a_full_disk(write, url, check, step, clear) >= 130 // step


@some(9)
def test_an_archive_is_as_it_was_when_nothing_more_could_be_appended(field, model, tmp_path, step):
    url, start = tmp_path / "archive" / "a.mrcae.zarr", tmp_path / "start.mrcae.zarr"
    model.to_archive(field[:6], start, **BOUND)
    before = xmrcae.open_archive(start).to_dataset().load()

    def prepare() -> None:
        shutil.rmtree(url, ignore_errors=True)
        shutil.copytree(start, url)

    def append() -> None:
        model.to_archive(field[6:], url, mode="a", progress=False)

    prepare()
    append()
    longer = files(url)

    def check() -> None:
        xr.testing.assert_identical(xmrcae.open_archive(url).to_dataset().load(), before)
        append()
        assert files(url) == longer

    assert on_a_full_disk(append, url, check, step, prepare) >= 30 // step


def test_no_file_of_an_archive_counts_that_could_be_written_in_part(field, model, tmp_path):
    url, whole = tmp_path / "a.mrcae.zarr", tmp_path / "whole.mrcae.zarr"
    model.to_archive(field, whole, **BOUND)
    for size in [0, *sorted(map(len, files(whole).values()))[24:-1:16]]:
        with no_larger_than(size):
            assert refused(lambda: model.to_archive(field, url, **BOUND), url, "File too large")
        assert not url.exists() or not [name for name in files(url) if name.endswith(".part")]
        model.to_archive(field, url, **BOUND)
        assert files(url) == files(whole)
        shutil.rmtree(url)


@pytest.mark.soak
def test_what_is_written_to_disks_that_are_full_is_written_when_there_is_room(tmp_path):
    mounts = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*mounts, "true"]).returncode:
        pytest.skip("no disk can be mounted here")
    program = Path(__file__).with_name("small_disks.py")
    done = subprocess.run(
        [*mounts, sys.executable, program, tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    counts = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert len(counts) == 7 and min(counts) > 1


# The command line


def told(capsys: Any, arguments: list[Any], place: Any, said: str) -> bool:
    """Tell whether a command failed: then one line names the place, and says what happened."""
    capsys.readouterr()
    status = main([*map(str, arguments), "--quiet"])
    lines = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    if status == 0:
        return False
    assert status == 1 and len(lines) == 1 and str(place) in lines[0] and said in lines[0]
    return True


@pytest.fixture(scope="module")
def inputs(field: xr.DataArray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    field[:6].to_netcdf(folder / "first.nc")
    field[6:].to_netcdf(folder / "later.nc")
    field[:6].mrcae.to_archive(folder / "a.mrcae.zarr", **OPTIONS | BOUND)
    return folder


SHORT = ["--options", "levels=2 channels=[[1]] max_epochs=2 tolerance=0.5"]

#: Arguments of each command but its last, which is what it writes; a step; what is there before.
COMMANDS: dict[str, tuple[list[Any], int, Any]] = {
    "m.nc": (["fit", "first.nc"], 1, None),
    "m.zarr": (["fit", "first.nc"], 100, None),
    "new.mrcae.zarr": (["archive", "first.nc"], 100, None),
    "same.mrcae.zarr": (["append", "later.nc"], 20, "a.mrcae.zarr"),
    "data.zarr": (["decode", "a.mrcae.zarr"], 25, None),
    "data.nc": (["decode", "a.mrcae.zarr"], 1, None),
    "map.png": (["plot", "a.mrcae.zarr"], 1, None),
}


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_that_the_disk_is_full_and_is_done_again(
    inputs, tmp_path, capsys, name, long
):
    (command, given), step, before = COMMANDS[name]
    place = tmp_path / name
    arguments: list[Any] = [command, inputs / given, place]
    if command in ("fit", "archive"):
        arguments += [*SHORT, *(["--max-error", 0.5] if command == "archive" else [])]
    for at in range(0, 10**6, 1 if long else step):
        shutil.rmtree(place, ignore_errors=True)
        place.unlink(missing_ok=True)
        if before:
            shutil.copytree(inputs / before, place)
        with faulty(place.parent, at, full_disk()) as hit:
            failed = told(capsys, arguments, place, "the disk is full")
        assert failed == bool(hit)
        if not hit:
            break
        assert command in ("archive", "append") or not files(place.parent)
        assert not told(capsys, arguments, place, "")
    assert at > 0 and files(place)


def test_a_file_is_removed_half_of_which_could_be_decoded(inputs, tmp_path, capsys):
    place = tmp_path / "data.nc"
    for size in (0, 1000, 5000, 10_000):
        with no_larger_than(size):
            assert told(
                capsys, ["decode", inputs / "a.mrcae.zarr", place], place, "could not be written"
            )
        assert not files(place.parent)


# Stores that fail


@some(90)
@pytest.mark.parametrize("onward", [False, True], ids=["once", "onward"])
@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_a_model_in_a_store_that_fails_is_kept(model, memory, name, onward, step):
    path, new = f"{memory}/{name}", with_split(model, run="new")
    for at in range(0, 10**6, step if name == "model.zarr" else 1):
        MemoryFileSystem.store.clear()
        model.save(path)
        before = files(path)
        said = ""
        with faulty_store(at, ConnectionResetError("gone"), CHANGES, onward=onward) as hit:
            try:
                new.save(path, overwrite=True)
            except StorageError as error:
                said = str(error)
        if not hit:
            break
        roots = {key.split(name)[1].split("/")[0] for key in files(memory)}
        kept = [root for root in roots if files(path + root) == before]
        if onward and "" not in kept and "nor put back" in said:
            assert kept and said.endswith(f"Copy there what is at /bucket/{name}{kept[0]}")
        else:
            assert "" in kept or run_of(path) == "new"
            assert roots == {""} or onward or "could not be removed" in said
    assert at > 1 and run_of(path) == "new"
