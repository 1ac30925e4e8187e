"""How many threads some work is worth."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Numbers, samples times pixels, that are worth one thread more. With fewer, threads wait for each
#: other longer than they work, and on a busy machine for as long as the others keep one of them
#: from running.
WORTH = 2**20


@contextmanager
def threads_for(numbers: int) -> Iterator[None]:
    """Let torch use as many threads as pay for so many numbers, and no more than it was to use."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, 1 + numbers // WORTH))
    try:
        yield
    finally:
        torch.set_num_threads(before)
