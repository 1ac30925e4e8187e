"""Blocks of arrays through a function on a device, transfers beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

Arrays = Sequence[np.ndarray]


def stream(
    function: Callable[..., Sequence[Tensor]], blocks: Iterable[Arrays], device: torch.device
) -> Iterator[list[np.ndarray]]:
    """Apply a function to blocks, one after the other, where a network is.

    On a GPU one block is computed while the next one is copied there and results of the one before
    are copied back, through pinned memory. All blocks are computed in one CUDA stream, in their
    order, so timing changes no bit.

    Parameters
    ----------
    function : callable
        Takes the arrays of a block, on a GPU as tensors there, and gives tensors.
    blocks : iterable of sequence of numpy.ndarray
        The next one is asked for before the results of one are given.
    device : torch.device
        Where the function computes.

    Yields
    ------
    list of numpy.ndarray
        The results for each block.
    """
    if device.type == "cpu":
        for block in blocks:
            yield [result.numpy() for result in function(*block)]
        return
    there, back = _streams(device)
    waiting: tuple[list[Tensor], Any] | None = None
    for block in blocks:
        launched = _launch(function, block, there, back)
        if waiting:
            yield _arrived(*waiting)
        waiting = launched
    if waiting:
        yield _arrived(*waiting)


@cache
def _streams(device: torch.device) -> tuple[Any, Any]:
    """Return streams to a device and back; new ones at each call would each keep memory."""
    return torch.cuda.Stream(device), torch.cuda.Stream(device)


def _launch(
    function: Callable[..., Sequence[Tensor]], block: Arrays, there: Any, back: Any
) -> tuple[list[Tensor], Any]:
    """Queue a block's transfers and computation; return its results to be, and when they are."""
    here = torch.cuda.current_stream(there.device)
    arrays = [torch.from_numpy(np.require(array, requirements=["C", "W"])) for array in block]
    with torch.cuda.stream(there):
        inputs = [each.pin_memory().to(there.device, non_blocking=True) for each in arrays]
    here.wait_stream(there)
    for each in inputs:
        each.record_stream(here)
    outputs = [each.contiguous() for each in function(*inputs)]  # slow to do on the host
    back.wait_stream(here)
    with torch.cuda.stream(back):
        results = [each.to("cpu", non_blocking=True) for each in outputs]  # into pinned memory
    for each in outputs:
        each.record_stream(back)
    return results, back.record_event()


def _arrived(results: list[Tensor], event: Any) -> list[np.ndarray]:
    event.synchronize()
    return [result.numpy() for result in results]
