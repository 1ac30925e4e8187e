"""The network: its products against dense convolutions, its gradients, groups, codes and prolongation."""

import itertools

import pytest
import torch
from helpers import (
    DEVICE,
    SHAPES,
    columns,
    full_network,
    make_field,
    prepare_with,
    random_network,
    random_samples,
    with_land,
)
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from xmrcae.core.matrices import Prolongation, encoding_shape
from xmrcae.core.network import Network
from xmrcae.core.projection import from_state

pytestmark = pytest.mark.usefixtures("one_thread")


def everywhere(shape, variables=1):
    """Data at every pixel."""
    return torch.ones(variables, *shape, dtype=torch.bool, device=DEVICE)


def bare_network(shapes, *, restriction="injection"):
    """A network of deepenings without noise."""
    has_data, kwargs = (
        [everywhere(s) for s in shapes],
        {"restriction": restriction, "dtype": torch.float64},
    )
    network = Network(has_data, everywhere(shapes[-1]), widening="residual", **kwargs)
    for _ in shapes:
        network.deepen(noise=0.0, generator=torch.Generator())
    return network


def prolongations(shapes):
    """Bilinear prolongation between all of these sizes, with data everywhere."""
    return [
        Prolongation(everywhere(a), everywhere(b), torch.float64)
        for a, b in itertools.pairwise(shapes)
    ]


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
    network = (
        random_network(*with_land(levels=2), **kwargs)
        if land
        else full_network((7, 11), levels=2, **kwargs)
    )
    pixels, one = random_samples(network)
    parameters = list(network.parameters())
    generator = torch.Generator().manual_seed(5)
    targets = [
        torch.randn(has.numel(), 3, generator=generator, dtype=torch.float64).to(DEVICE)
        for has in network.has_data
    ]

    def value():
        outputs = network(pixels, one).outputs
        return sum(
            float((0.5 * field**2 + target * field).sum())
            for field, target in zip(outputs, targets, strict=True)
        )

    result = network(pixels, one)
    gradients = {
        k: field + target
        for k, (field, target) in enumerate(zip(result.outputs, targets, strict=True))
    }
    network.backward(result, one, gradients)
    point, gradient = (
        parameters_to_vector(parameters).detach(),
        parameters_to_vector([p.grad for p in parameters]),
    )
    for _ in range(5):
        direction = torch.randn(point.shape, generator=generator, dtype=torch.float64).to(DEVICE)
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
    network.backward(
        result, one, {0: torch.ones_like(result.outputs[0]), 1: torch.zeros_like(result.outputs[1])}
    )
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
    shapes = [
        ((n + 1) * 2**s - 1, (m + 1) * 2**s - 1) for s in range(steps + 1) for n, m in [(5, 7)]
    ]
    y, x = (torch.arange(n, dtype=torch.float64, device=DEVICE) + 1 for n in shapes[-1])
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
    field = torch.full((35, 1), 3.0, dtype=torch.float64, device=DEVICE)
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
    field = image.reshape(3, -1).T
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
            {"full_weighting": [1, 2, 1, 2, 4, 2, 1, 2, 1], "injection": [0, 0, 0, 0, 16, 0, 0, 0, 0]}[restriction],
            dtype=torch.float64, device=DEVICE,
        ) / 16  # fmt: skip
        level.deepening.encoder_bias.data[:] = 0
    pixels = columns(found.training[-1].samples)
    inputs = network(pixels, torch.ones_like(pixels[0])).inputs
    for level in (1, 0):
        here = network.has_data[level].reshape(-1)
        assert here.any()
        expected = columns(found.training[level].samples)
        torch.testing.assert_close(inputs[level][here], expected[here], rtol=1e-5, atol=1e-5)


# Codes


@pytest.mark.parametrize("land", [False, True])
@pytest.mark.parametrize("widening", ["residual", "parallel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoded_codes_are_the_outputs_to_the_bit(land, widening, dtype):
    kwargs = {"widening": widening, "dtype": dtype}
    network = (
        random_network(*with_land(), **kwargs)
        if land
        else full_network((7, 11), levels=3, **kwargs)
    )
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
        expected = bottleneck + sum(
            group.channels * int(group.mask.sum()) for group in level.groups
        )
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
    assert (
        full_network((7, 11), levels=1, channels=(channels,)).n_parameters - before
        == 19 * channels + 1
    )


def test_a_deepening_has_20_parameters():
    assert [
        full_network((7, 11), levels=levels, channels=()).n_parameters for levels in (1, 2, 3)
    ] == [20, 40, 60]


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
    counts = ~everywhere(SHAPES[-1])
    counts[0, 3, 5] = counts[0, 20:23, 30:32] = counts[0, -1, -1] = True
    network = Network(
        [everywhere(s) for s in SHAPES], counts, widening="residual", restriction="injection"
    )
    for level in range(3):
        cells = torch.eye(shapes[level][0] * shapes[level][1], dtype=torch.float64, device=DEVICE)
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


def test_stages_add_up_to_the_network():
    network = random_network(*with_land())
    pixels, one = random_samples(network)
    result = network(pixels, one)
    for level in range(3):
        assert len(network.stage_parameters(level)) == len(network.stage_sizes(level)) == 3
        assert sum(network.stage_sizes(level)) == len(result.flat_codes(level))
    total = sum(sum(network.stage_parameters(level)) for level in range(3))
    assert total == network.n_parameters == len(parameters_to_vector(network.parameters()))


def test_a_groups_share_is_one_where_all_storable_cells_are_active():
    network = random_network(*with_land(), channels=())
    storable = network.storable[1].any(0)
    half = storable & (storable.cumsum(1) % 2 == 0)
    for mask in (storable, half):
        network.widen(1, mask, 1, noise=0.0, generator=torch.Generator())
    assert network.active_share(1) == [1.0, int(half.sum()) / int(storable.sum())]
    assert network.active_share(0) == []


# State


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"widening": "parallel", "restriction": "injection"},
        {"activation": "relu", "dtype": torch.float32},
    ],
    ids=str,
)
def test_a_network_made_again_from_its_state_is_equal_to_the_bit(kwargs):
    network = random_network(*with_land(), **kwargs)
    again = from_state(network.state(), DEVICE)
    pixels, one = random_samples(network)
    expected, found = network(pixels, one), again(pixels, one)
    for level in range(3):
        assert torch.equal(network.storable[level], again.storable[level])
        assert torch.equal(expected.outputs[level], found.outputs[level])
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for each, generator in zip((network, again), generators, strict=True):  # both grow alike
        each.widen(2, network.storable[2].any(0), 2, noise=0.1, generator=generator)
    assert torch.equal(network(pixels, one).outputs[2], again(pixels, one).outputs[2])


def test_a_state_keeps_its_weights_while_the_network_is_trained_on():
    network = random_network(*with_land())
    state, before = network.state(), network.vector()
    network.set_vector(before + 1)
    assert torch.equal(from_state(state).vector(), before)
    assert torch.equal(network.vector(), before + 1)


# Start values


def test_start_values_depend_on_the_generator_alone():
    networks = [full_network((7, 11), levels=2, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (parameters_to_vector(network.parameters()) for network in networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_noise_is_uniform_within_its_bounds():
    network = bare_network([(7, 11)])
    group = network.widen(
        0,
        everywhere((3, 5))[0],
        200,
        noise=0.01,
        generator=torch.Generator().manual_seed(0),
    )
    noise = group.encoder_weight.detach()
    assert 0.0098 < float(noise.abs().max()) <= 0.01
    assert float(noise.mean()) == pytest.approx(0, abs=5e-4)
    assert float(noise.std()) == pytest.approx(0.01 / 3**0.5, rel=0.03)


def test_torchs_random_state_is_left_alone():
    before = torch.get_rng_state()
    full_network((7, 11), levels=2)
    assert torch.equal(torch.get_rng_state(), before)
