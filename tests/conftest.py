"""What every test can use: real data files, small fields and a model, and a refusal to compute."""

import ast
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import dask
import pytest
import xarray as xr

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # two workers share two cores; read when torch is first imported
os.environ["MPLBACKEND"] = "Agg"  # read when matplotlib is first imported, here and in subprocesses

REPOSITORY = Path(__file__).resolve().parents[1]


def nodes_of(path: Path) -> list[ast.AST]:
    """All nodes of the syntax tree of a file of Python.

    Where garbage is collected while the tree is made, CPython 3.11 may fail with a SystemError.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        return list(ast.walk(ast.parse(path.read_text())))
    finally:
        if collects:
            gc.enable()


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


def unchanged(*args: Any, **kwargs: Any) -> Iterator[xr.DataArray]:
    """Give a made-up field to all tests of a process, and see at the end that none has changed it."""
    from helpers import make_field

    field = make_field(*args, **kwargs)
    field.values.flags.writeable = False
    yield field
    xr.testing.assert_identical(field, make_field(*args, **kwargs))


@pytest.fixture(scope="session")
def field() -> Iterator[xr.DataArray]:
    """Twenty months on the globe, with land. Files that need another field have their own."""
    yield from unchanged()


@pytest.fixture(scope="session")
def model(field: xr.DataArray) -> Any:
    """A model of two levels, fitted to `field` in a few epochs; not to be fitted anew."""
    from helpers import QUICK

    return field.mrcae.fit(levels=2, **QUICK)


@pytest.fixture(scope="session")
def three_years() -> Iterator[xr.DataArray]:
    """Thirty-six months on a coarse grid, with land."""
    yield from unchanged(n_times=36, shape=(15, 20))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread for torch: what is computed is too small for threads to share."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Drawing shows nothing and changes no setting; what a test has drawn is closed."""
    import matplotlib
    import matplotlib.pyplot as plt

    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: pytest.fail("a plot called plt.show"))
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before
