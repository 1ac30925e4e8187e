"""Sea surface temperatures that NOAA's Physical Sciences Laboratory (PSL) serves."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from numbers import Integral
from pathlib import Path

import numpy as np
import xarray as xr

from .._version import __version__

log = logging.getLogger("xmrcae")

PSL = "https://downloads.psl.noaa.gov/Datasets"
OISST_V2, LSMASK, ERSST_V5 = (
    "noaa.oisst.v2/sst.mnmean.nc",
    "noaa.oisst.v2/lsmask.nc",
    "noaa.ersst.v5/sst.mnmean.nc",
)
OISST_V21, OISST_V21_FIRST_YEAR = "noaa.oisst.v2.highres/sst.day.mean.{year}.nc", 1981
LSMASK_SHA256 = "730407939d27a40dc341765a8cef0e72e35b42b76a9ecd28514ae9f85ca0b44f"

#: Further tries after a lost connection or a wrong checksum; pooch waits 1 s, then 2 s.
RETRIES = 2
#: Seconds to wait for a connection, and for the next bytes.
TIMEOUT = (10, 60)
CHUNK_BYTES = 2**16

LICENSE = "No constraints on data access or use"
OISST_V2_CITATION = (
    "Reynolds et al. (2002), An improved in situ and satellite SST analysis for climate, "
    "Journal of Climate 15, 1609-1625, "
    "https://doi.org/10.1175/1520-0442(2002)015<1609:AIISAS>2.0.CO;2"
)
OISST_V21_CITATION = (
    "Huang et al. (2021), Improvements of the Daily Optimum Interpolation Sea Surface Temperature "
    "(DOISST) Version 2.1, Journal of Climate 34, 2923-2939, "
    "https://doi.org/10.1175/JCLI-D-20-0166.1"
)
ERSST_V5_CITATION = (
    "Huang et al. (2017), Extended Reconstructed Sea Surface Temperature, Version 5 (ERSSTv5): "
    "Upgrades, validations, and intercomparisons, Journal of Climate 30, 8179-8205, "
    "https://doi.org/10.1175/JCLI-D-16-0836.1"
)

#: What PSL's files leave out now and then, and CF asks for.
CF_ATTRS = {
    "time": {"standard_name": "time", "long_name": "time", "axis": "T"},
    "lat": {
        "standard_name": "latitude",
        "long_name": "latitude",
        "units": "degrees_north",
        "axis": "Y",
    },
    "lon": {
        "standard_name": "longitude",
        "long_name": "longitude",
        "units": "degrees_east",
        "axis": "X",
    },
    "sst": {
        "standard_name": "sea_surface_temperature",
        "long_name": "sea surface temperature",
        "units": "degC",
    },
}


def oisst_v2_monthly(*, progress: bool = True) -> xr.Dataset:
    """Open NOAA OI SST V2, monthly means on one degree, which the paper's experiment took.

    The analysis is filled in over land: ``oisst_v2_lsmask`` tells where it holds. NOAA added a
    month every month from December 1981 on and ended it in January 2023; the file is not held to a
    checksum.

    Parameters
    ----------
    progress : bool
        Whether to show a bar while the file is fetched.

    Returns
    -------
    xarray.Dataset, (time, lat, lon)
        ``sst`` in degrees Celsius, lazy. The attributes tell `source`, `license`, `citation` and
        `url`, the `sha256` of the file that was read, and when it was `accessed`. The file stays
        in the folder XMRCAE_DATA_DIR (else the user's cache) and is fetched once; to get what was
        added since, delete it. XMRCAE_DATA_URL names another server with the same files.

    Raises
    ------
    ConnectionError
        If the file can not be fetched. The message says where to put a file that was got
        otherwise.
    ValueError
        If the server sends no netCDF file.

    Examples
    --------
    >>> import xmrcae
    >>> sst = xmrcae.datasets.oisst_v2_monthly().sst  # doctest: +SKIP
    >>> sst.mrcae.fit(valid=xmrcae.datasets.oisst_v2_lsmask())  # doctest: +SKIP
    """
    return _open(OISST_V2, OISST_V2_CITATION, progress=progress)


def oisst_v2_lsmask(*, progress: bool = True) -> xr.DataArray:
    """Open the land-sea mask of NOAA OI SST V2, a file that is held to its checksum.

    Parameters
    ----------
    progress : bool
        Whether to show a bar while the file is fetched.

    Returns
    -------
    xarray.DataArray, (lat, lon)
        ``lsmask``, int8, lazy: 1 where there is sea, 0 where there is land, as ``valid=`` takes it
        for data on its own grid, and :func:`xmrcae.nearest_valid` for others. Attributes, and
        where the file stays, are as for ``oisst_v2_monthly``.

    Raises
    ------
    ConnectionError
        If the file can not be fetched. The message says where to put a file that was got
        otherwise.
    ValueError
        If what was fetched has another checksum. It is not kept.

    Examples
    --------
    >>> import xmrcae
    >>> share_of_sea = xmrcae.datasets.oisst_v2_lsmask().mean()  # doctest: +SKIP
    """
    ds = _open(LSMASK, OISST_V2_CITATION, sha256=LSMASK_SHA256, progress=progress)
    lsmask = ds["mask"].squeeze("time", drop=True).astype(np.int8).rename("lsmask")
    flags = {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "land sea"}
    names = {"long_name": "land-sea mask", "standard_name": "sea_binary_mask", "units": "1"}
    lsmask.attrs = ds.attrs | names | flags
    return lsmask


def oisst_v21_daily(year: int, *, progress: bool = True) -> xr.Dataset:
    """Open a year of NOAA OISST v2.1, daily means on a quarter of a degree; land is NaN.

    A year is a file of about half a gigabyte. NOAA adds a day every day to that of this year,
    revises the last two weeks, and has made past years anew, so there is no checksum to hold a
    file to.

    Parameters
    ----------
    year : int
        From 1981 on.
    progress : bool
        Whether to show a bar while the file is fetched.

    Returns
    -------
    xarray.Dataset, (time, lat, lon)
        ``sst`` in degrees Celsius, lazy. Attributes, and where the file stays, are as for
        ``oisst_v2_monthly``. A file that was fetched before its year was over is named in the log:
        delete it to get the rest.

    Raises
    ------
    ConnectionError
        If the file can not be fetched. The message says where to put a file that was got
        otherwise.
    TypeError, ValueError
        If the year is no whole number, or NOAA has no data of it; before any request. A ValueError
        too if the server sends no netCDF file.

    Examples
    --------
    >>> import xmrcae
    >>> sst = xmrcae.datasets.oisst_v21_daily(2020).sst  # doctest: +SKIP
    >>> xmrcae.datasets.oisst_v21_daily(1980)
    Traceback (most recent call last):
    ValueError: year=1980: NOAA OISST v2.1 has data from 1981 to this year, ...
    """
    this_year = datetime.now(UTC).year
    years = f"from {OISST_V21_FIRST_YEAR} to this year, {this_year}"
    if isinstance(year, bool) or not isinstance(year, Integral):
        raise TypeError(f"year={year!r}: a whole number {years}")
    if not OISST_V21_FIRST_YEAR <= year <= this_year:
        raise ValueError(f"year={year}: NOAA OISST v2.1 has data {years}: choose one of these")
    ds = _open(OISST_V21.format(year=year), OISST_V21_CITATION, progress=progress)
    if int(ds.attrs["accessed"][:4]) <= year < this_year:
        unfinished = "%s was fetched on %s, before its year was over: delete it to get the rest"
        log.warning(unfinished, ds.encoding["source"], ds.attrs["accessed"])
    return ds


def ersst_v5(*, progress: bool = True) -> xr.Dataset:
    """Open NOAA ERSST v5, monthly means on two degrees since 1854; land is NaN.

    PSL adds a month every month and revises the last ones, so there is no checksum to hold the
    file to.

    Parameters
    ----------
    progress : bool
        Whether to show a bar while the file is fetched.

    Returns
    -------
    xarray.Dataset, (time, lat, lon)
        ``sst`` in degrees Celsius, lazy. Attributes, and where the file stays, are as for
        ``oisst_v2_monthly``.

    Raises
    ------
    ConnectionError
        If the file can not be fetched. The message says where to put a file that was got
        otherwise.
    ValueError
        If the server sends no netCDF file.

    Examples
    --------
    >>> import xmrcae
    >>> sst = xmrcae.datasets.ersst_v5().sst.sel(time=slice("1990", None))  # doctest: +SKIP
    >>> model = sst.mrcae.fit()  # doctest: +SKIP
    """
    return _open(ERSST_V5, ERSST_V5_CITATION, progress=progress)


def _open(name: str, citation: str, *, sha256: str | None = None, progress: bool) -> xr.Dataset:
    """Open one of PSL's files, with bounds as coordinates and attributes that say whose it is."""
    import pooch

    if not isinstance(progress, bool):
        raise TypeError(f"progress={progress!r}: True or False")
    path = _fetch(name, sha256=sha256, progress=progress)
    try:
        raw = xr.open_dataset(path, engine="netcdf4", decode_cf=False)
    except OSError as error:
        anew = "delete it, and the next call fetches it anew"
        raise ValueError(f"{path} cannot be read ({error}): {anew}") from error
    for key, attrs in CF_ATTRS.items():
        if key in raw.variables:
            raw[key].attrs = attrs | raw[key].attrs
    if "time_bnds" in raw.variables:
        raw["time"].attrs.setdefault("bounds", "time_bnds")
    ds = xr.decode_cf(raw, decode_coords="all")
    largest = max(raw.data_vars.values(), key=lambda variable: variable.size)
    ds = ds.chunk(largest.encoding.get("preferred_chunks", {}))  # as they lie in the file
    ds.set_close(raw.close)
    fetched = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    about = {
        "license": LICENSE,
        "citation": citation,
        "url": f"{PSL}/{name}",
        "sha256": pooch.file_hash(str(path)),
        "accessed": fetched.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    ds.attrs = {"source": "NOAA Physical Sciences Laboratory"} | ds.attrs | about
    return ds


def _fetch(name: str, *, sha256: str | None, progress: bool) -> Path:
    """Return the path of a file, fetched unless the folder of data has it with this checksum."""
    import pooch

    folder = Path(os.environ.get("XMRCAE_DATA_DIR") or pooch.os_cache("xmrcae")).expanduser()
    server = (os.environ.get("XMRCAE_DATA_URL") or PSL).rstrip("/")
    registry = {name: sha256}
    store = pooch.create(folder, f"{server}/", registry=registry, retry_if_failed=RETRIES)
    agent = {"User-Agent": f"xmrcae/{__version__}"}
    download = pooch.HTTPDownloader(progress, CHUNK_BYTES, headers=agent, timeout=TIMEOUT)
    try:
        return Path(store.fetch(name, downloader=download))
    except OSError as error:
        # Errors of a connection are those of requests, which have no number; the disk's do.
        if error.errno is not None or isinstance(error, PermissionError):
            raise type(error)(
                f"{folder / name} cannot be written ({error}): name another folder in "
                "XMRCAE_DATA_DIR"
            ) from error
        reason = getattr(error.args[0] if error.args else error, "reason", error)
        is_other = (folder / name).is_file()
        instead = " in place of the one there, which has another checksum" if is_other else ""
        raise ConnectionError(
            f"could not get {name} from {server}/{name} ({reason}): get it in another way and put "
            f"it at {folder / name}{instead}, or name a server that has it under the same name in "
            "XMRCAE_DATA_URL"
        ) from error
