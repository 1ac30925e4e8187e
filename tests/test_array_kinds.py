"""A field may be held in many ways, and xarray's options be set in any: the results are the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from helpers import make_field
from test_checkpoint import assert_same_fit

import xmrcae

pytestmark = pytest.mark.minimum

OPTIONS: dict[str, Any] = {"levels": 2, "channels": [[1]], "max_epochs": 3, "progress": False}


@pytest.fixture(scope="module")
def field() -> xr.DataArray:
    """Forty snapshots of the drifting mode, in memory, as they come back from a file."""
    field = xmrcae.datasets.drifting_mode(n_times=40, size=31).load()
    return field.rename("mode")


@pytest.fixture(scope="module")
def model(field: xr.DataArray) -> xmrcae.MrCAE:
    """A model that was fitted to NumPy arrays."""
    return field.mrcae.fit(**OPTIONS)


@pytest.fixture(scope="module")
def netcdf(field: xr.DataArray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The field in two netCDF-4 files, one after the other in time, and in one."""
    folder = tmp_path_factory.mktemp("netcdf")
    encoding = {"mode": {"chunksizes": (10, 31, 31), "zlib": True}}
    for name, part in {
        "part_0": slice(20),
        "part_1": slice(20, None),
        "whole": slice(None),
    }.items():
        field.isel(time=part).to_dataset().to_netcdf(folder / f"{name}.nc", encoding=encoding)
    return folder


def zarr_store(
    field: xr.DataArray, folder: Path, *, zarr_format: int, consolidated: bool
) -> xr.Dataset:
    import zarr

    if zarr_format == 3 and not zarr.__version__.startswith("3"):
        pytest.skip("zarr 2 writes format 2 alone")
    form = {"zarr_format": zarr_format} if zarr.__version__.startswith("3") else {}
    field.to_dataset().chunk(time=10).to_zarr(
        folder / "store.zarr", consolidated=consolidated, **form
    )
    written = [path for path in folder.rglob("*") if path.name == ".zmetadata"]
    written += [
        path for path in folder.glob("*/zarr.json") if '"consolidated_metadata"' in path.read_text()
    ]
    assert bool(written) == consolidated
    return xr.open_zarr(folder / "store.zarr", consolidated=consolidated)


def icechunk_store(field: xr.DataArray, folder: Path) -> xr.Dataset:
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(folder / "repository"))
    )
    session = repository.writable_session("main")
    field.to_dataset().to_zarr(
        session.store, consolidated=False, encoding={"mode": {"chunks": (10, 31, 31)}}
    )
    session.commit("forty snapshots")
    return xr.open_zarr(repository.readonly_session("main").store, consolidated=False)


def kerchunk_reference(file: Path) -> xr.Dataset:
    hdf = pytest.importorskip("kerchunk.hdf")
    references = hdf.SingleHdf5ToZarr(str(file)).translate()
    return xr.open_dataset(references, engine="kerchunk", chunks={})


def virtual_dataset(file: Path) -> xr.Dataset:
    virtualizarr = pytest.importorskip("virtualizarr")
    from obspec_utils.registry import ObjectStoreRegistry
    from obstore.store import LocalStore

    registry = ObjectStoreRegistry({"file://": LocalStore()})
    store = virtualizarr.parsers.HDFParser()(url=file.as_uri(), registry=registry)
    return xr.open_zarr(store, consolidated=False, zarr_format=3)


LAZY: dict[str, Callable[[xr.DataArray, Path, Path], xr.Dataset]] = {
    "open_mfdataset": lambda field, files, folder: xr.open_mfdataset(
        sorted(files.glob("part_*.nc"))
    ),
    "zarr 2": lambda field, files, folder: zarr_store(
        field, folder, zarr_format=2, consolidated=False
    ),
    "zarr 2 consolidated": lambda field, files, folder: zarr_store(
        field, folder, zarr_format=2, consolidated=True
    ),
    "zarr 3": lambda field, files, folder: zarr_store(
        field, folder, zarr_format=3, consolidated=False
    ),
    "zarr 3 consolidated": lambda field, files, folder: zarr_store(
        field, folder, zarr_format=3, consolidated=True
    ),
    "icechunk": lambda field, files, folder: icechunk_store(field, folder),
    "kerchunk": lambda field, files, folder: kerchunk_reference(files / "whole.nc"),
    "virtualizarr": lambda field, files, folder: virtual_dataset(files / "whole.nc"),
}


@pytest.mark.filterwarnings("ignore:.*[Cc]onsolidated metadata")
@pytest.mark.parametrize("how", LAZY)
def test_lazy_arrays_of_every_kind_give_the_same_bits(
    how: str,
    field: xr.DataArray,
    model: xmrcae.MrCAE,
    netcdf: Path,
    tmp_path: Path,
    no_compute: Callable[[], Any],
) -> None:
    with LAZY[how](field, netcdf, tmp_path) as ds:
        lazy = ds["mode"]
        assert lazy.chunks is not None and len(lazy.chunks[0]) > 1
        assert_same_fit(model, lazy.mrcae.fit(**OPTIONS))
        with no_compute():
            again = model.reconstruct(lazy)
        np.testing.assert_array_equal(again, model.reconstruct(field))


def test_a_file_that_was_opened_without_chunks_is_loaded_when_it_is_needed(
    field: xr.DataArray, model: xmrcae.MrCAE, netcdf: Path
) -> None:
    with xr.open_dataset(netcdf / "whole.nc") as ds:
        lazy = ds["mode"]
        assert_same_fit(model, lazy.mrcae.fit(**OPTIONS))
        codes = model.encode(lazy)
        assert codes["level_1"]["encoding"].chunks is None
        np.testing.assert_array_equal(
            codes["level_1"]["encoding"], model.encode(field)["level_1"]["encoding"]
        )
        assert not lazy.variable._in_memory, "the user's own Dataset has been loaded"


# Arrays of a device.


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """A stand-in for CuPy's: it computes, gives its values by DLPack, and refuses to become a NumPy array by itself."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)
    ndim = property(lambda self: self.values.ndim)
    size = property(lambda self: self.values.size)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise TypeError("implicit conversion to a NumPy array is not allowed")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return self._wrap(getattr(ufunc, method)(*self._unwrap(inputs), **kwargs))

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return self._wrap(func(*self._unwrap(args), **kwargs))

    def __getitem__(self, key: Any) -> Any:
        return type(self)(self.values[key])

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.values.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()

    @classmethod
    def _wrap(cls, result: Any) -> Any:
        return cls(result) if isinstance(result, np.ndarray) else result

    @classmethod
    def _unwrap(cls, values: Any) -> Any:
        if isinstance(values, list | tuple):
            return type(values)(cls._unwrap(value) for value in values)
        return values.values if isinstance(values, cls) else values


class FarArray(DeviceArray):
    """One whose memory DLPack does not let NumPy reach, but which gives a copy, as JAX's do."""

    def __dlpack__(self, **kwargs: Any) -> Any:
        raise BufferError("NumPy only supports CPU device")

    def __dlpack_device__(self) -> Any:
        return 2, 0

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return self.values


def cupy_array(values: np.ndarray) -> Any:
    return pytest.importorskip("cupy").asarray(values)


DEVICES = [DeviceArray, FarArray, pytest.param(cupy_array, marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_device_arrays_come_to_the_host(
    device: Callable[[np.ndarray], Any], field: xr.DataArray, model: xmrcae.MrCAE
) -> None:
    there = field.copy(data=device(field.values))
    assert not isinstance(there.data, np.ndarray)
    assert_same_fit(model, there.mrcae.fit(**OPTIONS))
    xr.testing.assert_identical(
        model.reconstruct(there, keep_gaps=True), model.reconstruct(field, keep_gaps=True)
    )
    xr.testing.assert_identical(model.score(there), model.score(field))
    trees = [obj.mrcae.pyramid(levels=2, land_value=0.0) for obj in (there, field)]
    xr.testing.assert_identical(*(tree["level_0"].to_dataset() for tree in trees))
    both = xr.Dataset({"a": there, "b": field})
    assert both.mrcae.fit(["a", "b"], **OPTIONS).levels == 2
    assert not isinstance(both["a"].data, np.ndarray), "the user's own Dataset has changed"


@pytest.mark.parametrize("device", DEVICES)
def test_dask_arrays_of_device_arrays_stay_lazy(
    device: Callable[[np.ndarray], Any],
    field: xr.DataArray,
    model: xmrcae.MrCAE,
    no_compute: Callable[[], Any],
) -> None:
    blocks = da.from_array(field.values, chunks=(10, 31, 31)).map_blocks(
        device, meta=device(np.empty((0, 0, 0), "f4"))
    )
    there = field.copy(data=blocks)
    with no_compute():
        again = model.reconstruct(there)
    xr.testing.assert_identical(again.compute(), model.reconstruct(field))


# Arrays that are refused, before any of them is looked at.

USES: dict[str, Callable[[xmrcae.MrCAE, xr.DataArray], Any]] = {
    "fit": lambda model, obj: obj.mrcae.fit(**OPTIONS),
    "fit of a Dataset": lambda model, obj: obj.to_dataset().mrcae.fit(["mode"], **OPTIONS),
    "encode": lambda model, obj: model.encode(obj),
    "reconstruct": lambda model, obj: model.reconstruct(obj.to_dataset()),
    "score": lambda model, obj: model.score(obj),
    "pyramid": lambda model, obj: obj.mrcae.pyramid(levels=2, land_value=1.0),
}


@pytest.mark.parametrize("lazy", [False, True], ids=["in memory", "dask"])
@pytest.mark.parametrize("use", USES)
def test_quantities_are_refused(
    use: str, lazy: bool, field: xr.DataArray, model: xmrcae.MrCAE, no_compute: Callable[[], Any]
) -> None:
    values = field.chunk(time=10).data if lazy else field.values
    quantified = field.copy(data=pytest.importorskip("pint").Quantity(values, "kelvin"))
    with (
        no_compute(),
        pytest.raises(
            TypeError, match=r"mode are held by pint\.\w+ \[kelvin\].*\.pint\.dequantify\(\)"
        ),
    ):
        USES[use](model, quantified)


@pytest.mark.parametrize("use", USES)
def test_arrays_that_give_no_values_are_refused(
    use: str, field: xr.DataArray, model: xmrcae.MrCAE
) -> None:
    class Sparse(DeviceArray):
        __dlpack__ = property()

    with pytest.raises(
        TypeError, match=r"mode are held by test_array_kinds\.Sparse: .*\.as_numpy\(\)"
    ):
        USES[use](model, field.copy(data=Sparse(field.values)))


# xarray's options.


def results(model: xmrcae.MrCAE, obj: xr.DataArray) -> dict[str, Any]:
    """Everything that a model and the accessor give."""
    codes = model.encode(obj)
    stacked = model.stack(codes)
    trees = {
        "codes": codes,
        "unstacked": model.unstack(stacked),
        "pyramid": obj.mrcae.pyramid(levels=2, land_value=9.0),
    }
    return {
        **{f"{name} {node.path}": node.to_dataset() for name, tree in trees.items() for node in tree.subtree},
        "stacked": stacked, "field": model.decode(codes, level=0), "again": model.reconstruct(obj, keep_gaps=True),
        "score": model.score(obj, weights="area"), "split": model.split, "sizes": model.encoding_sizes,
        "map": model.refinement_map(level=1), "count": model.refinement_count(level=1),
    }  # fmt: skip


def test_results_are_the_same_whatever_becomes_of_attributes() -> None:
    obj = make_field(20, (15, 16)).assign_attrs(standard_name="sea_surface_temperature")
    options = OPTIONS | {"max_epochs": 1, "weights": "area", "center": "month", "split": "blocks"}
    found = {}
    for keep_attrs in ("default", True, False):
        with xr.set_options(keep_attrs=keep_attrs):
            found[keep_attrs] = results(obj.mrcae.fit(**options), obj)
    expected = found["default"]
    assert expected["again"].attrs["units"] == "degC" and expected["count"].attrs["units"] == "1"
    for name in expected:
        same = [without_id(each[name]) for each in found.values()]
        xr.testing.assert_identical(same[0], same[1])
        xr.testing.assert_identical(same[0], same[2])


def without_id(obj: Any) -> Any:
    """The same without the identifier that is another for each model."""
    for each in (obj, *getattr(obj, "data_vars", {}).values()):
        each.attrs.pop("xmrcae_model", None)
    return obj


def test_a_model_outlives_the_file_that_its_coordinates_lie_in(
    field: xr.DataArray, tmp_path: Path
) -> None:
    lat, lon = (xr.DataArray(values, dims=("y", "x")) for values in np.mgrid[40:50:31j, 0:20:31j])
    curved = field.drop_vars(["y", "x"]).assign_coords(
        nav_lat=lat.assign_attrs(standard_name="latitude", units="degrees_north"),
        nav_lon=lon.assign_attrs(standard_name="longitude", units="degrees_east"),
    )
    path = tmp_path / "curved.nc"
    curved.to_netcdf(path)
    with xr.open_dataset(path, chunks={}) as ds:
        model = ds[str(field.name)].mrcae.fit(levels=2, max_epochs=1, progress=False)
    path.unlink()
    model.save(tmp_path / "model.nc")
    assert model.refinement_map(level=1)["nav_lat"].notnull().any()
    assert model.encode(curved)["level_1"]["encoding"].notnull().any()
