"""CUDA graphs of a stage: the same fit as without, the same memory, and what happens without any.

Without a GPU, the function that would be recorded runs again at each replay, into the memory of the
first results.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers import make_field, make_two_variables, random_network, with_land

import xmrcae
from xmrcae.core import graphs
from xmrcae.core.evaluation import Evaluation
from xmrcae.core.graphs import Graphs
from xmrcae.core.network import Network

OPTIONS: dict[str, Any] = {"levels": 2, "max_epochs": 25, "tolerance": None, "progress": False}


def tensors(values: Any) -> Iterator[torch.Tensor]:
    """All tensors of a nest of tuples and dicts."""
    if isinstance(values, torch.Tensor):
        yield values
    else:
        for value in values.values() if isinstance(values, dict) else values:
            yield from tensors(value)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of graphs, as they are replayed; on the CPU if there is no GPU."""
    names: list[str] = []
    run = Graphs.run

    def watched(self: Graphs, name: str, function: Callable[[], Any]) -> Any:
        names.append(name)
        return run(self, name, function)

    def again(self: Graphs, function: Callable[[], Any]) -> Callable[[], Any]:
        result = function()

        def replay() -> Any:
            for old, new in zip(tensors(result), tensors(function()), strict=True):
                old.copy_(new)
            return result

        return replay

    monkeypatch.setattr(Graphs, "run", watched)
    if not torch.cuda.is_available():
        monkeypatch.setattr(Graphs, "_recorded", again)
        monkeypatch.setattr(
            Evaluation, "can_replay", lambda self, data, level: self.network.encodes
        )
    return names


def test_writing_to_the_tied_vector_sets_the_parameters() -> None:
    network = random_network(*with_land())
    before = network.vector()
    vector = network.tied_vector()
    assert torch.equal(network.vector(), before)
    vector.copy_(before.flip(0))
    assert torch.equal(network.vector(), before.flip(0))
    assert len(network.state_dict()) == len(list(network.parameters()))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_replayed_fit_is_that_without_graphs(
    replays: list[str], monkeypatch: pytest.MonkeyPatch, solver: str
) -> None:
    field = make_two_variables(n_times=20)
    one = xmrcae.MrCAE(solver=solver, **OPTIONS).fit(field)
    assert {"objective", "metric"} == set(replays)
    n_replays = len(replays)
    monkeypatch.setattr(Evaluation, "can_replay", lambda self, data, level: False)
    other = xmrcae.MrCAE(solver=solver, **OPTIONS).fit(field)
    assert len(replays) == n_replays
    assert list(one.history) == list(other.history)
    loss, expected = one.history["validation_loss"], other.history["validation_loss"]
    if solver == "adam":  # without a power, nothing differs in the last bit
        assert loss.equals(expected)
    assert float(loss[-1]) == pytest.approx(float(expected[-1]), rel=0.1)


def test_networks_without_encoders_are_not_recorded(replays: list[str]) -> None:
    make_field().mrcae.fit(encoder="projection", **OPTIONS | {"max_epochs": 3})
    assert replays == []


class Recorder:
    """What torch does on a GPU where a recording fails, as it did until 2.12.

    A recording that was broken off by what it may not contain leaves the memory allocator waiting
    for its end: from then on, emptying its cache is an error.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.attempts, self.records, self.broken, self.waiting = 0, False, False, False
        for name, value in {
            "synchronize": lambda: None,
            "empty_cache": self.empty_cache,
            "graph_pool_handle": lambda: (0, 1),
            "Stream": object,
            "stream": contextlib.nullcontext,
            "CUDAGraph": lambda: self,
            "is_current_stream_capturing": lambda: self.records,
        }.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(Evaluation, "can_replay", lambda self, data, level: True)
        patch.setattr(graphs, "_failed", [])

    def empty_cache(self) -> None:
        """Give unused memory back."""
        if self.waiting:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    def capture_begin(self, pool: Any, capture_error_mode: str) -> None:
        """Begin to record."""
        self.attempts, self.records, self.waiting = self.attempts + 1, True, True

    def capture_end(self) -> None:
        """End it; an error if it is broken."""
        self.records = False
        if self.broken:
            raise RuntimeError("operation failed due to a previous error during capture")
        self.waiting = False

    def reset(self) -> None:
        """Give up what was recorded."""

    def replay(self) -> None:
        """Do again what was recorded."""


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """A GPU that records."""
    return Recorder(monkeypatch)


def failing(recorder: Recorder, error: BaseException, *, broken: bool) -> Callable[..., Any]:
    """A forward pass that fails while it is recorded, and breaks the recording off or not."""
    forward = Network.forward

    def fail(*args: Any) -> Any:
        if recorder.records:
            recorder.broken = broken
            raise error
        return forward(*args)

    return fail


@pytest.mark.parametrize("broken", [True, False])
@pytest.mark.parametrize("kind", [RuntimeError, torch.cuda.OutOfMemoryError])
def test_a_fit_goes_on_without_graphs_where_none_can_be_recorded(
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: type[RuntimeError],
    broken: bool,
) -> None:
    error = kind("not permitted when stream is capturing")
    monkeypatch.setattr(Network, "forward", failing(recorder, error, broken=broken))
    options = OPTIONS | {"solver": "adam", "max_epochs": 11}
    found = make_field().mrcae.fit(**options)
    assert recorder.attempts == 1  # a second one would meet what the first has left
    (record,) = (r for r in caplog.records if "CUDA graph" in r.message)
    assert "(not permitted when stream is capturing)" in record.message
    monkeypatch.undo()
    expected = make_field().mrcae.fit(**options)
    assert found.history["train_loss"].equals(expected.history["train_loss"])


@pytest.mark.parametrize("broken", [True, False])
def test_ctrl_c_stops_a_fit_that_is_being_recorded(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, broken: bool
) -> None:
    monkeypatch.setattr(Network, "forward", failing(recorder, KeyboardInterrupt(), broken=broken))
    model = xmrcae.MrCAE(**OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        model.fit(make_field())
    assert model.partial and not recorder.records
