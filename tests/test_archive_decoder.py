"""A reader's decoder is the network's, without torch."""

import numpy as np
import pytest
import torch
from helpers import (
    SHAPES,
    columns,
    full_network,
    make_field,
    make_two_variables,
    random_network,
    with_land,
)

import xmrcae
from xmrcae.archive.decoder import Decoder
from xmrcae.core.projection import atoms

WHOLE = slice(None), slice(None)


def decoder_of(network, cuts=None):
    return Decoder(network.state(), cuts or [WHOLE] * len(network.levels))


def random_codes(decoder, n=5, seed=0):
    return np.random.default_rng(seed).standard_normal((n, sum(decoder.sizes)))


def land_network(**kwargs):
    return random_network(*with_land(), **kwargs)


def check_decodes_as(network, decoder, cuts, *, rtol):
    """Compare every level with what torch decodes, on the valid pixels of the extent."""
    codes = random_codes(decoder)
    for level in range(len(decoder.sizes)):
        own = codes[:, : sum(decoder.sizes[: level + 1])]
        flat = columns(own, network.dtype)
        expected = network.decode(
            list(flat.split(decoder.sizes[: level + 1])), torch.ones_like(flat[0])
        )
        expected = expected.T.reshape(-1, *network.has_data[level].shape).double().cpu().numpy()
        expected = expected[..., *cuts[level]][:, decoder.valid[level]]
        found = decoder.decode(own, level)
        assert found.dtype == np.float64 and found.size
        np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("widening", ["residual", "parallel"])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_decodes_as_the_network_of_two_variables_with_coasts(widening, activation):
    network = land_network(widening=widening, activation=activation)
    check_decodes_as(network, decoder_of(network), [WHOLE] * 3, rtol=1e-13)


def test_decodes_a_network_in_float32_to_its_rounding():
    network = land_network(dtype=torch.float32)
    check_decodes_as(network, decoder_of(network), [WHOLE] * 3, rtol=2e-6)


def test_decodes_from_a_bottleneck_of_one_cell():
    network = full_network((3, 3), levels=3, variables=2)
    assert decoder_of(network).sizes[0] == 2 + sum(
        channels * cells for channels, cells in network.levels[0].code_sizes
    )
    check_decodes_as(network, decoder_of(network), [WHOLE] * 3, rtol=1e-13)


def test_decodes_levels_without_groups():
    network = land_network(channels=())
    decoder = decoder_of(network)
    assert decoder.sizes[1:] == [0, 0]
    check_decodes_as(network, decoder, [WHOLE] * 3, rtol=1e-13)


@pytest.mark.parametrize("field", [make_field(n_times=9), make_two_variables(n_times=9)])
@pytest.mark.parametrize("encoder", ["filters", "projection"])
def test_decodes_a_fitted_periodic_model_within_the_extent(field, encoder):
    options = {"levels": 2, "channels": [[1, 2]], "max_epochs": 3, "progress": False}
    model = xmrcae.MrCAE(**options, encoder=encoder).fit(field)
    codec = model.fitted.codec
    assert codec.pyramid.x.periodic
    cuts = [codec.pyramid.cut(level)[1:] for level in range(2)]
    decoder = decoder_of(codec.network, cuts)
    assert decoder.sizes == codec.sizes
    for valid, standard in zip(decoder.valid, codec.standards, strict=True):
        assert np.array_equal(valid, standard.valid)
    check_decodes_as(codec.network, decoder, cuts, rtol=2e-6)


def test_channels_tell_the_codes_of_each_filter_apart():
    network = land_network()
    decoder = decoder_of(network)
    for k, level in enumerate(network.levels):
        cells = [int(n) for n in network.storable[0].sum((1, 2))] if k == 0 else []
        filters = [cells for n, cells in level.code_sizes for _ in range(n)]
        assert np.bincount(decoder.channels[k]).tolist() == [*cells, *filters]


def test_norms_are_the_medians_of_what_unit_codes_write():
    network = land_network()
    decoder = decoder_of(network)
    factors = np.array([2.0, 0.5])
    written = atoms(list(network.levels))[-1].toarray().reshape(2, *SHAPES[-1], -1)
    written = (written * factors[:, None, None, None])[decoder.valid[-1]]
    expected = np.split(np.sqrt((written**2).sum(0)), np.cumsum(decoder.sizes)[:-1])
    for norms, each, channels in zip(
        decoder.norms(factors), expected, decoder.channels, strict=True
    ):
        assert len(norms) == channels.max() + 1
        for channel, norm in enumerate(norms):
            own = each[channels == channel]
            assert np.quantile(own, 0.4) <= norm <= np.quantile(own, 0.6)
            if len(own) <= 64:
                assert norm == pytest.approx(np.median(own), rel=1e-12)


def test_filters_that_act_nowhere_have_a_norm_of_zero():
    network = land_network(channels=(1,))
    nowhere = torch.zeros_like(network.storable[1][0])
    network.widen(1, nowhere, 2, noise=0.3, generator=torch.Generator())
    first, second, third = decoder_of(network).norms(np.ones(2))[1]
    assert first > 0 and second == third == 0
