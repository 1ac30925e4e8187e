"""The samples of a level as tensors, and random combinations of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from ..handover import LevelData


#: Numbers of one level, samples times pixels, that a stage trains on unless told otherwise.
BUDGET = 2**19

#: Fewest leading vectors, and combinations of the others, that the budget may leave of a level.
LEAST_SKETCH = 8

#: Rows of a matrix that a GPU multiplies at a time: as float64 they take twice their memory.
ROWS = 2**16

#: On a GPU, samples are filled up to multiples of this: kernels then load four at a time.
MULTIPLE = 16


@dataclass(frozen=True)
class Samples:
    """The samples of one level: fields along the first axis, samples along the second.

    Attributes
    ----------
    pixels : Tensor, shape (variable * pixel, sample)
        On the device, or on the host if there are too many.
    constant : Tensor, shape (sample,)
        What a bias is multiplied with; see :class:`~xmrcae.handover.LevelData`.
    counts, weights : Tensor, shape (variable * pixel,)
        Valid pixels, and their weights in the means, of sum 1.
    rank : int
        Number of leading samples to train on.
    padding : int
        Number of zero samples behind these; they change no sum.
    """

    pixels: Tensor
    constant: Tensor
    counts: Tensor
    weights: Tensor
    rank: int
    padding: int = 0

    @classmethod
    def of(
        cls, data: LevelData, device: torch.device, *, place: torch.device | None = None
    ) -> Samples:
        """Take those of `data`; fields that lie in memory with the sample last are not copied.

        They are for a device, and lie at another place, the host, if one is given.
        """
        fields = torch.as_tensor(data.samples).reshape(len(data.constant), data.counts.size)
        dtype = torch.float32
        samples = cls(
            pixels=fields.T.contiguous().to(place or device, dtype),
            constant=torch.as_tensor(data.constant, dtype=dtype, device=device),
            counts=torch.as_tensor(data.counts.ravel(), device=device),
            weights=torch.as_tensor(mean_weights(data).ravel(), dtype=dtype, device=device),
            rank=data.rank,
        )
        return samples.padded(samples.multiple)

    @property
    def n_snapshots(self) -> Tensor:
        """The number of snapshots that the samples stand for."""
        return scalar_product(self.constant, self.constant)

    @property
    def leading(self) -> slice:
        """The samples to train on, with their padding."""
        return slice(0, self.rank + self.padding)

    @property
    def multiple(self) -> int:
        """What the numbers of samples should be multiples of where they are."""
        return MULTIPLE if self.pixels.is_cuda else 1

    def padded(self, multiple: int) -> Samples:
        """Fill the leading samples, and the others, up with zeros to a multiple of some number."""
        numbers = self.rank, len(self.constant) - self.rank
        missing = [-number % multiple for number in numbers]
        if not any(missing):
            return self

        def fill(values: Tensor) -> Tensor:
            parts = []
            for part, n in zip(values.split(numbers, dim=-1), missing, strict=True):
                parts += [part, values.new_zeros(*values.shape[:-1], n)]
            return torch.cat(parts, dim=-1)

        pixels, constant = fill(self.pixels), fill(self.constant)
        return replace(self, pixels=pixels, constant=constant, padding=missing[0])

    def block(self, part: slice) -> tuple[Tensor, Tensor]:
        """Return some of the samples, on the device, and their `constant`."""
        return self.pixels[:, part].to(self.constant.device), self.constant[part]


def samples_of(
    data: Mapping[str, Sequence[LevelData]], device: torch.device
) -> dict[str, list[Samples]]:
    """Take the samples of all parts and levels: all on the device, or all on the host."""
    numbers = sum(
        len(each.constant) * each.counts.size for levels in data.values() for each in levels
    )
    place = device if fits(device, 4 * numbers) else torch.device("cpu")
    return {
        part: [Samples.of(each, device, place=place) for each in levels]
        for part, levels in data.items()
    }


def mean_weights(data: LevelData) -> np.ndarray:
    """Return pixels' weights in the means, of sum 1, (variable, y, x); 0 where not counted."""
    weights = data.weights * data.counts
    if not weights.any():  # no point of this level has a weight: all weigh alike
        weights = data.counts.astype(np.float64)
    total = weights.ravel().sum()
    return weights / total if total else weights  # by injection, a level may have no valid pixel


def fits(device: torch.device, n_bytes: int) -> bool:
    """Tell whether samples of so many bytes are to lie on a device.

    On a GPU, if they take less than half of its memory. What others have taken of it is not asked:
    samples on the host give other last digits, which are to depend on the kind of GPU alone.
    """
    return n_bytes < room(device)


def room(device: torch.device) -> float:
    """Return how many bytes samples may take on a device."""
    return _gpu_memory(device) / 2 if device.type == "cuda" else math.inf


def block_bytes(device: torch.device, memory: float) -> float:
    """Return the most bytes that a block of samples may take on its way through the network.

    A fifth of the host's `memory` that a fit may use; on a GPU, an eighth of all its own, so that
    samples, what a graph holds, and a block besides have room.
    """
    return memory / 5 if device.type != "cuda" else _gpu_memory(device) / 8


def _gpu_memory(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory


def sketch_size(n_pixels: int) -> int:
    """Return how many leading vectors, and as many combinations, tell a level's filters.

    A filter has nine weights per variable, and each of a level's many pixels says something of
    them: the more pixels, the fewer samples tell the weights as well.
    """
    return max(LEAST_SKETCH, BUDGET // n_pixels // 2)


def sketched(data: Sequence[Samples], n: int, seed: Sequence[int]) -> list[Samples]:
    """Keep of each level the mean, `n` leading vectors, and `n` random combinations of the rest.

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
        combinations = product(tail, torch.as_tensor(normal).to(tail))
        pixels = torch.cat([leading, combinations], dim=1)
        n_samples = pixels.shape[1]
        constant = samples.constant[:n_samples]
        if fits(constant.device, pixels.nbytes):
            pixels = pixels.to(constant.device)
        sketch = replace(samples, pixels=pixels, constant=constant, rank=n_samples, padding=0)
        result.append(sketch.padded(sketch.multiple))
    return result


def product(a: Tensor, b: Tensor) -> Tensor:
    """Multiply two matrices; on a GPU in float64, some rows at a time.

    There a setting of torch's, which is the user's, decides whether float32 is rounded to 10 bits
    first (TF32). cuBLAS gives equal bits in each run as long as one stream calls it.
    """
    if not a.is_cuda:
        return a @ b
    return torch.cat([(rows.double() @ b.double()).to(a.dtype) for rows in a.split(ROWS)])


def scalar_product(a: Tensor, b: Tensor) -> Tensor:
    """Compute the scalar product of two vectors, on a GPU without cuBLAS.

    In a CUDA graph, cuBLAS may choose another order of sums than outside, and so give other bits.
    """
    return (a * b).sum() if a.is_cuda else torch.dot(a, b)
