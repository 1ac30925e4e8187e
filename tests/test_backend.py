"""The two passes over the data, computed by torch as on a GPU, give what NumPy gives."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from helpers import (
    DEVICE,
    ERSST,
    QUICK,
    Prepared,
    make_field,
    make_land,
    make_two_variables,
    open_real,
)
from test_checkpoint import OPTIONS, interrupted_after

import xmrcae
from xmrcae import fitting
from xmrcae.grid.blocks import HOST, ON_DEVICE, Backend
from xmrcae.grid.compression import _home
from xmrcae.grid.survey import _checksum
from xmrcae.options import make_options
from xmrcae.passes import fingerprint, first_pass, second_pass

pytestmark = pytest.mark.minimum

TORCH = Backend("torch", DEVICE)


def with_gaps(**kwargs: Any) -> xr.DataArray:
    """A field that lacks a tenth of its values, and one snapshot."""
    field = make_field(30, **kwargs)
    keep = np.random.default_rng(5).random(field.shape) > 0.1
    keep[3] = False
    return field.where(keep)


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "default": (make_field, {}),
    "float64": (lambda: make_field(dtype=np.float64), {}),
    "two variables": (make_two_variables, {"fill": "harmonic", "weights": "area"}),
    "gaps as means": (with_gaps, {"gaps": "mean"}),
    "gaps in monthly centres": (with_gaps, {"gaps": "mean", "center": "month"}),
    "gaps as land": (lambda: make_field().where(make_field() > 14), {"gaps": "mask"}),
    "land by its value": (lambda: make_field().fillna(-99), {"land_value": -99}),
    "valid pixels": (
        lambda: make_field().assign_coords(own=(("lat", "lon"), make_land((21, 30)) & (np.arange(30) < 20))),
        {"valid": "own"},
    ),
    "between 0 and 1": (make_field, {"center": False, "scale": "minmax"}),
    "injection": (make_field, {"restriction": "injection"}),
    "snapshots": (make_field, {"activation": "relu"}),
}  # fmt: skip


def prepared(obj: Any, backend: Backend, **options: Any) -> Prepared:
    """What a fit trains on."""
    checked = make_options({"levels": 3} | options)
    first = first_pass(obj, checked, backend=backend)
    return Prepared(first, second_pass(first, checked))


def assert_near(given: Any, expected: Any) -> None:
    """Check that two arrays differ by what the order of sums in float64 changes."""
    given, expected = HOST.array(given), HOST.array(expected)
    assert given.dtype == expected.dtype
    largest = np.max(np.abs(expected), initial=0, where=np.isfinite(expected))
    rounding = 1e-5 if expected.dtype == np.float32 else 1e-11
    np.testing.assert_allclose(given, expected, rtol=rounding, atol=1e-12 + rounding * largest)


@pytest.mark.parametrize("name", CASES)
def test_torch_gives_the_samples_that_numpy_gives(name: str) -> None:
    make, options = CASES[name]
    field, options = make(), {"tolerance": 0.3} | options
    before = field.copy(deep=True)
    own, ours = prepared(field, HOST, **options), prepared(field, TORCH, **options)
    xr.testing.assert_identical(field, before)
    for attribute, value in vars(own.found).items():
        if attribute != "products":
            assert_near(getattr(ours.found, attribute), value)
    assert fingerprint(ours.first) == fingerprint(own.first)
    assert list(ours.data) == list(own.data)
    for part in own.data:
        for level, expected in zip(ours.data[part], own.data[part], strict=True):
            assert level.rank == expected.rank and len(level.samples) == len(expected.samples)
            assert level.samples.device.type == DEVICE.type
            for attribute in ("constant", "has_data", "counts", "weights"):
                assert_near(getattr(level, attribute), getattr(expected, attribute))
            ours_covers, own_covers = (
                np.einsum("svyx,svyx->vyx", *2 * [HOST.array(each.samples).astype(np.float64)])
                for each in (level, expected)
            )  # the vectors themselves have any sign
            np.testing.assert_allclose(ours_covers, own_covers, rtol=1e-4, atol=1e-5)
            assert_near(level.samples[0], expected.samples[0])


@pytest.mark.filterwarnings("ignore:.*singular vector")
def test_many_snapshots_are_projected_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xmrcae.grid.survey.GRAM_LIMIT", 10)
    monkeypatch.setattr("xmrcae.grid.survey.RANDOM_RANK", 8)
    field = make_field(60)
    own, ours = (prepared(field, each, tolerance=1.0) for each in (HOST, TORCH))
    for one, other in zip(ours.training, own.training, strict=True):
        assert one.rank == other.rank
        assert one.variance_left_out == pytest.approx(other.variance_left_out, rel=1e-5)
        assert_near(abs(one.samples), abs(other.samples))


def test_samples_lie_on_the_host_where_they_have_no_room() -> None:
    field = make_field()
    first = prepared(field, Backend("torch", DEVICE, room=1e4)).first
    assert _home(first, 1) is first.backend and _home(first, 2) is HOST
    narrow = prepared(field, Backend("torch", DEVICE, room=0), tolerance=0.3)
    wide = prepared(field, TORCH, tolerance=0.3)
    for one, other in zip(narrow.training, wide.training, strict=True):
        assert isinstance(one.samples, np.ndarray)
        np.testing.assert_allclose(one.samples, HOST.array(other.samples), atol=1e-6)


def test_tasks_in_other_processes_compute_with_numpy() -> None:
    field = make_field()
    assert TORCH.for_tasks_on(field.data) is TORCH
    lazy = field.chunk(time=5).data
    for scheduler in ("threads", "synchronous"):
        with dask.config.set(scheduler=scheduler):
            assert TORCH.for_tasks_on(lazy) is TORCH
    with dask.config.set(scheduler="processes"):
        assert TORCH.for_tasks_on(lazy) is HOST
    with ThreadPoolExecutor(1) as threads, dask.config.set(pool=threads):
        assert TORCH.for_tasks_on(lazy) is TORCH and TORCH.for_tasks_on(field.data) is TORCH
    with ProcessPoolExecutor(1) as processes, dask.config.set(pool=processes):
        assert TORCH.for_tasks_on(lazy) is HOST and TORCH.for_tasks_on(field.data) is HOST


def test_the_passes_run_in_a_pool_of_processes() -> None:
    field = make_field(20)
    expected = fingerprint(prepared(field, HOST).first)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        with dask.config.set(pool=pool):
            assert fingerprint(prepared(field, HOST).first) == expected
        with dask.config.set(scheduler=pool):
            assert fingerprint(prepared(field.chunk(time=5), HOST).first) == expected


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits whose passes torch computes."""
    monkeypatch.setattr(fitting, "_backend", lambda device: TORCH)


def weights_of(model: Any) -> np.ndarray:
    return model.fitted.codec.network.vector().numpy()


def test_chunks_and_order_change_no_bit(by_torch: None) -> None:
    field = make_field(dtype=np.float32)
    model = field.mrcae.fit(levels=3, **QUICK)
    flipped = field.isel(lat=slice(None, None, -1)).transpose("lon", "time", "lat")
    for same in (field.chunk(time=7, lat=5), flipped):
        again = same.mrcae.fit(levels=3, **QUICK)
        np.testing.assert_array_equal(weights_of(again), weights_of(model))


def test_real_data_are_trained_on_alike(real_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    field = open_real(real_file, ERSST)["sst"]
    model = field.mrcae.fit(levels=1, **QUICK)
    monkeypatch.setattr(fitting, "_backend", lambda device: TORCH)
    again = field.mrcae.fit(levels=1, **QUICK)
    xr.testing.assert_allclose(
        again.history.drop_vars("seconds"), model.history.drop_vars("seconds"), rtol=1e-4
    )


def test_a_stopped_fit_goes_on_where_another_backend_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field, options = make_field(), OPTIONS | {"checkpoint": tmp_path / "fit"}
    interrupted_after(monkeypatch, 4, field, checkpoint=options["checkpoint"])
    monkeypatch.setattr(fitting, "_backend", lambda device: TORCH)
    for other in (-field, field.roll(time=1), (field + 1e-6).astype(np.float32)):
        with pytest.raises(ValueError, match=r"another fit .*other data"):
            xmrcae.MrCAE(**options).fit(other.assign_coords(time=field["time"]))
    again = xmrcae.MrCAE(**options).fit(field)
    assert not again.partial
    loss, whole = (
        float(model.history["train_loss"][-1])
        for model in (again, xmrcae.MrCAE(**OPTIONS).fit(field))
    )
    assert loss == pytest.approx(whole, rel=0.2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [19, 20, 23, 24])
def test_other_data_have_another_checksum(n: int, dtype: str) -> None:
    values = np.random.default_rng(n).standard_normal((n, 1, 2, 3)).astype(dtype)
    own = _checksum(values)
    np.testing.assert_array_equal(own, HOST.array(_checksum(TORCH.array(values))))
    signs = np.where(np.arange(n) % 2, 1, -1)[:, None, None, None]
    for other in (-values, 2 * values, values * signs, values[::-1].copy(), values + values[:1]):
        assert (_checksum(other.astype(dtype)) != own).any()


def test_few_threads_have_a_block_on_a_device_at_once() -> None:
    held = [ON_DEVICE.acquire(blocking=False) for _ in range(20)]
    assert sum(held) == 4
    for _ in range(4):
        ON_DEVICE.release()
    assert TORCH.turn is ON_DEVICE and HOST.turn is not ON_DEVICE
