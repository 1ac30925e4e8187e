"""The demo of the command line: fit a model, say how good it is and what it costs, and draw it."""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from . import datasets, open_archive
from .archive.archive import Archive
from .archive.format import ArchiveError
from .archive.models import ANCHOR
from .grid.split import PARTS
from .io.tree_file import is_zarr, replacing
from .model import MrCAE
from .plot.panels import import_pyplot
from .recipes import RECIPES
from .text import in_bytes

#: Bound of the archive's errors, as a share of the range of the snapshots held out.
BOUND = 0.01


def run_demo(
    path: str | None, variable: str | None, options: Mapping[str, Any], folder: Path
) -> None:
    """Fit a model, print its errors and sizes, and write it with figures and an archive.

    Parameters
    ----------
    path : str or None
        NetCDF file or Zarr store to fit; the paper's drifting mode without it, fitted by the
        paper's options but for `anchor`, so that coarse levels stay near the data.
    variable : str or None
        Which of its variables; the only suitable one without it.
    options : mapping
        Options of the fit.
    folder : pathlib.Path
        Where to write; made if it is not there.

    Raises
    ------
    ImportError
        Without matplotlib.
    OSError, TypeError, ValueError
        If the data or options cannot be used.
    """
    import_pyplot().switch_backend("agg")  # draws to files: a machine without a screen will do
    folder.mkdir(parents=True, exist_ok=True)
    ds, recipe = _open(path)
    with ds:
        started = time.perf_counter()
        model = ds.mrcae.fit(variable, **{**recipe, **options})
        data = ds[model.fitted.labels.variables[0]]
        _report(model, data, time.perf_counter() - started)
        written = [*_write(model, data, folder), *_write_archive(model, data, folder)]
        print(f"\nwrote {', '.join(written)} to {folder}{os.sep}")


def _open(path: str | None) -> tuple[xr.Dataset, Mapping[str, Any]]:
    """Open the data, lazy, and return the options to fit them with."""
    if path is None:
        recipe = {**RECIPES["drifting_mode"], "anchor": ANCHOR}
        return datasets.drifting_mode().to_dataset(), recipe
    engine = "zarr" if is_zarr(path) or os.path.isdir(path) else None
    return xr.open_dataset(path, engine=engine, chunks={}), {}


def _held_out(model: MrCAE) -> tuple[str, np.ndarray]:
    """Return the name and the places of the part kept for tests, or else for validation."""
    part = "test" if (model.split == "test").any() else "validation"
    return part, np.flatnonzero(model.split == part)


def _report(model: MrCAE, data: xr.DataArray, seconds: float) -> None:
    """Print what was fitted and, level by level, how well and at what cost."""
    standards = model.fitted.codec.standards
    valid, split = standards[-1].valid, model.split
    units = f" [{data.attrs['units']}]" if "units" in data.attrs else ""
    sizes = ", ".join(f"{dim} {n}" for dim, n in data.sizes.items())
    parts = ", ".join(f"{int((split == part).sum())} {part}" for part in PARTS)
    print(
        f"{data.name}{units}: {sizes}; {valid.sum():,} of {valid.size:,} pixels valid; "
        f"snapshots: {parts}"
    )
    print(f"fitted in {seconds:.0f} s\n")

    part, held_out = _held_out(model)
    score = model.score(data.isel({split.dims[0]: held_out}))
    table = pd.DataFrame(
        {
            "level": np.arange(model.levels),
            "grid": [" x ".join(map(str, standard.valid.shape[1:])) for standard in standards],
            f"rmse{units}": [f"{value:.3g}" for value in score["rmse"].values],
            f"worst pixel{units}": [f"{value:.3g}" for value in score["worst_pixel_rmse"].values],
            "parameters": score["n_parameters"].values,
            "encoding size": [f"{size:,}" for size in score["encoding_size"].values],
            "active share": [f"{share:.0%}" for share in score["active_share"].values],
        }
    )
    print(
        f"against the {len(held_out)} {part} snapshots; "
        "parameters and sizes include coarser levels:"
    )
    print(table.to_string(index=False))
    size = int(score["encoding_size"][-1])
    print(
        f"\nthe encoding of a snapshot holds {size:,} numbers for {valid.sum():,} valid pixels",
        end="",
    )
    if size > valid.sum():
        print(": more than the data. These settings show where scales live; they do not compress.")
    else:
        print(f": {valid.sum() / size:.1f} times fewer")


def _write(model: MrCAE, data: xr.DataArray, folder: Path) -> list[str]:
    """Write the model and its figures into a folder, and return their names."""
    model.save(folder / "model.nc", overwrite=True)
    figures = {
        "levels.png": model.plot.reconstruction(data.isel(_shown(model))),
        "refinement.png": model.plot.refinement(),
        "history.png": model.plot.history(),
    }
    for name, figure in figures.items():
        _save(figure, folder / name)
    return ["model.nc", *figures]


def _shown(model: MrCAE) -> dict[Hashable, int]:
    """Return the place of the snapshot that is drawn: the middle one of those held out."""
    _, held_out = _held_out(model)
    return {model.split.dims[0]: int(held_out[len(held_out) // 2])}


def _write_archive(model: MrCAE, data: xr.DataArray, folder: Path) -> list[str]:
    """Write the data as an archive, open it again, say what it takes, and return names.

    Without the packages of archives, or for data that they do not take, it says so instead.
    """
    held_out = data.isel({model.split.dims[0]: _held_out(model)[1]})
    values = model.reconstruct(held_out).compute()  # without what stands on land
    max_error = float(f"{BOUND * float(values.max() - values.min()):.1g}")
    path = folder / "archive.mrcae.zarr"
    try:
        with replacing(path, overwrite=True) as part:
            progress = model.options.progress
            model.to_archive(data, part, max_error=max_error, progress=progress)
    except (ImportError, ArchiveError) as error:
        print(f"\nno archive: {error}")
        return []
    archive = open_archive(path)
    worst, size = float(archive.measured["worst"].max()), in_bytes(archive.level_bytes[0])
    print(f"\n{archive!r}\n")
    print(f"no value of the archive is off by more than {worst:.6g}; {max_error:g} are allowed")
    print(f"its level 0 takes {size}: xarray.open_dataset('{path}', engine='mrcae', level=0)")
    _save(_draw_levels(archive, path, _shown(model)), folder / "archive.png")
    return [path.name, "archive.png"]


def _draw_levels(archive: Archive, path: Path, shown: Mapping[Hashable, int]) -> Any:
    """Draw one snapshot on every level of an archive, as xarray opens it."""
    from .plot import pyramid

    with xr.open_datatree(path, engine="mrcae") as levels:
        figure = pyramid(levels.isel(shown))
    for ax, rmse in zip(figure.axes, archive.measured["rmse"].values[:, 0], strict=False):
        ax.set_title(f"{ax.get_title()}\nrmse over time {rmse:.2g}")
    return figure


def _save(figure: Any, path: Path) -> None:
    """Write a figure as a whole and close it."""
    with replacing(path, overwrite=True) as part:
        figure.savefig(part, format=path.suffix[1:], dpi=110)
    import_pyplot().close(figure)
