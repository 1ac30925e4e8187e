"""The page on the format holds a reader that needs nothing of the package; old archives open."""

import re
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr
from conftest import REPOSITORY
from helpers import make_field

import xmrcae

#: An archive of format version 1, written by `make_kept`; the sum of its values times random
#: numbers, and how many of them are missing.
KEPT = REPOSITORY / "tests" / "files" / "archive_1.mrcae.zarr"
SUM, MISSING = 888.0634034596226, 2977

BOUND = 0.1


@pytest.fixture(scope="module")
def code():
    """The page's code."""
    page = (REPOSITORY / "docs" / "archive-format.md").read_text()
    return "".join(re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def reader(code):
    """What the page's code reads of an archive's variable at a level: all its blocks."""
    names = {}
    exec(code, names)

    def read(url, variable, level):
        root = zarr.open_group(url, mode="r")
        return np.concatenate(list(names["read"](root, variable, level)))

    return read


def test_the_reader_of_the_page_is_short_and_needs_numpy_alone(code):
    assert code.count("\n") < 80
    assert re.findall(r"import (\w+)", code) == ["json", "numpy"]


def make_given(kind):
    """A field whose latitude descends, with what the kind has beside steps, float64."""
    field = make_field(40, dtype=np.float64).isel(lat=slice(None, None, -1))
    if kind == "gaps":
        field[25:27, 2:9, 4:8] = np.nan
    if kind == "lossless":
        field[12] += 1e20
    return field


def make_kept(url):
    """Write the archive that is kept in the tests: months about their own means, land, a gap."""
    field = make_field(36).isel(lat=slice(None, None, -1))
    field[30, 2:9, 4:8] = np.nan
    options = {"center": "month", "gaps": "mean", "levels": 2, "max_epochs": 20}
    field.mrcae.to_archive(url, max_error=BOUND, rows_per_block=24, progress=False, **options)


@pytest.mark.parametrize("encoder", ["projection", "filters"])
@pytest.mark.parametrize(
    ("kind", "center"), [("plain", True), ("gaps", "month"), ("lossless", True)]
)
def test_the_reader_of_the_page_decodes_an_archive(
    reader, tmp_path, monkeypatch, kind, center, encoder
):
    if encoder == "filters":  # as on grids that are too large for projection
        monkeypatch.setattr("xmrcae.defaults.MOST_PROJECTED", 0)
    given, url = make_given(kind), str(tmp_path / "a.mrcae.zarr")
    options = {"center": center, "encoder": encoder, "levels": 2, "channels": [[1, 2]]}
    fitted = xmrcae.MrCAE(**options, gaps="mean", max_epochs=3, progress=False).fit(given[:12])
    fitted.to_archive(
        given,
        url,
        max_error=BOUND,
        rows_per_block=15,
        lossless=kind == "lossless",
        progress=False,
    )
    about = xmrcae.open_archive(url).about
    assert about["codes_by"] == encoder
    for column in {"gaps", "lossless"} & {kind}:
        assert any(about["blocks"]["sst"][column])
    for level in range(2):
        found = reader(url, 0, level)
        expected = xr.open_dataset(url, engine="mrcae", level=level)["sst"].sortby("lat")
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_an_archive_of_version_1_opens(reader):
    archive = xmrcae.open_archive(KEPT)
    found = archive.to_dataset()["sst"].load()
    assert archive.about["format_version"] == 1
    np.testing.assert_allclose(found, reader(KEPT, 0, 1)[:, ::-1])
    weights = np.random.default_rng(0).standard_normal(found.shape)
    assert float((found * weights).sum()) == pytest.approx(SUM, rel=1e-6)
    assert int(found.isnull().sum()) == MISSING
    assert set(archive.verify()) == {"count", "mean", "square"}
    assert archive.model.levels == 2


def test_an_archive_of_before_ranges_were_kept_is_appended_to(reader, tmp_path):
    url = tmp_path / "a.mrcae.zarr"
    shutil.copytree(KEPT, url)
    before = xmrcae.open_archive(KEPT).to_dataset()["sst"].load()
    later = make_field(6).isel(lat=slice(None, None, -1)).clip(14.9, 15.1)
    later["time"] = xr.date_range("2004-01-15", periods=6, freq="MS", use_cftime=False)
    archive = xmrcae.open_archive(url).append(later, progress=False)
    assert archive.about["blocks"]["sst"]["least"][:-1] == [None, None]
    found = archive.to_dataset()["sst"].load()
    xr.testing.assert_identical(found[:36], before)
    assert float(found[36:].min()) == np.float32(14.9)
    np.testing.assert_allclose(found, reader(url, 0, 1)[:, ::-1])
    archive.verify()
