"""An opened archive has its model, its codes and what it promises, and checks itself."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import xarray as xr
from helpers import make_field
from test_archive_reader import BOUND, LEVELS, ROWS, archived, fitted_fields, make_archive, simple

import xmrcae
from xmrcae.text import in_bytes

__all__ = ["archived", "simple"]  # fixtures


def model_data(obj):
    """What the model was fitted to."""
    return obj[["sst", "ssh"]] if isinstance(obj, xr.Dataset) else obj


# Model and codes


def test_codes_are_the_models_within_half_a_step(archived):
    obj, url, _ = archived
    archive = xmrcae.open_archive(url)
    codes, exact = archive.codes, archive.model.encode(model_data(obj))
    for level, steps in enumerate(archive.about["code_steps"]):
        found, expected = (tree[f"level_{level}/encoding"].compute() for tree in (codes, exact))
        xr.testing.assert_equal(found.isnull(), expected.isnull().transpose(*found.dims))
        xr.testing.assert_equal(found.coords.to_dataset(), expected.coords.to_dataset())
        step = xr.DataArray(steps, dims="channel")
        assert bool((abs(found - expected) <= 0.501 * step).where(found.notnull(), True).all())
    assert any(np.size(steps) for steps in archive.about["code_steps"])


def test_building_codes_computes_nothing(simple, no_compute):
    with no_compute():
        codes = xmrcae.open_archive(simple[1]).codes
    assert codes["level_0/encoding"].chunks[0] == (ROWS, ROWS, 3)


def test_the_model_decodes_draws_and_stacks_the_codes(archived):
    obj, url, _ = archived
    archive = xmrcae.open_archive(url)
    decoded = archive.model.decode(archive.codes, level=LEVELS - 1)
    assert archive.model.stack(archive.codes).notnull().all()
    assert dict(decoded.sizes) == dict(model_data(obj).sizes)


def test_without_a_bound_the_data_are_what_the_model_decodes(tmp_path):
    make_archive(make_field(2 * ROWS), tmp_path / "a", max_error=None)
    archive = xmrcae.open_archive(tmp_path / "a")
    decoded = archive.model.decode(archive.codes)
    xr.testing.assert_allclose(archive.to_dataset()["sst"].load(), decoded.compute(), 1e-5, 1e-4)
    assert archive.max_error is None and archive.rmse is None


# Bounds


def test_bounds_are_told(archived):
    obj, url, _ = archived
    archive = xmrcae.open_archive(url)
    several = isinstance(obj, xr.Dataset)
    assert archive.max_error == ({"sst": BOUND, "ssh": BOUND} if several else BOUND)
    assert archive.rmse == ({"sst": None, "ssh": None} if several else None)


def test_bytes_are_those_of_the_files(simple):
    archive = xmrcae.open_archive(simple[1])
    files = [path for path in Path(simple[1]).rglob("*") if path.is_file()]
    n_bytes = sum(path.stat().st_size for path in files)
    assert archive.n_bytes == n_bytes
    assert archive.ratio == pytest.approx(simple[0].nbytes / n_bytes)
    assert 0 < sum(archive.level_bytes) < n_bytes
    other = Path(simple[1]) / "README.md"
    other.write_text("mine")
    assert xmrcae.open_archive(simple[1]).n_bytes == n_bytes
    other.unlink()


# Checks


def test_verify_tells_what_it_found(archived):
    obj, url, _ = archived
    archive = xmrcae.open_archive(url)
    report, measured = archive.verify(obj), archive.measured.isel(level=-1)
    np.testing.assert_array_equal(report["worst"].max("block"), measured["worst"])
    assert set(archive.verify()) == {"count", "mean", "square"}
    known = [int(each.count()) for each in fitted_fields(obj).values()]
    np.testing.assert_array_equal(report["count"].sum(["block", "lane"]), known)


def first_pixel(obj):
    """Row and column of a pixel that has a value."""
    return np.argwhere(obj.notnull().values[0])[0]


def test_verify_finds_a_value_beyond_the_bound_and_names_its_block(simple):
    obj, url, _ = simple
    found = xmrcae.open_archive(url).to_dataset()["sst"].load()
    archive = xmrcae.open_archive(url)
    archive.verify(found)
    found[ROWS + 1, *first_pixel(obj)] += 1.001 * BOUND
    with pytest.raises(
        xmrcae.ArchiveError, match=r"block 1 of 'sst' has an error of 0\.1.*max_error"
    ):
        archive.verify(found)


def test_verify_finds_gaps_at_other_places(simple):
    obj, url, _ = simple
    data = obj.copy(deep=True)
    data[2 * ROWS, *first_pixel(obj)] = np.nan
    with pytest.raises(xmrcae.ArchiveError, match="block 2 of 'sst' has gaps at 1 other places"):
        xmrcae.open_archive(url).verify(data)


def test_verify_refuses_other_data(simple):
    obj, url, _ = simple
    archive = xmrcae.open_archive(url)
    with pytest.raises(ValueError, match=r"not those of the archive: .*lat"):
        archive.verify(obj.assign_coords(lat=obj["lat"] + 1))
    with pytest.raises(ValueError, match="no variable 'sst'"):
        archive.verify(obj.to_dataset(name="other"))


@pytest.mark.parametrize("key", ["count", "mean", "square"])
def test_verify_finds_values_that_are_not_those_written(simple, key):
    archive = xmrcae.open_archive(simple[1])
    archive.about["blocks"]["sst"][key][2] *= 1.00001
    with pytest.raises(xmrcae.ArchiveError, match=f"block 2, lane 0 of 'sst' .*{key} is"):
        archive.verify()


# Looks


def test_an_archive_shows_levels_bound_and_span(archived):
    archive = xmrcae.open_archive(archived[1])
    for shown in (repr(archive), archive._repr_html_()):
        for text in ("5 x 7", "11 x 15", "21 x 30", "max_error=0.1", "2001-02-01", "rmse"):
            assert text in shown


def test_an_archive_shows_units_and_where_all_of_its_bytes_are(simple):
    archive = xmrcae.open_archive(simple[1])
    worst, rmse = (float(archive.measured[key][-1, 0]) for key in ("worst", "rmse"))
    levels, total = sum(archive.level_bytes), archive.n_bytes
    for shown in (repr(archive), archive._repr_html_()):
        assert f"{worst:.3g} degC, measured" in shown and f"{rmse:.3g} degC" in shown
        parts = f"levels {in_bytes(levels)}, model and labels {in_bytes(total - levels)}"
        assert f"{in_bytes(total)}: {parts}" in shown
        assert "nan" not in shown


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, *args):
        pass


@pytest.fixture
def over_http(simple):
    """URL of the simple archive on a server of this machine."""
    folder = Path(simple[1])
    handler = partial(Quiet, directory=folder.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/{folder.name}"
        server.shutdown()


def test_archives_open_over_http_where_sizes_are_unknown(simple, over_http):
    archive, local = xmrcae.open_archive(over_http), xmrcae.open_archive(simple[1])
    xr.testing.assert_identical(archive.to_dataset().load(), local.to_dataset().load())
    assert "size:        unknown" in repr(archive)
    with pytest.raises(OSError, match="does not tell the sizes"):
        archive.n_bytes  # noqa: B018


def test_names_are_escaped(tmp_path):
    make_archive(make_field(2 * ROWS, name="<b>\n"), tmp_path / "a")
    archive = xmrcae.open_archive(tmp_path / "a")
    assert "&lt;b&gt; " in archive._repr_html_() and "<b>" not in archive._repr_html_()
    assert "(<b> ; 3 levels" in repr(archive)
