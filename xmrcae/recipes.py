"""Options of the paper's experiments, by name: ``xmrcae.MrCAE(**xmrcae.recipes["drifting_mode"])``.

The paper's form: groups in parallel, injection, scaled data. Tolerances are square roots of the paper's epsilons. The
drifting mode's are divided by 10 first: its masks were made with a rule that includes a maximum over time, and with
the time mean alone the printed ones call levels 0 and 1 resolved too early.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_PAPER = {"widening": "parallel", "restriction": "injection", "center": False, "scale": None, "anchor": 0.0}
_EXAMPLE_CHANNELS = [[1, 1, 1], [1, 1, 1], [2, 2, 2]]
_EXAMPLE_EPSILONS = (1e-3, 5e-4, 1e-4)


def _recipe(epsilons: tuple[float, ...], channels: list[list[int]]) -> Mapping[str, Any]:
    tolerance = [math.sqrt(epsilon) for epsilon in epsilons]
    return MappingProxyType({**_PAPER, "levels": len(channels), "channels": channels, "tolerance": tolerance})


RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "two_modes": _recipe(_EXAMPLE_EPSILONS, _EXAMPLE_CHANNELS),
        "drifting_mode": _recipe(tuple(epsilon / 10 for epsilon in _EXAMPLE_EPSILONS), _EXAMPLE_CHANNELS),
    }
)
