"""The command line: what each command writes and prints, how it refuses, what it does when called again."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from helpers import ERSST, make_field

import xmrcae
from xmrcae.cli import main
from xmrcae.cli.inputs import open_inputs
from xmrcae.cli.options import to_bounds, to_fit_options

#: The installed script, or where the package is not installed what does the same.
SCRIPT = Path(sys.executable).with_name("xmrcae")
COMMAND = [str(SCRIPT)] if SCRIPT.is_file() else [sys.executable, "-m", "xmrcae"]

SHORT = ["--options", "levels=2 channels=[[1]] max_epochs=3"]


def run(*arguments: Any, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any, status: int = 2) -> str:
    """The first line that a refusal prints; there is at most one more, and no traceback."""
    assert main(list(map(str, arguments))) == status
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line and not line.startswith("MrCAE")]
    assert out == "" and 1 <= len(lines) <= 2
    assert all(line.startswith("xmrcae: ") for line in lines)
    return lines[0]


@pytest.fixture
def field() -> xr.DataArray:
    return make_field(shape=(15, 20))


@pytest.fixture
def folder(field: xr.DataArray, tmp_path: Path) -> Path:
    """A folder of files whose names are not in the order of their times."""
    ds = field.to_dataset().assign(
        count=field["time"].dt.month, lat_bnds=(("lat", "bnds"), np.zeros((15, 2)))
    )
    ds["lat"].attrs["bounds"] = "lat_bnds"
    (tmp_path / "sst").mkdir()
    for name, first in (("c", 0), ("a", 10), ("b", 15)):
        last = {0: 10, 10: 15, 15: 20}[first]
        ds.isel(time=slice(first, last)).to_netcdf(tmp_path / "sst" / f"{name}.nc")
    return tmp_path / "sst"


# What is read.


@pytest.mark.parametrize("given", ["{}", "{}/*.nc", "{}/[abc].nc", "{}/b.nc {}/a.nc {}/c.nc"])
def test_inputs_are_put_in_order_of_time(field, folder, given):
    ds, names = open_inputs(given.format(*[folder] * 3).split(), [])
    with ds:
        assert names == ["sst"] and set(ds.data_vars) == {"sst", "lat_bnds"}
        assert ds["sst"].chunks is not None
        xr.testing.assert_equal(ds["sst"].load(), field)


def test_each_file_is_opened_once_but_the_first(folder, monkeypatch):
    opened = []
    original = xr.backends.api.open_dataset

    def counting(path: Any, *args: Any, **kwargs: Any) -> xr.Dataset:
        opened.append(Path(path).name)
        return original(path, *args, **kwargs)

    monkeypatch.setattr(xr.backends.api, "open_dataset", counting)
    monkeypatch.setattr(xr, "open_dataset", counting)
    open_inputs([str(folder)], [])[0].close()
    assert sorted(opened) == ["a.nc", "a.nc", "b.nc", "c.nc"]


def test_a_zarr_store_is_read(field, tmp_path):
    field.to_dataset().to_zarr(tmp_path / "store", consolidated=False)
    ds, names = open_inputs([str(tmp_path / "store")], ["sst"])
    assert names == ["sst"]
    xr.testing.assert_equal(ds["sst"].load(), field)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["{}/none.nc"], "no file {}/none.nc"),
        (["{}/*.grib"], "no file {}/*.grib"),
        (["{}/empty"], "{}/empty is a folder without *.nc, and no Zarr store"),
        (["{}/a.nc", "{}/store"], "files and Zarr stores"),
        (["{}/text"], "IO backends"),
        (["{}/*.nc", "--variable", "ssh"], "'ssh'"),
        (["{}/two.nc"], "several variables would do (sst, ssh)"),
        (["{}/a.nc", "{}/shifted.nc"], "do not fit together"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused(field, folder, capsys, given, said):
    (folder / "empty").mkdir()
    (folder / "text").write_text("no data")
    field.to_dataset().to_zarr(folder / "store", consolidated=False)
    if "two" in given[0]:
        field.to_dataset().assign(ssh=field).to_netcdf(folder / "two.nc")
    field.assign_coords(lat=field["lat"] + 1).to_netcdf(folder / "shifted.nc")
    if "*" in given[0]:
        (folder / "shifted.nc").unlink()
    arguments = [text.format(folder) for text in given]
    assert said.format(folder) in refused(capsys, "fit", *arguments, folder / "model.nc")
    assert not (folder / "model.nc").exists()


# Values of options.


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], None),
        (["0.1"], 0.1),
        (["u=0.1", "v=2e-3"], {"u": 0.1, "v": 0.002}),
    ],
)
def test_bounds_are_one_for_all_or_one_for_each(given, meant):
    assert to_bounds(None, None, given) == meant


def test_options_of_a_fit_stand_together_or_alone():
    meant = {"gaps": "mask", "split": (0.8, 0.1, 0.1), "channels": [[1], [2, 2]], "levels": 2}
    together = "gaps=mask split=(0.8, 0.1, 0.1) channels=[[1], [2, 2]] levels=2"
    assert to_fit_options(None, None, [together]) == meant
    alone = [f"{name}={value}" for name, value in meant.items()]
    assert to_fit_options(None, None, alone) == meant


# Fits.


def test_files_are_fitted(field, folder, tmp_path):
    done = run("fit", "sst/*.nc", "model.nc", "--variable", "sst", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("MrCAE (sst; 2 levels") and "wrote model.nc" in done.stdout
    assert "epoch" in done.stderr
    options = {"levels": 2, "channels": [[1]], "max_epochs": 3, "progress": False}
    expected = field.chunk().mrcae.fit(**options).reconstruct(field)
    xr.testing.assert_equal(xmrcae.open_model(tmp_path / "model.nc").reconstruct(field), expected)


def test_several_variables_are_fitted_quietly(field, tmp_path, capsys):
    field.to_dataset().assign(ssh=2 * field).to_netcdf(tmp_path / "two.nc")
    names = ["--variable", "ssh", "--variable", "sst"]
    call = ["fit", str(tmp_path / "two.nc"), str(tmp_path / "model.nc"), *names, *SHORT]
    assert main([*call, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    model = xmrcae.open_model(tmp_path / "model.nc")
    assert list(model.fitted.labels.variables) == ["ssh", "sst"]


def test_a_model_is_replaced_only_where_asked_and_data_never(folder, capsys):
    data, model = folder / "a.nc", folder / "model.nc"
    model.write_text("something else")
    before = data.read_bytes()
    assert "exists already" in refused(capsys, "fit", data, model, *SHORT)
    assert "is no model" in refused(capsys, "fit", data, model, "--overwrite", *SHORT)
    assert "is no model" in refused(capsys, "fit", data, data, "--overwrite", *SHORT)
    assert (data.read_bytes(), model.read_text()) == (before, "something else")
    model.unlink()
    for _ in range(2):
        assert (
            main(["fit", str(data.with_name("?.nc")), str(model), "--overwrite", "--quiet", *SHORT])
            == 0
        )


def test_a_fit_runs_on_a_cluster_of_its_own(folder, tmp_path):
    done = run("fit", folder, tmp_path / "model.nc", "--workers", 1, "--quiet", *SHORT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert xmrcae.open_model(tmp_path / "model.nc").levels == 2


def test_where_to_compute_is_said_once_and_needs_distributed(folder, capsys, monkeypatch):
    call = ["fit", folder, folder / "model.nc", "--workers", 1]
    assert "give one" in refused(capsys, *call, "--dask-address", "tcp://localhost:1")
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert "xmrcae[complete]" in refused(capsys, *call)


# Ends.


@pytest.mark.parametrize("call", [[], ["fits"], ["fit", "a.nc"], ["fit", "a", "b", "--level"]])
def test_wrong_calls_name_the_help(capsys, call):
    refused(capsys, *call)
    assert main([*call, "--debug"]) == 2
    assert "--help" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("wrong\n data"), 2, "wrong data"),
        (FileNotFoundError(2, "No such file", "a.nc"), 2, "No such file: 'a.nc'"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (xmrcae.ArchiveError("damaged"), 1, "damaged"),
        (KeyError("key"), 1, "KeyError: 'key'; --debug shows where"),
        (KeyboardInterrupt(), 1, "stopped"),
    ],
)
def test_errors_have_their_exit_status(capsys, monkeypatch, error, status, said):
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("xmrcae.cli.inputs.open_inputs", fail)
    assert said in refused(capsys, "fit", "a.nc", "/tmp/none.nc", status=status)
    assert main(["fit", "a.nc", "/tmp/none.nc", "--debug"]) == status
    traceback = "Traceback" in capsys.readouterr().err
    assert traceback == (not isinstance(error, KeyboardInterrupt))


def test_help_ends_with_examples_and_is_quick(capsys):
    from xmrcae.cli.commands import xmrcae as group

    for name in group.commands:
        assert main([name, "--help"]) == 0
        _, examples, last = capsys.readouterr().out.rpartition("Examples:\n")
        assert examples and last.startswith(f"    xmrcae {name}")
    code = (
        "import sys; from xmrcae.cli import main; main(['--help']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert all(f"\n  {name} " in done.stdout for name in group.commands)
    assert done.stdout.endswith("False\n")


def test_warnings_are_one_line(capsys, monkeypatch):
    import warnings

    def warn(*_: Any) -> None:
        warnings.warn("this fits\nbadly", UserWarning, stacklevel=1)
        raise ValueError("after it")

    monkeypatch.setattr("xmrcae.cli.inputs.open_inputs", warn)
    assert main(["fit", "a.nc", "/tmp/none.nc"]) == 2
    assert capsys.readouterr().err == "xmrcae: warning: this fits badly\nxmrcae: after it\n"


def test_the_real_file_is_fitted(real_file: Callable[[str], Path], tmp_path):
    call = ["--options", "levels=2 max_epochs=2", "--quiet"]
    done = run("fit", real_file(ERSST), tmp_path / "model.nc", *call)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert list(xmrcae.open_model(tmp_path / "model.nc").fitted.labels.variables) == ["sst"]
