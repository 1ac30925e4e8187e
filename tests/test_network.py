"""The network: its products against dense convolutions, its gradients, groups, codes and prolongation."""

import itertools

import numpy as np
import pytest
import torch
from helpers import columns, full_network, make_field, make_land, prepare_with, random_network
from torch.nn.functional import conv2d, conv_transpose2d, pad
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from xmrcae.core.matrices import Prolongation, StencilMatrix, encoding_shape
from xmrcae.core.network import Network

SHAPES = [(7, 11), (15, 23), (31, 47)]


@pytest.fixture(autouse=True)
def one_thread():
    """What is computed here is too small for threads to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def everywhere(shape, variables=1):
    """Data at every pixel."""
    return torch.ones(variables, *shape, dtype=torch.bool)


def with_land(levels=3):
    """Where each level has data, and what counts: another coast for each of two variables and for each level."""
    land = [np.stack([make_land(shape, seed=seed) for seed in (0, 1)]) for shape in SHAPES[:levels]]
    return land, land[-1]


def random_samples(network, n=3, seed=0):
    """Samples of the finest level and their ones, (pixel, sample) and (sample,)."""
    generator = torch.Generator().manual_seed(seed)
    n_pixels = network.has_data[-1].numel()
    pixels = torch.rand(n_pixels, n, generator=generator, dtype=torch.float64).to(network.dtype)
    return pixels, torch.ones(n, dtype=network.dtype)


def images(field, shape):
    """A field of one variable, (pixel, sample), as torch's convolutions take it."""
    return field.T.reshape(-1, 1, *shape)


def bare_network(shapes, *, restriction="injection"):
    """A network of deepenings without noise."""
    has_data, kwargs = [everywhere(s) for s in shapes], {"restriction": restriction, "dtype": torch.float64}
    network = Network(has_data, everywhere(shapes[-1]), widening="residual", **kwargs)
    for _ in shapes:
        network.deepen(noise=0.0, generator=torch.Generator())
    return network


def prolongations(shapes):
    """Bilinear prolongation between all of these sizes, with data everywhere."""
    return [Prolongation(everywhere(a), everywhere(b), torch.float64) for a, b in itertools.pairwise(shapes)]


def group_network(shape, mask, *, channels=1, noise=0.3):
    """A network of one level with one group."""
    network = Network(
        [everywhere(shape)], everywhere(shape), widening="residual", restriction="injection", dtype=torch.float64
    )
    generator = torch.Generator().manual_seed(0)
    network.deepen(noise=0.1, generator=generator)
    return network, network.widen(0, mask, channels, noise=noise, generator=generator)


def footprint_of(mask, shape):
    """Pixels under the active cells, by a loop over these."""
    footprint = torch.zeros(shape, dtype=torch.bool)
    for i, j in mask.nonzero().tolist():
        footprint[2 * i : 2 * i + 3, 2 * j : 2 * j + 3] = True
    return footprint


def stored_numbers(matrix):
    """How many numbers a matrix keeps."""
    return sum(value.numel() for value in vars(matrix).values() if isinstance(value, torch.Tensor))


# Against torch's dense convolutions


def test_deepening_is_a_convolution_of_stride_2():
    network = full_network((7, 11), levels=1, channels=())
    pixels, one = random_samples(network)
    deepening = network.levels[0].deepening
    expected = conv2d(
        images(pixels, (7, 11)), deepening.encoder_weight.reshape(1, 1, 3, 3), deepening.encoder_bias, stride=2
    )
    torch.testing.assert_close(deepening.encode(pixels, one).T, expected.flatten(1))


def test_deepening_decodes_by_a_transposed_convolution_of_the_extended_cells():
    network = full_network((7, 11), levels=1, channels=())
    deepening, one = network.levels[0].deepening, torch.ones(3, dtype=torch.float64)
    cells = torch.rand(15, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
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
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(1)) < 0.5
    network = Network([everywhere((7, 11), variables)], everywhere((7, 11), variables), widening="parallel",
                      restriction="injection", dtype=torch.float64)  # fmt: skip
    network.deepen(noise=0.1, generator=torch.Generator().manual_seed(0))
    group = network.widen(0, mask, 2, noise=0.3, generator=torch.Generator().manual_seed(0))
    pixels, one = random_samples(network)
    fields = pixels.T.reshape(-1, variables, 7, 11)
    code = conv2d(fields, group.encoder_weight.reshape(2, variables, 3, 3), group.encoder_bias, stride=2) * mask
    update = conv_transpose2d(code, group.decoder_weight.reshape(2, variables, 3, 3), stride=2)
    update += footprint_of(mask, (7, 11)) * group.decoder_bias[:, None, None]
    result = network(pixels, one)
    plain = network.levels[0].deepening
    base = plain.decode(plain.encode(pixels, one), one)
    torch.testing.assert_close(result.codes[0][0].permute(2, 0, 1), code[:, :, mask])
    torch.testing.assert_close((result.outputs[0] - base).T, update.flatten(1))


def test_residual_group_reads_what_is_left():
    mask = torch.ones(3, 5, dtype=torch.bool)
    network, group = group_network((7, 11), mask)
    pixels, one = random_samples(network)
    deepening = network.levels[0].deepening
    left = pixels - deepening.decode(deepening.encode(pixels, one), one)
    expected = conv2d(images(left, (7, 11)), group.encoder_weight.reshape(1, 1, 3, 3), group.encoder_bias, stride=2)
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
    has_data, counts = with_land()
    network = random_network(has_data, counts)
    pixels, one = random_samples(network)
    other = torch.where(torch.as_tensor(has_data[-1]).reshape(-1, 1), pixels, pixels + 1)
    group = network.levels[-1].groups[0]
    assert torch.equal(group.encode(group.read(other), one), group.encode(group.read(pixels), one))


# Gradients


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"widening": "parallel"},
        {"activation": "relu"},
        {"widening": "parallel", "activation": "relu"},
        {"restriction": "injection"},
    ],
)
@pytest.mark.parametrize("land", [False, True])
def test_gradients_are_those_of_finite_differences(kwargs, land):
    network = random_network(*with_land(levels=2), **kwargs) if land else full_network((7, 11), levels=2, **kwargs)
    pixels, one = random_samples(network)
    parameters = list(network.parameters())
    generator = torch.Generator().manual_seed(5)
    targets = [torch.randn(has.numel(), 3, generator=generator, dtype=torch.float64) for has in network.has_data]

    def value():
        outputs = network(pixels, one).outputs
        return sum(
            float((0.5 * field**2 + target * field).sum()) for field, target in zip(outputs, targets, strict=True)
        )

    result = network(pixels, one)
    gradients = {k: field + target for k, (field, target) in enumerate(zip(result.outputs, targets, strict=True))}
    network.backward(result, one, gradients)
    point, gradient = parameters_to_vector(parameters).detach(), parameters_to_vector([p.grad for p in parameters])
    for _ in range(5):
        direction = torch.randn(point.shape, generator=generator, dtype=torch.float64)
        values = []
        for step in (1e-6, -1e-6):
            vector_to_parameters(point + step * direction, parameters)
            values.append(value())
        slope = (values[0] - values[1]) / 2e-6
        assert float(gradient @ direction) == pytest.approx(slope, rel=1e-6)


def test_gradients_of_a_coarser_level_leave_the_finer_ones_alone():
    network = full_network((7, 11), levels=2)
    pixels, one = random_samples(network)
    result = network(pixels, one)
    network.backward(result, one, {0: torch.ones_like(result.outputs[0]), 1: torch.zeros_like(result.outputs[1])})
    for name, parameter in network.levels[1].named_parameters():
        reached = name.startswith("deepening.encoder")  # what the coarser level reads
        assert bool(parameter.grad.any()) is reached, name


def test_gradients_accumulate():
    network = full_network((7, 11), levels=2)
    pixels, one = random_samples(network)
    gradients = []
    for _ in range(2):
        result = network(pixels, one)
        network.backward(result, one, {1: torch.ones_like(result.outputs[1])})
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for once, twice in zip(*gradients, strict=True):
        torch.testing.assert_close(twice, 2 * once)


# Prolongation


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_prolonged_bilinear_field_is_exact_away_from_the_border(steps):
    shapes = [((n + 1) * 2**s - 1, (m + 1) * 2**s - 1) for s in range(steps + 1) for n, m in [(5, 7)]]
    y, x = (torch.arange(n, dtype=torch.float64) + 1 for n in shapes[-1])
    fine = 2 + 3 * y[:, None] - x + 0.5 * y[:, None] * x
    coarse = fine[2**steps - 1 :: 2**steps, 2**steps - 1 :: 2**steps]
    field = coarse.reshape(-1, 1)
    for prolong in prolongations(shapes):
        field = prolong(field)
    margin = 2**steps - 1
    inner = (slice(margin, -margin), slice(margin, -margin))
    torch.testing.assert_close(field.reshape(shapes[-1])[inner], fine[inner], rtol=1e-13, atol=0)
    assert (field.reshape(shapes[-1])[margin - 1] != fine[margin - 1]).any()


def test_prolonged_constant_is_exact_everywhere():
    shapes = [(5, 7), (11, 15), (23, 31)]
    field = torch.full((35, 1), 3.0, dtype=torch.float64)
    for prolong in prolongations(shapes):
        field = prolong(field)
    assert torch.equal(field, torch.full_like(field, 3.0))


def test_prolongation_leaves_out_cells_without_data():
    fine, coarse = everywhere((11, 15)), everywhere((5, 7))
    coarse[0, 1:3, 2:5] = False
    cells = torch.where(coarse.reshape(-1, 1), 3.0, 1e6).double()
    reached = (prolongations([(5, 7), (11, 15)])[0](coarse.reshape(-1, 1).double()) > 0)[:, 0]
    field = Prolongation(coarse, fine, torch.float64)(cells)
    assert not reached.all()
    torch.testing.assert_close(field[reached], torch.full_like(field[reached], 3.0))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_untrained_network_injects_and_prolongs(level):
    network = bare_network(SHAPES)
    pixels, one = random_samples(network)
    image = pixels.T.reshape(-1, *SHAPES[-1])
    for _ in range(2 - level):  # to the level's own data
        image = image[:, 1::2, 1::2]
    field = columns(image.numpy()[:, None])
    bottleneck = image
    for _ in range(level + 1):
        bottleneck = bottleneck[:, 1::2, 1::2]
    expected = bottleneck.reshape(3, -1).T
    for prolong in prolongations([encoding_shape(SHAPES[0]), *SHAPES[: level + 1]]):
        expected = prolong(expected)
    torch.testing.assert_close(network(field, one).outputs[level], expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("restriction", ["full_weighting", "injection"])
@pytest.mark.parametrize("globe", [True, False])
def test_untrained_encoder_hands_down_the_coarser_levels_data(restriction, globe):
    found = prepare_with(make_field(globe=globe), levels=3, restriction=restriction)
    network = random_network([data.has_data for data in found.training], found.training[-1].counts,
                             restriction=restriction, channels=())  # fmt: skip
    for level in network.levels:
        level.deepening.encoder_weight.data = torch.as_tensor(
            {"full_weighting": [1, 2, 1, 2, 4, 2, 1, 2, 1], "injection": [0, 0, 0, 0, 16, 0, 0, 0, 0]}[restriction]
        ).double() / 16  # fmt: skip
        level.deepening.encoder_bias.data[:] = 0
    pixels = columns(found.training[-1].samples)
    inputs = network(pixels, torch.ones(pixels.shape[1], dtype=torch.float64)).inputs
    for level in (1, 0):
        here = torch.as_tensor(found.training[level].has_data).reshape(-1)
        assert here.any()
        expected = columns(found.training[level].samples)
        torch.testing.assert_close(inputs[level][here], expected[here], rtol=1e-5, atol=1e-5)


# Groups


def test_group_changes_nothing_off_its_footprint():
    mask = torch.zeros(15, 23, dtype=torch.bool)
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
    network, group = group_network((7, 11), torch.zeros(3, 5, dtype=torch.bool))
    pixels, one = random_samples(network)
    result = network(pixels, one)
    assert result.codes[0][0].shape == (1, 0, 3)
    network.backward(result, one, {0: result.outputs[0].clone()})
    assert not group.encoder_weight.grad.any()


@pytest.mark.parametrize("shape", [(31, 31), (127, 127)])
def test_cost_follows_the_active_cells_not_the_grid(shape):
    mask = torch.zeros(encoding_shape(shape), dtype=torch.bool)
    mask[3:7, 2:8] = True
    _, group = group_network(shape, mask)
    for matrix in (group.encoder_matrix, group.decoder_matrix):
        assert matrix.shape == (24, 9 * 13)
        assert stored_numbers(matrix) <= 9 * 24 * 6
    assert len(group.footprint) == 9 * 13


def test_cost_is_proportional_to_the_active_cells():
    sizes = []
    for rows in (10, 20, 40):
        mask = torch.zeros(63, 63, dtype=torch.bool)
        mask[:rows] = True
        sizes.append(stored_numbers(group_network((127, 127), mask)[1].encoder_matrix))
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=0.02)
    assert sizes[2] / sizes[1] == pytest.approx(2, rel=0.02)


def test_new_filters_span_the_patches_of_the_residual():
    mask = torch.ones(15, 23, dtype=torch.bool)
    _network, group = group_network((31, 47), mask, channels=2, noise=0.0)
    generator = torch.Generator().manual_seed(0)
    y, x = torch.arange(31.0)[:, None], torch.arange(47.0)
    waves = torch.stack([torch.sin(y / 3 + x / 5), torch.cos(y / 3 + x / 5)]).reshape(2, -1).double()
    field = waves.T @ torch.randn(2, 6, generator=generator, dtype=torch.float64)
    read = group.read(field)
    group.start_from(group.directions([(read[:, :2], read[:, :2]), (read[:, 2:], read[:, 2:])]))
    weights = group.encoder_weight.detach()
    torch.testing.assert_close(weights @ weights.T, torch.eye(2, dtype=torch.float64))
    patches = torch.nn.functional.unfold(images(field, (31, 47)), 3, stride=2).permute(1, 0, 2).reshape(9, -1)
    kept = weights @ patches
    assert float(kept.norm() / patches.norm()) == pytest.approx(1, abs=1e-10)


# Codes


@pytest.mark.parametrize("land", [False, True])
@pytest.mark.parametrize("widening", ["residual", "parallel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoded_codes_are_the_outputs_to_the_bit(land, widening, dtype):
    kwargs = {"widening": widening, "dtype": dtype}
    network = random_network(*with_land(), **kwargs) if land else full_network((7, 11), levels=3, **kwargs)
    pixels, one = random_samples(network)
    result = network(pixels, one)
    for level in range(3):
        codes = [result.flat_codes(k) for k in range(level + 1)]
        assert torch.equal(network.decode(codes, one), result.outputs[level])


def test_coarse_level_needs_coarse_codes_alone():
    network = full_network((7, 11), levels=3)
    pixels, one = random_samples(network)
    result = network(pixels, one)
    codes = [result.flat_codes(k) for k in range(3)]
    spoilt = [*codes[:2], torch.full_like(codes[2], torch.nan)]
    assert torch.equal(network.decode(spoilt[:2], one), result.outputs[1])


def test_codes_are_counted_by_active_cells():
    network = random_network(*with_land())
    pixels, one = random_samples(network)
    result = network(pixels, one)
    for k, level in enumerate(network.levels):
        bottleneck = int(network.storable[0].sum()) if k == 0 else 0
        expected = bottleneck + sum(group.channels * int(group.mask.sum()) for group in level.groups)
        assert result.flat_codes(k).shape == (expected, 3)


def test_coarser_samples_give_the_coarser_levels():
    network = full_network((7, 11), levels=3)
    pixels, one = random_samples(network)
    result = network(pixels, one)
    coarse = network(result.inputs[1], one)
    assert len(coarse.outputs) == 2
    for a, b in zip(coarse.outputs, result.outputs, strict=False):
        assert torch.equal(a, b)


# Sizes


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_group_has_19_parameters_a_filter_and_one(channels):
    before = full_network((7, 11), levels=1, channels=()).n_parameters
    assert full_network((7, 11), levels=1, channels=(channels,)).n_parameters - before == 19 * channels + 1


def test_a_deepening_has_20_parameters():
    assert [full_network((7, 11), levels=levels, channels=()).n_parameters for levels in (1, 2, 3)] == [20, 40, 60]


def test_the_papers_table_of_parameters():
    network = bare_network([(7, 7), (15, 15)])  # isotropic turbulence, levels 0 and 1
    stages = [network.n_parameters]
    for channels in (2, 2, 2, 2):
        mask = network.storable[1].any(0)
        network.widen(1, mask, channels, noise=0.0, generator=torch.Generator())
        stages.append(network.n_parameters)
    assert stages == [40, 79, 118, 157, 196]


def test_stored_cells_are_those_whose_footprint_holds_a_valid_pixel():
    shapes = [(3, 5), *SHAPES]
    counts = torch.zeros(1, *SHAPES[-1], dtype=torch.bool)
    counts[0, 3, 5] = counts[0, 20:23, 30:32] = counts[0, -1, -1] = True
    network = Network([everywhere(s) for s in SHAPES], counts, widening="residual", restriction="injection")
    for level in range(3):
        cells = torch.eye(shapes[level][0] * shapes[level][1], dtype=torch.float64)
        for prolong in prolongations(shapes[level:]):
            cells = prolong(cells)
        expected = (cells[counts.reshape(-1)] != 0).any(0)
        assert torch.equal(network.storable[level].reshape(-1), expected)
        assert expected.any() and not expected.all()


def test_bottleneck_holds_stored_cells_alone():
    has_data, counts = with_land()
    counts = counts.copy()
    counts[:, :, 12:] = False
    network = random_network(has_data, counts)
    pixels, one = random_samples(network)
    assert len(network(pixels, one).bottleneck) == int(network.storable[0].sum()) < 2 * 3 * 5


# Start values


def test_start_values_depend_on_the_generator_alone():
    networks = [full_network((7, 11), levels=2, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (parameters_to_vector(network.parameters()) for network in networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_noise_is_uniform_within_its_bounds():
    network = bare_network([(7, 11)])
    group = network.widen(
        0, torch.ones(3, 5, dtype=torch.bool), 200, noise=0.01, generator=torch.Generator().manual_seed(0)
    )
    noise = group.encoder_weight.detach()
    assert 0.0098 < float(noise.abs().max()) <= 0.01
    assert float(noise.mean()) == pytest.approx(0, abs=5e-4)
    assert float(noise.std()) == pytest.approx(0.01 / 3**0.5, rel=0.03)


def test_torchs_random_state_is_left_alone():
    before = torch.get_rng_state()
    full_network((7, 11), levels=2)
    assert torch.equal(torch.get_rng_state(), before)


# The matrices


def dense(matrix, weights):
    """A(w) as a dense array."""
    return matrix.gather(weights, torch.eye(matrix.shape[1], dtype=weights.dtype))


@pytest.mark.parametrize("factors", [None, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)])
def test_scatter_is_the_adjoint_of_gather(factors):
    entries = [torch.tensor(e) for e in ([0, 0, 1, 2, 2], [3, 1, 1, 0, 3], [0, 1, 1, 0, 2])]
    matrix = StencilMatrix(*entries, (3, 4), 3, factors)
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    transposed = matrix.scatter(weights, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(transposed, dense(matrix, weights).T)


@pytest.mark.parametrize("factors", [None, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0], dtype=torch.float64)])
def test_weight_gradient_is_the_derivative_of_the_product(factors):
    entries = [torch.tensor(e) for e in ([0, 0, 1, 2, 2], [3, 1, 1, 0, 3], [0, 1, 1, 0, 2])]
    matrix = StencilMatrix(*entries, (3, 4), 3, factors)
    generator = torch.Generator().manual_seed(0)
    cells, pixels = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (3, 4))
    expected = [(cells * (dense(matrix, unit) @ pixels)).sum() for unit in torch.eye(3, dtype=torch.float64)]
    torch.testing.assert_close(matrix.weight_gradient(cells, pixels), torch.stack(expected))
