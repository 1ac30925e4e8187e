"""What computes stencils on a GPU, kernels and torch alone, against the sparse matrices.

Without a GPU, Triton's interpreter runs the kernels on the CPU.
"""

import logging
import sys

import pytest
import torch
from helpers import DEVICE, full_network, random_network, random_samples, with_land

from xmrcae.core import matrices
from xmrcae.core.matrices import StencilMatrix, encoding_shape, grid_matrix, stencils
from xmrcae.core.tables import StencilTables


def interpret(patch):
    """Let Triton run kernels in its interpreter if there is no GPU."""
    if DEVICE.type == "cpu":
        patch.setenv("TRITON_INTERPRET", "1")


with pytest.MonkeyPatch.context() as patch:
    interpret(patch)  # Triton looks when it is first imported, and when a kernel is defined
    try:
        from xmrcae.core import kernels
    except ImportError:
        kernels = None

needs_triton = pytest.mark.skipif(kernels is None, reason="Triton is not installed")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Triton looks again while it runs."""
    interpret(monkeypatch)


@pytest.fixture(params=["tables", pytest.param("kernels", marks=needs_triton)])
def kind(request):
    """The class under test."""
    return StencilTables if request.param == "tables" else kernels.StencilKernels


def tolerance(dtype):
    """Of sums in another order, beside their largest: at most 400 numbers are summed here."""
    return {torch.float32: 2e-6, torch.float64: 4e-15}[dtype]


def assert_near(found, expected):
    """Compare a result with that of the sparse matrices, which is on the CPU."""
    assert found.device.type == DEVICE.type
    assert found.dtype == expected.dtype
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    limit = tolerance(expected.dtype) * scale
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=limit)


def random(*shape, dtype=torch.float64, seed=0):
    """Random numbers on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


def pair(kind, monkeypatch, shape, *, variables=1, margin=0, factors=False, dtype=torch.float64):
    """One operator of a grid with holes, by sparse matrices on the CPU and by the other class."""
    size = variables, *encoding_shape(shape)
    cells = random(*size) > -1 if size[1] > 1 else torch.ones(size, dtype=torch.bool)
    per_entry = random(variables, size[1] * size[2], 9, dtype=dtype) if factors else None
    matrix = grid_matrix(shape, cells, margin=margin, factors=per_entry)
    monkeypatch.setattr(matrices, "stencils", lambda device_type: kind)
    per_entry = None if per_entry is None else per_entry.to(DEVICE)
    return matrix, grid_matrix(shape, cells.to(DEVICE), margin=margin, factors=per_entry)


CASES = {
    "encoder with factors": {"shape": (7, 11), "factors": True},
    "decoder with replicated cells": {"shape": (7, 11), "margin": 1},
    "several variables": {"shape": (7, 5), "variables": 3, "margin": 1},
    "variables with factors": {"shape": (5, 7), "variables": 2, "factors": True},
    "one cell": {"shape": (3, 3)},
    "one cell, replicated": {"shape": (3, 3), "margin": 1, "variables": 2},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_samples", [1, 20, 130])
@pytest.mark.parametrize("case", CASES)
def test_products_are_those_of_the_sparse_matrices(kind, monkeypatch, case, n_samples, dtype):
    matrix, other = pair(kind, monkeypatch, dtype=dtype, **CASES[case])
    weights = random(2, matrix.n_taps, dtype=dtype)
    pixels = random(matrix.shape[1], n_samples, dtype=dtype, seed=1)
    cells = random(2, matrix.shape[0], n_samples, dtype=dtype, seed=2)
    for name, *arguments in (
        ("gather", weights, pixels),
        ("scatter", weights, cells),
        ("weight_gradient", cells, pixels),
    ):
        found = getattr(other, name)(*(argument.to(DEVICE) for argument in arguments))
        assert_near(found, getattr(matrix, name)(*arguments))


def test_scattering_is_that_of_the_sparse_matrices(kind, monkeypatch):
    matrix, other = pair(kind, monkeypatch, (7, 11), factors=True)
    weights = random(9)
    assert (matrix.scattering(weights) != other.scattering(weights.to(DEVICE))).nnz == 0


@pytest.mark.parametrize(("n_cells", "n_samples"), [(0, 3), (2, 0)])
def test_nothing_gives_nothing(kind, n_cells, n_samples):
    entry = torch.arange(n_cells, device=DEVICE)
    operator = kind(entry, entry, entry, (n_cells, 4), 3)
    cells = torch.ones(2, n_cells, n_samples, device=DEVICE)
    pixels, weights = torch.ones(4, n_samples, device=DEVICE), torch.ones(2, 3, device=DEVICE)
    assert operator.gather(weights, pixels).shape == (2, n_cells, n_samples)
    assert torch.equal(operator.scatter(weights, cells), torch.zeros_like(pixels))
    assert torch.equal(operator.weight_gradient(cells, pixels), torch.zeros_like(weights))


@pytest.mark.parametrize("step", [1, 2])
def test_fields_may_be_part_of_larger_ones(kind, monkeypatch, step):
    _, operator = pair(kind, monkeypatch, (7, 11), margin=1)
    weights = random(2, 9).to(DEVICE)
    pixels = random(77, 90).to(DEVICE)[:, 7:83:step]
    cells = random(2, operator.shape[0], 90).to(DEVICE)[:, :, 7:83:step]
    assert not (pixels.is_contiguous() or cells.is_contiguous())
    for method, *arguments in (
        (operator.gather, weights, pixels),
        (operator.scatter, weights, cells),
        (operator.weight_gradient, cells, pixels),
    ):
        copies = [argument.contiguous() for argument in arguments]
        assert torch.equal(method(*arguments), method(*copies))


@pytest.fixture
def rows():
    """Where the 77 pixels of an operator are in a field of 100 rows, in no order."""
    return torch.randperm(100, generator=torch.Generator().manual_seed(0))[:77].to(DEVICE)


@pytest.mark.parametrize("within", [False, True])
def test_adjoint_of_scatter_is_that_of_the_sparse_matrices(kind, monkeypatch, rows, within):
    matrix, operator = pair(kind, monkeypatch, (7, 11), factors=True)
    field = random(100 if within else 77, 140)
    arguments = random(2, 9), random(2, matrix.shape[0], 140), random(140), field
    expected = matrix.scatter_adjoint(*arguments, rows=rows.cpu() if within else None)
    on_device = [argument.to(DEVICE) for argument in arguments]
    found = operator.scatter_adjoint(*on_device, rows=rows if within else None)
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("biased", [False, True])
def test_result_is_added_to_rows_of_a_field(kind, monkeypatch, rows, sign, biased):
    matrix, operator = pair(kind, monkeypatch, (7, 11), margin=1)
    weights, cells = random(2, 9), random(2, matrix.shape[0], 40)
    bias = (random(77), random(40)) if biased else None
    before = random(100, 40)
    expected = before.clone()
    matrix.scatter(weights, cells, bias=bias, into=expected, rows=rows.cpu(), sign=sign)
    field = before.to(DEVICE)
    on_device = None if bias is None else (bias[0].to(DEVICE), bias[1].to(DEVICE))
    inputs = weights.to(DEVICE), cells.to(DEVICE)
    result = operator.scatter(*inputs, bias=on_device, into=field, rows=rows, sign=sign)
    assert result is field
    assert_near(field, expected)
    untouched = torch.ones(100, dtype=torch.bool).index_fill(0, rows.cpu(), False)
    assert torch.equal(field.cpu()[untouched], before[untouched])


@needs_triton
def test_sums_by_tap_may_take_several_shares(monkeypatch):
    matrix, operator = pair(kernels.StencilKernels, monkeypatch, (7, 11), margin=1)
    cells, pixels = random(2, matrix.shape[0], 5), random(77, 5)
    monkeypatch.setattr(kernels, "SHARE", 8)
    monkeypatch.setattr(kernels, "STEP", 4)
    assert operator.by_tap.shape[1] > 16
    found = operator.weight_gradient(cells.to(DEVICE), pixels.to(DEVICE))
    assert_near(found, matrix.weight_gradient(cells, pixels))


@pytest.mark.parametrize("n_samples", [0, 20, 130])
def test_sums_over_samples(kind, n_samples):
    fields, vector = random(2, 50, n_samples), random(n_samples)
    expected = StencilMatrix.along_samples(fields, vector)
    assert_near(kind.along_samples(fields.to(DEVICE), vector.to(DEVICE)), expected)


@pytest.mark.parametrize("n_samples", [0, 20, 130])
def test_squares_of_differences(kind, n_samples):
    one, two = random(50, n_samples), random(n_samples, 50, seed=1).T
    on_device, kept = (one.to(DEVICE), two.to(DEVICE)), torch.empty_like(one, device=DEVICE)
    expected = (one - two).square().sum(1)
    assert_near(kind.squares(*on_device), expected)
    assert_near(StencilMatrix.squares(one, two), expected)
    assert_near(kind.squares(*on_device, into=kept), expected)
    assert torch.equal(kept, on_device[0] - on_device[1])


def test_sums_by_variable(kind):
    values, variable = random(50).abs(), torch.arange(50) * 7 % 3
    expected = StencilMatrix.sum_by(values, variable, 4)
    assert_near(kind.sum_by(values.to(DEVICE), variable.to(DEVICE), 4), expected)


def test_difference_of_rows(kind, rows):
    one, two = random(100, 20).to(DEVICE), random(100, 20, seed=1).to(DEVICE)
    assert torch.equal(kind.read(one, rows), one[rows])
    assert torch.equal(kind.read(one, rows, two), one[rows] - two[rows])


# The whole network


def passed(network):
    """Outputs of the last level and the gradients of all parameters, on the CPU."""
    pixels, constant = random_samples(network, n=5)
    result = network(pixels, constant)
    output = result.outputs[-1].clone()
    network.backward(result, constant, {1: result.outputs[1], 0: result.outputs[0]})
    return [each.cpu() for each in (output, *(p.grad for p in network.parameters()))]


@pytest.mark.parametrize("make", ["land", "one cell", "parallel"])
def test_network_is_that_of_the_sparse_matrices(kind, monkeypatch, make):
    def network(device):
        if make == "land":
            return random_network(*with_land(levels=2), activation="relu", device=device)
        if make == "one cell":
            return full_network((3, 3), levels=2, device=device)
        return full_network((7, 11), levels=2, variables=2, widening="parallel", device=device)

    expected = passed(network("cpu"))
    monkeypatch.setattr("xmrcae.core.layers.stencils", lambda device_type: kind)
    monkeypatch.setattr(matrices, "stencils", lambda device_type: kind)
    other = network(DEVICE)
    assert type(other.levels[1].groups[0].encoder_matrix) is kind
    assert type(other.levels[1].deepening.encoder_matrix) is kind
    for found, wanted in zip(passed(other), expected, strict=True):
        limit = 1e-12 * float(wanted.abs().max())
        torch.testing.assert_close(found, wanted, rtol=0, atol=limit)


@pytest.mark.gpu
def test_two_calls_give_the_same_bits(kind, monkeypatch):
    _, operator = pair(kind, monkeypatch, (255, 511), margin=1, dtype=torch.float32)
    weights = random(2, 9, dtype=torch.float32).to(DEVICE)
    pixels = random(operator.shape[1], 90, dtype=torch.float32).to(DEVICE)
    first, second = (operator.gather(weights, pixels) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(operator.scatter(weights, first), operator.scatter(weights, first))
    gradients = [operator.weight_gradient(first, pixels) for _ in range(2)]
    assert torch.equal(*gradients)


# Which of them is used


def test_sparse_matrices_are_used_on_a_cpu():
    assert stencils("cpu") is StencilMatrix


@needs_triton
def test_kernels_are_used_on_a_gpu(monkeypatch):
    on_gpu, tried = kernels.try_out, []
    monkeypatch.setattr(kernels, "try_out", lambda device: tried.append(on_gpu(DEVICE)))
    assert stencils.__wrapped__("cuda") is kernels.StencilKernels
    assert tried


def missing(monkeypatch):
    """No Triton."""
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "xmrcae.core.kernels", raising=False)
    return "import of triton halted"


def too_old(monkeypatch):
    """A Triton that does not know an option of the kernels."""

    def jit(function=None, *, do_not_specialize=None):
        return function or jit

    monkeypatch.setattr("triton.jit", jit)
    monkeypatch.delitem(sys.modules, "xmrcae.core.kernels")
    monkeypatch.delitem(sys.modules, "xmrcae.core.kernel_code")
    monkeypatch.delattr("xmrcae.core.kernel_code")
    return "unexpected keyword argument 'do_not_specialize_on_alignment'"


def without_compiler(monkeypatch):
    """A Triton that finds no C compiler when the first kernel is launched."""

    def fail(*arguments, **constants):
        raise RuntimeError("Failed to find C compiler")

    on_gpu = kernels.try_out
    monkeypatch.setattr(kernels, "_launch", fail)
    monkeypatch.setattr(kernels, "try_out", lambda device: on_gpu(DEVICE))
    return "Failed to find C compiler"


@pytest.mark.parametrize(
    "state",
    [
        missing,
        pytest.param(too_old, marks=needs_triton),
        pytest.param(without_compiler, marks=needs_triton),
    ],
)
def test_torch_alone_is_used_where_triton_cannot_be_and_said_once(monkeypatch, caplog, state):
    reason = state(monkeypatch)
    stencils.cache_clear()
    with caplog.at_level(logging.WARNING, logger="xmrcae"):
        assert stencils("cuda") is stencils("cuda") is StencilTables
    stencils.cache_clear()
    (record,) = caplog.records
    assert record.message.startswith("Triton cannot be used (") and reason in record.message
