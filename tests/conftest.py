"""What every test can use: the real data files, and a scheduler that refuses to compute."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import dask
import pytest

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two workers share two cores; read when torch is first imported
os.environ["MPLBACKEND"] = "Agg"  # read when matplotlib is first imported, here and in subprocesses

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where there is none; torch is imported for them alone."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no GPU")


# The fixtures are of session scope and give functions, so that hypothesis' tests can use them too.


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data files: $XMRCAE_TEST_DATA, else shared/data beside the repository."""
    return Path(os.environ.get("XMRCAE_TEST_DATA") or REPOSITORY.parent / "shared" / "data")


@pytest.fixture(scope="session")
def real_file(data_dir: Path) -> Callable[[str], Path]:
    """Path of a real data file, `real_file("ersst_v5_2010-2020.nc")`; skips the test where there is none."""

    def find(name: str) -> Path:
        path = data_dir / name
        if not path.is_file():
            pytest.skip(f"real data file {name} not found: set XMRCAE_TEST_DATA")
        return path

    return find


def refuse_to_compute(graph: Any, keys: Any, **kwargs: Any) -> NoReturn:
    """Fail in place of computing: a dask scheduler."""
    raise AssertionError("dask computed something where nothing may be computed")


@pytest.fixture(scope="session")
def no_compute() -> Callable[[], AbstractContextManager[Any]]:
    """Context in which any dask computation fails: `with no_compute(): lazy = ...`."""
    return lambda: dask.config.set(scheduler=refuse_to_compute)
