"""The README's example runs as it stands, on a smaller field."""

import functools
import re
from pathlib import Path

import pytest

import xmrcae

pytestmark = pytest.mark.minimum


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pcodec", reason="the example writes an archive")
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    small = functools.partial(xmrcae.datasets.drifting_mode, n_times=60, size=31)
    monkeypatch.setattr(xmrcae.datasets, "drifting_mode", small)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)
    assert names["again"].sizes == names["field"].sizes
    assert names["test"]["rmse"].sizes == {"level": 3}
    assert names["first"].shape == (60, 7, 7)
    assert xmrcae.open_model("drifting.nc").levels == 3
