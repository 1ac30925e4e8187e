"""The files around the package agree with each other, and each room imports only what it may."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from xmrcae._version import __version__

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"build": "python-build", "torch": "pytorch"}  # where the name differs by more than case and - or _


@cache
def requirements(extra: str | None = None) -> dict[str, SpecifierSet]:
    """Give what the package, or one of its extras and the extras that it names, requires: name -> bounds."""
    found: dict[str, SpecifierSet] = {}
    for line in PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]:
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


def pins() -> dict[str, str]:
    """Give the lines `name==version` of the constraints; any other line is an error."""
    lines = (REPOSITORY / ".ci" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    found = {canonicalize_name(name): version for name, version in pairs}
    assert len(found) == len(pairs), "a package is pinned twice"
    return found


def test_environment_has_the_bounds_of_pyproject():
    expected = lower_bounds(requirements() | requirements("plot") | requirements("complete") | requirements("test"))
    expected = {CONDA_NAMES.get(name, name): bound for name, bound in expected.items()}
    expected["python"] = lower_bound(SpecifierSet(PROJECT["requires-python"]))

    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    conda = [Requirement(line) for line in environment["dependencies"] if line != "pip"]
    assert lower_bounds({canonicalize_name(c.name): c.specifier for c in conda}) == expected


@pytest.mark.parametrize("name", requirements() | requirements("test"))
def test_pin_is_admitted(name):
    bounds = (requirements() | requirements("test"))[name]
    assert bounds.contains(pins()[name], prereleases=False)


def test_pins_are_whole_versions():
    for name, version in pins().items():
        assert Version(version).local is None, f"{name}: a local version is one index's own"


def test_import_is_light():
    code = "import sys, xmrcae; print(*{'torch', 'matplotlib', 'cartopy'}.intersection(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def imports(path: Path) -> set[str]:
    """Give the full dotted names that a file imports anywhere, in functions and under TYPE_CHECKING too."""
    package = ".".join(path.relative_to(REPOSITORY).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package)
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("core", ["xarray", "cf_xarray", "pandas", "xmrcae.grid", "xmrcae.io", "xmrcae.model", "xmrcae.accessor"]),
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


def test_citation_names_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert str(citation["version"]) == __version__
    assert citation["title"] == PROJECT["name"]
    assert citation["license"] == PROJECT["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert [reference["url"] for reference in citation["references"]] == [PROJECT["urls"]["Paper"]]


def test_changelog_has_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", __version__]
