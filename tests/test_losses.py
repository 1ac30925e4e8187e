"""Losses, global metric and refinement mask against loops written from the paper's equations."""

import itertools

import numpy as np
import pytest
import torch
from helpers import DEVICE, columns, make_land, pixel_errors

from xmrcae.core import losses, masks
from xmrcae.core.matrices import Prolongation

BILINEAR = [[0.25, 0.5, 0.25], [0.5, 1.0, 0.5], [0.25, 0.5, 0.25]]


def tensor(array):
    """An array as a flat tensor."""
    return torch.as_tensor(np.ascontiguousarray(array).reshape(-1), device=DEVICE)


def everywhere(n):
    """Pixels that all count, or have data."""
    return torch.ones(n, dtype=torch.bool, device=DEVICE)


def field_pair(shape=(2, 11, 15), n=4, seed=0):
    """A reconstruction and its data, (sample, variable, y, x)."""
    return np.random.default_rng(seed).random((2, n, *shape))


def looped_errors(field, data):
    """Time-mean squared error of each pixel."""
    result = np.zeros(field.shape[1:])
    for index in np.ndindex(result.shape):
        result[index] = sum(
            (a[index] - b[index]) ** 2 for a, b in zip(field, data, strict=True)
        ) / len(field)
    return result


def errors_of(field, data):
    """The same by the package."""
    residual = columns(field - data)
    return pixel_errors(residual, torch.ones_like(residual[0]))


def looped_prolongation(coarse):
    """One field on every second point, interpolated to the finer grid: A.2 with replicated cells around."""
    rows, columns = coarse.shape
    around = np.pad(coarse, 1, mode="edge")
    fine = np.zeros((2 * rows + 5, 2 * columns + 5))
    for i in range(rows + 2):
        for j in range(columns + 2):
            for di in range(3):
                for dj in range(3):
                    fine[2 * i + di, 2 * j + dj] += BILINEAR[di][dj] * around[i, j]
    return fine[2:-2, 2:-2]


def looped_mask(errors, counts, epsilons, storable, dilation):
    """(3.8), widened and cut to storable cells, by loops over cells."""
    variables, rows, columns = storable.shape
    high = np.zeros((rows, columns), dtype=bool)
    for v in range(variables):
        for i in range(rows):
            for j in range(columns):
                around = [
                    errors[v, 2 * i + di, 2 * j + dj]
                    for di in range(3) for dj in range(3) if counts[v, 2 * i + di, 2 * j + dj]
                ]  # fmt: skip
                high[i, j] |= bool(around) and sum(around) / len(around) > epsilons[v]
    mask = np.zeros_like(high)
    for i, j in np.argwhere(high):
        mask[max(0, i - dilation) : i + dilation + 1, max(0, j - dilation) : j + dilation + 1] = (
            True
        )
    return mask & storable.any(0), not high.any()


def mask_case(seed=0):
    """Errors of two variables with land, and which cells are stored."""
    rng = np.random.default_rng(seed)
    counts = np.stack([make_land((31, 47), seed=s) for s in (1, 2)])
    counts[1, :, 30:] = False
    errors = rng.random((2, 31, 47)) ** 8
    errors[~counts] = 1e3
    cells = np.zeros((2, 15, 23), dtype=bool)
    for v, i, j in np.ndindex(cells.shape):
        cells[v, i, j] = counts[v, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].any()
    return errors, counts, np.array([0.2, 0.3]), cells


def mask_of(errors, counts, epsilons, storable, dilation):
    """The package's refinement mask."""
    mask, resolved = masks.refinement_mask(
        *(torch.as_tensor(a, device=DEVICE) for a in (errors, counts, epsilons, storable)),
        dilation=dilation,
    )
    return mask.cpu().numpy(), resolved


# Equations


def test_pixel_errors_are_means_over_time():
    field, data = field_pair()
    np.testing.assert_allclose(
        errors_of(field, data).cpu(), looped_errors(field, data).ravel(), rtol=1e-13
    )


def test_pixel_errors_of_a_compressed_set():
    rng = np.random.default_rng(0)
    residual = rng.random((30, 7))  # pixels, snapshots
    mean = residual.mean(1, keepdims=True)
    u, s, _ = np.linalg.svd(residual - mean, full_matrices=False)
    compressed = columns(np.concatenate([np.sqrt(7) * mean, u * s], axis=1).T)
    one = tensor(np.array([7**0.5] + [0.0] * 7))
    found = pixel_errors(compressed, one).cpu()
    np.testing.assert_allclose(found, (residual**2).mean(1), rtol=1e-13)


def test_mean_error_is_the_mean_over_counted_pixels():
    field, data = field_pair()
    counts = np.stack([make_land((11, 15), seed=s) for s in (0, 1)])
    errors = looped_errors(field, data)
    weights = counts / counts.sum()
    expected = sum(errors[i] for i in np.ndindex(errors.shape) if counts[i]) / counts.sum()
    assert float(losses.mean_error(errors_of(field, data), tensor(weights))) == pytest.approx(
        expected
    )


def test_mean_error_with_area_weights():
    field, data = field_pair()
    area = np.cos(np.linspace(-1, 1, 11))[:, None] * np.ones((2, 11, 15))
    errors = looped_errors(field, data)
    expected = sum(area[i] * errors[i] for i in np.ndindex(errors.shape)) / area.sum()
    assert float(
        losses.mean_error(errors_of(field, data), tensor(area / area.sum()))
    ) == pytest.approx(expected)


def test_max_error_runs_over_counted_pixels_and_variables():
    field, data = field_pair()
    counts = np.stack([make_land((11, 15), seed=s) for s in (0, 1)])
    field[:, ~counts] += 5
    errors = looped_errors(field, data)
    expected = max(errors[i] for i in np.ndindex(errors.shape) if counts[i])
    found, _ = losses.max_error(errors_of(field, data), tensor(counts))
    assert float(found) == pytest.approx(expected)


def test_gradient_of_the_maximum_is_one_at_the_counted_pixel_that_holds_it():
    errors, counts = tensor(np.array([0.5, 3.0, 2.0, 9.0])), tensor(np.array([1, 1, 1, 0]) > 0)
    assert losses.max_error(errors, counts)[1].tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("omega", [0, 0.3, 1])
def test_loss_weighs_mean_and_maximum(omega):
    loss = losses.combined(torch.tensor(2.0), torch.tensor(10.0), omega)
    assert float(loss) == pytest.approx(omega * 2 + (1 - omega) * 10)


def test_global_metric_is_that_of_the_prolonged_field():
    coarse, fine = (
        np.random.default_rng(0).random((3, 2, 5)),
        np.random.default_rng(1).random((3, 11, 23)),
    )
    prolonged = np.stack([looped_prolongation(looped_prolongation(field)) for field in coarse])
    errors = looped_errors(prolonged, fine)
    field = columns(coarse)
    shapes = [(1, 2, 5), (1, 5, 11), (1, 11, 23)]
    for a, b in itertools.pairwise(shapes):
        field = Prolongation(everywhere(a), everywhere(b), torch.float64)(field)
    found = pixel_errors(field - columns(fine), torch.ones_like(field[0]))
    weights = torch.full_like(found, 1 / len(found))
    largest, _ = losses.max_error(found, everywhere(len(found)))
    metric = losses.combined(losses.mean_error(found, weights), largest, 0.5)
    assert float(metric) == pytest.approx(0.5 * errors.mean() + 0.5 * errors.max(), rel=1e-13)


# The smooth maximum


@pytest.mark.parametrize("power", [2.0, 8.0, 32.0, 128.0])
def test_smooth_maximum_is_never_under_the_maximum(power):
    errors, counts = (
        tensor(np.random.default_rng(0).random(300)),
        tensor(np.random.default_rng(1).random(300) < 0.7),
    )
    largest = float(losses.max_error(errors, counts)[0])
    smooth = float(losses.smooth_max(errors, counts, power)[0])
    assert largest <= smooth <= largest * int(counts.sum()) ** (1 / power)


def test_smooth_maximum_approaches_the_maximum():
    errors, counts = tensor(np.random.default_rng(0).random(300)), everywhere(300)
    largest = float(errors.max())
    excess = [
        float(losses.smooth_max(errors, counts, power)[0]) - largest
        for power in (8.0, 32.0, 128.0, 2000.0)
    ]
    assert excess == sorted(excess, reverse=True)
    assert excess[-1] < 1e-3 * largest


def test_smooth_maximum_leaves_out_what_is_not_counted():
    errors, counts = tensor(np.random.default_rng(0).random(300)), tensor(np.arange(300) % 2 == 0)
    changed = torch.where(counts, errors, 1e9)
    for a, b in zip(
        losses.smooth_max(errors, counts, 8.0), losses.smooth_max(changed, counts, 8.0), strict=True
    ):
        assert torch.equal(a, b)
    assert not losses.smooth_max(changed, counts, 8.0)[1][~counts].any()


@pytest.mark.parametrize("power", [8.0, 128.0])
def test_gradient_of_the_smooth_maximum(power):
    errors, counts = tensor(np.random.default_rng(0).random(50)), everywhere(50)
    gradient = losses.smooth_max(errors, counts, power)[1]
    for pixel in errors.argsort(descending=True)[:5]:
        step = torch.zeros_like(errors)
        step[pixel] = 1e-6
        above, below = (
            float(losses.smooth_max(errors + sign * step, counts, power)[0]) for sign in (1, -1)
        )
        assert float(gradient[pixel]) == pytest.approx((above - below) / 2e-6, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_smooth_maximum_neither_overflows_nor_vanishes(size):
    errors = tensor(np.array([0.5, 1.0, 0.9], dtype=np.float32)) * size
    value, gradient = losses.smooth_max(errors, everywhere(3), 128.0)
    assert float(value) == pytest.approx(size, rel=1e-3)
    assert torch.isfinite(gradient).all()


# The refinement mask


@pytest.mark.parametrize("dilation", [0, 1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_refinement_mask_is_that_of_plain_loops(dilation, seed):
    case = mask_case(seed)
    mask, resolved = mask_of(*case, dilation)
    expected, expected_resolved = looped_mask(*case, dilation)
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(mask, expected)
    assert resolved is expected_resolved is False


@pytest.mark.parametrize("dilation", [0, 1, 2])
def test_refinement_mask_stays_within_stored_cells(dilation):
    errors, counts, epsilons, storable = mask_case()
    storable[:, 3:9, 4:12] = False
    mask, _ = mask_of(errors, counts, epsilons * 0, storable, dilation)
    np.testing.assert_array_equal(mask, storable.any(0))


def test_errors_on_land_refine_nothing():
    _errors, counts, epsilons, storable = mask_case()
    quiet = np.where(counts, 0.0, 1e6)
    mask, resolved = mask_of(quiet, counts, epsilons, storable, 1)
    assert resolved and not mask.any()


def test_one_variable_is_enough():
    errors, counts, epsilons, storable = mask_case()
    quiet = np.zeros_like(errors)
    quiet[1, 11, 13] = 10
    mask, resolved = mask_of(quiet, np.ones_like(counts), epsilons, np.ones_like(storable), 0)
    assert not resolved
    np.testing.assert_array_equal(np.argwhere(mask), [[5, 6]])


def test_each_variable_has_its_own_epsilon():
    errors, counts, _, storable = mask_case()
    everywhere = np.ones_like(counts)
    epsilons = np.array([0.5, 2.0])
    for value, expected in ((1.0, True), (0.4, False)):
        mask, _ = mask_of(
            np.full_like(errors, value), everywhere, epsilons, np.ones_like(storable), 0
        )
        assert mask.all() == mask.any() == expected
    _, resolved = mask_of(
        np.stack([0.4 * np.ones((31, 47)), 1.9 * np.ones((31, 47))]),
        everywhere,
        epsilons,
        storable,
        0,
    )
    assert resolved


def test_error_equal_to_epsilon_is_resolved():
    errors, counts, _, storable = mask_case()
    mask, resolved = mask_of(
        np.full_like(errors, 0.25), np.ones_like(counts), np.array([0.25, 0.25]), storable, 1
    )
    assert resolved and not mask.any()


def test_errors_are_averaged_over_counted_pixels_alone():
    errors, counts = np.zeros((1, 3, 3)), np.zeros((1, 3, 3), dtype=bool)
    counts[0, 0, 0], errors[0, 0, 0] = True, 1.0
    mask, resolved = mask_of(errors, counts, np.array([0.5]), np.ones((1, 1, 1), dtype=bool), 0)
    assert mask.all() and not resolved
