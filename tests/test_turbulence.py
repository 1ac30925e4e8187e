"""The simulated turbulence: its equation is solved as it is written, and its statistics are those of turbulence."""

import importlib.util
from pathlib import Path

import cf_xarray  # noqa: F401, adds .cf
import numpy as np
import pytest
import xarray as xr
from conftest import REPOSITORY
from scipy import fft

spec = importlib.util.spec_from_file_location(
    "make_turbulence", REPOSITORY / "datasets" / "make_turbulence.py"
)
turbulence = importlib.util.module_from_spec(spec)
spec.loader.exec_module(turbulence)
Flow, simulate = turbulence.Flow, turbulence.simulate

BRIEF = ["--snapshots", "2", "--size", "32", "--spin-up", "0.1"]


def start(flow: Flow, energy: float = 0.5) -> np.ndarray:
    state = np.zeros(flow.k2.shape, complex)
    flow.kick(state, energy)
    return state


def cascaded(flow: Flow) -> np.ndarray:
    """A state with all scales up to the cut-off."""
    state = flow.advance(start(flow), 100)
    assert (np.abs(state[flow.kept]) > 0).all()
    return state


def transform(flow: Flow, field: np.ndarray) -> np.ndarray:
    return fft.rfft2(field, norm="forward")[..., : flow.kx.size]


def energy_and_enstrophy(flow: Flow, state: np.ndarray) -> np.ndarray:
    return np.array([flow.energy(state).sum(), (flow.k2 * flow.energy(state)).sum()])


def test_a_seed_gives_the_same_bits_and_another_does_not():
    first, again, other = (simulate(3, 32, seed, spin_up=1) for seed in (0, 0, 1))
    xr.testing.assert_identical(first, again)
    for name in ("u", "v", "vorticity"):
        assert abs(xr.corr(first[name], other[name])) < 0.5


def test_every_second_point_is_given_and_the_first_127():
    ds = simulate(2, spin_up=0)
    assert ds.sizes == {"time": 2, "y": 127, "x": 127}
    assert ds.cf.axes == {"T": ["time"], "Y": ["y"], "X": ["x"]}
    np.testing.assert_allclose(ds.x, np.arange(256)[::2][:127] * 2 * np.pi / 256)
    np.testing.assert_array_equal(ds.y, ds.x)
    np.testing.assert_allclose(ds.time, [0, 0.08])

    flow = Flow(256, 0.08 / 16)
    state = flow.advance(start(flow), 16)
    fields = {"vorticity": flow.on_points(state)[0]} | dict(
        zip("uv", flow.velocity(state), strict=True)
    )
    for name, field in fields.items():
        np.testing.assert_array_equal(ds[name][1], field[::2, ::2][:127, :127].astype(np.float32))


def test_attributes_say_what_it_is():
    attrs = simulate(1, 32, 7, spin_up=0).attrs
    assert "two-dimensional turbulence, simulated" in attrs["title"]
    assert attrs["seed"] == 7 and "not periodic" in attrs["comment"]
    assert {"viscosity", "forcing", "drag", "version"} <= set(attrs)


def test_velocity_has_no_divergence_and_the_curl_is_the_vorticity():
    flow = Flow(64, 0.02)
    state = cascaded(flow)
    u, v = transform(flow, flow.velocity(state))
    np.testing.assert_allclose(flow.kx * u + flow.ky * v, 0, atol=1e-13)
    np.testing.assert_allclose(1j * (flow.kx * v - flow.ky * u), state, atol=1e-13)


def test_energy_is_that_of_the_velocity():
    flow = Flow(64, 0.02)
    state = cascaded(flow)
    assert flow.energy(state).sum() == pytest.approx(
        (flow.velocity(state) ** 2).sum(0).mean() / 2, rel=1e-12
    )


def test_tendency_is_advection_without_aliases():
    flow, fine = (
        Flow(48, 0.02),
        Flow(96, 0.02),
    )  # twice the points hold all products of what is kept
    state = cascaded(flow)
    rows = flow.ky[:, 0].astype(int)
    padded = np.zeros(fine.k2.shape, complex)
    padded[rows, : flow.kx.size] = state
    u, v = fine.velocity(padded)
    d_dx, d_dy = fine.on_points(1j * fine.kx * padded, 1j * fine.ky * padded)
    advection = transform(fine, u * d_dx + v * d_dy)[rows, : flow.kx.size]
    np.testing.assert_allclose(flow.tendency(state), flow.kept * -advection, atol=1e-13)


def test_nothing_is_beyond_two_thirds():
    flow = Flow(64, 0.02)
    beyond = np.hypot(flow.kx, flow.ky) >= 64 / 3
    assert beyond.any() and (cascaded(flow)[beyond] == 0).all()


def test_a_plane_wave_decays_as_it_should():
    flow = Flow(32, 0.1, power=0, drag=0.3, damping=2.0)
    state = np.zeros(flow.k2.shape, complex)
    state[3, 4] = 1  # k = 5
    rate = 0.3 + 2.0 * (5 / (32 / 3)) ** 4
    assert flow.advance(state, 10)[3, 4] == pytest.approx(np.exp(-rate), rel=1e-12)


def test_without_forcing_and_friction_energy_and_enstrophy_are_conserved_up_to_order_4():
    drifts = []
    for dt in (0.04, 0.02):
        flow = Flow(64, dt, power=0, drag=0, damping=0)
        state = start(flow)
        after = flow.advance(state, round(2 / dt))
        drifts.append(energy_and_enstrophy(flow, after) / energy_and_enstrophy(flow, state) - 1)
    assert (np.abs(drifts[1]) < 1e-6).all()
    assert (np.log2(np.abs(drifts[0] / drifts[1])) > 4).all()


@pytest.mark.parametrize("friction", [{"drag": 0, "damping": 0}, {}])
def test_time_steps_are_of_order_4(friction):
    coarse, middle, fine = (
        flow.advance(start(flow), round(1 / flow.dt))
        for flow in (Flow(64, dt, power=0, **friction) for dt in (0.04, 0.02, 0.01))
    )
    order = np.log2(np.linalg.norm(coarse - middle) / np.linalg.norm(middle - fine))
    assert order == pytest.approx(4, abs=0.2)


def test_a_kick_has_the_energy_asked_for_on_the_ring_alone():
    flow = Flow(32, 0.02)
    kicks = [flow.energy(start(flow, 0.1)) for _ in range(1000)]
    assert np.sum(kicks, axis=(1, 2)).mean() == pytest.approx(0.1, rel=0.05)  # 8 standard errors
    kicked = np.sqrt(flow.k2[np.sum(kicks, axis=0) > 0])
    assert kicked.min() == 3 and kicked.max() == 5


@pytest.mark.slow
def test_statistics_are_those_of_steady_turbulence():
    flow = Flow(128, 0.08 / 8)
    state = flow.advance(start(flow), 100 * 8)
    shell = np.rint(np.sqrt(flow.k2)).astype(int).ravel()
    spectra, vorticity, u = [], [], []
    for _ in range(250):
        state = flow.advance(state, 8)
        spectra.append(np.bincount(shell, flow.energy(state).ravel()))
        vorticity.append(flow.on_points(state)[0])
        u.append(flow.velocity(state)[0])

    band = np.arange(8, 22)
    slope, _ = np.polyfit(np.log(band), np.log(np.mean(spectra, axis=0)[band]), 1)
    assert -5 < slope < -3

    energy = np.sum(spectra, axis=1)
    halves = energy[:125].mean(), energy[125:].mean()
    assert 2 / 3 < halves[1] / halves[0] < 3 / 2
    assert energy.mean() == pytest.approx(flow.power / (2 * turbulence.DRAG), rel=0.25)

    for series, least in ((vorticity, 0.9), (u, 0.97)):
        series = np.array(series).reshape(len(series), -1)
        assert least < np.corrcoef(series[:-1].ravel(), series[1:].ravel())[0, 1] < 0.995
        assert abs(np.corrcoef(series[:5].ravel(), series[-5:].ravel())[0, 1]) < 0.5


def test_the_file_holds_what_was_simulated_and_no_path(tmp_path: Path):
    file = tmp_path / "turbulence.nc"
    turbulence.main([str(file), *BRIEF, "--seed", "3"])
    with xr.open_dataset(file) as ds:
        xr.testing.assert_identical(ds.load(), simulate(2, 32, 3, spin_up=0.1))
    assert not any(str(tmp_path) in str(value) for value in ds.attrs.values())


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The last line of a refusal."""
    with pytest.raises(SystemExit, match="2"):
        turbulence.main(arguments)
    return capsys.readouterr().err.splitlines()[-1]


def test_a_file_is_overwritten_only_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "turbulence.nc"
    file.write_text("mine")
    assert refused([str(file), *BRIEF], capsys).endswith(
        f"file={file} exists: name another, or give --overwrite"
    )
    assert file.read_text() == "mine"
    turbulence.main([str(file), *BRIEF, "--overwrite"])
    with xr.open_dataset(file) as ds:
        assert ds.sizes["time"] == 2


def test_a_missing_folder_is_said_before_the_simulation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert "make it first" in refused([str(tmp_path / "none" / "turbulence.nc")], capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"snapshots": 0}, "snapshots=0: give a whole number from 1"),
        ({"snapshots": 2.5}, "snapshots=2.5: give a whole number from 1"),
        ({"size": 30}, "size=30: give a whole number from 32"),
        ({"size": 33}, "size=33: every second point is given, so give an even number"),
        ({"seed": -1}, "seed=-1: give a whole number from 0"),
        ({"interval": 0.0}, "interval=0.0: give a finite time above 0"),
        ({"spin_up": float("nan")}, "spin_up=nan: give a finite time from 0"),
    ],
)
def test_what_cannot_be_simulated_is_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        simulate(**options)


def test_the_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert refused([str(tmp_path / "turbulence.nc"), "--size", "33"], capsys).endswith(
        "so give an even number"
    )
