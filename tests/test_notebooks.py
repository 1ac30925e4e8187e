"""The notebooks as they are kept, the runner that makes them, and their tables."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import REPOSITORY

import xmrcae

FOLDER = REPOSITORY / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def outputs(path: Path) -> list[Any]:
    return [output for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]


def texts(path: Path) -> Iterator[str]:
    """What a reader reads: all sources, and outputs but for figures."""
    yield from (cell.source for cell in nbformat.read(path, 4).cells)
    for output in outputs(path):
        yield output.get("text", "")
        yield from (str(data) for kind, data in output.get("data", {}).items() if kind != "image/png")


def test_every_experiment_of_the_paper_has_one() -> None:
    assert set(xmrcae.recipes) <= {path.stem for path in NOTEBOOKS}


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
    assert not [output for output in outputs(path) if output.output_type == "error" or output.get("name") == "stderr"]


@each_notebook
def test_tells_nothing_of_the_machine(path: Path) -> None:
    assert path.stat().st_size < 1_500_000
    assert re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users)\b.*", "\n".join(texts(path))) == []
    assert not any(cell.metadata for cell in nbformat.read(path, 4).cells)


def write(path: Path, source: str) -> Path:
    cell = nbformat.v4.new_code_cell(source, metadata={"execution": {"iopub.execute_input": "2020-01-01"}})
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
    model = field.mrcae.fit(levels=2, channels=[[1, 1], [2, 2]], tolerance=[10, 1e-3], max_epochs=3, progress=False)
    table = panels.stages(model, {"loss": ".4 .3 | .2 .1"})
    assert list(table.index) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert list(table["authors' loss"]) == [".4", ".3", ".2", ".1", "–"]
    assert list(table["parameters"]) == [20, "–", 40, 79, 118]
    assert table["parameters"].iloc[-1] == model.n_parameters
    assert table["encoding size"].iloc[[0, -1]].tolist() == model.encoding_sizes.values.tolist()
    assert table["global loss"].iloc[-1] == f"{float(model.history['validation_global_loss'][-1]):.5f}"
    assert table["epochs"].replace("–", 0).sum() == model.history.sizes["epoch"]
