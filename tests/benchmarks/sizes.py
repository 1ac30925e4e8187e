"""Held-out error of a default fit of a given size, beside wavelets with as many numbers."""

import importlib.util
import sys
import time
from types import ModuleType
from typing import Any

from common import REPOSITORY, THREADS, ocean, oceans

#: Numbers per snapshot, and the held-out error that `encoding_size=` alone is to reach.
GOALS = {"ERSST": {1098: 0.145, 3296: 0.051}, "Mediterranean": {1672: 0.335, 5018: 0.142}}
QUICK_SIZE = 500

TITLE = "Error at a given number of codes"
TEXT = """\
`fit(encoding_size=numbers)` and nothing else, on departures from the training mean, against the
wavelet bior4.4 with its largest coefficients: at positions that the training snapshots choose
(`fixed`), or at those of each snapshot (`adaptive`, whose positions are not counted). Root-mean-
square error of snapshots held out at random, in degC (ERSST) and cm (Mediterranean), over pixels
valid at all times. The first goal is stated for the defaults; the next is the adaptive wavelet."""
COLUMNS = {
    "data": "data", "numbers": "numbers", "device": "device", "threads": "threads",
    "rmse": "default fit", "goal": "goal", "fixed": "wavelet, fixed",
    "adaptive": "wavelet, adaptive: next goal", "encoder": "encoder", "seconds": "fit, s",
}  # fmt: skip


def cases(*, quick: bool, cuda: bool) -> list[dict[str, Any]]:
    """Both sizes of both files."""
    return [
        {"data": data, "numbers": numbers, "device": "cpu", "threads": THREADS[-1]}
        for data in oceans()[: 1 if quick else None]
        for numbers in ([QUICK_SIZE] if quick else GOALS[data])
    ]


def measure(*, data: str, numbers: int, device: str, threads: int, quick: bool) -> dict[str, Any]:
    """One fit, and both wavelets on the same snapshots."""
    from xmrcae import MrCAE

    notebook = _compressors()
    field = notebook.Field.of(ocean(data), "random")
    parts = (field.train, field.validation, field.test)
    options = {"max_epochs": 2} if quick else {}
    model = MrCAE(encoding_size=numbers, split=parts, progress=False, **options)
    start = time.perf_counter()
    model.fit(field.data)
    seconds = time.perf_counter() - start
    row = {"goal": GOALS[data].get(numbers), "encoder": model.options.encoder, "seconds": seconds}
    row["rmse"] = field.rmse(model.reconstruct(field.data[field.test]))
    for name, anew in (("fixed", False), ("adaptive", True)):
        ((_, fields),) = notebook.wavelet(field, [numbers], anew=anew)
        row[name] = field.rmse(fields)
    return row


def _compressors() -> ModuleType:
    """The notebooks' comparison; a module here has the same name."""
    path = REPOSITORY / "notebooks" / "compressors.py"
    spec = importlib.util.spec_from_file_location("notebook_compressors", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
