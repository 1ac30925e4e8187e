"""Messages of the package, which speak of keyword arguments, as the command line spells them."""

from __future__ import annotations

import dataclasses
import re
import shlex

from ..options import Options

#: Options of commands that are keyword arguments in Python: with a value, and without.
_VALUED = ("max_error", "rmse", "codes", "rows_per_block")
_FLAGS = ("lossless", "overwrite")

_ARGUMENT = re.compile(r"""\b(\w+)=(\([^()]*\)|\[[^][]*\]|"[^"]*"|'[^']*'|[\w.+-]*\w|(?!\S))""")


def spelled(message: str) -> str:
    """Return a message with options in place of keyword arguments.

    Those of a fit become ``--options name=value``.
    """
    message = _ARGUMENT.sub(_option, message)
    return re.sub(r"\b(max_error|rows_per_block)\b", lambda word: _dashed(word[0]), message)


def _option(found: re.Match[str]) -> str:
    name, value = found[1], found[2]
    if value[:1] in ("'", '"'):
        value = value[1:-1]
    if name in _FLAGS:
        return f"--{name}"
    if name in _VALUED:
        return f"{_dashed(name)} {value}"
    if name in {field.name for field in dataclasses.fields(Options)}:
        return f"--options {shlex.quote(f'{name}={value}')}"
    return found[0]


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"
