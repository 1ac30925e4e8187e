"""Codes by least squares, and cells chosen by what they gain."""

import json

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import xarray as xr
from helpers import (
    AVISO,
    DEVICE,
    ERSST,
    columns,
    make_field,
    make_land,
    make_two_variables,
    open_real,
)

import xmrcae
from xmrcae.core.allocation import choose_cells
from xmrcae.core.projection import RIDGE, LeastSquares, ProjectedNetwork, from_state

ONE = torch.ones(3, dtype=torch.float64, device=DEVICE)


def projecting_network(
    *, anchor: float = 0.0, variables: int = 1, seed: int = 0
) -> tuple[ProjectedNetwork, torch.Tensor]:
    """Two levels with random decoders on a grid with land, and three snapshots."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(15, 23), (31, 47)]
    land = [torch.as_tensor(make_land(shape)).expand(variables, *shape) for shape in shapes]
    weights = [
        (has * torch.rand(has.shape, generator=generator, dtype=torch.float64)).to(DEVICE)
        for has in land
    ]
    valid = [has.to(DEVICE) for has in land]
    network = ProjectedNetwork(
        valid, valid[-1], widening="residual", restriction="full_weighting", dtype=torch.float64,
        projection=[weight / weight.sum() for weight in weights], anchor=anchor,
    )  # fmt: skip
    for level in range(2):
        network.deepen(noise=0.1, generator=generator)
        storable = network.storable[level].any(0)
        for n_filters in (1, 2):
            mask = storable & (torch.rand(storable.shape, generator=generator) < 0.4).to(DEVICE)
            network.widen(level, mask, n_filters, noise=0.3, generator=generator)
    pixels = columns(np.random.default_rng(seed).standard_normal((3, variables, *shapes[-1])))
    return network, pixels


def squares(
    network: ProjectedNetwork, codes: torch.Tensor, inputs: list[torch.Tensor]
) -> torch.Tensor:
    """The sum that the codes are to make least, for each sample."""
    result = network.expand(codes, ONE, inputs)
    total = torch.zeros_like(ONE)
    for level, share in enumerate((network.anchor, 1.0)):
        errors = (result.outputs[level] - inputs[level]).square()
        total += share * (network.projection[level].reshape(-1, 1) * errors).sum(0)
    return total


@pytest.mark.parametrize("anchor", [0.0, 0.5])
def test_no_codes_near_by_describe_a_snapshot_better(anchor):
    network, pixels = projecting_network(anchor=anchor)
    result = network(pixels, ONE)
    codes = torch.cat([result.flat_codes(level) for level in range(2)])
    least = squares(network, codes, result.inputs)
    generator = torch.Generator().manual_seed(1)
    for size in (1e-2, 1.0):
        noise = torch.randn(codes.shape, generator=generator, dtype=torch.float64)
        moved = codes + size * noise.to(DEVICE)
        assert (squares(network, moved, result.inputs) > least).all()


def test_the_projection_of_a_reconstruction_is_itself():
    network, pixels = projecting_network()
    once = network(pixels, ONE).outputs[-1]
    twice = network(once, ONE).outputs[-1]
    counted = network.projection[-1].reshape(-1) > 0
    torch.testing.assert_close(twice[counted], once[counted], rtol=0, atol=1000 * RIDGE)


def test_uncounted_pixels_change_no_code_without_an_anchor():
    network, pixels = projecting_network()
    counted = network.projection[-1].reshape(-1, 1) > 0
    changed = torch.where(counted, pixels, pixels + 100)
    before, after = (network(field, ONE) for field in (pixels, changed))
    for level in range(2):
        assert torch.equal(before.flat_codes(level), after.flat_codes(level))


@pytest.mark.parametrize("variables", [1, 2])
@pytest.mark.parametrize("anchor", [0.0, 0.5])
def test_gradients_include_what_the_codes_do(anchor, variables):
    network, pixels = projecting_network(anchor=anchor, variables=variables)
    one = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64, device=DEVICE)
    generator = torch.Generator().manual_seed(2)
    sensitivity = {
        level: torch.randn(
            network.has_data[level].numel(), 3, generator=generator, dtype=torch.float64
        ).to(DEVICE)
        * (network.projection[level].reshape(-1, 1) > 0)
        for level in range(2)
    }

    def value() -> float:
        outputs = network(pixels, one).outputs
        return float(sum((sensitivity[level] * outputs[level]).sum() for level in range(2)))

    value()
    network.zero_grad(set_to_none=True)
    network.backward(
        network(pixels, one), one, {level: given.clone() for level, given in sensitivity.items()}
    )
    for parameter in network.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction = noise.to(DEVICE)
        expected, step = float((parameter.grad * direction).sum()), 1e-5
        with torch.no_grad():
            start = parameter.clone()
            ends = []
            for sign in (1, -1):
                parameter.copy_(start + sign * step * direction)
                ends.append(value())
            parameter.copy_(start)
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
            expected, rel=2e-3, abs=1e-4 * abs(value())
        )


def test_a_projecting_network_has_decoders_only():
    network, _ = projecting_network()
    assert all(name.split(".")[-1].startswith("decoder") for name, _ in network.named_parameters())
    assert network.n_parameters == 2 * (10 + (9 + 1) + (18 + 1))


def test_a_network_made_again_from_its_state_projects_alike():
    network, pixels = projecting_network(anchor=0.5, variables=2)
    again = from_state(network.state(), DEVICE)
    assert isinstance(again, ProjectedNetwork)
    one, other = (each(pixels, ONE) for each in (network, again))
    for level in range(2):
        assert torch.equal(one.flat_codes(level), other.flat_codes(level))
        assert torch.equal(one.outputs[level], other.outputs[level])


def test_atoms_that_depend_on_each_other_are_no_trouble():
    column = np.arange(1.0, 6.0)[:, None]
    codes = LeastSquares(sp.csr_array(np.hstack([column, column, 0 * column]))).solve(column)
    np.testing.assert_allclose(codes[:2], 0.5, rtol=1e-5)
    np.testing.assert_allclose(codes[2], 0, atol=1e-12)


# Choosing cells


def test_orthogonal_atoms_are_chosen_by_their_share_of_the_targets():
    rng = np.random.default_rng(0)
    atoms, _ = np.linalg.qr(rng.standard_normal((60, 40)))
    strength = rng.permutation(40) + 1.0
    targets = atoms @ (strength[:, None] * np.linalg.qr(rng.standard_normal((40, 40)))[0])
    chosen = choose_cells(
        sp.csr_array(atoms * rng.uniform(0.1, 10, 40)), targets, [(20, 1), (15, 1)], 5 + 12
    )
    kept = np.concatenate(chosen)
    assert kept.sum() == 12
    assert set(np.flatnonzero(kept)) == set(np.argsort(strength[5:])[-12:])


def test_a_cell_of_two_filters_costs_two_numbers():
    atoms = np.eye(
        9
    )  # a bottleneck of one, a group of two cells and two filters, a group of four cells and one
    strength = np.array([0.0, 3.0, 1.0, 3.0, 0.5, 2.9, 0.1, 0.1, 0.1])
    chosen = choose_cells(sp.csr_array(atoms), np.diag(strength), [(2, 2), (4, 1)], 1 + 3)
    np.testing.assert_array_equal(chosen[0], [True, False])
    np.testing.assert_array_equal(chosen[1], [True, False, False, False])

    strength[[1, 3]] = (
        2.5  # of the first cell: more than the single filter's 2.9 together, less each
    )
    chosen = choose_cells(sp.csr_array(atoms), np.diag(strength), [(2, 2), (4, 1)], 1 + 2)
    np.testing.assert_array_equal(chosen[0], [False, False])
    np.testing.assert_array_equal(chosen[1], [True, False, False, False])


@pytest.mark.parametrize("channels", [[[1, 1, 1]], [[2, 1]]])
def test_the_encoding_has_the_size_asked_for(channels):
    field = make_field(24, (23, 31), globe=False)
    model = field.mrcae.fit(
        encoder="projection",
        encoding_size=150,
        levels=2,
        channels=channels,
        max_epochs=3,
        progress=False,
    )
    assert 148 <= model.encoding_sizes[-1] <= 150
    codes = model.encode(field)
    finite = sum(int(codes[f"level_{k}"]["encoding"][0].notnull().sum()) for k in range(2))
    assert finite == model.encoding_sizes[-1]


@pytest.mark.parametrize("channels", [[[], []], [[1], []]])
def test_levels_may_have_no_groups(channels):
    field = make_field(24, (23, 31), globe=False)
    model = field.mrcae.fit(
        encoder="projection",
        encoding_size=100,
        levels=2,
        channels=channels,
        max_epochs=2,
        progress=False,
    )
    assert model.encoding_sizes[-1] <= 100
    assert np.isfinite(model.score(field)["rmse"][-1])


def test_a_bottleneck_larger_than_the_encoding_is_refused():
    with pytest.raises(ValueError, match="the bottleneck alone takes"):
        make_field().mrcae.fit(encoder="projection", encoding_size=3, levels=2, progress=False)


def test_more_numbers_describe_better():
    field = make_field(40, (31, 47), globe=False)
    errors = [
        float(field.mrcae.fit(encoder="projection", encoding_size=n, levels=3, max_epochs=10, progress=False)
              .score(field)["rmse"][-1])
        for n in (100, 200, 400)
    ]  # fmt: skip
    assert errors[0] > errors[1] > errors[2]


# Labelled data


@pytest.fixture(scope="module")
def model_and_field():
    field = make_field(30, (23, 40))
    options = {"levels": 2, "tolerance": 0.25, "max_epochs": 8, "progress": False}
    return xmrcae.MrCAE(encoder="projection", **options).fit(field), field, options


def test_projection_describes_better_than_filters(model_and_field):
    model, field, options = model_and_field
    filters = xmrcae.MrCAE(**options | {"tolerance": None}).fit(field)
    projected = xmrcae.MrCAE(encoder="projection", **options | {"tolerance": None}).fit(field)
    test = field.isel(time=(model.split == "test").values)
    assert filters.encoding_sizes[-1] == projected.encoding_sizes[-1]
    assert projected.score(test)["rmse"][-1] < filters.score(test)["rmse"][-1]


def test_decode_of_encode_is_reconstruct_and_score_agrees(model_and_field):
    model, field, _ = model_and_field
    again = model.decode(model.encode(field))
    xr.testing.assert_identical(again, model.reconstruct(field))
    rmse = float(np.sqrt(((again - field) ** 2).mean()))
    assert float(model.score(field)["rmse"][-1]) == pytest.approx(rmse, rel=1e-5)


def test_dask_in_odd_chunks_gives_the_same_bits(model_and_field, no_compute):
    model, field, _ = model_and_field
    lazy = field.chunk(time=7, lat=11, lon=13)
    with no_compute():
        again = model.reconstruct(lazy)
    xr.testing.assert_identical(again.compute(), model.reconstruct(field))


def test_land_changes_no_bit_and_orientation_neither(model_and_field):
    model, field, _ = model_and_field
    valid = field.notnull().any("time")
    covered = field.where(valid, 1e3)
    expected = model.reconstruct(field)
    xr.testing.assert_identical(model.reconstruct(covered), expected)
    xr.testing.assert_identical(
        model.reconstruct(field.isel(lat=slice(None, None, -1)))[:, ::-1], expected
    )


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
def test_a_file_read_back_gives_the_same_bits(model_and_field, tmp_path, suffix):
    model, field, _ = model_and_field
    model.save(tmp_path / f"model.{suffix}")
    again = xmrcae.open_model(tmp_path / f"model.{suffix}")
    xr.testing.assert_identical(again.reconstruct(field), model.reconstruct(field))
    assert again.n_parameters == model.n_parameters


def test_coarse_levels_stay_near_their_data(model_and_field):
    model, field, options = model_and_field
    loose = xmrcae.MrCAE(encoder="projection", anchor=0.0, **options).fit(field)
    assert model.score(field)["rmse"][0] < loose.score(field)["rmse"][0]


def test_two_variables_and_seasons():
    data = make_two_variables(n_times=36, shape=(23, 31), globe=False)
    model = data.mrcae.fit(
        ["sst", "ssh"], encoder="projection", levels=2, center="month", max_epochs=5, progress=False
    )
    again = model.reconstruct(data)
    for name in data:
        error = float(np.sqrt(((again[name] - data[name]) ** 2).mean()))
        assert error < 0.3 * float(data[name].std("time").mean())


def test_a_fit_goes_on_from_a_checkpoint(tmp_path):
    field = make_field(24, (23, 31), globe=False)
    options = {
        "encoder": "projection",
        "encoding_size": 120,
        "levels": 2,
        "max_epochs": 12,
        "progress": False,
    }
    expected = xmrcae.MrCAE(**options).fit(field)

    class Stop(KeyboardInterrupt):
        pass

    from xmrcae.core.training import Trainer

    saved = Trainer._record
    calls = 0

    def interrupt(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 18:
            raise Stop
        return saved(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_record", interrupt)
        with pytest.raises(Stop):
            xmrcae.MrCAE(checkpoint=tmp_path / "state", **options).fit(field)
    model = xmrcae.MrCAE(checkpoint=tmp_path / "state", **options).fit(field)
    xr.testing.assert_identical(
        model.history.drop_vars("seconds"), expected.history.drop_vars("seconds")
    )
    np.testing.assert_array_equal(model.reconstruct(field), expected.reconstruct(field))


def test_a_start_keeps_what_it_knows():
    field = make_field(24, (23, 31), globe=False)
    options = {"encoder": "projection", "levels": 2, "max_epochs": 4, "progress": False}
    first = xmrcae.MrCAE(encoding_size=100, **options).fit(field)
    more = xmrcae.MrCAE(encoding_size=160, **options).fit(field, start=first)
    assert 158 <= more.encoding_sizes[-1] <= 160
    assert more.score(field)["rmse"][-1] < first.score(field)["rmse"][-1]
    with pytest.raises(ValueError, match="encoder='projection'"):
        xmrcae.MrCAE(encoder="filters", levels=2, progress=False).fit(field, start=first)


@pytest.mark.parametrize(
    ("options", "encodes"),
    [
        ({"encoding_size": 100}, False),
        ({"encoding_size": 100, "encoder": "filters"}, True),
        ({"encoding_size": 100, "activation": "relu"}, True),
        ({"tolerance": 0.5}, True),
    ],
)
def test_codes_of_a_given_number_are_projected_unless_told_otherwise(options, encodes):
    model = make_field().mrcae.fit(levels=2, max_epochs=0, progress=False, **options)
    assert model.fitted.codec.network.encodes == encodes
    expected = "filters" if encodes else "projection"
    assert model.options.encoder == json.loads(model.fitted.options_json)["encoder"] == expected


@pytest.mark.parametrize("encoder", ["filters", "projection"])
def test_a_fit_that_goes_on_keeps_the_encoder(encoder):
    field, options = make_field(), {"levels": 2, "max_epochs": 0, "progress": False}
    first = xmrcae.MrCAE(encoder=encoder, tolerance=None, **options).fit(field)
    more = xmrcae.MrCAE(encoding_size=300, **options).fit(field, start=first)
    assert more.options.encoder == encoder


def test_snapshots_too_large_to_project_have_filters(monkeypatch):
    field = make_field()
    for most, encodes in ((field[0].size, False), (field[0].size - 1, True)):
        monkeypatch.setattr("xmrcae.defaults.MOST_PROJECTED", most)
        model = field.mrcae.fit(levels=2, encoding_size=100, max_epochs=0, progress=False)
        assert model.fitted.codec.network.encodes == encodes


def test_projection_takes_no_activation():
    with pytest.raises(ValueError, match='encoder="projection"'):
        xmrcae.MrCAE(encoder="projection", activation="relu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "variable", "options"), [(ERSST, "sst", {}), (AVISO, "adt", {"gaps": "mask"})]
)
def test_real_fields_held_out(real_file, name, variable, options):
    field = open_real(real_file, name)[variable]
    model = field.mrcae.fit(
        encoder="projection",
        encoding_size=1000,
        omega=1.0,
        anchor=0.0,
        max_epochs=5,
        progress=False,
        **options,
    )
    test = field.isel(time=(model.split == "test").values)
    describable = field.notnull().all("time")
    spread = float((test - field.mean("time")).where(describable).std())
    assert float(model.score(test)["rmse"][-1]) < (0.2 if variable == "sst" else 0.25) * spread
