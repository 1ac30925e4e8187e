"""The comparison with what people use instead that `notebooks/compressors.py` makes."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr
from helpers import make_field

import xmrcae

SCRIPT = Path(__file__).resolve().parents[1] / "notebooks" / "compressors.py"
WAVELETS = ("wavelet, fixed positions", "wavelet, positions per snapshot")


@pytest.fixture(scope="module")
def compressors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compressors", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compressors"] = module
    spec.loader.exec_module(module)
    return module


def rows(found: xr.Dataset, method: str) -> xr.Dataset:
    """The points of one method."""
    result = found.isel(point=(found["method"] == method).values)
    assert result.sizes["point"]
    return result


@pytest.fixture(scope="module")
def data() -> xr.DataArray:
    return make_field(30, (24, 32), globe=False)


@pytest.mark.parametrize("split", ["random", "blocks"])
def test_parts_share_no_snapshot_and_the_training_mean_is_removed(compressors, data, split):
    field = compressors.Field.of(data, split)
    assert [len(part) for part in (field.train, field.validation, field.test)] == [21, 6, 3]
    assert sorted(np.concatenate([field.train, field.validation, field.test])) == list(range(30))
    assert (split == "blocks") == bool(
        (np.diff(np.concatenate([field.train, field.test])) > 0).all()
    )
    mean = field.data[field.train].mean("time")
    np.testing.assert_allclose(mean.values[mean.notnull().values], 0, atol=1e-5)


def test_the_blocks_are_those_of_the_package(compressors, data):
    field = compressors.Field.of(data, "blocks")
    model = data.mrcae.fit(split="blocks", levels=1, max_epochs=0, progress=False)
    np.testing.assert_array_equal(np.flatnonzero(model.split == "test"), field.test)


def test_eofs_are_the_singular_vectors_of_the_training_snapshots(compressors, data):
    field = compressors.Field.of(data, "random")
    modes = dict(compressors.eof(field, ()))
    valid = field.data.notnull().all("time").values
    train, test = (field.data.values[part][:, valid] for part in (field.train, field.test))
    vectors = np.linalg.svd(train, full_matrices=False)[2][:20]
    expected = np.sqrt(((test - test @ vectors.T @ vectors) ** 2).mean())
    assert field.rmse(modes[20]) == pytest.approx(expected, rel=1e-3)


def test_wavelets_with_all_coefficients_lose_nothing_and_positions_per_snapshot_lose_less(
    compressors, data
):
    field = compressors.Field.of(data, "random")
    found = compressors.compare(field, [50, 200, 24 * 32], WAVELETS)
    fixed, anew = (rows(found, name)["rmse"].values for name in WAVELETS)
    assert fixed[2] == pytest.approx(0, abs=1e-3) and anew[2] == pytest.approx(0, abs=1e-3)
    assert (anew[:2] < fixed[:2]).all() and fixed[1] < fixed[0]


def test_xmrcae_counts_finite_codes(compressors, data, monkeypatch):
    monkeypatch.setitem(compressors.COMPRESSOR, "max_epochs", 3)
    monkeypatch.setitem(compressors.COMPRESSOR, "levels", 2)
    field = compressors.Field.of(data, "random")
    found = compressors.compare(field, [150], ["xmrcae, filters", "xmrcae, projection"])
    assert ((found["size"] > 130) & (found["size"] <= 150)).all()
    assert found["rmse"][1] < found["rmse"][0] < field.rmse(np.zeros_like(field.data[field.test]))


def test_finer_steps_cost_more_and_lose_less(compressors, data, monkeypatch):
    monkeypatch.setitem(compressors.COMPRESSOR, "max_epochs", 3)
    monkeypatch.setitem(compressors.COMPRESSOR, "levels", 2)
    field = compressors.Field.of(data, "random")
    methods = ["xmrcae, projection", "xmrcae, projection, quantised"]
    exact, steps = (rows(compressors.compare(field, [200], methods), name) for name in methods)
    assert (np.diff(steps["rmse"]) < 0).all() and (np.diff(steps["size"]) > 0).all()
    assert (steps["size"] < exact["size"].values).all()
    # By Pythagoras, an error of twice, once and half the own one beside it, at most: small codes
    # lose less than a step.
    growth = steps["rmse"].values / exact["rmse"].values
    assert (growth > 1).all() and (growth < 1.1 * np.sqrt([5, 2, 1.25])).all()


def test_a_further_run_replaces_its_methods_only(compressors, data, tmp_path, monkeypatch):
    monkeypatch.setitem(compressors.FIELDS, "ersst", ("sst", 1.0, "degC", (50, 100)))
    data.to_netcdf(tmp_path / "data.nc")
    paths = ["--data", str(tmp_path / "data.nc"), "--output", str(tmp_path / "out.nc")]
    for name in (*WAVELETS, WAVELETS[0]):
        compressors.main(["ersst", *paths, "--methods", name])
    with xr.open_dataset(tmp_path / "out.nc") as result:
        assert sorted(result["method"].values) == sorted([*WAVELETS] * 2)
        assert result.sizes == {"split": 2, "point": 4}
        assert np.isfinite(result["rmse"]).all() and result["rmse"].attrs["units"] == "degC"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.nc", "out.nc"]


def test_the_saved_figures_hold_what_the_docs_claim():
    """Under the wavelet with fixed positions at equal numbers, with both splits."""
    for name, sizes in (("ersst", (1098, 3296)), ("mediterranean", (1672, 5018))):
        with xr.open_dataset(SCRIPT.parent / f"compressors_{name}.nc") as saved:
            own, wavelet = (
                rows(saved.load(), name) for name in ("xmrcae, projection", WAVELETS[0])
            )
        for split in ("random", "blocks"):
            mine, theirs = own.sel(split=split), wavelet.sel(split=split)
            for size in sizes:
                under = mine["rmse"].values[(mine["size"] <= size).values].min()
                assert under < float(theirs["rmse"][theirs["size"] == size][0]), (name, split, size)


def test_the_docs_have_the_tables_of_the_saved_figures(compressors):
    page = (SCRIPT.parents[1] / "docs" / "should-i-use-this.md").read_text()
    for name in compressors.FIELDS:
        with xr.open_dataset(SCRIPT.parent / f"compressors_{name}.nc") as saved:
            assert compressors.markdown(saved.load()) in page


def test_the_command_refuses_an_unknown_method(compressors, capsys):
    with pytest.raises(SystemExit):
        compressors.main(["ersst", "--data", "none.nc", "--methods", "jpeg"])
    assert "jpeg" in capsys.readouterr().err


def test_the_options_of_the_comparison_are_options(compressors):
    assert xmrcae.MrCAE(**compressors.COMPRESSOR).options.encoder == "projection"
