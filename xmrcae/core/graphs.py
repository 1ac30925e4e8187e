"""CUDA graphs: what a stage computes at point after point, recorded once and replayed.

An evaluation of a small field is some hundred kernels of a few microseconds each. Launched one by
one, they take the host ten times as long as the GPU; a graph is one launch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import torch

from .network import Network

log = logging.getLogger("xmrcae")

T = TypeVar("T")

#: The graph that could not be recorded, if there was one: then no other is tried in this process.
#: Until torch 2.12, the memory allocator believes that a recording that was broken off goes on: it
#: may ask the graph, which is kept, and to empty its cache, as recording begins with, is an error.
_failed: list[Any] = []


class Graphs:
    """The graphs of a stage, which share their memory and give it back together.

    Attributes
    ----------
    point : Tensor, shape (parameter,)
        All parameters of the network: to write to it is to set them.
    power : Tensor, shape ()
        Of the p-norm, so that one graph serves all powers.
    """

    def __init__(self, network: Network) -> None:
        self.point = network.tied_vector()
        self.power = self.point.new_zeros(())
        self._memory: Any = None
        self._replays: dict[str, Callable[[], Any]] = {}

    def run(self, name: str, function: Callable[[], T]) -> T:
        """Compute a function as it stands the first time, and from then on by replaying it.

        Parameters
        ----------
        name : str
            Of the graph.
        function : callable
            Gives tensors, or nests of them. What it reads is always in the same place, and it never
            waits for the GPU.

        Returns
        -------
        T
            What the function gives; the next replay writes over it.
        """
        if name in self._replays:
            return self._replays[name]()
        result = function()  # compiles kernels, which cannot be done while a graph is recorded
        self._replays[name] = self._recorded(function)
        return result

    def _recorded(self, function: Callable[[], T]) -> Callable[[], T]:
        """Record a function without running it; where that fails, the function itself."""
        if _failed:
            return function
        graph = torch.cuda.CUDAGraph()
        try:
            result = self._record(graph, function)
        except RuntimeError as error:
            graph.reset()  # gives its memory back
            _failed.append(graph)
            log.warning(
                "training launches each kernel by itself, which is slower: no CUDA graph (%s)",
                str(error).partition("\n")[0],
            )
            return function

        def replay() -> T:
            graph.replay()
            return result

        return replay

    def _record(self, graph: Any, function: Callable[[], T]) -> T:
        """Record a function; return what it gives."""
        if self._memory is None:
            self._memory = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # a graph cannot use memory that is kept for other tensors
        with torch.cuda.stream(torch.cuda.Stream()):
            graph.capture_begin(self._memory, capture_error_mode="thread_local")
            try:
                result = function()
            except BaseException:
                with suppress(RuntimeError):  # which would hide what has broken it off
                    graph.capture_end()
                raise
            graph.capture_end()
        return result
