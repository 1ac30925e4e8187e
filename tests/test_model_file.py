"""A model that is read back is the model that was written."""

import dataclasses
import os
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pytest
import torch
import xarray as xr
from helpers import (
    CYLINDER,
    ERSST,
    HADGEM,
    NEMO,
    QUICK,
    make_field,
    make_two_variables,
    open_real,
    with_split,
)

import xmrcae
from xmrcae.io.model_datasets import (
    fitted_from_datasets,
    fitted_to_datasets,
    standard_dataset,
)

pytestmark = pytest.mark.minimum


def details(ds: xr.Dataset) -> list[Any]:
    """What `assert_identical` does not look at: order of the variables, data types, types of attributes."""
    return [
        (name, v.dims, v.dtype, v.dtype.str, repr(list(v.attrs.items())))
        for name, v in ds.variables.items()
    ]


def assert_same_labels(a: xmrcae.MrCAE, b: xmrcae.MrCAE) -> None:
    """Labels are the same, down to data types and order; history in float32."""
    xr.testing.assert_identical(a.split, b.split)
    xr.testing.assert_identical(a.history.astype("float32"), b.history.astype("float32"))
    assert details(a.split.coords.to_dataset()) == details(b.split.coords.to_dataset())
    assert details(a.history) == details(b.history)
    assert details(a.fitted.codec.pyramid.grid.coords) == details(
        b.fitted.codec.pyramid.grid.coords
    )
    assert repr(a.fitted.labels.attrs) == repr(b.fitted.labels.attrs)


def read_back(model: xmrcae.MrCAE, path: str | Path) -> xmrcae.MrCAE:
    """Save and open, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "numpy.ndarray size changed")  # as NumPy itself has it
        model.save(path)
        return xmrcae.open_model(path)


def assert_reads_back(model: xmrcae.MrCAE, data: xr.DataArray | xr.Dataset, path: str) -> None:
    """Every result of the file's model is that of `model`, to the bit, with the same labels and attributes."""
    other = read_back(model, path)
    xr.testing.assert_identical(other.reconstruct(data), model.reconstruct(data))
    codes, again = model.encode(data), other.encode(data)
    for level in range(model.levels):
        xr.testing.assert_identical(
            again[f"level_{level}"].to_dataset(), codes[f"level_{level}"].to_dataset()
        )
        xr.testing.assert_identical(
            other.refinement_map(level=level), model.refinement_map(level=level)
        )
    assert_same_labels(other, model)
    xr.testing.assert_identical(other.score(data), model.score(data))
    for ours, theirs in zip(
        model.fitted.codec.network.named_parameters(),
        other.fitted.codec.network.named_parameters(),
        strict=True,
    ):
        assert (
            ours[0] == theirs[0]
            and torch.equal(ours[1], theirs[1])
            and theirs[1].device.type == "cpu"
        )
    assert repr(other) == repr(model)
    assert other.partial == model.partial


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_local_files(model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path, name: str) -> None:
    assert_reads_back(model, field, str(tmp_path / name))
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_urls(model: xmrcae.MrCAE, field: xr.DataArray, name: str) -> None:
    assert_reads_back(model, field, f"memory://{os.urandom(4).hex()}/{name}")


def test_a_coordinate_may_have_the_name_of_a_group(model: xmrcae.MrCAE) -> None:
    labelled = with_split(model, split=("time", np.arange(N)))
    url = f"memory://{os.urandom(4).hex()}/model.nc"
    assert_same_labels(read_back(labelled, url), labelled)


@pytest.mark.parametrize(
    "options",
    [
        {"center": "month"},
        {"center": False, "scale": "minmax"},
        {"fill": "harmonic", "weights": "area"},
        {
            "tolerance": None,
            "widening": "parallel",
            "restriction": "injection",
            "channels": [[2], [1, 2]],
        },
        {"split": (slice(0, 12), slice(12, 16), []), "activation": None},
        {"sample": ["time"], "horizontal": ("lat", "lon"), "periodic": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options(field: xr.DataArray, tmp_path: Path, options: dict) -> None:
    assert_reads_back(
        field.mrcae.fit(levels=2, **options, **QUICK), field, str(tmp_path / "model.nc")
    )


def test_options_come_back(field: xr.DataArray, tmp_path: Path) -> None:
    model = field.mrcae.fit(
        levels=2, horizontal=("lat", "lon"), tolerance=[0.5, 0.25], device="cpu", **QUICK
    )
    assert read_back(model, tmp_path / "model.nc").options == model.options


def test_options_that_are_arrays(field: xr.DataArray, tmp_path: Path) -> None:
    valid = field.notnull().any("time")
    model = field.mrcae.fit(levels=2, valid=valid, weights=valid.astype(float) + 1, **QUICK)
    assert_reads_back(model, field, str(tmp_path / "model.nc"))


def test_two_variables(tmp_path: Path) -> None:
    ds = make_two_variables()
    assert_reads_back(
        ds.mrcae.fit(["sst", "ssh"], levels=2, **QUICK), ds, str(tmp_path / "model.nc")
    )


def test_double_precision_and_attributes(tmp_path: Path) -> None:
    field = make_field(dtype=np.float64).assign_attrs(
        valid_range=np.array([-2.0, 40.0], "float32"), flag=np.int16(3)
    )
    model = field.mrcae.fit(levels=2, **QUICK)
    assert_reads_back(model, field, str(tmp_path / "model.nc"))
    attrs = xmrcae.open_model(tmp_path / "model.nc").reconstruct(field).attrs
    assert attrs["valid_range"].dtype == np.float32 and attrs["flag"].dtype == np.int16


def test_several_sample_dimensions(field: xr.DataArray, tmp_path: Path) -> None:
    members = xr.concat([field, field + 1], "member").transpose("time", "lat", "member", "lon")
    model = members.mrcae.fit(sample=["member", "time"], levels=2, **QUICK)
    assert model.split.dims == ("member", "time")
    assert_reads_back(model, members, str(tmp_path / "model.nc"))


def test_samples_in_a_multiindex(field: xr.DataArray, tmp_path: Path) -> None:
    members = xr.concat([field, field + 1], "member").assign_coords(member=["a", "b"])
    members = members.stack(run=("time", "member"))
    model = members.mrcae.fit(sample="run", levels=2, **QUICK)
    assert_reads_back(model, members, str(tmp_path / "model.nc"))


N = 20
DATES = xr.date_range("2001-01-15", periods=N, freq="17h", use_cftime=False).values
COORDINATES: dict[str, Any] = {
    "nanoseconds": {
        "time": DATES.astype("datetime64[ns]") + np.arange(N).astype("timedelta64[ns]") * 7
    },
    "seconds": {"time": DATES.astype("datetime64[s]")},
    "not a time": {"published": ("time", np.where(np.arange(N) % 2, DATES, np.datetime64("NaT")))},
    "lead time": {"time": np.arange(N).astype("timedelta64[h]").astype("timedelta64[ns]")},
    "360 days": {
        "time": xr.date_range(
            "2001-01-01", periods=N, freq="17h", calendar="360_day", use_cftime=True
        )
    },
    "microseconds": {
        "time": [
            cftime.DatetimeNoLeap(2001, 1, 1, 3, 4, 5, 123457) + timedelta(30, microseconds=i * i)
            for i in range(N)
        ]
    },
    "standard calendar": {
        "time": xr.date_range("2001-01-01", periods=N, freq="5h", use_cftime=True)
    },
    "undecoded": {
        "time": ("time", np.arange(N, dtype="int32"), {"units": "days since 1900-01-01"})
    },
    "text": {"time": np.array([f"run {i}" for i in range(N)])},
    "text of any length": {"time": np.array([f"é{'x' * i}" for i in range(N)], dtype=object)},
    "bytes": {"written": ("time", np.array([b"01/02/03"] * N))},
    "flags and gaps": {
        "flag": ("time", np.arange(N) % 2 == 0),
        "gap": ("time", np.where(np.arange(N) % 2, np.nan, 1).astype("float32")),
        "half": ("time", np.arange(N).astype("float16")),
    },
    "scalars": {
        "depth": np.float32(0.5),
        "ok": True,
        "run": "hist",
        "day": cftime.Datetime360Day(2001, 2, 30),
    },
    "names": {"a/b": ("time", np.arange(N)), "é ü": 1.5, "split.part": 2, "part": 3},
    "attributes": {
        "z": (
            "time",
            np.arange(N),
            {"_FillValue": 3, "flag": True, "none": None, "map": {"a": 1}, "coordinates": "x"},
        )
    },
}


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
@pytest.mark.parametrize("coords", COORDINATES.values(), ids=COORDINATES.keys())
def test_coordinates_of_the_split(
    model: xmrcae.MrCAE, tmp_path: Path, coords: dict, name: str
) -> None:
    labelled = with_split(model, **coords)
    assert_same_labels(read_back(labelled, tmp_path / name), labelled)


def test_a_coordinate_that_no_file_holds_costs_a_warning_not_the_model(
    model: xmrcae.MrCAE, tmp_path: Path
) -> None:
    labelled = with_split(model, odd=("time", np.array([{}] * N)))
    with pytest.warns(UserWarning, match="'odd'"):
        labelled.save(tmp_path / "model.nc")
    xr.testing.assert_identical(xmrcae.open_model(tmp_path / "model.nc").split, model.split)


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_coordinates_of_the_grid(field: xr.DataArray, tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    shape = field.shape[1:]
    field = field.isel(lat=slice(None, None, -1)).assign_coords(
        lat=field.lat[::-1].astype("float32"),
        row=("lat", np.arange(shape[0])),
        nav_lat=(("lat", "lon"), rng.random(shape).astype("float32"), {"units": "degrees_north"}),
        area=(("lon", "lat"), np.where(rng.random(shape[::-1]) > 0.5, np.nan, 1.0)),
        zone=("lat", [f"zone {i}" for i in range(shape[0])]),
        depth=5.0,
    )
    field.row.encoding = {"dtype": "int8", "scale_factor": 2.0}  # as read from a packed file
    field.lat.encoding = {"dtype": "int16", "scale_factor": 0.5, "_FillValue": -9}
    assert_reads_back(field.mrcae.fit(levels=2, **QUICK), field, str(tmp_path / name))


def test_a_grid_without_coordinates(field: xr.DataArray, tmp_path: Path) -> None:
    bare = field.drop_vars(["time", "lat", "lon"]).rename(None)
    assert_reads_back(bare.mrcae.fit(levels=2, **QUICK), bare, str(tmp_path / "model.nc"))


def test_attributes_of_all_types(model: xmrcae.MrCAE, tmp_path: Path) -> None:
    attrs = {
        "range": np.array([-2, 40], "float32"), "big_endian": np.zeros((2, 2), ">f4"), "number": np.int16(3),
        "flag": np.bool_(True), "python": True, "none": None, "nan": np.nan, "infinite": np.float32(np.inf),
        "list": [np.float32(1), 2, "x"], "map": {"a": {"b": np.uint8(1)}}, "dates": np.array(["2001", "NaT"], "M8[D]"),
        "texts": np.array(["a", "bb"]), "empty": np.array([]), "history": "x" * 100_000,
    }  # fmt: skip
    model = with_split(model)
    model._fitted = dataclasses.replace(
        model.fitted, labels=dataclasses.replace(model.fitted.labels, attrs=[attrs])
    )
    back = read_back(model, tmp_path / "model.nc").fitted.labels.attrs[0]
    assert repr(back) == repr(attrs)
    for name in ("range", "big_endian", "dates", "texts", "empty"):
        assert back[name].dtype.str == attrs[name].dtype.str


@pytest.mark.parametrize("stages", [0, 2])
def test_an_interrupted_model(
    field: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: int
) -> None:
    from xmrcae.core.training import Trainer

    train, left = Trainer._train, iter(range(stages))

    def interrupted(self: Trainer, *args: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        train(self, *args)

    monkeypatch.setattr(Trainer, "_train", interrupted)
    model = xmrcae.MrCAE(levels=2, **QUICK)
    with pytest.raises(KeyboardInterrupt):
        model.fit(field)
    assert model.partial
    assert_reads_back(model, field, str(tmp_path / "model.nc"))


def test_a_model_that_was_read_is_written_again(
    model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path
) -> None:
    first = read_back(model, tmp_path / "first.nc")
    second = read_back(first, tmp_path / "second.zarr")
    assert_reads_back(second, field, str(tmp_path / "third.nc"))
    assert_same_labels(second, model)


@pytest.mark.parametrize("name", [ERSST, HADGEM, CYLINDER, NEMO])
def test_real_files(real_file: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    ds = open_real(real_file, name)
    if name == ERSST:
        data = ds.sst.isel(time=slice(0, 24))
    elif name == HADGEM:
        data = ds.air_temperature
    elif name == CYLINDER:
        data = ds[["u", "v"]].isel(time=slice(30, 60))
    else:
        rng = np.random.default_rng(0)
        data = xr.concat(
            [ds.tos.isel(time_counter=0) + rng.normal() for _ in range(10)], "time_counter"
        )
    options = {"sample": "time_counter"} if name == NEMO else {}
    assert_reads_back(
        xmrcae.MrCAE(levels=2, **options, **QUICK).fit(data), data, str(tmp_path / "model.nc")
    )


@pytest.mark.parametrize("encoder", ["filters", "projection"])
def test_files_of_version_2_open_with_the_errors_that_they_record(encoder: str) -> None:
    model = xmrcae.open_model(Path(__file__).parent / "files" / f"version_2_{encoder}.nc")
    assert model.options.encoder == encoder and model.history.sizes["epoch"] > 1
    ds = make_two_variables(n_times=20, shape=(11, 14))  # what both were fitted to
    score = model.score(ds.isel(time=(model.split == "training").values))
    valid = xr.Dataset({name: ds[name].notnull().all("time").sum() for name in ds})
    rmse = score["rmse"].isel(level=-1) / model.fitted.standard.scale
    mean = float((rmse**2 * valid.to_dataarray()).sum() / valid.to_dataarray().sum())
    assert mean == pytest.approx(float(model.history["train_mse"][-1]), rel=1e-4)


@pytest.mark.parametrize("encoder", ["filters", "projection"])
@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_files_of_version_2_are_written_again(encoder: str, name: str, tmp_path: Path) -> None:
    model = xmrcae.open_model(Path(__file__).parent / "files" / f"version_2_{encoder}.nc")
    ds = make_two_variables(n_times=20, shape=(11, 14))
    assert_reads_back(model, ds, str(tmp_path / name))


def test_files_of_version_2_hold_what_is_read(tmp_path: Path) -> None:
    path = Path(__file__).parent / "files" / "version_2_projection.nc"
    model = xmrcae.open_model(path)
    network, standard = model.fitted.codec.network, model.fitted.standard
    with xr.open_datatree(path, mask_and_scale=False) as tree:
        for name, values in network.state().weights.items():
            level, part = name.split(".")[1], name.split(".")[2:-1]
            node = part[0] if len(part) == 1 else f"group_{int(part[1]) + 1}"
            stored = tree[f"level_{level}/{node}/{name.split('.')[-1]}"]
            assert np.array_equal(values, stored) and values.dtype == stored.dtype
        for k, has_data in enumerate(network.state().has_data):
            assert np.array_equal(has_data, tree[f"level_{k}/deepening/has_data"])
            assert np.array_equal(network.projection[k], tree[f"level_{k}/deepening/projection"])
        for name in ("centre", "mean", "scale", "valid"):
            assert np.array_equal(getattr(standard, name), tree[f"standard/{name}"])
        assert model.history.equals(tree["history"].to_dataset()[list(model.history)])


def test_stages_are_told_by_their_last_epochs_alone(model: xmrcae.MrCAE) -> None:
    datasets, attrs = fitted_to_datasets(model.fitted, all_epochs=False)
    options, fitted = fitted_from_datasets(datasets, attrs)
    short = xmrcae.MrCAE(**options)
    short._fitted = fitted
    assert len(model.stages.stage) == short.history.sizes["epoch"] < model.history.sizes["epoch"]
    xr.testing.assert_allclose(short.stages, model.stages, rtol=1e-6)


def test_maps_may_be_kept_elsewhere(model: xmrcae.MrCAE, field: xr.DataArray) -> None:
    datasets, attrs = fitted_to_datasets(model.fitted, base_maps=False)
    assert "standard" not in datasets
    standard = model.fitted.standard
    datasets["standard"] = standard_dataset(standard.centre + 1, standard.mean)
    other = xmrcae.MrCAE()
    other._fitted = fitted_from_datasets(datasets, attrs)[1]
    codes = model.encode(field)
    xr.testing.assert_allclose(other.decode(codes), model.decode(codes) + 1, atol=1e-5)


@pytest.mark.parametrize("name", ["model.nc", "model.zarr"])
def test_arrays_are_few_compressed_and_in_one_chunk(
    model: xmrcae.MrCAE, tmp_path: Path, name: str
) -> None:
    model.save(tmp_path / name)
    kind = {"engine": "netcdf4"} if name.endswith(".nc") else {"consolidated": False}
    with xr.open_datatree(tmp_path / name, decode_times=False, **kind) as tree:
        nodes = [node.to_dataset(inherit=False) for node in tree.subtree]
        arrays = [array for node in nodes for array in node.data_vars.values()]
        assert len(arrays) == 5  # weights, bits, centre, history, split
        for array in arrays:
            chunks = "chunksizes" if name.endswith(".nc") else "chunks"
            assert array.encoding[chunks] == array.shape
            assert any(array.encoding.get(key) for key in ("zlib", "compressors", "compressor"))


def test_the_file_is_plain_netcdf(model: xmrcae.MrCAE, tmp_path: Path) -> None:
    model.save(tmp_path / "model.nc")
    with xr.open_datatree(tmp_path / "model.nc") as tree:
        weights = tree["network"]["weights"].values
        assert tree["grid"]["lat"].attrs["units"] == "degrees_north"
        assert (tree["split"]["time"] == model.split["time"]).all()
    assert np.array_equal(weights, model.fitted.codec.network.vector())


def test_a_device_that_is_not_here_is_refused_before_the_file_is_looked_for() -> None:
    with pytest.raises(ValueError, match="device='cuda:99' cannot be used here"):
        xmrcae.open_model("nowhere.nc", device="cuda:99")
