"""What a GPU must give as a CPU does: the same bits each time, models for any device, its memory back."""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import DEVICE, make_field, make_two_variables

import xmrcae
from xmrcae.core.graphs import Graphs
from xmrcae.core.stage import Objective

pytestmark = pytest.mark.gpu

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
    "blocks": ({"memory": 3e6}, False),
}


def assert_same_bits(one: xmrcae.MrCAE, other: xmrcae.MrCAE, data: Any) -> None:
    """Compare history and codes; codes follow from all weights of encoders, or of decoders."""
    assert one.history.drop_vars("seconds").equals(other.history.drop_vars("seconds"))
    assert one.encode(data).equals(other.encode(data))
    assert one.reconstruct(data).equals(other.reconstruct(data))


def test_every_recipe_has_data_here() -> None:
    assert set(DATA) == set(xmrcae.recipes)


@pytest.mark.parametrize("name", DATA)
def test_fits_of_a_recipe_are_equal_to_the_bit(name: str) -> None:
    data, options = DATA[name](), dict(xmrcae.recipes[name]) | SHORT
    one, other = (xmrcae.MrCAE(**options).fit(data) for _ in range(2))
    assert_same_bits(one, other, data)
    assert float((one.reconstruct(data) - data).std()) < 0.7 * float(data.std())


@pytest.mark.parametrize("name", FITS)
def test_two_fits_are_equal_to_the_bit(name: str) -> None:
    options, several = FITS[name]
    data = make_two_variables() if several else make_field()
    one, other = (xmrcae.MrCAE(**OPTIONS | options).fit(data) for _ in range(2))
    assert_same_bits(one, other, data)


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
    for name in data.data_vars:
        scale = float(data[name].std())
        found, expected = opened.reconstruct(data)[name], model.reconstruct(data)[name]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


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
