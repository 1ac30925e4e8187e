"""Deepening and groups: their products against dense convolutions, and the matrices behind them."""

from itertools import chain

import pytest
import torch
from helpers import DEVICE, full_network, make_field, random_network, random_samples, with_land
from torch.nn.functional import conv2d, conv_transpose2d, pad

from xmrcae.core.matrices import StencilMatrix, encoding_shape
from xmrcae.core.network import Network

pytestmark = pytest.mark.usefixtures("one_thread")


def everywhere(shape, variables=1):
    """Data at every pixel."""
    return torch.ones(variables, *shape, dtype=torch.bool, device=DEVICE)


def nowhere(shape):
    """A mask without active cells, to be set."""
    return torch.zeros(shape, dtype=torch.bool, device=DEVICE)


def images(field, shape):
    """A field of one variable, (pixel, sample), as torch's convolutions take it."""
    return field.T.reshape(-1, 1, *shape)


def group_network(shape, mask, *, channels=1, noise=0.3):
    """A network of one level with one group."""
    network = Network(
        [everywhere(shape)],
        everywhere(shape),
        widening="residual",
        restriction="injection",
        dtype=torch.float64,
    )
    generator = torch.Generator().manual_seed(0)
    network.deepen(noise=0.1, generator=generator)
    return network, network.widen(0, mask, channels, noise=noise, generator=generator)


def footprint_of(mask, shape):
    """Pixels under the active cells, by a loop over these."""
    footprint = nowhere(shape)
    for i, j in mask.nonzero().tolist():
        footprint[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] = True
    return footprint


def stored_numbers(matrix):
    """How many numbers a matrix keeps, or the tables that take its place on a GPU."""
    kept = [value if isinstance(value, tuple) else (value,) for value in vars(matrix).values()]
    return sum(each.numel() for each in chain(*kept) if isinstance(each, torch.Tensor))


# Against torch's dense convolutions


def test_deepening_is_a_convolution_of_stride_2():
    network = full_network((7, 11), levels=1, channels=())
    pixels, one = random_samples(network)
    deepening = network.levels[0].deepening
    expected = conv2d(
        images(pixels, (7, 11)),
        deepening.encoder_weight.reshape(1, 1, 3, 3),
        deepening.encoder_bias,
        stride=2,
    )
    torch.testing.assert_close(deepening.encode(pixels, one).T, expected.flatten(1))


def test_deepening_decodes_by_a_transposed_convolution_of_the_extended_cells():
    network = full_network((7, 11), levels=1, channels=())
    deepening, (pixels, one) = network.levels[0].deepening, random_samples(network)
    cells = pixels[:15]
    extended = pad(images(cells, (3, 5)), (1, 1, 1, 1), mode="replicate")
    expected = conv_transpose2d(
        extended, deepening.decoder_weight.reshape(1, 1, 3, 3), deepening.decoder_bias, stride=2
    )
    torch.testing.assert_close(deepening.decode(cells, one).T, expected[..., 2:-2, 2:-2].flatten(1))


def test_deepening_keeps_variables_apart():
    network = full_network((7, 11), levels=1, variables=2, channels=())
    pixels, one = random_samples(network)
    other = pixels.clone()
    other[: 7 * 11] += 1
    before, after = (network(field, one).outputs[0].reshape(2, 77, -1) for field in (pixels, other))
    assert torch.equal(before[1], after[1])
    assert (before[0] != after[0]).any()


@pytest.mark.parametrize("variables", [1, 2])
def test_group_is_a_masked_convolution_and_its_transposed(variables):
    mask = (torch.rand(3, 5, generator=torch.Generator().manual_seed(1)) < 0.5).to(DEVICE)
    network = Network([everywhere((7, 11), variables)], everywhere((7, 11), variables), widening="parallel",
                      restriction="injection", dtype=torch.float64)  # fmt: skip
    network.deepen(noise=0.1, generator=torch.Generator().manual_seed(0))
    group = network.widen(0, mask, 2, noise=0.3, generator=torch.Generator().manual_seed(0))
    pixels, one = random_samples(network)
    fields = pixels.T.reshape(-1, variables, 7, 11)
    code = (
        conv2d(
            fields, group.encoder_weight.reshape(2, variables, 3, 3), group.encoder_bias, stride=2
        )
        * mask
    )
    update = conv_transpose2d(code, group.decoder_weight.reshape(2, variables, 3, 3), stride=2)
    update += footprint_of(mask, (7, 11)) * group.decoder_bias[:, None, None]
    result = network(pixels, one)
    plain = network.levels[0].deepening
    base = plain.decode(plain.encode(pixels, one), one)
    torch.testing.assert_close(result.codes[0][0].permute(2, 0, 1), code[:, :, mask])
    torch.testing.assert_close((result.outputs[0] - base).T, update.flatten(1))


def test_residual_group_reads_what_is_left():
    network, group = group_network((7, 11), everywhere((3, 5))[0])
    pixels, one = random_samples(network)
    deepening = network.levels[0].deepening
    left = pixels - deepening.decode(deepening.encode(pixels, one), one)
    expected = conv2d(
        images(left, (7, 11)),
        group.encoder_weight.reshape(1, 1, 3, 3),
        group.encoder_bias,
        stride=2,
    )
    torch.testing.assert_close(network(pixels, one).codes[0][0][0].T, expected.flatten(1))


def test_parallel_group_reads_the_levels_input():
    network = full_network((7, 11), levels=1, widening="parallel", channels=(1, 1))
    pixels, one = random_samples(network)
    second = network.levels[0].groups[1]
    before = network(pixels, one).codes[0][1]
    with torch.no_grad():
        network.levels[0].groups[0].decoder_weight += 1
    assert torch.equal(network(pixels, one).codes[0][1], before)
    assert torch.equal(before, second.encode(second.read(pixels), one))


def test_residual_group_reads_no_pixel_without_data():
    network = random_network(*with_land())
    pixels, one = random_samples(network)
    other = torch.where(network.has_data[-1].reshape(-1, 1), pixels, pixels + 1)
    group = network.levels[-1].groups[0]
    assert torch.equal(group.encode(group.read(other), one), group.encode(group.read(pixels), one))


# Groups


def test_group_changes_nothing_off_its_footprint():
    mask = nowhere((15, 23))
    mask[3:5, 4:9] = mask[10, 22] = True
    network, _ = group_network((31, 47), mask)
    pixels, one = random_samples(network)
    deepening = network.levels[0].deepening
    base = deepening.decode(deepening.encode(pixels, one), one)
    changed = (network(pixels, one).outputs[0] != base).any(1).reshape(31, 47)
    assert torch.equal(changed, footprint_of(mask, (31, 47)))


@pytest.mark.parametrize("widening", ["residual", "parallel"])
@pytest.mark.parametrize("level", [0, 1])
def test_new_group_without_noise_changes_nothing(widening, level):
    network = full_network((7, 11), levels=2, widening=widening)
    pixels, one = random_samples(network)
    before = network(pixels, one).outputs
    mask = network.storable[level].any(0)
    group = network.widen(level, mask, 2, noise=0.0, generator=torch.Generator())
    group.encoder_weight.data += 1
    for a, b in zip(before, network(pixels, one).outputs, strict=True):
        assert torch.equal(a, b)


def test_group_without_active_cells_changes_nothing():
    network, group = group_network((7, 11), nowhere((3, 5)))
    pixels, one = random_samples(network)
    result = network(pixels, one)
    assert result.codes[0][0].shape == (1, 0, 3)
    network.backward(result, one, {0: result.outputs[0].clone()})
    assert not group.encoder_weight.grad.any()


@pytest.mark.parametrize("shape", [(31, 31), (127, 127)])
def test_cost_follows_the_active_cells_not_the_grid(shape):
    mask = nowhere(encoding_shape(shape))
    mask[3:7, 2:8] = True
    _, group = group_network(shape, mask)
    for matrix in (group.encoder_matrix, group.decoder_matrix):
        assert matrix.shape == (24, 9 * 13)
        assert stored_numbers(matrix) <= 9 * 24 * 8
    assert len(group.footprint) == 9 * 13


def test_cost_is_proportional_to_the_active_cells():
    sizes = []
    for rows in (10, 20, 40):
        mask = nowhere((63, 63))
        mask[:rows] = True
        sizes.append(stored_numbers(group_network((127, 127), mask)[1].encoder_matrix))
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=0.02)
    assert sizes[2] / sizes[1] == pytest.approx(2, rel=0.02)


def test_new_filters_span_the_patches_of_the_residual():
    mask = everywhere((15, 23))[0]
    _network, group = group_network((31, 47), mask, channels=2, noise=0.0)
    generator = torch.Generator().manual_seed(0)
    y, x = torch.arange(31.0)[:, None], torch.arange(47.0)
    waves = (
        torch.stack([torch.sin(y / 3 + x / 5), torch.cos(y / 3 + x / 5)]).reshape(2, -1).double()
    )
    field = (waves.T @ torch.randn(2, 6, generator=generator, dtype=torch.float64)).to(DEVICE)
    read = group.read(field)
    group.start_from(group.directions([(read[:, :2], read[:, :2]), (read[:, 2:], read[:, 2:])]))
    weights = group.encoder_weight.detach()
    identity = torch.eye(2, dtype=torch.float64, device=DEVICE)
    torch.testing.assert_close(weights @ weights.T, identity)
    patches = (
        torch.nn.functional.unfold(images(field, (31, 47)), 3, stride=2)
        .permute(1, 0, 2)
        .reshape(9, -1)
    )
    kept = weights @ patches
    assert float(kept.norm() / patches.norm()) == pytest.approx(1, abs=1e-10)


# The matrices


def dense(matrix, weights):
    """A(w) as a dense array."""
    return matrix.gather(weights[None], torch.eye(matrix.shape[1], dtype=weights.dtype))[0]


@pytest.mark.parametrize(
    "factors", [None, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)]
)
def test_scatter_is_the_adjoint_of_gather(factors):
    entries = [torch.tensor(e) for e in ([0, 0, 1, 2, 2], [3, 1, 1, 0, 3], [0, 1, 1, 0, 2])]
    matrix = StencilMatrix(*entries, (3, 4), 3, factors)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    transposed = matrix.scatter(weights[None], torch.eye(3, dtype=torch.float64)[None])
    torch.testing.assert_close(transposed, dense(matrix, weights).T)


@pytest.mark.parametrize(
    "factors", [None, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)]
)
def test_weight_gradient_is_the_derivative_of_the_product(factors):
    entries = [torch.tensor(e) for e in ([0, 0, 1, 2, 2], [3, 1, 1, 0, 3], [0, 1, 1, 0, 2])]
    matrix = StencilMatrix(*entries, (3, 4), 3, factors)
    generator = torch.Generator().manual_seed(0)
    cells, pixels = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (3, 4))
    expected = [
        (cells * (dense(matrix, unit) @ pixels)).sum() for unit in torch.eye(3, dtype=torch.float64)
    ]
    gradient = matrix.weight_gradient(cells[None], pixels)
    torch.testing.assert_close(gradient[0], torch.stack(expected))


def test_weight_gradient_of_more_entries_than_places():
    entries = [torch.tensor(e) for e in ([0, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 1, 1, 2, 0])]
    matrix = StencilMatrix(*entries, (1, 2), 3)
    cells, pixels = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 3.0], [0.5, 4.0]])
    expected = [(cells * (dense(matrix, unit) @ pixels)).sum() for unit in torch.eye(3)]
    gradient = matrix.weight_gradient(cells[None], pixels)
    torch.testing.assert_close(gradient[0], torch.stack(expected))


def test_a_bottleneck_of_one_cell():
    field = make_field(20, (15, 15), globe=False, land=False)
    model = field.mrcae.fit(levels=3, max_epochs=3, progress=False)
    assert model.encode(field)["level_0"]["encoding"].sizes["lat"] == 1
    assert float(model.history["train_loss"][-1]) < 1
