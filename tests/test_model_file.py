"""A model that is read back is the model that was written."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers import CYLINDER, HADGEM, NEMO, make_field, make_two_variables, open_real

import xmrcae
from xmrcae.io import model_file

QUICK = {"max_epochs": 3, "progress": False}


@pytest.fixture(scope="module")
def field() -> xr.DataArray:
    return make_field()


@pytest.fixture(scope="module")
def model(field: xr.DataArray) -> xmrcae.MrCAE:
    return field.mrcae.fit(levels=2, **QUICK)


def assert_reads_back(model: xmrcae.MrCAE, data: xr.DataArray | xr.Dataset, path: str) -> None:
    """Every result of the file's model is that of `model`, to the bit, with the same labels and attributes."""
    model.save(path)
    other = xmrcae.open_model(path)
    xr.testing.assert_identical(other.reconstruct(data), model.reconstruct(data))
    codes, again = model.encode(data), other.encode(data)
    for level in range(model.levels):
        xr.testing.assert_identical(again[f"level_{level}"].to_dataset(), codes[f"level_{level}"].to_dataset())
        xr.testing.assert_identical(other.refinement_map(level=level), model.refinement_map(level=level))
    xr.testing.assert_identical(other.history, model.history)
    xr.testing.assert_identical(other.split, model.split)
    xr.testing.assert_identical(other.score(data), model.score(data))
    assert repr(other) == repr(model)
    assert other.partial == model.partial


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_local_files(model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path, name: str) -> None:
    assert_reads_back(model, field, str(tmp_path / name))
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_urls(model: xmrcae.MrCAE, field: xr.DataArray, name: str) -> None:
    assert_reads_back(model, field, f"memory://{os.urandom(4).hex()}/{name}")


@pytest.mark.parametrize(
    "options",
    [
        {"center": "month"},
        {"center": False, "scale": "minmax"},
        {"fill": "harmonic", "weights": "area"},
        {"tolerance": None, "widening": "parallel", "restriction": "injection", "channels": [[2], [1, 2]]},
        {"split": (slice(0, 12), slice(12, 16), []), "activation": None},
        {"sample": ["time"], "horizontal": ("lat", "lon"), "periodic": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options(field: xr.DataArray, tmp_path: Path, options: dict) -> None:
    assert_reads_back(field.mrcae.fit(levels=2, **options, **QUICK), field, str(tmp_path / "model.nc"))


def test_options_that_are_arrays(field: xr.DataArray, tmp_path: Path) -> None:
    valid = field.notnull().any("time")
    model = field.mrcae.fit(levels=2, valid=valid, weights=valid.astype(float) + 1, **QUICK)
    assert_reads_back(model, field, str(tmp_path / "model.nc"))


def test_two_variables(tmp_path: Path) -> None:
    ds = make_two_variables()
    assert_reads_back(ds.mrcae.fit(["sst", "ssh"], levels=2, **QUICK), ds, str(tmp_path / "model.nc"))


def test_double_precision_and_attributes(tmp_path: Path) -> None:
    field = make_field(dtype=np.float64).assign_attrs(valid_range=np.array([-2.0, 40.0], "float32"), flag=np.int16(3))
    model = field.mrcae.fit(levels=2, **QUICK)
    assert_reads_back(model, field, str(tmp_path / "model.nc"))
    attrs = xmrcae.open_model(tmp_path / "model.nc").reconstruct(field).attrs
    assert attrs["valid_range"].dtype == np.float32 and attrs["flag"].dtype == np.int16


def test_several_sample_dimensions(field: xr.DataArray, tmp_path: Path) -> None:
    members = xr.concat([field, field + 1], "member").transpose("time", "lat", "member", "lon")
    model = members.mrcae.fit(sample=["member", "time"], levels=2, **QUICK)
    assert model.split.dims == ("member", "time")
    assert_reads_back(model, members, str(tmp_path / "model.nc"))


@pytest.mark.parametrize("name", [HADGEM, CYLINDER, NEMO])
def test_real_files(real_file: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    ds = open_real(real_file, name)
    if name == HADGEM:
        data = ds.air_temperature
    elif name == CYLINDER:
        data = ds[["u", "v"]].isel(time=slice(30, 60))
    else:
        rng = np.random.default_rng(0)
        data = xr.concat([ds.tos.isel(time_counter=0) + rng.normal() for _ in range(10)], "time_counter")
    options = {"sample": "time_counter"} if name == NEMO else {}
    assert_reads_back(xmrcae.MrCAE(levels=2, **options, **QUICK).fit(data), data, str(tmp_path / "model.nc"))


def test_the_file_is_plain_netcdf(model: xmrcae.MrCAE, tmp_path: Path) -> None:
    model.save(tmp_path / "model.nc")
    with xr.open_datatree(tmp_path / "model.nc") as tree:
        weights = tree["level_1/deepening"]["encoder_weight"].values
    expected = model.fitted.inference.network.levels[1].deepening.encoder_weight.detach().numpy()
    assert np.array_equal(weights, expected)


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_an_existing_file_stays_unless_told(model: xmrcae.MrCAE, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("mine")
    with pytest.raises(ValueError, match="overwrite=True"):
        model.save(path)
    assert path.read_text() == "mine"
    path.unlink()
    model.save(path)
    model.save(path, overwrite=True)
    assert xmrcae.open_model(path).n_parameters == model.n_parameters
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_a_failed_write_leaves_what_was_there(
    model: xmrcae.MrCAE, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.save(tmp_path / name)
    write = model_file._write

    def fail(tree: xr.DataTree, path: str, *, zarr: bool) -> None:
        write(tree, path, zarr=zarr)
        raise OSError("disk full")

    monkeypatch.setattr(model_file, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path / name, overwrite=True)
    with pytest.raises(OSError, match="disk full"):
        model.save(tmp_path / "other.nc")
    assert os.listdir(tmp_path) == [name]
    assert xmrcae.open_model(tmp_path / name).n_parameters == model.n_parameters


def test_files_that_are_no_models(model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file"):
        xmrcae.open_model(tmp_path / "nowhere.nc")
    (tmp_path / "text.nc").write_text("not a model")
    with pytest.raises(ValueError, match="no model"):
        xmrcae.open_model(tmp_path / "text.nc")
    field.to_netcdf(tmp_path / "field.nc")
    with pytest.raises(ValueError, match="no model"):
        xmrcae.open_model(tmp_path / "field.nc")
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ValueError, match="no model"):
        xmrcae.open_model(tmp_path / "empty.zarr")


def test_a_newer_format_is_refused(model: xmrcae.MrCAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(model_file, "FORMAT_VERSION", 99)
        model.save(tmp_path / "model.nc")
    with pytest.raises(ValueError, match="newer"):
        xmrcae.open_model(tmp_path / "model.nc")


def test_an_unfitted_model_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        xmrcae.MrCAE().save(tmp_path / "model.nc")
    assert not os.listdir(tmp_path)
