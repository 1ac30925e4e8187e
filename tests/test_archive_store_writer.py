"""Archives that are written: resumed after any stop to the same bytes, by one process at a time."""

import json
import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from test_archive_store import (
    CALL,
    ROWS,
    append,
    appending,
    archive,
    assert_all_is_there,
    creating,
    describe,
    files,
    memory,
    put_blocks,
    read,
    s3,
    write,
)

from xmrcae.archive.folder import LOCK, Folder
from xmrcae.archive.format import ArchiveError, dumps
from xmrcae.archive.journal import JOURNAL
from xmrcae.archive.store import ROOT, ArchiveStore

__all__ = ["archive", "memory", "s3"]  # fixtures


class Stop(BaseException):
    """What ends a run, as a signal would."""


def stopped(monkeypatch: pytest.MonkeyPatch, call: Callable[[], None], at: int) -> bool:
    """Run a call that stops before the file of this number is written; False if it did not."""
    count, put = iter(range(10**6)), Folder.write

    def write_or_stop(self: Folder, key: str, data: bytes) -> None:
        if next(count) == at:
            if Path(self.url).exists():  # a disk may keep a part of the file; other stores do not
                put(self, f"{key}.part", data[:20])
            raise Stop
        put(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", write_or_stop)
        try:
            call()
        except Stop:
            return True
    return False


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_run_that_stops_at_any_file_is_finished_by_the_same_call(
    tmp_path: Path, memory: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url: Any = tmp_path / "a.zarr" if where == "disk" else memory
    write(url)
    whole = files(url)
    append(url)
    longer, n = files(url), len(files(url))
    moments = range(0, 10 * n, 5 if where == "disk" else 7)
    for at in moments:
        fs, root = fsspec.core.url_to_fs(str(url))
        fs.rm(root, recursive=True)
        if not stopped(monkeypatch, lambda: write(url), at):
            break
        if ROOT not in files(url):
            said = "was stopped: the same" if JOURNAL in files(url) else "no archive at"
            with pytest.raises(ArchiveError, match=said):
                ArchiveStore.open(url)
        write(url)
        assert files(url) == whole
    assert at > 20
    for at in moments:
        fs.rm(root, recursive=True)
        write(url)
        if not stopped(monkeypatch, lambda: append(url), at):
            break
        assert_all_is_there(read(url), 3)
        append(url)
        assert files(url) == longer
    assert at > 20


def test_complete_blocks_are_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stopped(monkeypatch, lambda: write(tmp_path / "a.zarr"), 60)
    done = [key for key in files(tmp_path / "a.zarr") if key.startswith("level_1/sst/c/0/")]
    assert len(done) == 2
    times = [(tmp_path / "a.zarr" / key).stat().st_mtime_ns for key in done]
    write(tmp_path / "a.zarr")
    assert times == [(tmp_path / "a.zarr" / key).stat().st_mtime_ns for key in done]


def test_another_call_does_not_finish_a_stopped_run(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new.zarr"
    assert stopped(monkeypatch, lambda: write(new), 60)
    with (
        pytest.raises(ArchiveError, match=r"another call .* remove the folder"),
        creating(new, describe([]), {"call": 2}),
    ):
        pass
    with pytest.raises(ArchiveError, match="the same call finishes it"):
        append(new)
    assert stopped(monkeypatch, lambda: append(archive), 30)
    with (
        pytest.raises(ArchiveError, match=f"another call .* removing the file {JOURNAL}"),
        appending(archive, {"call": 2}),
    ):
        pass
    (archive / JOURNAL).unlink()
    append(archive)
    assert_all_is_there(read(archive), 5)


def test_a_run_after_which_others_have_written_is_given_up_and_no_archive_removed(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stopped(monkeypatch, lambda: append(archive), 30)
    journal = (archive / JOURNAL).read_bytes()
    (archive / JOURNAL).unlink()
    append(archive)
    append(archive)
    (archive / JOURNAL).write_bytes(journal)
    for call in (append, write):
        with pytest.raises(ArchiveError, match=f"others have written .* the file {JOURNAL} there"):
            call(archive)
    (archive / JOURNAL).unlink()
    append(archive)
    assert_all_is_there(read(archive), 9)


@pytest.mark.parametrize("again", ["the same call", "another call"])
def test_a_run_that_was_stopped_at_its_very_end_is_complete(
    archive: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    append(archive)
    whole = files(archive)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "remove", lambda self, key: None)
        with appending(archive, {"call": 2}) as writer:
            assert writer is not None
            put_blocks(writer, 1, (2,))
    assert (archive / JOURNAL).exists()
    longer = files(archive)
    if again == "the same call":
        with appending(archive, {"call": 2}) as writer:
            assert writer is None
        assert {key: longer[key] for key in longer if key != JOURNAL} == files(archive) != whole
        assert_all_is_there(read(archive), 6)
    else:
        append(archive)
        assert_all_is_there(read(archive), 8)


#: The record of a run, as versions before its checksum wrote it.
EARLIER = {"appending": True, "fingerprint": CALL, "about": {}, "n_before": 3, "rows": {}}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"checksum": 0}', dumps({**EARLIER, "blocks": []})]
)
def test_a_damaged_record_of_what_is_complete_is_refused(archive: Path, content: bytes) -> None:
    (archive / JOURNAL).write_bytes(content)
    for call in (append, write):
        with pytest.raises(ArchiveError, match=rf"{JOURNAL} of .* is damaged.* remove this file"):
            call(archive)
    assert_all_is_there(read(archive), 3)
    (archive / JOURNAL).unlink()
    append(archive)
    assert_all_is_there(read(archive), 5)


def test_nothing_that_is_there_is_written_over(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="already: append to it, or remove it"):
        write(archive)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ArchiveError, match=r"holds other files, such as notes\.txt"):
        write(tmp_path / "other")
    assert files(tmp_path / "other") == {"notes.txt": b"mine"}
    with pytest.raises(ArchiveError, match="no archive at"):
        append(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_second_process_is_refused_at_once(tmp_path: Path, memory: str) -> None:
    for url in (str(tmp_path / "a.zarr"), memory):
        with creating(url, describe([])):
            with pytest.raises(ArchiveError, match=r"another process writes .*: \d+ on .*" + LOCK):
                write(url)
            if url != memory:
                context = multiprocessing.get_context("spawn")
                with context.Pool(1) as pool, pytest.raises(ArchiveError, match="another process"):
                    pool.apply(write, (url,))
        write(url)
        assert LOCK not in files(url)


@pytest.mark.parametrize("where", ["disk", "memory", "s3"])
def test_of_two_that_lock_at_the_same_time_the_second_is_refused(
    tmp_path: Path, where: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "s3":
        url, options = request.getfixturevalue("s3")
    else:
        url, options = tmp_path / "a" if where == "disk" else request.getfixturevalue("memory"), {}
    monkeypatch.setattr(Folder, "_flock", Folder._lock_object)  # as where disks lock no files
    first, second = Folder(url, options), Folder(url, options)
    seen, read_lock = [b""], second._read_lock
    with first.lock():
        # The second looked before the first one locked.
        monkeypatch.setattr(second, "_read_lock", lambda: seen.pop() if seen else read_lock())
        before = first.read(LOCK)
        with pytest.raises(ArchiveError, match="another process writes"), second.lock():
            pass
        assert first.read(LOCK) == before
    assert not first.exists(LOCK)


@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_the_lock_of_a_dead_process_is_taken_over_on_its_host(memory: str, host: str) -> None:
    import socket

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    name = socket.gethostname() if host == "here" else "elsewhere"
    Folder(memory).write(LOCK, json.dumps({"host": name, "pid": dead.pid}).encode())
    if host == "here":
        write(memory)
        assert LOCK not in files(memory)
    else:
        with pytest.raises(ArchiveError, match=f"{dead.pid} on elsewhere.*remove the file"):
            write(memory)


def test_rows_that_fit_neither_block_nor_array_are_refused(tmp_path: Path) -> None:
    dims = ["time", "lane", "dim"]
    with creating(tmp_path, describe([])) as writer:
        writer.put_rows("a", 0, np.zeros((2, 3), "i4"), dims)
        for call in (
            lambda: writer.put_rows("a", 0, np.zeros((5, 3), "i4"), dims),
            lambda: writer.put_rows("a", 0, np.zeros((2, 4), "i4"), dims),
            lambda: writer.put_rows("a", 2, np.zeros((2, 3), "i4"), dims),
            lambda: writer.put_rows("a", 0, np.zeros((2, 3), "i8"), dims),
            lambda: writer.finish_block({"worst": float("nan")}),
            lambda: writer.commit(describe([4]), {}),
        ):
            with pytest.raises(ValueError):
                call()
        for dtype in ("M8[s]", "U3", object, "c8", "g"):
            with pytest.raises(TypeError, match="takes bool, integers and floats"):
                writer.put_static("b", np.zeros(3, dtype), ["dim"])


def test_what_is_appended_is_like_what_is_there(archive: Path) -> None:
    with appending(archive) as writer:
        assert writer is not None
        with pytest.raises(ValueError, match=r"what was put there is .*'float32'"):
            dims = ["time", "lane_0", "dim_0"]
            writer.put_rows("level_1/sst", 0, np.zeros((4, 70), "f4"), dims)


def test_appending_changes_nothing_that_is_there(archive: Path) -> None:
    before = files(archive)
    append(archive)
    after = files(archive)
    changed = {key for key, data in before.items() if after[key] != data}
    assert changed == {ROOT, *(f"{path}/{ROOT}" for path in ROWS)}


USERS = (
    *("README.md", "notes/x.txt", ".DS_Store", "level_1/sst/about.json", "draft.part"),
    *("mine.zarr/zarr.json", "mine.zarr/u/zarr.json", "mine.zarr/u/c/0", "notes/c"),
)


@pytest.mark.parametrize("call", ["create", "append"])
def test_files_of_users_stay(archive: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    if call == "create":
        shutil.rmtree(archive)
        assert stopped(monkeypatch, lambda: write(archive), 25)
    else:
        assert stopped(monkeypatch, lambda: append(archive), 30)
    for name in USERS:
        (archive / name).parent.mkdir(exist_ok=True, parents=True)
        (archive / name).write_text("mine")
    if call == "create":
        with pytest.raises(ValueError, match="fails"), creating(archive, describe([])):
            raise ValueError("fails")
        assert set(files(archive)) == set(USERS)
    else:
        append(archive)
        assert {name: files(archive)[name] for name in USERS} == dict.fromkeys(USERS, b"mine")


def test_an_archive_of_which_no_block_was_given_opens(tmp_path: Path) -> None:
    with creating(tmp_path, describe([])) as writer:
        writer.commit(describe([]), {})
    assert ArchiveStore.open(tmp_path).n_blocks == 0
