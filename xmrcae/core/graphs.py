"""CUDA graphs: what a stage computes at point after point, recorded once and replayed.

An evaluation of a small field is some hundred kernels of a few microseconds each. Launched one by
one, they take the host ten times as long as the GPU; a graph is one launch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch

from .network import Network

log = logging.getLogger("xmrcae")

T = TypeVar("T")


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
        if self._memory is None:
            self._memory = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # a graph cannot use memory that is kept for other tensors
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                graph.capture_begin(self._memory, capture_error_mode="thread_local")
                try:
                    result = function()
                finally:
                    graph.capture_end()
        except RuntimeError as error:
            _say_once(str(error).partition("\n")[0])
            return function

        def replay() -> T:
            graph.replay()
            return result

        return replay


@cache
def _say_once(reason: str) -> None:
    log.warning(
        "training launches each kernel by itself, which is slower: no CUDA graph (%s)", reason
    )
