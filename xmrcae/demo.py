"""The demo of the command line: fit a model, say how good it is and what it costs, and draw it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from . import datasets
from .model import MrCAE
from .recipes import RECIPES


def run_demo(
    path: str | None, variable: str | None, options: Mapping[str, Any], folder: Path
) -> None:
    """Fit a model, print its errors and sizes, and write it with its codes and figures.

    Parameters
    ----------
    path : str or None
        NetCDF file or Zarr store to fit; the paper's drifting mode without it.
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
    import_pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    ds, recipe = _open(path)
    with ds:
        started = time.perf_counter()
        model = ds.mrcae.fit(variable, **{**recipe, **options})
        data = ds[model.fitted.labels.variables[0]]
        _report(model, data, time.perf_counter() - started)
        _write(model, data, folder)


def _open(path: str | None) -> tuple[xr.Dataset, Mapping[str, Any]]:
    """Open the data, lazy, and return the options to fit them with."""
    if path is None:
        return datasets.drifting_mode().to_dataset(), RECIPES["drifting_mode"]
    is_zarr = path.rstrip("/").endswith(".zarr") or os.path.isdir(path)
    return xr.open_dataset(path, engine="zarr" if is_zarr else None, chunks={}), {}


def _held_out(model: MrCAE, data: xr.DataArray) -> tuple[str, xr.DataArray]:
    """Return the name and the snapshots of the part kept for tests, or else for validation."""
    parts = model.split
    part = "test" if (parts == "test").any() else "validation"
    return part, data.isel({parts.dims[0]: np.flatnonzero(parts == part)})


def _report(model: MrCAE, data: xr.DataArray, seconds: float) -> None:
    """Print what was fitted and, level by level, how well and at what cost."""
    standards = model.fitted.codec.standards
    valid, split = standards[-1].valid, model.split
    units = f" [{data.attrs['units']}]" if "units" in data.attrs else ""
    sizes = ", ".join(f"{dim} {n}" for dim, n in data.sizes.items())
    parts = ", ".join(
        f"{int((split == part).sum())} {part}" for part in ("training", "validation", "test")
    )
    print(
        f"{data.name}{units}: {sizes}; {valid.sum():,} of {valid.size:,} pixels valid; "
        f"snapshots: {parts}"
    )
    print(f"fitted in {seconds:.0f} s\n")

    part, held_out = _held_out(model, data)
    score = model.score(held_out)
    table = pd.DataFrame({
        "level": np.arange(model.levels),
        "grid": [" x ".join(map(str, standard.valid.shape[1:])) for standard in standards],
        f"rmse{units}": [f"{value:.3g}" for value in score["rmse"].values],
        f"worst pixel{units}": [f"{value:.3g}" for value in score["worst_pixel_rmse"].values],
        "parameters": score["n_parameters"].values,
        "encoding size": [f"{size:,}" for size in score["encoding_size"].values],
        "active share": [f"{share:.0%}" for share in score["active_share"].values],
    })  # fmt: skip
    print(
        f"against the {held_out.sizes[split.dims[0]]} {part} snapshots; "
        "parameters and sizes include coarser levels:"
    )
    print(table.to_string(index=False))
    size = int(score["encoding_size"][-1])
    print(
        f"\nthe encoding of a snapshot holds {size:,} numbers for {valid.sum():,} valid pixels",
        end="",
    )
    if size > valid.sum():
        print(
            ": more than the data. These settings show where scales live; they do not compress.\n"
        )
    else:
        print(f": {valid.sum() / size:.1f} times fewer\n")


def _write(model: MrCAE, data: xr.DataArray, folder: Path) -> None:
    """Write model, codes and figures into a folder, and say so."""
    plt = import_pyplot()
    model.save(folder / "model.nc", overwrite=True)
    unfinished = folder / "codes.nc.part"
    model.encode(data).to_netcdf(unfinished)
    os.replace(unfinished, folder / "codes.nc")
    _, held_out = _held_out(model, data)
    dim = model.split.dims[0]
    figures = {
        "levels.png": model.plot.reconstruction(held_out.isel({dim: held_out.sizes[dim] // 2})),
        "refinement.png": model.plot.refinement(),
        "history.png": model.plot.history(),
    }
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=110)
        plt.close(figure)
    print(f"wrote {', '.join(['model.nc', 'codes.nc', *figures])} to {folder}{os.sep}")


def import_pyplot() -> Any:
    """Import pyplot, drawing to files: a machine without a screen will do."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            f'figures need matplotlib ({error}): pip install "xmrcae[plot]"'
        ) from error
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt
