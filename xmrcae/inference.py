"""The fitted network on blocks of snapshots: arrays in the data's units in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from .core.matrices import Prolongation
from .core.network import Network
from .grid.fill import complete
from .grid.pyramid import Pyramid
from .grid.scaling import Standard

#: Snapshots that go through the network together. Always as many, so that no bit depends on the chunks of the data.
WIDTH = 32


class Inference:
    """A fitted network with what stands between it and the data.

    Parameters
    ----------
    network : Network
        The network.
    pyramid : Pyramid
        Grid and levels.
    standard : Standard
        Centring and scaling of the finest level.
    token : str
        Identifies the model to dask.
    """

    def __init__(self, network: Network, pyramid: Pyramid, standard: Standard, token: str) -> None:
        self.network, self.pyramid, self.token = network, pyramid, token
        self.standards = standard.at_levels(pyramid)
        self.active = [
            np.concatenate([
                *([level.deepening.cells.cpu().numpy()] if k == 0 else []),
                *(np.repeat(group.mask.cpu().numpy()[None], group.channels, axis=0) for group in level.groups),
                np.zeros((0, *pyramid.shape(k - 1)), dtype=bool),
            ])
            for k, level in enumerate(network.levels)
        ]  # fmt: skip
        self.groups = [
            np.concatenate([
                np.zeros(standard.valid.shape[0] if k == 0 else 0, dtype=np.int64),
                *(np.full(group.channels, j) for j, group in enumerate(level.groups, start=1)),
            ]).astype(np.int64)
            for k, level in enumerate(network.levels)
        ]  # fmt: skip
        self.sizes = [int(active.sum()) for active in self.active]

    def __dask_tokenize__(self) -> Any:
        weights = torch.nn.utils.parameters_to_vector(self.network.parameters()).detach().cpu().numpy()
        return "xmrcae.Inference", self.token, weights.tobytes()  # a fit that goes on keeps its token

    def __reduce__(self) -> Any:
        """Pickle masks and weights: the network's matrices are a hundred times as large and quickly made of them."""
        network = self.network
        names = ("widening", "restriction", "activation", "dtype", "anchor")
        arguments = {name: getattr(network, name) for name in names}
        projection = None
        if network.projection is not None:
            projection = [weight.cpu().numpy() for weight in network.projection]
        groups = [[(group.mask.cpu().numpy(), group.channels) for group in level.groups] for level in network.levels]
        weights = {name: weight.cpu().numpy() for name, weight in network.state_dict().items()}
        has_data = [has.cpu().numpy() for has in network.has_data]
        device = network.has_data[0].device.type
        return _rebuild, (
            has_data, arguments, projection, groups, weights, device, self.pyramid, self.standards[-1], self.token
        )  # fmt: skip

    @cached_property
    def prolongations(self) -> list[Prolongation]:
        """From each level to the next finer one."""
        has_data = self.network.has_data
        return [Prolongation(a, b, self.network.dtype) for a, b in pairwise(has_data)]

    def encode(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Snapshots (t, variable, y, x) to all codes (t, code), coarsest level first."""
        standard = self.standards[-1]
        standard.check_finite(values)
        fields = standard.apply(standard.stand_in(values, season), season)
        return _in_widths(self._encode, fields)

    def _encode(self, fields: np.ndarray) -> np.ndarray:
        result = self.network(*self._tensors(fields))
        return torch.cat([result.flat_codes(level) for level in range(self.pyramid.levels)]).T.cpu().numpy()

    def _tensors(self, fields: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Centred and scaled snapshots as the network reads them."""
        finest = self.pyramid.levels - 1
        has_data = self.network.has_data[-1].cpu().numpy()
        padded = complete(self.pyramid.pad(fields), has_data, self.pyramid, finest, self.standards[-1].fill)
        return self._columns(padded)

    def _columns(self, values: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        network = self.network
        columns = np.ascontiguousarray(values.reshape(len(values), -1).T)
        device = network.has_data[0].device
        tensor = torch.as_tensor(columns, dtype=network.dtype, device=device)
        return tensor, torch.ones(len(values), dtype=network.dtype, device=device)

    def decode(self, codes: np.ndarray, season: np.ndarray, *, level: int) -> np.ndarray:
        """Codes (t, code) of the levels up to one to fields (t, variable, y, x) on its grid, in the data's units."""
        standard = self.standards[level]
        fields = _in_widths(self._decode, codes, level=level)
        return standard.undo(fields.astype(standard.centre.dtype, copy=False), season)

    def _decode(self, codes: np.ndarray, *, level: int) -> np.ndarray:
        flat, one = self._columns(codes)
        field = self.network.decode(list(flat.split(self.sizes[: level + 1])), one)
        return self._cut(field, level)

    def _cut(self, field: torch.Tensor, level: int) -> np.ndarray:
        shape = (field.shape[1], *self.standards[level].valid.shape[:1], *self.pyramid.shape(level))
        return field.T.reshape(shape).cpu().numpy()[self.pyramid.cut(level)]

    def scatter(self, codes: np.ndarray, *, level: int) -> np.ndarray:
        """All codes (t, code) to those of one level on its encoding grid, (t, channel, y, x); NaN where not active."""
        active = self.active[level]
        start = sum(self.sizes[:level])
        result = np.full((len(codes), *active.shape), np.nan, dtype=codes.dtype)
        result[:, active] = codes[:, start : start + self.sizes[level]]
        return result

    def gather(self, encoding: np.ndarray, *, level: int) -> np.ndarray:
        """One level's codes (t, channel, y, x) to its active ones, (t, code)."""
        return encoding[:, self.active[level]]

    def squared_errors(self, values: np.ndarray, season: np.ndarray) -> np.ndarray:
        """Sums over a block of snapshots for `score`, in the data's units squared.

        Returns
        -------
        numpy.ndarray, shape (1, 2, pixel)
            Sum of squared errors and number of values of every pixel of every level, cut to the data's extent, then
            of every level prolonged to the finest data.
        """
        standard = self.standards[-1]
        standard.check_finite(values)
        fields = standard.apply(standard.stand_in(values, season), season)
        known = np.where(np.isfinite(values), standard.apply(values, season), np.nan)
        known = np.where(standard.valid, known, np.nan)
        total: Any = 0.0
        for start in range(0, len(fields), WIDTH):
            total = total + self._squared_errors(*_widened(fields[start : start + WIDTH], known[start : start + WIDTH]))
        return np.asarray(total)[None]

    def _squared_errors(self, fields: np.ndarray, known: np.ndarray) -> np.ndarray:
        pyramid, finest = self.pyramid, self.pyramid.levels - 1
        outputs = self.network(*self._tensors(fields)).outputs
        target = np.where(pyramid.may_have_data(finest), pyramid.pad(known), np.nan)
        targets: list[np.ndarray] = [target]
        for level in range(finest - 1, -1, -1):
            coarse, has = pyramid.restrict(targets[0], np.isfinite(targets[0]), level)
            targets.insert(0, np.where(has, coarse, np.nan))
        sums = []
        for level, field in enumerate(outputs):
            sums.append(self._compare(self._cut(field, level), targets[level][pyramid.cut(level)]))
        for level, field in enumerate(outputs):
            for prolong in self.prolongations[level:]:
                field = prolong(field)
            sums.append(self._compare(self._cut(field, finest), targets[-1][pyramid.cut(finest)]))
        return np.concatenate(sums, axis=1)

    def _compare(self, field: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Sum over snapshots of squared differences, and how many there are, of each pixel."""
        scale = self.standards[-1].scale[:, None, None]
        difference = (field.astype(np.float64) - target) * scale
        known = np.isfinite(difference)
        return np.stack([np.where(known, difference**2, 0).sum(0).ravel(), known.sum(0).ravel()])


def _rebuild(
    has_data: list[np.ndarray], arguments: dict[str, Any], projection: list[np.ndarray] | None,
    groups: list[list[tuple[np.ndarray, int]]], weights: dict[str, np.ndarray], device: str, pyramid: Pyramid,
    standard: Standard, token: str,
) -> Inference:  # fmt: skip
    """What `Inference.__reduce__` has pickled; on the CPU where there is no such device."""
    device = device if device == "cpu" or torch.cuda.is_available() else "cpu"
    counts = np.zeros(has_data[-1].shape, dtype=bool)
    counts[pyramid.cut(pyramid.levels - 1)] = standard.valid
    network = Network(
        [torch.tensor(has, device=device) for has in has_data], torch.as_tensor(counts, device=device), **arguments,
        projection=None if projection is None else [torch.tensor(weight, device=device) for weight in projection],
    )  # fmt: skip
    network.grow(groups)
    network.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()})
    return Inference(network, pyramid, standard, token)


def _widened(*arrays: np.ndarray) -> Sequence[np.ndarray]:
    """Arrays of at most WIDTH samples, filled up with NaN (the last) or 0."""
    missing = WIDTH - len(arrays[0])
    fills = [0.0] * (len(arrays) - 1) + [np.nan if len(arrays) > 1 else 0.0]
    return [
        np.concatenate([a, np.full((missing, *a.shape[1:]), f, dtype=a.dtype)]) if missing else a
        for a, f in zip(arrays, fills, strict=True)
    ]


def _in_widths(function: Any, array: np.ndarray, **kwargs: Any) -> np.ndarray:
    """Apply a function of WIDTH samples to any number of them."""
    parts = []
    for start in range(0, len(array), WIDTH):
        part = array[start : start + WIDTH]
        parts.append(function(_widened(part)[0], **kwargs)[: len(part)])
    return np.concatenate(parts) if parts else function(np.zeros((WIDTH, *array.shape[1:]), array.dtype), **kwargs)[:0]
