"""``python -m xmrcae demo``: fit a model, say how good it is and what it costs, and draw it."""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from . import datasets
from .model import MrCAE
from .recipes import RECIPES


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit status: 0; or 2, after one line on stderr, if the data cannot be used.
    """
    parser = argparse.ArgumentParser(
        prog="python -m xmrcae", description="Multi-resolution convolutional autoencoders."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo", help="fit a model, print its errors and sizes, write it with figures"
    )
    demo.add_argument(
        "--output", type=Path, default=Path("demo-output"), metavar="FOLDER", help="where to write"
    )
    demo.add_argument(
        "--data", metavar="FILE", help="NetCDF or Zarr to fit; the paper's drifting mode by default"
    )
    demo.add_argument(
        "--variable", metavar="NAME", help="variable of FILE; the only suitable one by default"
    )
    demo.add_argument(
        "--options", nargs="+", default=[], metavar="NAME=VALUE",
        help="options of the fit, such as gaps=mask tolerance=0.2 'split=(0.8, 0.1, 0.1)'",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    if arguments.variable and not arguments.data:
        demo.error("--variable names a variable of --data, which is not given")
    try:
        _import_pyplot()
        arguments.output.mkdir(parents=True, exist_ok=True)
        given = dict(_option(pair) for pair in arguments.options)
        ds, options = _open(arguments.data)
        started = time.perf_counter()
        model = ds.mrcae.fit(arguments.variable, **{**options, **given})
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"xmrcae: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    with ds:
        data = ds[model.fitted.labels.variables[0]]
        _report(model, data, time.perf_counter() - started)
        _write(model, data, arguments.output)
    return 0


def _open(path: str | None) -> tuple[xr.Dataset, Mapping[str, Any]]:
    """Open the data, lazy, and return the options to fit them with."""
    if path is None:
        return datasets.drifting_mode().to_dataset(), RECIPES["drifting_mode"]
    is_zarr = path.rstrip("/").endswith(".zarr") or os.path.isdir(path)
    return xr.open_dataset(path, engine="zarr" if is_zarr else None, chunks={}), {}


def _option(pair: str) -> tuple[str, Any]:
    """Return name and value of an option of the command line; what is no literal is text."""
    name, equals, value = pair.partition("=")
    if not equals:
        raise ValueError(f"--options got {pair!r}: give NAME=VALUE, such as gaps=mask")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


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
    plt = _import_pyplot()
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


def _import_pyplot() -> Any:
    """Import pyplot, drawing to files: a machine without a screen will do."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            f'the demo draws figures ({error}): pip install "xmrcae[plot]"'
        ) from error
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt


if __name__ == "__main__":
    sys.exit(main())
