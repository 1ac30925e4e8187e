"""How many threads some work is worth."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Numbers, samples times pixels, that are worth one thread more. With fewer, threads wait for each
#: other longer than they work, and on a busy machine for as long as the others keep one of them
#: from running.
WORTH = 2**20

#: What torch was to use, and how many threads are inside :func:`threads_for`; held to change them.
_before = _inside = 0
_entry = threading.Lock()


@contextmanager
def threads_for(numbers: int) -> Iterator[None]:
    """Let torch use as many threads as pay for so many numbers, and no more than it was to use.

    Several threads may be inside at a time. What the first has found is what each leaves: torch
    has one setting for itself and one for threads to come, and a thread that starts inside finds
    what another one has set for itself.
    """
    global _before, _inside
    with _entry:
        if not _inside:
            _before = torch.get_num_threads()
        _inside += 1
        before = _before
    torch.set_num_threads(min(before, 1 + numbers // WORTH))
    try:
        yield
    finally:
        with _entry:
            _inside -= 1
        torch.set_num_threads(before)
