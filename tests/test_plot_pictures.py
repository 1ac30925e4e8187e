"""The main plots, compared with pictures that were looked at.

After a change that is meant: pytest --mpl-generate-path=tests/baseline
tests/test_plot_pictures.py, and look at them.
"""

from typing import Any

import matplotlib
import numpy as np
import pytest
import xarray as xr
from conftest import REPOSITORY
from helpers import make_field
from matplotlib.figure import Figure

import xmrcae

PINNED = (
    f"matplotlib=={matplotlib.__version__}\n"
    in (REPOSITORY / ".ci" / "constraints.txt").read_text()
)

#: The root-mean-square difference, of 255, that other roundings of the same picture stay under.
picture = pytest.mark.mpl_image_compare(tolerance=1.5, savefig_kwargs={"dpi": 32}, style="default")

pytestmark = [
    pytest.mark.usefixtures("no_trace"),
    pytest.mark.skipif(
        not PINNED, reason="the pictures are those of the pinned matplotlib, which this is not"
    ),
]


@pytest.fixture(autouse=True)
def compared(request: pytest.FixtureRequest) -> None:
    assert request.config.getoption("--mpl") or request.config.getoption("--mpl-generate-path")


@pytest.fixture(scope="module")
def field() -> xr.DataArray:
    """Waves with a coast, lively in the east; nothing in it is random."""
    field = make_field(n_times=12, shape=(31, 40))
    t, lat, lon = np.meshgrid(
        np.arange(12), np.deg2rad(field.lat), np.deg2rad(field.lon), indexing="ij"
    )
    values = np.cos(lat) * np.cos(2 * lon - t) + 0.3 * np.sin(9 * lon + t) * np.cos(8 * lat) * (
        lon > 3.5
    )
    land = (np.abs(lat) < 0.4) & (np.abs(lon - 1.5) < 0.5) | (lat > 0.8) & (lon > 5)
    return field.copy(data=np.where(land, np.nan, 15 + values).astype(np.float32))


@pytest.fixture(scope="module")
def model(field: xr.DataArray) -> xmrcae.MrCAE:
    options = {
        "levels": 2,
        "channels": [[1, 2]],
        "tolerance": 0.1,
        "max_epochs": 3,
        "split": "blocks",
    }
    return field.mrcae.fit(progress=False, **options)


@picture
def test_refinement(model: xmrcae.MrCAE) -> Figure:
    return model.plot.refinement(level=1)


@picture
def test_reconstruction(model: xmrcae.MrCAE, field: xr.DataArray) -> Figure:
    return model.plot.reconstruction(field.isel(time=3))


@picture
def test_filters(model: xmrcae.MrCAE) -> Figure:
    return model.plot.filters(level=1)


@picture
def test_history(model: xmrcae.MrCAE) -> Figure:
    return model.plot.history()


@picture
def test_errors(field: xr.DataArray) -> Figure:
    def score(sizes: list[int], errors: list[float]) -> xr.Dataset:
        long_name, units = "root-mean-square error against the finest data", "degC"
        rmse = ("level", errors, {"long_name": long_name, "units": units})
        size = ("level", sizes, {"long_name": "numbers per snapshot that decoding needs"})
        table: dict[str, Any] = {
            "rmse_global": rmse,
            "encoding_size": size,
            "ratio": ("level", 1000 / np.array(sizes)),
        }
        return xr.Dataset(table, coords={"level": np.arange(len(sizes))})

    return xmrcae.plot.errors(
        {"one": score([40, 160, 500], [2, 1, 0.4]), "two": score([60, 300, 700], [1, 0.5, 0.2])}
    )


@picture
def test_pyramid(field: xr.DataArray) -> Figure:
    """On plain axes, and on a grid that crosses the date line."""
    fig = Figure(figsize=(7, 7), layout="constrained")
    upper, lower = fig.subfigures(2)
    tree = field.mrcae.pyramid(levels=2).isel(time=0)
    xmrcae.plot.pyramid(tree, fig=upper, projection=None)
    moved = field.assign_coords(
        lon=("lon", (field.lon.values / 3 + 120 + 180) % 360 - 180, field.lon.attrs)
    )
    xmrcae.plot.pyramid(moved.mrcae.pyramid(levels=2).isel(time=0), fig=lower, cmap="cividis")
    return fig
