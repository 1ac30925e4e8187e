"""CUDA graphs of a stage: the same fit as without, the same memory, and what happens without any.

Without a GPU, the function that would be recorded runs again at each replay, into the memory of the
first results.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers import make_field, make_two_variables, random_network, with_land

import xmrcae
from xmrcae.core.evaluation import Evaluation
from xmrcae.core.graphs import Graphs, _say_once

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


def test_a_fit_goes_on_without_graphs_where_none_can_be_recorded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Refusing:
        def __init__(self) -> None:
            raise RuntimeError("refused")

    _say_once.cache_clear()
    monkeypatch.setattr(Evaluation, "can_replay", lambda self, data, level: True)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 0))
    monkeypatch.setattr(torch.cuda, "Stream", Refusing)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    model = make_field().mrcae.fit(**OPTIONS)
    assert not model.partial
    assert len([r for r in caplog.records if "no CUDA graph (refused)" in r.message]) == 1
