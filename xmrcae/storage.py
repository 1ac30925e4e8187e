"""What disks and stores do wrong, told in one kind of error; files that are replaced as a whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")

#: A disk with fewer bytes free than this counts as full: writes come in larger pieces.
FULL = 2**16


class StorageError(OSError):
    """A file or store that could not be read or written: a full disk, a lost connection."""


@contextlib.contextmanager
def in_storage(
    what: str,
    way_out: str,
    *,
    folder: str | os.PathLike[str] = "",
    kinds: tuple[type[Exception], ...] = (Exception,),
) -> Iterator[None]:
    """Turn what goes wrong on a disk or in a store into a StorageError.

    Errors that speak of content or of memory (ValueError, TypeError, MemoryError) pass.

    Parameters
    ----------
    what : str
        What could not be done, the path or URL with it.
    way_out : str
        What is left as it was, and what to do.
    folder : str or os.PathLike, optional
        A local folder that is written to: its disk is asked whether it is full, which libraries
        do not say.
    kinds : tuple of type
        Errors to turn into one; by default all, as those of stores are of their libraries' kinds.

    Raises
    ------
    StorageError
        Of the same `errno` as the error of the system, if that has one.
    """
    try:
        yield
    except (StorageError, ValueError, TypeError, MemoryError):
        raise
    except kinds as error:
        failure = StorageError(f"{what}: {_reason(error, folder)}. {way_out}")
        failure.errno = getattr(error, "errno", None)
        raise failure from error


def _reason(error: Exception, folder: str | os.PathLike[str]) -> str:
    """Return why something failed: that the disk is full, where that is known, or what was said."""
    full = isinstance(error, OSError) and error.errno == errno.ENOSPC
    with contextlib.suppress(OSError):
        full = full or (bool(folder) and shutil.disk_usage(folder).free < FULL)
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return "the disk is full" if full else said


def is_there(filesystem: Any, path: str) -> bool:
    """Tell whether a file system has a file or folder; its own `exists` calls a lost connection no.

    Parameters
    ----------
    filesystem : fsspec.AbstractFileSystem
    path : str
    """
    try:
        filesystem.info(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


@contextlib.contextmanager
def cleaned(clean: Callable[[], object]) -> Iterator[None]:
    """Clean up after what is done here; the error of that comes before one of cleaning."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(Exception):
            clean()
        raise
    clean()


def uninterrupted(function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Call a function in a thread that Ctrl-C does not reach.

    KeyboardInterrupt is raised once it has ended. An interrupted xarray would keep its locks, and
    wait for them on closing the file.
    """
    outcome: Future[Result] = Future()

    def run() -> None:
        if not outcome.set_running_or_notify_cancel():
            return
        try:
            outcome.set_result(function(*args, **kwargs))
        except BaseException as error:  # raised where the outcome is waited for
            outcome.set_exception(error)

    try:
        Thread(target=run).start()
        return outcome.result()
    except KeyboardInterrupt:
        if not outcome.cancel():  # it has begun
            wait([outcome])
        raise


def write_whole(path: Path, data: bytes | memoryview, *, part: Path, durable: bool = False) -> None:
    """Replace a file as one act: who reads sees the old one or the new one, never a part.

    Parameters
    ----------
    path : pathlib.Path
    data : bytes
    part : pathlib.Path
        Beside it, to write to first. Nothing stays there.
    durable : bool
        Wait until the disk has it, so that it outlives a loss of power.
    """
    try:
        with part.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
