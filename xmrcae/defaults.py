"""Defaults that depend on other options, or on the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Defaults that differ between solvers, and what each solver is made with.
SOLVERS: dict[str, dict[str, float]] = {
    "lbfgs": {"max_epochs": 150, "min_decrease": 1e-2, "noise": 0.0},
    "adam": {"max_epochs": 5000, "min_decrease": 1e-3, "noise": 0.01},
}
SOLVER_OPTIONS = {
    "lbfgs": {"learning_rate": 1.0, "weight_decay": 0.0},
    "adam": {"learning_rate": 1e-3, "weight_decay": 1e-5, "eps": 1e-3},
}

#: Defaults of a fit to a tolerance, which shows scales, and of one to a size, which compresses.
TO_TOLERANCE: dict[str, Any] = {"channels": [[1] * 4], "omega": 0.5, "anchor": 0.5}
TO_SIZE: dict[str, Any] = {"channels": [[1] * 6], "omega": 1.0, "anchor": 0.0}

#: The default tolerance, as share of the data's rms about its centre.
TOLERANCE = 0.1

#: Numbers of an encoding, as share of a snapshot's values, that the default tolerance may take.
MOST_OF_DATA = 0.5

#: Values of a snapshot up to which codes are found by projection: there, factorising takes 3 s and
#: 0.8 GB, and 32 snapshots take 0.5 s, four times as long as filters.
MOST_PROJECTED = 300_000


def of_size(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return defaults, where options are open, that depend on whether a size is given.

    With a size the encoder stays "auto", until the data are known.
    """
    is_sized = options["encoding_size"] is not None
    usual = TO_SIZE if is_sized else TO_TOLERANCE
    found = {name: value for name, value in usual.items() if options[name] is None}
    if options["encoder"] == "auto" and not (is_sized and options["activation"] is None):
        found["encoder"] = "filters"
    return found


def compact_encoder(n_values: int) -> str:
    """Return what finds codes that are to be few, for snapshots of so many values."""
    return "projection" if n_values <= MOST_PROJECTED else "filters"
