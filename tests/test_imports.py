"""The plan of the house: who may import whom, type-checking imports and those inside functions included."""

import ast
from pathlib import Path

import pytest
from conftest import REPOSITORY, nodes_of

PACKAGE = REPOSITORY / "xmrcae"


def module_of(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(module: str) -> set[str]:
    """All that a module imports, by full names; modules of the package in place of what is taken from them."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.add(inner if inner in MODULES else source)
    return found


def circles() -> list[str]:
    """Modules that import each other, directly or through others."""
    graph = {module: imports_of(module) & MODULES.keys() for module in MODULES}
    reach: dict[str, set[str]] = {}

    def reached(module: str) -> set[str]:
        seen, todo = set(), list(graph[module])
        while todo:
            each = todo.pop()
            if each not in seen:
                seen.add(each)
                todo += graph[each]
        return seen

    reach = {module: reached(module) for module in MODULES}
    return sorted(module for module in MODULES if module in reach[module])


def test_no_module_imports_what_imports_it():
    assert circles() == []


@pytest.mark.parametrize(
    ("room", "others"),
    [
        ("xmrcae.grid", {"torch", "xmrcae.core"}),
        ("xmrcae.core", {"xarray", "xmrcae.grid", "xmrcae.io"}),
        ("xmrcae.options", {"torch"}),
    ],
)
def test_rooms_do_not_know_others(room, others):
    inside = [module for module in MODULES if module == room or module.startswith(f"{room}.")]
    assert inside
    for module in inside:
        roots = {
            ".".join(name.split(".")[: 2 if name.startswith("xmrcae") else 1])
            for name in imports_of(module)
        }
        assert not roots & others, module


def test_imports_are_seen_wherever_they_stand():
    assert "xmrcae.grid.nearest" in imports_of("xmrcae")
    assert "xmrcae.fitting" in imports_of("xmrcae.model")


@pytest.mark.parametrize("module", MODULES)
def test_files_and_functions_stay_short(module):
    assert len(MODULES[module].read_text().splitlines()) <= 400
    for node in nodes_of(MODULES[module]):
        if isinstance(node, ast.FunctionDef):
            docs = (
                node.body[0].end_lineno - node.body[0].lineno + 1 if ast.get_docstring(node) else 0
            )
            n_lines = node.end_lineno - node.lineno + 1 - docs
            assert n_lines <= 45, f"{node.name} has {n_lines} lines without its docstring"
