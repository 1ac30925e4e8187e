"""Simulate forced two-dimensional turbulence and write it to netCDF: ``python make_turbulence.py turbulence.nc``.

A stand-in for measured or three-dimensional turbulence that runs anywhere: it has the enstrophy
cascade of two dimensions, not the energy cascade of three. The vorticity ω of the velocity (u, v)
= (-∂ψ/∂y, ∂ψ/∂x), where ∇²ψ = ω, obeys

    ∂ω/∂t + u ∂ω/∂x + v ∂ω/∂y = F - μ ω - ν ∇⁴ω

on a doubly periodic square of side 2π. The forcing F is white in time and gives energy to a ring
of wavenumbers at the mean rate ε, the drag μ takes it away, and what cascades to the smallest
scales the hyperviscosity ν takes. The kinetic energy settles near ε / 2μ: with ε = μ, as here, the
root mean square of the speed is about 1.

Space is pseudo-spectral, with products freed of aliases by the 2/3 rule (Orszag 1971). Time is the
classical Runge-Kutta method of order 4, with drag and hyperviscosity in an integrating factor. At
256 points the energy spectrum falls as the wavenumber to the power -3.8 between the wavenumbers 8
and 42; drag makes it steeper than Kraichnan's -3.
"""

from __future__ import annotations

import argparse
import inspect
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from scipy import fft
from tqdm import tqdm

VERSION = "1.0"
POWER = 0.1
DRAG = 0.1
DAMPING = 5.0  # ν k⁴ at the cut-off k = size / 3: one number for all sizes
RING = (3, 5)
LONGEST_STEP = 1.3  # times 1 / size: stable to speeds of 6, and 4 is seldom reached


class Flow:
    """The square and its equation; a state is the Fourier coefficients (ky, kx >= 0) of the vorticity, to size / 3.

    Parameters
    ----------
    size : int
        Points a side.
    dt : float
        Time step.
    power, drag, damping : float
        ε, μ, and ν k⁴ at the cut-off.
    seed : int
        Of the forcing.
    """

    def __init__(
        self,
        size: int,
        dt: float,
        *,
        power: float = POWER,
        drag: float = DRAG,
        damping: float = DAMPING,
        seed: int = 0,
    ) -> None:
        self.size, self.dt, self.power = size, dt, power
        self.ky, self.kx = np.fft.fftfreq(size, 1 / size)[:, None], np.arange(size // 3 + 1.0)
        self.k2 = self.kx**2 + self.ky**2
        self.kept = (self.k2 > 0) & (self.k2 < (size / 3) ** 2)
        self.inverse_laplacian = self.kept / -np.maximum(self.k2, 1)
        self.viscosity = damping / (size / 3) ** 4
        self.half_decay = np.exp(-dt / 2 * (drag + self.viscosity * self.k2**2))
        on_ring = (self.k2 >= RING[0] ** 2) & (self.k2 <= RING[1] ** 2)
        rows, columns = np.nonzero(on_ring)
        self.ring = self.ky[rows, 0].astype(int), columns
        self.to_unit_energy = 1 / np.sqrt(self.energy(on_ring).sum())
        self.random = np.random.default_rng(seed)
        # A large block once freed makes glibc keep memory for reuse: without it, steps at 256
        # points take 2.5 times as long, most of it in page faults.
        np.empty(2**20)

    def energy(self, state: np.ndarray) -> np.ndarray:
        """Kinetic energy of each coefficient, with that of its conjugate, which is not stored where kx > 0."""
        return -np.where(self.kx > 0, 1.0, 0.5) * self.inverse_laplacian * np.abs(state) ** 2

    def on_points(self, *coefficients: np.ndarray) -> np.ndarray:
        """Values on the points, (..., y, x)."""
        return fft.irfft2(np.stack(coefficients), (self.size, self.size), norm="forward")

    def velocity(self, state: np.ndarray) -> np.ndarray:
        """u and v on the points, (2, y, x)."""
        stream = self.inverse_laplacian * state
        return self.on_points(-1j * self.ky * stream, 1j * self.kx * stream)

    def tendency(self, state: np.ndarray) -> np.ndarray:
        """-(u ∂ω/∂x + v ∂ω/∂y), as (∂²/∂y² - ∂²/∂x²) uv + ∂²/∂x∂y (u² - v²), which takes the fewest transforms."""
        u, v = self.velocity(state)
        uv, uu_vv = fft.rfft2(np.stack([u * v, u * u - v * v]), norm="forward")[..., : self.kx.size]
        return self.kept * ((self.kx**2 - self.ky**2) * uv - self.kx * self.ky * uu_vv)

    def kick(self, state: np.ndarray, energy: float) -> None:
        """Add random vorticity to the ring, in place, that brings this energy in the mean."""
        # The transform of a small field has the symmetry of a real one, and the same numbers serve
        # all sizes.
        noise = fft.rfft2(self.random.standard_normal((16, 16)), norm="ortho")[self.ring]
        state[self.ring] += np.sqrt(energy) * self.to_unit_energy * noise

    def step(self, state: np.ndarray) -> np.ndarray:
        """State after one time step, not yet forced."""
        dt, decay = self.dt, self.half_decay
        k1 = self.tendency(state)
        k2 = self.tendency(decay * (state + dt / 2 * k1))
        k3 = self.tendency(decay * state + dt / 2 * k2)
        k4 = self.tendency(decay * (decay * state + dt * k3))
        return decay * (decay * (state + dt / 6 * k1) + dt / 3 * (k2 + k3)) + dt / 6 * k4

    def advance(self, state: np.ndarray, n_steps: int) -> np.ndarray:
        """State after so many steps, each forced at its end."""
        for _ in range(n_steps):
            state = self.step(state)
            self.kick(state, self.power * self.dt)
        return state


def simulate(
    snapshots: int = 503, size: int = 256, seed: int = 0, *, interval: float = 0.08, spin_up: float = 10.0,
    progress: bool = False,
) -> xr.Dataset:  # fmt: skip
    """Simulate forced two-dimensional turbulence in its statistically steady state.

    Parameters
    ----------
    snapshots : int
        How many to give.
    size : int
        Points a side of the simulation, even. Every second one is given, the first ``size // 2 -
        1`` in each direction: 127 of 256.
    seed : int
        Of the first state and the forcing. It gives the same bits wherever machine and libraries
        are the same.
    interval : float
        Time between snapshots. With 256 points and the default, the correlation of one snapshot
        with the next is 0.99 in velocity and 0.91 in vorticity.
    spin_up : float
        Time before the first snapshot. Energy forgets its past in a time of 5.
    progress : bool
        Draw a progress bar.

    Returns
    -------
    xarray.Dataset
        u, v and vorticity, (time, y, x), float32. They are not periodic: the last row and column
        of the period are left out.

    Examples
    --------
    >>> simulate(3, 32, spin_up=1).sizes
    Frozen({'time': 3, 'y': 15, 'x': 15})
    """
    for name, value, least in (("snapshots", snapshots, 1), ("size", size, 32), ("seed", seed, 0)):
        if not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name}={value!r}: give a whole number from {least}")
    if size % 2:
        raise ValueError(f"size={size!r}: every second point is given, so give an even number")
    if not 0 < interval < math.inf:
        raise ValueError(f"interval={interval!r}: give a finite time above 0")
    if not 0 <= spin_up < math.inf:
        raise ValueError(f"spin_up={spin_up!r}: give a finite time from 0")

    n_steps = math.ceil(interval * size / LONGEST_STEP)
    flow = Flow(size, interval / n_steps, seed=seed)
    state = np.zeros(flow.k2.shape, complex)
    flow.kick(state, POWER / (2 * DRAG))
    n_points = size // 2 - 1
    fields = np.empty((3, snapshots, n_points, n_points), np.float32)
    n_unseen = math.ceil(spin_up / interval)
    for i in tqdm(
        range(-n_unseen, snapshots), desc="turbulence", unit="snapshot", disable=not progress
    ):
        if i >= 0:
            fields[:2, i] = flow.velocity(state)[:, :-2:2, :-2:2]
            fields[2:, i] = flow.on_points(state)[:, :-2:2, :-2:2]
        state = flow.advance(state, n_steps)

    points = 2 * np.arange(n_points) * (2 * np.pi / size)
    long_names = {
        "u": "velocity along x",
        "v": "velocity along y",
        "vorticity": "vorticity, dv/dx - du/dy",
    }
    return xr.Dataset(
        {
            name: (("time", "y", "x"), values, {"long_name": long_name, "units": "1"})
            for values, (name, long_name) in zip(fields, long_names.items(), strict=True)
        },
        coords={
            "time": (
                "time",
                interval * np.arange(snapshots),
                {"axis": "T", "long_name": "time", "units": "1"},
            ),
            "y": ("y", points, {"axis": "Y", "long_name": "distance along y", "units": "1"}),
            "x": ("x", points, {"axis": "X", "long_name": "distance along x", "units": "1"}),
        },
        attrs={
            "Conventions": "CF-1.11",
            "title": "Forced two-dimensional turbulence, simulated by make_turbulence.py",
            "source": f"pseudo-spectral simulation of the vorticity equation on {size} x {size} points",
            "history": f"make_turbulence.simulate({snapshots}, {size}, {seed}, interval={interval}, spin_up={spin_up})",
            "comment": f"Every second point, the first {n_points} in each direction: the fields are not periodic. "
            "All units are those of a speed near 1 on a square of side 2 pi.",
            "seed": seed,
            "forcing": f"random, white in time, {POWER} energy a unit time in wavenumbers {RING[0]} to {RING[1]}",
            "viscosity": f"hyperviscosity of order 4, {flow.viscosity:.3g}",
            "drag": DRAG,
            "version": VERSION,
        },
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.
    """
    parser = argparse.ArgumentParser(
        description="Simulate forced two-dimensional turbulence and write it to netCDF.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="file to write")
    for name, text in {
        "snapshots": "how many to write",
        "size": "points a side, of which every second one is written",
        "seed": "of the first state and the forcing",
        "interval": "time between snapshots",
        "spin_up": "time before the first snapshot",
    }.items():
        default = inspect.signature(simulate).parameters[name].default
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=text
        )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    options = vars(parser.parse_args(argv))
    file, overwrite = options.pop("file"), options.pop("overwrite")
    if file.exists() and not overwrite:
        parser.error(f"file={file} exists: name another, or give --overwrite")
    if not file.parent.is_dir():
        parser.error(f"file={file}: there is no folder {file.parent}; make it first")
    try:
        ds = simulate(**options, progress=True)
    except ValueError as error:
        parser.error(str(error))
    ds.to_netcdf(file)


if __name__ == "__main__":
    main()
