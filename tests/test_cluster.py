"""What is lazy, fits and archives on a dask cluster, whose workers and scheduler may be lost."""

import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import dask
import numpy as np
import pytest
import torch
import xarray as xr
from dask.base import tokenize
from distributed import Client, LocalCluster, Status
from helpers import make_field, make_two_variables
from test_archive_writer import files
from test_checkpoint import assert_same_fit

import xmrcae
from xmrcae.archive.store_writer import ArchiveWriter
from xmrcae.codec import Codec

pytestmark = pytest.mark.minimum

OPTIONS: dict[str, Any] = {"levels": 2, "channels": [[1]], "max_epochs": 5, "progress": False}
TASKS = ("encode", "decode", "reconstruct", "score")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client of two workers, each a process with one thread; the scheduler within `client.as_current()` only."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, protocol="tcp", host="127.0.0.1",
            dashboard_address=None, memory_limit=0,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


@pytest.fixture(scope="module")
def field() -> xr.DataArray:
    """An example of the paper, small, in memory."""
    return xmrcae.datasets.drifting_mode(n_times=60, size=31).load()


@pytest.fixture(scope="module")
def model(field: xr.DataArray) -> xmrcae.MrCAE:
    """A model that was fitted without the cluster."""
    return field.mrcae.fit(**OPTIONS)


def results(model: xmrcae.MrCAE, field: xr.DataArray) -> dict[str, Any]:
    """All that is lazy on lazy data."""
    codes = model.encode(field)
    return {
        **{f"encode_{level}": codes[f"level_{level}"]["encoding"] for level in range(2)},
        **{f"decode_{level}": model.decode(codes, level=level) for level in range(2)},
        "reconstruct": model.reconstruct(field),
        "stack": model.stack(codes),
    }


@pytest.mark.parametrize("memory", [None, 3e5])
@pytest.mark.filterwarnings("ignore:.*singular vector")
def test_a_fit_of_lazy_data_is_that_of_data_in_memory(
    client: Client, field: xr.DataArray, memory: Any
) -> None:
    expected = field.mrcae.fit(memory=memory, **OPTIONS)
    with client.as_current():
        assert_same_fit(expected, field.chunk(time=7, y=10).mrcae.fit(memory=memory, **OPTIONS))


def test_results_are_those_of_data_in_memory(
    client: Client, no_compute: Callable[[], Any], model: xmrcae.MrCAE, field: xr.DataArray
) -> None:
    lazy = field.chunk(time=7, y=10)
    with no_compute():
        found = results(model, lazy)
    with client.as_current():
        computed = dask.compute(found)[0]
        score = model.score(lazy)
    for name, expected in results(model, field).items():
        assert found[name].chunks is not None and expected.chunks is None
        assert np.array_equal(computed[name], expected, equal_nan=True), name
    assert score.identical(model.score(lazy))
    xr.testing.assert_allclose(score, model.score(field), rtol=1e-12)


#: One entry for each model that this process has unpickled.
UNPICKLED: list[str] = []


class Counted(Codec):
    """Notes, in each process, when it is unpickled."""

    def __reduce__(self) -> Any:
        return unpickle, (super().__reduce__(),)


def unpickle(reduced: tuple[Callable[..., Any], tuple[Any, ...]]) -> Counted:
    """What has been pickled; it goes by the scheduler, so it has to be counted again."""
    build, arguments = reduced
    UNPICKLED.append(arguments[-1])
    result = build(*arguments)
    result.__class__ = Counted
    return result


def count_unpickled() -> int:
    """How many models this process has unpickled since the last call."""
    count = len(UNPICKLED)
    UNPICKLED.clear()
    return count


@pytest.mark.parametrize("task", TASKS)
def test_the_model_is_sent_once_a_worker(
    client: Client, field: xr.DataArray, model: xmrcae.MrCAE, task: str
) -> None:
    counted = pickle.loads(pickle.dumps(model))
    counted.fitted.codec.__class__ = Counted
    codes, lazy = model.encode(field).chunk(time=2), field.chunk(time=2)
    client.run(count_unpickled)
    with client.as_current():
        result = getattr(counted, task)(codes if task == "decode" else lazy)
        result.compute()
    counts = client.run(count_unpickled)
    assert len(counts) == 2 and max(counts.values()) == 1, counts


@pytest.mark.parametrize("options", [
    {}, {"widening": "parallel", "activation": "relu"}, {"center": "month", "tolerance": None, "channels": [[2], []]},
], ids=str)  # fmt: skip
def test_a_pickled_model_is_small_and_the_same(options: dict[str, Any]) -> None:
    ds = make_two_variables(shape=(61, 90))
    model = ds.mrcae.fit(["sst", "ssh"], **OPTIONS | options)
    content = pickle.dumps(model.fitted.codec)
    seasons = 12 if options.get("center") == "month" else 1
    assert (
        len(content) < ds["sst"][0].size * 2 * (4 * seasons + 8) + 20_000
    )  # centre, mean, and what has data
    again = pickle.loads(content)
    values, season = np.stack([ds["sst"], ds["ssh"]], 1), np.arange(20) % seasons
    codes = model.fitted.codec.encode(values, season)
    assert np.array_equal(again.encode(values, season), codes)
    assert np.array_equal(
        again.squared_errors(values, season), model.fitted.codec.squared_errors(values, season)
    )
    for level in range(2):
        part = codes[:, : int(model.encoding_sizes[level])]
        expected = model.fitted.codec.decode(part, season, level=level)
        assert np.array_equal(again.decode(part, season, level=level), expected, equal_nan=True)


def test_graphs_tell_a_model_from_what_it_becomes_in_going_on() -> None:
    model = make_field().mrcae.fit(**OPTIONS)
    again = pickle.loads(pickle.dumps(model))
    assert tokenize(again.fitted.codec) == tokenize(model.fitted.codec)
    with torch.no_grad():
        next(again.fitted.codec.network.parameters()).add_(1e-3)
    assert tokenize(again.fitted.codec) != tokenize(model.fitted.codec)


def slowly(block: np.ndarray, *, log: str, seconds: float) -> np.ndarray:
    """Hand on a block, late, and note in which process."""
    if block.size:
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
    return block


def slow(field: xr.DataArray, log: Path, seconds: float = 0.1) -> xr.DataArray:
    """The field in 20 chunks that take their time."""
    lazy = field.chunk(time=3)
    late = lazy.data.map_blocks(
        slowly, log=str(log), seconds=seconds, dtype=field.dtype, meta=lazy.data._meta
    )
    return lazy.copy(data=late)


def kill_one(log: Path) -> None:
    """Kill the process of a worker, in the middle of a chunk, once four chunks have been begun."""
    deadline = time.monotonic() + 60
    while not (log.exists() and log.read_text().count("\n") >= 4):
        assert time.monotonic() < deadline, "nothing was computed"
        time.sleep(0.02)
    process = int(log.read_text().split()[-1])
    assert process != os.getpid()
    os.kill(process, signal.SIGKILL)


def assert_killed_in_the_middle(log: Path) -> None:
    """Check that chunks were computed again, and by a worker that was not there at first; but not all of them."""
    begun = log.read_text().split()
    assert 20 < len(begun) < 40, len(begun)
    assert len(set(begun)) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("task", ["encode", "reconstruct"])
def test_a_worker_that_is_killed_costs_its_tasks_alone(
    client: Client, model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path, task: str
) -> None:
    log = tmp_path / "processes"
    lazy, expected = getattr(model, task)(slow(field, log)), getattr(model, task)(field)
    if task == "encode":
        lazy, expected = lazy["level_1"]["encoding"], expected["level_1"]["encoding"]
    future = client.compute(lazy)
    kill_one(log)
    assert not future.done()
    assert np.array_equal(future.result(timeout=120), expected, equal_nan=True)
    assert_killed_in_the_middle(log)
    client.wait_for_workers(2, timeout=60)


@pytest.mark.slow
def test_a_worker_may_be_killed_during_the_passes(
    client: Client, model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path
) -> None:
    log = tmp_path / "processes"
    killer = Thread(target=kill_one, args=(log,))
    killer.start()
    with client.as_current():
        found = slow(field, log).mrcae.fit(**OPTIONS)
    killer.join()
    assert_same_fit(model, found)
    assert len(log.read_text().split()) > 20
    client.wait_for_workers(2, timeout=60)


def archive(model: xmrcae.MrCAE, field: xr.DataArray, url: Path) -> None:
    """Write an archive of blocks of four chunks."""
    pytest.importorskip("pcodec")
    model.to_archive(field, url, max_error=0.1, rows_per_block=12, progress=False)


def test_a_lost_scheduler_stops_an_archive_and_the_same_call_goes_on(
    model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(model, field, tmp_path / "whole")
    log, finish, finished = tmp_path / "processes", ArchiveWriter.finish_block, []

    def lose() -> None:
        n = len(log.read_text())
        while len(log.read_text()) == n:  # until a chunk of the next block is begun
            time.sleep(0.01)
        cluster.close()

    def finish_and_lose(self: ArchiveWriter, record: dict[str, Any]) -> None:
        finish(self, record)
        finished.append(self.n_complete)
        if finished == [1]:
            Thread(target=lose).start()

    monkeypatch.setattr(ArchiveWriter, "finish_block", finish_and_lose)
    threads = {
        "n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": None,
    }  # fmt: skip
    with LocalCluster(**threads) as cluster, Client(cluster.scheduler_address, timeout=1):
        with pytest.raises(CancelledError):
            archive(model, slow(field, log), tmp_path / "a")
    assert finished == [1]
    with pytest.raises(xmrcae.ArchiveError, match="was stopped: the same call finishes it"):
        xmrcae.open_archive(tmp_path / "a")
    with LocalCluster(**threads) as cluster, Client(cluster.scheduler_address):
        archive(model, slow(field, log), tmp_path / "a")
    assert finished == [1, 2, 3, 4, 5]
    assert files(tmp_path / "a") == files(tmp_path / "whole")


@contextmanager
def killing(cluster: LocalCluster, *, every: float) -> Iterator[list[int]]:
    """Kill the process of a worker, drawn at random, after each so many seconds; list them.

    One that is still starting is left alone: its nanny would not start another.
    """
    killed: list[int] = []
    done, rng = Event(), np.random.default_rng(0)

    def kill() -> None:
        while not done.wait(every):
            processes = [nanny.process for nanny in cluster.workers.values() if nanny.process]
            working = [each.pid for each in processes if each.status == Status.running]
            if working:
                killed.append(int(rng.choice(working)))
                os.kill(killed[-1], signal.SIGKILL)

    killer = Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        done.set()
        killer.join()


@pytest.mark.soak
def test_workers_may_be_killed_every_twenty_seconds(
    model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path
) -> None:
    archive(model, field, tmp_path / "whole")
    lazy = slow(field, tmp_path / "processes", seconds=5)
    with (
        # one task may be where a worker is killed more often than the three times that are usual
        dask.config.set({"distributed.scheduler.allowed-failures": 100}),
        LocalCluster(
            n_workers=4, threads_per_worker=1, dashboard_address=None, memory_limit=0
        ) as cluster,
        Client(cluster),
        killing(cluster, every=20) as killed,
    ):
        found = lazy.mrcae.fit(**OPTIONS)
        codes = model.encode(lazy).compute()
        archive(model, lazy, tmp_path / "a")
    assert len(killed) == len(set(killed)) >= 4
    assert_same_fit(model, found)
    assert codes.identical(model.encode(field))
    assert files(tmp_path / "a") == files(tmp_path / "whole")
