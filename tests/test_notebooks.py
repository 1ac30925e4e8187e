"""The notebooks as they are kept, the runner that makes them, and their tables."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import REPOSITORY

import xmrcae

nbformat = pytest.importorskip("nbformat")  # which the environment of the minimum versions lacks

FOLDER = REPOSITORY / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TASKS = {"quickstart", "archive", "sst_archive", "pangeo", "modes_on_codes", "land_and_gaps"}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs(path: Path) -> list[Any]:
    return [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]


def texts(path: Path) -> Iterator[str]:
    """What a reader reads: all sources, and outputs but for figures."""
    yield from (cell.source for cell in nbformat.read(path, 4).cells)
    for output in outputs(path):
        yield output.get("text", "")
        yield from (
            str(data) for kind, data in output.get("data", {}).items() if kind != "image/png"
        )


def test_every_experiment_of_the_paper_and_every_task_has_one() -> None:
    assert set(xmrcae.recipes) | TASKS <= {path.stem for path in NOTEBOOKS}


def test_the_readme_names_each() -> None:
    named = re.findall(
        r"^(?:\| )?`(\w+)\.ipynb`", (FOLDER / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(named) == [path.stem for path in NOTEBOOKS]


@each_notebook
def test_begins_with_a_title_and_how_long_it_runs(path: Path) -> None:
    first = nbformat.read(path, 4).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert re.search(r"about \d+ (s|seconds|minutes)\b", first.source)


@each_notebook
def test_was_run_from_top_to_bottom(path: Path) -> None:
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in output.get("data", {}) for output in outputs(path))
    assert not [
        output
        for output in outputs(path)
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


@each_notebook
def test_tells_nothing_of_the_machine(path: Path) -> None:
    assert path.stat().st_size < 1_500_000
    assert re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users)\b.*", "\n".join(texts(path))) == []
    assert not any(cell.metadata for cell in nbformat.read(path, 4).cells)


def write(path: Path, source: str) -> Path:
    cell = nbformat.v4.new_code_cell(
        source, metadata={"execution": {"iopub.execute_input": "2020-01-01"}}
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    return path


@pytest.mark.parametrize("fast", ["0", "1"])
def test_the_runner_keeps_what_succeeds_unless_it_is_fast(fast: str, tmp_path: Path) -> None:
    paths = {
        name: write(tmp_path / f"{name}.ipynb", source)
        for name, source in {
            "absent": "import panels; panels.data_file('no.nc')",
            "broken": "1 / 0",
            "good": "import os; print('fast:', os.environ['XMRCAE_FAST'])",
            "large": "print('x' * 1_500_000)",
        }.items()
    }
    before = {name: path.read_bytes() for name, path in paths.items()}
    done = subprocess.run(
        [sys.executable, FOLDER / "run.py", *paths.values()], capture_output=True, text=True,
        env=os.environ | {"XMRCAE_FAST": fast, "PYTHONPATH": os.pathsep.join(map(str, (FOLDER, REPOSITORY)))},
    )  # fmt: skip
    assert done.returncode == 1
    assert "absent.ipynb: skipped: no.nc is not here: set XMRCAE_TEST_DATA" in done.stdout
    assert "broken.ipynb failed: " in done.stderr and "ZeroDivisionError" in done.stderr
    assert "large.ipynb failed: 1,50" in done.stderr and "1,500,000 are allowed" in done.stderr
    assert re.search(r"good\.ipynb: \d+ s, \d kB", done.stdout)

    changed = {name for name, path in paths.items() if path.read_bytes() != before[name]}
    assert changed == (set() if fast == "1" else {"good"})
    if changed:
        assert outputs(paths["good"])[0].text == "fast: 0\n"
        assert b'execution"' not in paths["good"].read_bytes()


def test_the_table_of_stages_ends_at_the_models_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    import panels

    field = xmrcae.datasets.drifting_mode(n_times=20, size=31)
    model = field.mrcae.fit(
        levels=2, channels=[[1, 1], [2, 2]], tolerance=[10, 1e-3], max_epochs=3, progress=False
    )
    table = panels.stages(model, {"loss": ".4 .3 | .2 .1"})
    assert list(table.index) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert list(table["authors' loss"]) == [".4", ".3", ".2", ".1", "–"]
    assert list(table["parameters"]) == [20, "–", 40, 79, 118]
    assert table["parameters"].iloc[-1] == model.n_parameters
    assert table["encoding size"].iloc[[0, -1]].tolist() == model.encoding_sizes.values.tolist()
    assert (
        table["global loss"].iloc[-1] == f"{float(model.history['validation_global_loss'][-1]):.5f}"
    )
    assert table["epochs"].replace("–", 0).sum() == model.history.sizes["epoch"]


@pytest.fixture
def forecast(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    import forecast

    return forecast


def scores_of(step: np.ndarray, n_times: int) -> xr.DataArray:
    """A state that follows x(t + 1) = step x(t)."""
    state = [np.ones(len(step))]
    for _ in range(n_times - 1):
        state.append(step @ state[-1])
    months = np.datetime64("2000-01") + np.arange(n_times)
    coords = {"time": months.astype("datetime64[ns]"), "mode": np.arange(1, len(step) + 1)}
    return xr.DataArray(np.array(state), coords, ("time", "mode"))


#: A turn of 12 months that dies away in ten, and a decay, not symmetric: G and its transpose
#: differ.
STEP = np.array([[0.8, -0.5, 0.3], [0.5, 0.8, 0.0], [0.0, 0.0, 0.7]])


@pytest.mark.parametrize("lead", [0, 1, 3, 6])
def test_a_linear_system_is_forecast_as_it_goes_on(forecast: Any, lead: int) -> None:
    scores = scores_of(STEP, 120)
    noisy = scores + np.random.default_rng(0).normal(scale=1e-12, size=scores.shape)
    found = forecast.foretold(noisy, slice(0, 40), slice(40, 60), lead=lead, modes=3)
    assert found["time"].equals(scores["time"][40:60])
    np.testing.assert_allclose(found, scores[40:60], rtol=0.2, atol=1e-4)


def test_the_propagator_is_lag_1_over_lag_0(forecast: Any) -> None:
    state = np.random.default_rng(0).normal(size=(50, 3))
    for t in range(1, 50):
        state[t] += STEP @ state[t - 1]
    scores = scores_of(STEP, 50).copy(data=state)
    expected = (state[1:].T @ state[:-1] / 49) @ np.linalg.inv(state.T @ state / 50)
    np.testing.assert_allclose(forecast.propagator(scores), expected)
    np.testing.assert_allclose(forecast.propagator(scores.T), expected)


def test_forecasts_know_training_and_starting_months_only(forecast: Any) -> None:
    scores = scores_of(STEP, 60) + np.random.default_rng(0).normal(size=(60, 3))
    train, target, lead = slice(0, 30), slice(40, 50), 3
    expected = forecast.foretold(scores, train, target, lead=lead, modes=2)
    unknown = scores.copy()
    unknown[30:37], unknown[47:], unknown[:, 2] = 1e3, 1e3, 1e3
    xr.testing.assert_equal(forecast.foretold(unknown, train, target, lead=lead, modes=2), expected)
    known = scores.copy()
    known[37] += 1
    assert not np.allclose(
        forecast.foretold(known, train, target, lead=lead, modes=2)[0], expected[0]
    )


def test_a_forecast_that_would_start_before_the_record_is_an_error(forecast: Any) -> None:
    with pytest.raises(ValueError, match="the first target is month 2: a forecast at lead 3"):
        forecast.shifted(scores_of(STEP, 9), slice(2, 9), 3)


def test_errors_weigh_pixels_by_area_and_leave_none_out(forecast: Any) -> None:
    truth = xr.DataArray(
        np.zeros((3, 2, 2)),
        {"time": np.arange(3), "lat": [0.0, 60.0], "lon": [0.0, 1.0]},
        ("time", "lat", "lon"),
    )
    truth[:, 0, 0] = np.nan
    error = truth + np.array([[3.0], [6.0]])
    expected = np.sqrt((9 + 2 * 0.5 * 36) / (1 + 2 * 0.5))
    assert forecast.rmse(error[1:], truth) == pytest.approx(expected)
    error[2, 1, 1] = np.nan
    with pytest.raises(ValueError, match="lacks 1 value"):
        forecast.rmse(error, truth)


def test_modes_are_chosen_by_their_mean_error(forecast: Any) -> None:
    assert forecast.least({2: [0.1, 0.9], 3: [0.4, 0.5], 4: [0.5, 0.5]}) == 3


def test_the_notebook_reports_three_methods_at_three_leads() -> None:
    printed = "".join(output.get("text", "") for output in outputs(FOLDER / "modes_on_codes.ipynb"))
    for lead in (1, 3, 6):
        line = re.search(rf"^lead {lead}: (.*)$", printed, re.MULTILINE)
        assert line
        methods = [part.rsplit(" ", 1) for part in line[1].split(" < ")]
        size = {number for name, _ in methods for number in re.findall(r"LIM on (\d+) EOFs", name)}
        assert len(size) == 1  # the same for both
        names = {re.sub(r"\d+ ", "", name): float(rmse) for name, rmse in methods}
        assert set(names) == {
            "LIM on EOFs of the codes, decoded",
            "persistence",
            "LIM on EOFs of the field",
        }
        assert list(names.values()) == sorted(names.values()) and min(names.values()) > 0.05
