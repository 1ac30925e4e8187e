"""The fitted network on blocks of snapshots: arrays in the data's units in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from .core.matrices import Prolongation
from .core.network import Network
from .core.projection import from_state
from .core.state import NetworkState
from .core.threads import threads_for
from .grid.fill import fill_and_pad
from .grid.pyramid import Pyramid, restrict_known
from .grid.scaling import Scaling

#: Most snapshots that go through the network together, and how many numbers of the finest level
#: they may hold: few stay in the cache, while many share each look at the entries of a matrix.
WIDTH, NUMBERS = 32, 2**22

#: Numbers of a band of rows, which is centred, scaled and laid out while it is in the cache.
BAND = 2**16

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
        # The weights are part of it: going on from a checkpoint keeps the id but changes them.
        return "xmrcae.Codec", self.token, self.network.vector().numpy().tobytes()

    def __reduce__(self) -> Any:
        """Pickle the state alone.

        The matrices take a hundred times the space and are quickly made.
        """
        state, device = self.network.state(), self.network.device.type
        return _unpickled, (state, device, self.pyramid, self.standards[-1], self.token)

    @cached_property
    def width(self) -> int:
        """How many snapshots go through the network together.

        The number depends on the grid alone, so that chunks change no bit.
        """
        n_pixels = self.network.has_data[-1].numel()
        return next((n for n in (32, 16) if n * n_pixels <= NUMBERS), 8)

    @property
    def blocks(self) -> dict[str, int]:
        """How an array in memory is cut into blocks, and how many threads share them.

        A thread for each block, in which torch uses no others: products of few snapshots are too
        short for several threads.
        """
        on_cpu = self.network.device.type == "cpu"
        return {"length": self.width, "threads": torch.get_num_threads() if on_cpu else 1}

    @cached_property
    def _bands(self) -> list[list[tuple[slice, Scaling]]]:
        """Bands of rows of each level, with their centring and scaling."""
        result = []
        for standard in self.standards:
            n_variables, n_rows, n_columns = standard.valid.shape
            height = max(1, BAND // (self.width * n_variables * n_columns))
            bands = [slice(start, start + height) for start in range(0, n_rows, height)]
            result.append([(band, standard.rows(band)) for band in bands])
        return result

    @cached_property
    def prolongations(self) -> list[Prolongation]:
        """The prolongation from each level to the next finer one."""
        has_data = self.network.has_data
        return [Prolongation(a, b, self.network.dtype) for a, b in pairwise(has_data)]

    def encode(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Encode snapshots (t, variable, y, x) to all codes (t, code), coarsest level first."""
        self.standards[-1].check_finite(values)
        codes = self._in_widths(self._encode, values, season)
        _check_range(codes)
        return codes

    def _encode(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        result = self.network(*self._tensors(values, season))
        codes = [result.flat_codes(level) for level in range(self.pyramid.levels)]
        return torch.cat(codes).T.cpu().numpy()

    def _tensors(self, values: np.ndarray, season: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return snapshots, centred and scaled, as the network reads them."""
        standard, n = self.standards[-1], len(values)
        fields = torch.empty(1 + standard.valid.size, n, dtype=self.network.dtype)
        fields[0] = 0  # what stands where there are no data
        on_grid = fields[1:].numpy().reshape(*standard.valid.shape, n)
        for rows, band in self._bands[-1]:
            on_grid[:, rows] = np.moveaxis(band.standardize(values[:, :, rows], season), 0, -1)
        padded = fields.index_select(0, self._sources)  # (padded pixel, t)
        if standard.fill:
            shape = self.network.has_data[-1].shape
            return self._columns(self._filled(padded.T.reshape(n, *shape).numpy(), standard.fill))
        kind: Any = {"dtype": self.network.dtype, "device": self.network.device}
        return padded.to(self.network.device), torch.ones(n, **kind)

    @cached_property
    def _sources(self) -> torch.Tensor:
        """Which pixel of the data each padded pixel shows, counted from 1; 0 for none."""
        valid = self.standards[-1].valid
        numbers = 1 + np.arange(valid.size).reshape(1, *valid.shape)
        return torch.as_tensor(self._filled(self.pyramid.pad(numbers), 0).ravel())

    def _filled(self, padded: np.ndarray, how: Any) -> np.ndarray:
        """Fill the land and the padding of padded fields of the finest level."""
        has_data = self.network.has_data[-1].cpu().numpy()
        return fill_and_pad(padded, has_data, self.pyramid, self.pyramid.levels - 1, how)

    def _columns(self, values: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        columns = np.ascontiguousarray(values.reshape(len(values), -1).T)
        kind: Any = {"dtype": self.network.dtype, "device": self.network.device}
        return torch.as_tensor(columns, **kind), torch.ones(len(values), **kind)

    def decode(self, codes: np.ndarray, season: np.ndarray, *, level: int) -> np.ndarray:
        """Decode codes (t, code) of the levels up to one to fields (t, variable, y, x) on its grid.

        Fields are in the data's units.
        """
        return self._in_widths(self._decode, codes, season, level=level)

    def _decode(self, codes: np.ndarray, season: np.ndarray, *, level: int) -> np.ndarray:
        flat, constant = self._columns(codes)
        field = self.network.decode(list(flat.split(self.sizes[: level + 1])), constant)
        fields = self._cut(field, level)
        result = np.empty(fields.shape, self.standards[level].centre.dtype)
        for rows, band in self._bands[level]:
            values = fields[:, :, rows].astype(result.dtype, copy=False)
            result[:, :, rows] = band.undo(values, season)
        return result

    def _cut(self, field: torch.Tensor, level: int) -> np.ndarray:
        shape = (field.shape[1], *self.standards[level].valid.shape[:1], *self.pyramid.shape(level))
        return field.T.reshape(shape).cpu().numpy()[self.pyramid.cut(level)]

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
        self,
        function: Callable[..., np.ndarray],
        array: np.ndarray,
        season: np.ndarray,
        **kwargs: Any,
    ) -> np.ndarray:
        """Apply a function of `width` samples to any number of them.

        Torch uses one thread: dask, or the blocks of an array in memory, keep the others busy.
        """
        parts = []
        with threads_for(0):
            for start in range(0, max(1, len(array)), self.width):
                part = array[start : start + self.width]
                seasons = _widened(season[start : start + self.width], self.width, 0)
                result = function(_widened(part, self.width, 0), seasons, **kwargs)
                parts.append(result[: len(part)])
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def squared_errors(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Sum errors over a block of snapshots for `score`, in the data's units squared.

        Returns
        -------
        numpy.ndarray, shape (1, 2, pixel)
            Sum of squared errors and number of values of every pixel of every level, cut to the
            data's extent, then of every level prolonged to the finest data.
        """
        self.standards[-1].check_finite(values)
        total: Any = 0.0
        for start in range(0, len(values), self.width):
            part = slice(start, start + self.width)
            some = _widened(values[part], self.width, np.nan)
            total = total + self._squared_errors(some, _widened(season[part], self.width, 0))
        return np.asarray(total)[None]

    def _squared_errors(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        pyramid, finest = self.pyramid, self.pyramid.levels - 1
        standard = self.standards[-1]
        pixels, constant = self._tensors(values, season)
        _check_range(pixels.cpu().numpy())
        known = np.where(np.isfinite(values), standard.apply(values, season), np.nan)
        known = np.where(standard.valid, known, np.nan)
        outputs = self.network(pixels, constant).outputs
        targets = restrict_known(pyramid, known)
        sums = []
        for level, field in enumerate(outputs):
            sums.append(self._compare(self._cut(field, level), targets[level][pyramid.cut(level)]))
        for level, field in enumerate(outputs):
            for prolong in self.prolongations[level:]:
                field = prolong(field)
            sums.append(self._compare(self._cut(field, finest), targets[-1][pyramid.cut(finest)]))
        return np.concatenate(sums, axis=1)

    def _compare(self, field: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Sum squared differences over snapshots at each pixel, and count them."""
        scale = self.standards[-1].scale[:, None, None]
        difference = (field.astype(np.float64) - target) * scale
        known = np.isfinite(difference)
        return np.stack([np.where(known, difference**2, 0).sum(0).ravel(), known.sum(0).ravel()])


def _check_range(values: np.ndarray) -> None:
    """Raise a ValueError if codes, or centred and scaled fields, are too large to be decoded."""
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    if not largest <= DECODABLE:
        raise ValueError(
            f"the data depart from the fitted centre by {largest:.2g} times the scale that the "
            f"model was fitted with: more than {DECODABLE:.0e} overflows; correct such values"
        )


def _unpickled(state: NetworkState, device: str, *rest: Any) -> Codec:
    """Make the codec that was pickled; on the CPU where there is no such device."""
    device = device if device == "cpu" or torch.cuda.is_available() else "cpu"
    return Codec(from_state(state, device), *rest)


def _widened(array: np.ndarray, width: int, fill: float) -> np.ndarray:
    """Fill an array of at most `width` samples up to these."""
    missing = width - len(array)
    rest = np.full((missing, *array.shape[1:]), fill, dtype=array.dtype)
    return np.concatenate([array, rest]) if missing else array
