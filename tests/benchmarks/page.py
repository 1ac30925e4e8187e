"""The page: all results that there are, as tables."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sections import SECTIONS

INTRODUCTION = """\
# Benchmarks

How long the package takes, how much memory, and how both grow with the data. `make bench` measures
everything anew and writes this page; `make bench SECTION=name` does one section, and `make bench
QUICK=1` a small run that only shows that everything works. Each row was measured in a process of
its own; its clock starts when all libraries have been loaded. The same figures are in
`benchmarks/`, as JSON. A dash stands where a figure does not apply, a run failed or a loss was not
reached.

"""


def render(folder: Path) -> str:
    """The page of all JSON files in a folder; it has no figure that is not in them."""
    documents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    parts = [INTRODUCTION]
    for name, section in SECTIONS.items():
        found = [document for document in documents if document["section"] == name]
        if found:
            parts.append(f"## {section.TITLE}\n\n{section.TEXT}\n\n")
        for document in found:
            parts.append(
                f"{_circumstances(document)}\n\n{table(section.COLUMNS, document['rows'])}\n\n"
            )
    return "".join(parts).rstrip("\n") + "\n"


def table(columns: Mapping[str, str], rows: list[dict[str, Any]]) -> str:
    """Rows as a table in Markdown."""
    lines = [list(columns.values()), ["---"] * len(columns)]
    lines += [[shown(row.get(key)) for key in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def shown(value: Any) -> str:
    """A figure as the tables show it: whole numbers in full, others with 3 digits."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"
    return str(value)


def _circumstances(document: Mapping[str, Any]) -> str:
    machine, versions = document["machine"], document["machine"]["versions"]
    text = (
        f"Measured on {document['date']} with `{document['command']}`: {machine['cpu']}, {machine['cores']} cores, "
        f"{shown(machine['memory_gib'])} GiB of memory, {machine['gpu'] or 'no GPU'}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}."
    )
    text += f" {document['remark']}" if document.get("remark") else ""
    return text + (
        " A quick run, smaller than the text says: no measurement." if document["quick"] else ""
    )
