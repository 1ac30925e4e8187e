"""Archives, codes and models on an object store: an S3 server on loopback."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from helpers import ERSST, make_field, open_real
from test_checkpoint import assert_same_fit

import xmrcae

moto_server = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")

BUCKET = "s3://bucket"
OPTIONS: dict[str, Any] = {"levels": 2, "channels": [[1]], "max_epochs": 3, "progress": False}


@pytest.fixture(scope="module")
def store() -> Iterator[dict[str, Any]]:
    """Options to reach the store with, which fsspec also knows by itself; a bucket is there, and empty."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "any", "secret": "any", "endpoint_url": f"http://{host}:{port}"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fsspec.config.conf, "s3", options)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(BUCKET)
        yield options
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(scope="module")
def field(data_dir: Path) -> xr.DataArray:
    """Four years of sea surface temperatures in the Pacific; made-up ones where there is no such file."""
    if not (data_dir / ERSST).is_file():
        return make_field(48, (40, 60), globe=False)
    sst = open_real(lambda name: data_dir / name, ERSST)["sst"]
    return sst.isel(time=slice(48)).sel(lat=slice(40, -40), lon=slice(130, 250)).drop_encoding()


@pytest.fixture(scope="module")
def model(field: xr.DataArray) -> xmrcae.MrCAE:
    """A model that was fitted to data in memory."""
    return field.mrcae.fit(**OPTIONS)


def test_an_archive_on_the_store_is_fitted_and_encoded(
    store: dict[str, Any], no_compute: Callable[[], Any], field: xr.DataArray, model: xmrcae.MrCAE
) -> None:
    url = f"{BUCKET}/archive.zarr"
    field.to_dataset(name="sst").chunk(time=12).to_zarr(
        url, storage_options=store, consolidated=False
    )
    archive = xr.open_zarr(url, storage_options=store, consolidated=False)["sst"]
    assert archive.chunks is not None
    assert_same_fit(model, archive.mrcae.fit(**OPTIONS))
    with no_compute():
        codes, again = model.encode(archive), model.reconstruct(archive)
    assert codes["level_0"]["encoding"].chunks is not None
    expected = model.encode(field)
    for level in range(2):
        xr.testing.assert_equal(
            codes[f"level_{level}"].to_dataset(), expected[f"level_{level}"].to_dataset()
        )
    xr.testing.assert_equal(again, model.reconstruct(field))


def test_codes_on_the_store_come_back(
    store: dict[str, Any], field: xr.DataArray, model: xmrcae.MrCAE
) -> None:
    url, expected = f"{BUCKET}/codes.zarr", model.encode(field)
    model.encode(field.chunk(time=12)).to_zarr(url, storage_options=store, consolidated=False)
    stored = xr.open_datatree(
        url, engine="zarr", storage_options=store, consolidated=False, chunks={}
    )
    for level in range(2):
        found, other = (codes[f"level_{level}"]["encoding"] for codes in (stored, expected))
        assert found.chunks is not None
        assert np.array_equal(found, other, equal_nan=True)
    xr.testing.assert_equal(model.decode(stored), model.decode(expected))


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_models_on_the_store_come_back(
    field: xr.DataArray, model: xmrcae.MrCAE, suffix: str
) -> None:
    url = f"{BUCKET}/models/model{suffix}"
    model.save(url)
    again = xmrcae.open_model(url)
    assert_same_fit(model, again)
    xr.testing.assert_identical(again.reconstruct(field), model.reconstruct(field))
    other = field.mrcae.fit(**OPTIONS | {"seed": 1})
    with pytest.raises(ValueError, match="exists already"):
        other.save(url)
    assert_same_fit(model, xmrcae.open_model(url))
    other.save(url, overwrite=True)
    assert_same_fit(other, xmrcae.open_model(url))
    names = s3fs.S3FileSystem().ls(f"{BUCKET}/models", detail=False, refresh=True)
    assert not [name for name in names if name.endswith((".part", ".old"))]


@pytest.mark.usefixtures("store")
def test_a_checkpoint_on_the_store_is_gone_on_from(
    field: xr.DataArray, model: xmrcae.MrCAE
) -> None:
    folder = f"{BUCKET}/checkpoint"
    assert_same_fit(model, field.mrcae.fit(checkpoint=folder, **OPTIONS))
    assert s3fs.S3FileSystem().exists(f"{folder}/checkpoint.pt")
    assert_same_fit(model, field.mrcae.fit(checkpoint=folder, **OPTIONS))


@pytest.mark.usefixtures("store")
def test_a_model_that_is_not_there_is_told_by_its_url() -> None:
    with pytest.raises(ValueError, match=rf"no file {BUCKET}/nowhere.nc"):
        xmrcae.open_model(f"{BUCKET}/nowhere.nc")
