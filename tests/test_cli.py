"""The command line: what commands write and print, refuse, and do when they are called again."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from helpers import ERSST, make_field

import xmrcae
from xmrcae.archive.folder import Folder
from xmrcae.archive.format import ArchiveFault
from xmrcae.cli import main
from xmrcae.cli.inputs import open_inputs
from xmrcae.cli.options import to_bounds, to_fit_options
from xmrcae.cli.reading import select_times
from xmrcae.cli.spelling import spelled
from xmrcae.text import in_bytes

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
    ds, names, files = open_inputs(given.format(*[folder] * 3).split(), [])
    with ds:
        assert names == ["sst"] and set(ds.data_vars) == {"sst", "lat_bnds"}
        assert sorted(files) == [str(folder / f"{name}.nc") for name in "abc"]
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
    ds, names, files = open_inputs([str(tmp_path / "store")], ["sst"])
    assert names == ["sst"] and files == []
    xr.testing.assert_equal(ds["sst"].load(), field)


@pytest.mark.parametrize("name", ["area", "lat_bnds"])
def test_what_differs_from_file_to_file_is_refused(field, tmp_path, capsys, name):
    for n in range(2):
        ds = field[10 * n : 10 * n + 10].to_dataset()
        ds["lat"].attrs["bounds"] = "lat_bnds"
        values = {"area": np.ones((15, 20)), "lat_bnds": np.ones((15, 2))}
        values[name] += n
        ds["lat_bnds"] = ("lat", "bnds"), values["lat_bnds"]
        ds = ds.assign_coords(area=(("lat", "lon"), values["area"]))
        ds.to_netcdf(tmp_path / f"{n}.nc")
    said = refused(capsys, "fit", tmp_path, tmp_path / "model.nc")
    assert f"the inputs do not fit together: conflicting values for variable {name!r}" in said
    assert "compat" not in said


def test_scalars_that_differ_from_file_to_file_are_left_out_with_a_warning(field, tmp_path, capsys):
    for n in range(3):
        ds = field[5 * n : 5 * n + 5].to_dataset().assign_coords(height=2.0, run=n)
        ds.assign_coords({"late": 1} if n else {}).to_netcdf(tmp_path / f"{n}.nc")
    ds, *_ = open_inputs([str(tmp_path)], ["sst"])
    assert ds.sst.coords["height"] == 2.0 and not {"run", "late"} & {*ds.coords}
    said = capsys.readouterr().err
    assert "warning: run is not the same in all inputs" in said
    assert "warning: late is not the same" in said and "height" not in said
    xr.testing.assert_equal(ds.sst.drop_vars("height").load(), field[:15])


@pytest.mark.parametrize(("ending", "name"), [("zarr", "all.mrcae.zarr"), ("nc", "all")])
def test_what_is_written_may_lie_among_the_inputs(field, tmp_path, capsys, ending, name):
    ds = field.to_dataset()
    write = ds.to_netcdf if ending == "nc" else partial(ds.to_zarr, consolidated=False)
    write(tmp_path / f"1.{ending}")
    command = ["archive", f"{tmp_path}/*", f"{tmp_path}/{name}", "--max-error", "0.1", *SHORT]
    for said in ("written", "complete, it has all 20 along time"):
        assert main(command) == 0
        assert said in capsys.readouterr().out
    command = ["fit", f"{tmp_path}/1*", f"{tmp_path}/1-model.{ending}", "--overwrite", *SHORT]
    assert main(command) == main(command) == 0
    (tmp_path / "link").symlink_to(tmp_path)
    model = ["--model", f"{tmp_path}/1-model.{ending}"]
    assert main(["archive", f"{tmp_path}/link/1*", f"{tmp_path}/1-archive.zarr", *model]) == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["{}/none.nc"], "no file {}/none.nc"),
        (["{}/*.grib"], "no file {}/*.grib"),
        (["{}/empty"], "{}/empty is a folder without *.nc, and no Zarr store"),
        (["{}/a.nc", "{}/store"], "files and Zarr stores"),
        (["{}/text"], "{}/text cannot be read as NetCDF or Zarr"),
        (["{}/*.txt", "{}/a.nc"], "{}/d.txt cannot be read as NetCDF or Zarr"),
        (["{}/a.nc", "{}/cut"], "{}/cut cannot be read as NetCDF or Zarr"),
        (["{}/bare"], "{}/bare: no variable has a sample and two horizontal dimensions"),
        (["{}/bare"], "the Dataset holds no variables"),
        (["{}/map"], "the Dataset holds sst (lat, lon)"),
        (["{}/one"], "the data have 1 time: at least 3 are needed"),
        (["{}/*.nc", "--variable", "ssh"], "'ssh'"),
        (["{}/two.nc"], "several variables would do (sst, ssh)"),
        (["{}/a.nc", "{}/shifted.nc"], "do not fit together"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused(field, folder, capsys, given, said):
    (folder / "empty").mkdir()
    (folder / "text").write_text("no data")
    (folder / "d.txt").write_text("no data")
    whole = (folder / "a.nc").read_bytes()
    (folder / "cut").write_bytes(whole[: len(whole) // 2])
    xr.Dataset(coords={"lat": field["lat"]}).to_netcdf(folder / "bare")
    field[0].drop_vars("time").to_netcdf(folder / "map")
    field[:1].to_netcdf(folder / "one")
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


@pytest.mark.parametrize("given", [["a"], ["u=a"], ["0.1", "0.2"], ["0.1", "u=1"], ["u=1", "u=2"]])
def test_other_bounds_are_refused(capsys, given):
    options = [word for bound in given for word in ("--max-error", bound)]
    assert "NUMBER" in refused(capsys, "archive", "a.nc", "b.mrcae.zarr", *options)


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


# Archives.


@pytest.fixture
def archive(folder: Path, tmp_path: Path) -> Path:
    """An archive of all files, in blocks of 8, 8 and 4 times."""
    path = tmp_path / "sst.mrcae.zarr"
    call = ["archive", str(folder), str(path), "--max-error", "0.1", "--rows-per-block", "8"]
    assert main([*call, "--quiet", *SHORT]) == 0
    return path


def assert_within(found: Any, given: xr.DataArray, bound: float = 0.1) -> None:
    """See that fields have the labels and gaps of those given, and are within a bound of them."""
    xr.testing.assert_equal(found.coords.to_dataset(), given.coords.to_dataset())
    xr.testing.assert_equal(found.isnull(), given.isnull())
    assert float(abs(found.astype(float) - given.astype(float)).max()) <= bound


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_call_repeated_adds_what_is_new(field, folder, tmp_path, capsys):
    (folder / "b.nc").rename(tmp_path / "later.nc")
    path = tmp_path / "sst.mrcae.zarr"
    call = ["archive", f"{folder}/*.nc", str(path), "--max-error", "0.1", *SHORT]
    assert main(call) == 0
    size, given = (sum(map(len, files_of(each).values())) for each in (path, folder))
    said = f"{path}: written: {in_bytes(size)}, of {in_bytes(given)} in the input files\n"
    assert capsys.readouterr().out.endswith(said)
    before = files_of(path)

    assert main(call) == 0
    assert capsys.readouterr().out.endswith(f"{path}: complete, it has all 15 along time\n")
    assert files_of(path) == before

    (tmp_path / "later.nc").rename(folder / "b.nc")
    assert main(call) == 0
    assert capsys.readouterr().out.endswith("appended 5 along time, skipped 15 that it had\n")
    after = files_of(path)
    assert {name: after[name] for name in before if "/c/" in name} == {
        name: data for name, data in before.items() if "/c/" in name
    }
    assert_within(xmrcae.open_archive(path).to_dataset()["sst"], field)


@pytest.mark.parametrize("begun", [False, True], ids=["writing", "appending"])
def test_a_stopped_call_goes_on_though_more_has_come(
    field, folder, tmp_path, capsys, monkeypatch, begun
):
    from xmrcae.archive.store_writer import ArchiveWriter

    def stop_after_two(self: Any, record: Any) -> None:
        finish(self, record)
        if len(self.finished) == 2:
            raise KeyboardInterrupt

    (folder / "b.nc").rename(tmp_path / "later.nc")
    if begun:
        (folder / "a.nc").rename(tmp_path / "a.nc")
    path = tmp_path / "sst.mrcae.zarr"
    call = ["archive", f"{folder}/*.nc", str(path), "--max-error", "0.1", *SHORT]
    call += ["--rows-per-block", "2", "--quiet"]
    if begun:
        assert main(call) == 0
        (tmp_path / "a.nc").rename(folder / "a.nc")
    finish = ArchiveWriter.finish_block
    with monkeypatch.context() as stopping:
        stopping.setattr(ArchiveWriter, "finish_block", stop_after_two)
        assert main(call) == 1
    assert capsys.readouterr().err.endswith("xmrcae: stopped\n")
    if not begun:
        assert "was stopped: the same call finishes it" in refused(capsys, "info", path)
    (tmp_path / "later.nc").rename(folder / "b.nc")
    assert main(call) == 0
    assert_within(xmrcae.open_archive(path).to_dataset()["sst"], field)


def test_what_an_archive_cannot_take_is_refused(field, folder, archive, capsys):
    before = files_of(archive)
    call = ["archive", folder, archive]
    other = [
        ("--max-error", 0.2, "--max-error sst=0.2"),
        ("--rmse", "sst=0.2", "--rmse sst=0.2"),
        ("--levels", 3, "levels=3: the archive was begun with 2"),
        ("--options", "gaps=mask", "--options gaps=mask: the archive was begun with None"),
        ("--rows-per-block", 5, "--rows-per-block 5: the archive was begun with 8"),
        ("--codes", 1, "--codes 1"),
        ("--lossless", "--quiet", "--lossless"),
    ]
    for option, value, said in other:
        assert said in refused(capsys, *call, option, value)
    early = field.assign_coords(time=field["time"] + np.timedelta64(1, "D"))
    early.to_netcdf(folder.parent / "early.nc")
    line = refused(capsys, "append", folder.parent / "early.nc", archive)
    assert "2001-02-02" in line and "2002-09-01" in line
    field.rename("ssh").to_netcdf(folder.parent / "ssh.nc")
    assert "'sst'" in refused(capsys, "append", folder.parent / "ssh.nc", archive)
    assert files_of(archive) == before


def test_an_archive_that_is_not_there_is_named(tmp_path, folder, capsys):
    nowhere = tmp_path / "none.mrcae.zarr"
    for call in (["info"], ["append", folder], ["decode"], ["plot"]):
        output = [tmp_path / "out.png" if call == ["plot"] else tmp_path / "out.nc"]
        output *= call[0] in ("decode", "plot")
        assert f"no archive at {nowhere}" in refused(capsys, *call, nowhere, *output)
        assert "a.nc is a file, and no" in refused(capsys, *call, folder / "a.nc", *output)
        assert "is a folder, and no" in refused(capsys, *call, folder, *output)
    assert not nowhere.exists()


def test_a_model_archives_what_it_was_not_fitted_to(field, folder, tmp_path, capsys):
    model, path = tmp_path / "model.nc", tmp_path / "sst.mrcae.zarr"
    assert main(["fit", str(folder), str(model), "--quiet", *SHORT]) == 0
    call = ["archive", folder, path, "--model", model, "--rmse", 0.05]
    assert "--model" in refused(capsys, *call, *SHORT)
    for _ in range(2):
        assert main([*map(str, call), "--quiet"]) == 0
    other = tmp_path / "other.nc"
    assert main(["fit", str(folder), str(other), "--quiet", *SHORT[:1], "levels=1"]) == 0
    capsys.readouterr()
    assert "another model" in refused(capsys, "archive", folder, path, "--model", other)
    assert "--levels 0" in refused(capsys, *call, "--levels", 0)
    found = xmrcae.open_archive(path)
    assert found.rmse == 0.05 and float(found.measured["rmse"][-1, 0]) <= 0.05
    assert_within(found.to_dataset()["sst"], field, 1)


def test_bounds_of_several_variables_are_kept(field, tmp_path):
    ds = field.to_dataset().assign(ssh=100 * field)
    ds.to_zarr(tmp_path / "two.zarr", consolidated=False)
    path = tmp_path / "two.mrcae.zarr"
    call = ["archive", str(tmp_path / "two.zarr"), str(path), "--quiet", *SHORT]
    call += ["--variable", "sst", "--variable", "ssh"]
    assert main([*call, "--max-error", "ssh=5", "--max-error", "sst=0.1"]) == 0
    found = xmrcae.open_archive(path)
    assert found.max_error == {"sst": 0.1, "ssh": 5}
    for name, bound in found.max_error.items():
        assert_within(found.to_dataset()[name], ds[name], bound)


def test_without_a_bound_the_worst_error_is_told(folder, tmp_path, capsys):
    path = tmp_path / "sst.mrcae.zarr"
    assert main(["archive", str(folder), str(path), "--quiet", *SHORT]) == 0
    worst = float(xmrcae.open_archive(path).measured["worst"][-1, 0])
    err = capsys.readouterr().err
    assert "no error of sst is promised" in err and f"the worst found is {worst:.3g} degC" in err


def test_values_that_cannot_follow_a_bound_are_kept_as_they_are_where_asked(
    field, folder, tmp_path
):
    path = tmp_path / "sst.mrcae.zarr"
    call = ["archive", str(folder), str(path), "--max-error", "1e-9", "--quiet", *SHORT]
    assert main(call) == 2 and not path.exists()
    assert main([*call, "--lossless"]) == 0
    assert_within(xmrcae.open_archive(path).to_dataset()["sst"], field, 0)


def test_an_archive_is_no_input(archive, tmp_path, capsys):
    call = ["archive", archive, tmp_path / "new.mrcae.zarr"]
    assert "is an archive: xmrcae decode" in refused(capsys, *call)
    call[1] = archive.rename(tmp_path / "other")
    assert "is an archive: xmrcae decode" in refused(capsys, *call)


def test_info_says_what_the_archive_says(archive, capsys):
    found = xmrcae.open_archive(archive)
    assert main(["info", str(archive)]) == 0
    assert capsys.readouterr().out == f"{found!r}\n"
    assert main(["info", str(archive), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["snapshots"], about["blocks"], about["rows_per_block"]) == (20, 3, 8)
    assert about["first"].startswith("2001-02-01") and about["last"].startswith("2002-09-01")
    assert about["bytes"] == found.n_bytes == sum(map(len, files_of(archive).values()))
    assert [each["bytes"] for each in about["levels"]] == found.level_bytes
    assert [each["shape"] for each in about["levels"]] == [[7, 10], [15, 20]]
    sst = about["variables"]["sst"]
    assert (sst["units"], sst["dtype"], sst["max_error"]) == ("degC", "float32", 0.1)
    assert (
        sst["worst_found"] <= 0.1
        and sst["rmse_found"] == found.measured["rmse"][:, 0].values.tolist()
    )


@pytest.mark.parametrize("name", ["out.nc", "out.zarr"])
def test_an_archive_is_decoded_to_what_it_was(field, archive, tmp_path, name, capsys):
    call = ["decode", str(archive), str(tmp_path / name)]
    assert main(call) == 0
    out, err = capsys.readouterr()
    assert "decode" in err
    assert out.startswith(f"{tmp_path / name}: 20 along time, level 1, ")
    assert "pass --overwrite to replace it" in refused(capsys, *call)
    assert main([*call, "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    with xr.open_dataset(tmp_path / name) as ds:
        assert_within(ds["sst"].load(), field)
        assert ds["sst"].attrs == field.attrs and "lat_bnds" in ds
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [
        ("2002", "2002-01-01", "2002-09-01"),
        ("2001-06", "2001-06-01", "2001-06-01"),
        ("2001-06-01T00:00:2001-08-01", "2001-06-01", "2001-08-01"),
        ("2001-06:2002-02", "2001-06-01", "2002-02-01"),
        (":2001-04", "2001-02-01", "2001-04-01"),
        ("2002-07:", "2002-07-01", "2002-09-01"),
    ],
)
def test_times_are_selected(archive, given, first, last):
    ds = select_times(xmrcae.open_archive(archive).to_dataset(), "time", given)
    assert list(ds["time"].values[[0, -1]]) == [np.datetime64(first), np.datetime64(last)]


def test_numbers_are_selected_where_there_are_no_times():
    ds = xr.Dataset(coords={"run": [1.0, 2.5, 4.0]})
    assert list(select_times(ds, "run", "2:4")["run"]) == [2.5, 4]
    assert list(select_times(ds, "run", "2.5")["run"]) == [2.5]


@pytest.mark.parametrize("calendar", ["standard", "noleap"])
def test_times_of_an_archive_that_descend_are_selected_alike(calendar: str) -> None:
    kind = {"calendar": calendar, "use_cftime": calendar != "standard"}
    time = xr.date_range("2001-01", periods=36, freq="MS", **kind)
    ds = xr.Dataset({"sst": ("time", np.arange(36))}, coords={"time": time})
    backward = ds.isel(time=slice(None, None, -1))
    for given in ("2002", "2002-03:2003-01", ":2001-02", "2003-06:"):
        chosen = select_times(backward, "time", given)
        assert chosen.equals(select_times(ds, "time", given).isel(time=slice(None, None, -1)))


@pytest.mark.parametrize("given", ["1999", "2001-13", "June", "", "2001:2002:2003"])
def test_times_that_are_not_there_are_refused(archive, tmp_path, capsys, given):
    line = refused(capsys, "decode", archive, tmp_path / "out.nc", "--time", given)
    assert "--time" in line and not list(tmp_path.glob("out*"))


def test_levels_and_times_are_decoded_together(archive, tmp_path):
    call = ["decode", str(archive), str(tmp_path / "out.nc"), "--level", "0", "--time", "2002"]
    assert main([*call, "--quiet"]) == 0
    expected = xmrcae.open_archive(archive).to_dataset(level=0).sel(time="2002")
    with xr.open_dataset(tmp_path / "out.nc") as ds:
        xr.testing.assert_equal(ds.load(), expected.load())


def test_what_was_decoded_says_so(field, folder, tmp_path, archive):
    call = ["decode", str(archive), "--quiet"]
    measured = xmrcae.open_archive(archive).measured
    for level in (0, 1):
        out = tmp_path / f"{level}.nc"
        assert main([*call, str(out), "--level", str(level)]) == 0
        history = xr.open_dataset(out).attrs["history"]
        assert f"decode: level {level} of sst.mrcae.zarr; sst: max_error 0.1 asked" in history
        assert f"rmse {float(measured['rmse'][level, 0]):.3g}" in history
        assert ("worst" in history) == (level == 1)
    ds = field.to_dataset().assign_attrs(history="made up")
    ds.to_netcdf(tmp_path / "made.nc")
    path, out = tmp_path / "made.mrcae.zarr", tmp_path / "again.nc"
    assert main(["archive", str(tmp_path / "made.nc"), str(path), "--quiet", *SHORT]) == 0
    assert main(["decode", str(path), str(out), "--quiet"]) == 0
    first, last = xr.open_dataset(out).attrs["history"].split("\n")
    assert first == "made up" and "no bound" in last


def test_variables_are_decoded_alone_into_new_folders(field, tmp_path, capsys):
    ds = field.to_dataset().assign(ssh=2 * field)
    ds.to_netcdf(tmp_path / "two.nc")
    path, out = tmp_path / "two.mrcae.zarr", tmp_path / "new" / "one.nc"
    call = ["archive", str(tmp_path / "two.nc"), str(path), "--quiet", *SHORT]
    assert main([*call, "--variable", "sst", "--variable", "ssh"]) == 0
    capsys.readouterr()
    assert "has sst, ssh" in refused(capsys, "decode", path, out, "--variable", "t")
    assert not out.parent.exists()
    assert main(["decode", str(path), str(out), "--variable", "ssh", "--quiet"]) == 0
    assert list(xr.open_dataset(out).data_vars) == ["ssh"]


def test_names_say_what_is_written(archive, folder, tmp_path, capsys):
    before = set(tmp_path.rglob("*"))
    for name in ("out.txt", "out", "out.mrcae.zarr"):
        for call in (["decode", archive], ["plot", archive], ["fit", folder / "a.nc"]):
            assert name in refused(capsys, *call, tmp_path / name)
    assert ".png" in refused(capsys, "plot", archive, tmp_path / "out.nc")
    assert set(tmp_path.rglob("*")) == before
    for name, begin in {"out.pdf": b"%PDF", "out.svg": b"<?xml"}.items():
        assert main(["plot", str(archive), str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes().startswith(begin)
        assert capsys.readouterr().out.startswith(f"{tmp_path / name}: 1 snapshot, 2 levels, ")


def test_decoded_values_are_not_packed_again(field, tmp_path):
    packed = {"sst": {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -999}}
    field.to_netcdf(tmp_path / "packed.nc", encoding=packed)
    path, out = tmp_path / "sst.mrcae.zarr", tmp_path / "out.nc"
    call = ["archive", str(tmp_path / "packed.nc"), str(path), "--max-error", "0.01"]
    assert main([*call, "--quiet", *SHORT]) == 0
    assert main(["decode", str(path), str(out), "--quiet"]) == 0
    with xr.open_dataset(tmp_path / "packed.nc") as given, xr.open_dataset(out) as found:
        assert_within(found["sst"].load(), given["sst"].load(), 0.01)
        assert float(abs(found["sst"] - given["sst"]).max()) > 0


def test_a_damaged_archive_is_a_fault_and_leaves_nothing_behind(archive, tmp_path, capsys):
    chunk = next(path for path in sorted(archive.glob("level_1/sst/c/**/*")) if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1])
    refused(capsys, "decode", archive, tmp_path / "out.nc", "--quiet", status=1)
    assert not list(tmp_path.glob("out*"))
    (archive / "zarr.json").write_text("{")
    refused(capsys, "info", archive, status=1)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"fingerprint": [], "checksum": 0}'])
def test_a_damaged_record_of_a_stopped_run_is_a_fault(field, archive, tmp_path, capsys, content):
    later = field.assign_coords(time=field["time"] + np.timedelta64(3000, "D"))
    later.to_netcdf(tmp_path / "later.nc")
    (archive / "writing.json").write_text(content)
    line = refused(capsys, "append", tmp_path / "later.nc", archive, "--quiet", status=1)
    assert "writing.json" in line and "remove this file and append what the archive lacks" in line


def test_an_archive_that_another_process_writes_is_a_fault(field, archive, tmp_path, capsys):
    later = field.assign_coords(time=field["time"] + np.timedelta64(3000, "D"))
    later.to_netcdf(tmp_path / "later.nc")
    with Folder(archive).lock():
        line = refused(capsys, "append", tmp_path / "later.nc", archive, "--quiet", status=1)
    assert "another process writes" in line


def test_a_store_that_is_no_archive_is_an_error_of_the_users(field, folder, tmp_path, capsys):
    field.to_zarr(tmp_path / "sst.zarr", zarr_format=3)
    for call in (["info"], ["append", folder]):
        assert "is no archive" in refused(capsys, *call, tmp_path / "sst.zarr")


def test_an_archive_is_not_replaced_by_what_it_decodes_to(archive, capsys):
    before = files_of(archive)
    assert "archive itself" in refused(capsys, "decode", archive, f"{archive}/", "--overwrite")
    assert files_of(archive) == before


def test_a_snapshot_is_drawn_at_all_levels(archive, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.png"
    drawn = []
    original = xmrcae.plot.pyramid
    monkeypatch.setattr(
        xmrcae.plot,
        "pyramid",
        lambda tree, **kwargs: drawn.append(tree) or original(tree, **kwargs),
    )
    assert main(["plot", str(archive), str(out)]) == 0
    assert main(["plot", str(archive), str(out), "--time", "2002", "--overwrite"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    times = [tree["level_1/time"].values for tree in drawn]
    assert times == [np.datetime64("2002-09-01"), np.datetime64("2002-01-01")]
    assert all(set(tree.children) == {"level_0", "level_1"} for tree in drawn)
    capsys.readouterr()
    n_drawn = len(drawn)
    assert "exists already" in refused(capsys, "plot", archive, out)
    assert len(drawn) == n_drawn and not plt.get_fignums()
    assert "sst" in refused(capsys, "plot", archive, tmp_path / "b.png", "--variable", "ssh")


def test_real_files_go_through_every_command(real_file: Callable[[str], Path], tmp_path):
    with xr.open_dataset(real_file(ERSST)) as ds:
        ds = ds.drop_encoding()
        given = ds["sst"].load()
        ds.isel(time=slice(0, 120)).to_netcdf(tmp_path / "first.nc")
        ds.isel(time=slice(120, None)).to_netcdf(tmp_path / "last.nc")

    def done(*arguments: Any) -> str:
        result = run(*arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        return result.stdout

    options = ["--options", "levels=3 max_epochs=3"]
    done("archive", "first.nc", "sst.mrcae.zarr", "--max-error", "0.1", *options)
    n_later = given.sizes["time"] - 120
    assert f"appended {n_later} along time" in done("append", "last.nc", "sst.mrcae.zarr")
    assert "complete" in done("archive", "*.nc", "sst.mrcae.zarr", "--max-error", "0.1", *options)
    about = json.loads(done("info", "sst.mrcae.zarr", "--json"))
    assert about["snapshots"] == given.sizes["time"]
    assert about["variables"]["sst"]["worst_found"] <= 0.1
    done("decode", "sst.mrcae.zarr", "again.nc")
    with xr.open_dataset(tmp_path / "again.nc") as ds:
        assert_within(ds["sst"].load(), given)
    done("decode", "sst.mrcae.zarr", "coarse.zarr", "--level", 0, "--time", 2015, "--workers", 1)
    coarse = xr.open_dataset(tmp_path / "coarse.zarr", engine="zarr")
    assert coarse.sizes["time"] == 12 and coarse["sst"].notnull().any()
    done("plot", "sst.mrcae.zarr", "sst.png", "--time", "2015-06")
    assert (tmp_path / "sst.png").read_bytes().startswith(b"\x89PNG")


# Ends.


@pytest.mark.parametrize("call", [[], ["fits"], ["fit", "a.nc"], ["fit", "a", "b", "--level"]])
def test_wrong_calls_name_the_help(capsys, call):
    refused(capsys, *call)
    assert main([*call, "--debug"]) == 2
    assert "--help" in capsys.readouterr().err.splitlines()[-1]


def test_a_lone_argument_is_told_which_two_are_needed(capsys):
    assert "INPUT... and ARCHIVE are needed" in refused(capsys, "append", "a.nc")
    assert "INPUT... and MODEL are needed" in refused(capsys, "fit", "a.nc")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('fit with gaps="mask" to', "fit with --options gaps=mask to"),
        ("choose horizontal=(y, x), or", "choose --options 'horizontal=(y, x)', or"),
        ("name it with sample=", "name it with --options sample="),
        ("max_error=0.0 must be", "--max-error 0.0 must be"),
        ("rows_per_block=0: a", "--rows-per-block 0: a"),
        ("max_error names 'SST'", "--max-error names 'SST'"),
        ("data in float64, or lossless=True", "data in float64, or --lossless"),
        ("have units='K', the", "have units='K', the"),
    ],
)
def test_messages_speak_of_options_as_the_command_line_has_them(message, expected):
    assert spelled(message) == expected


def test_gaps_are_refused_in_the_spelling_of_the_command_line(field, tmp_path, capsys):
    field[5, 2:9, 4:8] = np.nan
    field.to_netcdf(tmp_path / "gaps.nc")
    line = refused(capsys, "archive", tmp_path / "gaps.nc", tmp_path / "a.mrcae.zarr")
    assert "--options gaps=mask" in line


def after(stop: BaseException, error: Exception) -> Exception:
    """An error of a library that cleans up after it was stopped."""
    error.__context__ = stop
    return error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ValueError("wrong\n data"), 2, "wrong data"),
        (FileNotFoundError(2, "No such file", "a.nc"), 2, "No such file: 'a.nc'"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (xmrcae.ArchiveError("unfit"), 2, "unfit"),
        (ArchiveFault("damaged"), 1, "damaged"),
        (KeyError("key"), 1, "KeyError: 'key'; --debug shows where"),
        (KeyboardInterrupt(), 1, "stopped"),
        (after(KeyboardInterrupt(), AttributeError("no bar yet")), 1, "stopped"),
        (after(ValueError(), OSError("no room")), 1, "no room"),
    ],
)
def test_errors_have_their_exit_status(capsys, monkeypatch, error, status, said):
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("xmrcae.cli.inputs.open_inputs", fail)
    assert said in refused(capsys, "fit", "a.nc", "/tmp/none.nc", status=status)
    assert main(["fit", "a.nc", "/tmp/none.nc", "--debug"]) == status
    traceback = "Traceback" in capsys.readouterr().err
    assert traceback == (said != "stopped")


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

    def warn(*_: Any, **__: Any) -> None:
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
