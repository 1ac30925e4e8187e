"""The benchmarks run, small, and the page has the figures of their results and no others."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import archives
import compressors
import gpu
import numpy as np
import pytest
import xarray as xr
from page import render, shown, table
from sections import SECTIONS
from time_to_loss import ADAM, ENGINE, conclude

HERE = Path(__file__).parent


def cells(page: str) -> list[list[str]]:
    """The cells of all tables, without headings."""
    rows = [line[2:-2].split(" | ") for line in page.splitlines() if line.startswith("| ")]
    rules = [i for i, row in enumerate(rows) if set(row) == {"---"}]
    return [row for i, row in enumerate(rows) if i not in rules and i + 1 not in rules]


@pytest.mark.slow
def test_a_quick_run(tmp_path: Path) -> None:
    command = [sys.executable, HERE, "time_to_loss", "--quick", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    document = json.loads((tmp_path / "benchmarks" / "time_to_loss.json").read_text())
    assert document["quick"]
    assert document["machine"]["cores"] >= 1
    assert {"torch", "numpy", "xarray"} <= set(document["machine"]["versions"])
    adam, engine = document["rows"]
    columns = SECTIONS["time_to_loss"].COLUMNS
    for row in (adam, engine):
        assert set(columns) - {"ratio", "ratio_at_goal", "goal_s", "goal_training_s"} <= set(row)
        assert all(
            math.isfinite(value) and value > 0 for value in row.values() if isinstance(value, float)
        )
    assert adam["goal"] == engine["goal"] == min(loss for _, loss in adam["curve"])
    assert (
        adam["rank"] == 28
    )  # the snapshots themselves: 70 percent of 40, where 3 samples would tell all
    assert not adam["finished"]  # it was interrupted, and left a history
    assert engine["finished"]

    page = (tmp_path / "benchmarks.md").read_text()
    assert cells(page) == [[shown(row.get(key)) for key in columns] for row in (adam, engine)]
    assert document["machine"]["cpu"] in page
    assert str(tmp_path) not in page + json.dumps(document)


def test_nothing_is_written_where_nothing_can_be_measured(tmp_path: Path) -> None:
    command = [sys.executable, HERE, "gpu", "--device", "cpu", "--output", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "gpu: nothing to measure without a GPU" in done.stderr
    assert not list((tmp_path / "benchmarks").iterdir())


@pytest.mark.parametrize("name", SECTIONS)
def test_page_of_made_up_results(name: str, tmp_path: Path) -> None:
    columns = SECTIONS[name].COLUMNS
    rows = [{key: 1.5 + i + 0.01 * j for j, key in enumerate(columns)} for i in range(2)]
    machine = {"cpu": "A", "cores": 2, "memory_gib": 4.0, "gpu": "", "versions": {"torch": "2.2"}}
    document = {
        "section": name,
        "command": "c",
        "quick": False,
        "date": "2024-01-01",
        "machine": machine,
    }
    for label in ("", "-other"):
        (tmp_path / f"{name}{label}.json").write_text(json.dumps(document | {"rows": rows}))
    page = render(tmp_path)
    assert cells(page) == 2 * [[f"{value:.3g}" for value in row.values()] for row in rows]
    assert re.findall("^## (.*)", page, re.MULTILINE) == [SECTIONS[name].TITLE]


def test_a_failed_measurement_shows_as_dashes() -> None:
    assert cells(table({"a": "A", "b": "B"}, [{"a": "x", "failed": True}])) == [["x", "–"]]


@pytest.mark.parametrize("name", SECTIONS)
def test_cases_are_columns(name: str) -> None:
    section = SECTIONS[name]
    for case in section.cases(quick=False, cuda=True):
        assert set(case) <= set(section.COLUMNS)
        assert {"device", "threads"} <= set(case)


def test_the_moment_when_a_loss_is_reached() -> None:
    adam = {
        "example": "e",
        "method": ADAM,
        "before_s": 1.0,
        "training_s": 600.0,
        "curve": [[300.0, 2.0], [500.0, 3.0]],
    }
    slow = {
        "example": "e",
        "method": ENGINE,
        "before_s": 4.0,
        "curve": [[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]],
    }
    never = slow | {"curve": [[1.0, 2.5]]}
    other = slow | {"example": "other"}
    of_adam, of_slow, of_never, of_other = conclude([adam, slow, never, other], [])
    assert (of_adam["goal"], of_adam["goal_training_s"], of_adam.get("ratio")) == (2.0, 300.0, None)
    assert (of_slow["goal_training_s"], of_slow["goal_s"]) == (2.0, 6.0)
    assert (of_slow["ratio"], of_slow["ratio_at_goal"]) == (100.0, 50.0)
    assert of_never["goal"] == 2.0
    assert "goal_s" not in of_never
    assert of_other == other
    (alone,) = conclude([slow], [adam])
    assert alone == of_slow


def test_a_codec_that_misses_its_bound_is_asked_for_less() -> None:
    given = np.array([[0.0, 1.0, 2.0]])
    asked = []

    def three_times_as_far_off(values: np.ndarray, parameter: float) -> tuple[int, np.ndarray]:
        asked.append(parameter)
        return round(1 / parameter), values + 3 * parameter

    known = np.array([[True, True, False]])
    size, error = compressors.within(three_times_as_far_off, given, given, known, 0.1)
    assert (asked[0], error) == (0.1, pytest.approx(3))
    assert size == round(1 / asked[-1])
    assert 0.099 < 3 * asked[-1] <= 0.1


@pytest.mark.parametrize("bound", [0.3, 0.02])
@pytest.mark.parametrize("name", ["bit_rounded", "steps_in_time", "deflated"])
def test_packers_of_noise_take_about_its_entropy(name: str, bound: float) -> None:
    noise = np.random.default_rng(0).normal(0, 1, (20, 6, 7)).astype(np.float32)
    noise[:, 0] = np.nan
    field = xr.DataArray(noise, dims=("time", "y", "x"))
    size, _ = getattr(compressors, name)(field, bound)
    entropy = 720 / 8 * math.log2((2 * math.pi * math.e) ** 0.5 / (2 * bound))
    assert entropy < size < entropy + 30_000 * (name == "deflated") + 4 * 720


def test_a_codec_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressors, "find_spec", lambda name: None)
    assert compressors.missing() == ["zfp", "SZ3", "SPERR", "EBCC"]
    assert not any(
        name.startswith(("zfp", "SZ3", "SPERR", "EBCC")) for name in compressors.methods()
    )


def test_each_figure_of_a_gpu_is_a_row_beside_its_goal() -> None:
    case = {"example": "ERSST", "device": "cuda", "threads": 1}
    measured = case | {"failed": False, "figures": {"epochs": 7, "fit_s": 5.0, "busy": None}}
    rows = gpu.conclude([measured, case | {"failed": True}], [])
    assert [(row["figure"], row["goal"], row["measured"]) for row in rows] == [
        ("epochs", None, 7),
        ("fit, s", "6 at most", 5.0),
        ("fit, s", "6 at most", None),
    ]
    assert [row["failed"] for row in rows] == [False, False, True]
    assert all(set(goals) <= set(gpu.FIGURES) for goals in gpu.GOALS.values())


def test_each_way_of_counting_an_archive_is_a_row() -> None:
    ways = {"archive": {"at_0.1": 2}, "archive, model in full": {"at_0.1": 3}}
    row = {"data": "d", "method": "archive", "ways": ways}
    other = {"data": "d", "method": "zfp", "at_0.1": 9}
    assert archives.conclude([other, row], []) == [
        other,
        {"data": "d", "method": "archive", "at_0.1": 2},
        {"data": "d", "method": "archive, model in full", "at_0.1": 3},
    ]
