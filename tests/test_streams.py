"""What is computed where the network is, transfers beside it, is what a CPU computes from NumPy.

Without a GPU, torch's streams are stand-ins that note what they were asked for, in order.
"""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from dask.base import tokenize
from helpers import make_field, make_two_variables

import xmrcae
from xmrcae.codec import Codec
from xmrcae.core.network import Network
from xmrcae.core.streams import _streams, stream

GPU: Any = type("GPU", (), {"type": "cuda"})()
OPTIONS: dict[str, Any] = {"levels": 3, "max_epochs": 4, "progress": False, "device": "cpu"}


class Stream:
    """Notes in a common log who waits for whom."""

    device = torch.device("cpu")

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def __enter__(self) -> None:
        self.log.append(f"in {self.name}")

    def __exit__(self, *error: Any) -> None:
        self.log.append(f"out of {self.name}")

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> Any:
        return SimpleNamespace(synchronize=lambda: self.log.append(f"host waits for {self.name}"))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What streams are asked for; on the CPU if there is no GPU."""
    _streams.cache_clear()
    noted: list[str] = []
    names: Iterator[str] = iter(["there", "back"] * 1000)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(next(names), noted))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("here", noted))
    monkeypatch.setattr(torch.cuda, "stream", lambda each: each)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, by: noted.append(by.name))
    yield noted
    _streams.cache_clear()


def test_one_block_is_launched_before_the_results_of_another_are_waited_for(log) -> None:
    blocks = [[np.full(3, i), np.arange(3.0)] for i in range(3)]

    def function(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        log.append("computes")
        return [a + b, a.sum()]

    found = list(stream(function, blocks, GPU))
    for i, (total, all_of_a) in enumerate(found):
        np.testing.assert_array_equal(total, i + np.arange(3.0))
        assert all_of_a == 3 * i
    ends = [i for i, what in enumerate(log) if what == "host waits for back"]
    starts = [i for i, what in enumerate(log) if what == "computes"]
    assert starts[0] < starts[1] < ends[0] < starts[2] < ends[1] < ends[2]
    first = log[: starts[1]]
    order = ["in there", "out of there", "here waits for there", "computes"]
    order += ["back waits for here", "in back", "out of back"]
    assert [what for what in first if what in order][: len(order)] == order
    assert first[: starts[0]].count("here") == 2  # memory of both arrays is kept until computed
    assert first[starts[0] :].count("back") == 2  # and that of both results until copied


def test_arrays_of_any_layout_are_streamed_and_none_is_changed(log) -> None:
    array = np.arange(12.0).reshape(3, 4)
    array.flags.writeable = False
    reverse, across = array[::-1], array.T

    def function(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        return [a.add_(1), b.add_(1)]

    ((one, other),) = stream(function, [[reverse, across]], GPU)
    np.testing.assert_array_equal(one, reverse + 1)
    np.testing.assert_array_equal(other, across + 1)
    np.testing.assert_array_equal(array.ravel(), np.arange(12.0))


CASES: dict[str, tuple[dict[str, Any], Any]] = {
    "default": ({}, make_field),
    "monthly centres": ({"center": "month"}, make_field),
    "land filled": ({"fill": "harmonic"}, make_field),
    "two variables": ({}, make_two_variables),
    "float64": ({}, lambda n_times: make_field(n_times).astype(np.float64)),
    "injection": ({"restriction": "injection"}, make_field),
}


def with_gaps(data: Any) -> Any:
    """Some snapshots of a field, of which one lacks two values and one is empty."""
    time = xr.DataArray(np.arange(data.sizes["time"]), dims="time")
    gaps = ((time == 3) & (data["lat"] == data["lat"][5])) | (time == 40)
    return data.where(~gaps)


@pytest.mark.parametrize("name", CASES)
def test_the_device_computes_what_the_host_does(log, monkeypatch, name: str) -> None:
    options, make = CASES[name]
    data = make(n_times=70)
    model = xmrcae.MrCAE(**OPTIONS | options).fit(data)
    given = with_gaps(data)
    scores, codes = model.score(given), model.encode(given)
    fields = [model.decode(codes, level=level) for level in range(3)]
    assert not log
    monkeypatch.setattr(Codec, "_is_on_cpu", False)
    monkeypatch.setattr("xmrcae.codec.stream", lambda f, blocks, device: stream(f, blocks, GPU))
    del model.fitted.codec._conversion
    xr.testing.assert_allclose(model.score(given), scores, rtol=1e-5)
    for level, field in enumerate(fields):
        again = model.decode(codes, level=level)
        xr.testing.assert_allclose(again, field, rtol=1e-6)
        assert again.astype(np.float32).equals(field.astype(np.float32)) or name == "float64"
    found = model.encode(given)
    for level in range(3):
        one, other = (each[f"level_{level}"]["encoding"] for each in (found, codes))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    assert log.count("host waits for back") >= 3 * 5


def test_the_same_streams_serve_all_calls(log) -> None:
    for _ in range(3):
        list(stream(lambda a: [a], [[np.zeros(2)]], GPU))
    assert _streams.cache_info().misses == 1


def test_dask_tells_a_model_on_a_gpu_from_the_same_on_a_cpu(monkeypatch) -> None:
    codec = make_field().mrcae.fit(**OPTIONS).fitted.codec
    on_cpu = tokenize(codec)
    assert tokenize(codec) == on_cpu
    monkeypatch.setattr(Network, "device", torch.device("meta"))
    assert tokenize(codec) != on_cpu


@pytest.mark.filterwarnings("error")
def test_codes_of_any_layout_are_decoded_and_none_is_changed() -> None:
    codec = make_field().mrcae.fit(tolerance=None, **OPTIONS).fitted.codec
    codes = np.random.default_rng(0).standard_normal((40, sum(codec.sizes))).astype(np.float32)
    season = np.zeros(40, dtype=np.int64)
    expected = codec.decode(codes, season, level=2)
    codes.flags.writeable = False
    np.testing.assert_array_equal(codec.decode(codes, season, level=2), expected)
    backward = codes[::-1].copy()[::-1]
    np.testing.assert_array_equal(codec.decode(backward, season, level=2), expected)
    np.testing.assert_array_equal(codec.decode(codes[:1], season[:1], level=2), expected[:1])
    assert codec.decode(codes[:0], season[:0], level=2).shape == (0, *expected.shape[1:])


def test_infinite_values_are_told_before_those_that_are_too_large() -> None:
    field = make_field()
    model = field.mrcae.fit(**OPTIONS)
    bad = field.copy()
    y, x = np.argwhere(np.isfinite(field.values).all(0))[0]
    bad[1, y, x], bad[2, y, x] = np.inf, 1e37
    for function in (model.score, model.encode):
        with pytest.raises(ValueError, match="hold 1 infinite values"):
            function(bad)
