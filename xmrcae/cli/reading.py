"""What the commands do with archives that are there: open, describe, select, draw."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import xarray as xr

from .. import open_archive
from .._version import __version__
from ..archive.archive import Archive
from ..archive.backend import MrcaeBackend
from ..archive.dataset import row_ends
from ..archive.folder import Folder
from ..archive.journal import JOURNAL
from ..archive.reader import BOUNDS
from ..archive.store import ROOT
from ..paths import file_system
from .faults import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: A date, a month or a year, and perhaps a time of that day.
_MOMENT = r"-?\d{4,}(?:-\d\d(?:-\d\d(?:[T ]\d\d(?::\d\d(?::\d\d)?)?)?)?)?"


def open_if_there(url: str) -> Archive | None:
    """Open an archive; None if there is none, or one whose first writing was stopped."""
    return open_archive(url) if Folder(url).exists(ROOT) else None


def open_there(url: str) -> Archive:
    """Open an archive that must be there."""
    archive = open_if_there(url)
    if archive is not None:
        return archive
    filesystem, path = file_system(url)
    if filesystem.isfile(path):
        raise UserError(f"{url} is a file, and no archive: xmrcae archive makes archives of files")
    if filesystem.exists(f"{path}/{JOURNAL}"):
        raise UserError(
            f"writing of {url} was stopped: the same call finishes it, or another process writes "
            "it now"
        )
    if filesystem.exists(path):
        raise UserError(f"{url} is a folder, and no archive")
    raise UserError(f"there is no archive at {url}: xmrcae archive writes one")


def describe(archive: Archive) -> dict[str, Any]:
    """Return what an archive holds as JSON has it; None for sizes where files cannot be listed."""
    about, ends = archive.about, row_ends(archive.reader)
    try:
        n_bytes, ratio, level_bytes = archive.n_bytes, archive.ratio, archive.level_bytes
    except OSError:  # servers of http do not tell them
        n_bytes, ratio, level_bytes = None, None, None
    levels = [
        {"level": k, "shape": level["shape"], "bytes": level_bytes and level_bytes[k]}
        for k, level in enumerate(about["levels"])
    ]
    return {
        "format_version": about["format_version"],
        "variables": _describe_variables(archive),
        "horizontal": about["horizontal"],
        "append": about["append"],
        "first": None if ends is None else str(ends[0][0]),
        "last": None if ends is None else str(ends[1][0]),
        "snapshots": sum(about["blocks"]["length"]) * math.prod(about["lanes"]),
        "blocks": len(about["blocks"]["length"]),
        "rows_per_block": about["rows_per_block"],
        "codes_by": about["codes_by"],
        "bytes": n_bytes,
        "ratio": ratio,
        "levels": levels,
    }


def _describe_variables(archive: Archive) -> dict[str, Any]:
    """Return type, units, bounds and measured errors of each variable; rmse of every level."""
    data = archive.to_dataset()
    found = archive.measured.transpose("level", "variable")
    return {
        str(name): {
            "dtype": data[name].dtype.name,
            "units": data[name].attrs.get("units"),
            "max_error": own["max_error"],
            "rmse": own["rmse"],
            "worst_found": float(found["worst"][-1, v]),
            "rmse_found": found["rmse"][:, v].values.tolist(),
        }
        for v, (name, own) in enumerate(zip(archive.names, archive.about["variables"], strict=True))
    }


def open_level(archive: Archive, url: str, level: int | None) -> xr.Dataset:
    """Open a level lazily, to be written: in even chunks, archived values compressed, not packed.

    Packed as the data once were, they would be off by more than the bound.
    """
    ds = xr.open_dataset(url, engine=MrcaeBackend, level=level, chunks={})
    for name in archive.names:
        ds[name].encoding = {"zlib": True, "shuffle": True}
    append = archive.about["append"]
    return ds if append is None else ds.chunk({append: archive.about["rows_per_block"]})


def select_times(ds: xr.Dataset, dim: str | None, text: str | None) -> xr.Dataset:
    """Return the snapshots from START to END, both included; those of START without END.

    Parameters
    ----------
    ds : xarray.Dataset
        Of an archive.
    dim : str or None
        What snapshots lie along.
    text : str or None
        START[:END]: times, or numbers where `dim` has no times; either may be empty beside a
        colon. None for all.

    Raises
    ------
    UserError
        If it cannot be read, or nothing lies there.
    """
    if text is None:
        return ds
    if dim not in ds.indexes:
        raise UserError(f"--time {text}: the archive has no coordinate to select from")
    index = ds.indexes[dim]
    has_times = index.dtype.kind == "M" or isinstance(index, xr.CFTimeIndex)
    value = _MOMENT if has_times else r"[^:]+"
    parts = re.fullmatch(rf"({value})?(:({value})?)?", text.strip())
    try:
        if parts is None or not text:
            raise ValueError("no START, and no END")
        start, end = parts[1], parts[3] if parts[2] else parts[1]
        if not has_times:
            start, end = (None if each is None else float(each) for each in (start, end))
        order = slice(None, None, -1 if index.is_monotonic_decreasing else 1)
        chosen = ds.isel({dim: order}).sel({dim: slice(start, end)}).isel({dim: order})
    except (TypeError, ValueError) as error:
        raise UserError(
            f"--time {text!r}: give START or START:END, such as 2020-06 or 2019:2020-06"
        ) from error
    if not chosen.sizes[dim]:
        raise UserError(f"--time {text}: the archive has {dim} {index[0]} to {index[-1]}")
    return chosen


def check_variables(archive: Archive, names: Sequence[str]) -> None:
    """Refuse names of variables that an archive does not have."""
    there = list(map(str, archive.names))
    for name in names:
        if name not in there:
            raise UserError(f"--variable {name}: the archive has {', '.join(there)}")


def with_history(ds: xr.Dataset, archive: Archive, url: str, level: int) -> xr.Dataset:
    """Add a line to CF's `history`: when and by what a level was decoded, and how far it is off."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    source = os.path.basename(url.rstrip("/"))
    lines = [ds.attrs["history"]] if "history" in ds.attrs else []
    lines.append(f"{now} xmrcae {__version__} decode: level {level} of {source}")
    measured = archive.measured.isel(level=level)
    for v, (name, about) in enumerate(zip(archive.names, archive.about["variables"], strict=True)):
        asked = [f"{key} {about[key]:g}" for key in BOUNDS[:2] if about[key] is not None]
        errors = {key: float(each[v]) for key, each in measured.data_vars.items()}
        found = [f"{key} {error:.3g}" for key, error in errors.items() if not math.isnan(error)]
        lines[-1] += (
            f"; {name}: {', '.join(asked) or 'no bound'} asked of the finest level, "
            f"{', '.join(found)} found at this one"
        )
    return ds.assign_attrs(history="\n".join(lines))


def draw(archive: Archive, time: str | None, variable: str | None) -> Figure:
    """Draw one snapshot at all levels: the first of some times, or the last of all."""
    from ..plot import pyramid

    about = archive.about
    names = list(map(str, archive.names))
    check_variables(archive, [] if variable is None else [variable])
    levels = {}
    for k in range(archive.levels):
        ds = archive.to_dataset(k)[names]
        ds = select_times(ds, about["append"], time)
        at = dict.fromkeys(about["sample"], 0)
        if time is None and about["append"] is not None:
            at[about["append"]] = -1
        levels[f"level_{k}"] = ds.isel(at)
    tree = xr.DataTree.from_dict(levels)
    options = {"horizontal": about["horizontal"], "sample": about["sample"]}
    tree.attrs["xmrcae_options"] = json.dumps(options)
    return pyramid(tree, variable=variable)
