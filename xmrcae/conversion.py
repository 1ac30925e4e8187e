"""From snapshots in the data's units to what the network reads, and back.

On a CPU NumPy does it, band by band while a band is in the cache; on a GPU torch does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from array_api_compat import array_namespace
from torch import Tensor

from .grid.fill import fill_and_pad
from .grid.pyramid import Pyramid, restrict_known
from .grid.scaling import Scaling
from .handover import Array

#: Numbers of a band of rows, which is centred, scaled and laid out while it is in the cache.
BAND = 2**16


class HostConversion:
    """Centring, scaling and padding in NumPy.

    Parameters
    ----------
    standards : list of Scaling
        Of each level, coarsest first.
    pyramid : Pyramid
        Grid and levels.
    has_data : Tensor of bool, shape (variable, y, x)
        Of the finest level, on the network's device.
    dtype : torch.dtype
        In which the network computes.
    width : int
        How many snapshots are converted together.
    """

    def __init__(
        self,
        standards: Sequence[Scaling],
        pyramid: Pyramid,
        has_data: Tensor,
        dtype: torch.dtype,
        width: int,
    ) -> None:
        self.pyramid, self.has_data, self.dtype, self.width = pyramid, has_data, dtype, width
        self.standards = [standard.converted(self._converted) for standard in standards]

    def _converted(self, values: np.ndarray) -> Array:
        """Turn an array of NumPy into the kind of array that this computes with."""
        return values

    def _native(self, tensor: Tensor) -> Array:
        """Turn a tensor of the network's device into the kind of array that this computes with."""
        return tensor.numpy()

    def pixels(self, values: Any, season: Any) -> Tensor:
        """Centre, scale, pad and fill snapshots (t, variable, y, x): (padded pixel, t)."""
        standard, n = self.standards[-1], len(values)
        fields = torch.empty(1 + standard.valid.size, n, dtype=self.dtype)
        fields[0] = 0  # what stands where there are no data
        on_grid = fields[1:].numpy().reshape(*standard.valid.shape, n)
        for rows, band in self._bands[-1]:
            on_grid[:, rows] = np.moveaxis(band.standardize(values[:, :, rows], season), 0, -1)
        return self._padded(fields)

    def columns(self, codes: Any) -> Tensor:
        """Return codes (t, code) as the network reads them: (code, t)."""
        return torch.from_numpy(np.array(codes.T, order="C")).to(self.dtype)

    def infinite(self, values: Any) -> Tensor:
        """Count the infinite values of each snapshot on valid pixels, (t,)."""
        infinite = np.isinf(values)
        if infinite.any():
            infinite &= self.standards[-1].valid
            return torch.from_numpy(infinite.sum((1, 2, 3)))
        return torch.zeros(len(values), dtype=torch.int64)

    def targets(self, values: Array, season: Array) -> list[Array]:
        """Centre and scale snapshots (t, variable, y, x), and restrict them to each level.

        Levels are cut to the data's extent, and NaN where they have no data.
        """
        xp, standard, pyramid = array_namespace(values), self.standards[-1], self.pyramid
        known = xp.where(xp.isfinite(values), standard.apply(values, season), xp.nan)
        known = xp.where(standard.valid, known, xp.nan)
        levels = enumerate(restrict_known(pyramid, known))
        return [target[pyramid.cut(level)] for level, target in levels]

    def fields(self, field: Tensor, season: Any, level: int) -> Tensor:
        """Return what is decoded, (padded pixel, t), to the data's units: (t, variable, y, x)."""
        fields = self.cut(field, level)
        result = np.empty(fields.shape, self.standards[level].centre.dtype)
        for rows, band in self._bands[level]:
            values = fields[:, :, rows].astype(result.dtype, copy=False)
            result[:, :, rows] = band.undo(values, season)
        return torch.from_numpy(result)

    def cut(self, field: Tensor, level: int) -> Array:
        """Cut a field of a level, (padded pixel, t), to the data's extent: (t, variable, y, x)."""
        shape = (field.shape[1], *self.standards[level].valid.shape[:1], *self.pyramid.shape(level))
        return self._native(field.T.reshape(shape)[self.pyramid.cut(level)])

    def compare(self, field: Tensor, target: Array, level: int) -> Tensor:
        """Sum squared differences over snapshots at each pixel of a level, and count them.

        `field` is (padded pixel, t) and `target` (t, variable, y, x), NaN where there is none; the
        result, (2, pixel), is in the data's units squared.
        """
        xp = array_namespace(target)
        difference = xp.astype(self.cut(field, level), xp.float64) - target
        difference *= self.standards[-1].scale[:, None, None]
        known = xp.isfinite(difference)
        squares = xp.sum(xp.where(known, difference**2, 0), axis=0)
        sums = [squares.ravel(), xp.sum(known, axis=0, dtype=xp.float64).ravel()]
        return torch.as_tensor(xp.stack(sums))

    def _padded(self, fields: Tensor) -> Tensor:
        """Pad and fill fields of the finest level, (1 + pixel, t), of which the first is 0."""
        padded = fields.index_select(0, self._sources)
        how = self.standards[-1].fill
        if how:
            on_grid = padded.T.reshape(-1, *self.has_data.shape)
            arrays = self._native(on_grid), self._native(self.has_data)
            filled = torch.as_tensor(fill_and_pad(*arrays, self.pyramid, self._finest, how))
            padded = filled.flatten(1).T.contiguous()
        return padded

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
    def _sources(self) -> Tensor:
        """Which pixel of the data each padded pixel shows, counted from 1; 0 for none."""
        valid = self.standards[-1].valid
        numbers = torch.arange(1, 1 + math.prod(valid.shape), device=self.has_data.device)
        padded = self.pyramid.pad(numbers.reshape(1, *valid.shape))
        return fill_and_pad(padded, self.has_data, self.pyramid, self._finest, 0).flatten()

    @property
    def _finest(self) -> int:
        return self.pyramid.levels - 1


class DeviceConversion(HostConversion):
    """The same in torch, where the network is; only ``fill="harmonic"`` is computed on the host."""

    def _converted(self, values: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), device=self.has_data.device)

    def _native(self, tensor: Tensor) -> Tensor:
        return tensor

    def pixels(self, values: Tensor, season: Tensor) -> Tensor:
        """Centre, scale, pad and fill snapshots (t, variable, y, x): (padded pixel, t)."""
        standard = self.standards[-1]
        scaled = standard.apply(standard.stand_in(values, season), season)
        flat = scaled.to(self.dtype).flatten(1).T
        return self._padded(torch.cat([torch.zeros_like(flat[:1]), flat]))

    def columns(self, codes: Tensor) -> Tensor:
        """Return codes (t, code) as the network reads them: (code, t)."""
        return codes.T.contiguous().to(self.dtype)

    def infinite(self, values: Tensor) -> Tensor:
        """Count the infinite values of each snapshot on valid pixels, (t,)."""
        return (values.isinf() & self.standards[-1].valid).sum((1, 2, 3))

    def fields(self, field: Tensor, season: Tensor, level: int) -> Tensor:
        """Return what is decoded, (padded pixel, t), to the data's units: (t, variable, y, x)."""
        standard = self.standards[level]
        return standard.undo(self.cut(field, level).to(standard.centre.dtype), season)
