"""The folder of an archive: its lock, its listing; the packages that archives need."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("zarr", minversion="3.1.4")

from xmrcae.archive import format as archive_format
from xmrcae.archive.folder import LOCK, Folder
from xmrcae.storage import StorageError


def n_open() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted by Linux")
def test_a_lock_that_another_removes_meanwhile_is_locked_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fstat, seen = os.fstat, []

    def late(handle: int) -> os.stat_result:
        if not seen:
            (tmp_path / LOCK).unlink()
        seen.append(handle)
        return fstat(handle)

    before = n_open()
    with Folder(tmp_path).lock():
        monkeypatch.setattr(os, "fstat", late)
    (tmp_path / LOCK).touch()
    with Folder(tmp_path).lock():
        assert len(seen) == 2 and (tmp_path / LOCK).is_file()
    assert n_open() == before and os.listdir(tmp_path) == []


def test_a_listing_that_fails_speaks_of_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    folder = Folder(tmp_path)
    monkeypatch.setattr(folder._fs, "find", fail)
    with pytest.raises(StorageError, match=r"could not be listed: .*They may be sound: try again"):
        folder.sizes()


@pytest.mark.parametrize(
    ("found", "enough"),
    [
        *(("3.1.4", True), ("3.2.0rc1", True), ("3.1.5.dev3+g1a2b3c", True), ("4", True)),
        *(("3.1.3", False), ("3.1rc4", False), ("3", False), ("2.18.7", False)),
    ],
)
def test_versions_are_compared_by_their_numbers(
    monkeypatch: pytest.MonkeyPatch, found: str, enough: bool
) -> None:
    versions = {"zarr": found, "numcodecs": "0.16.1", "pcodec": "1.0"}
    monkeypatch.setattr(archive_format, "version", versions.__getitem__)
    archive_format.require.cache_clear()
    try:
        if enough:
            archive_format.require()
        else:
            with pytest.raises(ImportError, match=r"need zarr>=3\.1\.4: install"):
                archive_format.require()
    finally:
        archive_format.require.cache_clear()
