"""The samples of a level as tensors, and random combinations of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..handover import LevelData


@dataclass(frozen=True)
class Samples:
    """The samples of one level: fields along the first axis, samples along the second.

    Attributes
    ----------
    pixels : Tensor, shape (variable * pixel, sample)
        On the device if it has room for them, else on the host.
    constant : Tensor, shape (sample,)
        What a bias is multiplied with; see :class:`~xmrcae.handover.LevelData`.
    counts, weights : Tensor, shape (variable * pixel,)
        Valid pixels, and their weights in the means, of sum 1.
    rank : int
        Number of leading samples to train on.
    """

    pixels: Tensor
    constant: Tensor
    counts: Tensor
    weights: Tensor
    rank: int

    @classmethod
    def of(cls, data: LevelData, device: torch.device) -> Samples:
        """Those of `data`; fields that lie in memory with the sample last are not copied."""
        fields = np.ascontiguousarray(data.samples.reshape(len(data.samples), data.counts.size).T)
        dtype = torch.float32
        place = device if fits(device, fields.nbytes) else "cpu"
        return cls(
            pixels=torch.as_tensor(fields, dtype=dtype, device=place),
            constant=torch.as_tensor(data.constant, dtype=dtype, device=device),
            counts=torch.as_tensor(data.counts.ravel(), device=device),
            weights=torch.as_tensor(mean_weights(data).ravel(), dtype=dtype, device=device),
            rank=data.rank,
        )

    @property
    def n_snapshots(self) -> Tensor:
        """The number of snapshots that the samples stand for."""
        return torch.dot(self.constant, self.constant)

    def block(self, part: slice) -> tuple[Tensor, Tensor]:
        """Some of the samples, on the device, and their `constant`."""
        return self.pixels[:, part].to(self.constant.device), self.constant[part]


def mean_weights(data: LevelData) -> np.ndarray:
    """The weights of the pixels in the means, of sum 1, (variable, y, x); 0 where not counted."""
    weights = data.weights * data.counts
    return weights / weights.ravel().sum()


def fits(device: torch.device, size: int) -> bool:
    """Whether a device can hold that many bytes in half of what it has free."""
    return device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] / 2


def sketched(data: Sequence[Samples], n: int, seed: Sequence[int]) -> list[Samples]:
    """The mean and `n` leading vectors of each level with `n` random combinations of the others.

    The expectation of the combinations' sum of squares, at every pixel and after any linear map, is
    that of the vectors that they stand for. The combinations are the same on all levels.
    """
    first = data[0]
    if first.rank <= 1 + 2 * n:
        return list(data)
    normal = np.random.default_rng(seed).standard_normal((first.rank - 1 - n, n)) / np.sqrt(n)
    result = []
    for samples in data:
        leading, tail = samples.pixels[:, : 1 + n], samples.pixels[:, 1 + n : samples.rank]
        combinations = tail @ torch.as_tensor(normal, dtype=tail.dtype, device=tail.device)
        pixels = torch.cat([leading, combinations], dim=1)
        n_samples = pixels.shape[1]
        constant = samples.constant[:n_samples]
        result.append(replace(samples, pixels=pixels, constant=constant, rank=n_samples))
    return result
