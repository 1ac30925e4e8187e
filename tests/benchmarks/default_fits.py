"""Default fits, alone and while a core is kept busy."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr
from common import THREADS, ocean, oceans, timed_fit

#: The most that a busy core may lengthen a fit, where there are two.
GOAL = 2.5

#: A tolerance in degC with which codes found by projection are timed.
TOLERANCE = 0.105

SMALL = "24 small fields"
N_SMALL, SIZE = 24, 31

PROJECTED = "ERSST, projection"

#: Seconds that fits are to take on two cores.
SECONDS = {"ERSST": 18, "Mediterranean": 49, PROJECTED: 60}

TITLE = "Default fits, alone and beside other work"
TEXT = f"""\
Fits of all months of ERSST and all days of the Mediterranean file with the default options, of
ERSST by projection with a tolerance of {TOLERANCE} degC, and of {N_SMALL} made-up fields of {SIZE}
x {SIZE} one after the other. The goals for their seconds are for two idle cores. `beside` is the
same fit while another process computes without a pause: at most {GOAL} times the time alone, where
there are two cores. The error is the root-mean-square error of held-out snapshots at the finest
level, in degC or cm."""
COLUMNS = {
    "data": "data", "device": "device", "threads": "threads", "epochs": "epochs",
    "seconds": "fit, s", "goal_s": "goal, s", "beside_s": "beside, s", "ratio": "ratio",
    "goal": "goal of the ratio",
    "error": "held-out error",
}  # fmt: skip


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """All fits with each number of threads."""
    data = [SMALL, *([] if quick else [*oceans(), PROJECTED])]
    return [
        {"data": name, "device": "cpu", "threads": threads}
        for name in data
        if name != PROJECTED or "ERSST" in oceans()
        for threads in THREADS
    ]


def measure(*, data: str, device: str, threads: int, quick: bool) -> dict[str, Any]:
    """Each fit twice."""
    options = {"encoder": "projection", "tolerance": TOLERANCE} if data == PROJECTED else {}
    options |= {"device": device} | ({"max_epochs": 3} if quick else {})
    fields = small_fields() if data == SMALL else [ocean(data.partition(",")[0])]
    fits = [timed_fit(field, options) for field in fields]
    alone = sum(fit.seconds for fit in fits)
    with busy_core():
        beside = sum(timed_fit(field, options).seconds for field in fields)
    held_out = [(fit.model.split != "training").values for fit in fits]
    errors = [
        float(fit.model.score(field.isel(time=part))["rmse"][-1])
        for fit, field, part in zip(fits, fields, held_out, strict=True)
    ]
    return {
        "epochs": sum(fit.model.history.sizes["epoch"] for fit in fits),
        "seconds": alone,
        "goal_s": SECONDS.get(data),
        "beside_s": beside,
        "ratio": beside / alone,
        "goal": GOAL,
        "error": float(np.mean(errors)),
    }


def small_fields() -> list[xr.DataArray]:
    """Two modes on a small grid, each field with noise of its own."""
    import xmrcae

    field = xmrcae.datasets.two_modes(n_times=40, size=SIZE)
    rng = np.random.default_rng(0)
    return [field + 0.01 * rng.standard_normal(field.shape) for _ in range(N_SMALL)]


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Keep one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()
