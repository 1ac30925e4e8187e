"""Planes of JHTDB, through its client givernylocal."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import xarray as xr

from ..io.tree_file import replacing
from .jhtdb import COMPONENTS, SIMULATIONS, join, label

TOKEN = "XMRCAE_JHTDB_TOKEN"

# From 128**3 points on, those between the strides counted, the client warns that requests may
# fail, and sets up the root logger to say so.
POINTS_A_REQUEST = 128**3


def jhtdb_slice(
    dataset: str,
    times: Iterable[int],
    *,
    z: float | None = None,
    every: int = 8,
    token: str | None = None,
    variable: str = "velocity",
    cache: str | os.PathLike[str] | None = None,
) -> xr.Dataset:
    """Get snapshots of a plane of constant z from JHTDB, through its client givernylocal.

    A request asks for two snapshots, as many as the client answers for without a warning. The
    database asks its users for a token of their own; the public one for tests allows no whole
    plane.

    Parameters
    ----------
    dataset : str
        "isotropic1024coarse" or "channel".
    times : iterable of int
        Frames, counted from 1: frame n is at time 0.002 (n - 1) in isotropic1024coarse (5024
        frames), at 0.0065 (n - 1) in channel (4000 frames).
    z : float, optional
        Where the plane lies, in the simulation's units of length; the nearest plane of its grid is
        taken. By default the middle, as in the paper: pi in isotropic1024coarse, 1.5 pi in
        channel.
    every : int
        Take the first point along x and y, and every so many on.
    token : str, optional
        The user's token; by default the environment variable XMRCAE_JHTDB_TOKEN. It goes to the
        client and nowhere else.
    variable : str
        "velocity" or "pressure".
    cache : path, optional
        Folder that keeps each snapshot as a netCDF file as soon as it arrives. What it holds is
        not asked for again, so after an interruption the same call goes on.

    Returns
    -------
    xarray.Dataset, (time, y, x)
        ``u``, ``v``, ``w``, or ``p``: float32, in memory, without dimension; NaN where the
        database gave no value. Times ascend; z is a scalar coordinate. The points of channel along
        y are not uniform.

    Raises
    ------
    ValueError
        If an argument is out of range or no token is given; before any request.
    ImportError
        If the package givernylocal is missing.
    RuntimeError
        If the client or the database refuses or fails. The message has the client's words, without
        the token.

    Examples
    --------
    The paper's channel flow is 500 snapshots, 0.052 apart; its isotropic turbulence is 503, 0.02
    apart:

    >>> import xmrcae
    >>> channel, isotropic = range(1, 4001, 8), range(1, 5025, 10)
    >>> len(channel), len(isotropic)
    (500, 503)
    >>> xmrcae.datasets.jhtdb_slice("channel", channel, cache="jhtdb")  # doctest: +SKIP
    >>> xmrcae.datasets.jhtdb_slice(
    ...     "isotropic1024coarse", isotropic, cache="jhtdb"
    ... )  # doctest: +SKIP
    """
    frames, plane = _check_request(dataset, times, z, every, variable)
    name = f"jhtdb_{dataset}_{variable}_z{plane:04d}_every{every}"
    files = (
        {frame: Path(cache) / f"{name}_{frame:04d}.nc" for frame in frames}
        if cache is not None
        else {}
    )
    snapshots = {frame: xr.load_dataset(file) for frame, file in files.items() if file.is_file()}
    missing = [frame for frame in frames if frame not in snapshots]
    if missing:
        for frame, ds in _snapshots(dataset, variable, missing, plane, every, token):
            snapshots[frame] = ds
            if frame in files:
                _write(ds, files[frame])
    return join([snapshots[frame] for frame in frames])


def _check_request(
    dataset: str, times: Iterable[int], z: float | None, every: int, variable: str
) -> tuple[list[int], int]:
    """Return the frames in order, and the plane's number, counted from 1."""
    if dataset not in SIMULATIONS:
        raise ValueError(f"dataset={dataset!r}: choose from {', '.join(SIMULATIONS)}")
    if variable not in COMPONENTS:
        raise ValueError(f"variable={variable!r}: choose from {', '.join(COMPONENTS)}")
    simulation = SIMULATIONS[dataset]
    n_y = simulation.points["y"]
    if not isinstance(every, Integral) or not 1 <= every < n_y:
        raise ValueError(
            f"every={every!r}: a whole number from 1 to {n_y - 1}, so that points are left to take"
        )
    frames = list(times)
    wrong = [
        frame
        for frame in frames
        if not isinstance(frame, Integral) or not 1 <= frame <= simulation.n_frames
    ]
    if wrong or not frames or len(set(frames)) < len(frames):
        problem = (
            f"{wrong[0]!r} is none"
            if wrong
            else "one is there twice"
            if frames
            else "there is none"
        )
        raise ValueError(
            f"times must be different frames, whole numbers from 1 to "
            f"{simulation.n_frames} (frame n is at time {simulation.dt} (n - 1)); {problem}"
        )
    n_z, dz = simulation.points["z"], simulation.spacing["z"]
    if z is not None and not 0 <= z < n_z * dz:
        raise ValueError(
            f"z={z!r}: from 0 to below {n_z * dz:.6g}, the length of {dataset} along z"
        )
    # Past the last plane the nearest is the first: z is periodic.
    plane = n_z // 2 if z is None else round(z / dz) % n_z
    return sorted(map(int, frames)), plane + 1


def _batches(frames: list[int], most: int) -> list[list[int]]:
    """Find runs of equal steps, which one request can name, of at most so many frames."""
    batches: list[list[int]] = []
    for frame in frames:
        last = batches[-1] if batches else []
        if 0 < len(last) < most and (len(last) == 1 or frame - last[-1] == last[1] - last[0]):
            last.append(frame)
        else:
            batches.append([frame])
    return batches


def _snapshots(
    dataset: str, variable: str, frames: list[int], plane: int, every: int, token: str | None
) -> Iterator[tuple[int, xr.Dataset]]:
    """Ask the service for a plane at those frames; yield snapshots, (frame, labelled)."""
    token = token or os.environ.get(TOKEN)
    if not token:
        raise ValueError(
            f"no token for JHTDB: give token=, or set {TOKEN}; its users get one of their own by a "
            "letter to turbulence@lists.johnshopkins.edu"
        )
    try:
        from givernylocal.turbulence_dataset import turb_dataset
        from givernylocal.turbulence_toolkit import getCutout
    except ImportError as error:
        raise ImportError(
            f'JHTDB is read through its client ({error}): pip install "xmrcae[jhtdb]"'
        ) from error

    points = SIMULATIONS[dataset].points
    box = {"x": (1, points["x"]), "y": (1, points["y"]), "z": (plane, plane)}
    steps = {"x": every, "y": every, "z": 1}
    attrs = {f"{axis}_start": first for axis, (first, _) in box.items()}
    attrs |= {f"{axis}_step": step for axis, step in steps.items()}
    with tempfile.TemporaryDirectory() as scratch:
        cube = _without_token(
            token, turb_dataset, dataset_title=dataset, output_path=scratch, auth_token=token
        )
        for batch in _batches(frames, POINTS_A_REQUEST // (points["x"] * points["y"])):
            ranges = np.array([*box.values(), (batch[0], batch[-1])])
            strides = np.array([*steps.values(), batch[1] - batch[0] if len(batch) > 1 else 1])
            raw = _without_token(token, getCutout, cube, variable, ranges, strides, verbose=False)
            got = label(raw.assign_attrs(dataset=dataset, **attrs), "the answer of JHTDB")
            asked = SIMULATIONS[dataset].dt * (np.array(batch) - 1)
            if not np.array_equal(got.time, asked):
                raise RuntimeError(
                    f"JHTDB answered with times {got.time.values} where {asked} were asked for"
                )
            for at, frame in enumerate(batch):
                yield frame, got.isel(time=[at])


def _without_token(token: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call the client; its errors can hold the address that it asked, and so the token."""
    try:
        return call(*args, **kwargs)
    except Exception as error:
        # Unquoted, for an address can hold it in more than one spelling.
        message = unquote(f"{type(error).__name__}: {error}")
    for secret in (token, unquote(token)):
        message = message.replace(secret, "<token>")
    # Raised here, where no exception is being handled: else the client's own would hang on this
    # one as its context.
    raise RuntimeError(f"the client of JHTDB failed with {message}")


def _write(ds: xr.Dataset, file: Path) -> None:
    """Write a file that is there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file, overwrite=True) as part:
        ds.to_netcdf(part, engine="netcdf4")
