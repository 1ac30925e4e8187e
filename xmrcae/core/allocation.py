"""How many cells each group may have, when the size of the encoding is given instead of a tolerance."""

from __future__ import annotations

from collections.abc import Sequence


def cells_per_group(
    encoding_size: int, bottleneck: int, storable: Sequence[int], channels: Sequence[Sequence[int]]
) -> list[int]:
    """Active cells of each group of a level, so that all codes together are at most `encoding_size`.

    A group of a coarse level costs a quarter of one of the next finer level and serves every pixel under it, so each
    level gets twice the share of its cells that the next finer one gets, at most all of them.

    Parameters
    ----------
    encoding_size : int
        The most numbers per snapshot over all levels.
    bottleneck : int
        Numbers that the bottleneck takes.
    storable : sequence of int
        Cells that can act, for each level.
    channels : sequence of sequences of int
        Filters of each group, for each level.

    Raises
    ------
    ValueError
        If nothing is left beside the bottleneck.
    """
    levels = len(storable)

    def cells(share: float) -> list[int]:
        return [int(n * min(1.0, share * 2 ** (levels - 1 - k))) for k, n in enumerate(storable)]

    def size(share: float) -> int:
        return bottleneck + sum(n * sum(filters) for n, filters in zip(cells(share), channels, strict=True))

    if encoding_size <= bottleneck:
        raise ValueError(
            f"encoding_size={encoding_size}: the bottleneck alone takes {bottleneck} numbers; allow more, or choose "
            "more levels"
        )
    low, high = 0.0, 1.0
    if size(high) <= encoding_size:
        return cells(high)
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if size(middle) <= encoding_size else (low, middle)
    return cells(low)
