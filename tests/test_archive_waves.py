"""Integers predicted from their neighbours: undone exactly, alike however they are laid out."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmrcae.archive.packing import packed_bytes
from xmrcae.archive.waves import BITS, LIMIT, TERMS, Predictor

SIZES = st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 9))


def make_steps(
    seed: int, shape: tuple[int, int, int], bound: int, share: float = 0.7
) -> tuple[np.ndarray, np.ndarray]:
    """Kept pixels (y, x) and steps (t, pixel) up to a bound."""
    random = np.random.default_rng(seed)
    kept = random.random(shape[1:]) < share
    return kept, random.integers(-bound, bound, (shape[0], kept.sum()), endpoint=True)


def make_weights(seed: int, bound: int) -> list[int]:
    return np.random.default_rng(seed).integers(-bound, bound, len(TERMS), endpoint=True).tolist()


def literal_differences(kept: np.ndarray, weights: list[int], steps: np.ndarray) -> np.ndarray:
    """The definition in Python's own integers, one place after the other."""
    where = [tuple(pixel) for pixel in np.argwhere(kept).tolist()]
    at = {(t, *where[p]): int(q) for (t, p), q in np.ndenumerate(steps)}
    left = np.zeros(steps.shape, np.int32)
    for i, (t, p) in enumerate(np.ndindex(steps.shape)):
        y, x = where[p]
        total = sum(
            w * at.get((t - a, y - b, x - c), 0)
            for w, (a, b, c) in zip(weights, TERMS, strict=True)
        )
        difference = int(steps[t, p]) - ((total + 2 ** (BITS - 1)) >> BITS)
        left.flat[i] = (difference + 2**31) % 2**32 - 2**31
    return left


@settings(deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    SIZES,
    st.sampled_from([0, 1, 50, 2**15, LIMIT]),
    st.sampled_from([0, 3, 4096, 2**16]),
    st.sampled_from([0.0, 0.3, 0.8, 1.0]),
)
def test_differences_are_those_of_the_definition_and_undone_exactly(
    seed: int, shape: tuple[int, int, int], bound: int, largest: int, share: float
) -> None:
    kept, steps = make_steps(seed, shape, bound, share)
    weights = make_weights(seed, largest)
    predictor = Predictor(kept, weights)
    differences = predictor.differences(steps)
    np.testing.assert_array_equal(differences, literal_differences(kept, weights, steps))
    again = predictor.undo(differences)
    assert (differences.dtype, again.dtype) == (np.int32, np.int32)
    np.testing.assert_array_equal(again, steps)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_steps_and_weights_are_exact(sign: int) -> None:
    kept, steps = np.ones((5, 6), bool), np.full((4, 30), LIMIT)
    steps[:, ::2] *= -1
    weights = [sign * 2**16] * len(TERMS)
    predictor = Predictor(kept, weights)
    differences = predictor.differences(steps)
    np.testing.assert_array_equal(differences, literal_differences(kept, weights, steps))
    np.testing.assert_array_equal(predictor.undo(differences), steps)


@pytest.mark.parametrize("times", [0, 1, 2, 5])
def test_the_first_snapshots_are_undone_alone(times: int) -> None:
    kept, steps = make_steps(1, (6, 11, 8), 100)
    predictor = Predictor(kept, make_weights(1, 3000))
    differences = predictor.differences(steps)
    np.testing.assert_array_equal(predictor.undo(differences[:times]), steps[:times])
    np.testing.assert_array_equal(predictor.differences(steps[:times]), differences[:times])


def test_blocks_larger_than_what_is_held_at_once_are_undone() -> None:
    kept, steps = make_steps(2, (5, 300, 200), 100)
    predictor = Predictor(kept, make_weights(2, 3000))
    np.testing.assert_array_equal(predictor.undo(predictor.differences(steps)), steps)


def test_many_snapshots_of_few_pixels_are_undone_in_little_memory() -> None:
    kept, steps = make_steps(4, (4000, 6, 9), 100, share=1.0)
    predictor = Predictor(kept, make_weights(4, 3000))
    differences = predictor.differences(steps)
    tracemalloc.start()
    again = predictor.undo(differences)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(again, steps)
    assert peak < 8 * again.nbytes


def test_steps_and_differences_stay_as_they_were_given() -> None:
    kept, steps = make_steps(3, (3, 6, 5), 100)
    predictor = Predictor.fit(kept, steps)
    before = steps.copy()
    differences = predictor.differences(steps)
    np.testing.assert_array_equal(steps, before)
    packed = differences.copy()
    predictor.undo(differences)
    np.testing.assert_array_equal(differences, packed)


def test_weights_that_made_the_steps_are_found() -> None:
    kept = np.ones((60, 50), bool)
    noise = np.random.default_rng(4).integers(-1000, 1000, (12, 3000)).astype(np.int32)
    chosen = {(0, 0, 1): 1200, (0, 1, 0): 800, (0, 0, 2): -300, (1, 0, 0): 1500}
    weights = [chosen.get(term, 0) for term in TERMS]
    found = Predictor.fit(kept, Predictor(kept, weights).undo(noise)).weights
    np.testing.assert_allclose(found, weights, atol=60)


def test_smooth_steps_leave_smaller_differences() -> None:
    t, y, x = np.meshgrid(np.arange(12), np.arange(40), np.arange(50), indexing="ij")
    field = np.round(1000 * np.sin(x / 5 + t / 3) * np.cos(y / 7)).astype(int)
    kept = np.random.default_rng(5).random((40, 50)) < 0.9
    steps = field[:, kept]
    assert np.abs(Predictor.fit(kept, steps).differences(steps)).mean() < np.abs(steps).mean() / 10


@pytest.mark.parametrize(
    "shape", [(0, 4, 4), (1, 1, 1), (1, 1, 9), (9, 1, 1), (5, 9, 1), (1, 5, 5)]
)
@pytest.mark.parametrize("bound", [0, 7, LIMIT])
def test_any_steps_can_be_fitted(shape: tuple[int, int, int], bound: int) -> None:
    for share in (0.0, 1.0):
        kept, steps = make_steps(6, shape, bound, share)
        for given_steps in (steps, np.full_like(steps, bound)):
            predictor = Predictor.fit(kept, given_steps)
            np.testing.assert_array_equal(
                predictor.undo(predictor.differences(given_steps)), given_steps
            )


def test_a_fit_does_not_depend_on_how_steps_lie_in_memory() -> None:
    kept, steps = make_steps(7, (6, 20, 20), 100)
    assert (
        Predictor.fit(kept, steps).weights == Predictor.fit(kept, np.asfortranarray(steps)).weights
    )


@pytest.mark.parametrize("value", [LIMIT + 1, -LIMIT - 1])
def test_steps_beyond_the_limit_are_refused(value: int) -> None:
    predictor = Predictor(np.ones((1, 2), bool), [0] * len(TERMS))
    for call in (predictor.differences, lambda steps: Predictor.fit(predictor.kept, steps)):
        with pytest.raises(ValueError, match=r"within -2\*\*30 and 2\*\*30, got .*" + str(value)):
            call(np.array([[0, value]]))


@pytest.mark.parametrize("steps", [np.zeros((2, 3), int), np.zeros(4, int), np.zeros((2, 4))])
def test_steps_that_do_not_fit_are_refused(steps: np.ndarray) -> None:
    predictor = Predictor(np.ones((2, 2), bool), [0] * len(TERMS))
    for call in (predictor.differences, predictor.undo):
        with pytest.raises(ValueError, match=r"integers of shape \(t, 4\)"):
            call(steps)


@pytest.mark.parametrize(
    "weights", [[0] * 16, [0.5] + [0] * 24, [2**21 + 1] + [0] * 24, [2**18] * 25]
)
def test_weights_that_are_not_exact_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights must"):
        Predictor(np.ones((2, 2), bool), weights)


def test_few_neighbours_predict_nearly_as_well() -> None:
    kept = np.random.default_rng(0).random((40, 50)) < 0.8
    noise = np.random.default_rng(1).integers(-5, 6, (30, kept.sum()), dtype=np.int32)
    weights = [2000 if term in [(0, 0, 1), (1, 0, 0)] else 3 for term in TERMS]
    steps = Predictor(kept, weights).undo(noise)
    every, few = (Predictor.fit(kept, steps, few_neighbours=few) for few in (False, True))
    assert np.count_nonzero(few.weights) < 6 < np.count_nonzero(every.weights)
    taken = [packed_bytes(each.differences(steps)) for each in (every, few)]
    assert taken[1] < 1.01 * taken[0]
    np.testing.assert_array_equal(few.undo(few.differences(steps)), steps)
