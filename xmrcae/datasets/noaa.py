"""Sea surface temperatures that NOAA's Physical Sciences Laboratory (PSL) serves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import xarray as xr

PSL = "https://downloads.psl.noaa.gov/Datasets"
OISST_V2, LSMASK, ERSST_V5 = "noaa.oisst.v2/sst.mnmean.nc", "noaa.oisst.v2/lsmask.nc", "noaa.ersst.v5/sst.mnmean.nc"
LSMASK_SHA256 = "730407939d27a40dc341765a8cef0e72e35b42b76a9ecd28514ae9f85ca0b44f"
LICENSE = "No constraints on data access or use"
OISST_V2_CITATION = (
    "Reynolds et al. (2002), An improved in situ and satellite SST analysis for climate, Journal of Climate 15, "
    "1609-1625, https://doi.org/10.1175/1520-0442(2002)015<1609:AIISAS>2.0.CO;2"
)
ERSST_V5_CITATION = (
    "Huang et al. (2017), Extended Reconstructed Sea Surface Temperature, Version 5 (ERSSTv5): Upgrades, validations, "
    "and intercomparisons, Journal of Climate 30, 8179-8205, https://doi.org/10.1175/JCLI-D-16-0836.1"
)


def oisst_v2_monthly() -> xr.Dataset:
    """NOAA OI SST V2, monthly means on one degree: what the paper's experiment on sea surface temperature took.

    The analysis is filled in over land: ``oisst_v2_lsmask`` tells where it holds. NOAA added a month every month from
    December 1981 on and ended it in January 2023; the file is not held to a checksum, the attribute ``sha256`` says
    which one was read.

    Returns
    -------
    xarray.Dataset, (time, lat, lon)
        ``sst`` in degrees Celsius, lazy. The file stays in the folder XMRCAE_DATA_DIR (else the user's cache) and is
        fetched once; to get what was added since, delete it. XMRCAE_DATA_URL names another server with the same files.

    Raises
    ------
    ConnectionError
        If the file can not be fetched. The message says where to put a file that was got otherwise.

    Examples
    --------
    >>> import xmrcae
    >>> sst = xmrcae.datasets.oisst_v2_monthly().sst  # doctest: +SKIP
    >>> sst.mrcae.fit(valid=xmrcae.datasets.oisst_v2_lsmask())  # doctest: +SKIP
    """
    return _open(OISST_V2, OISST_V2_CITATION)


def oisst_v2_lsmask() -> xr.DataArray:
    """The land-sea mask of NOAA OI SST V2; the file never changes and is held to its checksum.

    Returns
    -------
    xarray.DataArray, (lat, lon)
        ``lsmask``, int8, lazy: 1 where there is sea, 0 where there is land, as ``valid=`` takes it. Where the file
        stays is as for ``oisst_v2_monthly``.

    Raises
    ------
    ConnectionError
        If the file can not be fetched. The message says where to put a file that was got otherwise.
    ValueError
        If what was fetched has another checksum.

    Examples
    --------
    >>> import xmrcae
    >>> share_of_sea = xmrcae.datasets.oisst_v2_lsmask().mean()  # doctest: +SKIP
    """
    ds = _open(LSMASK, OISST_V2_CITATION, known_hash=f"sha256:{LSMASK_SHA256}")
    lsmask = ds["mask"].squeeze("time", drop=True).astype(np.int8).rename("lsmask")
    flags = {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "land sea"}
    lsmask.attrs = ds.attrs | {"long_name": "land-sea mask", "standard_name": "sea_binary_mask", "units": "1"} | flags
    return lsmask


def ersst_v5() -> xr.Dataset:
    """NOAA ERSST v5, monthly means on two degrees since 1854; land is NaN.

    PSL adds a month every month and revises the last ones, so there is no checksum to hold the file to; the attribute
    ``sha256`` says which one was read.

    Returns
    -------
    xarray.Dataset, (time, lat, lon)
        ``sst`` in degrees Celsius, lazy. Where the file stays is as for ``oisst_v2_monthly``.

    Raises
    ------
    ConnectionError
        If the file can not be fetched. The message says where to put a file that was got otherwise.

    Examples
    --------
    >>> import xmrcae
    >>> model = xmrcae.datasets.ersst_v5().sst.sel(time=slice("1990", None)).mrcae.fit()  # doctest: +SKIP
    """
    return _open(ERSST_V5, ERSST_V5_CITATION)


def _open(name: str, citation: str, *, known_hash: str | None = None) -> xr.Dataset:
    """Open one of PSL's files; its bounds become coordinates, its attributes say what it is and whose."""
    import pooch

    path = _fetch(name, f"{PSL}/{name}", known_hash)
    ds = xr.open_dataset(path, engine="netcdf4", decode_coords="all", chunks={})
    if "sst" in ds:
        ds["sst"].attrs["standard_name"] = "sea_surface_temperature"
    sha256 = pooch.file_hash(str(path), alg="sha256")
    about = {"url": f"{PSL}/{name}", "sha256": sha256, "license": LICENSE, "citation": citation}
    ds.attrs = {"source": "NOAA Physical Sciences Laboratory"} | ds.attrs | about
    return ds


def _fetch(name: str, url: str, known_hash: str | None) -> Path:
    """The path of a file in the cache, fetched if it is not there or has another hash than the known one."""
    import pooch

    path = Path(os.environ.get("XMRCAE_DATA_DIR") or pooch.os_cache("xmrcae")) / name
    if mirror := os.environ.get("XMRCAE_DATA_URL"):
        url = f"{mirror.rstrip('/')}/{name}"
    try:
        pooch.retrieve(url, known_hash, fname=path.name, path=path.parent)
    except OSError as error:
        raise ConnectionError(
            f"could not get {name} from {url} ({error}): get it on another way and put it at {path}, or name a server "
            "that has it below the same name in XMRCAE_DATA_URL"
        ) from error
    return path
