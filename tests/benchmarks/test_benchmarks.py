"""The benchmarks run, small, and the page has the figures of their results and no others."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
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
