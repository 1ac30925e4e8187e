"""A network as few arrays is the network, and arrays that do not fit it are refused."""

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_field, make_two_variables

import xmrcae
from xmrcae.core.network import Network
from xmrcae.core.state import NetworkState
from xmrcae.io.network_arrays import from_arrays, parameters, to_arrays

QUICK: dict[str, Any] = {"levels": 2, "max_epochs": 2, "progress": False}


def a_state(encoder: str, n_variables: int) -> NetworkState:
    data = make_field() if n_variables == 1 else make_two_variables()
    model = xmrcae.MrCAE(encoder=encoder, channels=[[1, 2], [3]], **QUICK).fit(data)
    return model.fitted.codec.network.state()


def assert_equal(one: Any, other: Any) -> None:
    """Values, types, shapes and order are the same, in any nest."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()
    elif isinstance(one, dict):
        assert list(one) == list(other)
        assert_equal(list(one.values()), list(other.values()))
    elif isinstance(one, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal(a, b)
    else:
        assert one == other


@pytest.mark.parametrize("encoder", ["filters", "projection"])
@pytest.mark.parametrize("n_variables", [1, 2])
def test_a_network_comes_back(encoder: str, n_variables: int) -> None:
    state = a_state(encoder, n_variables)
    assert state.masks[1] and len(state.counts) == n_variables
    arrays, about = to_arrays(state)
    assert all(array.ndim == 1 for array in arrays.values())
    again = from_arrays(arrays, json.loads(json.dumps(about)))
    for field in fields(NetworkState):
        assert_equal(getattr(again, field.name), getattr(state, field.name))


def test_a_network_without_levels_comes_back() -> None:
    valid = torch.ones(1, 15, 23, dtype=torch.bool)
    kinds = {"widening": "parallel", "restriction": "injection", "dtype": torch.float64}
    state = Network([valid[:, 1::2, 1::2], valid], valid, **kinds).state()
    again = from_arrays(*to_arrays(state))
    for field in fields(NetworkState):
        assert_equal(getattr(again, field.name), getattr(state, field.name))


@pytest.mark.parametrize("name", ["weights", "bits", "projection"])
@pytest.mark.parametrize("change", [-1, 1])
def test_arrays_of_another_network_are_refused(name: str, change: int) -> None:
    arrays, about = to_arrays(a_state("projection", 1))
    arrays[name] = np.resize(arrays[name], len(arrays[name]) + change)
    with pytest.raises(ValueError, match="of the network"):
        from_arrays(arrays, about)


def test_parameters_are_those_of_the_network_in_its_order() -> None:
    state = a_state("filters", 1)
    shapes = parameters(state.channels, 1, encodes=True)
    assert list(shapes.items()) == [(name, w.shape) for name, w in state.weights.items()]
