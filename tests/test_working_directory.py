"""A relative path leads to where it led when it was given, whatever the working directory is."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import make_field

import xmrcae
import xmrcae.paths
from xmrcae.archive.archive import Archive

pytest.importorskip("zarr", minversion="3.1.4")

QUICK = {"levels": 2, "channels": [[1]], "max_epochs": 2, "progress": False}
URLS = ["a", "./a", "file://a", "zip://a::packed.zip"]


@pytest.fixture(scope="module")
def model() -> xmrcae.MrCAE:
    return make_field(8).mrcae.fit(**QUICK)


@pytest.fixture
def elsewhere(
    model: xmrcae.MrCAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], None]:
    """Go to a folder where other archives have the names of those where the test begins."""
    for name, length in (("here", 8), ("there", 2)):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        model.to_archive(make_field(8)[:length], "a", max_error=0.1, progress=False)
        shutil.make_archive("packed", "zip", ".", "a")
    monkeypatch.chdir(tmp_path / "here")
    return lambda: monkeypatch.chdir(tmp_path / "there")


def n_times(archive: Archive) -> int:
    return archive.to_dataset().sizes["time"]


@pytest.mark.parametrize("url", URLS)
def test_archives_and_their_data_stay_where_they_were(
    elsewhere: Callable[[], None], url: str
) -> None:
    archive = xmrcae.open_archive(url)
    data = pickle.dumps(archive.to_dataset().sst.chunk(time=2))
    elsewhere()
    assert pickle.loads(data).load().sizes["time"] == 8
    assert n_times(Archive(archive.reader.store.reopened(), None)) == 8


@pytest.mark.parametrize("opened", ["written", "opened"])
def test_an_archive_is_appended_to_where_it_was(
    model: xmrcae.MrCAE, elsewhere: Callable[[], None], tmp_path: Path, opened: str
) -> None:
    archive = xmrcae.open_archive("a")
    if opened == "written":
        archive = model.to_archive(make_field(8), "b", max_error=0.1, progress=False)
        shutil.copytree(tmp_path / "there" / "a", tmp_path / "there" / "b")
    elsewhere()
    assert n_times(archive.append(make_field(10)[8:], progress=False)) == 10
    assert [n_times(xmrcae.open_archive(name)) for name in Path().glob("[ab]")] in ([2], [2, 2])


def test_a_checkpoint_stays_where_it_was_named(
    elsewhere: Callable[[], None], tmp_path: Path
) -> None:
    model = xmrcae.MrCAE(**QUICK, checkpoint="state")
    elsewhere()
    model.fit(make_field(8))
    assert [path.parent.parent.name for path in tmp_path.glob("*/state/checkpoint.pt")] == ["here"]


@pytest.mark.parametrize(
    "url", ["/a/b", "s3://bucket/a", "memory://a", "simplecache::s3://bucket/a", "zip://a::s3://b"]
)
def test_what_is_not_relative_is_left_as_it_is(url: str) -> None:
    assert xmrcae.paths.located(url) == url
