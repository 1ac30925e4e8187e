"""Every public name has a docstring and stands on the API page; what pages show runs; pictures can be drawn anew."""

import doctest
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import REPOSITORY

pytest.importorskip("numpydoc")  # which the environment of the minimum versions lacks
from numpydoc.docscrape import NumpyDocString, get_doc_object
from numpydoc.validate import validate

import xmrcae
import xmrcae.plot
from xmrcae.accessor import DataArrayMrcae, DatasetMrcae
from xmrcae.archive.archive import Archive

DOCS = REPOSITORY / "docs"
PAGES = sorted(path for path in DOCS.glob("**/*.md") if "```pycon" in path.read_text())

#: Of numpydoc's checks: there is a summary, sections are known and in order, and every parameter
#: and result is told.
CHECKS = {
    "GL01",
    "GL06",
    "GL07",
    "GL08",
    "SS01",
    "SS04",
    "PR01",
    "PR02",
    "PR03",
    "PR04",
    "PR07",
    "RT01",
    "RT03",
}

#: Classes with methods that users call, by the name that the API page gives them.
CLASSES = {
    "xarray.DataArray.mrcae": DataArrayMrcae,
    "xarray.Dataset.mrcae": DatasetMrcae,
    "xmrcae.MrCAE": xmrcae.MrCAE,
    "xmrcae.archive.archive.Archive": Archive,
    "xmrcae.plot.ModelPlots": xmrcae.plot.ModelPlots,
}


def names_of(module: ModuleType) -> list[str]:
    """The public names of a module: those in `__all__`, else those that it defines itself."""
    own = [
        name
        for name, thing in vars(module).items()
        if getattr(thing, "__module__", "") == module.__name__
    ]
    return [name for name in getattr(module, "__all__", own) if not name.startswith("_")]


def public() -> Iterator[tuple[str, Any]]:
    """Every public name, but for modules, and what it names."""
    for module in (xmrcae, xmrcae.datasets, xmrcae.plot):
        for name in names_of(module):
            if not isinstance(thing := getattr(module, name), ModuleType):
                yield f"{module.__name__}.{name}", thing
    for where, cls in CLASSES.items():
        yield from (
            (f"{where}.{name}", thing)
            for name, thing in inspect.getmembers(cls)
            if not name.startswith("_")
        )


PUBLIC = dict(public())
DOCUMENTED = [
    name for name, thing in PUBLIC.items() if callable(thing) or isinstance(thing, property)
]


def lacking(name: str, thing: Any) -> list[str]:
    """What the docstring of a public name lacks.

    Functions and methods that take arguments say what they raise; each is called in an example,
    its own or its class's. Properties need no more than numpydoc's checks, and classes not either:
    their methods are looked at.
    """
    found = [
        f"{code}: {text}"
        for code, text in validate(get_doc_object(thing))["errors"]
        if code in CHECKS
    ]
    if isinstance(thing, property) or inspect.isclass(thing):
        return found
    owner, _, last = name.rpartition(".")
    sections = NumpyDocString(inspect.getdoc(thing) or "None.")
    if not sections["Raises"] and set(inspect.signature(thing).parameters) - {"self"}:
        found.append("Raises: what arguments it refuses")
    examples = "\n".join(sections["Examples"])
    if not examples and owner in CLASSES:
        examples = "\n".join(NumpyDocString(inspect.getdoc(CLASSES[owner]) or "None.")["Examples"])
    if not re.search(rf"^(>>>|\.\.\.) .*\b{last}\(", examples, re.MULTILINE):
        found.append(f"Examples: a line that calls {last}, here or in the docstring of its class")
    return found


@pytest.mark.parametrize("name", DOCUMENTED)
def test_docstring_is_whole(name: str) -> None:
    assert lacking(name, PUBLIC[name]) == []


def test_a_docstring_that_lacks_something_is_found() -> None:
    def bare(a: int) -> int:
        return a

    def careless(a: int, b: int) -> int:
        """Add numbers.

        Parameters
        ----------
        a : int
            The first.

        Examples
        --------
        >>> 1 + 1
        2
        """
        return a + b

    faults = [
        [fault.partition(":")[0] for fault in lacking(thing.__name__, thing)]
        for thing in (bare, careless)
    ]
    assert faults == [["GL08", "Raises", "Examples"], ["PR01", "RT01", "Raises", "Examples"]]


def test_the_api_page_has_every_public_name() -> None:
    page, module, listed = (DOCS / "api.md").read_text(), "", set()
    for line in page.splitlines():
        if match := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = match[1]
        elif match := re.match(r"   (\w[\w.]*)$", line):
            listed.add(f"{module}.{match[1]}")
    data = {name for name in PUBLIC if f"`{name}`" in page}
    assert set(PUBLIC) - listed - data == set()
    assert listed - set(PUBLIC) == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(DOCS)))
def test_what_a_page_shows_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = path.read_text()
    assert "```python" not in text, "only blocks of pycon are run"
    source = "\n".join(re.findall(r"^```pycon\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    test = doctest.DocTestParser().get_doctest(source, {}, path.name, str(path), 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test, out=report.append).attempted
    assert not report, "".join(report)


def test_the_guides_are_run() -> None:
    assert {path for path in DOCS.glob("guides/*.md")} | {DOCS / "quickstart.md"} <= set(PAGES)


def test_what_repeats_a_promise_is_there() -> None:
    page, makefile = (
        (REPOSITORY / name).read_text() for name in ("docs/reliability.md", "Makefile")
    )
    tests = set(re.findall(r"`(test_\w+)`", page))
    targets = set(re.findall(r"`make ([\w-]+)`", page))
    assert len(tests) > 10 and len(targets) > 3
    assert tests <= {path.stem for path in (REPOSITORY / "tests").glob("test_*.py")}
    assert targets <= set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))


def test_pictures_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import draw

    draw.main(tmp_path, size=31, n_times=40, max_epochs=2)
    kept = sorted((DOCS / "pictures").glob("*.png"))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [path.name for path in kept]
    assert max(path.stat().st_size for path in kept) < 150_000
