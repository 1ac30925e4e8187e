"""The fitted model on small made-up fields: manners, laziness, labels."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import QUICK, make_field, make_two_variables

import xmrcae
from xmrcae.core import solvers
from xmrcae.core.checkpoint import Checkpoint
from xmrcae.core.training import Trainer

pytestmark = pytest.mark.minimum


def test_accessor_and_class_are_the_same(field: xr.DataArray, model: xmrcae.MrCAE) -> None:
    other = xmrcae.MrCAE(levels=2, **QUICK).fit(field)
    xr.testing.assert_equal(other.reconstruct(field), model.reconstruct(field))
    named = field.to_dataset().mrcae.fit("sst", levels=2, **QUICK)
    found = field.to_dataset().mrcae.fit(levels=2, **QUICK)
    for each in (named, found):
        xr.testing.assert_equal(each.reconstruct(field), model.reconstruct(field))


@pytest.mark.parametrize("constant", [0.0, 7.5])
@pytest.mark.parametrize(
    "options", [{}, {"center": False, "scale": None}, {"widening": "parallel"}]
)
def test_a_constant_field_is_reproduced(constant: float, options: dict[str, Any]) -> None:
    field = make_field() * 0 + np.float32(constant)
    model = field.mrcae.fit(levels=2, tolerance=0.01, **options, **QUICK)
    np.testing.assert_allclose(model.reconstruct(field), field, atol=1e-5)
    coarse = model.decode(model.encode(field), level=0).values
    np.testing.assert_allclose(coarse[np.isfinite(coarse)], constant, atol=1e-5)


def test_several_variables_keep_their_own_land_and_units() -> None:
    ds = make_two_variables().assign_attrs(title="two")
    ds["ssh"].attrs["units"] = "m"
    model = ds.mrcae.fit(
        ["sst", "ssh"], levels=2, tolerance={"sst": 0.1, "ssh": [20.0, 10.0]}, **QUICK
    )
    again = model.reconstruct(ds)
    for name in ("sst", "ssh"):
        assert np.array_equal(again[name].isnull(), ds[name].isnull())
        assert again[name].attrs["units"] == ds[name].attrs["units"]
    codes = model.encode(ds)
    assert list(codes["level_0"]["group"].values[:2]) == [0, 0]
    swapped = ds[["ssh", "sst"]]
    xr.testing.assert_equal(model.reconstruct(swapped), again)


def test_land_of_several_variables_changes_nothing() -> None:
    ds = make_two_variables()
    ones = ds.notnull().all(["time"]).to_dataarray().all("variable")
    options = {"levels": 2, "valid": ones, **QUICK}
    model = ds.mrcae.fit(["sst", "ssh"], **options)
    other = ds.where(ones, 1e6).mrcae.fit(["sst", "ssh"], **options)
    assert np.array_equal(model.history["train_loss"], other.history["train_loss"])
    assert np.array_equal(
        model.reconstruct(ds)["ssh"], other.reconstruct(ds)["ssh"], equal_nan=True
    )


def test_variables_that_do_not_fit_are_passed_over_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ds = (
        make_field()
        .to_dataset()
        .assign(flag=("time", ["a"] * 20), mask=(("lat", "lon"), np.zeros((21, 30))))
    )
    with caplog.at_level(logging.INFO, "xmrcae"):
        model = xmrcae.MrCAE(levels=1, **QUICK).fit(ds)
    assert list(model.reconstruct(ds).data_vars) == ["sst"]
    assert "'flag'" in caplog.text and "'mask'" in caplog.text


@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble", "int16"])
def test_precision_of_results(dtype: str) -> None:
    field = (100 * make_field(land=False)).astype(dtype)
    model = field.mrcae.fit(levels=2, **QUICK)
    again = model.reconstruct(field)
    is_wide = np.dtype(dtype).itemsize >= 8
    assert again.dtype == (np.float64 if is_wide else np.float32)
    assert model.score(field)["rmse"].values[-1] == pytest.approx(
        float((again - field).std()), rel=1e-3
    )
    assert model.encode(field)["level_1"]["encoding"].dtype == np.float32


def test_numpy_equals_dask(field: xr.DataArray, model: xmrcae.MrCAE) -> None:
    for chunks in ({"time": 3}, {"time": 7, "lat": 5, "lon": 11}, {"time": -1}):
        lazy = field.chunk(chunks)
        xr.testing.assert_equal(model.reconstruct(lazy), model.reconstruct(field))
        xr.testing.assert_equal(
            model.decode(model.encode(lazy), level=0), model.decode(model.encode(field), level=0)
        )


def test_everything_is_lazy_on_lazy_input(field: xr.DataArray, no_compute: Callable) -> None:
    ds = make_two_variables().chunk(time=6)
    model = ds.mrcae.fit(["sst", "ssh"], levels=2, center="month", **QUICK)
    with no_compute():
        codes = model.encode(ds)
        model.unstack(model.stack(codes))
        model.decode(codes, level=0)
        again = model.reconstruct(ds, keep_gaps=True)
        ds.mrcae.pyramid(["sst", "ssh"], levels=2)
        (
            repr(model),
            model._repr_html_(),
            repr(codes),
            model.encoding_sizes,
            model.refinement_map(level=1),
        )
    assert again["sst"].chunks and codes["level_1"]["encoding"].chunks


def test_dimension_order_of_codes(field: xr.DataArray, model: xmrcae.MrCAE) -> None:
    assert model.encode(field)["level_0"]["encoding"].dims == ("time", "channel", "lat", "lon")
    turned = field.transpose("lon", "lat", "time")
    assert model.encode(turned)["level_0"]["encoding"].dims == ("lon", "lat", "time", "channel")
    xr.testing.assert_equal(
        model.reconstruct(turned), model.reconstruct(field).transpose("lon", "lat", "time")
    )


def test_reversed_latitude_gives_reversed_codes(field: xr.DataArray, model: xmrcae.MrCAE) -> None:
    codes, turned = model.encode(field), model.encode(field.isel(lat=slice(None, None, -1)))
    for level in range(2):
        expected = codes[f"level_{level}"]["encoding"].isel(lat=slice(None, None, -1))
        xr.testing.assert_identical(turned[f"level_{level}"]["encoding"], expected)
        assert (model.decode(turned, level=level)["lat"].diff("lat") < 0).all()


def test_stack_and_unstack(field: xr.DataArray, model: xmrcae.MrCAE) -> None:
    codes = model.encode(field)
    stacked = model.stack(codes)
    assert stacked.dims == ("time", "feature") and not stacked.isnull().any()
    assert stacked.sizes["feature"] == int(model.encoding_sizes[-1])
    assert stacked.indexes["feature"].names == ["level", "channel", "lat", "lon"]
    xr.testing.assert_equal(model.decode(model.unstack(stacked)), model.decode(codes))
    mean = model.decode(model.unstack(stacked.mean("time", keep_attrs=True)))
    np.testing.assert_allclose(mean, model.decode(codes).mean("time"), atol=1e-3)
    with pytest.raises(ValueError, match="feature"):
        model.unstack(stacked.isel(feature=slice(5)))
    with pytest.raises(ValueError, match="features"):
        model.unstack(stacked.isel(feature=slice(None, None, -1)))


def test_averaged_codes_decode(field: xr.DataArray, model: xmrcae.MrCAE) -> None:
    codes = model.encode(field)
    mean = codes.map_over_datasets(lambda ds: ds.mean("time") if "time" in ds.dims else ds)
    assert model.decode(mean).dims == ("lat", "lon")


def test_codes_that_do_not_fit_are_refused(field: xr.DataArray, model: xmrcae.MrCAE) -> None:
    codes = model.encode(field)
    other = field.mrcae.fit(levels=2, channels=[[2]], tolerance=None, **QUICK)
    with pytest.raises(ValueError, match="another model"):
        other.decode(codes)
    codes.attrs.clear()
    with pytest.raises(ValueError, match="channels"):
        other.decode(codes)
    with pytest.raises(TypeError, match="DataTree"):
        model.decode(codes["level_0"]["encoding"])
    with pytest.raises(ValueError, match="no /level_1"):
        model.decode(xr.DataTree.from_dict({"level_0": codes["level_0"].to_dataset()}))
    alone = xr.DataTree.from_dict({"level_0": codes["level_0"].to_dataset()})
    xr.testing.assert_equal(model.decode(alone, level=0), model.decode(codes, level=0))
    moved = codes.map_over_datasets(
        lambda ds: ds.assign_coords(lat=ds.lat + 1) if "lat" in ds.coords else ds
    )
    with pytest.raises(ValueError, match="'lat'"):
        model.decode(moved)
    with pytest.raises(ValueError, match="level=2"):
        model.decode(codes, level=2)


def test_a_missing_pixel_counts_as_its_mean_and_can_be_put_back(
    field: xr.DataArray, model: xmrcae.MrCAE
) -> None:
    train = field.isel(time=(model.split == "training").values)
    holed = field.copy()
    at = {"time": 2, "lat": 10, "lon": 20}
    holed[at] = np.nan
    filled = field.copy()
    filled[at] = train.isel(lat=10, lon=20).astype("float64").mean()
    np.testing.assert_allclose(model.reconstruct(holed), model.reconstruct(filled), atol=1e-5)
    assert model.reconstruct(holed).isel(at).notnull()
    assert model.reconstruct(holed, keep_gaps=True).isel(at).isnull()


def test_refinement_maps(model: xmrcae.MrCAE, field: xr.DataArray) -> None:
    for level in range(2):
        masks = model.refinement_map(level=level)
        assert masks.dtype == bool and masks.dims == ("group", "lat", "lon")
        count = model.refinement_count(level=level)
        assert np.array_equal(count, masks.sum("group"))
        codes = model.encode(field)[f"level_{level}"]["encoding"].isel(time=0)
        for group in masks["group"].values:
            active = codes.isel(channel=(codes["group"] == group).values).notnull().all("channel")
            assert np.array_equal(active, masks.sel(group=group))
    none = field.mrcae.fit(levels=2, tolerance=100.0, **QUICK)
    assert none.refinement_map(level=1).sizes["group"] == 0
    assert none.encode(field)["level_1"]["encoding"].sizes["channel"] == 0
    xr.testing.assert_equal(none.decode(none.encode(field)), none.reconstruct(field))


def test_nothing_of_the_user_is_changed(field: xr.DataArray) -> None:
    before, attrs = field.copy(deep=True), {name: dict(c.attrs) for name, c in field.coords.items()}
    options, filters, threads = xr.get_options(), list(warnings.filters), torch.get_num_threads()
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    model = field.mrcae.fit(levels=2, noise=0.01, **QUICK)
    model.reconstruct(field)
    xr.testing.assert_identical(field, before)
    assert {name: dict(c.attrs) for name, c in field.coords.items()} == attrs
    assert (
        xr.get_options() == options
        and warnings.filters == filters
        and torch.get_num_threads() == threads
    )
    assert np.array_equal(np.random.get_state()[1], states[0])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])


def test_the_seed_decides(field: xr.DataArray) -> None:
    options = {"levels": 2, "noise": 0.01, **QUICK}
    one, same = (field.mrcae.fit(seed=3, **options) for _ in range(2))
    assert np.array_equal(one.history["train_loss"], same.history["train_loss"])
    other = field.mrcae.fit(seed=4, **options)
    assert not other.split.equals(one.split)


def test_progress_is_silent_when_asked(field: xr.DataArray, capfd: pytest.CaptureFixture) -> None:
    field.mrcae.fit(levels=1, **QUICK)
    assert capfd.readouterr() == ("", "")
    field.mrcae.fit(levels=1, max_epochs=5)
    assert "epoch" in capfd.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError, SystemExit])
@pytest.mark.parametrize("after", [0, 7])
def test_a_fit_that_ends_early_is_partial_and_usable(
    field: xr.DataArray, error: type[BaseException], after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, step = [], solvers.LBFGS.step

    def failing(self: solvers.LBFGS) -> solvers.Evaluated:
        if len(steps) == after:
            raise error("stop")
        steps.append(step(self))
        return steps[-1]

    monkeypatch.setattr(solvers.LBFGS, "step", failing)
    model = xmrcae.MrCAE(levels=3, **QUICK)
    with pytest.raises(error, match="stop"):
        model.fit(field)
    assert model.partial and "partial" in repr(model)
    assert model.reconstruct(field).sizes == field.sizes
    assert np.isfinite(model.score(field)["rmse"]).all()


def test_a_checkpoint_that_cannot_be_written_leaves_the_model(
    field: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Checkpoint, content: dict[str, Any]) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Checkpoint, "write", full)
    model = xmrcae.MrCAE(levels=2, checkpoint=tmp_path, **QUICK)
    with pytest.raises(OSError, match="no space left"):
        model.fit(field)
    assert model.partial and np.isfinite(model.score(field)["rmse"]).all()


def test_what_a_failed_fit_cannot_use_is_no_model(
    field: xr.DataArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise MemoryError("first")

    model = xmrcae.MrCAE(levels=2, **QUICK).fit(field)
    with pytest.raises(
        ValueError, match="gaps in time"
    ):  # refused before training: the earlier fit stays
        model.fit(field.where(field.time != field.time[0]))
    assert np.isfinite(model.score(field)["rmse"]).all() and not model.partial
    monkeypatch.setattr(Trainer, "run", fail)
    monkeypatch.setattr(Trainer, "finish", lambda self: 1 / 0)
    with pytest.raises(MemoryError, match="first"):
        model.fit(field)
    assert not model.partial
    with pytest.raises(ValueError, match="not fitted"):
        model.score(field)


def test_repr_names_what_matters(model: xmrcae.MrCAE) -> None:
    text = repr(model)
    for what in (
        "2 levels",
        f"{model.n_parameters} parameters",
        "14 training",
        "degC",
        str(int(model.encoding_sizes[-1])),
    ):
        assert what in text
    assert "not fitted" in repr(xmrcae.MrCAE())
    assert "<table" in model._repr_html_()
    odd = make_field(name="<b>sst</b>").mrcae.fit(levels=1, **QUICK)
    assert "<b>sst" not in odd._repr_html_()


def test_results_say_how_they_were_made(field: xr.DataArray, model: xmrcae.MrCAE) -> None:
    for result in (
        model.reconstruct(field),
        model.encode(field),
        model.refinement_map(level=0),
        model.score(field),
    ):
        assert result.attrs["xmrcae_version"] == xmrcae.__version__
        assert '"levels": 2' in result.attrs["xmrcae_options"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda da: da.isel(time=0, drop=True), "sample dimension"),
        (lambda da: da.isel(time=slice(2)), "at least 3 are needed"),
        (lambda da: da.isel(lat=slice(3)), "levels=2 needs at least 4"),
        (lambda da: da * np.nan, "no pixel"),
        (
            lambda da: xr.where(
                da.notnull() & (da.time == da.time[3]), np.inf, da, keep_attrs=True
            ),
            "infinite",
        ),
        (lambda da: da.where(da.time != da.time[0]), "gaps in time"),
        (lambda da: da.astype(complex), "complex"),
        (lambda da: da.astype(str), "<U"),
        (lambda da: da.expand_dims(depth=2), "depth"),
    ],
)
def test_bad_data_are_refused_before_any_training(
    field: xr.DataArray, change: Callable, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xmrcae.core import training

    monkeypatch.setattr(training.Trainer, "run", lambda self: pytest.fail("training began"))
    with pytest.raises((ValueError, TypeError), match=message):
        change(field).mrcae.fit(levels=2, **QUICK)


def test_unfitted_models_say_so(field: xr.DataArray) -> None:
    for use in (
        lambda m: m.encode(field),
        lambda m: m.levels,
        lambda m: m.score(field),
        lambda m: m.history,
    ):
        with pytest.raises(ValueError, match="not fitted"):
            use(xmrcae.MrCAE())
    with pytest.raises(TypeError, match="unknown option"):
        field.mrcae.fit(level=2)


def test_data_of_another_grid_are_refused(field: xr.DataArray, model: xmrcae.MrCAE) -> None:
    with pytest.raises(ValueError, match="'lat' differs first at 0"):
        model.encode(field.assign_coords(lat=field.lat + 1))
    with pytest.raises(ValueError, match="29 points"):
        model.reconstruct(field.isel(lon=slice(29)))
    with pytest.raises(ValueError, match="no variable 'sst'"):
        model.encode(field.to_dataset(name="other"))


def test_two_visible_devices_only(field: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="device="):
        field.mrcae.fit(levels=1, device="nowhere", **QUICK)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(field: xr.DataArray) -> None:
    cpu, gpu = (field.mrcae.fit(levels=2, device=device, **QUICK) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(gpu.reconstruct(field), cpu.reconstruct(field), atol=1e-2)
