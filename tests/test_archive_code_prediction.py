"""Codes come back from their differences, which take less than the codes do."""

import numpy as np
import pytest

from xmrcae.archive.code_prediction import code_differences, code_weights, fit_codes, undo_codes
from xmrcae.archive.packing import packed_bytes
from xmrcae.archive.waves import LIMIT


@pytest.fixture
def codes():
    """Codes that vary slowly, (snapshot, code)."""
    steps = np.random.default_rng(0).standard_normal((200, 60)).cumsum(0).cumsum(0)
    return np.rint(steps).astype(np.int32)


@pytest.mark.parametrize("weights", [[0, 0], [7000, -3001], [-(2**16), 2**16]])
@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_codes_come_back(weights, n):
    codes = np.random.default_rng(0).integers(-LIMIT, LIMIT, (n, 7), dtype=np.int32)
    found = undo_codes(code_differences(codes, weights), weights)
    np.testing.assert_array_equal(found, codes)
    assert found.dtype == np.int32


def test_the_prediction_is_the_one_of_the_formula():
    codes = np.array([[100], [-7], [12]], dtype=np.int32)
    found = code_differences(codes, [2000, -3000])
    expected = [100, -7 - (2000 * 100 + 2048) // 4096, 12 - (-7 * 2000 - 300000 + 2048) // 4096]
    np.testing.assert_array_equal(found[:, 0], expected)


def test_differences_take_less_than_codes(codes):
    differences = code_differences(codes, fit_codes(codes))
    assert packed_bytes(differences) < packed_bytes(codes) / 2


def test_codes_of_archives_without_weights_are_as_they_are_stored(codes):
    (weights,) = code_weights({"levels": [{}]})
    np.testing.assert_array_equal(undo_codes(codes, weights), codes)
