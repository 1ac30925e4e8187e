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
from .grid.fill import fill_and_pad
from .grid.pyramid import Pyramid, restrict_known
from .grid.scaling import Scaling

#: Most and fewest snapshots that go through the network together, and values that they have: more
#: are no faster, and a million pixels of 32 snapshots take 2 GiB on their way.
WIDTHS, TOGETHER = (8, 32), 2**23

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
    def prolongations(self) -> list[Prolongation]:
        """Return the prolongation from each level to the next finer one."""
        has_data = self.network.has_data
        return [Prolongation(a, b, self.network.dtype) for a, b in pairwise(has_data)]

    @property
    def width(self) -> int:
        """Snapshots that go through the network together, by the grid: chunks change no bit."""
        return int(np.clip(TOGETHER // self.network.has_data[-1].numel(), *WIDTHS))

    def encode(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Encode snapshots (t, variable, y, x) to all codes (t, code), coarsest level first."""
        self.standards[-1].check_finite(values)
        codes = _in_widths(self.width, self._encode, values, season, fill=np.nan)
        _check_range(codes)
        return codes

    def _encode(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        standard = self.standards[-1]
        fields = standard.apply(standard.stand_in(values, season), season)
        result = self.network(*self._tensors(fields))
        codes = [result.flat_codes(level) for level in range(self.pyramid.levels)]
        return torch.cat(codes).T.cpu().numpy()

    def _tensors(self, fields: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return centred and scaled snapshots as the network reads them."""
        finest = self.pyramid.levels - 1
        has_data = self.network.has_data[-1].cpu().numpy()
        fill = self.standards[-1].fill
        padded = fill_and_pad(self.pyramid.pad(fields), has_data, self.pyramid, finest, fill)
        return self._columns(padded)

    def _columns(self, values: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        columns = np.ascontiguousarray(values.reshape(len(values), -1).T)
        kind: Any = {"dtype": self.network.dtype, "device": self.network.device}
        return torch.as_tensor(columns, **kind), torch.ones(len(values), **kind)

    def decode(self, codes: np.ndarray, season: np.ndarray, *, level: int) -> np.ndarray:
        """Decode codes (t, code) of the levels up to one to fields (t, variable, y, x) on its grid.

        Fields are in the data's units.
        """
        return _in_widths(self.width, self._decode, codes, season, fill=0.0, level=level)

    def _decode(self, codes: np.ndarray, season: np.ndarray, *, level: int) -> np.ndarray:
        flat, constant = self._columns(codes)
        field = self.network.decode(list(flat.split(self.sizes[: level + 1])), constant)
        standard = self.standards[level]
        values = self._cut(field, level).astype(standard.centre.dtype, copy=False)
        return standard.undo(values, season)

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
            some, seasons = (
                _widened(array[part], self.width, fill)
                for array, fill in ((values, np.nan), (season, 0))
            )
            total = total + self._squared_errors(some, seasons)
        return np.asarray(total)[None]

    def _squared_errors(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        pyramid, finest = self.pyramid, self.pyramid.levels - 1
        standard = self.standards[-1]
        fields = standard.apply(standard.stand_in(values, season), season)
        _check_range(fields)
        known = np.where(np.isfinite(values), standard.apply(values, season), np.nan)
        known = np.where(standard.valid, known, np.nan)
        outputs = self.network(*self._tensors(fields)).outputs
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
    """Fill an array of at most `width` samples up to that many."""
    missing = width - len(array)
    rest = np.full((missing, *array.shape[1:]), fill, dtype=array.dtype)
    return np.concatenate([array, rest]) if missing else array


def _in_widths(
    width: int,
    function: Callable[..., np.ndarray],
    array: np.ndarray,
    season: np.ndarray,
    *,
    fill: float,
    **kwargs: Any,
) -> np.ndarray:
    """Apply a function of `width` samples to any number of them: so few stay in the cache."""
    parts = []
    for start in range(0, max(1, len(array)), width):
        part = array[start : start + width]
        seasons = _widened(season[start : start + width], width, 0)
        parts.append(function(_widened(part, width, fill), seasons, **kwargs)[: len(part)])
    return np.concatenate(parts)
