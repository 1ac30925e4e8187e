"""Time to a given loss: the engine against plain full-batch Adam on all snapshots."""

from typing import Any

import numpy as np
from common import THREADS, archives, open_archive, recipe, timed_fit

BUDGET, QUICK_BUDGET = 600.0, 1.0

TITLE = "Time to a given loss"
TEXT = f"""\
`Adam, all snapshots` is the authors' algorithm in this package's code: Adam with their settings on
the whole set of training snapshots in one batch, groups in parallel, injection, no anchor, 5000
epochs a stage; the stop for a small decrease is off, so that it uses its time. If it is not
through {BUDGET:g} s after the data have been read, it is interrupted. The loss to reach is the
least global validation loss (3.4, in scaled units squared) that it had by then. `xmrcae` is the
package as it comes: its default solver on the compressed training set, with the recipe of the
example, or for ERSST 4 levels and tolerances of 0.4, 0.3, 0.2 and 0.15 degC.

`reached after` counts from the start of the fit, with all passes over the data; `in training`
leaves these out. Both `times faster` compare `reached after` with Adam's training time: all of it,
or only until Adam reached the loss itself. The global loss is recorded every tenth epoch, and the
moment is the first record at or under the loss to reach. Held-out rmse is that of the test
snapshots at the finest level, in the data's units: 1 for the examples, degC for
ERSST."""
COLUMNS = {
    "example": "example", "method": "method", "device": "device", "threads": "threads",
    "before_s": "until training, s", "total_s": "whole fit, s", "epochs": "epochs", "stage": "ended at",
    "loss": "last global loss", "rmse": "held-out rmse", "goal": "loss to reach", "goal_s": "reached after, s",
    "goal_training_s": "in training, s", "ratio": "times faster than all of Adam's time",
    "ratio_at_goal": "times faster than Adam until that loss",
}  # fmt: skip

ADAM, ENGINE = "Adam, all snapshots", "xmrcae"
AUTHORS = {"solver": "adam", "widening": "parallel", "restriction": "injection", "anchor": 0.0}


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """Plain Adam on the CPU, and the engine with 1 and 2 threads and on the GPU."""
    result = []
    for name in archives()[:1] if quick else archives():
        runs = [
            (ADAM, "cpu", THREADS[-1]),
            *((ENGINE, "cpu", n) for n in (THREADS[-1:] if quick else THREADS[::-1])),
        ]
        runs += [(ENGINE, "cuda", THREADS[-1])] if cuda else []
        result += [
            {"example": name, "method": method, "device": device, "threads": threads}
            for method, device, threads in runs
        ]
    return result


def measure(*, example: str, method: str, device: str, threads: int, quick: bool) -> dict[str, Any]:
    """One fit."""
    field = open_archive(example, quick=quick)
    options = recipe(example) | {"device": device}
    if method == ADAM:
        limit = QUICK_BUDGET if quick else BUDGET
        fit = timed_fit(field, options | AUTHORS, snapshots_themselves=True, limit=limit)
    else:
        fit = timed_fit(field, options | ({"max_epochs": 20} if quick else {}))
    history = fit.model.history
    known = history.isel(epoch=np.isfinite(history["validation_global_loss"].values))
    pairs = zip(known["seconds"].values, known["validation_global_loss"].values, strict=True)
    curve = [[float(f"{seconds:.6g}"), float(f"{loss:.6g}")] for seconds, loss in pairs]
    test = field.isel(time=(fit.model.split == "test").values)
    return {
        "before_s": fit.before,
        "total_s": fit.seconds,
        "epochs": history.sizes["epoch"],
        "stage": f"level {int(history['level'][-1])}, group {int(history['group'][-1])}",
        "loss": curve[-1][1] if curve else None,
        "rmse": float(fit.model.score(test)["rmse"][-1]),
        "training_s": fit.seconds - fit.before,
        "rank": fit.rank,
        "finished": not fit.model.partial,
        "curve": curve,
    }


def conclude(rows: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add when each run reached the least loss of plain Adam on the same example, in this run or an earlier one."""
    adam = {
        row["example"]: row
        for row in [*earlier, *rows]
        if row["method"] == ADAM and row.get("curve")
    }
    return [row | _reached(row, adam.get(row["example"])) for row in rows]


def _reached(row: dict[str, Any], adam: dict[str, Any] | None) -> dict[str, Any]:
    if adam is None or not row.get("curve"):
        return {}
    goal = min(loss for _, loss in adam["curve"])
    seconds = _first(row["curve"], goal)
    if seconds is None:
        return {"goal": goal}
    result = {"goal": goal, "goal_training_s": seconds, "goal_s": row["before_s"] + seconds}
    if row["method"] == ENGINE:
        result["ratio"] = adam["training_s"] / result["goal_s"]
        result["ratio_at_goal"] = _first(adam["curve"], goal) / result["goal_s"]
    return result


def _first(curve: list[list[float]], goal: float) -> float | None:
    """Seconds at which a curve is first at or under the goal."""
    return next((seconds for seconds, loss in curve if loss <= goal), None)
