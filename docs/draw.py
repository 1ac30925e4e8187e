"""Draw the pictures of the README and of the pages: ``python docs/draw.py [folder]``.

They show the drifting mode of the paper (section 4.3), whose broad mode swings slowly and whose
narrow mode swings fast and drifts along the diagonal; and bytes of archives, as they were measured
by ``make bench SECTION=archives``. Without a folder they go to docs/pictures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image

import xmrcae
from xmrcae.grid.coordinates import Grid
from xmrcae.grid.dimensions import find_dimensions
from xmrcae.plot.panels import Scale, draw_panels
from xmrcae.plot.surfaces import Surface

DPI, MOST_COLOURS = 90, 256


def main(folder: Path, *, size: int = 127, n_times: int = 200, max_epochs: int = 60) -> None:
    """Fit one model, and write what it shows as PNG files."""
    field = xmrcae.datasets.drifting_mode(n_times=n_times, size=size).load()
    options = {"levels": 3, "channels": [[1, 1]], "tolerance": [0.01, 0.005, 0.0015]}
    model = field.mrcae.fit(**options, max_epochs=max_epochs, progress=False)
    test = field.isel(time=(model.split == "test").values)
    swing = test.max(("y", "x")) - test.min(("y", "x"))
    snapshot = test.isel(time=int(swing.argmax("time")))
    tree = snapshot.expand_dims("time").mrcae.pyramid(levels=3)
    figures = {
        "overview": overview(model, snapshot),
        "pyramid": xmrcae.plot.pyramid(tree),
        "deepening": deepening(model, snapshot),
        "widening": widening(model, test),
        "masks": model.plot.refinement(),
        "archive-bytes": archive_bytes(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save(figure, folder / f"{name}.png")


def overview(model: xmrcae.MrCAE, snapshot: xr.DataArray) -> Figure:
    """A snapshot, what each level makes of it and how far off, and how many filters act where."""
    codes, scale = model.encode(snapshot), Scale.range_of(snapshot, None)
    row = [(snapshot, "data", scale)]
    errors = model.score(snapshot)["rmse"].values
    for level, (n, rmse) in enumerate(zip(model.encoding_sizes.values, errors, strict=True)):
        title = f"level {level}: {n} numbers\nrmse {rmse:.2g}"
        row.append((model.decode(codes, level=level), title, scale))
    count = model.refinement_count(level=2)
    n = int(count.max()) + 1
    filters = Scale("filters in a cell", high=n - 0.5, n=n)
    inside = count.where(count["inside"], drop=True)
    return draw([*row, (inside, "where filters act, level 2", filters)])


def deepening(model: xmrcae.MrCAE, snapshot: xr.DataArray) -> Figure:
    """A level's coarse input, what deepening alone makes of it on the finer grid, its error."""
    coarse = model.decode(model.encode(snapshot), level=1)
    fine = with_groups(model, snapshot, groups=0)
    error = fine - snapshot
    most, scale = float(abs(error).max()), Scale.range_of(snapshot, None)
    off = Scale("reconstruction − data [1]", -most, most, "RdBu_r")
    titles = "level 1", "level 2, deepening alone", "error"
    return draw([*zip((coarse, fine, error), titles, (scale, scale, off), strict=True)])


def widening(model: xmrcae.MrCAE, test: xr.DataArray) -> Figure:
    """The error in time of the finest level: with deepening alone, and with each group more."""
    n = model.refinement_map(level=2).sizes["group"]  # at most the two of the options
    titles = ["deepening alone", "with group 1", "with groups 1 to 2"]
    squares = [(with_groups(model, test, groups=j) - test) ** 2 for j in range(n + 1)]
    errors = [np.sqrt(square.mean("time")) for square in squares]
    scale = Scale("rms error over time [1]", 0, float(errors[0].max()), "magma_r")
    return draw([(error, title, scale) for error, title in zip(errors, titles, strict=False)])


def with_groups(model: xmrcae.MrCAE, field: xr.DataArray, *, groups: int) -> xr.DataArray:
    """Level 2 with its first groups of filters only: the codes of the others are zero."""
    codes = model.encode(field)
    node = codes["level_2"]
    kept = node["encoding"] * (node["group"] <= groups)  # NaN stays where a group does not act
    codes["level_2"] = xr.DataTree(node.to_dataset().assign(encoding=kept))
    return model.decode(codes, level=2)


def archive_bytes() -> Figure:
    """Bytes per snapshot against the bound: every compressor, on both files of the benchmarks."""
    path = Path(__file__).parent / "benchmarks" / "archives.json"
    rows = json.loads(path.read_text())["rows"]
    shown = [row for row in rows if row["method"] not in ("archive, along time alone",)]
    methods = dict.fromkeys(row["method"] for row in shown)
    colours = dict(zip(methods, plt.colormaps["tab20"].colors, strict=False))
    units = {"ERSST": "°C", "Mediterranean": "cm"}
    figure, panels = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
    for axes, (data, unit) in zip(panels, units.items(), strict=True):
        for row in shown:
            if row["data"] == data and not row["failed"]:
                bounds = [float(key[3:]) for key in row if key.startswith("at_")]
                ours = row["method"].startswith("archive,") or row["method"] == "archive"
                style = {"color": "black" if ours else colours[row["method"]], "lw": 1.5 + ours}
                style |= {"ls": "--"} if row["method"].endswith(("2-D", "in full")) else {}
                sizes = [row[f"at_{bound}"] for bound in bounds]
                axes.plot(bounds, sizes, marker="o", ms=4, label=row["method"], **style)
        axes.set(xscale="log", yscale="log", title=data, xlabel=f"bound on every error [{unit}]")
        axes.set_xticks(bounds, map(str, bounds), minor=False)
        axes.minorticks_off()
    panels[0].set_ylabel("bytes per snapshot")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right", fontsize=8)
    return figure


def draw(row: list[tuple[xr.DataArray, str, Scale]]) -> Figure:
    """Draw fields side by side, on the grid of the first."""
    first = row[0][0].expand_dims("time")
    return draw_panels([row], Surface(Grid.of(first, find_dimensions(first)), {}))


def save(figure: Figure, path: Path) -> None:
    """Write a picture in few colours, and without anything that tells of the moment."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    Image.open(path).convert("RGB").quantize(MOST_COLOURS).save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent / "pictures")
