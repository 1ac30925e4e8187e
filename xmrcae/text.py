"""Values as text that people read."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

#: Names and values, one below the other.
Rows = list[tuple[str, str]]


def printable(value: Any) -> str:
    """Write a value as text of one line."""
    return "".join(each if each.isprintable() else " " for each in str(value))


def in_bytes(n: float) -> str:
    """Write a number of bytes in the unit that leaves three digits or fewer before the point."""
    power = min(4, max(0, len(str(int(n))) - 1) // 3)
    return f"{n / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def as_lines(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Write a title and a line per row."""
    return "\n".join([title, *(f"    {name + ':':<12} {value}" for name, value in rows)])


def as_table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """Write the same in HTML, escaped."""
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<div><p>{html.escape(title)}</p><table>{cells}</table></div>"
