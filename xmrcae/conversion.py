"""From snapshots in the data's units to what the network reads, and back.

On a CPU NumPy does it, band by band while a band is in the cache; on a GPU torch does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .grid.fill import fill_and_pad
from .grid.pyramid import Pyramid
from .grid.scaling import Scaling

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

    xp: Any = np  #: The arrays that are taken are of this package.

    def __init__(
        self,
        standards: Sequence[Scaling],
        pyramid: Pyramid,
        has_data: Tensor,
        dtype: torch.dtype,
        width: int,
    ) -> None:
        self.standards, self.pyramid, self.has_data = standards, pyramid, has_data
        self.dtype, self.width = dtype, width

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

    def fields(self, field: Tensor, season: Any, level: int) -> Tensor:
        """Return what is decoded, (padded pixel, t), to the data's units: (t, variable, y, x)."""
        fields = self.cut(field, level)
        result = np.empty(fields.shape, self.standards[level].centre.dtype)
        for rows, band in self._bands[level]:
            values = fields[:, :, rows].astype(result.dtype, copy=False)
            result[:, :, rows] = band.undo(values, season)
        return torch.from_numpy(result)

    def cut(self, field: Tensor, level: int) -> Any:
        """Cut a field of a level, (padded pixel, t), to the data's extent: (t, variable, y, x)."""
        return self._cut(field, level).numpy()

    def compare(self, field: Tensor, target: Any, level: int) -> Tensor:
        """Sum squared differences over snapshots at each pixel of a level, and count them.

        `field` is (padded pixel, t) and `target` (t, variable, y, x), NaN where there is none; the
        result, (2, pixel), is in the data's units squared.
        """
        xp = self.xp
        difference = xp.asarray(self.cut(field, level), dtype=xp.float64) - target
        difference *= self._scale
        known = xp.isfinite(difference)
        squares = xp.where(known, difference**2, 0).sum(0)
        sums = [squares.ravel(), known.sum(0, dtype=xp.float64).ravel()]
        return torch.as_tensor(xp.stack(sums))

    @property
    def _scale(self) -> Any:
        return self.standards[-1].scale[:, None, None]

    def _cut(self, field: Tensor, level: int) -> Tensor:
        shape = (field.shape[1], *self.standards[level].valid.shape[:1], *self.pyramid.shape(level))
        return field.T.reshape(shape)[self.pyramid.cut(level)]

    def _padded(self, fields: Tensor) -> Tensor:
        """Pad and fill fields of the finest level, (1 + pixel, t), of which the first is 0."""
        padded = fields.index_select(0, self._sources)
        how = self.standards[-1].fill
        if how:
            n, device = padded.shape[1], padded.device
            on_grid = padded.T.reshape(n, *self.has_data.shape).cpu().numpy()
            filled = self._filled(on_grid, how).reshape(n, -1).T
            padded = torch.from_numpy(np.ascontiguousarray(filled)).to(device)
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
        numbers = 1 + np.arange(valid.size).reshape(1, *valid.shape)
        sources = self._filled(self.pyramid.pad(numbers), 0).ravel()
        return torch.as_tensor(sources, device=self.has_data.device)

    def _filled(self, padded: np.ndarray, how: Any) -> np.ndarray:
        """Fill the land and the padding of padded fields of the finest level."""
        has_data = self.has_data.cpu().numpy()
        return fill_and_pad(padded, has_data, self.pyramid, self.pyramid.levels - 1, how)


class DeviceConversion(HostConversion):
    """The same in torch, where the network is; only ``fill="harmonic"`` is computed on the host."""

    xp = torch

    def pixels(self, values: Tensor, season: Tensor) -> Tensor:
        """Centre, scale, pad and fill snapshots (t, variable, y, x): (padded pixel, t)."""
        centre, mean, scale, _ = self._tensors[-1]
        centre = centre[season] if self.standards[-1].monthly else centre
        mean = centre if self.standards[-1].monthly else mean
        scaled = (torch.where(values.isfinite(), values, mean.to(values.dtype)) - centre) / scale
        flat = scaled.to(self.dtype).flatten(1).T
        return self._padded(torch.cat([torch.zeros_like(flat[:1]), flat]))

    def columns(self, codes: Tensor) -> Tensor:
        """Return codes (t, code) as the network reads them: (code, t)."""
        return codes.T.contiguous().to(self.dtype)

    def infinite(self, values: Tensor) -> Tensor:
        """Count the infinite values of each snapshot on valid pixels, (t,)."""
        return (values.isinf() & self._tensors[-1][-1]).sum((1, 2, 3))

    def fields(self, field: Tensor, season: Tensor, level: int) -> Tensor:
        """Return what is decoded, (padded pixel, t), to the data's units: (t, variable, y, x)."""
        centre, _, scale, valid = self._tensors[level]
        centre = centre[season] if self.standards[level].monthly else centre
        values = self._cut(field, level).to(centre.dtype)
        return values * scale + torch.where(valid, centre, torch.nan)

    def cut(self, field: Tensor, level: int) -> Tensor:
        """Cut a field of a level, (padded pixel, t), to the data's extent: (t, variable, y, x)."""
        return self._cut(field, level)

    @cached_property
    def _scale(self) -> Tensor:
        return torch.as_tensor(super()._scale, device=self.has_data.device)

    @cached_property
    def _tensors(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Centre (season, variable, y, x), mean, scale and valid pixels of each level."""
        device, result = self.has_data.device, []
        for standard in self.standards:
            centre, mean, valid = (
                torch.as_tensor(np.ascontiguousarray(each), device=device)
                for each in (standard.centre, standard.mean, standard.valid)
            )
            scale = torch.as_tensor(standard.scale, dtype=centre.dtype, device=device)
            result.append((centre, mean, scale[:, None, None], valid))
        return result
