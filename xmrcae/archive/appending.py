"""What must hold so that data may be appended to an archive."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np

from .format import ArchiveError
from .labelling import Labels, Record, from_plain


def order(record: Mapping[str, Any]) -> Record | None:
    """Return the record of the coordinate that rows are ordered by.

    That is the coordinate of the dimension that the archive grows along, if it holds numbers or
    times, else the first that holds times along it; None if there is none.
    """
    along = [
        each
        for each in record["variables"]
        if each["kind"] == "rows"
        and each["coordinate"]
        and each["dims"] == [record["append"]]
        and "texts" not in each
    ]
    own = [each for each in along if each["name"] == record["append"]]
    times = [each for each in along if "calendar" in each or each["dtype"][1] == "M"]
    return next(iter(own + times), None)


def check_append(
    record: Mapping[str, Any],
    static: Mapping[str, np.ndarray],
    last: np.ndarray | None,
    new: Labels,
) -> Record:
    """Check that data may be appended to an archive.

    Parameters
    ----------
    record, static : mapping
        Of the archive.
    last : numpy.ndarray, shape (1,), or None
        The value of the coordinate that `order` finds at the archive's last row, as `from_plain`
        returns it; None if there is no such coordinate.
    new : Labels
        Of the data.

    Returns
    -------
    dict
        The record of both together, by which the rows of `new` become plain numbers: the
        archive's own, with texts added that are new.

    Raises
    ------
    ArchiveError
        If variables, types, units, sizes or values of what does not lie along the dimension of
        growth differ, or rows do not come after the last.
    """
    was, now = _by_name(record), _by_name(new.record)
    _agree("variables", sorted(was, key=str), sorted(now, key=str))
    _agree("the dimension that rows lie along", record["append"], new.record["append"])
    _agree("sizes", *(dict(sorted(each["sizes"], key=str)) for each in (record, new.record)))
    merged = []
    for name, each in was.items():
        other = now[name]
        for what in ("kind", "calendar"):
            _agree(f"{what} of {name!r}", each.get(what), other.get(what))
        _agree(f"dimensions of {name!r}", *(sorted(e["dims"], key=str) for e in (each, other)))
        _agree(f"units of {name!r}", *(dict(e["attrs"]).get("units") for e in (each, other)))
        merged.append(_extended(each, other))
        if each["kind"] == "static":
            variable = new.static[each["stored"]].transpose(*each["dims"])
            was_there = from_plain(each, static[each["stored"]])
            _equal(name, was_there, from_plain(other, variable.values))
    ordered = order(record)
    if ordered is not None and last is not None:
        _after(ordered, last, new.rows[ordered["stored"]].values)
    return {**record, "variables": merged}


def _by_name(record: Mapping[str, Any]) -> dict[Hashable, Record]:
    return {each["name"]: each for each in record["variables"]}


def _agree(what: str, was: Any, now: Any) -> None:
    if was != now:
        raise ArchiveError(
            f"{what}: the archive has {was!r}, the data to append have {now!r}; make them agree, "
            "or write another archive"
        )


def _equal(name: Hashable, was: np.ndarray, now: np.ndarray) -> None:
    """Refuse data on another grid, of other members, with another mask."""
    both_missing = (was != was) & (now != now) if was.shape == now.shape else False
    if was.shape != now.shape or not np.all((was == now) | both_missing):
        texts = [np.array2string(e, threshold=8, edgeitems=2) for e in (was, now)]
        raise ArchiveError(
            f"{name!r} does not lie along the rows and must stay as it is: the archive "
            f"has {texts[0]}, the data to append have {texts[1]}; take the archive's, or write "
            "another archive"
        )


def _extended(each: Record, other: Record) -> Record:
    """Return the record of a variable whose type and texts hold those of both."""
    types = [np.dtype(e["dtype"]).newbyteorder("=") for e in (each, other)]
    if "texts" in each and "texts" in other and (types[0].kind == "S") == (types[1].kind == "S"):
        texts = list(dict.fromkeys(each["texts"] + other["texts"]))
        return {**each, "texts": texts, "dtype": np.result_type(*types).str}
    if each["kind"] != "index" and [t.kind for t in types] not in (["M", "M"], ["m", "m"]):
        _agree(f"type of {each['name']!r}", *map(str, types))
    return each


def _after(ordered: Mapping[str, Any], last: np.ndarray, now: np.ndarray) -> None:
    """Refuse rows that overlap with those that are there, or go backwards."""
    both = np.concatenate([last, now])
    behind = np.flatnonzero(~(both[1:] > both[:-1]))
    if behind.size:
        before, after = both[behind[0]], both[behind[0] + 1]
        where = "the archive ends at" if behind[0] == 0 else "the data to append have"
        raise ArchiveError(
            f"{ordered['name']!r} must increase from row to row: {where} {before}, and then "
            f"comes {after}; append what comes after {last[0]}, in order"
        )
