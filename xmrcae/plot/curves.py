"""Losses against epoch, errors against size of encoding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .panels import new_figure
from .text import label, text_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

#: Colours that colour-blind readers tell apart (Okabe and Ito), each with a marker of its own.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^DvPX"

METRICS = ("rmse_global", "rmse", "worst_pixel_rmse")


def errors(
    scores: Any,
    *,
    labels: Iterable[str] | None = None,
    metric: str = "rmse_global",
    variable: Any = None,
    ax: Any = None,
) -> Figure:
    """Draw error against size of encoding: one line per model, one point per level.

    Parameters
    ----------
    scores : xarray.Dataset, or a list or mapping of them
        As :meth:`xmrcae.MrCAE.score` gives them. The keys of a mapping are labels.
    labels : list of str, optional
        One for each of a list; "model 1" and so on without it.
    metric : {"rmse_global", "rmse", "worst_pixel_rmse"}
        The error. "rmse_global" compares each level with the finest data, the others with the
        level's own.
    variable : str, optional
        Which variable of scores of a Dataset to draw; the first by default.
    ax : matplotlib.axes.Axes, optional
        Where to draw; in a new figure of pyplot's by default.

    Returns
    -------
    matplotlib.figure.Figure
        On logarithmic axes. Right of the dashed line an encoding holds more numbers than the
        snapshot has valid values; it is drawn if that number is the same for all.

    Raises
    ------
    ValueError, TypeError
        If something else is given than scores, their units differ, or labels are too many or few.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> import xmrcae
    >>> field = xmrcae.datasets.drifting_mode(n_times=20, size=31)
    >>> options = {"levels": 2, "max_epochs": 5, "progress": False}
    >>> models = {n: field.mrcae.fit(channels=[[n]], **options) for n in (1, 2)}
    >>> scores = {f"{n} filters": model.score(field) for n, model in models.items()}
    >>> fig = xmrcae.plot.errors(scores)
    >>> fig.axes[0].get_xlabel()
    'numbers per snapshot that decoding needs'
    >>> plt.close(fig)
    """
    named = _named(scores, labels)
    lines, of = _lines(named, metric, variable)
    ax = ax or new_figure((6.4, 4.6)).add_subplot()
    for i, (name, error) in enumerate(lines.items()):
        turn, style = divmod(i, len(COLOURS))
        line = {"color": COLOURS[style], "linestyle": ("-", "--", ":")[turn % 3]}
        ax.plot(named[name]["encoding_size"], error, label=name, marker=MARKERS[style], **line)
    sizes = np.concatenate([score["encoding_size"].values for score in named.values()])
    if len(lines) == 1:
        _name_levels(ax, sizes, error)
    found = np.concatenate([error.values for error in lines.values()])
    held = np.concatenate([score["ratio"] * score["encoding_size"] for score in named.values()])
    values = {round(float(value)) for value in held}
    if len(values) == 1:
        (value,) = values
        text = f"valid values in a snapshot: {value:,}"
        ax.axvline(value, color="0.4", linestyle="--", linewidth=1, label=text)
        sizes = np.append(sizes, value)
    what = "" if of is None else f"{text_of(error.attrs, 'long_name')} of {of}"
    xlabel = text_of(named[name]["encoding_size"].attrs, "long_name")
    ax.set(xscale="log", yscale=_scale(found), xlabel=xlabel, ylabel=label(error, what))
    ax.margins(0.1)
    _tick(ax.xaxis, sizes, "{x:,.0f}")
    _tick(ax.yaxis, found[found > 0], "{x:g}")
    ax.legend(fontsize="small")
    return ax.figure


def _lines(named: Mapping[str, xr.Dataset], metric: str, variable: Any) -> tuple[Any, Any]:
    """Return the errors of each score, and the variable that they are of if it is one for all."""
    lines: dict[str, xr.DataArray] = {}
    chosen = set()
    for name, score in named.items():
        of = chosen_variable(metric, variable, score.get("variable"))
        error = score[metric]
        if of is not None:
            error = error.sel(variable=of)
            error = error.assign_attrs(units=error["units"].item())
        lines[name] = error
        chosen.add(of)
    ends = {label(error) for error in lines.values()}
    if len(ends) > 1:
        differ = "; ".join(sorted(ends))
        raise ValueError(f"scores: their units differ, {differ}: draw them in figures apart")
    return lines, chosen.pop() if len(chosen) == 1 else None


def _scale(values: np.ndarray) -> str:
    """Return a logarithmic scale unless all is 0: a constant field is described without error."""
    return "log" if (values > 0).any() else "linear"


def _tick(axis: Axis, values: np.ndarray, text: str) -> None:
    """Put legible numbers on a logarithmic axis that may span less than a power of ten."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    spanned = values.max() / values.min() if len(values) else 1.0
    if spanned < 10:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axis.set_minor_locator(NullLocator())
    else:
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
        axis.set_minor_formatter(text if spanned < 100 else NullFormatter())
    axis.set_major_formatter(text)


def _name_levels(ax: Axes, sizes: np.ndarray, errors: xr.DataArray) -> None:
    """Write the number of each level beside its point, one text for points that fall together."""
    points: dict[tuple[float, float], list[str]] = {}
    for level, size, error in zip(errors["level"].values, sizes, errors.values, strict=True):
        points.setdefault((float(size), float(error)), []).append(str(level))
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": "small", "bbox": box}
    for at, levels in points.items():
        ax.annotate(f"level {', '.join(levels)}", at, (6, 4), **style)


def _named(scores: Any, labels: Iterable[str] | None) -> dict[str, xr.Dataset]:
    """Return scores by label."""
    if isinstance(scores, Mapping) and not isinstance(scores, xr.Dataset):
        if labels is not None:
            raise ValueError("labels: the keys of a mapping are labels already; leave them out")
        named = {str(name): score for name, score in scores.items()}
    else:
        several = [scores] if isinstance(scores, xr.Dataset) else list(scores)
        given = [f"model {i + 1}" for i in range(len(several))] if labels is None else labels
        names = [str(name) for name in given]
        if len(names) != len(several) or len(set(names)) != len(names):
            needed = f"{len(several)} different ones are needed, one for each of scores"
            raise ValueError(f"labels={names}: {needed}")
        named = dict(zip(names, several, strict=True))
    if not named:
        raise ValueError("scores: there is none; give what model.score(data) returns, or several")
    for name, score in named.items():
        known = set(score.data_vars) if isinstance(score, xr.Dataset) else set()
        if not {"encoding_size", "rmse_global", "ratio"} <= known:
            need = f"no Dataset as model.score(data) gives it, but {type(score).__name__}"
            raise TypeError(f"scores: {name!r} is {need}")
    return named


def chosen_variable(metric: str, variable: Any, names: Any) -> Any:
    """Return which variable of a score is drawn; None for a single field's, which has no names.

    Raises
    ------
    ValueError
        For another metric than a score has, or another variable.
    """
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r}: one of {', '.join(map(repr, METRICS))}")
    if names is None and variable is not None:
        raise ValueError(f"variable={variable!r}: the score is of a single field; leave it out")
    names = [None] if names is None else [str(name) for name in np.asarray(names)]
    if variable is not None and variable not in names:
        raise ValueError(f"variable={variable!r}: the score has {', '.join(names)}")
    return names[0] if variable is None else variable


def losses(history: xr.Dataset, ax: Any) -> Figure:
    """Draw what :meth:`xmrcae.plot.ModelPlots.history` documents."""
    if not history.sizes["epoch"]:
        raise ValueError("the history is empty, as training stopped in its first epoch: fit again")
    ax = ax or new_figure((9.0, 4.8)).add_subplot()
    epoch = history["epoch"].values
    for part, style in (("train", "C0-"), ("validation", "C1--")):
        name = f"{part}, own level (3.1)"
        ax.plot(epoch, history[f"{part}_loss"], style, label=name, linewidth=1.2)
    known = history["validation_global_loss"].dropna("epoch")
    ax.plot(known["epoch"], known, "k.", markersize=4, label="validation, finest level (3.4)")
    drawn = np.concatenate([line.get_ydata() for line in ax.lines])
    ax.set(yscale=_scale(drawn), xlabel="epoch", xlim=(epoch[0] - 0.5, epoch[-1] + 0.5))
    ax.set_ylabel(label(history["train_loss"].assign_attrs(history.attrs), "loss"))
    ax.xaxis.get_major_locator().set_params(integer=True)
    _mark_stages(ax, history)
    ax.legend(fontsize="small", framealpha=0.9)
    return ax.figure


def _mark_stages(ax: Axes, history: xr.Dataset) -> None:
    """Shade every second level, and draw a line where each stage begins.

    The stage's name is above the line where there is room.
    """
    level, group, size = history["level"].values, history["group"].values, 7.0
    starts = np.flatnonzero(np.diff(level, prepend=-1) | np.diff(group, prepend=-1))
    begin, end = history["epoch"].values[starts] - 0.5, float(history["epoch"][-1]) + 0.5
    width = ax.get_figure(root=True).get_figwidth()  # type: ignore[union-attr]
    room = 1.4 * size / 72 / (ax.get_position().width * width * 0.9) * (end - begin[0])
    style: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": size}
    above: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    labelled: list[float] = []
    # The first stage of a level need not be its deepening: a fit may go on from another.
    first = np.diff(level[starts], prepend=-1) != 0
    for i in np.argsort(~first, kind="stable"):  # where there is little room, levels first
        k, j = level[starts[i]], group[starts[i]]
        ax.axvline(begin[i], color="0.5", linewidth=0.8, linestyle=":" if j else "-", zorder=0)
        if first[i] and k % 2:
            later = begin[level[starts] > k]
            ax.axvspan(begin[i], later[0] if len(later) else end, color="0.93", zorder=-1)
        if all(abs(begin[i] - other) >= room for other in labelled):
            labelled.append(begin[i])
            name = f"level {k} " * bool(first[i]) + (f"group {j}" if j else "deepen")
            ax.annotate(name, (begin[i], 1), (0, 3), **style, **above)
