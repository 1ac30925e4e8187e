"""The fitted network on blocks of snapshots: arrays in the data's units in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .conversion import DeviceConversion, HostConversion
from .core.matrices import Prolongation
from .core.network import Network
from .core.projection import from_state
from .core.state import NetworkState
from .core.streams import stream
from .core.threads import threads_for
from .core.training import find_device
from .grid.pyramid import Pyramid
from .grid.scaling import Scaling, check_finite

#: Most numbers of the finest level in the snapshots that go through the network together. On a CPU
#: few stay in the cache, while many share each look at the entries of a matrix.
NUMBERS, NUMBERS_ON_GPU = 2**22, 2**25

#: On a GPU, how many times as many snapshots a block of an array in memory has.
STREAMED = 16

#: Magnitude of codes and scaled fields up to which nothing overflows on the way to fields.
DECODABLE = 1e30


class Codec:
    """A fitted network with what stands between it and the data.

    Parameters
    ----------
    network : Network
        The network.
    pyramid : Pyramid
        Grid and levels.
    standard : Scaling
        Centring and scaling of the finest level.
    token : str
        Identifies the model to dask.

    Attributes
    ----------
    active : list of numpy.ndarray of bool, shape (channel, y, x)
        Cells of each level's encoding grid that are stored, for each channel.
    groups : list of numpy.ndarray of int, shape (channel,)
        The group of each channel of each level; 0 is the bottleneck.
    sizes : list of int
        Numbers per snapshot that each level stores.
    """

    def __init__(self, network: Network, pyramid: Pyramid, standard: Scaling, token: str) -> None:
        self.network, self.pyramid, self.token = network, pyramid, token
        self.standards = standard.at_levels(pyramid)
        self.active, self.groups = [], []
        for k, level in enumerate(network.levels):
            cells = level.deepening.cells.cpu().numpy() if k == 0 else None
            shape = pyramid.shape(k - 1)
            masks = [np.zeros((0, *shape), dtype=bool) if cells is None else cells]
            numbers = [np.zeros(len(masks[0]), dtype=np.int64)]
            for j, group in enumerate(level.groups, start=1):
                masks.append(np.broadcast_to(group.mask.cpu().numpy(), (group.channels, *shape)))
                numbers.append(np.full(group.channels, j, dtype=np.int64))
            self.active.append(np.concatenate(masks))
            self.groups.append(np.concatenate(numbers))
        self.sizes = [int(active.sum()) for active in self.active]

    def __dask_tokenize__(self) -> Any:
        # The weights are part of it: going on from a checkpoint keeps the id but changes them. So
        # is the device: another one gives other last digits.
        weights = self.network.vector().numpy().tobytes()
        return "xmrcae.Codec", self.token, self.network.device.type, weights

    def __reduce__(self) -> Any:
        """Pickle the state alone.

        The matrices take a hundred times the space and are quickly made.
        """
        state, device = self.network.state(), self.network.device.type
        return _unpickled, (state, device, self.pyramid, self.standards[-1], self.token)

    def to(self, device: torch.device) -> Codec:
        """Make the same codec on a device."""
        network = from_state(self.network.state(), device)
        return Codec(network, self.pyramid, self.standards[-1], self.token)

    @cached_property
    def width(self) -> int:
        """How many snapshots go through the network together.

        The number depends on grid and device alone, so that chunks change no bit.
        """
        n_pixels, on_cpu = self.network.has_data[-1].numel(), self._is_on_cpu
        most = NUMBERS if on_cpu else NUMBERS_ON_GPU
        return next((n for n in (32, 16) if n * n_pixels <= most), 8)

    @property
    def blocks(self) -> dict[str, Any]:
        """How an array in memory is cut into blocks, and how many threads share them.

        On a CPU a thread for each block, in which torch uses no others: products of few snapshots
        are too short for several threads. On a GPU a block is long enough for its transfers to take
        place beside the computing.
        """
        if self._is_on_cpu:
            return {"length": self.width, "threads": torch.get_num_threads()}
        return self.long_blocks | {"threads": 1}

    @property
    def long_blocks(self) -> dict[str, int]:
        """How `score` cuts an array in memory: on a CPU as ever, since its bits depend on that."""
        return {} if self._is_on_cpu else {"length": STREAMED * self.width}

    @property
    def _is_on_cpu(self) -> bool:
        return self.network.device.type == "cpu"

    @cached_property
    def _conversion(self) -> HostConversion:
        """What stands between the data and the network."""
        kind = HostConversion if self._is_on_cpu else DeviceConversion
        has_data, dtype = self.network.has_data[-1], self.network.dtype
        return kind(self.standards, self.pyramid, has_data, dtype, self.width)

    @cached_property
    def prolongations(self) -> list[Prolongation]:
        """The prolongation from each level to the next finer one."""
        has_data = self.network.has_data
        return [Prolongation(a, b, self.network.dtype) for a, b in pairwise(has_data)]

    def encode(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Encode snapshots (t, variable, y, x) to all codes (t, code), coarsest level first."""
        codes, infinite = self._in_widths(self._encode, values, season)
        check_finite(int(infinite.sum()))
        _check_range(max(float(codes.max(initial=0)), -float(codes.min(initial=0))))
        return codes

    def _encode(self, values: Any, season: Any) -> list[Tensor]:
        result = self.network(self._conversion.pixels(values, season), self._ones(len(values)))
        codes = [result.flat_codes(level) for level in range(self.pyramid.levels)]
        return [torch.cat(codes).T, self._conversion.infinite(values)]

    def _ones(self, n: int) -> Tensor:
        return torch.ones(n, dtype=self.network.dtype, device=self.network.device)

    def decode(self, codes: np.ndarray, season: np.ndarray, *, level: int) -> np.ndarray:
        """Decode codes (t, code) of the levels up to one to fields (t, variable, y, x) on its grid.

        Fields are in the data's units.
        """
        decode = partial(self._decode, level=level)
        return self._in_widths(decode, codes, season)[0]

    def _decode(self, codes: Any, season: Any, *, level: int) -> list[Tensor]:
        flat = self._conversion.columns(codes)
        sizes = self.sizes[: level + 1]
        field = self.network.decode(list(flat.split(sizes)), self._ones(len(codes)))
        return [self._conversion.fields(field, season, level)]

    def scatter(self, codes: np.ndarray, *, level: int) -> np.ndarray:
        """Take the codes of one level, (t, channel, y, x), from all codes (t, code).

        They lie on its encoding grid, NaN where not active.
        """
        active = self.active[level]
        start = sum(self.sizes[:level])
        result = np.full((len(codes), *active.shape), np.nan, dtype=codes.dtype)
        result[:, active] = codes[:, start : start + self.sizes[level]]
        return result

    def gather(self, encoding: np.ndarray, *, level: int) -> np.ndarray:
        """Take the active codes, (t, code), from one level's codes (t, channel, y, x)."""
        return encoding[:, self.active[level]]

    def _in_widths(
        self, function: Callable[..., list[Tensor]], *arrays: np.ndarray
    ) -> list[np.ndarray]:
        """Apply a function of `width` samples to any number of them, (t, ...).

        Torch uses one thread: dask, or the blocks of an array in memory, keep the others busy.
        """
        n = len(arrays[0])
        results: list[np.ndarray] = []
        starts = range(0, max(1, n), self.width)
        blocks = ([self._widened(each, start, 0) for each in arrays] for start in starts)
        with threads_for(0):
            streamed = stream(function, blocks, self.network.device)
            for start, parts in zip(starts, streamed, strict=True):
                if n == self.width and self._is_on_cpu:
                    return parts
                if not start:
                    results = [np.empty((n, *part.shape[1:]), part.dtype) for part in parts]
                for result, part in zip(results, parts, strict=True):
                    result[start : start + self.width] = part[: n - start]
        return results

    def _widened(self, array: np.ndarray, start: int, fill: float) -> np.ndarray:
        """Take `width` samples, and fill the last ones up to these."""
        part = array[start : start + self.width]
        missing = self.width - len(part)
        rest = np.full((missing, *array.shape[1:]), fill, dtype=array.dtype)
        return np.concatenate([part, rest]) if missing else part

    def squared_errors(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Sum errors over a block of snapshots for `score`, in the data's units squared.

        Returns
        -------
        numpy.ndarray, shape (1, 2, pixel)
            Sum of squared errors and number of values of every pixel of every level, cut to the
            data's extent, then of every level prolonged to the finest data.
        """
        total: Any = 0.0
        departures, n_infinite = [0.0], 0
        starts = range(0, len(values), self.width)
        blocks = (
            (self._widened(values, start, np.nan), self._widened(season, start, 0))
            for start in starts
        )
        results = stream(self._squared_errors, blocks, self.network.device)
        for errors, largest, infinite in results:
            departures.append(float(largest))
            n_infinite += int(infinite.sum())
            total = total + errors
        check_finite(n_infinite)
        _check_range(float(np.max(departures)))
        return np.asarray(total)[None]

    def _squared_errors(self, values: Any, season: Any) -> list[Tensor]:
        compare, finest = self._conversion.compare, self.pyramid.levels - 1
        targets = self._conversion.targets(values, season)
        pixels = self._conversion.pixels(values, season)
        lowest, highest = torch.aminmax(pixels)
        outputs = self.network(pixels, self._ones(len(values))).outputs
        sums = [compare(field, targets[level], level) for level, field in enumerate(outputs)]
        for level, field in enumerate(outputs):
            for prolong in self.prolongations[level:]:
                field = prolong(field)
            sums.append(compare(field, targets[finest], finest))
        largest = torch.maximum(highest, -lowest)
        return [torch.cat(sums, dim=1), largest, self._conversion.infinite(values)]


def _check_range(largest: float) -> None:
    """Raise a ValueError if codes, or centred and scaled fields, are too large to be decoded."""
    if not largest <= DECODABLE:
        raise ValueError(
            f"the data depart from the fitted centre by {largest:.2g} times the scale that the "
            f"model was fitted with: more than {DECODABLE:.0e} overflows; correct such values"
        )


def _unpickled(state: NetworkState, device: str, *rest: Any) -> Codec:
    """Make the codec that was pickled; one of a GPU on the CPU where there is none."""
    return Codec(from_state(state, find_device("cpu" if device == "cpu" else "auto")), *rest)
