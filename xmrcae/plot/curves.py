"""Losses against epoch, errors against size of encoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .panels import label, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Colours that colour-blind readers tell apart (Okabe and Ito), each with a marker of its own.
STYLES = (
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"),
    ("#000000", "X"),
)  # fmt: skip


def errors(
    scores: Any, *, labels: Iterable[str] | None = None, metric: str = "rmse_global", variable: Any = None,
    ax: Any = None,
) -> Figure:  # fmt: skip
    """Error against size of encoding: a line a model, a point a level.

    Parameters
    ----------
    scores : xarray.Dataset, or a list or mapping of them
        As :meth:`xmrcae.MrCAE.score` gives them. The keys of a mapping are labels.
    labels : list of str, optional
        One for each of a list; "model 1" and so on without it.
    metric : {"rmse_global", "rmse", "worst_pixel_rmse"}
        The error. "rmse_global" compares each level with the finest data, the others with the level's own.
    variable : str, optional
        Which variable of scores of a Dataset to draw; the first by default.
    ax : matplotlib.axes.Axes, optional
        Where to draw; in a new figure of pyplot's by default.

    Returns
    -------
    matplotlib.figure.Figure
        On logarithmic axes. Right of the dashed line an encoding holds more numbers than the snapshot has valid
        values; it is drawn if that number is the same for all.

    Raises
    ------
    ValueError, TypeError
        If something else is given than scores, their units differ, or there are not as many labels.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import xmrcae
    >>> field = xmrcae.datasets.drifting_mode(n_times=20, size=31)
    >>> models = {n: field.mrcae.fit(channels=[[n]], levels=2, max_epochs=5, progress=False) for n in (1, 2)}
    >>> fig = xmrcae.plot.errors({f"{n} filters": model.score(field) for n, model in models.items()})
    >>> fig.axes[0].get_xlabel()
    'numbers per snapshot that decoding needs'
    >>> plt.close(fig)
    """
    named = _named(scores, labels)
    lines, chosen = {}, set()
    for name, score in named.items():
        of = chosen_variable(metric, variable, score.get("variable"))
        error = score[metric]
        if of is not None:
            error = error.sel(variable=of)
            error = error.assign_attrs({"units": units} if (units := error["units"].item()) else {})
        lines[name] = score["encoding_size"], error
        chosen.add(of)
    ends = {label(error) for _, error in lines.values()}
    if len(ends) > 1:
        raise ValueError(f"scores: their units differ, {'; '.join(sorted(ends))}: draw them in figures of their own")
    if ax is None:
        ax = new_figure((6.4, 4.6)).add_subplot()
    for i, (name, (size, error)) in enumerate(lines.items()):
        colour, marker = STYLES[i % len(STYLES)]
        ax.plot(size, error, color=colour, marker=marker, linestyle=("-", "--", ":")[i // len(STYLES) % 3], label=name)
    sizes, found = (np.concatenate([np.asarray(line[i], dtype=float) for line in lines.values()]) for i in (0, 1))
    values = {round(float(each)) for score in named.values() for each in score["ratio"] * score["encoding_size"]}
    if len(values) == 1:
        (value,) = values
        ax.axvline(value, color="0.4", linestyle="--", linewidth=1, label=f"valid values in a snapshot: {value:,}")
        sizes = np.append(sizes, value)
    if len(lines) == 1:
        _name_levels(ax, *next(iter(lines.values())))
    what = f"{error.attrs['long_name']} of {of}" if of is not None and len(chosen) == 1 else ""
    ax.set(xscale="log", yscale=_scale(found), xlabel=size.attrs.get("long_name"), ylabel=label(error, what))
    ax.margins(0.1)
    _tick(ax.xaxis, sizes, "{x:,.0f}")
    _tick(ax.yaxis, found[found > 0], "{x:g}")
    ax.legend(fontsize="small")
    return ax.figure


def _scale(values: np.ndarray) -> str:
    """Logarithmic, unless all is 0: a constant field is described without error."""
    return "log" if (values > 0).any() else "linear"


def _tick(axis: Axis, values: np.ndarray, text: str) -> None:
    """Legible numbers on a logarithmic axis that may span less than a power of ten."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    spanned = values.max() / values.min() if len(values) else 1.0
    if spanned < 10:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.set_minor_formatter(text if spanned < 100 else NullFormatter())
    axis.set_major_formatter(text)


def _name_levels(ax: Axes, sizes: xr.DataArray, errors: xr.DataArray) -> None:
    """The number of each level beside its point, one for points that fall together."""
    groups: dict[tuple[float, float], list[str]] = {}
    for level, size, error in zip(errors["level"].values, sizes.values, errors.values, strict=True):
        groups.setdefault((float(size), float(error)), []).append(str(level))
    for at, levels in groups.items():
        ax.annotate(
            f"level {', '.join(levels)}", at, (6, 4), textcoords="offset points", fontsize="small",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )  # fmt: skip


def _named(scores: Any, labels: Iterable[str] | None) -> dict[str, xr.Dataset]:
    """Scores by label."""
    if isinstance(scores, Mapping) and not isinstance(scores, xr.Dataset):
        if labels is not None:
            raise ValueError("labels: the keys of a mapping of scores are its labels already; leave them out")
        named = {str(name): score for name, score in scores.items()}
    else:
        several = [scores] if isinstance(scores, xr.Dataset) else list(scores)
        names = [f"model {i + 1}" for i in range(len(several))] if labels is None else [str(name) for name in labels]
        if len(names) != len(several) or len(set(names)) != len(names):
            raise ValueError(f"labels={names}: {len(several)} different ones are needed, one for each of scores")
        named = dict(zip(names, several, strict=True))
    if not named:
        raise ValueError("scores: there is none; give what model.score(data) returns, or a list of them")
    for name, score in named.items():
        if not isinstance(score, xr.Dataset) or not {"encoding_size", "rmse_global", "ratio"} <= set(score.data_vars):
            raise TypeError(f"scores: {name!r} is no Dataset as model.score(data) gives it, but {type(score).__name__}")
    return named


def chosen_variable(metric: str, variable: Any, names: Any) -> Any:
    """Which of the variables of a score is drawn; None for the score of a single field, which has no names.

    Raises
    ------
    ValueError
        For another metric than a score has, or another variable.
    """
    if metric not in ("rmse_global", "rmse", "worst_pixel_rmse"):
        raise ValueError(f'metric={metric!r}: one of "rmse_global", "rmse" and "worst_pixel_rmse"')
    if names is None:
        if variable is not None:
            raise ValueError(f"variable={variable!r}: the score is of a single field; leave it out")
        return None
    names = [str(name) for name in np.asarray(names)]
    if variable is not None and variable not in names:
        raise ValueError(f"variable={variable!r}: the score has {', '.join(names)}")
    return names[0] if variable is None else variable


def losses(history: xr.Dataset, ax: Any) -> Figure:
    """What :meth:`xmrcae.plot.ModelPlots.history` documents."""
    if not history.sizes["epoch"]:
        raise ValueError("the history is empty: training was interrupted before its first epoch; fit again")
    if ax is None:
        ax = new_figure((9.0, 4.8)).add_subplot()
    epoch = history["epoch"].values
    for part, style in (("train", {"color": "C0"}), ("validation", {"color": "C1", "linestyle": "--"})):
        ax.plot(epoch, history[f"{part}_loss"], label=f"{part}, own level (3.1)", linewidth=1.2, **style)
    known = history["validation_global_loss"].dropna("epoch")
    ax.plot(known["epoch"], known, ".", color="black", markersize=4, label="validation, finest level (3.4)")
    drawn = np.concatenate([line.get_ydata() for line in ax.lines])
    ax.set(yscale=_scale(drawn), xlabel="epoch", xlim=(epoch[0] - 0.5, epoch[-1] + 0.5))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylabel(label(history["train_loss"].assign_attrs(history.attrs), "loss"))
    _mark_stages(ax, history)
    ax.legend(fontsize="small", framealpha=0.9)
    return ax.figure


def _mark_stages(ax: Axes, history: xr.Dataset) -> None:
    """Shade every second level; a line where each stage begins, and above it the stage's name where there is room."""
    level, group, size = history["level"].values, history["group"].values, 7.0
    starts = np.flatnonzero((np.diff(level, prepend=-1) != 0) | (np.diff(group, prepend=-1) != 0))
    begin, end = history["epoch"].values[starts] - 0.5, float(history["epoch"][-1]) + 0.5
    inches = ax.get_position().width * ax.get_figure(root=True).get_figwidth() * 0.9  # type: ignore[union-attr]
    room = 1.4 * size / 72 / inches * (end - begin[0])
    labelled: list[float] = []
    first = np.diff(level[starts], prepend=-1) != 0  # of a level; a fit that goes on may not deepen it
    for i in np.argsort(~first, kind="stable"):  # where there is little room, levels first
        k, j = level[starts[i]], group[starts[i]]
        ax.axvline(begin[i], color="0.5", linewidth=0.8, linestyle=":" if j else "-", zorder=0)
        if first[i] and k % 2:
            later = begin[level[starts] > k]
            ax.axvspan(begin[i], later[0] if len(later) else end, color="0.93", zorder=-1)
        if all(abs(begin[i] - other) >= room for other in labelled):
            labelled.append(begin[i])
            ax.annotate(
                f"level {k} " * bool(first[i]) + (f"group {j}" if j else "deepen"), (begin[i], 1), (0, 3),
                xycoords=("data", "axes fraction"), textcoords="offset points", rotation=90, ha="center", va="bottom",
                fontsize=size,
            )  # fmt: skip
