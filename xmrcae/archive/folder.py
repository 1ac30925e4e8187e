"""The files of an archive, on a disk or at any other URL of fsspec's, and who may write them."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from .format import ArchiveFault
from .own_files import check_own, store_of

LOCK = "writing.lock"


class Folder:
    """The files below a URL.

    Parameters
    ----------
    url : str or os.PathLike
        A path, or a URL that fsspec knows.
    storage_options : mapping, optional
        Options of the file system.
    """

    def __init__(
        self, url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self.url = os.fspath(url)
        self.options = dict(storage_options or {})
        self._fs, root = fsspec.core.url_to_fs(self.url, **self.options)
        self._root = root.rstrip("/")
        self._local = Path(root) if isinstance(self._fs, LocalFileSystem) else None

    def read(self, key: str) -> bytes:
        """Return the bytes of a file; FileNotFoundError if there is none."""
        if self._local is not None:
            check_own(self._local, key)
        try:
            return self._fs.cat_file(f"{self._root}/{key}")
        except NotADirectoryError as error:
            raise FileNotFoundError(str(error)) from error

    def exists(self, key: str) -> bool:
        """Tell whether there is a file, not trusting listings that were kept."""
        self._fs.invalidate_cache()
        return self._fs.isfile(f"{self._root}/{key}")

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every file, by its path below the URL, in order of the paths.

        Raises
        ------
        OSError
            If the server, as those of http, does not tell them.
        """
        self._fs.invalidate_cache()
        found = self._fs.find(self._root, detail=True)
        if any(info["size"] is None for info in found.values()):
            raise OSError(f"{self.url} does not tell the sizes of its files")
        start = len(self._root) + 1
        return {path[start:]: int(info["size"]) for path, info in sorted(found.items())}

    def write(self, key: str, data: bytes) -> None:
        """Replace a file as one act: who reads sees the old one or the new one, never a part."""
        if self._local is None:
            self._fs.pipe_file(f"{self._root}/{key}", data)
            return
        path = self._local / key
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            part.write_bytes(data)
            part.replace(path)
        except BaseException:  # Ctrl-C too
            part.unlink(missing_ok=True)
            raise

    def _create(self, key: str, data: bytes) -> None:
        """Write a file; FileExistsError if there is one, as far as the store can tell at once."""
        if self._local is not None:
            self._local.mkdir(parents=True, exist_ok=True)
            with open(self._local / key, "xb") as file:
                file.write(data)
            return
        refuses = "mode" in inspect.signature(self._fs.pipe_file).parameters  # fsspec from 2024.12
        mode = {"mode": "create"} if refuses else {}
        self._fs.pipe_file(f"{self._root}/{key}", data, **mode)

    def remove(self, key: str) -> None:
        """Remove a file, and the folders that are empty then."""
        self._fs.rm_file(f"{self._root}/{key}")
        if self._local is not None:
            for parent in (self._local / key).parents:
                if parent == self._local or any(parent.iterdir()):
                    break
                parent.rmdir()

    def store(self) -> Any:
        """Return the Zarr store that reads these files."""
        if self._local is not None:
            return store_of(self._local)
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(self.url, storage_options=self.options, read_only=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to write; it falls with the process that holds it.

        Raises
        ------
        ArchiveError
            At once, if another process holds it.
        """
        on_disk = self._local is not None and os.name == "posix"
        with self._flock() if on_disk else self._lock_object():
            yield

    @contextlib.contextmanager
    def _flock(self) -> Iterator[None]:
        """Lock a file of a disk; the system releases it when the process ends."""
        import fcntl

        assert self._local is not None
        is_new = not self._local.exists()
        self._local.mkdir(parents=True, exist_ok=True)
        path = self._local / LOCK
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(handle)
                raise self._held(_holder(self._read_lock())) from error
            # Who held it until now may have removed the file after it was opened here.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                break
            os.close(handle)
        try:
            os.ftruncate(handle, 0)
            os.write(handle, _myself())
            yield
        finally:
            try:
                path.unlink()
            finally:  # if Ctrl-C comes at this moment, this process shall hold the lock no longer
                os.close(handle)
            if is_new and not any(self._local.iterdir()):
                self._local.rmdir()

    @contextlib.contextmanager
    def _lock_object(self) -> Iterator[None]:
        """Lock by an object that names its holder, where there is nothing better."""
        mine, there = _myself(), self._read_lock()
        if there:
            holder = _holder(there)
            if holder.get("host") != socket.gethostname() or _lives(holder.get("pid")):
                raise self._held(holder)
            self.remove(LOCK)
        with contextlib.suppress(FileExistsError):  # another process was quicker
            self._create(LOCK, mine)
        # Where a store cannot refuse the second of two, the one that wrote last has it.
        there = self._read_lock()
        if there != mine:
            raise self._held(_holder(there))
        try:
            yield
        finally:
            self.remove(LOCK)

    def _read_lock(self) -> bytes:
        """Return what the lock says; nothing if there is none."""
        try:
            return self.read(LOCK)
        except FileNotFoundError:
            return b""

    def _held(self, holder: Mapping[str, Any]) -> ArchiveFault:
        return ArchiveFault(
            f"another process writes {self.url}: {holder.get('pid', 'unknown')} on "
            f"{holder.get('host', 'an unknown host')}. Wait for it to end; if it is gone, "
            f"remove the file {LOCK} of the archive"
        )


def _myself() -> bytes:
    """Return what a lock says of this process: its host and number, and what no other has."""
    return json.dumps(
        {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
    ).encode()


def _holder(data: bytes) -> dict[str, Any]:
    """Return what a lock says of its holder; nothing if it cannot be read."""
    try:
        holder = json.loads(data)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _lives(pid: Any) -> bool:
    """Tell whether there may be a process of this number on this host."""
    if os.name != "posix":  # elsewhere, the signal 0 ends the process that is asked for
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (TypeError, OSError):
        return True
    return True
