"""What several test files share: small fields with land, their grids, and networks with random weights."""

import dataclasses
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import torch
import xarray as xr

import xmrcae
from xmrcae.core.network import Network
from xmrcae.grid.compression import FirstPass
from xmrcae.grid.coordinates import Grid
from xmrcae.grid.dimensions import find_dimensions
from xmrcae.grid.layout import Layout
from xmrcae.grid.pyramid import Pyramid
from xmrcae.handover import LevelData
from xmrcae.options import make_options
from xmrcae.passes import first_pass, second_pass

ERSST = "ersst_v5_2010-2020.nc"
AVISO = "aviso_med_adt_2005.nc"
CMAP = "cmap_precip_tropics.nc"
HADGEM = "hadgem_a1b_360day.nc"
CYLINDER = "cylinder_wake_openfoam.nc"
NEMO = "nemo_tripolar_tos.nc"
MITGCM = "mitgcm_land_is_zero.nc"
CLIMATOLOGY = "oisst_v21_climatology.nc"
ICE = "oisst_v21_icec_arctic.nc"
LAND_SEA_MASK = "oisst_v2_lsmask.nc"

#: Where networks, their samples and their sums over them are tested.
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

#: Options of a fit that is over soon: that of the fixture `model`.
QUICK: dict[str, Any] = {"max_epochs": 3, "progress": False}

#: Sizes of the levels of a small network.
SHAPES = [(7, 11), (15, 23), (31, 47)]


def open_real(real_file: Callable[[str], Path], name: str, **kwargs: Any) -> xr.Dataset:
    """Open a real file, in memory unless chunks are asked for."""
    with xr.open_dataset(real_file(name), **kwargs) as ds:
        return ds if "chunks" in kwargs else ds.load()


def make_land(shape: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    """Valid pixels of a made-up coast: a continent, an island, an inlet."""
    rng = np.random.default_rng(seed)
    valid = np.ones(shape, dtype=bool)
    rows, columns = shape
    valid[rows // 3 : 2 * rows // 3, columns // 4 : columns // 2] = False
    valid[rows // 2, columns // 4 : columns // 3] = True
    valid[:2, -3:] = False
    return valid & (rng.random(shape) > 0.05)


def make_field(
    n_times: int = 20, shape: tuple[int, int] = (21, 30), *, globe: bool = True, land: bool = True, seed: int = 0,
    dtype: Any = np.float32, name: str = "sst", freq: str = "MS",
) -> xr.DataArray:  # fmt: skip
    """A smooth field with noise on latitude and longitude, monthly, NaN on land; its latitude ascends."""
    rng = np.random.default_rng(seed)
    rows, columns = shape
    lat = np.linspace(-60, 60, rows)
    lon = np.arange(columns) * (360 / columns if globe else 1.0)
    waves = np.cos(np.deg2rad(lat))[:, None] * np.cos(
        np.deg2rad(lon) * np.arange(1, 4)[:, None, None]
    )
    values = (
        15
        + np.tensordot(rng.standard_normal((n_times, 3)), waves, 1)
        + 0.3 * rng.standard_normal((n_times, *shape))
    )
    if land:
        values[:, ~make_land(shape)] = np.nan
    time = xr.date_range("2001-01-15", periods=n_times, freq=freq, use_cftime=False)
    coords = {
        "time": time,
        "lat": ("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "lon": ("lon", lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    attrs = {"units": "degC", "long_name": "a made-up temperature"}
    return xr.DataArray(
        values.astype(dtype), dims=("time", "lat", "lon"), coords=coords, name=name, attrs=attrs
    )


def counted(field: xr.DataArray, chunks: tuple[int, ...]) -> tuple[xr.DataArray, Counter[Any]]:
    """The field in chunks, each of which counts how often it is read."""
    reads: Counter[Any] = Counter()
    lock = threading.Lock()

    def read(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        with lock:
            reads[tuple(block_info[0]["chunk-location"])] += 1
        return block

    lazy = da.from_array(field.values, chunks=chunks)
    return field.copy(
        data=lazy.map_blocks(read, dtype=field.dtype, meta=np.empty((0, 0, 0), field.dtype))
    ), reads


def make_two_variables(**kwargs: Any) -> xr.Dataset:
    """Two fields on one grid, of which the second holds no data in one corner and has another scale."""
    first, second = make_field(seed=1, **kwargs), 100 * make_field(seed=2, **kwargs)
    second[:, -4:, :5] = np.nan
    return xr.Dataset({"sst": first, "ssh": second})


def grid_of(obj: Any, **kwargs: Any) -> Grid:
    """The grid of labelled data, its dimensions being found."""
    return Grid.of(obj, find_dimensions(obj), **kwargs)


def layout_of(obj: Any) -> Layout:
    """The layout of labelled data on its own grid."""
    return Layout.of(obj, find_dimensions(obj), grid_of(obj))


def pyramid_of(obj: Any, *, levels: int = 3, restriction: str = "full_weighting") -> Pyramid:
    """The pyramid over the grid of labelled data."""
    return Pyramid.of(grid_of(obj), levels=levels, restriction=restriction)


@dataclasses.dataclass
class Prepared:
    """What both passes over the data leave."""

    first: FirstPass
    data: dict[str, list[LevelData]]

    def __getattr__(self, name: str) -> Any:
        """`training` and the other parts; what the first pass knows, and what it says of the data."""
        if name in self.data:
            return self.data[name]
        return getattr(self.first if hasattr(self.first, name) else self.first.description, name)


def prepare_with(obj: Any, **options: Any) -> Prepared:
    """What a fit of labelled data under some options trains on."""
    checked = make_options(options)
    first = first_pass(obj, checked)
    return Prepared(first, second_pass(first, checked))


def fitted_valid(obj: Any, **options: Any) -> np.ndarray:
    """Valid pixels, (variable, y, x), of a small fit's training set."""
    return prepare_with(obj, levels=2, **options).standard.valid


def random_network(
    has_data: Sequence[np.ndarray], counts: np.ndarray, *, widening: str = "residual",
    restriction: str = "full_weighting", channels: Sequence[int] = (1, 2), activation: str | None = None,
    dtype: torch.dtype = torch.float64, seed: int = 0, device: torch.device | str = DEVICE,
) -> Network:  # fmt: skip
    """A network with random weights, and groups on random cells of every level."""
    generator = torch.Generator().manual_seed(seed)
    network = Network(
        [torch.as_tensor(has, device=device) for has in has_data],
        torch.as_tensor(counts, device=device),
        widening=widening, restriction=restriction, activation=activation, dtype=dtype,
    )  # fmt: skip
    for level in range(len(has_data)):
        network.deepen(noise=0.1, generator=generator)
        storable = network.storable[level].any(0)
        for n_filters in channels:
            mask = storable & (torch.rand(storable.shape, generator=generator) < 0.6).to(device)
            network.widen(level, mask, n_filters, noise=0.3, generator=generator)
    return network


def full_network(
    shape: tuple[int, int], *, levels: int, variables: int = 1, **kwargs: Any
) -> Network:
    """A network with random weights on a grid without land; `shape` is the coarsest level's."""
    shapes = [tuple((n + 1) * 2**level - 1 for n in shape) for level in range(levels)]
    everywhere = [np.ones((variables, *s), dtype=bool) for s in shapes]
    return random_network(everywhere, everywhere[-1], **kwargs)


def columns(samples: np.ndarray, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Samples (sample, variable, y, x) as the network reads them, (variable * pixel, sample)."""
    fields = np.ascontiguousarray(samples.reshape(len(samples), -1).T)
    return torch.as_tensor(fields, dtype=dtype, device=DEVICE)


def pixel_errors(residual: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    """The time-mean squared error of each pixel from its residual in every sample."""
    return residual.square().sum(1) / one.square().sum()


def with_land(levels=3):
    """Where each level has data, and what counts: another coast for each of two variables and for each level."""
    land = [np.stack([make_land(shape, seed=seed) for seed in (0, 1)]) for shape in SHAPES[:levels]]
    return land, land[-1]


def random_samples(network, n=3, seed=0):
    """Samples of the finest level and their ones, (pixel, sample) and (sample,)."""
    generator = torch.Generator().manual_seed(seed)
    n_pixels = network.has_data[-1].numel()
    pixels = torch.rand(n_pixels, n, generator=generator, dtype=torch.float64).to(network.dtype)
    return pixels.to(network.device), torch.ones(n, dtype=network.dtype, device=network.device)


def with_split(model: xmrcae.MrCAE, **coords: Any) -> xmrcae.MrCAE:
    """The same model, fitted to snapshots with other coordinates."""
    result = xmrcae.MrCAE(levels=2)
    result._fitted = dataclasses.replace(model.fitted, split=model.split.assign_coords(coords))
    return result
