"""Base maps come back from few integers."""

import numpy as np
import pytest
from helpers import make_land

from xmrcae.archive.base import base_maps, quantise_base
from xmrcae.archive.waves import LIMIT

SHAPE = 21, 30


@pytest.mark.parametrize("seasons", [1, 12])
def test_maps_come_back_within_half_a_step_of_their_terms(seasons):
    kept = make_land(SHAPE)
    maps = 1e3 + np.random.default_rng(0).standard_normal((seasons, kept.sum()))
    differences, _, step, read = quantise_base(maps, kept, 0.1, seasons)
    assert differences.dtype == np.int32 and step == 0.1
    error = read - maps
    assert 0.04 < np.abs(error).max() and np.sqrt((error**2).sum(0)).max() <= 0.05 * seasons**0.5


def test_few_fourier_terms_hold_an_annual_cycle():
    kept = make_land(SHAPE)
    phase = np.random.default_rng(0).random(kept.sum())
    maps = 5 + np.cos(2 * np.pi * (np.arange(12)[:, None] / 12 + phase))
    differences, _, _, read = quantise_base(maps, kept, 1e-6, 3)
    assert len(differences) == 3
    np.testing.assert_allclose(read, maps, atol=2e-6)


def test_maps_far_from_zero_take_a_step_that_integers_hold():
    kept = make_land(SHAPE)
    maps = np.full((1, kept.sum()), 1e12)
    _, _, step, read = quantise_base(maps, kept, 1e-9, 1)
    assert step == 1e12 / LIMIT
    np.testing.assert_allclose(read, maps, rtol=1e-9)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("n_terms", [1, 3, 12])
def test_maps_read_are_those_of_what_is_stored_to_the_bit(n_terms, few):
    kept = make_land(SHAPE)
    maps = 1e3 + np.random.default_rng(0).standard_normal((12, kept.sum()))
    differences, weights, step, read = quantise_base(maps, kept, 0.1, n_terms, few_neighbours=few)
    np.testing.assert_array_equal(base_maps(differences, kept, weights, step, 12), read)
