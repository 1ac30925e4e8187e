"""Walking the data in blocks of pixels, with all their snapshots, and what computes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.pool import ThreadPool
from threading import BoundedSemaphore
from types import NoneType
from typing import Any

import dask.array as da
import numpy as np
from array_api_compat import to_device
from dask import config, local, threaded
from dask.base import compute, get_scheduler
from dask.delayed import delayed
from dask.system import CPU_COUNT

from ..handover import Array
from ..memory import give_back_memory

#: Bytes, in float64, of the block of pixels, with all its snapshots, that one task looks at.
PIXEL_BLOCK_BYTES = 2**24

#: Of the memory that a pass leaves free, the share that the data of one batch may take; the rest is
#: for bands at work and their results.
BATCH = 0.55

#: Threads that may have a block on a GPU at once: what more had there would only wait.
ON_DEVICE = BoundedSemaphore(4)


@dataclass(frozen=True)
class Backend:
    """What computes with a block: NumPy on the host by default, or torch on a GPU.

    Attributes
    ----------
    library : {"numpy", "torch"}
        Whose arrays it computes with: a name, which processes can send each other.
    device : str or torch.device
        Where they lie.
    room : float
        Bytes that samples may take there.
    """

    library: str = "numpy"
    device: Any = "cpu"
    room: float = float("inf")

    @property
    def xp(self) -> Any:
        """The functions for its arrays."""
        return import_module(f"array_api_compat.{self.library}")

    @property
    def is_host(self) -> bool:
        """Whether its arrays are NumPy's."""
        return self.library == "numpy"

    @property
    def turn(self) -> AbstractContextManager[Any]:
        """What a thread waits for before it computes with a block."""
        return nullcontext() if self.is_host else ON_DEVICE

    def array(self, values: Array) -> Array:
        """Bring an array here, laid out row by row."""
        if self.is_host:
            return np.ascontiguousarray(to_device(values, "cpu"))
        if isinstance(values, np.ndarray):
            values = np.array(values, order="C")  # torch takes no reverse or read-only arrays
        return self.xp.asarray(values, device=self.device).contiguous()

    def zeros(self, shape: tuple[int, ...], dtype: str = "float32") -> Array:
        """Make an array of zeros here."""
        return self.xp.zeros(shape, dtype=getattr(self.xp, dtype), device=self.device)

    def for_tasks_on(self, array: da.Array | np.ndarray) -> Backend:
        """Return NumPy if dask's tasks for an array may run in other processes."""
        of_threads = NoneType, ThreadPoolExecutor, ThreadPool
        in_threads = isinstance(config.get("pool", None), of_threads)
        if isinstance(array, da.Array):
            get = get_scheduler(collections=[array])
            in_threads = get is local.get_sync or (in_threads and get is threaded.get)
        return self if in_threads else HOST


HOST = Backend()


def pixel_blocks(shape: tuple[int, ...]) -> list[slice]:
    """Cut rows into bands. They depend on the sizes alone, so that chunks change no bit."""
    rows = max(1, PIXEL_BLOCK_BYTES // max(1, 8 * shape[0] * shape[1] * shape[3]))
    return [slice(i, min(i + rows, shape[2])) for i in range(0, shape[2], rows)]


def batches(
    array: da.Array | np.ndarray, *, memory: float, result: int = 0
) -> Iterator[list[slice]]:
    """Group bands into batches, each for one computation.

    Dask frees a chunk once every band that needs it is done, so chunks of few rows are read once.
    If memory cannot hold all chunks of a band, a batch is as many rows as it can hold, and the
    data are read once per batch.

    Parameters
    ----------
    array : dask.array.Array or numpy.ndarray, shape (sample, variable, y, x)
        The data.
    memory : float
        Bytes that a batch may hold of the data, and half as many of its results.
    result : int
        Bytes that the results hold per row.
    """
    row = array.nbytes / array.shape[2]
    reach = min(2 * max(array.chunks[2]), array.shape[2]) if isinstance(array, da.Array) else 0
    rows = array.shape[2] if row * reach <= memory else memory // row
    rows = max(1, min(rows, memory / 2 // max(result, 1)))
    batch: list[slice] = []
    for band in pixel_blocks(array.shape):
        if batch and band.stop - batch[0].start > rows:
            yield batch
            batch = []
        batch.append(band)
    yield batch


def over_batch(
    function: Callable[..., Any],
    array: da.Array | np.ndarray,
    batch: Sequence[slice],
    per_band: Callable[[slice], tuple[Any, ...]] = lambda band: (),
    add: Callable[[Any, Any], Any] | None = None,
    total: Any = None,
    **kwargs: Any,
) -> tuple[list[Any], Any]:
    """Apply a function to all snapshots of each band.

    Lazy data run on the user's scheduler, data in memory in threads.

    Parameters
    ----------
    function : callable
        Of a band, (sample, variable, row, x), what `per_band` gives, and the keywords.
        Gives what is kept of each band; with `add`, a pair of that and what is to be added.
    array : dask.array.Array or numpy.ndarray
        The data.
    batch : list of slice
        The bands.
    per_band : callable, optional
        Gives what else the function needs of some rows.
    add : callable, optional
        Gives the sum of a total, None before the first band, and what a band gives to be added.
    total : optional
        What earlier batches have added up. Sums run from band to band, whatever the batches.

    Returns
    -------
    kept : list
        One per band.
    total
        The sum; None without `add`.
    """
    task = delayed(_quietly, nout=None if add is None else 2)
    kept = []
    for values, band in zip(_bands(array, batch), batch, strict=True):
        each = task(function, values, *per_band(band), **kwargs)
        if add is not None:
            each, more = each
            total = delayed(add)(total, more)
        kept.append(each)
    if isinstance(array, da.Array):
        result = compute(kept, total)
    else:
        # In dask's own pool, Ctrl-C while its first thread starts leaves one that never ends.
        with ThreadPoolExecutor(config.get("num_workers", None) or CPU_COUNT) as own:
            pool = config.get("pool", None) or own
            result = compute(kept, total, scheduler="threads", pool=pool)
    give_back_memory()
    return result


def _quietly(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function without a warning of what overflows: such data are refused afterwards."""
    backend: Backend = kwargs.get("backend", HOST)
    with np.errstate(over="ignore", invalid="ignore"), backend.turn:
        return function(*args, **kwargs)


def _bands(array: da.Array | np.ndarray, batch: Sequence[slice]) -> list[Any]:
    """Return the values of each band, cut from chunks that are read once for all bands together."""
    if not isinstance(array, da.Array):
        return [array[:, :, band] for band in batch]
    rows = array[:, :, batch[0].start : batch[-1].stop]
    if rows.shape != array.shape:  # dask may cut views, which would hold whole chunks
        rows = rows.map_blocks(np.array, dtype=rows.dtype, meta=rows._meta)
    heights = tuple(band.stop - band.start for band in batch)
    cut = rows.rechunk((-1, -1, heights, -1), threshold=10**9, method="tasks")  # in one step
    return list(cut.to_delayed().ravel())
