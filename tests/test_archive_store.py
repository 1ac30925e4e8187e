"""Arrays of an archive on any store: read back, resumed after any stop, never read wrong."""

import http.server
import json
import multiprocessing
import pickle
import subprocess
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

pytest.importorskip("zarr", minversion="3.1.4")

from xmrcae.archive.folder import LOCK, Folder
from xmrcae.archive.format import ABOUT, ArchiveError
from xmrcae.archive.journal import JOURNAL, dumps
from xmrcae.archive.store import ROOT, ArchiveStore, chunk_of
from xmrcae.archive.store_writer import ArchiveWriter

CALL = {"call": 1}
LENGTHS = [4, 4, 3]
STATIC: dict[str, np.ndarray] = {
    "model/weights": np.linspace(-1, 1, 50),
    "model/steps": np.arange(60, dtype="<i4").reshape(5, 12).T,  # not in C order
    "model/big": np.arange(20, dtype=">f4"),
    "model/half": np.arange(7, dtype="f2"),
    "model/number": np.array(3.5, "f4"),
    "model/nothing": np.zeros((0, 3), "i8"),
    "masks": np.packbits(np.arange(100) % 3 == 0),
    "beside/c": np.arange(9) % 2 == 0,
}
ROWS: dict[str, tuple[tuple[int, ...], str, bool]] = {
    "level_0/codes": ((30,), "i4", True),
    "level_1/sst": ((70,), "i4", False),
    "level_1/sst_exact": ((70,), "f8", True),
    "level_1/sst_gaps": ((70,), "u1", False),
    "beside/field": ((4, 5), "f4", True),
    "season": ((), "i2", False),
}


def describe(lengths: list[int], lanes: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {
        "format_version": 1,
        "rows_per_block": 4,
        "lanes": list(lanes),
        "blocks": {"length": lengths},
    }


def make_rows(path: str, block: int, lane: int) -> np.ndarray:
    shape, dtype, _ = ROWS[path]
    random = np.random.default_rng([block, lane, list(ROWS).index(path)])
    values = random.integers(-100, 100, (LENGTHS[block % 3], *shape))
    return values.astype(dtype) if dtype != "u1" else (values > 0).astype(dtype)


def put_blocks(writer: ArchiveWriter, count: int, lanes: tuple[int, ...]) -> None:
    names = ["time", *(f"lane_{i}" for i in range(len(lanes)))]
    for path, (shape, dtype, transpose) in ROWS.items():
        dims = [*names, *(f"dim_{i}" for i in range(len(shape)))]
        writer.declare_rows(path, shape, dtype, dims, {"of": path}, transpose=transpose)
    for block in range(writer.n_before + len(writer.finished), writer.n_before + count):
        for path in ROWS:
            for lane in range(int(np.prod(lanes))):
                writer.put_rows(path, block, lane, make_rows(path, block, lane))
        writer.finish_block(block, {"length": LENGTHS[block % 3]})
    before = writer.about["blocks"]["length"] if writer.n_before else []
    lengths = [*before, *(record["length"] for record in writer.finished)]
    writer.commit(describe(lengths, lanes), {"title": "made up"})


def write(url: Any, lanes: tuple[int, ...] = (2,), options: Any = None) -> None:
    with ArchiveWriter.create(
        url, describe([], lanes), fingerprint=CALL, storage_options=options
    ) as writer:
        for path, values in STATIC.items():
            writer.put_static(path, values, [f"dim_{i}" for i in range(values.ndim)], {"k": 1})
        writer.put_attributes("level_1", {"resolution": 2})
        put_blocks(writer, 3, lanes)


def append(url: Any, lanes: tuple[int, ...] = (2,), options: Any = None) -> None:
    with ArchiveWriter.append(url, fingerprint=CALL, storage_options=options) as writer:
        put_blocks(writer, 2, lanes)


def read(url: Any, options: Any = None) -> dict[Any, np.ndarray]:
    """Everything that an archive holds."""
    store = ArchiveStore.open(url, storage_options=options)
    found: dict[Any, np.ndarray] = {path: store.static(path) for path in store.about["checksums"]}
    for path in set(store.arrays) - set(found):
        for block in range(store.n_blocks):
            for lane in range(int(np.prod(store.about["lanes"]))):
                found[path, block, lane] = store.rows(path, block, lane)
    return found


def files(url: Any, options: Any = None) -> dict[str, bytes]:
    folder = Folder(url, options)
    return {key: folder.read(key) for key in folder.sizes()}


def edit_root(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the root's metadata, its checksum with it."""
    root = json.loads((folder / ROOT).read_bytes())
    del root["attributes"][ABOUT]["checksum"]
    change(root)
    root["attributes"][ABOUT]["checksum"] = zlib.crc32(dumps(root))
    (folder / ROOT).write_bytes(dumps(root))


@pytest.fixture
def memory() -> Iterator[str]:
    MemoryFileSystem.store.clear()
    yield "memory://bucket/a.zarr"
    MemoryFileSystem.store.clear()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    write(tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


@pytest.fixture
def s3() -> Iterator[tuple[str, dict[str, Any]]]:
    moto_server = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "any", "secret": "any", "endpoint_url": f"http://{host}:{port}"}
    s3fs.S3FileSystem(**options).mkdir("s3://bucket")
    yield "s3://bucket/a.zarr", options
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def assert_all_is_there(found: dict[Any, np.ndarray], blocks: int, lanes: int = 2) -> None:
    expected: dict[Any, np.ndarray] = dict(STATIC)
    for path in ROWS:
        for block in range(blocks):
            for lane in range(lanes):
                expected[path, block, lane] = make_rows(path, block, lane)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key].dtype == values.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[key], values, strict=values.dtype.isnative)


@pytest.mark.parametrize("lanes", [(), (2,), (2, 3)])
def test_what_was_written_and_appended_comes_back(tmp_path: Path, lanes: tuple[int, ...]) -> None:
    url = tmp_path / "deep" / "a.zarr"
    write(url, lanes)
    n = int(np.prod(lanes))
    assert_all_is_there(read(url), 3, n)
    append(url, lanes)
    assert_all_is_there(read(url), 5, n)


def test_archives_are_written_and_read_in_memory(memory: str) -> None:
    write(memory)
    append(memory)
    assert_all_is_there(read(memory), 5)


def test_archives_are_written_and_read_on_an_object_store(s3: tuple[str, dict[str, Any]]) -> None:
    url, options = s3
    with pytest.raises(ArchiveError, match=r"no archive at s3://bucket/a.zarr"):
        ArchiveStore.open(url, storage_options=options)
    write(url, options=options)
    append(url, options=options)
    assert_all_is_there(read(url, options), 5)
    again = pickle.loads(pickle.dumps(ArchiveStore.open(url, storage_options=options)))
    np.testing.assert_array_equal(again.static("masks"), STATIC["masks"])


def test_archives_are_read_over_http(archive: Path) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=archive.parent)
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/a.zarr"
        assert_all_is_there(read(url), 3)
        with pytest.raises(ArchiveError, match="no archive at"):
            ArchiveStore.open(url[:-5])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_every_store_holds_the_same_bytes(tmp_path: Path, memory: str) -> None:
    write(tmp_path / "a.zarr")
    write(memory)
    assert files(tmp_path / "a.zarr") == files(memory)


def test_zarr_alone_reads_every_array(archive: Path) -> None:
    import zarr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for consolidated in (True, False):
            group = zarr.open_group(archive, mode="r", use_consolidated=consolidated)
            np.testing.assert_array_equal(group["model/steps"][...], STATIC["model/steps"])
            codes = group["level_0/codes"]
            assert codes.metadata.dimension_names == ("time", "lane_0", "dim_0")
            for path in ("level_0/codes", "beside/field"):
                np.testing.assert_array_equal(group[path][8:11, 1], make_rows(path, 2, 1))
            assert dict(group["level_1"].attrs) == {"resolution": 2}


def test_appending_changes_nothing_that_is_there(archive: Path) -> None:
    before = files(archive)
    append(archive)
    after = files(archive)
    changed = {key for key, data in before.items() if after[key] != data}
    assert changed == {ROOT, *(f"{path}/{ROOT}" for path in ROWS)}


def test_an_archive_of_which_no_block_was_given_opens(tmp_path: Path) -> None:
    with ArchiveWriter.create(tmp_path, describe([]), fingerprint=CALL) as writer:
        writer.commit(describe([]))
    assert ArchiveStore.open(tmp_path).n_blocks == 0


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
    # Where there is no disk, the first file is the lock.
    moments = range(0, 10 * n, 5) if where == "disk" else range(1, 10 * n, 7)
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


KILLED = """
import os, signal, sys
from xmrcae.archive.folder import Folder
put, left = Folder.write, iter(range(int(sys.argv[2])))
def write(self, key, data):
    if next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, key, data)
Folder.write = write
from test_archive_store import append, write
{"write": write, "append": append}[sys.argv[3]](sys.argv[1])
"""


@pytest.mark.parametrize(("call", "at"), [("write", 37), ("append", 20)])
def test_a_process_that_was_killed_leaves_no_lock(tmp_path: Path, call: str, at: int) -> None:
    url = tmp_path / "a.zarr"
    write(tmp_path / "whole.zarr")
    if call == "append":
        write(url)
        append(tmp_path / "whole.zarr")
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(url), str(at), call], cwd=Path(__file__).parent
    )
    assert ended.returncode == -9
    assert (url / LOCK).exists()
    {"write": write, "append": append}[call](url)
    assert files(url) == files(tmp_path / "whole.zarr")


def test_another_call_does_not_finish_a_stopped_run(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new.zarr"
    assert stopped(monkeypatch, lambda: write(new), 60)
    with (
        pytest.raises(ArchiveError, match=r"another call .* remove the folder"),
        ArchiveWriter.create(new, describe([]), fingerprint={"call": 2}),
    ):
        pass
    with pytest.raises(ArchiveError, match="the same call finishes it"):
        append(new)
    assert stopped(monkeypatch, lambda: append(archive), 30)
    with (
        pytest.raises(ArchiveError, match=f"another call .* removing the file {JOURNAL}"),
        ArchiveWriter.append(archive, fingerprint={"call": 2}),
    ):
        pass
    (archive / JOURNAL).unlink()
    append(archive)
    assert_all_is_there(read(archive), 5)


@pytest.mark.parametrize("again", ["the same call", "another call"])
def test_a_run_that_was_stopped_at_its_very_end_is_complete(
    archive: Path, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    append(archive)
    whole = files(archive)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "remove", lambda self, key: None)
        with ArchiveWriter.append(archive, fingerprint={"call": 2}) as writer:
            put_blocks(writer, 1, (2,))
    assert (archive / JOURNAL).exists()
    longer = files(archive)
    if again == "the same call":
        with ArchiveWriter.append(archive, fingerprint={"call": 2}) as writer:
            assert (writer.n_before, len(writer.finished)) == (5, 1)
            put_blocks(writer, 1, (2,))
        assert {key: longer[key] for key in longer if key != JOURNAL} == files(archive) != whole
        assert_all_is_there(read(archive), 6)
    else:
        append(archive)
        assert_all_is_there(read(archive), 8)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"appending": true}'])
def test_a_damaged_record_of_what_is_complete_is_refused(archive: Path, content: bytes) -> None:
    (archive / JOURNAL).write_bytes(content)
    with pytest.raises(ArchiveError, match=rf"{JOURNAL} of .* is damaged"):
        append(archive)
    assert_all_is_there(read(archive), 3)


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
        with ArchiveWriter.create(url, describe([]), fingerprint=CALL):
            with pytest.raises(ArchiveError, match=r"another process writes .*: \d+ on .*" + LOCK):
                write(url)
            if url != memory:
                context = multiprocessing.get_context("spawn")
                with context.Pool(1) as pool, pytest.raises(ArchiveError, match="another process"):
                    pool.apply(write, (url,))
        write(url)
        assert LOCK not in files(url)


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


@pytest.mark.parametrize("damage", ["truncate", "empty", "flip", "remove"])
def test_a_damaged_file_is_never_read(archive: Path, damage: str) -> None:
    whole = files(archive)
    chunks = [key for key in whole if chunk_of(key)[0] or key == ROOT]
    assert len(chunks) > 40
    for key in chunks:
        path = archive / key
        data = bytearray(whole[key])
        for at in {len(data) // 3, len(data) - 1} if damage == "flip" else {0}:
            if damage == "remove":
                path.unlink()
            elif damage == "flip":
                path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
            else:
                path.write_bytes(data[: len(data) // 2] if damage == "truncate" else b"")
            with pytest.raises(ArchiveError, match=r"a\.zarr"):
                read(archive)
        path.write_bytes(data)
    assert_all_is_there(read(archive), 3)


def test_a_chunk_of_another_archive_is_refused_where_nothing_else_tells(archive: Path) -> None:
    other = archive.parent / "other.zarr"
    with ArchiveWriter.create(other, describe([]), fingerprint=CALL) as writer:
        writer.put_static("model/weights", STATIC["model/weights"] + 1, ["dim_0"])
        writer.commit(describe([]))
    (archive / "model/weights/c/0").write_bytes((other / "model/weights/c/0").read_bytes())
    with pytest.raises(ArchiveError, match=r"'model/weights' of .* is not what was written"):
        ArchiveStore.open(archive).static("model/weights")


def set_array(root: dict[str, Any], path: str, **changes: Any) -> None:
    root["consolidated_metadata"]["metadata"][path].update(changes)


def grid(*chunk: Any) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk)}}


@pytest.mark.parametrize(
    "change",
    [
        lambda root: set_array(root, "masks", shape=[10**12], chunk_grid=grid(10**12)),
        lambda root: set_array(root, "level_1/sst", shape=[12, 2, 10**12]),
        lambda root: set_array(
            root, "level_1/sst", shape=[12, 2, 10**12], chunk_grid=grid(4, 1, 10**12)
        ),
        lambda root: set_array(root, "level_1/sst", shape=[12, 3, 70]),
        lambda root: set_array(root, "level_1/sst", chunk_grid=grid(12, 1, 70)),
        lambda root: set_array(root, "level_1/sst", shape=[-12, 2, 70]),
        lambda root: set_array(root, "level_1/sst", shape="long"),
        lambda root: set_array(root, "level_1/sst", chunk_grid=grid(4, True, 70)),
        lambda root: set_array(root, "level_1/sst", codecs=[{"name": "gzip"}]),
        lambda root: set_array(root, "level_1/sst", codecs=[]),
        lambda root: set_array(root, "level_1/sst", data_type="string"),
        lambda root: set_array(root, "level_1/sst", node_type="table"),
        lambda root: root["consolidated_metadata"].clear(),
        lambda root: root["attributes"][ABOUT].update(rows_per_block=0),
        lambda root: root["attributes"][ABOUT].update(lanes=None),
        lambda root: root["attributes"][ABOUT]["blocks"].update(length=[4, 4, 5]),
        lambda root: root["attributes"][ABOUT].update(checksums=[]),
        lambda root: root["attributes"][ABOUT].update(format_version="1"),
    ],
)
def test_sizes_that_do_not_agree_are_refused_before_anything_is_allocated(
    archive: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    edit_root(archive, lambda root: None)
    ArchiveStore.open(archive)
    edit_root(archive, change)
    with pytest.raises(ArchiveError, match=r"damaged|does not allow"):
        ArchiveStore.open(archive)


def test_later_versions_and_foreign_stores_are_refused(archive: Path, tmp_path: Path) -> None:
    import zarr

    edit_root(archive, lambda root: root["attributes"][ABOUT].update(format_version=2))
    with pytest.raises(ArchiveError, match="version 2, this xmrcae reads up to 1"):
        ArchiveStore.open(archive)
    zarr.create_group(tmp_path / "group.zarr", attributes={"a": 1})
    with pytest.raises(ArchiveError, match="no archive of xmrcae's"):
        ArchiveStore.open(tmp_path / "group.zarr")
    for content in (b"[1]", b"{", b"[" * 100_000, b"\xff\xfe"):
        (tmp_path / "group.zarr" / ROOT).write_bytes(content)
        with pytest.raises(ArchiveError, match=r"damaged|no archive of"):
            ArchiveStore.open(tmp_path / "group.zarr")
    (tmp_path / "file").write_bytes(b"")
    for url in (tmp_path / "none", tmp_path / "file", tmp_path):
        with pytest.raises(ArchiveError, match="no archive at"):
            ArchiveStore.open(url)


def test_names_and_places_that_are_not_there_are_refused(archive: Path) -> None:
    store = ArchiveStore.open(archive)
    for call in (
        lambda: store.static("none"),
        lambda: store.static("level_1/sst"),
        lambda: store.rows("none", 0),
        lambda: store.rows("masks", 0),
        lambda: store.attributes("none"),
    ):
        with pytest.raises(ArchiveError, match="has no"):
            call()
    for block, lane in ((-1, 0), (3, 0), (0, 2), (0, -1)):
        with pytest.raises(IndexError, match="must lie between"):
            store.rows("level_1/sst", block, lane)


def test_attributes_and_bytes_are_told(archive: Path) -> None:
    store = ArchiveStore.open(archive)
    assert store.attributes("")["title"] == "made up"
    assert store.attributes("level_1") == {"resolution": 2}
    assert store.attributes("level_1/sst") == {"of": "level_1/sst"}
    sizes, found = Folder(archive).sizes(), store.n_bytes()
    assert found["model"] + found["time"] == sum(sizes.values())
    assert found["time"] == sum(found["arrays"][path] for path in ROWS)
    chunks = sum(size for key, size in sizes.items() if key.startswith("level_1/sst/c/"))
    assert found["arrays"]["level_1/sst"] == chunks > 0
    assert found["arrays"]["beside/c"] == sizes["beside/c/c/0"]


def test_only_the_chunks_asked_for_are_read_and_the_last_are_kept(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(memory)
    seen: list[str] = []
    cat = MemoryFileSystem.cat_file

    def counted(self: Any, path: str, *args: Any, **kwargs: Any) -> bytes:
        seen.append(self._strip_protocol(path).removeprefix("/bucket/a.zarr/"))
        return cat(self, path, *args, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", counted)
    store = ArchiveStore.open(memory)
    assert seen == [ROOT]
    first = store.rows("level_1/sst", 1, 1)
    assert seen == [ROOT, "level_1/sst/c/1/1/0"]
    assert store.rows("level_1/sst", 1, 1).base is first.base
    monkeypatch.setattr("xmrcae.archive.store._CACHE", 2000)
    store.rows("level_1/sst", 0, 1)
    store.rows("level_1/sst", 1, 1)
    assert seen[2:] == ["level_1/sst/c/0/1/0", "level_1/sst/c/1/1/0"]
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0


def test_blocks_are_written_in_order_and_as_they_were_declared(tmp_path: Path) -> None:
    with ArchiveWriter.create(tmp_path, describe([]), fingerprint=CALL) as writer:
        writer.declare_rows("a", (3,), "i4", ["time", "lane", "dim"])
        for call in (
            lambda: writer.put_rows("a", 1, 0, np.zeros((2, 3), "i4")),
            lambda: writer.put_rows("a", 0, 0, np.zeros((5, 3), "i4")),
            lambda: writer.put_rows("a", 0, 0, np.zeros((2, 4), "i4")),
            lambda: writer.put_rows("a", 0, 2, np.zeros((2, 3), "i4")),
            lambda: writer.finish_block(1, {}),
            lambda: writer.finish_block(0, {"worst": float("nan")}),
            lambda: writer.commit(describe([4])),
        ):
            with pytest.raises(ValueError):
                call()
        with pytest.raises(TypeError, match=r"safe|equiv"):
            writer.put_rows("a", 0, 0, np.zeros((2, 3), "i8"))
        for dtype in ("M8[s]", "U3", object, "c8", "g"):
            with pytest.raises(TypeError, match="takes bool, integers and floats"):
                writer.put_static("b", np.zeros(3, dtype), ["dim"])


def test_what_is_appended_is_like_what_is_there(archive: Path) -> None:
    with ArchiveWriter.append(archive, fingerprint=CALL) as writer:
        with pytest.raises(ValueError, match=r"what was declared is .*'float32'"):
            writer.declare_rows("level_1/sst", (70,), "f4", ["time", "lane_0", "dim_0"])
        with pytest.raises(ValueError, match="nothing that is there changes"):
            writer.put_static("masks", STATIC["masks"], ["dim_0"])


def test_no_warning_is_shown_and_no_filter_changed(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        write(tmp_path / "a.zarr")
        read(tmp_path / "a.zarr")
        assert warnings.filters == before


def test_threads_share_a_store(archive: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = ArchiveStore.open(archive)
    places = [(path, block, lane) for path in ROWS for block in range(3) for lane in range(2)] * 4
    with ThreadPoolExecutor(8) as pool:
        for place, values in zip(
            places, pool.map(lambda place: store.rows(*place), places), strict=True
        ):
            np.testing.assert_array_equal(values, make_rows(*place))
