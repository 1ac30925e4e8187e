"""The table of blocks in an archive's description: what was measured of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: What is summed over the snapshots of a block for each coarser level and variable.
LEVELS = ("squared_error", "count")


def joined(before: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the table of blocks with those of some records added.

    Per variable, each column lists all lanes of the first block, then those of the next; None for
    blocks that were written before there was such a column.
    """
    columns = {name: own for name, own in before.items() if name != "length"}
    table: dict[str, Any] = {
        "length": [*before.get("length", ())],
        "levels": {key: [] for key in LEVELS},
        **{name: {key: [*old] for key, old in own.items()} for name, own in columns.items()},
    }
    for record in records:
        table["length"].append(record["length"])
        for key, sums in zip(LEVELS, record["levels"], strict=True):
            table["levels"][key].append(sums)
        for name, columns in record["variables"].items():
            own = table.setdefault(name, {})
            n_before = len(own.get("count", ()))
            for key, values in columns.items():
                own.setdefault(key, [None] * n_before).extend(values)
    return table
