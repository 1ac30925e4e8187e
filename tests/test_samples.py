"""Samples on a GPU: where they lie, how many of them at a time, and products with all digits."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers import DEVICE, make_field, prepare_with

from xmrcae.core.samples import Samples, block_bytes, fits, product, samples_of, sketched


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A GPU of 8 GiB, of which others have taken all but a byte."""
    about = SimpleNamespace(total_memory=2**33)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (1, 2**33))
    return torch.device("cuda")


def test_where_samples_lie_depends_on_the_kind_of_gpu_alone(gpu: torch.device) -> None:
    assert fits(gpu, 2**32 - 1) and not fits(gpu, 2**32)
    assert fits(torch.device("cpu"), 2**60)


@pytest.mark.parametrize("memory", [1e6, math.inf])
def test_blocks_depend_on_the_memory_of_the_device(gpu: torch.device, memory: float) -> None:
    assert block_bytes(gpu, memory) == 2**30
    assert block_bytes(torch.device("cpu"), memory) == memory / 5


def test_all_samples_lie_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        "xmrcae.core.samples.fits", lambda device, n_bytes: bool(asked.append(n_bytes))
    )
    found = samples_of(prepare_with(make_field(), levels=2).data, DEVICE)
    pixels = [each.pixels for levels in found.values() for each in levels]
    assert len(pixels) == 6 and all(each.device.type == "cpu" for each in pixels)
    assert asked == [sum(each.nbytes for each in pixels)]


@pytest.mark.parametrize("n_rows", [3, 200_000])
def test_a_gpu_multiplies_with_more_digits_than_float32_has(
    monkeypatch: pytest.MonkeyPatch, n_rows: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = (
        torch.randn(*size, generator=generator).to(DEVICE) for size in ((n_rows, 50), (50, 8))
    )
    expected = (one.double() @ other.double()).float()
    with monkeypatch.context() as patch:
        if DEVICE.type == "cpu":
            assert torch.equal(product(one, other), one @ other)
            patch.setattr(torch.Tensor, "is_cuda", True)
        found = product(one, other)
    torch.testing.assert_close(found, expected, rtol=1.2e-7, atol=0)


def test_sketches_of_samples_on_the_host_lie_on_the_device() -> None:
    held = []
    for data in prepare_with(make_field(n_times=60), levels=2).training:
        samples = Samples.of(data, DEVICE, place=torch.device("cpu"))
        held.append(replace(samples, constant=samples.constant.to("meta")))
    for sketch in sketched(held, 4, (0,)):
        assert (
            sketch.pixels.device == sketch.block(sketch.leading)[0].device == torch.device("meta")
        )
        assert sketch.pixels.shape[1] == len(sketch.constant) == 9
