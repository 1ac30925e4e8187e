"""Draw the pictures of the README and of the page how-it-works: ``python docs/draw.py [folder]``.

They show the drifting mode of the paper (section 4.3), whose broad mode swings slowly and whose narrow mode swings fast
and drifts along the diagonal. By default they are written to docs/pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import xmrcae

MOST_COLOURS = 256


def main(folder: Path, *, size: int = 127, n_times: int = 200, max_epochs: int = 60) -> None:
    """Fit one model, and write what it shows as PNG files."""
    field = xmrcae.datasets.drifting_mode(n_times=n_times, size=size).load()
    model = field.mrcae.fit(
        levels=3, tolerance=[0.01, 0.005, 0.0015], channels=[[1, 1], [1, 1], [1, 1]], max_epochs=max_epochs,
        progress=False,
    )  # fmt: skip
    test = field.isel(time=(model.split == "test").values)
    snapshot = test.isel(time=int((test.max(("y", "x")) - test.min(("y", "x"))).argmax("time")))
    figures = {
        "overview": overview(model, snapshot),
        "pyramid": pyramid(snapshot),
        "deepening": deepening(model, snapshot),
        "widening": widening(model, field),
        "masks": masks(model),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")


def overview(model: xmrcae.MrCAE, snapshot: xr.DataArray) -> Figure:
    """A snapshot, what each level makes of it, and how many filters act where."""
    levels = decoded(model, snapshot)
    figure, axes = panels(5)
    titles = ["data", *(f"level {k}: {n} numbers" for k, n in enumerate(model.encoding_sizes.values))]
    mesh = draw_fields(axes[:4], [snapshot, *levels], titles, snapshot)
    figure.colorbar(mesh, ax=axes[:4], shrink=0.8, pad=0.01, label="drifting mode [1]")
    count = model.refinement_count(level=2)
    draw_counts(figure, axes[4:], [count], ["where filters act, level 2"])
    return figure


def pyramid(snapshot: xr.DataArray) -> Figure:
    """One snapshot on all levels."""
    tree = snapshot.expand_dims("time").mrcae.pyramid(levels=3)
    fields = [tree[f"level_{k}"]["drifting_mode"].isel(time=0) for k in range(3)]
    figure, axes = panels(3)
    titles = [f"level {k}: {' × '.join(map(str, field.shape))}" for k, field in enumerate(fields)]
    mesh = draw_fields(axes, fields, titles, snapshot)
    figure.colorbar(mesh, ax=axes, shrink=0.8, label="drifting mode [1]")
    return figure


def deepening(model: xmrcae.MrCAE, snapshot: xr.DataArray) -> Figure:
    """A level's coarse input, what deepening alone makes of it on the finer grid, and what that leaves."""
    coarse = decoded(model, snapshot)[1]
    fine = without_groups(model, snapshot, level=2, groups=0)
    figure, axes = panels(3)
    mesh = draw_fields(axes[:2], [coarse, fine], ["level 1", "level 2, deepening alone"], snapshot)
    figure.colorbar(mesh, ax=axes[:2], shrink=0.8, label="drifting mode [1]")
    draw_errors(figure, axes[2:], [fine - snapshot], ["error"])
    return figure


def widening(model: xmrcae.MrCAE, field: xr.DataArray) -> Figure:
    """The error in time of the finest level: with deepening alone, and with each group of filters more."""
    groups = range(int(model.refinement_map(level=2)["group"].max()) + 1)
    test = field.isel(time=(model.split == "test").values)
    errors = [np.sqrt(((without_groups(model, test, level=2, groups=j) - test) ** 2).mean("time")) for j in groups]
    figure, axes = panels(len(errors))
    titles = ["deepening alone", *(f"with group{'s 1 to' * (j > 1)} {j}" for j in groups[1:])]
    most = float(errors[0].max())
    for ax, error, title in zip(axes, errors, titles, strict=True):
        mesh = draw(ax, error, title, vmin=0, vmax=most, cmap="magma_r")
    figure.colorbar(mesh, ax=axes, shrink=0.8, label="rms error over time [1]")
    return figure


def masks(model: xmrcae.MrCAE) -> Figure:
    """Where the groups of each level act."""
    counts = [model.refinement_count(level=k) for k in range(model.levels)]
    figure, axes = panels(len(counts))
    titles = [f"level {k}: in {float((count > 0).mean()):.0%} of the cells" for k, count in enumerate(counts)]
    draw_counts(figure, axes, counts, titles)
    return figure


def decoded(model: xmrcae.MrCAE, snapshot: xr.DataArray) -> list[xr.DataArray]:
    """A snapshot as each level decodes it."""
    codes = model.encode(snapshot)
    return [model.decode(codes, level=k) for k in range(model.levels)]


def without_groups(model: xmrcae.MrCAE, field: xr.DataArray, *, level: int, groups: int) -> xr.DataArray:
    """A level with its first groups of filters only: the codes of the others are zero."""
    codes = model.encode(field)
    node = codes[f"level_{level}"]
    kept = node["encoding"] * (node["group"] <= groups)  # NaN stays where a group does not act
    codes[f"level_{level}"] = xr.DataTree(node.to_dataset().assign(encoding=kept))
    return model.decode(codes, level=level)


def panels(n: int) -> tuple[Figure, Sequence[Any]]:
    """A row of maps."""
    figure = Figure(figsize=(2.5 * n + 0.9, 2.6), layout="compressed", dpi=110)
    return figure, np.atleast_1d(figure.subplots(1, n))


def draw_fields(axes: Sequence[Any], fields: Sequence[xr.DataArray], titles: Sequence[str], data: xr.DataArray) -> Any:
    low, high = float(data.min()), float(data.max())
    return [draw(*each, vmin=low, vmax=high) for each in zip(axes, fields, titles, strict=True)][-1]


def draw_errors(figure: Figure, axes: Sequence[Any], errors: Sequence[xr.DataArray], titles: Sequence[str]) -> None:
    most = max(float(abs(error).max()) for error in errors)
    for each in zip(axes, errors, titles, strict=True):
        mesh = draw(*each, vmin=-most, vmax=most, cmap="RdBu_r")
    figure.colorbar(mesh, ax=axes, shrink=0.8, label="reconstruction − data [1]")


def draw_counts(figure: Figure, axes: Sequence[Any], counts: Sequence[xr.DataArray], titles: Sequence[str]) -> None:
    """Numbers of filters, a colour for each number."""
    from matplotlib import colormaps

    most = max(int(count.max()) for count in counts)
    style = {"cmap": colormaps["viridis"].resampled(most + 1), "vmin": -0.5, "vmax": most + 0.5}
    for ax, count, title in zip(axes, counts, titles, strict=True):
        mesh = draw(ax, count.where(count["inside"], drop=True), title, **style)
    figure.colorbar(mesh, ax=axes, shrink=0.8, ticks=range(most + 1), label="filters in a cell")


def draw(ax: Any, field: xr.DataArray, title: str, **style: Any) -> Any:
    mesh = ax.pcolormesh(field["x"], field["y"], field.transpose("y", "x"), shading="nearest", **style)
    ax.set_title(title, fontsize="medium")
    ax.set(aspect="equal", xticks=[], yticks=[])
    return mesh


def save(figure: Figure, path: Path) -> None:
    """Write a picture in few colours, and without anything that tells of the moment."""
    from PIL import Image

    figure.savefig(path, metadata={"Software": None})
    Image.open(path).convert("RGB").quantize(MOST_COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "pictures")
