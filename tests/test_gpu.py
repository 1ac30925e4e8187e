"""What a GPU must give as a CPU does: the same bits each time, models for any device, memory back.

Without a GPU, the CPU computes what does not need one: all of it in `make test-gpu`, and what is
quick in other runs too.
"""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from distributed import Client, Nanny, Scheduler, SpecCluster
from helpers import DEVICE, make_field, make_two_variables
from test_archive_writer import files

import xmrcae
from xmrcae.core.graphs import Graphs
from xmrcae.core.stage import Objective

pytestmark = pytest.mark.usefixtures("one_thread")

#: What takes a CPU a minute in all.
long_on_a_cpu = pytest.mark.skipif(
    DEVICE.type == "cpu" and "XMRCAE_TEST_GPU" not in os.environ,
    reason="no GPU; `make test-gpu` runs this on a CPU too",
)

SHORT: dict[str, Any] = {"max_epochs": 12, "progress": False, "device": DEVICE.type}
OPTIONS: dict[str, Any] = {"levels": 2} | SHORT


def example(name: str) -> xr.DataArray:
    """A small example of the paper."""
    return getattr(xmrcae.datasets, name)(n_times=40, size=63).load()


#: Data that each recipe can be fitted to.
DATA: dict[str, Callable[[], xr.DataArray]] = {
    "two_modes": lambda: example("two_modes"),
    "drifting_mode": lambda: example("drifting_mode"),
    "channel_flow": lambda: make_field(24, (47, 63), globe=False, land=False),
    "isotropic_turbulence": lambda: make_field(24, (63, 63), globe=False, land=False),
    "sst": lambda: make_field(24, (45, 90)),
}

#: Kinds of fits: options, and whether to fit two variables.
FITS: dict[str, tuple[dict[str, Any], bool]] = {
    "default": ({}, False),
    "no masks": ({"tolerance": None, "levels": 3}, False),
    "two variables": ({}, True),
    "adam": ({"solver": "adam"}, False),
    "sketch": ({"sketch": 4}, False),
    "parallel, no anchor": ({"widening": "parallel", "anchor": 0.0}, False),
    "relu": ({"activation": "relu"}, False),
    "size of the encoding": ({"encoder": "filters", "encoding_size": 300}, False),
    "projection": ({"encoding_size": 300}, False),
    "projection of two variables": ({"encoder": "projection"}, True),
}


def assert_same_bits(one: xmrcae.MrCAE, other: xmrcae.MrCAE, data: Any) -> None:
    """Compare history and codes; codes follow from all weights of encoders, or of decoders."""
    assert one.history.drop_vars("seconds").equals(other.history.drop_vars("seconds"))
    assert one.encode(data).equals(other.encode(data))
    assert one.reconstruct(data).equals(other.reconstruct(data))


def test_every_recipe_has_data_here() -> None:
    assert set(DATA) == set(xmrcae.recipes)


@long_on_a_cpu
@pytest.mark.parametrize("name", DATA)
def test_fits_of_a_recipe_are_equal_to_the_bit(name: str) -> None:
    data, options = DATA[name](), dict(xmrcae.recipes[name]) | SHORT
    one, other = (xmrcae.MrCAE(**options).fit(data) for _ in range(2))
    assert_same_bits(one, other, data)
    assert float((one.reconstruct(data) - data).std()) < 0.7 * float(data.std())


@long_on_a_cpu
@pytest.mark.parametrize("name", FITS)
def test_two_fits_are_equal_to_the_bit(name: str) -> None:
    options, several = FITS[name]
    data = make_two_variables() if several else make_field()
    one, other = (xmrcae.MrCAE(**OPTIONS | options).fit(data) for _ in range(2))
    assert_same_bits(one, other, data)


@long_on_a_cpu
def test_fits_in_blocks_are_equal_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmrcae.core.training.block_bytes", lambda device, memory: 6e5)
    one, other = (xmrcae.MrCAE(**OPTIONS).fit(make_field()) for _ in range(2))
    assert_same_bits(one, other, make_field())


def test_no_bit_of_a_code_depends_on_blocks() -> None:
    field = make_field(70)
    model = xmrcae.MrCAE(**OPTIONS).fit(field)
    whole = model.encode(field)["level_1"]["encoding"]
    for size in (1, 7, 33):
        parts = [
            model.encode(field[start : start + size])["level_1"]["encoding"]
            for start in range(0, 70, size)
        ]
        assert np.array_equal(xr.concat(parts, "time"), whole, equal_nan=True)


def test_a_saved_model_gives_the_same_on_a_cpu(tmp_path: Any) -> None:
    data = make_two_variables()
    model = xmrcae.MrCAE(**OPTIONS).fit(data)
    model.save(tmp_path / "model.nc")
    opened = xmrcae.open_model(tmp_path / "model.nc")
    assert opened.fitted.codec.network.device.type == "cpu"
    for name in data.data_vars:
        scale = float(data[name].std())
        found, expected = opened.reconstruct(data)[name], model.reconstruct(data)[name]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


def test_a_saved_model_gives_the_same_bits_where_it_was_fitted(tmp_path: Any) -> None:
    data = make_field()
    model = xmrcae.MrCAE(**OPTIONS).fit(data)
    model.save(tmp_path / "model.nc")
    opened = xmrcae.open_model(tmp_path / "model.nc", device=DEVICE.type)
    assert opened.fitted.codec.network.device.type == DEVICE.type
    assert opened.encode(data).equals(model.encode(data))
    assert opened.reconstruct(data).equals(model.reconstruct(data))


def test_an_interrupted_fit_leaves_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    field, calls, evaluate = make_field(), iter(range(40)), Objective.__call__

    def stopping(self: Objective, *args: Any) -> Any:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return evaluate(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "__call__", stopping)
        model = xmrcae.MrCAE(**OPTIONS)
        with pytest.raises(KeyboardInterrupt):
            model.fit(field)
    assert model.partial
    assert np.isfinite(model.reconstruct(field).where(field.notnull(), 0)).all()
    assert not xmrcae.MrCAE(**OPTIONS).fit(field).partial


# Several GPUs


def archive(model: xmrcae.MrCAE, field: xr.DataArray, folder: Path) -> None:
    """Write one archive."""
    model.to_archive(field, folder, max_error=0.1, progress=False)


def device_of(model: xmrcae.MrCAE) -> tuple[str, str]:
    """The first GPU that this process sees, and the kind of device on which the model computes."""
    first = os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0]
    return first, model.fitted.codec.network.device.type


@pytest.fixture(scope="module")
def cluster() -> Iterator[Client]:
    """A worker for each GPU, which sees it first, as dask-cuda does; two workers without a GPU."""
    gpus = [str(number) for number in range(torch.cuda.device_count() or 2)]
    workers = {}
    for number, gpu in enumerate(gpus):
        env = {"CUDA_VISIBLE_DEVICES": ",".join(gpus[number:] + gpus[:number])}
        workers[gpu] = {"cls": Nanny, "options": {"nthreads": 1, "env": env}}
    scheduler = {"cls": Scheduler, "options": {"dashboard": False, "port": 0}}
    with (
        SpecCluster(scheduler=scheduler, workers=workers) as started,
        Client(started, set_as_default=False) as client,
    ):
        yield client


def test_each_worker_computes_on_its_own_gpu(cluster: Client, tmp_path: Path) -> None:
    field = make_field(24)
    model = xmrcae.MrCAE(**OPTIONS).fit(field)
    seen = cluster.run(device_of, model)
    assert sorted(seen.values()) == [(str(number), DEVICE.type) for number in range(len(seen))]
    with cluster.as_current():
        codes = model.encode(field.chunk(time=5)).compute()
    xr.testing.assert_identical(codes, model.encode(field))

    archive(model, field, tmp_path / "here")
    folders = {worker: tmp_path / f"on {number}" for number, worker in enumerate(seen)}
    written = [
        cluster.submit(archive, model, field, folder, workers=[worker])
        for worker, folder in folders.items()
    ]
    cluster.gather(written)
    for folder in folders.values():
        assert files(folder) == files(tmp_path / "here")


# What a CPU has no part in


@pytest.mark.gpu
def test_stages_are_replayed_from_graphs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    names, record = [], Graphs._recorded

    def watched(self: Graphs, function: Callable[[], Any]) -> Any:
        replay = record(self, function)
        names.append(replay.__name__ if replay is not function else "refused")
        return replay

    monkeypatch.setattr(Graphs, "_recorded", watched)
    model = xmrcae.MrCAE(**OPTIONS).fit(make_field())
    stages = (model.history[name].values for name in ("level", "group"))
    n_stages = len(set(zip(*stages, strict=True)))
    assert names == ["replay"] * 2 * n_stages
    assert "CUDA graph" not in caplog.text


@pytest.mark.gpu
def test_a_fit_gives_its_memory_back() -> None:
    field = make_field()
    xmrcae.MrCAE(**OPTIONS).fit(field)  # what libraries keep for good
    gc.collect()
    before = torch.cuda.memory_allocated()
    model = xmrcae.MrCAE(**OPTIONS).fit(field)
    assert torch.cuda.memory_allocated() > before
    del model
    gc.collect()
    assert torch.cuda.memory_allocated() <= before
