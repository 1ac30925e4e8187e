"""The arrays that were asked for last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np


class Kept:
    """Arrays by what they were asked for, the last ones, up to some bytes. Threads may share it.

    Parameters
    ----------
    n_bytes : int
        The most bytes that are kept.
    """

    def __init__(self, n_bytes: int) -> None:
        self._n_bytes = n_bytes
        self._arrays: OrderedDict[Hashable, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> np.ndarray | None:
        """Return an array; None if it is not kept."""
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
            return self._arrays.get(key)

    def put(self, key: Hashable, array: np.ndarray) -> None:
        """Keep an array, and of those before as many as there is room for."""
        with self._lock:
            self._arrays[key] = array
            while sum(each.nbytes for each in self._arrays.values()) > self._n_bytes:
                self._arrays.popitem(last=False)
