"""Codes and stacks that a user writes are compressed, whatever writes them, and come back."""

from pathlib import Path
from typing import Any

import cf_xarray
import pytest
import xarray as xr

import xmrcae

ENGINES = ["netcdf4", "h5netcdf", "scipy", "zarr"]


def written(ds: xr.Dataset, folder: Path, engine: str) -> xr.Dataset:
    """What a file of that engine holds, without a keyword that would change how it is stored."""
    if engine == "zarr":
        ds.to_zarr(folder / "codes.zarr", consolidated=False)
        return xr.open_zarr(folder / "codes.zarr", consolidated=False)
    if engine == "h5netcdf":
        pytest.importorskip(engine)
    ds.to_netcdf(folder / "codes.nc", engine=engine)
    return xr.open_dataset(folder / "codes.nc", engine=engine)


def is_compressed(array: xr.DataArray) -> bool:
    return any(array.encoding.get(name) for name in ("zlib", "compressor", "compressors"))


def selections(ds: xr.Dataset) -> dict[str, xr.Dataset]:
    return {
        "whole": ds,
        "one time": ds.isel(time=0),
        "a few": ds.isel(time=slice(2, 5)),
        "turned": ds.transpose(..., "time"),
    }


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("chunks", [None, {"time": 6}], ids=["loaded", "lazy"])
@pytest.mark.parametrize("selection", ["whole", "one time", "a few", "turned"])
def test_codes_come_back_from_compressed_files(
    model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path,
    engine: str, chunks: Any, selection: str,
) -> None:  # fmt: skip
    codes = model.encode(field if chunks is None else field.chunk(chunks))
    given = selections(codes["level_1"].to_dataset())[selection]
    with written(given, tmp_path, engine) as ds:
        assert is_compressed(ds["encoding"]) == (engine != "scipy")
        assert ds["encoding"].equals(given["encoding"].compute())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("chunks", [None, {"time": 6}], ids=["loaded", "lazy"])
def test_gathered_stacks_come_back_from_compressed_files(
    model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path, engine: str, chunks: Any
) -> None:
    table = model.stack(model.encode(field if chunks is None else field.chunk(chunks)))
    gathered = cf_xarray.encode_multi_index_as_compress(table.to_dataset(), "feature")
    with written(gathered, tmp_path, engine) as ds:
        assert is_compressed(ds["encoding"]) == (engine != "scipy")
        again = cf_xarray.decode_compress_to_multi_index(ds, "feature")["encoding"]
        assert again.equals(table.compute())


def test_all_levels_are_compressed_in_one_file(
    model: xmrcae.MrCAE, field: xr.DataArray, tmp_path: Path
) -> None:
    model.encode(field).to_netcdf(tmp_path / "codes.nc")
    with xr.open_datatree(tmp_path / "codes.nc") as tree:
        assert all(is_compressed(tree[f"level_{k}/encoding"]) for k in range(model.levels))


def test_nobody_shares_how_codes_are_stored(model: xmrcae.MrCAE, field: xr.DataArray) -> None:
    codes = model.encode(field)
    codes["level_0/encoding"].encoding["zlib"] = False
    assert codes["level_1/encoding"].encoding["zlib"]
    assert model.stack(codes).encoding["zlib"]
