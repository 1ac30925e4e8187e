"""What the commands do to write archives, and to append to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from ..archive.archive import Archive, with_units
from ..archive.folder import Folder
from ..archive.journal import recorded, tidy
from ..fitting import IMMATERIAL
from ..options import make_options
from .faults import UserError, tell
from .options import one_or_list


def begin(
    ds: xr.Dataset,
    names: Sequence[str],
    url: str,
    model: str | None,
    options: Mapping[str, Any],
    *,
    progress: bool,
    **asked: Any,
) -> tuple[Archive, str]:
    """Write a new archive, or finish one that was stopped; return it, and what was done.

    Parameters
    ----------
    ds : xarray.Dataset
        The data.
    names : sequence of str
        The variables to archive; others are kept as they are.
    url : str
        Where to write.
    model : str or None
        Path of a model; one is fitted without it.
    options : mapping
        Those of the fit.
    progress : bool
        Whether to show progress.
    **asked
        Those of `to_archive`; what is None is left to it.
    """
    from ..opening import open_model

    asked = {name: value for name, value in asked.items() if value is not None}
    data = _begun(ds, url)
    if model is not None:
        archive = open_model(model).to_archive(data, url, progress=progress, **asked)
    else:
        asked = {"progress": progress, **options, **asked}
        archive = data.mrcae.to_archive(url, one_or_list(names), **asked)
    _tell_of_no_bound(archive)
    if data is ds:
        return archive, "written"
    return append_later(archive, url, ds, progress=progress)


def _tell_of_no_bound(archive: Archive) -> None:
    """Warn if nothing is promised of a variable, and say how far an archive is off."""
    variables = zip(archive.names, archive.about["variables"], strict=True)
    free = [str(name) for name, own in variables if own["max_error"] is own["rmse"] is None]
    if free:
        tell(
            f"warning: without --max-error or --rmse no error of {', '.join(free)} is promised; "
            f"the worst found is {with_units(archive, archive.measured['worst'][-1].values)}"
        )


def append_later(
    archive: Archive, url: str, ds: xr.Dataset, *, progress: bool
) -> tuple[Archive, str]:
    """Add the times that an archive lacks, if any; return it, and what was done.

    Raises
    ------
    UserError
        If there is no telling which they are, or they are not all later than those that it has.
    """
    dim = archive.about["append"]
    if dim is None or dim not in ds.indexes:
        raise UserError(
            f"{url} is there, and the data have no coordinate that tells what of them it lacks: "
            "write another archive, or remove this one first"
        )
    later = _later(archive, ds, dim)
    n_later, n_there = later.sizes[dim], ds.sizes[dim] - later.sizes[dim]
    while later.sizes[dim]:
        part = _begun(later, url)
        archive = archive.append(part, progress=progress)
        later = later.isel({dim: slice(part.sizes[dim], None)})
    if not n_later:
        tidy(Folder(url), len(archive.about["blocks"]["length"]))
        return archive, f"complete, it has all {n_there} along {dim}"
    return archive, f"appended {n_later} along {dim}, skipped {n_there} that it had"


def _later(archive: Archive, ds: xr.Dataset, dim: str) -> xr.Dataset:
    """Return what an archive lacks."""
    there, given = archive.to_dataset().indexes[dim], ds.indexes[dim]
    lacking = ~given.isin(there)
    between = lacking & (given <= there[-1])
    if between.any():
        raise UserError(
            f"{dim} {given[between][0]} is not in the archive, which goes on to {there[-1]}: an "
            "archive grows at its end alone. Give later data, or archive all of them anew"
        )
    return ds.isel({dim: np.flatnonzero(lacking)})


def _begun(ds: xr.Dataset, url: str) -> xr.Dataset:
    """Return the part of the data that a stopped run was writing; all of them if there is none.

    More may have come since: it is finished with its own data, and these are appended to it.
    """
    journal = recorded(Folder(url))
    ends = journal["fingerprint"]["ends"] if journal else []
    if not ends:
        return ds
    for dim, index in ds.indexes.items():
        labels = list(map(str, index))
        if labels[:1] == ends[:1] and ends[1] in labels:
            return ds.isel({dim: slice(labels.index(ends[1]) + 1)})
    return ds


def check_asked(
    archive: Archive, asked: Mapping[str, Any], options: Mapping[str, Any], model: str | None
) -> None:
    """Refuse what is not as an archive was begun; arguments as those of :func:`begin`.

    Options of the fit that change no result are not compared, nor `valid`, which is kept as pixels.
    """
    _check_bounds(archive, asked)
    rows, sizes = archive.about["rows_per_block"], archive.reader.decoder.sizes
    if asked["rows_per_block"] not in (None, rows):
        raise _differs(f"--rows-per-block {asked['rows_per_block']}", rows)
    if asked["codes"] is not None and asked["codes"] < sum(sizes):
        raise _differs(f"--codes {asked['codes']}", sum(sizes))
    if asked["lossless"] and not archive.about["variables"][0]["lossless"]:
        raise UserError("--lossless: the archive was begun without it: leave it out")
    if model is not None:
        from ..archive.writer import content_id
        from ..opening import open_model

        if content_id(open_model(model).fitted) != archive.about["made_from"]:
            raise UserError(f"--model {model}: the archive was written by another model")
        n_levels = sum(map(bool, sizes))
        if asked["levels"] is not None and asked["levels"] < n_levels:
            raise _differs(f"--levels {asked['levels']}", n_levels)
        return
    if asked["levels"] is not None:
        options = {**options, "levels": asked["levels"]}
    own = json.loads(archive.reader.model[1]["attrs"]["xmrcae_options"])
    given = json.loads(make_options(options).to_json())
    for name in options.keys() - {*IMMATERIAL, "valid"}:
        if given.get(name) != own.get(name):
            raise _differs(f"--options {name}={given.get(name)}", own.get(name))


def _differs(given: str, own: Any) -> UserError:
    return UserError(
        f"{given}: the archive was begun with {own}: leave the option out, or write another archive"
    )


def _check_bounds(archive: Archive, asked: Mapping[str, Any]) -> None:
    """Refuse bounds that are not those that an archive was begun with."""
    for option in ("max_error", "rmse"):
        given = asked[option]
        for name, own in zip(archive.names, archive.about["variables"], strict=True):
            wanted = given.get(str(name)) if isinstance(given, dict) else given
            if wanted not in (None, own[option]):
                raise _differs(f"--{option.replace('_', '-')} {name}={wanted}", own[option])
