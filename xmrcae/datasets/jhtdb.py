"""Cutouts of the Johns Hopkins Turbulence Database (JHTDB), labelled."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

MISSING = np.float32(-999.9)

# CF has standard names for the velocities and pressures of air, sea and ice, none for those of any
# fluid.
COMPONENTS = {
    "velocity": {"u": "velocity along x", "v": "velocity along y", "w": "velocity along z"},
    "pressure": {"p": "pressure"},
}
FIELDS = {"u": "velocity", "velocity": "velocity", "p": "pressure", "pressure": "pressure"}
LEGACY_NUMBERS = {4: "isotropic1024coarse"}
LEGACY_STEPS_A_FRAME = 10

LICENSE = "ODC-By 1.0"
CITATION = (
    "Li et al. (2008), A public turbulence database cluster and applications to study Lagrangian "
    "evolution of velocity increments in turbulence, Journal of Turbulence 9, N31, "
    "https://doi.org/10.1080/14685240802376389"
)


@dataclass(frozen=True)
class Simulation:
    """A data set of JHTDB; frame n, counted from 1, is at time (n - 1) dt."""

    title: str
    references: str
    n_frames: int
    dt: float
    points: dict[str, int]
    #: Without y where its points are not uniform.
    spacing: dict[str, float]


SIMULATIONS = {
    "isotropic1024coarse": Simulation(
        title="Forced isotropic turbulence on 1024^3 points",
        references="https://doi.org/10.7281/T1KK98XB",
        n_frames=5024,
        dt=0.002,
        points={"x": 1024, "y": 1024, "z": 1024},
        spacing={axis: 2 * np.pi / 1024 for axis in "xyz"},
    ),
    "channel": Simulation(
        title="Turbulent channel flow at friction Reynolds number 1000",
        references="https://doi.org/10.7281/T10K26QW https://doi.org/10.1080/14685248.2015.1088656",
        n_frames=4000,
        dt=0.0065,
        points={"x": 2048, "y": 512, "z": 1536},
        spacing={"x": 8 * np.pi / 2048, "z": 3 * np.pi / 1536},
    ),
}


def open_jhtdb(path: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> xr.Dataset:
    """Open HDF5 cutouts of JHTDB as one labelled time series.

    Both layouts are read: that of the former web service (``u01000``, ``_start``) and that of
    pyJHTDB and givernylocal (``Velocity_0101``, ``x_start``), of the data sets isotropic1024coarse
    and channel.

    Parameters
    ----------
    path : path, or iterable of paths
        Files, or patterns such as ``"cutouts/*.h5"``. Their snapshots come in the order of time,
        whatever the files'.

    Returns
    -------
    xarray.Dataset, (time, z, y, x)
        ``u``, ``v``, ``w`` and ``p``, as far as the files hold them: float32, lazy, in the units
        of the simulation, which are without dimension; NaN where the database gave no value. A
        direction of one point is a scalar coordinate and no dimension, so slices are
        two-dimensional: (time, y, x) for a plane of constant z.

    Raises
    ------
    FileNotFoundError
        If no file has that name.
    ValueError
        If a file is no cutout of these data sets, two files hold the same time, or a file has
        another grid or other variables than the first.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, xarray as xr, xmrcae
    >>> box = {f"{axis}_{what}": 1 for axis in "xyz" for what in ("start", "step")}
    >>> velocity = (("zcoor", "ycoor", "xcoor", "values"), np.zeros((1, 4, 8, 3), np.float32))
    >>> raw = xr.Dataset(
    ...     {"velocity_0101": velocity}, attrs={"dataset": "isotropic1024coarse"} | box
    ... )
    >>> folder = tempfile.TemporaryDirectory()
    >>> raw.to_netcdf(f"{folder.name}/cutout.h5")
    >>> ds = xmrcae.datasets.open_jhtdb(f"{folder.name}/*.h5")
    >>> ds.u.dims, ds.time.values
    (('time', 'y', 'x'), array([0.2]))
    >>> ds.close()
    >>> folder.cleanup()
    """
    files = _find(path)
    opened = [xr.open_dataset(file, engine="netcdf4", decode_cf=False) for file in files]
    labelled = [label(_lazy(_modern(raw)), file) for file, raw in zip(files, opened, strict=True)]
    _check_series(files, labelled)
    series = join(labelled)
    series.set_close(lambda: _close(opened))
    return series


def _find(path: Any) -> list[str]:
    files: list[str] = []
    for given in [path] if isinstance(path, str | os.PathLike) else path:
        pattern = os.fspath(given)
        found = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern))
        if not found:
            raise FileNotFoundError(
                f"path={pattern!r}: no such file; give the HDF5 cutouts, or a pattern "
                "such as '*.h5'"
            )
        files += found
    if not files:
        raise ValueError("path holds no name of a file: give at least one cutout")
    return files


def _close(datasets: list[xr.Dataset]) -> None:
    for ds in datasets:
        ds.close()


def _lazy(raw: xr.Dataset) -> xr.Dataset:
    """Open the fields as dask arrays; coordinates and the box are read at once, without dask."""
    return raw.assign(
        {name: da.chunk("auto") for name, da in raw.data_vars.items() if da.ndim == 4}
    )


def _modern(raw: xr.Dataset) -> xr.Dataset:
    """Bring the former web service's layout to pyJHTDB's.

    Variables are field_frame, and the box is in the attributes.
    """
    if "_start" not in raw:
        return raw
    number = raw["_dataset"].item()
    _, *start = raw["_start"].values.tolist()
    names = {}
    for name in map(str, raw.data_vars):
        if match := re.fullmatch(r"([up])(\d+)", name):
            names[name] = f"{match[1]}_{int(match[2]) // LEGACY_STEPS_A_FRAME + 1:04d}"
    box = {f"{axis}_start": first + 1 for axis, first in zip("xyz", start, strict=True)}
    return raw.rename(names).assign_attrs(dataset=LEGACY_NUMBERS.get(number, number), **box)


def label(raw: xr.Dataset, where: str) -> xr.Dataset:
    """Turn snapshots in pyJHTDB's layout, one variable each, into components along time."""
    dataset = raw.attrs.get("dataset")
    if dataset not in SIMULATIONS:
        raise ValueError(
            f"{where} names {dataset!r} as its data set of JHTDB, not one of those that can "
            f"be read: {', '.join(SIMULATIONS)}"
        )
    snapshots: dict[str, dict[int, xr.Variable]] = {}
    for key, da in raw.data_vars.items():
        match = re.fullmatch(r"([a-z]+)_(\d+)", str(key).lower())
        if match and match[1] in FIELDS:
            by_frame = snapshots.setdefault(FIELDS[match[1]], {})
            by_frame[int(match[2])] = xr.Variable(("z", "y", "x", "component"), da.data)
    frames = sorted(set().union(*snapshots.values()))
    if not frames or any(by_frame.keys() != set(frames) for by_frame in snapshots.values()):
        held = ", ".join(f"{field}: {sorted(by_frame)}" for field, by_frame in snapshots.items())
        raise ValueError(
            f"{where} must hold velocity or pressure, and if both then at the same frames; "
            f"got {{{held}}}"
        )

    variables = {}
    for field in sorted(snapshots, key=list(COMPONENTS).index):
        series = xr.Variable.concat([snapshots[field][frame] for frame in frames], dim="time")
        series = series.where(series != MISSING)
        for i, (name, long_name) in enumerate(COMPONENTS[field].items()):
            variables[name] = series.isel(component=i)
            variables[name].attrs = {"long_name": long_name, "units": "1"}
    simulation = SIMULATIONS[dataset]
    ds = xr.Dataset(
        variables, coords=_coordinates(raw, where, simulation, frames, variables[name].sizes)
    )
    ds.attrs = {
        "Conventions": "CF-1.8",
        "title": simulation.title,
        "institution": "Johns Hopkins University",
        "source": f"Johns Hopkins Turbulence Database, data set {dataset}",
        "license": LICENSE,
        "citation": CITATION,
        "references": simulation.references,
    }
    return ds.squeeze([axis for axis in ("z", "y", "x") if ds.sizes[axis] == 1])


def _coordinates(
    raw: xr.Dataset, where: str, simulation: Simulation, frames: list[int], sizes: Mapping[Any, int]
) -> dict[str, xr.Variable]:
    time = simulation.dt * (np.array(frames) - 1)
    coords = {
        "time": xr.Variable(
            "time", time, {"long_name": "time of the simulation", "units": "1", "axis": "T"}
        )
    }
    for axis in ("z", "y", "x"):
        if axis in simulation.spacing:
            start, step = raw.attrs[f"{axis}_start"], raw.attrs.get(f"{axis}_step", 1)
            values = simulation.spacing[axis] * (start - 1 + step * np.arange(sizes[axis]))
        elif f"{axis}coor" in raw.variables:
            values = raw[f"{axis}coor"].values.astype(np.float64)
        else:
            raise ValueError(
                f"{where} has no {axis}coor, which tells where its points lie along {axis}: "
                "get it anew"
            )
        coords[axis] = xr.Variable(
            axis, values, {"long_name": axis, "units": "1", "axis": axis.upper()}
        )
    return coords


def _check_series(files: list[str], parts: list[xr.Dataset]) -> None:
    """Refuse files that do not belong to one series."""
    first = parts[0]
    held_by: dict[float, str] = {}
    for file, ds in zip(files, parts, strict=True):
        if set(ds.data_vars) != set(first.data_vars):
            names = [", ".join(map(str, part.data_vars)) for part in (ds, first)]
            raise ValueError(
                f"{file} holds {names[0]} and {files[0]} {names[1]}: open them apart and merge them"
            )
        if ds.attrs != first.attrs or not ds.drop_dims("time").identical(first.drop_dims("time")):
            raise ValueError(
                f"{file} and {files[0]} have different grids or data sets: open them apart"
            )
        for time in ds.time.values.tolist():
            if time in held_by:
                raise ValueError(
                    f"{file} and {held_by[time]} both hold time {time:g}: leave one of them out"
                )
            held_by[time] = file


def join(parts: list[xr.Dataset]) -> xr.Dataset:
    """Join series on one grid to one, in the order of time."""
    series = xr.concat(
        parts,
        "time",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
    return series.sortby("time")
