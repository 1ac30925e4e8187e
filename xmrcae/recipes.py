"""Options of the paper's experiments: ``xmrcae.MrCAE(**xmrcae.recipes["drifting_mode"])``.

The paper's form: groups in parallel, injection, no centring. Tolerances are square roots of the
paper's epsilons, which are meant for scaled data. The two examples come scaled to [0, 1]; scale a
flow or a sea surface temperature to zero mean and unit variance, with one number each for the whole
field (the paper does not say how it scaled them). The examples' epsilons are divided, the drifting
mode's by 10 and those of two modes by 2.5: the authors' masks were made with a rule that includes a
maximum over time, and with the time mean alone the printed ones call levels 0 and 1 resolved too
early. Two modes, whose levels need only a group or two, trains each to the paper's relative
decrease.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_PAPER = {
    "widening": "parallel",
    "restriction": "injection",
    "center": False,
    "scale": None,
    "anchor": 0.0,
}
_EXAMPLE_CHANNELS = [[1, 1, 1], [1, 1, 1], [2, 2, 2]]
_EXAMPLE_EPSILONS = (1e-3, 5e-4, 1e-4)
_FIELD_CHANNELS = [[1] * 4, [2] * 4, [3] * 4, [5] * 4]


def _recipe(
    epsilons: tuple[float, ...], channels: list[list[int]], *, divisor: float = 1.0, **others: Any
) -> Mapping[str, Any]:
    tolerance = [math.sqrt(epsilon / divisor) for epsilon in epsilons]
    form = {"levels": len(channels), "channels": channels, "tolerance": tolerance}
    return MappingProxyType(_PAPER | form | others)


RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "two_modes": _recipe(_EXAMPLE_EPSILONS, _EXAMPLE_CHANNELS, divisor=2.5, min_decrease=1e-3),
        "drifting_mode": _recipe(_EXAMPLE_EPSILONS, _EXAMPLE_CHANNELS, divisor=10),
        "channel_flow": _recipe((0.02, 0.01, 0.008, 0.005), _FIELD_CHANNELS),
        "isotropic_turbulence": _recipe((0.04, 0.02, 0.01, 0.005), _FIELD_CHANNELS),
        "sst": _recipe((0.04, 0.02, 0.01, 0.005), _FIELD_CHANNELS),
    }
)
