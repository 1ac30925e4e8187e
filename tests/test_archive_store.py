"""Arrays of an archive on any store: read back, and never read wrong."""

import http.server
import json
import pickle
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

pytest.importorskip("zarr", minversion="3.1.4")

from xmrcae.archive.folder import Folder
from xmrcae.archive.format import ABOUT, ArchiveError, dumps
from xmrcae.archive.journal import taken_up
from xmrcae.archive.store import ROOT, ArchiveStore, chunk_of, n_visible
from xmrcae.archive.store_writer import ArchiveWriter, forgotten

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
    "labels/c": np.arange(9) % 2 == 0,
}
ROWS: dict[str, tuple[tuple[int, ...], str]] = {
    "level_0/codes": ((30,), "i4"),
    "level_1/sst": ((70,), "i4"),
    "level_1/sst_exact": ((70,), "f8"),
    "level_1/sst_gaps": ((70,), "u1"),
    "rows/field": ((4, 5), "f4"),
    "season": ((), "i2"),
}


def describe(lengths: list[int], lanes: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {
        "format_version": 1,
        "rows_per_block": 4,
        "lanes": list(lanes),
        "blocks": {"length": lengths},
    }


def make_rows(path: str, block: int, lane: int) -> np.ndarray:
    shape, dtype = ROWS[path]
    random = np.random.default_rng([block, lane, list(ROWS).index(path)])
    values = random.integers(-100, 100, (LENGTHS[block % 3], *shape))
    return values.astype(dtype) if dtype != "u1" else (values > 0).astype(dtype)


def put_blocks(writer: ArchiveWriter, count: int, lanes: tuple[int, ...]) -> None:
    names = ["time", *(f"lane_{i}" for i in range(len(lanes)))]
    for block in range(writer.n_complete, writer.n_before + count):
        for path, (shape, _) in ROWS.items():
            dims = [*names, *(f"dim_{i}" for i in range(len(shape)))]
            for lane in range(int(np.prod(lanes))):
                rows = make_rows(path, block, lane)
                writer.put_rows(path, lane, rows, dims, attrs={"of": path})
        writer.finish_block({"length": LENGTHS[block % 3]})
    before = writer.about["blocks"]["length"] if writer.n_before else []
    lengths = [*before, *(record["length"] for record in writer.finished)]
    writer.commit(describe(lengths, lanes), {"title": "made up"})


@contextmanager
def creating(
    url: Any, about: dict[str, Any], call: Any = CALL, options: Any = None
) -> Iterator[ArchiveWriter]:
    """Begin an archive, or go on with it."""
    folder = Folder(url, options)
    with folder.lock():
        journal = taken_up(folder, n_visible(folder), call, appending=False)
        assert journal is not None
        with forgotten(folder, journal["blocks"]):
            yield ArchiveWriter(folder, journal, about)


@contextmanager
def appending(url: Any, call: Any = CALL, options: Any = None) -> Iterator[ArchiveWriter | None]:
    """Begin to append to an archive, or go on with it; None if all is there."""
    store = ArchiveStore.open(url, storage_options=options)
    folder = Folder(url, options)
    with folder.lock():
        journal = taken_up(folder, store.n_blocks, call, appending=True)
        if journal is None:
            yield None
        else:
            yield ArchiveWriter(folder, journal, store.about, store.arrays)


def write(url: Any, lanes: tuple[int, ...] = (2,), options: Any = None) -> None:
    with creating(url, describe([], lanes), options=options) as writer:
        for path, values in STATIC.items():
            writer.put_static(path, values, [f"dim_{i}" for i in range(values.ndim)], {"k": 1})
        put_blocks(writer, 3, lanes)


def append(url: Any, lanes: tuple[int, ...] = (2,), options: Any = None) -> None:
    with appending(url, options=options) as writer:
        if writer is not None:
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
    filesystem = s3fs.S3FileSystem(**options)
    filesystem.mkdir("s3://bucket")
    yield "s3://bucket/a.zarr", options
    filesystem.rm("s3://bucket", recursive=True)  # all servers of a process share their buckets
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
            for path in ("level_0/codes", "rows/field"):
                np.testing.assert_array_equal(group[path][8:11, 1], make_rows(path, 2, 1))
            assert dict(group["level_1"].attrs) == {}


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
    with creating(other, describe([])) as writer:
        writer.put_static("model/weights", STATIC["model/weights"] + 1, ["dim_0"])
        writer.commit(describe([]), {})
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
    ):
        with pytest.raises(ArchiveError, match="has no"):
            call()
    for block, lane in ((-1, 0), (3, 0), (0, 2), (0, -1)):
        with pytest.raises(IndexError, match="must lie between"):
            store.rows("level_1/sst", block, lane)


def test_attributes_and_bytes_are_told(archive: Path) -> None:
    store = ArchiveStore.open(archive)
    root = json.loads((archive / ROOT).read_bytes())
    assert root["attributes"]["title"] == "made up"
    assert store.arrays["level_1/sst"]["attributes"] == {"of": "level_1/sst"}
    sizes, found = Folder(archive).sizes(), store.n_bytes()
    assert found["model"] + found["time"] == sum(sizes.values())
    assert found["time"] == sum(found["arrays"][path] for path in ROWS)
    chunks = sum(size for key, size in sizes.items() if key.startswith("level_1/sst/c/"))
    assert found["arrays"]["level_1/sst"] == chunks > 0
    assert found["arrays"]["labels/c"] == sizes["labels/c/c/0"]


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
    monkeypatch.setattr("xmrcae.archive.store.CACHE", 2000)  # of 1120 bytes a chunk
    store = ArchiveStore.open(memory)
    assert seen == [ROOT]
    first = store.rows("level_1/sst", 1, 1)
    assert seen == [ROOT, "level_1/sst/c/1/1/0"]
    assert store.rows("level_1/sst", 1, 1).base is first.base
    store.rows("level_1/sst", 0, 1)
    store.rows("level_1/sst", 1, 1)
    assert seen[2:] == ["level_1/sst/c/0/1/0", "level_1/sst/c/1/1/0"]
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0


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
