"""What the process holds of the system's memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

#: glibc's own threshold once an array of 32 MiB has been freed.
USUAL = 2**25

_goes_back_from = [USUAL]


def keeping_memory() -> AbstractContextManager[None]:
    """Let the process keep what it frees, until the end; to fetch it anew costs time.

    An epoch makes the arrays of the one before. On its own, glibc gives them back to the system
    in between: that took a quarter of the time on ERSST's grid, and half on a million pixels.
    """
    return _going_back_from(2**31 - 1)


def bounded_memory() -> AbstractContextManager[None]:
    """Let arrays of 8 MiB and more go back to the system when they are freed, until the end.

    glibc keeps smaller ones for reuse; what is free between arrays in use is too small for larger
    ones: on a million pixels that took up to 250 MiB beside 500 MiB in use. Passes over the data
    take about a tenth longer.
    """
    return _going_back_from(2**23)


@contextmanager
def _going_back_from(n_bytes: int) -> Iterator[None]:
    """Let arrays of so many bytes and more go back to the system when they are freed."""
    _goes_back_from.append(n_bytes)
    _tell_glibc()
    try:
        yield
    finally:
        _goes_back_from.remove(n_bytes)
        _tell_glibc()
        give_back_memory()


def _tell_glibc() -> None:
    """Set from which size glibc asks the system for an array, and from which it gives back."""
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    set_option(mmap_threshold, _goes_back_from[-1])
    set_option(trim_threshold, min(2 * _goes_back_from[-1], most))


def give_back_memory() -> None:
    """Return freed memory to the system: glibc keeps large blocks per thread."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        pass


def free_memory() -> int:
    """Return the bytes of memory that are free now; 4 GiB where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**32
