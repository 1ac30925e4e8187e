"""The files of an archive, on a disk or at any other URL of fsspec's, and who may write them."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ..paths import file_system, located
from ..storage import cleaned, in_storage, is_there, write_whole
from .format import ArchiveFault
from .own_files import check_own

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
        self.url = located(url)
        self.options = dict(storage_options or {})
        self._fs, root = file_system(self.url, self.options)
        self._root = root.rstrip("/")
        self._local = Path(root) if isinstance(self._fs, LocalFileSystem) else None
        self._made: set[Path] = set()  # folders that need not be made any more

    def read(self, key: str) -> bytes:
        """Return the bytes of a file.

        Raises
        ------
        FileNotFoundError
            If there is none.
        StorageError
            If the store fails.
        """
        if self._local is not None:
            check_own(self._local, key)
        with self._reading(key):
            try:
                return self._fs.cat_file(f"{self._root}/{key}")
            except (FileNotFoundError, NotADirectoryError):
                pass
        raise FileNotFoundError(f"no file {key} at {self.url}")

    def _reading(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Tell of a file that could not be read."""
        return in_storage(
            f"{key} of {self.url} could not be read", "The archive may be sound: read it again"
        )

    def _writing(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Tell of a change to the files that failed."""
        return in_storage(
            f"{self.url}: {what}",
            "What is complete is kept: once that is mended, the same call goes on from it",
            folder="" if self._local is None else self._local.parent,
        )

    def exists(self, key: str) -> bool:
        """Tell whether there is a file, not trusting listings that were kept."""
        self._fs.invalidate_cache()
        with self._reading(key):
            return is_there(self._fs, f"{self._root}/{key}")

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every file, by its path below the URL, in order of the paths.

        Raises
        ------
        OSError
            If the server, as those of http, does not tell them.
        """
        self._fs.invalidate_cache()
        with in_storage(
            f"the files of {self.url} could not be listed", "They may be sound: try again"
        ):
            found = self._fs.find(self._root, detail=True)
        if any(info["size"] is None for info in found.values()):
            raise OSError(f"{self.url} does not tell the sizes of its files")
        start = len(self._root) + 1
        return {path[start:]: int(info["size"]) for path, info in sorted(found.items())}

    def write(self, key: str, data: bytes) -> None:
        """Replace a file as one act: who reads sees the old one or the new one, never a part."""
        with self._writing(f"{key} could not be written"):
            if self._local is None:
                self._fs.pipe_file(f"{self._root}/{key}", data)
                return
            path = self._local / key
            if path.parent not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(path.parent)
            try:
                write_whole(path, data, part=path.with_name(path.name + ".part"))
            except OSError:
                self._remove_empty(path.parent)
                raise

    def _create(self, key: str, data: bytes) -> None:
        """Write a file, unless there is one, as far as the store can tell at once."""
        with self._writing(f"{key} could not be written"), contextlib.suppress(FileExistsError):
            if self._local is not None:
                self._local.mkdir(parents=True, exist_ok=True)
                with open(self._local / key, "xb") as file:
                    file.write(data)
                return
            knows = inspect.signature(self._fs.pipe_file).parameters  # "mode": fsspec from 2024.12
            mode = {"mode": "create"} if "mode" in knows else {}
            self._fs.pipe_file(f"{self._root}/{key}", data, **mode)

    def remove(self, key: str) -> None:
        """Remove a file, and the folders that are empty then."""
        with self._writing(f"{key} could not be removed"):
            self._fs.rm_file(f"{self._root}/{key}")
            if self._local is not None:
                self._remove_empty((self._local / key).parent)

    def _remove_empty(self, folder: Path) -> None:
        """Remove a folder below this one if it is empty, and so on upward."""
        while folder != self._local and not any(folder.iterdir()):
            folder.rmdir()
            self._made.discard(folder)
            folder = folder.parent

    def store(self, check: Callable[[str, bytes], None]) -> Any:
        """Return the Zarr store that reads these files; what is missing in it is an error.

        Zarr would read it as fill values, and takes some errors of a store for missing files.

        Parameters
        ----------
        check : callable
            Takes the key and the bytes of each file; raises an error if they are not what was
            written there.
        """
        from zarr.storage import FsspecStore, LocalStore, WrapperStore

        folder = self

        class Whole(WrapperStore[Any]):
            async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
                if folder._local is not None:
                    check_own(folder._local, key)
                with folder._reading(key):
                    found = await super().get(key, *args, **kwargs)
                if found is None:
                    raise ArchiveFault(f"{folder.url} lacks the file {key}")
                check(key, found.to_bytes())
                return found

        if self._local is not None:
            return Whole(LocalStore(self._local, read_only=True))
        url, options = self.url, self.options
        return Whole(FsspecStore.from_url(url, storage_options=options, read_only=True))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the right to write.

        On a disk of Linux or macOS it ends with the process; elsewhere see `_lock_object`.

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
        assert self._local is not None
        folder, path = self._local, self._local / LOCK
        is_new = not folder.exists()

        def leave() -> None:
            if is_new and folder.exists() and not any(folder.iterdir()):
                folder.rmdir()

        def release() -> None:
            try:
                path.unlink(missing_ok=True)
            finally:  # if Ctrl-C comes at this moment, this process shall hold the lock no longer
                os.close(handle)

        with cleaned(leave):
            with self._writing(f"{LOCK} could not be locked"):
                folder.mkdir(parents=True, exist_ok=True)
                handle = self._open_locked(path)
            with cleaned(release):
                with self._writing(f"{LOCK} could not be written"):
                    os.ftruncate(handle, 0)
                    os.write(handle, _myself())
                yield

    def _open_locked(self, path: Path) -> int:
        """Open a file and lock it."""
        import fcntl

        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            with contextlib.ExitStack() as otherwise:
                otherwise.callback(os.close, handle)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:  # disks that lock no files have other errors
                    raise self._held(_holder(self._read_lock())) from error
                # Who held it until now may have removed the file after it was opened here.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), path.stat()):
                        otherwise.pop_all()
                        return handle

    @contextlib.contextmanager
    def _lock_object(self) -> Iterator[None]:
        """Lock by an object that names its holder, where there is nothing better.

        It outlives a holder that is killed: on the same host the next call takes it over.
        """
        mine, there = _myself(), self._read_lock()
        if there:
            holder = _holder(there)
            if holder.get("host") != socket.gethostname() or _lives(holder.get("pid")):
                raise self._held(holder)
            self.remove(LOCK)

        def release() -> None:
            if self._read_lock() == mine:
                self.remove(LOCK)

        with cleaned(release):
            self._create(LOCK, mine)
            # Where a store cannot refuse the second of two, the one that wrote last has it.
            there = self._read_lock()
            if there != mine:
                raise self._held(_holder(there))
            yield

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
