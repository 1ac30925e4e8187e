"""Reads that fail, clocks that jump, two processes: no wrong number, and the next call goes on."""

import errno
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import dask.array
import numpy as np
import pytest
import tqdm
import xarray as xr
from faults import (
    ASKS,
    BOUND,
    OPTIONS,
    faulty,
    faulty_store,
    field,
    files,
    memory,
    model,
    refused,
    some,
)
from test_checkpoint import assert_same_fit
from xarray.backends import BackendArray
from xarray.core import indexing

import xmrcae
from xmrcae.archive.format import ArchiveError
from xmrcae.core.checkpoint import Checkpoint
from xmrcae.storage import StorageError

__all__ = ["field", "memory", "model"]  # fixtures

ERRORS = [
    OSError(errno.EIO, "Input/output error"), ConnectionResetError("gone"), TimeoutError(), KeyError("key"),
    FileNotFoundError("key"), IsADirectoryError("key"), NotADirectoryError("key"), RuntimeError("disconnected"),
]  # fmt: skip


def read(url: Any) -> list[xr.Dataset]:
    """All that an archive holds, of every level."""
    archive = xmrcae.open_archive(url)
    levels = [archive.to_dataset(level).load() for level in range(archive.levels)]
    return [*levels, archive.verify()]


@some(25)
@pytest.mark.parametrize("where", ["store", "disk"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_archive_is_read_as_it_was_written_or_not_at_all(
    field, model, memory, tmp_path, where, error, step
):
    url = f"{memory}/a.mrcae.zarr" if where == "store" else tmp_path / "a.mrcae.zarr"
    model.to_archive(field, url, **BOUND)
    whole = read(url)
    for at in range(0, 10**6, step):
        in_store = where == "store"
        with (
            faulty_store(at, error, ("cat_file",))
            if in_store
            else faulty(tmp_path, at, error, "read")
        ) as hit:
            try:
                found = read(url)
            except (StorageError, ArchiveError) as failure:
                assert "a.mrcae.zarr" in str(failure)
                found = whole
            else:
                assert not hit
        for each, expected in zip(found, whole, strict=True):
            xr.testing.assert_identical(each, expected)
        if not hit:
            break
    assert at >= step


@some(60)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_model_in_a_store_is_read_or_not_at_all(model, memory, error, step):
    path = f"{memory}/model.zarr"
    model.save(path)
    for at in range(0, 10**6, step):
        with faulty_store(at, error, ASKS) as hit:
            try:
                found = xmrcae.open_model(path)
            except (StorageError, xmrcae.ModelFileError) as failure:
                assert "bucket/model.zarr" in str(failure)
            else:
                assert_same_fit(found, model)
        if not hit:
            break
    assert at >= step


def test_a_checkpoint_that_cannot_be_read_is_not_begun_anew(field, model, memory):
    options = OPTIONS | {"checkpoint": f"{memory}/state"}
    field.mrcae.fit(**options)
    before = files(memory)
    for at in range(10):
        with faulty_store(at, ConnectionResetError("gone"), ASKS) as hit:
            assert refused(lambda: field.mrcae.fit(**options), memory, "gone") == bool(hit)
        assert files(memory) == before
    assert not hit


# Data that cannot be read


class Broken(Exception):
    """What a user's data raise."""


def data_that_fail(field: xr.DataArray, at: int, kind: str) -> tuple[xr.DataArray, list[int]]:
    """The field as a dask array, or one that is indexed lazily, of which one read fails; and what was read."""
    reads: list[int] = []

    def take(values: np.ndarray) -> np.ndarray:
        reads.append(len(values))
        if len(reads) == at + 1:
            raise Broken
        return values

    if kind == "dask":
        return field.copy(data=dask.array.from_array(field.values, chunks=(3, -1, -1)).map_blocks(
            take, dtype=field.dtype, meta=np.empty((0, 0, 0), field.dtype)
        )), reads  # fmt: skip

    class Lazy(BackendArray):
        shape, dtype = field.shape, field.dtype

        def __getitem__(self, key: Any) -> Any:
            support = indexing.IndexingSupport.BASIC
            return indexing.explicit_indexing_adapter(
                key, self.shape, support, lambda each: take(field.values[each])
            )

    lazy = xr.Variable(field.dims, indexing.LazilyIndexedArray(Lazy()), field.attrs)
    return xr.DataArray(lazy, field.coords, name=field.name), reads


def raised_by(call: Callable[[Any], Any], field: xr.DataArray, kind: str) -> Iterator[bool]:
    """Call with data of which each read in turn fails; tell, after each, that the error came through."""
    for at in range(1000):
        data, reads = data_that_fail(field, at, kind)
        try:
            call(data)
        except Broken:
            assert len(reads) > at
            yield True
        else:
            assert len(reads) <= at
            return


@pytest.mark.parametrize("kind", ["dask", "lazy"])
def test_an_error_of_the_data_ends_a_fit_and_leaves_nothing(field, model, tmp_path, kind):
    mrcae = xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path / "state")
    count = 0
    for _ in raised_by(mrcae.fit, field, kind):
        assert not os.listdir(tmp_path)
        count += 1
    assert count >= {"dask": 3, "lazy": 1}[kind]
    assert_same_fit(mrcae, model)


@pytest.mark.parametrize("kind", ["dask", "lazy"])
def test_an_archive_is_finished_when_its_data_can_be_read_again(field, model, tmp_path, kind):
    url, whole = tmp_path / "a.mrcae.zarr", tmp_path / "whole.mrcae.zarr"
    model.to_archive(field, whole, **BOUND)
    count = 0
    for _ in raised_by(lambda data: model.to_archive(data, url, **BOUND), field, kind):
        count += 1
        with pytest.raises(ArchiveError):
            xmrcae.open_archive(url)
        if count % 8 == 4:
            model.to_archive(field, url, **BOUND)
            assert files(url) == files(whole)
            shutil.rmtree(url)
    assert count >= 4 and files(url) == files(whole)
    archive = xmrcae.open_archive(url)
    assert sum(raised_by(archive.verify, field, kind)) >= 3


# Clocks that jump


@pytest.fixture
def jumping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every clock goes back by a day, and forward by years, in turn."""
    jumps = itertools.cycle([0.0, -86_400.0, 3e8, -3e8])
    for module, name in (
        (time, "time"),
        (time, "monotonic"),
        (time, "perf_counter"),
        (tqdm.std, "time"),
    ):
        clock = getattr(module, name)
        monkeypatch.setattr(module, name, lambda clock=clock: clock() + next(jumps))


def test_nothing_depends_on_the_clock(field, model, memory, tmp_path, jumping):
    options = OPTIONS | {"progress": True}
    for folder in (tmp_path / "state", f"{memory}/state"):
        for _ in range(2):
            assert_same_fit(field.mrcae.fit(**options, checkpoint=folder), model)
    for url in (tmp_path / "a.mrcae.zarr", f"{memory}/a.mrcae.zarr"):
        model.to_archive(field[:6], url, **BOUND | {"progress": True})
        model.to_archive(field[6:], url, mode="a")
        xmrcae.open_archive(url).verify(field)
    assert files(tmp_path / "a.mrcae.zarr") == files(f"{memory}/a.mrcae.zarr")


# Two processes


def beside(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, other: Callable[[], Any]
) -> None:
    """Let another fit run from its start to its end before some call of one."""
    number, call = itertools.count(), getattr(owner, name)

    def called(*args: Any) -> Any:
        if next(number) == at:
            other()
        return call(*args)

    monkeypatch.setattr(owner, name, called)


@pytest.mark.parametrize("at", [0, 2])
def test_the_same_fit_in_two_processes_ends_alike(field, model, tmp_path, monkeypatch, at):
    fits: list[xmrcae.MrCAE] = []

    def fit() -> None:
        fits.append(field.mrcae.fit(**OPTIONS, checkpoint=tmp_path))

    beside(monkeypatch, os, "fsync", at, fit)  # half of a state is written
    fit()
    fit()
    assert len(fits) == 3
    for each in fits:
        assert_same_fit(each, model)
    assert os.listdir(tmp_path) == ["checkpoint.pt"]


@pytest.mark.parametrize("at", [0, 2])
def test_of_two_fits_with_one_checkpoint_one_is_refused(field, tmp_path, monkeypatch, at):
    other = OPTIONS | {"omega": 0.25, "checkpoint": tmp_path}

    def begin() -> None:
        (tmp_path / "checkpoint.pt").unlink(missing_ok=True)  # else it would be refused
        field.mrcae.fit(**other)

    beside(monkeypatch, Checkpoint, "of_others", at, begin)
    mrcae = xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path)
    with pytest.raises(xmrcae.ModelFileError, match=r"another fit .*omega=0.25 there and 0.5 here"):
        mrcae.fit(field)
    assert mrcae.partial and os.listdir(tmp_path) == ["checkpoint.pt"]
    del other["checkpoint"]
    whole = field.mrcae.fit(**other)
    assert_same_fit(field.mrcae.fit(**other, checkpoint=tmp_path), whole)


def test_no_seconds_are_below_zero_where_the_clock_goes_back(field, monkeypatch):
    monkeypatch.setattr(time, "perf_counter", itertools.count(0.0, -1.0).__next__)
    assert (field.mrcae.fit(**OPTIONS).history["seconds"] == 0).all()
