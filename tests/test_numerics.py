"""What results depend on beside the data: precision, threads, blocks and seeds."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import make_field, prepare_with

from xmrcae.core.evaluation import Evaluation
from xmrcae.core.network import Network
from xmrcae.core.projection import from_state
from xmrcae.core.samples import Samples
from xmrcae.core.threads import threads_for

OPTIONS = {"levels": 3, "channels": [[1, 2]], "max_epochs": 20, "progress": False}


@pytest.fixture(scope="module")
def fitted():
    field = make_field(16, (31, 40), dtype=np.float64)
    return field, field.mrcae.fit(**OPTIONS)


def in_double(model):
    """The same network with weights and sums in float64."""
    state = model.fitted.codec.network.state()
    network = from_state(state)
    options = {"widening": state.widening, "restriction": state.restriction}
    double = Network(network.has_data, network.counts, dtype=torch.float64, **options)
    pairs = zip(state.masks, state.channels, strict=True)
    double.grow(zip(map(torch.tensor, masks), channels, strict=True) for masks, channels in pairs)
    double.load_state_dict({name: torch.tensor(w) for name, w in state.weights.items()})
    return network, double


def test_float32_reconstructs_as_float64_within_1e_6_of_the_largest_pixel(fitted):
    field, model = fitted
    single, double = in_double(model)
    codec = model.fitted.codec
    values = model.fitted.standard.apply(field.values[:, None], np.zeros(16, dtype=int))
    padded = codec.pyramid.pad(np.nan_to_num(values)).reshape(16, -1).T.copy()
    ones = torch.ones(16, dtype=torch.float64)
    outputs = [
        network(torch.as_tensor(padded, dtype=network.dtype), ones.to(network.dtype)).outputs
        for network in (single, double)
    ]
    for a, b in zip(*outputs, strict=True):
        apart = float((a.double() - b).abs().max() / b.abs().max())
        assert 0 < apart < 1e-6


def evaluation_of(model, field, *, block_bytes):
    data, network = prepare_with(field, levels=3).training, model.fitted.codec.network
    samples = [Samples.of(each, network.device) for each in data]
    return Evaluation(network, block_bytes=block_bytes), samples


@pytest.mark.parametrize("width", [1, 2, 4])
def test_blocks_change_losses_and_gradients_by_rounding_alone(fitted, width):
    field, model = fitted
    found = []
    for n in (width, np.inf):
        evaluation, samples = evaluation_of(model, field, block_bytes=np.inf)
        if n < np.inf:
            evaluation.block_bytes = n * evaluation.network.bytes_per_sample(2)
        terms = {"power": 8.0, "omega": 0.5, "anchor": 0.5}
        value, _ = evaluation.objective(samples, 2, **terms)
        gradient = torch.cat([p.grad.flatten() for p in evaluation.network.parameters()])
        found.append((float(value), gradient))
    (a, by_a), (b, by_b) = found
    assert a == pytest.approx(b, rel=1e-5)
    assert float((by_a - by_b).norm()) <= 1e-4 * float(by_b.norm())


def test_threads_change_no_bit_of_a_reconstruction(fitted):
    field, model = fitted
    many = xr.concat([field + n for n in range(6)], "time")
    assert len(many) > 2 * model.fitted.codec.width  # so that several threads have blocks
    found = []
    for n in (1, 2, 4):
        torch.set_num_threads(n)  # the fixture of all tests puts it back
        found.append(model.reconstruct(many).values.tobytes())
    assert found[1:] == found[:1] * 2


@pytest.mark.parametrize("lazy", [False, True])
def test_a_block_takes_one_thread_of_torch_and_leaves_the_setting(fitted, monkeypatch, lazy):
    field, model = fitted
    many = xr.concat([field] * 6, "time")
    seen, forward = [], Network.forward

    def seeing(*arguments):
        seen.append((torch.get_num_threads(), threading.get_ident()))
        return forward(*arguments)

    monkeypatch.setattr(Network, "forward", seeing)
    torch.set_num_threads(2)
    model.encode(many.chunk(time=32) if lazy else many)["level_0"]["encoding"].compute()
    threads, workers = zip(*seen, strict=True)
    assert len(seen) == 3 and set(threads) == {1}
    assert threading.get_ident() not in workers
    assert torch.get_num_threads() == 2


def test_threads_that_overlap_leave_torch_as_it_was():
    torch.set_num_threads(2)
    in_first, in_second, out_of_first = (threading.Event() for _ in range(3))

    def first():
        with threads_for(0):
            in_first.set()
            in_second.wait(10)
        out_of_first.set()

    def second():
        in_first.wait(10)
        with threads_for(0):
            in_second.set()
            out_of_first.wait(10)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda function: function(), (first, second)))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2


@pytest.mark.parametrize("chunks", [{"time": 1}, {"time": 5, "lat": 7}, {"lon": 9}])
def test_chunks_change_no_bit_of_a_fit(fitted, chunks):
    field, model = fitted
    again = field.chunk(chunks).mrcae.fit(**OPTIONS)
    np.testing.assert_array_equal(again.history.train_loss, model.history.train_loss)
    xr.testing.assert_equal(again.reconstruct(field), model.reconstruct(field))
    xr.testing.assert_equal(again.reconstruct(field.chunk(chunks)), model.reconstruct(field))


def bits(field, **options):
    """All that a fit has learnt, as bytes."""
    model = field.mrcae.fit(**OPTIONS, **options)
    losses = [model.history[name].values for name in ("train_loss", "validation_max")]
    weights = model.fitted.codec.network.vector().numpy()
    return b"".join(each.tobytes() for each in (weights, model.split.values, *losses))


@pytest.mark.parametrize("n_runs", [3, pytest.param(20, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    "options",
    [{}, {"solver": "adam"}, {"encoder": "projection", "encoding_size": 200}, {"sketch": 3}],
    ids=str,
)
def test_one_seed_gives_the_same_bits(n_runs, options):
    field = make_field(14, (20, 24))
    assert len({bits(field, seed=7, **options) for _ in range(n_runs)}) == 1
    assert bits(field, seed=8, **options) != bits(field, seed=7, **options)


def test_data_in_float32_are_fitted_as_well_as_in_float64():
    ratios = []
    for seed in range(3):  # errors of one field differ by up to a tenth, either way
        field = make_field(16, (31, 40), dtype=np.float64, seed=seed)
        single, double = (
            each.mrcae.fit(**OPTIONS).score(each)["rmse"].values
            for each in (field.astype(np.float32), field)
        )
        ratios.append(single / double)
    assert 0.88 < np.mean(ratios) < 1.12
