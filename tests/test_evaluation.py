"""Blocks of samples, sketches, and what memory has no room for."""

import ctypes
import dataclasses
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import (
    AVISO,
    CYLINDER,
    DEVICE,
    ERSST,
    make_field,
    make_two_variables,
    open_real,
    pixel_errors,
    prepare_with,
    random_network,
)

import xmrcae
from xmrcae.core.evaluation import Evaluation
from xmrcae.core.layers import Group
from xmrcae.core.losses import smooth_max
from xmrcae.core.masks import cell_errors
from xmrcae.core.network import Network
from xmrcae.core.samples import Samples, sketched
from xmrcae.grid.combinations import shortened


def prepared(obj: xr.DataArray | xr.Dataset, **options: Any) -> tuple[Network, list[Samples]]:
    """A random network on the grid of the data, and the samples of all levels."""
    data = prepare_with(obj, levels=2, **options).training
    network = random_network([each.has_data for each in data], data[-1].counts, dtype=torch.float32)
    return network, [Samples.of(each, DEVICE) for each in data]


def gradients(network: Network) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in network.parameters()])


def bytes_of(network: Network, n: int) -> float:
    """Bytes that `n` samples take on the finest level."""
    return n * network.bytes_per_sample(len(network.levels) - 1)


# Blocks


@pytest.mark.parametrize("power", [None, 8.0, 128.0])
@pytest.mark.parametrize("anchor", [0.0, 0.5])
@pytest.mark.parametrize("n", [1, 2, 5])
def test_blocks_change_neither_objective_nor_gradient(
    n: int, anchor: float, power: float | None
) -> None:
    network, data = prepared(make_two_variables(n_times=30), weights="area")
    whole = Evaluation(network, block_bytes=math.inf)
    value, errors = whole.objective(data, 1, power=power, omega=0.3, anchor=anchor)
    expected = gradients(network)
    blocks = Evaluation(network, block_bytes=bytes_of(network, n))
    n_samples, width = data[1].leading.stop, 2 ** int(math.log2(n))
    assert len(blocks.blocks(1, data[1].leading)) == math.ceil(n_samples / width)
    again, other = blocks.objective(data, 1, power=power, omega=0.3, anchor=anchor)
    torch.testing.assert_close(again, value, rtol=1e-5, atol=0)
    torch.testing.assert_close(other, errors, rtol=1e-4, atol=1e-6 * float(errors.max()))
    torch.testing.assert_close(
        gradients(network), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
    )


@pytest.mark.parametrize("n", [1, 4, 1000])
def test_errors_add_up_over_blocks(n: int) -> None:
    network, data = prepared(make_field(n_times=30))
    outputs = network(data[-1].pixels, data[-1].constant).outputs
    evaluation = Evaluation(network, block_bytes=bytes_of(network, n))
    for level in range(2):
        pixels, constant = data[level].pixels, data[level].constant
        expected = pixel_errors(network(pixels, constant).outputs[level] - pixels, constant)
        found, finest = evaluation.errors(data, level, slice(0, None))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        assert finest is None
    _, finest = evaluation.errors(data, 1, slice(0, None), prolongations=[])
    residual = outputs[1] - data[1].pixels
    expected = pixel_errors(residual, data[1].constant)
    torch.testing.assert_close(finest, expected, rtol=1e-4, atol=1e-6)


def test_a_block_without_memory_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    network, data = prepared(make_field(n_times=30))
    evaluation = Evaluation(network, block_bytes=math.inf)
    value, _ = evaluation.objective(data, 1, power=None, omega=0.5, anchor=0.5)
    expected = gradients(network)
    forward, widths = Network.forward, []

    def small(self: Network, pixels: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        widths.append(pixels.shape[1])
        if pixels.shape[1] > 5:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return forward(self, pixels, *args, **kwargs)

    monkeypatch.setattr(Network, "forward", small)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    again, _ = evaluation.objective(data, 1, power=None, omega=0.5, anchor=0.5)
    assert widths[0] == data[1].leading.stop and max(widths[-3:]) == 4
    torch.testing.assert_close(again, value, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        gradients(network), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
    )
    widths.clear()
    evaluation.objective(data, 1, power=None, omega=0.5, anchor=0.5)
    assert max(widths) == 4  # from then on
    monkeypatch.setattr(
        Network,
        "forward",
        lambda *_, **__: (_ for _ in ()).throw(torch.cuda.OutOfMemoryError("none")),
    )
    with pytest.raises(torch.cuda.OutOfMemoryError):
        evaluation.objective(data, 1, power=None, omega=0.5, anchor=0.5)


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        (Group, "read", {"encoder": "projection"}),  # start values
        (Network, "_inputs", {"encoding_size": 200}),  # the choice of cells
    ],
)
def test_a_fit_needs_memory_for_few_samples_alone(
    monkeypatch: pytest.MonkeyPatch, kind: type, name: str, options: dict[str, Any]
) -> None:
    method, refused = getattr(kind, name), []

    def small(self: Any, pixels: torch.Tensor, *args: Any) -> Any:
        if pixels.shape[1] > 5:
            refused.append(pixels.shape[1])
            raise torch.cuda.OutOfMemoryError("out of memory")
        return method(self, pixels, *args)

    monkeypatch.setattr(kind, name, small)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    model = make_field().mrcae.fit(levels=2, max_epochs=2, progress=False, **options)
    assert refused and not model.partial


@pytest.mark.parametrize("activation", [None, "relu"])
def test_a_fit_in_blocks_ends_near_one_in_a_piece(
    monkeypatch: pytest.MonkeyPatch, activation: str | None
) -> None:
    options = {
        "levels": 2,
        "max_epochs": 15,
        "tolerance": None,
        "channels": [[1]],
        "activation": activation,
    }
    whole = make_field().mrcae.fit(progress=False, **options)
    widths = []
    width = Network.bytes_per_sample
    monkeypatch.setattr(Network, "bytes_per_sample", lambda self, level: width(self, level) * 10**7)
    forward = Network.forward
    monkeypatch.setattr(
        Network,
        "forward",
        lambda self, p, *a, **k: (widths.append(p.shape[1]), forward(self, p, *a, **k))[1],
    )
    blocks = make_field().mrcae.fit(progress=False, memory=2**30, **options)
    assert max(widths) == 1
    a, b = (float(model.history["train_loss"][-1]) for model in (whole, blocks))
    assert a == pytest.approx(b, rel=0.2)


@pytest.mark.parametrize("n_samples", [21, 14])
def test_padding_with_zeros_changes_no_sum(n_samples: int) -> None:
    network, data = prepared(make_field(n_times=30))
    part = slice(0, n_samples)
    data = [
        dataclasses.replace(
            each,
            pixels=each.pixels[:, part],
            constant=each.constant[part],
            rank=14,
            padding=0,
        )
        for each in data
    ]
    padded = [each.padded(16) for each in data]
    assert padded[1].leading == slice(0, 16)
    assert padded[1].pixels.shape[1] == len(padded[1].constant) == (16 if n_samples == 14 else 32)
    evaluation = Evaluation(network, block_bytes=math.inf)
    found = []
    for samples in (data, padded):
        value, _ = evaluation.objective(samples, 1, power=None, omega=0.5, anchor=0.5)
        errors, _ = evaluation.errors(samples, 1, slice(None))
        found.append([value, gradients(network), errors])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))


# Sketches


def test_combinations_have_the_sums_of_squares_of_what_they_stand_for() -> None:
    network, data = prepared(make_field(n_times=60))
    evaluation = Evaluation(network, block_bytes=math.inf)
    exact, _ = evaluation.errors(data, 1, data[1].leading)
    draws = []
    for seed in range(200):
        some = sketched(data, 4, (seed,))
        assert [each.rank for each in some] == [9, 9]
        draws.append(evaluation.errors(some, 1, some[1].leading)[0])
    draws = torch.stack(draws)
    leading, _ = evaluation.errors(data, 1, slice(0, 5))
    tail = exact - leading
    deviation = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact).abs() <= 6 * deviation + 1e-5 * exact).all()
    weights, counts = data[1].weights, data[1].counts
    assert float((draws @ weights).std()) <= math.sqrt(2 / 4) * float(tail @ weights) * 1.2
    spread = math.log(int(counts.sum()) + 1) / 4
    bias = float(draws[:, counts].max(1).values.mean() - exact[counts].max())
    assert 0 <= bias <= float(tail.max()) * 2 * (math.sqrt(spread) + spread)


def test_the_same_combinations_on_all_levels() -> None:
    _, data = prepared(make_field(n_times=60), restriction="injection")
    coarse, fine = sketched(data, 3, (1, 2))
    rows, columns = prepare_with(make_field(), levels=2).pyramid.shape(1)
    injected = fine.pixels.reshape(rows, columns, -1)[1::2, 1::2].reshape(len(coarse.pixels), -1)
    torch.testing.assert_close(injected[coarse.counts], coarse.pixels[coarse.counts])
    assert torch.equal(sketched(data, 3, (1, 2))[1].pixels, fine.pixels)
    assert not torch.equal(sketched(data, 3, (1, 3))[1].pixels, fine.pixels)


def test_few_vectors_are_not_sketched() -> None:
    _, data = prepared(make_field(n_times=20))
    assert sketched(data, 100, (0,)) == data


def test_a_sketched_fit_reports_the_full_set() -> None:
    field = make_field(n_times=60)
    model = field.mrcae.fit(levels=2, sketch=4, max_epochs=30, progress=False)
    scale = float(model.fitted.standard.scale[0])
    train = model.score(field.isel(time=(model.split == "training").values))
    assert float(model.history["train_mse"][-1]) ** 0.5 * scale == pytest.approx(
        float(train["rmse"][-1]), rel=1e-4
    )
    assert model.history.attrs["train_samples"] == 42


def test_small_fields_are_not_sketched_unless_asked() -> None:
    attrs = make_field(n_times=40).mrcae.fit(levels=2, max_epochs=1, progress=False).history.attrs
    assert attrs["train_samples_at_level"] == 2 * [attrs["train_samples_in_training"]]


def test_the_more_pixels_the_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    objective = Evaluation.objective

    def seeing(self: Evaluation, data: list[Samples], level: int, **options: float) -> object:
        seen.append((level, data[level].rank))
        return objective(self, data, level, **options)

    monkeypatch.setattr(Evaluation, "objective", seeing)
    monkeypatch.setattr("xmrcae.core.samples.BUDGET", 6000)
    field = make_field(n_times=60)
    model = field.mrcae.fit(levels=2, tolerance=None, max_epochs=1, progress=False)
    used = model.history.attrs["train_samples_at_level"]
    assert used == [29, 17] and set(seen) == set(enumerate(used))
    more = field.mrcae.fit(levels=2, tolerance=None, max_epochs=1, sketch=12, progress=False)
    assert more.history.attrs["train_samples_at_level"] == [25, 25]


# What memory has no room for


#: Whether glibc gives a large array back to the system when it is freed, inside and afterwards. In a
#: process of its own: what others have freed may lie in its way.
HEAP = """
import ctypes, numpy as np
from xmrcae.memory import bounded_memory, keeping_memory

class Heap(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

def goes_back(n_bytes=2**27):
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Heap
    before = ask().hblkhd
    array = np.empty(n_bytes, dtype=np.uint8)
    return ask().hblkhd - before >= array.nbytes

with bounded_memory():
    bounded = goes_back(2**23)
    with keeping_memory():
        kept = goes_back()
    bounded_again = goes_back(2**23)
print(bounded, kept, bounded_again, goes_back(2**24), goes_back(2**28))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33 or newer")
def test_memory_is_kept_between_epochs_and_given_back_where_it_is_bounded() -> None:
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "True", "False", "True"]


def test_random_combinations_stand_for_what_memory_has_no_room_for() -> None:
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((200, 200)))[0]
    field = rng.standard_normal((200, 4000))
    kept, n_leading = shortened(vectors, 60)
    assert (len(kept), n_leading) == (60, 30)
    np.testing.assert_array_equal(kept[:30], vectors[:30])
    np.testing.assert_allclose(kept[30:] @ kept[:30].T, 0, atol=1e-12)
    sums = ((kept @ field) ** 2).sum()
    assert sums == pytest.approx((field**2).sum(), rel=0.02)
    assert ((kept[:30] @ field) ** 2).sum() < 0.2 * sums
    assert shortened(vectors[:5], 60) == (pytest.approx(vectors[:5]), 5)


@pytest.mark.filterwarnings("ignore:.*singular vector")
def test_the_share_of_variance_left_out_is_what_the_vectors_do_not_hold() -> None:
    field = make_field(n_times=60)
    model = field.mrcae.fit(levels=2, memory=2e5, max_epochs=1, progress=False)
    for part, name in (("training", "train"), ("validation", "validation"), ("test", "test")):
        values = field.values[(model.split == part).values][:, field.notnull().all("time").values]
        sizes = np.linalg.svd(values - values.mean(0), compute_uv=False) ** 2
        n_vectors = (model.history.attrs[f"{name}_samples"] - 1) // 2  # and as many random ones
        assert n_vectors < len(values) - 1
        expected = sizes[n_vectors:].sum() / sizes.sum()
        assert model.history.attrs[f"{name}_variance_left_out"] == pytest.approx(expected, rel=1e-3)


def test_with_memory_enough_nothing_is_left_out() -> None:
    attrs = make_field().mrcae.fit(levels=2, max_epochs=2, progress=False).history.attrs
    assert attrs["train_variance_left_out"] == attrs["validation_variance_left_out"] == 0
    assert attrs["train_samples"] >= attrs["train_samples_in_training"] > 1


# Compressed sets of real data, for fitted networks

REAL = {
    "ERSST": (ERSST, "sst", {"weights": "area"}),
    "ERSST, parallel": (
        ERSST,
        "sst",
        {"weights": "area", "widening": "parallel", "restriction": "injection"},
    ),
    "cylinder, two variables": (CYLINDER, ["u", "v"], {}),
    "Mediterranean": (AVISO, "adt", {"gaps": "mask", "fill": "harmonic"}),
}


@pytest.mark.parametrize("case", REAL)
def test_fitted_networks_have_the_same_errors_on_the_compressed_set(
    real_file: Any, case: str
) -> None:
    name, variable, options = REAL[case]
    obj = open_real(real_file, name)[variable]
    tolerance = 0.5 if name == ERSST else None
    options = {"levels": 3, "tolerance": tolerance, **options}
    model = xmrcae.MrCAE(channels=[[1, 1]], max_epochs=15, progress=False, **options).fit(obj)
    network = model.fitted.codec.network
    found = prepare_with(obj, **options)
    plain = prepare_with(obj, activation="relu", **options)
    evaluation = Evaluation(network, block_bytes=math.inf)
    for level in range(3):
        one, other = (
            [Samples.of(each, DEVICE) for each in part.training] for part in (found, plain)
        )
        a, b = (evaluation.errors(data, level, slice(0, None))[0] for data in (one, other))
        assert float((a - b).abs().max()) <= 1e-5 * float(b.max())
        counts, weights = one[level].counts, one[level].weights
        assert float(a @ weights) == pytest.approx(float(b @ weights), rel=1e-5)
        assert float(a[counts].max()) == pytest.approx(float(b[counts].max()), rel=1e-5)
        shape = found.training[level].counts.shape
        cells, others = (
            cell_errors(errors.reshape(shape), counts.reshape(shape)) for errors in (a, b)
        )
        median = others[others > 0].median()
        differ = (cells > median) != (others > median)
        assert bool(((others - median).abs()[differ] <= 1e-5 * others.max()).all())
        assert float(smooth_max(a, counts, 8.0)[0]) == pytest.approx(
            float(smooth_max(b, counts, 8.0)[0]), rel=1e-5
        )
