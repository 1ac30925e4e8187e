"""The demo of the command line fits, prints and writes what it says, and refuses in one line."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from helpers import AVISO, make_field

import xmrcae
from xmrcae.archive import format as archive_format
from xmrcae.cli import main
from xmrcae.defaults import SOLVERS
from xmrcae.demo import _open, _report

pytestmark = pytest.mark.minimum

FIGURES = ["levels.png", "refinement.png", "history.png"]
#: The environment of the minimum versions cannot write archives.
ARCHIVE = ["archive.mrcae.zarr", "archive.png"] * bool(importlib.util.find_spec("pcodec"))
WRITTEN = ["model.nc", *FIGURES, *ARCHIVE]


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS["lbfgs"], "max_epochs", 2)


@pytest.fixture
def field() -> xr.DataArray:
    return make_field(shape=(31, 31))


@pytest.fixture
def file(field: xr.DataArray, tmp_path: Path) -> str:
    field.to_netcdf(tmp_path / "sst.nc")
    return str(tmp_path / "sst.nc")


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a refusal says: one line, after which another may name the help."""
    assert main(["demo", *arguments]) == 2
    out, err = capsys.readouterr()
    line, *more = (part for part in err.splitlines() if not part.startswith("MrCAE"))
    assert out == "" and line.startswith("xmrcae: ")
    assert more in ([], ["xmrcae: see xmrcae demo --help"])
    return line


def test_a_file_is_fitted_reported_and_drawn(
    field: xr.DataArray, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "folder"
    output.mkdir(parents=True)
    for name in WRITTEN:
        (output / name).write_text("of an earlier run")
    assert main(["demo", "--data", file, "--variable", "sst", "--output", str(output)]) == 0
    lines = capsys.readouterr().out.splitlines()
    n_valid = int(field[0].notnull().sum())
    counts = f"{n_valid} of 961 pixels valid; snapshots: 14 training, 4 validation, 2 test"
    assert lines[0] == f"sst [degC]: time 20, lat 31, lon 31; {counts}"
    assert lines[1].startswith("fitted in ") and lines[1].endswith(" s")
    assert sorted(path.name for path in output.iterdir()) == sorted(WRITTEN)
    assert lines[-1] == f"wrote {', '.join(WRITTEN)} to {output}/"
    assert all(
        (output / name).read_bytes().startswith(b"\x89PNG")
        for name in WRITTEN
        if name.endswith(".png")
    )
    assert not plt.get_fignums()

    model = xmrcae.open_model(output / "model.nc")
    score = model.score(field.isel(time=(model.split == "test").values))
    at = next(i for i, line in enumerate(lines) if "rmse [degC]" in line)
    assert "2 test snapshots" in lines[at - 1]
    for level in range(model.levels):
        row = lines[at + 1 + level].split()
        expected = score.isel(level=level)
        assert row[0] == str(level)
        assert float(row[4]) == pytest.approx(float(expected["rmse"]), rel=6e-3)
        assert float(row[5]) == pytest.approx(float(expected["worst_pixel_rmse"]), rel=6e-3)
        assert row[6] == str(int(expected["n_parameters"]))
        assert row[7] == f"{int(expected['encoding_size']):,}"
        assert row[8] == f"{float(expected['active_share']):.0%}"


@pytest.mark.skipif(not ARCHIVE, reason="archives need packages that are not installed")
def test_the_archive_holds_the_data_within_a_hundredth_of_their_range(
    field: xr.DataArray, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["demo", "--data", file, "--output", str(output)]) == 0
    out = capsys.readouterr().out
    path = output / "archive.mrcae.zarr"
    archive = xmrcae.open_archive(path)
    assert archive.max_error == pytest.approx(0.01 * float(field.max() - field.min()), rel=0.5)
    with xr.open_dataset(path, engine="mrcae") as ds:
        xr.testing.assert_identical(ds["sst"].isnull().drop_attrs(), field.isnull().drop_attrs())
        worst = float(abs(ds["sst"] - field).max())
    assert 0 < worst <= archive.max_error
    assert repr(archive) in out
    assert f"off by more than {worst:.6g}; {archive.max_error:g} are allowed" in out
    (call,) = [line.split(": ")[1] for line in out.splitlines() if line.startswith("its level 0")]
    with eval(call, {"xarray": xr}) as coarse:
        assert coarse["sst"].shape == (20, *archive.about["levels"][0]["shape"])


@pytest.mark.parametrize("version", ["2.18.7", None])
def test_without_the_packages_of_archives_it_says_what_to_install_and_goes_on(
    version: str | None,
    file: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def found(name: str) -> str:
        if version is None:
            raise archive_format.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(archive_format, "version", found)
    archive_format.require.cache_clear()
    assert main(["demo", "--data", file, "--output", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("no archive: ")]
    assert "zarr>=3.1.4" in line and line.endswith("pip install 'xmrcae[archive]'")
    without = sorted(set(WRITTEN) - set(ARCHIVE))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == without


def test_data_that_archives_do_not_take_are_fitted_all_the_same(
    field: xr.DataArray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pcodec")
    field.fillna(0).round().astype("int32").to_netcdf(tmp_path / "whole.nc")
    call = ["--data", str(tmp_path / "whole.nc"), "--output", str(tmp_path / "out")]
    assert main(["demo", *call]) == 0
    assert "no archive: 'sst' is of type int32" in capsys.readouterr().out
    assert (tmp_path / "out" / "levels.png").exists()


def test_without_data_it_is_the_papers_drifting_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = xmrcae.datasets.drifting_mode
    monkeypatch.setattr(xmrcae.datasets, "drifting_mode", lambda: original(n_times=20, size=31))
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    assert capsys.readouterr().out.startswith(
        "drifting_mode [1]: time 20, y 31, x 31; 961 of 961 pixels valid"
    )
    assert sorted(path.name for path in (tmp_path / "demo-output").iterdir()) == sorted(WRITTEN)
    model = xmrcae.open_model(tmp_path / "demo-output" / "model.nc")
    recipe = xmrcae.recipes["drifting_mode"] | {"anchor": 0.1}
    assert model.levels == recipe["levels"] == 3
    assert {name: getattr(model.options, name) for name in recipe} == dict(recipe)
    assert model.options.solver == "lbfgs"


@pytest.mark.slow
def test_coarse_levels_of_the_demo_are_as_near_as_after_their_own_stage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()  # all epochs
    ds, options = _open(None)
    model = ds.mrcae.fit(progress=False, **options)
    history = model.history
    last = np.flatnonzero(np.diff(history["level"], append=model.levels))
    own = np.sqrt(history["test_mse"][last].values)
    test = ds["drifting_mode"][(model.split == "test").values]
    assert (model.score(test)["rmse"].values <= 1.2 * own).all()


def test_options_are_those_of_the_fit(
    field: xr.DataArray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gappy = field.where((field["lat"] != field["lat"][8]) | (field["time"] != field["time"][3]))
    gappy.to_netcdf(tmp_path / "gappy.nc")
    call = ["--data", str(tmp_path / "gappy.nc"), "--output", str(tmp_path / "out")]
    assert "--options gaps=mask" in refused(call, capsys)
    assert (
        main(
            [
                "demo",
                *call,
                "--options",
                "gaps=mask",
                "levels=2",
                "split=(0.5, 0.5, 0)",
                "channels=[[1]]",
            ]
        )
        == 0
    )
    options = xmrcae.open_model(tmp_path / "out" / "model.nc").options
    assert (options.gaps, options.levels, list(options.split)) == ("mask", 2, [0.5, 0.5, 0])
    capsys.readouterr()
    assert "NAME=VALUE" in refused([*call, "--options", "gaps"], capsys)
    assert "gap" in refused([*call, "--options", "gap=mask"], capsys)


def test_codes_that_hold_more_than_the_data_are_called_so(
    field: xr.DataArray, capsys: pytest.CaptureFixture[str]
) -> None:
    for tolerance, more in ((None, True), (100.0, False)):
        model = field.mrcae.fit(levels=2, tolerance=tolerance, progress=False)
        _report(model, field, 1.0)
        out = capsys.readouterr().out
        assert (int(model.encoding_sizes[-1]) > int(field[0].notnull().sum())) == more
        assert ("they do not compress" in out) == more and ("times fewer" in out) != more


def test_validation_serves_where_nothing_is_left_to_test(
    field: xr.DataArray, capsys: pytest.CaptureFixture[str]
) -> None:
    model = field.mrcae.fit(levels=1, progress=False, split=(slice(0, 15), slice(15, 20), []))
    _report(model, field, 1.0)
    assert "5 validation snapshots" in capsys.readouterr().out


def test_zarr_is_read(field: xr.DataArray, tmp_path: Path) -> None:
    field.to_dataset().to_zarr(tmp_path / "sst.zarr")
    assert (
        main(["demo", "--data", str(tmp_path / "sst.zarr"), "--output", str(tmp_path / "out")]) == 0
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(WRITTEN)


def test_what_cannot_be_used_is_refused_in_one_line(
    file: str, field: xr.DataArray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "out")]
    assert "no variable 'ssh'" in refused(["--data", file, "--variable", "ssh", *output], capsys)
    assert "nowhere.nc" in refused(["--data", str(tmp_path / "nowhere.nc"), *output], capsys)
    (tmp_path / "text.txt").write_text("no data")
    assert "IO backends" in refused(["--data", str(tmp_path / "text.txt"), *output], capsys)
    assert "sst.nc" in refused(["--data", file, "--output", file], capsys)
    field.to_dataset().assign(ssh=field).to_netcdf(tmp_path / "two.nc")
    assert "several variables would do" in refused(
        ["--data", str(tmp_path / "two.nc"), *output], capsys
    )
    assert "--data" in refused(["--variable", "sst"], capsys)


def test_gaps_are_refused_with_the_ways_out(
    real_file: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(["--data", str(real_file(AVISO)), "--output", str(tmp_path)], capsys)
    assert "193 values" in line and "--options gaps=mask" in line


def test_the_module_runs() -> None:
    command = [sys.executable, "-m", "xmrcae", "demo", "--data", "nowhere.nc", "--output", "."]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
