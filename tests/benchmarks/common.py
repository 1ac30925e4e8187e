"""What the sections share: a timed fit, peak memory, the real data. All that they need of the package's inside is here.

Nothing here imports torch before it has to, so that the process that starts the measurements stays
small.
"""

import copy
import dataclasses
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import xarray as xr

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("XMRCAE_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
ERSST, MEDITERRANEAN = DATA / "ersst_v5_2010-2020.nc", DATA / "aviso_med_adt_2005.nc"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = [n for n in (1, 2, 4, 16) if n <= CORES]


class TimeIsUp(KeyboardInterrupt):
    """Ends a fit as a user would."""


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted model, and what fitting it took.

    Attributes
    ----------
    model : MrCAE
        As the fit has left it.
    seconds, passes : float
        Seconds of the whole fit, and of the passes over the data.
    before : float
        Seconds of the fit that are none of its history, almost all of them before training.
    rank : int
        Number of samples that training used.
    start_gib, peak_gib : float
        Memory of this process before the fit, and the most until its end.
    """

    model: Any
    seconds: float
    passes: float
    before: float
    rank: int
    start_gib: float
    peak_gib: float

    def figures(self, field: xr.DataArray) -> dict[str, Any]:
        """What the fit took of time and memory, beside the size of its archive."""
        return {
            "gib": field.nbytes / 2**30,
            "passes_s": self.passes,
            "training_s": self.seconds - self.passes,
            "epochs": self.model.history.sizes["epoch"],
            "rank": self.rank,
            "start_gib": self.start_gib,
            "peak_gib": self.peak_gib,
        }


def timed_fit(
    obj: Any,
    options: Mapping[str, Any],
    *,
    snapshots_themselves: bool = False,
    limit: float | None = None,
) -> Fit:
    """Fit, with a clock that starts when a tiny fit has loaded all libraries.

    Parameters
    ----------
    obj : xarray.DataArray
        The data.
    options : mapping
        Of `MrCAE`.
    snapshots_themselves : bool
        Train on all snapshots in place of the compressed set: prepare the data as for a network
        with activations, and train the one without.
    limit : float, optional
        Seconds of training, after which the fit is interrupted; a small decrease ends no stage
        then.
    """
    import xmrcae
    from xmrcae import fitting, passes

    tiny = {name: options[name] for name in ("solver", "device") if name in options}
    xmrcae.MrCAE(levels=1, max_epochs=1, progress=False, **tiny).fit(
        xmrcae.datasets.two_modes(n_times=10, size=7)
    )
    ranks, read = [], []

    def themselves(options: Any) -> Any:
        if snapshots_themselves:
            options = copy.copy(options)
            object.__setattr__(options, "activation", "relu")
        return options

    def first_pass(obj: Any, options: Any, **kwargs: Any) -> Any:
        return passes.first_pass(obj, themselves(options), **kwargs)

    def second_pass(first: Any, options: Any) -> Any:
        data = passes.second_pass(first, themselves(options))
        ranks.append(int(data["training"][0].rank))
        read.append(time.perf_counter())
        signal.setitimer(signal.ITIMER_REAL, limit or 0)
        return data

    def stop(*_: Any) -> NoReturn:
        raise TimeIsUp

    handler = signal.signal(signal.SIGALRM, stop)
    model = xmrcae.MrCAE(progress=False, **options)
    if (
        limit is not None
    ):  # it may use all of its time: no stop for a small decrease, which options do not offer
        object.__setattr__(model.options, "min_decrease", -math.inf)
    start_gib, start = peak_memory(), time.perf_counter()
    try:
        patched = mock.patch.multiple(fitting, first_pass=first_pass, second_pass=second_pass)
        with patched, suppress(TimeIsUp):
            model.fit(obj)
        seconds = time.perf_counter() - start
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    before = seconds - float(model.history["seconds"][-1])
    return Fit(model, seconds, read[0] - start, before, ranks[0], start_gib, peak_memory())


def peak_memory() -> float:
    """The most memory that this process has taken so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def open_archive(name: str, *, quick: bool) -> xr.DataArray:
    """An example of the paper, or ERSST, in memory; small if quick."""
    import xmrcae

    if name == "ERSST":
        with xr.open_dataset(ERSST) as dataset:
            return dataset["sst"].load()
    size = {"n_times": 40, "size": 31} if quick else {}
    return getattr(xmrcae.datasets, name)(**size)


def archives() -> list[str]:
    """Names of those that are there."""
    return ["two_modes", "drifting_mode", *(["ERSST"] if ERSST.is_file() else [])]


def recipe(name: str) -> dict[str, Any]:
    """Options of the experiment on an archive, as the engine takes them."""
    import xmrcae

    if name != "ERSST":
        return dict(xmrcae.recipes[name])
    channels = [[1, 1], [2, 2], [2, 3, 3, 3], [4, 5, 5, 5]]
    return {"levels": 4, "channels": channels, "tolerance": [0.4, 0.3, 0.2, 0.15], "omega": 0.5}


def departure_rms(field: xr.DataArray) -> float:
    """Root mean square of the departures from the time mean, over time and all pixels that have data."""
    return float(np.sqrt((field - field.mean("time")).astype("float64").var()))


def ocean(name: str) -> xr.DataArray:
    """ERSST in degC or sea level in the Mediterranean in cm, (time, y, x), NaN at all times or none."""
    if name == "ERSST":
        field = open_archive(name, quick=False)
    else:
        with xr.open_dataset(MEDITERRANEAN) as dataset:
            field = (dataset["adt"].load() * 100).assign_attrs(units="cm")
    return field.where(field.notnull().all("time")).transpose("time", ...)


def oceans() -> list[str]:
    """Names of those that are there."""
    paths = {"ERSST": ERSST, "Mediterranean": MEDITERRANEAN}
    return [name for name, path in paths.items() if path.is_file()]


def harmonically_filled(field: xr.DataArray) -> np.ndarray:
    """Values (time, y, x), with land filled from the coast inward."""
    from xmrcae.grid.fill import fill

    has_data = field.notnull().all("time").values[None]
    return fill(field.values[:, None], has_data, "harmonic")[:, 0]


def snapshots_in_all(field: xr.DataArray) -> int:
    """How many snapshots share a model in the end: 50 years of months, or 30 years of days."""
    return 600 if _monthly(field) else 10950


def _monthly(field: xr.DataArray) -> bool:
    return bool(field["time"].diff("time")[0] > np.timedelta64(27, "D"))


def packed_without_codes(field: xr.DataArray, bound: float) -> tuple[float, float]:
    """The archive's own coder on departures from a climatology: bytes of the series, and 1.

    The climatology is kept as an archive keeps its base maps, as finely as is best, and counted.
    """
    from xmrcae.archive.base import quantise_base
    from xmrcae.archive.block import Variable
    from xmrcae.archive.packing import packed_bytes
    from xmrcae.archive.plan import with_predictor

    kept, month = field.notnull().values.all(0), field["time"].dt.month.values - 1
    season = month if _monthly(field) else np.zeros(len(field), int)
    given = field.values[:, kept]
    centre = np.stack([given[season == s].mean(0, dtype=float) for s in range(season.max() + 1)])
    step = 2 * (bound - 2 * np.spacing(np.abs(given).max()))
    variable = Variable(array="", dtype=field.dtype, kept=kept, scale=1.0, base=[], max_error=bound)
    share = len(field) / snapshots_in_all(field)
    sizes = []
    for n_terms in {1, 3, 5, 7, 12} if len(centre) > 1 else {1}:
        for base_step in (0.25 * bound, bound, 4 * bound):
            stored, _, _, maps = quantise_base(centre, kept, base_step, n_terms)
            departed = maps[season]
            left = given - departed
            found = (departed + step * np.rint(left / step)).astype(field.dtype)
            assert np.abs(found.astype(float) - given).max() <= bound
            packed = with_predictor(variable, 2 * left / step, few_neighbours=True)[1]
            model = packed["classes"] + packed_bytes(stored)
            sizes.append(packed["rest"] + share * model)
    return min(sizes), 1.0


def bytes_read(function: Callable[[], Any]) -> int | None:
    """Bytes that a call reads of files, when it is made a second time; None where Linux is not."""
    counters = Path("/proc/self/io")
    if not counters.is_file():
        return None
    function()  # imports what it needs
    before = counters.read_text()
    function()
    first, last = (int(text.split()[1]) for text in (before, counters.read_text()))
    return last - first - len(before)
