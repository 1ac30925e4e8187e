"""RED-Net of `notebooks/rednet.py`, with which MrCAE is compared."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Prepared, prepare_with
from rednet import CHANNELS, REDNet, train

import xmrcae


def make_network(
    *, channels: tuple[int, ...] = (3, 2), activation: str | None = None, seed: int = 0
) -> REDNet:
    generator = torch.Generator().manual_seed(seed)
    return REDNet(channels, activation=activation, generator=generator, dtype=torch.float64)


def make_fields(
    n: int = 4, shape: tuple[int, int] = (31, 31), seed: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, *shape, generator=generator, dtype=torch.float64), torch.ones(
        n, dtype=torch.float64
    )


def small_set(**options: Any) -> Prepared:
    field = xmrcae.datasets.drifting_mode(n_times=40, size=31)
    return prepare_with(field, **{**xmrcae.recipes["drifting_mode"], "levels": 3} | options)


def departure_from_affine(network: REDNet) -> float:
    fields, one = make_fields(2)
    mixed = (0.3 * fields[:1] + 0.7 * fields[1:], one[:1])
    with torch.no_grad():
        apart = network(fields, one)
        return float((network(*mixed) - 0.3 * apart[:1] - 0.7 * apart[1:]).abs().max())


def test_without_activation_the_network_is_affine() -> None:
    assert departure_from_affine(make_network()) < 1e-13
    assert departure_from_affine(make_network(activation="relu")) > 1e-3


@pytest.mark.parametrize("shape", [(31, 31), (63, 127), (15, 31)])
def test_shape_is_kept(shape: tuple[int, int]) -> None:
    fields, one = make_fields(shape=shape)
    assert make_network(channels=(2, 3, 1))(fields, one).shape == fields.shape


def test_every_point_can_be_reached_and_is_used() -> None:
    """A change anywhere, at the very edge too, comes back, and at the place where it was made."""
    network, (fields, one) = make_network(channels=(4,)), make_fields(1, (15, 15))
    before = network(fields, one)
    for place in [(0, 0), (14, 14), (0, 7), (6, 9)]:
        changed = fields.clone()
        changed[0, 0, place[0], place[1]] += 1
        assert (network(changed, one) - before)[0, 0, place[0], place[1]] != 0


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("two_modes", 303),
        ("drifting_mode", 669),
        ("channel_flow", 1622),
        ("isotropic_turbulence", 1184),
    ],
)
def test_the_papers_sizes(name: str, size: int) -> None:
    assert make_network(channels=CHANNELS[name]).n_parameters == size


def test_number_of_parameters() -> None:
    widths = (1, 5, 3, 2)
    expected = sum(18 * a * b + a + b for a, b in pairwise(widths))
    assert make_network(channels=widths[1:]).n_parameters == expected


@pytest.mark.parametrize("activation", [None, "relu"])
def test_the_encoding_is_all_that_decoding_takes(activation: str | None) -> None:
    network, (fields, one) = make_network(activation=activation), make_fields(1, (15, 31))
    features = network.encode(fields, one)
    size = network.encoding_size((15, 31))
    code = torch.cat([feature.flatten() for feature in features])
    assert len(code) == size
    pieces = code.split([feature.numel() for feature in features])
    again = [piece.view_as(feature) for piece, feature in zip(pieces, features, strict=True)]
    assert torch.equal(network.decode(again, one), network(fields, one))
    # The features of every depth change what comes back: none of them could be left out.
    for k in range(len(features)):
        without = [
            torch.zeros_like(feature) if i == k else feature for i, feature in enumerate(features)
        ]
        assert not torch.allclose(network.decode(without, one), network(fields, one))


def test_biases_are_multiplied_with_one() -> None:
    """So that a compressed set serves as the snapshots do, if the network is affine."""
    network, (fields, one) = make_network(), make_fields(3)
    back = network(fields, one)
    assert torch.allclose(network(5 * fields, 5 * one), 5 * back)
    differences = network(fields[:1] - fields[1:2], one[:1] - one[1:2])
    assert torch.allclose(differences, back[:1] - back[1:2])


def test_training_on_a_compressed_set_is_training_on_its_snapshots() -> None:
    compressed, plain = small_set(), small_set(activation="relu")
    last = []
    for data in (compressed, plain):
        _, history = train((2, 1), data.training[-1], data.validation[-1], max_epochs=3)
        last.append(history[-1])
    assert (
        compressed.training[-1].constant[1:].sum() == 0 and (plain.training[-1].constant == 1).all()
    )
    for loss in ("train_loss", "validation_loss"):
        assert np.isclose(last[0][loss], last[1][loss], rtol=2e-3)


@pytest.mark.parametrize("activation", [None, "relu"])
def test_training_lowers_the_loss_and_keeps_the_best(activation: str | None) -> None:
    data = small_set(activation=activation)
    network, history = train(
        (3, 2),
        data.training[-1],
        data.validation[-1],
        activation=activation,
        max_epochs=40,
        omega=1.0,
    )
    assert [row["epoch"] for row in history] == list(range(5, 45, 5))
    losses = [row["validation_loss"] for row in history]
    assert min(losses) < 0.5 * losses[0]
    plain = small_set(activation="relu").validation[-1]
    fields = torch.as_tensor(plain.samples)
    errors = (network(fields, torch.ones(len(fields))) - fields).square()
    assert np.isclose(errors.mean().item(), min(losses), rtol=1e-3)


def test_a_seed_gives_the_same_bits_and_leaves_torch_alone() -> None:
    data = small_set()
    state = torch.get_rng_state()
    runs = [
        train((2,), data.training[0], data.validation[0], max_epochs=8, seed=seed)
        for seed in (3, 3, 4)
    ]
    vectors = [torch.nn.utils.parameters_to_vector(network.parameters()) for network, _ in runs]
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    assert torch.equal(state, torch.get_rng_state())


def test_time_that_is_left_goes_to_further_starts() -> None:
    data = small_set()
    _, history = train((1,), data.training[0], data.validation[0], max_epochs=200)
    assert history[-1]["start"] > 0
    _, history = train((1,), data.training[0], data.validation[0], seconds=0.0)
    assert len(history) == 1


def test_only_valid_pixels_count() -> None:
    field = xmrcae.datasets.drifting_mode(n_times=20, size=31).compute()
    field[:, 4:9, 10:20] = np.nan
    data = prepare_with(field, levels=1, center=False, scale=None, activation="relu")
    counts, validation = data.training[0].counts, data.validation[0]
    network, history = train(
        (1,), data.training[0], validation, activation="relu", max_epochs=1, omega=1.0
    )
    fields = torch.as_tensor(np.ascontiguousarray(validation.samples))
    with torch.no_grad():
        errors = (network(fields, torch.ones(len(fields))) - fields).square().mean(0).numpy()
    assert not counts.all() and (errors[~counts] > 0).any()
    assert np.isclose(history[0]["validation_loss"], errors[counts].mean(), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "seconds"),
        ({"activation": "relu", "max_epochs": 3}, "activation='relu'"),
        ({"snapshots": 5, "max_epochs": 3}, "snapshots=5"),
    ],
)
def test_what_cannot_be_trained_is_refused(options: dict[str, Any], named: str) -> None:
    data = small_set()
    with pytest.raises(ValueError, match=named):
        train((2,), data.training[0], data.validation[0], **options)
