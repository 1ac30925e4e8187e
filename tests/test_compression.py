"""The passes over an archive: how often they read, what they hold, and what random fields find of many snapshots."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers import Prepared, counted, make_field, make_options, prepare_with

from xmrcae.grid import blocks, compression, survey
from xmrcae.passes import first_pass


@pytest.mark.filterwarnings("ignore:.*singular vector")
@pytest.mark.parametrize("chunks", [(40, 4, 7), (7, 3, 30)])
def test_chunks_of_few_rows_are_read_once_a_pass(
    monkeypatch: pytest.MonkeyPatch, chunks: tuple[int, ...]
) -> None:
    field = make_field(n_times=40)
    monkeypatch.setattr(blocks, "PIXEL_BLOCK_BYTES", 8 * 40 * 30 * 2)  # bands of two rows
    lazy, reads = counted(field, chunks)
    prepare_with(lazy, levels=2, memory=4 * field.nbytes - 1)
    assert sorted(reads.values())[len(reads) // 2] == 2  # and again where two batches meet
    assert set(reads.values()) <= {2, 3}


def test_data_that_fit_into_memory_are_read_once() -> None:
    lazy, reads = counted(make_field(n_times=40), (7, 21, 30))
    prepare_with(lazy, levels=2)
    assert set(reads.values()) == {1}


@pytest.mark.filterwarnings("ignore:.*singular vector")
def test_chunks_that_memory_has_no_room_for_are_read_again_and_change_no_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    field = make_field(n_times=40)
    monkeypatch.setattr(blocks, "PIXEL_BLOCK_BYTES", 8 * 40 * 30 * 2)
    whole = prepare_with(field, levels=2, memory=1.2e6)
    lazy, reads = counted(field, (5, 21, 30))
    monkeypatch.setattr(
        "xmrcae.passes.survey",
        lambda *args, **kwargs: survey.survey(*args, **kwargs | {"memory": field.nbytes / 3}),
    )
    monkeypatch.setattr(
        compression,
        "batches",
        lambda array, **kwargs: blocks.batches(array, memory=field.nbytes / 3),
    )
    found = prepare_with(lazy, levels=2, memory=4 * field.nbytes - 1)
    assert min(reads.values()) > 2
    full = prepare_with(field, levels=2, memory=4 * field.nbytes - 1)
    assert all(
        np.array_equal(a.samples, b.samples)
        for a, b in zip(found.training, full.training, strict=True)
    )
    assert len(whole.training[0].samples) >= len(full.training[0].samples)


# Very many snapshots


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hundreds of snapshots be very many."""
    for module in (survey, compression):
        monkeypatch.setattr(module, "GRAM_LIMIT", 100, raising=False)
        monkeypatch.setattr(module, "RANDOM_RANK", 40, raising=False)


def wavy(n_times: int, noise: float) -> xr.DataArray:
    """Twelve waves of falling size, and noise."""
    rng = np.random.default_rng(0)
    y, x = np.linspace(0, 3, 31)[:, None], np.linspace(0, 4, 47)
    modes = np.stack([np.cos(k * y / 2 + k) * np.sin((k % 5 + 1) * x) for k in range(12)])
    amplitudes = rng.standard_normal((n_times, 12)) / np.arange(1, 13)
    values = np.tensordot(amplitudes, modes, 1) + noise * rng.standard_normal((n_times, 31, 47))
    return xr.DataArray(values.astype(np.float32), dims=("time", "y", "x"))


def captured(found: Prepared) -> np.ndarray:
    """Variance that the training samples hold of each pixel."""
    data = found.training[-1]
    n = float((data.constant**2).sum())
    return (data.samples[1:].astype(np.float64) ** 2).sum(0)[data.counts] / n


@pytest.mark.filterwarnings("ignore:.*singular vector")
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_random_fields_find_what_the_gram_matrix_finds(many: None, noise: float) -> None:
    field = wavy(400, noise)
    found = prepare_with(field, levels=2, tolerance=0.5)
    data = found.training[-1]
    train = field.isel(time=(found.split == "training").values).values.astype(np.float64)
    scaled = (train - train.mean(0)) / found.standard.scale[0]
    sizes = np.linalg.svd(scaled.reshape(len(scaled), -1), compute_uv=False)
    n_vectors = data.rank - 1
    assert 5 <= n_vectors <= 14 and len(data.samples) == data.rank
    lengths = np.linalg.norm(
        data.samples[1:].reshape(n_vectors, -1)[:, data.counts.ravel()], axis=1
    )
    np.testing.assert_allclose(lengths, sizes[:n_vectors], rtol=2e-2 if noise else 1e-5)
    kept, total = captured(found), scaled.var(0).ravel()
    assert (kept <= total * (1 + 1e-4)).all()
    assert kept.sum() == pytest.approx(total.sum() * (1 - data.variance_left_out), rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*singular vector")
def test_random_fields_leave_as_little_as_dask_does(many: None) -> None:
    field = wavy(400, 0.05)
    found = prepare_with(field, levels=2, tolerance=0.5, energy=0.0)
    train = field.isel(time=(found.split == "training").values).values.astype(np.float64)
    scaled = ((train - train.mean(0)) / found.standard.scale[0]).reshape(len(train), -1)
    _, sizes, _ = dask.compute(*da.linalg.svd_compressed(da.from_array(scaled), k=40, seed=0))
    ours, theirs = captured(found).sum() * len(train), (sizes**2).sum()
    assert ours > theirs * (1 - 1e-3)


def test_many_snapshots_are_decomposed_alike_in_any_chunks(many: None) -> None:
    field = wavy(300, 0.05)
    one, other = (
        prepare_with(each, levels=2, tolerance=0.5) for each in (field, field.chunk(time=13, y=4))
    )
    for a, b in zip(one.training + one.validation, other.training + other.validation, strict=True):
        assert np.array_equal(a.samples, b.samples) and a.variance_left_out == b.variance_left_out


def test_what_random_fields_miss_is_warned_of(many: None) -> None:
    with pytest.warns(
        UserWarning,
        match=r"40 singular vectors stand for the 280 training .* beyond 100 there are 40",
    ):
        prepare_with(wavy(400, 0.5), levels=2, tolerance=0.1)


def test_an_archive_of_less_than_half_of_memory_is_read_once_a_pass(
    many: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = wavy(400, 0.05)
    monkeypatch.setattr(blocks, "PIXEL_BLOCK_BYTES", 8 * 400 * 47 * 2)  # bands of two rows
    lazy, reads = counted(field, (25, 31, 47))
    prepare_with(lazy, levels=2, tolerance=0.5, memory=2.3 * field.nbytes)
    assert set(reads.values()) == {2}


def test_products_with_random_fields_take_a_small_share_of_memory(many: None) -> None:
    field = wavy(400, 0.05)
    first = first_pass(field, make_options({"levels": 2, "memory": field.nbytes / 4}))
    sizes = [each.nbytes for each in first.found.products.values()]
    assert 0 < sum(sizes) <= field.nbytes / 4 / 16


def test_data_in_memory_are_computed_by_as_many_threads_as_dask_is_told() -> None:
    def thread(band: np.ndarray) -> int:
        time.sleep(0.01)
        return threading.get_ident()

    bands = [slice(row, row + 1) for row in range(8)]
    with dask.config.set(num_workers=1):
        threads, _ = blocks.over_batch(thread, np.zeros((2, 1, 8, 4)), bands)
    assert len(threads) == 8 and len(set(threads)) == 1


# Memory

PROGRAM = """
import json, sys
import dask, dask.array as da, numpy as np, xarray as xr
import xmrcae

def made(block_info=None):
    (t0, t1), (y0, y1), (x0, x1) = block_info[None]["array-location"]
    t, y, x = np.arange(t0, t1)[:, None, None], np.arange(y0, y1)[None, :, None], np.arange(x0, x1)[None, None]
    noise = np.random.default_rng([t0, y0, x0]).standard_normal((t1 - t0, y1 - y0, x1 - x0), dtype=np.float32)
    waves = np.cos(t / 9 + y / 40) * np.sin(x / 70) + np.sin(t / 23) * np.cos(y / 90)
    return waves.astype(np.float32) + noise * np.float32(1e-3)

def field(shape, chunks):
    chunks = da.core.normalize_chunks(chunks, shape)
    return xr.DataArray(da.map_blocks(made, chunks=chunks, dtype=np.float32), dims=("time", "lat", "lon"))

def peak():
    # What getrusage tells begins with the peak of the process that started this one.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024

dask.config.set(scheduler="threads", num_workers=2)
options = dict(levels=3, channels=[[1]], max_epochs=2, progress=False, tolerance=0.1)
field((20, 40, 50), (5, 20, 50)).mrcae.fit(**options)
before = peak()
shape, chunks, memory = json.loads(sys.argv[1])
archive = field(shape, chunks)
model = archive.mrcae.fit(memory=memory, **options)
print(json.dumps({"archive": archive.nbytes, "taken": peak() - before}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
@pytest.mark.parametrize(
    ("shape", "chunks", "mib"),
    [
        ((800, 360, 720), (25, 90, 180), 512),
        pytest.param((320, 720, 1440), (20, 180, 360), 768, marks=pytest.mark.soak),
    ],
    ids=["half a degree", "a quarter of a degree"],
)
def test_memory_stays_under_its_bound(
    tmp_path: Path, shape: tuple[int, ...], chunks: tuple[int, ...], mib: int
) -> None:
    program, memory = tmp_path / "program.py", mib * 2**20
    program.write_text(PROGRAM)
    arguments = json.dumps([shape, chunks, memory])
    done = subprocess.run(
        [sys.executable, program, arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    found = json.loads(done.stdout)
    assert found["archive"] > 1.5 * memory
    assert found["taken"] < memory
