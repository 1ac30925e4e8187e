"""Four networks side by side, as in the paper's figures 10 and 11, and a fifth.

``python notebooks/networks.py two_modes --output notebooks/networks_two_modes.nc`` trains MrCAE,
MrCAE without masks and with ReLU, and RED-Net with and without ReLU on the same snapshots, and
writes errors and sizes. The fifth is the linear RED-Net with MrCAE's treatment of edges, without
which its errors there hide what it can do. A notebook draws them with
``figure_10_11(xr.open_dataset("networks_two_modes.nc"))``.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import rednet
import torch
import xarray as xr

import xmrcae
from xmrcae.options import make_options
from xmrcae.passes import first_pass, second_pass

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("networks")

#: Colour and marker of each network; the colours are Okabe and Ito's, which the colour-blind tell
#: apart.
STYLES = {
    "MrCAE": ("#0072B2", "o"),
    "MrCAE, ReLU, no masks": ("#E69F00", "s"),
    "RED-Net, ReLU": ("#CC79A7", "^"),
    "RED-Net, linear": ("#009E73", "v"),
    "RED-Net, linear, extended edges": ("#D55E00", "d"),
}

VARIABLES = {
    "n_parameters": ("weights and biases", "1"),
    "encoding_size": ("numbers per snapshot that decoding needs", "1"),
    "validation_mse": ("mean over pixels of the time-mean squared error", "scaled units squared"),
    "validation_max": ("largest of any pixel's time-mean squared error", "scaled units squared"),
    "validation_loss": ("validation loss against the finest data (3.4)", "scaled units squared"),
    "validation_loss_same_time": (
        "the least loss after no more seconds than MrCAE took, of RED-Net at the finest level", "scaled units squared",
    ),
    "seconds": ("time of training: of MrCAE from its beginning, of RED-Net from its own", "s"),
    "epochs": ("steps of the solver, over the same time", "1"),
}  # fmt: skip


class Case(NamedTuple):
    """A data set of the comparison: recipe, RED-Net's channels, and the variable in its file."""

    recipe: str
    channels: str
    variable: str | None = None


#: The paper has no RED-Net for sea surface temperature: it gets that of the channel flow, the
#: larger one.
CASES = {
    "two_modes": Case("two_modes", "two_modes"),
    "drifting_mode": Case("drifting_mode", "drifting_mode"),
    "turbulence": Case("isotropic_turbulence", "isotropic_turbulence", "u"),
    "ersst": Case("sst", "channel_flow", "sst"),
    "cylinder_wake": Case("channel_flow", "channel_flow", "u"),
}


def compare(
    field: xr.DataArray, recipe: Mapping[str, Any], channels: Sequence[int], *, seconds: float = 30.0,
    relu_epochs: int = 25,
) -> xr.Dataset:  # fmt: skip
    """Train the networks on one field with one split.

    MrCAE trains until it has resolved the field or gains no more, as its recipe says. A RED-Net
    for each level gets a share of `seconds` that grows with the level, and never less than MrCAE
    had taken at the same level. The linear one trains on the compressed set that MrCAE trains on,
    the one with ReLU on up to 24 evenly spaced training snapshots, so that both make many more
    steps in their time than with all snapshots.

    Parameters
    ----------
    field : xarray.DataArray, (sample, y, x)
        The data, scaled as the recipe expects them.
    recipe : mapping
        Options of `xmrcae.MrCAE`.
    channels : sequence of int
        Of RED-Net, finest level first.
    seconds : float
        What the finest RED-Net may take.
    relu_epochs : int
        Steps a stage for MrCAE with ReLU, which has to train on the snapshots themselves.

    Returns
    -------
    xarray.Dataset
        Over `point`, one for every stage of an MrCAE and for every level of a RED-Net, with
        coordinates `network`, `level` and `group`, and the variables of `VARIABLES`.

    Raises
    ------
    ValueError
        If the number of channels is not that of levels.
    """
    if len(channels) != recipe["levels"]:
        raise ValueError(
            f"channels={tuple(channels)}: the recipe has {recipe['levels']} levels, give as many numbers"
        )
    linear = dict(recipe) | {"progress": False, "device": "cpu"}
    relu = linear | {"activation": "relu", "tolerance": None, "max_epochs": relu_epochs}
    rows: list[dict[str, Any]] = []
    taken: list[float] = []
    for name, options in (("MrCAE", linear), ("MrCAE, ReLU, no masks", relu)):
        model = xmrcae.MrCAE(**options).fit(field)
        rows += stages(model, name)
        log.info("%s: loss %.3g, %.0f s", name, rows[-1]["validation_loss"], rows[-1]["seconds"])
        taken = (
            taken or model.history["seconds"].groupby(model.history["level"]).max().values.tolist()
        )
    rednets: dict[str, dict[str, Any]] = {
        "RED-Net, ReLU": {"activation": "relu", "snapshots": 24},
        "RED-Net, linear": {},
        "RED-Net, linear, extended edges": {"extended": True},
    }
    for name, how in rednets.items():
        chosen = make_options(relu if "activation" in how else linear)
        data = second_pass(first_pass(field, chosen), chosen)
        training, validation = data["training"], data["validation"]
        for level in range(model.levels):
            network, history = rednet.train(
                channels[-level - 1 :], training[level], validation[level],
                omega=model.options.omega, seconds=max(seconds * (level + 1) / model.levels, taken[level]), **how,
            )  # fmt: skip
            losses = rednet.global_losses(network, validation, level, model.options.omega)
            early = [row["validation_loss"] for row in history if row["seconds"] <= taken[-1]]
            rows.append({
                "network": name, "level": level, "group": 0, "n_parameters": network.n_parameters,
                "encoding_size": network.encoding_size(training[level].counts.shape[1:]),
                "validation_mse": losses.mse, "validation_max": losses.max, "validation_loss": losses.loss,
                "validation_loss_same_time": min(early, default=np.nan) if level == model.levels - 1 else np.nan,
                "seconds": history[-1]["seconds"], "epochs": history[-1]["epoch"],
            })  # fmt: skip
            log.info(
                "%s, level %d: loss %.3g, %d epochs", name, level, losses.loss, history[-1]["epoch"]
            )
    variables = {
        key: (
            "point",
            [row.get(key, np.nan) for row in rows],
            {"long_name": long_name, "units": units},
        )
        for key, (long_name, units) in VARIABLES.items()
    }
    coords = {key: ("point", [row[key] for row in rows]) for key in ("network", "level", "group")}
    attrs = {
        "mrcae_options": make_options(linear).to_json(), "mrcae_relu_options": make_options(relu).to_json(),
        "rednet_channels": list(channels), "rednet_seconds": seconds,
        "values_per_snapshot": int(training[-1].counts.sum()), "snapshots": int(model.split.size),
        "xmrcae_version": xmrcae.__version__, "torch_version": torch.__version__,
    }  # fmt: skip
    return xr.Dataset(variables, coords, attrs)


def stages(model: xmrcae.MrCAE, name: str) -> list[dict[str, Any]]:
    """Sizes and errors of an MrCAE at the end of each of its stages.

    Parameters
    ----------
    model : MrCAE
        A fitted model.
    name : str
        What to call it.

    Returns
    -------
    list of dict
        Coordinates and variables of `compare`, one entry a stage.
    """
    network, history = model.fitted.codec.network, model.history
    n_parameters, encoding_size = 0, len(network.levels[0].deepening.variable_of_cell)
    rows = []
    for level, grown in enumerate(network.levels):
        for group, part in enumerate([grown.deepening, *grown.groups]):
            n_parameters += sum(parameter.numel() for parameter in part.parameters())
            encoding_size += part.channels * part.n_cells if group else 0
            epoch = np.flatnonzero((history["level"] == level) & (history["group"] == group))[-1]
            last = {
                term: float(history[f"validation_global_{term}"][epoch])
                for term in ("mse", "max", "loss")
            }
            rows.append({
                "network": name, "level": level, "group": group, "n_parameters": n_parameters,
                "encoding_size": encoding_size, "seconds": float(history["seconds"][epoch]), "epochs": int(epoch) + 1,
                **{f"validation_{term}": value for term, value in last.items()},
            })  # fmt: skip
    return rows


def figure_10_11(ds: xr.Dataset) -> Figure:
    """The paper's figures 10 and 11: validation loss against number of parameters and size of encoding.

    Parameters
    ----------
    ds : xarray.Dataset
        As `compare` gives it.

    Returns
    -------
    matplotlib.figure.Figure
        A line a network and a point a stage, on logarithmic axes. Right of the dashed line an
        encoding holds more numbers than the snapshot.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for ax, size in zip(axes, ("n_parameters", "encoding_size"), strict=True):
        for name, (colour, marker) in STYLES.items():
            points = ds.isel(point=(ds["network"] == name).values)
            ax.loglog(
                points[size], points["validation_loss"], color=colour, marker=marker, label=name
            )
        ax.set_xlabel(ds[size].attrs["long_name"])
        ax.xaxis.set_major_formatter("{x:,.0f}")
    axes[0].xaxis.set_minor_locator(
        LogLocator(subs=(2, 5))
    )  # the range may hold a single power of ten
    axes[0].xaxis.set_minor_formatter("{x:,.0f}")
    axes[0].set_ylabel(f"validation loss ({ds['validation_loss'].attrs['units']})")
    values = ds.attrs["values_per_snapshot"]
    axes[1].axvline(values, color="0.4", linestyle="--", label=f"values in a snapshot: {values:,}")
    axes[1].legend()
    return fig


def markdown(saved: Mapping[str, xr.Dataset]) -> str:
    """The table of the docs: the last stage of each network on each data set.

    Parameters
    ----------
    saved : mapping of str to xarray.Dataset
        By the data's name, as `compare` gives them.

    Returns
    -------
    str
        A table with one row for each network.
    """
    lines = [
        "| data (values) | network | parameters | encoding | loss |",
        "| --- | --- | --- | --- | --- |",
    ]
    for case, ds in saved.items():
        title = f"{case} ({ds.attrs['values_per_snapshot']:,})"
        for name in STYLES:
            last = ds.isel(point=np.flatnonzero(ds["network"] == name)[-1])
            sizes = " | ".join(f"{int(last[size]):,}" for size in ("n_parameters", "encoding_size"))
            lines.append(f"| {title} | {name} | {sizes} | {float(last['validation_loss']):.1e} |")
            title = ""
    return "\n".join(lines)


def open_case(name: str, data: Path | None) -> xr.DataArray:
    """The field of a case: a formula, or a variable of a file scaled to zero mean and unit variance as a whole.

    Parameters
    ----------
    name : str
        One of `CASES`.
    data : Path, optional
        The file.

    Raises
    ------
    ValueError
        If a file is needed and not given, or given and not needed.
    """
    variable = CASES[name].variable
    if (variable is None) != (data is None):
        raise ValueError(
            f"data={data}: {name} is {'a formula, leave it out' if data else 'in a file, give its path'}"
        )
    if variable is None:
        return getattr(xmrcae.datasets, name)()
    with xr.open_dataset(data) as ds:
        field = ds[variable].load()
    if name == "cylinder_wake":
        field = field.isel(
            time=slice(1, None)
        )  # it starts from rest: the first snapshot is zero everywhere
    return ((field - field.mean()) / field.std()).astype("float32")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.
    """
    parser = argparse.ArgumentParser(
        description="Train MrCAE and RED-Net on one data set and write errors and sizes."
    )
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data", type=Path, help="the file, where the case is no formula")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="what the finest RED-Net may take"
    )
    parser.add_argument(
        "--max-epochs", type=int, help="most steps a stage for MrCAE; by default the recipe's"
    )
    parser.add_argument("--relu-epochs", type=int, default=25, help="the same for MrCAE with ReLU")
    parser.add_argument("--fast", action="store_true", help="a few steps, to see that it runs")
    given = parser.parse_args(argv)
    if given.output.exists() and not given.overwrite:
        parser.error(
            f"--output={given.output} exists: name another, or replace it with --overwrite"
        )
    if not given.output.parent.is_dir():
        parser.error(
            f"--output={given.output}: there is no folder {given.output.parent}; make it first"
        )
    try:
        field = open_case(given.case, given.data)
    except ValueError as error:
        parser.error(f"--{error}")
    recipe, channels = (
        dict(xmrcae.recipes[CASES[given.case].recipe]),
        rednet.CHANNELS[CASES[given.case].channels],
    )
    if given.fast:
        given.seconds, given.max_epochs, given.relu_epochs = 1.0, 3, 3
    if given.max_epochs:
        recipe["max_epochs"] = given.max_epochs
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ds = compare(field, recipe, channels, seconds=given.seconds, relu_epochs=given.relu_epochs)
    command = ["python", "notebooks/networks.py", given.case, "--output", given.output.name]
    command += ["--data", given.data.name] if given.data else []
    command += ["--max-epochs", str(given.max_epochs)] if given.max_epochs else []
    command += ["--seconds", f"{given.seconds:g}", "--relu-epochs", str(given.relu_epochs)]
    ds.attrs |= {
        "title": f"MrCAE and RED-Net on {given.case}",
        "data": json.dumps({"name": field.name, "sizes": dict(field.sizes)}),
        "command": shlex.join(command),
    }  # fmt: skip
    ds.to_netcdf(given.output)


if __name__ == "__main__":
    main()
