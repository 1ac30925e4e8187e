"""Where and how it runs: settings of Python and the system, packages that are missing, odd paths."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import session
import xarray as xr
from conftest import REPOSITORY, nodes_of

import xmrcae

#: Settings that a process takes from its parent, and that a test is about.
ALONE = ("DISPLAY", "HOME", "LANG", "LC_ALL", "MPLBACKEND", "MPLCONFIGDIR", "PYTHONUTF8")

#: Python's own switches: every warning an error, files left open among them; no docstrings.
STRICT, BARE = ("-X", "dev", "-W", "error"), ("-OO",)

#: The "C" locale as it is where Python may not change it: names and texts are ASCII.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

#: Names that mean something to a shell, a glob, a URL or HTML, and are names of files all the same.
NAMES = ["data:100%25 größe-日本 #1[1]", "~C:x?*$HOME;'\"&<b>"]


def ended(
    program: Sequence[object], settings: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run Python with none but some settings, in a folder."""
    kept = {name: value for name, value in os.environ.items() if name not in ALONE}
    kept["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    return subprocess.run(
        [sys.executable, *map(str, program)],
        env={**kept, **settings},
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )


def goes_well(
    folder: Path, *, flags: Sequence[str] = (), without: Sequence[str] = (), **settings: str
) -> None:
    """Check that a session ends well, and says nothing.

    Without a home matplotlib tells where its cache is, and `-X dev` which tasks were slow.
    """
    done = ended([*flags, session.__file__, folder, *without], settings, folder)
    others = re.compile("matplotlib|^executing <", re.IGNORECASE)
    said = [line for line in done.stderr.splitlines() if not others.search(line)]
    assert (done.returncode, done.stdout, said) == (0, "done\n", []), done.stderr


@pytest.fixture
def no_home(tmp_path: Path) -> str:
    """A home in which nothing can be read or made, whoever tries."""
    home = tmp_path / "home"
    home.write_text("")
    return str(home)


def test_strictly_without_a_home_a_screen_or_a_locale(tmp_path: Path, no_home: str) -> None:
    goes_well(tmp_path, flags=STRICT, HOME=no_home, LC_ALL="C")


def test_without_docstrings_asserts_a_network_and_what_is_not_required(tmp_path: Path) -> None:
    without = ("network", "cartopy", "distributed", "triton", "givernylocal")
    goes_well(tmp_path, flags=BARE, without=without)


def test_packages_that_are_missing_are_named_with_their_extra(
    model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = ("matplotlib", "pcodec")
    session.leave_out(without, monkeypatch)
    session.archive(field, model, tmp_path, without)
    session.draw(model, tmp_path, without)


def test_no_check_stands_in_an_assert() -> None:
    found = []
    for path in (REPOSITORY / "xmrcae").rglob("*.py"):
        for node in nodes_of(path):
            if isinstance(node, ast.Assert):
                found.append(ast.unparse(node.test))
    types = re.compile(r"[\w.]+ is not None|isinstance\([\w.]+, \w+\)")
    assert found and [test for test in found if not types.fullmatch(test)] == []


@pytest.mark.soak
@pytest.mark.parametrize("flags", [(), ("-W", "error"), ("-OO",), ("-X", "dev")], ids=" ".join)
@pytest.mark.parametrize(
    "without",
    [(), ("network",), ("matplotlib",), ("cartopy",), ("distributed",), ("triton",), ("pcodec",)],
    ids=" ".join,
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "ASCII"])
def test_settings_alone_and_together(
    tmp_path: Path, no_home: str, flags: Sequence[str], without: Sequence[str], locale: str
) -> None:
    settings = ASCII if locale == "ASCII" else {"LC_ALL": locale}
    goes_well(tmp_path, flags=flags, without=without, HOME=no_home, **settings)


def test_letters_that_names_cannot_have_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "which names of files cannot have here, where they are in {}: give another path, or set "
    with pytest.raises(ValueError, match=r"the letter '\\udcff', " + said.format("utf-8")):
        xmrcae.open_model("\udcff.nc")
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "ascii")
    with pytest.raises(ValueError, match=r"the letter '\\xf6', " + said.format("ascii")):
        xmrcae.open_archive("größe.mrcae.zarr")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name in the working folder, where none of the files are that it could be taken for."""
    monkeypatch.chdir(tmp_path)
    return request.param


def test_names_of_all_kinds_are_names_of_files(
    name: str, model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path
) -> None:
    model.save(f"{name}.nc")
    model.save(f"{name}.zarr")
    for file in (f"{name}.nc", f"{name}.zarr"):
        assert xmrcae.open_model(file).fitted.id == model.fitted.id
    field.mrcae.fit(levels=1, max_epochs=1, progress=False, checkpoint=name)
    model.to_archive(field, f"{name}.mrcae.zarr", max_error=1.0, progress=False)
    with xr.open_dataset(f"{name}.mrcae.zarr") as read:
        assert float(abs(read.sst - field).max()) <= 1.0
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {name, *(f"{name}{end}" for end in (".nc", ".zarr", ".mrcae.zarr"))}


def test_commands_take_names_of_all_kinds(
    name: str, model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path
) -> None:
    Path(name).mkdir()
    model.save("model.nc")
    for k, part in enumerate((field[:10], field[10:])):
        part.to_netcdf(f"{k}.nc")
        Path(f"{k}.nc").rename(Path(name) / f"{name}{k}.nc")
    archive, after = f"{name}.mrcae.zarr", ("--model", "model.nc", "--quiet")
    session.said("archive", f"{name}/{name}0.nc", archive, "--max-error", 1, *after)
    session.said("append", name, archive, "--quiet")
    assert "20" in session.said("info", archive)
    for output in (f"{name}.nc", f"{name}/new/{name}.zarr", f"{name}.zarr"):
        session.said("decode", archive, output, "--quiet")
        engine = "zarr" if output.endswith(".zarr") else "netcdf4"
        with xr.open_dataset(Path(output).absolute(), engine=engine, decode_cf=False) as read:
            assert read.sizes["time"] == 20


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a::b", "has '::', at which fsspec divides URLs: give a path without it"),
        ("C:\\data\\x", "has a backslash, which netCDF takes for a slash: write / between folders"),
    ],
)
def test_names_that_libraries_take_for_others_are_refused(
    name: str,
    said: str,
    model: xmrcae.MrCAE,
    field: xr.DataArray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    uses: list[Callable[[], object]] = [
        lambda: model.save(f"{name}.nc"),
        lambda: xmrcae.open_model(f"{name}.nc"),
        lambda: field.mrcae.fit(levels=1, max_epochs=1, progress=False, checkpoint=name),
        lambda: model.to_archive(field, f"{name}.mrcae.zarr", progress=False),
        lambda: xr.open_dataset(f"{name}.mrcae.zarr", engine="mrcae"),
    ]
    for use in uses:
        with pytest.raises(ValueError) as caught:
            use()
        assert said in str(caught.value)
    for command in ("info", "archive x.nc", "fit"):
        arguments = [*command.split(), f"{name}.nc", *(["x.nc"] if command == "fit" else [])]
        assert said in session.said(*arguments, status=2)
    assert not list(tmp_path.iterdir())
