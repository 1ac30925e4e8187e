"""The comparison of networks that `notebooks/networks.py` makes."""

import os
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import networks
import numpy as np
import pytest
import torch
import xarray as xr
from rednet import REDNet, global_losses

import xmrcae
from xmrcae.options import make_options
from xmrcae.passes import first_pass, second_pass

SCRIPT = Path(networks.__file__)
RECIPE = dict(xmrcae.recipes["drifting_mode"]) | {"channels": [[1], [1], [1, 2]], "max_epochs": 2}


@pytest.fixture(scope="module")
def field() -> xr.DataArray:
    return xmrcae.datasets.drifting_mode(n_times=40, size=31)


@pytest.fixture(scope="module")
def model(field: xr.DataArray) -> xmrcae.MrCAE:
    return xmrcae.MrCAE(**RECIPE, progress=False).fit(field)


@pytest.fixture(scope="module")
def compared(field: xr.DataArray, model: xmrcae.MrCAE) -> xr.Dataset:
    # `model` comes first: a process's first fit imports parts of torch, and RED-Net gets no less
    # time than MrCAE.
    return networks.compare(field, RECIPE, (3, 2, 1), seconds=0.1, relu_epochs=2)


def points_of(ds: xr.Dataset, network: str) -> xr.Dataset:
    return ds.isel(point=(ds["network"] == network).values)


def test_every_network_has_finite_points_at_every_level(compared: xr.Dataset) -> None:
    assert set(compared["network"].values) == set(networks.STYLES)
    for name in networks.STYLES:
        assert set(points_of(compared, name)["level"].values) == {0, 1, 2}
    for name in set(networks.VARIABLES) - {"validation_loss_same_time"}:
        assert np.isfinite(compared[name]).all() and (compared[name] > 0).all()
    half = 0.5 * (compared["validation_mse"] + compared["validation_max"])
    assert np.allclose(half, compared["validation_loss"], rtol=1e-5)


def test_mrcaes_sizes_are_those_of_the_model(
    field: xr.DataArray, model: xmrcae.MrCAE, compared: xr.Dataset
) -> None:
    points = points_of(compared, "MrCAE")
    assert points["n_parameters"][-1] == model.n_parameters
    finite = [
        int(np.isfinite(node["encoding"][0]).sum())
        for node in model.encode(field).children.values()
    ]
    last_of_level = points.groupby("level").last()["encoding_size"]
    assert list(last_of_level) == list(np.cumsum(finite)) == list(model.encoding_sizes)
    for row in networks.stages(model, "MrCAE"):
        assert (
            row["n_parameters"]
            == points["n_parameters"].values[row["epochs"] == points["epochs"].values].item()
        )


def test_without_masks_every_cell_is_coded(compared: xr.Dataset) -> None:
    points = points_of(compared, "MrCAE, ReLU, no masks")
    expected = [9, 18, 18, 18 + 49, 18 + 49, 18 + 49 + 225, 18 + 49 + 3 * 225]
    assert list(points["encoding_size"]) == expected
    assert list(points["n_parameters"]) == [20, 40, 60, 80, 100, 120, 159]


def test_errors_of_a_rednet_are_those_against_the_finest_data(field: xr.DataArray) -> None:
    """A network whose reconstruction is constant has the error of that constant, at whatever level it was trained."""
    options = make_options(RECIPE | {"activation": "relu"})
    data = second_pass(first_pass(field, options), options)["validation"]
    network = REDNet((2,), generator=torch.Generator())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.decoder_biases[0].fill_(0.5)
    errors = (data[-1].samples - 0.5) ** 2
    for level in range(3):
        losses = global_losses(network, data, level, omega=0.25)
        assert np.isclose(losses.mse, errors.mean(), rtol=1e-4)
        assert np.isclose(losses.max, errors.mean(0).max(), rtol=1e-4)
        assert np.isclose(losses.loss, 0.25 * losses.mse + 0.75 * losses.max)


def test_channels_that_do_not_fit_the_levels_are_refused(field: xr.DataArray) -> None:
    with pytest.raises(ValueError, match=r"channels=.*3 levels"):
        networks.compare(field, RECIPE, (3, 2))


def test_figure(compared: xr.Dataset) -> None:
    fig = networks.figure_10_11(compared)
    try:
        for ax in fig.axes:
            assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
            assert {line.get_label() for line in ax.lines} >= set(networks.STYLES)
        assert len({line.get_color() for line in fig.axes[0].lines}) == len(networks.STYLES)
        assert "scaled units squared" in fig.axes[0].get_ylabel()
        assert fig.axes[1].get_legend() is not None
    finally:
        plt.close(fig)


def test_the_command_writes_its_file_once(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    small = xr.Dataset({"sst": xmrcae.datasets.drifting_mode(n_times=30, size=63)})
    small["sst"][:, 3:8, 5:20] = np.nan
    small.to_netcdf(tmp_path / "data.nc")
    recipe = RECIPE | {"channels": [[1]], "levels": 4, "tolerance": 0.05, "max_epochs": 2}
    monkeypatch.setattr(xmrcae, "recipes", {"sst": recipe})
    output = tmp_path / "out.nc"
    call = [
        "ersst",
        "--data",
        str(tmp_path / "data.nc"),
        "--output",
        str(output),
        "--seconds",
        "0.1",
    ]
    networks.main([*call, "--relu-epochs", "2"])
    with xr.open_dataset(output) as ds:
        assert ds.attrs["values_per_snapshot"] == int(small["sst"][0].notnull().sum())
        assert str(tmp_path) not in str(ds.attrs) and "--data data.nc" in ds.attrs["command"]
        assert networks.figure_10_11(ds).axes
    plt.close("all")
    before = os.stat(output).st_mtime_ns
    with pytest.raises(SystemExit):
        networks.main(call)
    assert "--overwrite" in capsys.readouterr().err
    assert os.stat(output).st_mtime_ns == before


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (["two_modes", "--output", "nowhere/out.nc"], "no folder nowhere"),
        (["ersst", "--output", "out.nc"], "give its path"),
        (["two_modes", "--data", "data.nc", "--output", "out.nc"], "leave it out"),
    ],
)
def test_errors_come_before_any_training(
    call: list[str], named: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        networks.main(call)
    assert named in capsys.readouterr().err


def test_fields_of_files_are_scaled_as_a_whole(tmp_path: Path) -> None:
    values = 5 + 3 * np.random.default_rng(0).standard_normal((6, 4, 5)).astype("float32")
    values[:, 0, 0] = np.nan
    xr.Dataset({"sst": (("time", "lat", "lon"), values)}).to_netcdf(tmp_path / "data.nc")
    field = networks.open_case("ersst", tmp_path / "data.nc")
    assert field.dtype == np.float32
    assert np.isclose(field.mean(), 0, atol=1e-6) and np.isclose(field.std(), 1, rtol=1e-6)
    assert np.array_equal(np.isnan(field[0]), np.isnan(values[0]))


def test_the_docs_have_the_table_of_the_saved_figures() -> None:
    page = (SCRIPT.parents[1] / "docs" / "should-i-use-this.md").read_text()
    saved = {
        case: xr.load_dataset(SCRIPT.with_name(f"networks_{case}.nc")) for case in networks.CASES
    }
    assert networks.markdown(saved) in page


@pytest.mark.parametrize("case", ["two_modes", "drifting_mode"])
def test_on_the_examples_the_saved_mrcae_is_under_the_papers_rednets(case: str) -> None:
    ds = xr.load_dataset(SCRIPT.with_name(f"networks_{case}.nc"))
    last = {
        name: ds.isel(point=np.flatnonzero(ds["network"] == name)[-1]) for name in networks.STYLES
    }
    for rednet in ("RED-Net, ReLU", "RED-Net, linear"):
        for size in ("validation_loss", "n_parameters", "encoding_size"):
            assert float(last["MrCAE"][size]) <= float(last[rednet][size])
