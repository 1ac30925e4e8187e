"""What an archive refuses is refused before a fit, and leaves nothing behind."""

import re
import subprocess
import sys

import pytest
from helpers import make_field

import xmrcae
from xmrcae.archive.store_writer import ArchiveWriter

QUICK = {"levels": 2, "channels": [[1]], "max_epochs": 2, "progress": False}

#: Holds the right to write to a folder until it is told to end.
HOLDER = """
import sys
from xmrcae.archive.folder import Folder
with Folder(sys.argv[1]).lock():
    print("held", flush=True)
    input()
"""


@pytest.fixture
def field():
    return make_field(shape=(15, 20))


@pytest.fixture
def url(tmp_path):
    return tmp_path / "new" / "a.mrcae.zarr"


def assert_refused_unfitted(monkeypatch, field, url, said, **options):
    """See that a call is refused although nothing could be fitted, and changes no file."""
    before = sorted(url.parent.parent.rglob("*"))
    with monkeypatch.context() as unable:
        unable.setattr(xmrcae.MrCAE, "fit", None)
        with pytest.raises(ValueError, match=re.escape(said)):
            field.mrcae.to_archive(url, **QUICK, **{"max_error": 0.1} | options)
    assert sorted(url.parent.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_error": -0.1}, "max_error=-0.1 must be a positive number"),
        ({"rmse": 0}, "rmse=0 must be a positive number"),
        ({"max_error": {"SST": 0.1}}, "max_error names 'SST'"),
        ({"rows_per_block": 0}, "rows_per_block=0"),
        ({"append_dim": "lat"}, "append_dim='lat' is no sample dimension"),
        ({"mode": "a"}, "mode='a'"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_before_a_fit(field, url, monkeypatch, options, said):
    assert_refused_unfitted(monkeypatch, field, url, said, **options)


def test_whole_numbers_are_refused_before_a_fit(field, url, monkeypatch):
    field = field.fillna(0).astype("int16")
    assert_refused_unfitted(monkeypatch, field, url, "'sst' is of type int16")


def test_no_snapshots_are_refused(field, url):
    model = field.mrcae.fit(**QUICK)
    with pytest.raises(ValueError, match="the data have no snapshot, their 'time' has size 0"):
        model.to_archive(field[:0], url, max_error=0.1, progress=False)
    assert not url.parent.exists()


def test_a_folder_of_other_files_is_refused_before_a_fit(field, url, monkeypatch):
    url.mkdir(parents=True)
    (url / "other.txt").write_text("mine")
    assert_refused_unfitted(monkeypatch, field, url, "holds other files, such as other.txt")


def test_a_file_is_refused_before_a_fit(field, url, monkeypatch):
    url.parent.mkdir()
    url.write_text("mine")
    assert_refused_unfitted(monkeypatch, field, url, "is a file")


def test_what_another_call_began_is_refused_before_a_fit(field, url, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopping:
        stopping.setattr(ArchiveWriter, "finish_block", stop)
        with pytest.raises(KeyboardInterrupt):
            field.mrcae.to_archive(url, max_error=0.2, **QUICK)
    assert_refused_unfitted(monkeypatch, field, url, "was stopped, and this is another call")
    assert field.mrcae.to_archive(url, max_error=0.2, **QUICK).max_error == 0.2


@pytest.mark.skipif(sys.platform == "win32", reason="needs locks of files")
def test_what_another_process_writes_is_refused_before_a_fit(field, url, monkeypatch):
    command = [sys.executable, "-c", HOLDER, str(url)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert_refused_unfitted(monkeypatch, field, url, "another process writes")
        holder.communicate(b"\n")


@pytest.mark.parametrize("there", [False, True], ids=["new folder", "own folder"])
def test_a_call_that_fails_before_a_block_is_complete_leaves_nothing(field, url, there):
    if there:
        url.mkdir(parents=True)
    with pytest.raises(xmrcae.ArchiveError, match="cannot be kept"):
        field.mrcae.to_archive(url, max_error=1e-9, **QUICK)
    assert list(url.parent.rglob("*")) == [url] * there
    assert field.mrcae.to_archive(url, max_error=0.1, **QUICK).max_error == 0.1
