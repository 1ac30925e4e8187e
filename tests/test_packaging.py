"""The files around the package agree with each other, and each room imports only what it may."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, nodes_of
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {
    "build": "python-build",
    "torch": "pytorch",
}  # where the name differs by more than case and - or _


@cache
def requirements(extra: str | None = None) -> dict[str, SpecifierSet]:
    """Give what the package, or one of its extras and the extras that it names, requires: name -> bounds."""
    found: dict[str, SpecifierSet] = {}
    for line in (
        PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    ):
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            for inner in sorted(requirement.extras):
                found |= requirements(inner)
        else:
            found[canonicalize_name(requirement.name)] = requirement.specifier
    return found


def lower_bound(specifier: SpecifierSet) -> Version:
    """Give the version of a specifier that is one lower bound and nothing else."""
    (only,) = specifier
    assert only.operator == ">=", f"{only} is no lower bound"
    return Version(only.version)


def lower_bounds(specifiers: dict[str, SpecifierSet]) -> dict[str, Version]:
    return {name: lower_bound(specifier) for name, specifier in specifiers.items()}


def pins(file: str = "constraints.txt") -> dict[str, str]:
    """Give the lines `name==version` of the constraints; any other line is an error."""
    lines = (REPOSITORY / ".ci" / file).read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    found = {canonicalize_name(name): version for name, version in pairs}
    assert len(found) == len(pairs), "a package is pinned twice"
    return found


def test_environment_has_the_bounds_of_pyproject():
    expected = lower_bounds(
        requirements() | requirements("plot") | requirements("complete") | requirements("test")
    )
    del expected["triton"]  # for Linux alone; conda's pytorch for CUDA brings its own
    expected = {CONDA_NAMES.get(name, name): bound for name, bound in expected.items()}
    expected["python"] = lower_bound(SpecifierSet(PROJECT["requires-python"]))

    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    conda = [Requirement(line) for line in environment["dependencies"] if line != "pip"]
    assert lower_bounds({canonicalize_name(c.name): c.specifier for c in conda}) == expected


@pytest.mark.parametrize("name", requirements() | requirements("test"))
def test_pin_is_admitted(name):
    bounds = (requirements() | requirements("test"))[name]
    assert bounds.contains(pins()[name], prereleases=False)


@pytest.mark.parametrize("file", ["constraints.txt", "minimum.txt", "reading.txt"])
def test_pins_are_whole_versions(file):
    for name, version in pins(file).items():
        assert Version(version).local is None, f"{name}: a local version is one index's own"


def test_minimum_versions_are_the_lower_bounds():
    expected = lower_bounds(requirements() | requirements("complete"))
    expected["torch"] = Version(
        pins()["torch"]
    )  # older ones are not to be had for the CPU alone: minimum.txt says so
    found = pins("minimum.txt")
    assert {name: Version(found[name]) for name in expected} == expected


def test_versions_that_archives_are_read_with_are_the_lower_bounds():
    bounds = lower_bounds(requirements() | requirements("archive"))
    found = {name: Version(version) for name, version in pins("reading.txt").items()}
    assert found.keys() >= requirements("archive").keys()
    shared = found.keys() & bounds.keys()
    assert {name: found[name] for name in shared} == {name: bounds[name] for name in shared}


def output_of(code: str) -> list[str]:
    """Give the words that a program of one line prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_is_light():
    heavy = {"torch", "matplotlib", "cartopy", "dask.array", "scipy", "cf_xarray"}
    assert output_of(f"import sys, xmrcae; print(*{heavy}.intersection(sys.modules))") == []
    public = "xmrcae.nearest_valid, xmrcae.MrCAE, xmrcae.datasets.two_modes"
    loaded = output_of(f"import sys, xmrcae; {public}; print(*{heavy}.intersection(sys.modules))")
    assert "dask.array" in loaded and "torch" not in loaded


def test_what_archives_are_read_with_needs_no_heavy_package():
    absent = "sys.modules.update(dict.fromkeys(['torch', 'dask', 'cartopy', 'cf_xarray']))"
    modules = "xmrcae, xmrcae.archive.format, xmrcae.core.state, xmrcae.io.network_arrays"
    use = "print(xmrcae.archive.format.ABOUT, xmrcae.ArchiveError.__name__)"
    code = f"import sys; {absent}; import {modules}; {use}"
    assert output_of(code) == ["xmrcae_archive", "ArchiveError"]


def test_a_name_is_the_same_thing_however_it_is_asked_for():
    asked = "[xmrcae.recipes, xmrcae.MrCAE, xmrcae.plot, xmrcae.datasets]"
    code = (
        f"import xmrcae; before = {asked}; import xmrcae.recipes, xmrcae.model, xmrcae.__main__; "
        f"print(all(a is b for a, b in zip(before, {asked})), 'sst' in xmrcae.recipes)"
    )
    assert output_of(code) == ["True", "True"]


def test_public_names_are_listed_and_others_are_errors():
    import xmrcae

    assert {*xmrcae.__all__} <= {*dir(xmrcae)}
    with pytest.raises(AttributeError, match="'xmrcae' has no attribute 'nothing'"):
        xmrcae.nothing  # noqa: B018


def imports(path: Path) -> set[str]:
    """Give the full dotted names that a file imports anywhere, in functions and under TYPE_CHECKING too."""
    package = ".".join(path.relative_to(REPOSITORY).parent.parts)
    names = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        (
            "core",
            [
                "xarray",
                "cf_xarray",
                "pandas",
                "xmrcae.grid",
                "xmrcae.io",
                "xmrcae.model",
                "xmrcae.accessor",
            ],
        ),
        ("grid", ["torch", "xmrcae.core", "xmrcae.io", "xmrcae.model", "xmrcae.accessor"]),
    ],
)
def test_room_imports_only_what_it_may(room, forbidden):
    files = sorted((REPOSITORY / "xmrcae" / room).glob("**/*.py"))
    assert files
    wrong = [
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in files
        for name in sorted(imports(path))
        if any(f"{name}.".startswith(f"{module}.") for module in forbidden)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", ["ci", "release", "upstream"])
def test_workflows_run_what_is_there(name):
    workflow = yaml.safe_load((REPOSITORY / ".github" / "workflows" / f"{name}.yml").read_text())
    assert workflow.keys() == {"name", True, "permissions", "jobs"} | (
        {"concurrency"} if name == "ci" else set()
    )
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(
        step.keys() <= {"name", "uses", "with", "run", "env"} and ("run" in step) ^ ("uses" in step)
        for step in steps
    )
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    commands = [
        *"\n".join(step.get("run", "") for step in steps).splitlines(),
        (REPOSITORY / ".ci" / "run").read_text(),
    ]
    used = {
        target for line in commands for target in re.findall(r"make (?:--\S+ )?([a-z-]+)", line)
    }
    assert used <= set(targets)


def released() -> list[str]:
    """Give the versions that the changelog has, newest first; above them is what is not released."""
    headings = re.findall(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    return headings[1:]


def test_changelog_has_every_tag_in_order():
    versions = [Version(version) for version in released()]
    assert versions == sorted(set(versions), reverse=True)
    git = subprocess.run(
        ["git", "tag", "--list", "v*"], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert {tag.removeprefix("v") for tag in git.stdout.split()} <= set(released())


def test_citation_names_the_newest_release():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert str(citation["version"]) == released()[0]
    assert citation["title"] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["authors"]
    ]
    assert [reference["url"] for reference in citation["references"]] == [PROJECT["urls"]["Paper"]]


# Versions.


def git(folder: Path, *arguments: str) -> None:
    name = [
        "-c",
        "user.name=name",
        "-c",
        "user.email=name@example.org",
        "-c",
        "commit.gpgsign=false",
    ]
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True)


def built_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the version that a build of a folder would have."""
    from hatchling.metadata.core import ProjectMetadata
    from hatchling.plugin.manager import PluginManager

    monkeypatch.chdir(folder)
    return ProjectMetadata(str(folder), PluginManager()).version


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_builds_take_their_version_from_the_tag(tmp_path, monkeypatch):
    repository, copy, archive = tmp_path / "repository", tmp_path / "copy", tmp_path / "archive"
    repository.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitattributes", ".git_archival.txt"):
        shutil.copy(REPOSITORY / name, repository)
    shutil.copytree(repository, copy)
    assert built_version(copy, monkeypatch) == "0.0+unknown"

    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "first")
    assert built_version(repository, monkeypatch).startswith("0.1.dev1+")
    git(repository, "tag", "v1.2.3")
    assert built_version(repository, monkeypatch) == "1.2.3"
    git(repository, "commit", "--quiet", "--allow-empty", "-m", "second")
    assert built_version(repository, monkeypatch).startswith("1.2.4.dev1+g")

    git(repository, "archive", "--output", "archive.zip", "v1.2.3")
    shutil.unpack_archive(repository / "archive.zip", archive)
    assert built_version(archive, monkeypatch) == "1.2.3"


def test_version_is_that_of_the_installed_package(tmp_path, monkeypatch):
    def version():
        names = {}
        exec((REPOSITORY / "xmrcae" / "_version.py").read_text(), names)
        return names["__version__"]

    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert version() == "0.0+unknown"
    metadata = tmp_path / "xmrcae-1.2.3.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.4\nName: xmrcae\nVersion: 1.2.3\n")
    assert version() == "1.2.3"
