"""Disks and stores that fail: at the n-th change to a file, beyond a size, at the n-th read."""

import errno
import itertools
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
import pytest
import xarray as xr
from fsspec.implementations.memory import MemoryFileSystem
from helpers import make_field

import xmrcae
from xmrcae.storage import StorageError

#: What ends the n-th access of files in a folder: a function of event and path; set by `_faulty`.
_ACCESS: Any = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Ask `_ACCESS` before files are opened, renamed or made: a hook of Python's, which cannot be removed."""
    if _ACCESS is None or event not in ("open", "os.rename", "os.mkdir"):
        return
    if event == "os.mkdir" and os.path.isdir(arguments[0]):  # that changes nothing
        return
    flags = arguments[2] if event == "open" else os.O_WRONLY
    writes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    _ACCESS("write" if writes else "read", arguments[0])


sys.addaudithook(_watch)


@contextmanager
def faulty(root: Path, at: int, error: BaseException, kind: str = "write") -> Iterator[list[str]]:
    """Let one access of a file below a folder fail; gives a list that the path is added to."""
    global _ACCESS
    hit: list[str] = []
    number = itertools.count()

    def access(what: str, path: Any) -> None:
        inside = isinstance(path, str | os.PathLike) and os.fspath(path).startswith(str(root))
        if what == kind and inside and next(number) == at:
            hit.append(os.fspath(path))
            raise error

    _ACCESS = access
    try:
        yield hit
    finally:
        _ACCESS = None


def full_disk() -> OSError:
    """What the system says of a full disk."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def no_larger_than(size: int) -> Iterator[None]:
    """Let every write fail that would make a file larger; what fits before is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


#: What changes a store in memory, and what asks it.
CHANGES = ("pipe_file", "put_file", "cp_file", "rm_file", "rm")
ASKS = ("info", "find", "cat_file", "get_file")


@contextmanager
def faulty_store(
    at: int, error: BaseException, names: tuple[str, ...], *, onward: bool = False
) -> Iterator[list[str]]:
    """Let the call of this number of some methods of stores in memory fail, and perhaps all later ones."""
    hit: list[str] = []
    number = itertools.count()
    kept = {name: getattr(MemoryFileSystem, name) for name in names}

    def failing(name: str) -> Any:
        def method(self: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
            n = next(number)
            if n == at or (onward and n > at):
                hit.append(f"{name} {path}")
                raise error
            return kept[name](self, path, *args, **kwargs)

        return method

    for name in names:
        setattr(MemoryFileSystem, name, failing(name))
    try:
        yield hit
    finally:
        for name in names:
            setattr(MemoryFileSystem, name, kept[name])


def files(url: Any) -> dict[str, bytes]:
    """All files below a path or URL."""
    filesystem, root = fsspec.core.url_to_fs(str(url))
    filesystem.invalidate_cache()
    return {path[len(root) :]: filesystem.cat_file(path) for path in filesystem.find(root)}


# What is written

OPTIONS: dict[str, Any] = {
    "levels": 2, "channels": [[1]], "max_epochs": 12, "tolerance": 0.5, "progress": False,
}  # fmt: skip

BOUND = {"max_error": 0.5, "rows_per_block": 3, "progress": False}


def some(step: int) -> Any:
    """Faults at every so many places, and in long runs at every place."""
    places = [pytest.param(step, id="some"), pytest.param(1, id="every", marks=pytest.mark.soak)]
    return pytest.mark.parametrize("step", places)


@pytest.fixture(scope="module")
def field() -> xr.DataArray:
    return make_field(9, (15, 20))


@pytest.fixture(scope="module")
def model(field: xr.DataArray) -> xmrcae.MrCAE:
    return field.mrcae.fit(**OPTIONS)


@pytest.fixture
def memory() -> Iterator[str]:
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield "memory://bucket"
    MemoryFileSystem.store.clear()


def refused(call: Callable[[], Any], place: Any, said: str = "the disk is full") -> bool:
    """Tell whether a call failed: then its error names the place, and says what happened."""
    try:
        call()
    except StorageError as error:
        assert str(place) in str(error) and said in str(error)
        return True
    return False
