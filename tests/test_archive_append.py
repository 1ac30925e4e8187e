"""Later data go behind what is there, and change no chunk of it."""

import contextlib
import itertools
import re
import warnings
from functools import partial

import numpy as np
import pytest
import xarray as xr
from test_archive_writer import (
    BOUND,
    QUICK,
    ROWS,
    assert_within,
    changed,
    field,
    files,
    model,
    read,
    write,
)

import xmrcae
from xmrcae.archive import prepare, writer
from xmrcae.archive.block_table import joined
from xmrcae.archive.folder import Folder
from xmrcae.archive.format import ArchiveError
from xmrcae.archive.store_writer import ArchiveWriter

__all__ = ["field", "model"]  # fixtures

# Appending


def later_than(field):
    """A field of the same size at later times."""
    later = field.isel(time=slice(None, None, -1)).assign_coords(time=field.time)
    return later.assign_coords(time=field.time + np.timedelta64(600, "D"))


def members_of(field):
    """Three members of a field, the first dimension."""
    members = xr.concat([field, field * 1.01, field - 0.5], "member")
    return members.assign_coords(member=["a", "b", "c"]).assign_attrs(field.attrs)


@pytest.mark.parametrize("dims", [("member", "time"), ("time", "member")])
def test_times_are_appended_to_every_member(field, tmp_path, dims):
    parts = [members_of(part).transpose(*dims, ...) for part in (field, later_than(field))]
    model = parts[0].mrcae.fit(sample=["time", "member"], **QUICK)
    archive = write(model, parts[0], tmp_path / "a")
    before = files(tmp_path / "a")
    archive.append(parts[1], progress=False)
    after = files(tmp_path / "a")
    assert all(after[name] == before[name] for name in before if "/c/" in name)
    both = xr.concat(parts, "time", combine_attrs="identical").transpose(*dims, ...)
    assert_within(read(both, tmp_path / "a"), both, BOUND)
    xmrcae.open_archive(tmp_path / "a").verify(both)


def test_other_members_are_not_appended(field, tmp_path):
    members, later = members_of(field), members_of(later_than(field))
    archive = write(members.mrcae.fit(sample=["time", "member"], **QUICK), members, tmp_path / "a")
    before = files(tmp_path / "a")
    for wrong, message in ((later[:2], "'member': 3.*'member': 2"), (later[[1, 0, 2]], "'member'")):
        with pytest.raises(ArchiveError, match=message):
            archive.append(wrong, progress=False)
    assert files(tmp_path / "a") == before


@pytest.mark.parametrize("dims", [("time",), ("member", "time")])
def test_exchanged_chunks_are_refused_of_blocks_before_and_after(field, tmp_path, dims):
    of = members_of if "member" in dims else xr.DataArray
    first, later = of(field), of(later_than(field))
    options = {"sample": ["time", *dims[:-1]], "center": "month"}
    archive = write(first.mrcae.fit(**options, **QUICK), first, tmp_path / "a")
    archive.append(later, progress=False)
    data, n_refused = files(tmp_path / "a"), 0
    chunks = [path for path in data if re.search(r"(season|codes|time)/c/", path)]
    for one, other in itertools.pairwise(chunks):
        if data[one] == data[other]:
            continue
        for path, content in ((one, data[other]), (other, data[one])):
            (tmp_path / "a" / path).write_bytes(content)
        with pytest.raises(ArchiveError, match=r"is another chunk of it|is damaged"):
            xmrcae.open_archive(tmp_path / "a").verify()
        n_refused += 1
        for path in (one, other):
            (tmp_path / "a" / path).write_bytes(data[path])
    assert n_refused > 10
    xmrcae.open_archive(tmp_path / "a").verify()


@pytest.mark.parametrize("by", ["archive", "model"])
def test_appended_data_come_back_and_no_chunk_changes(model, field, tmp_path, by):
    url, parts = tmp_path / "a", [field, later_than(field)[:2], later_than(field)[2:]]
    archive = write(model, parts[0], url)
    for part in parts[1:]:
        before = files(url)
        if by == "archive":
            archive = archive.append(part, progress=False)
        else:
            model.to_archive(part, url, mode="a", progress=False)
        after = files(url)
        chunks = {name for name in before if not name.endswith("zarr.json")}
        assert all(after[name] == before[name] for name in chunks)
        assert len(after) > len(before) > len(chunks) > 10
    both = xr.concat(parts, "time", combine_attrs="identical")
    assert_within(read(both, url), both, BOUND)
    xmrcae.open_archive(url).verify(both)


def test_an_archive_that_was_opened_before_others_appended_appends_after_them(
    model, field, tmp_path
):
    archive, later = write(model, field, tmp_path / "a"), later_than(field)
    archive.append(later[:3], progress=False)
    with pytest.raises(ArchiveError, match="and then comes"):
        archive.append(later[2:], progress=False)
    archive.append(later[3:], progress=False)
    both = xr.concat([field, later], "time", combine_attrs="identical")
    assert_within(read(both, tmp_path / "a"), both, BOUND)


def test_no_snapshots_are_appended_without_a_change(model, field, tmp_path):
    archive = write(model, field, tmp_path / "a")
    before = files(tmp_path / "a")
    archive.append(later_than(field)[:0], progress=False)
    assert files(tmp_path / "a") == before
    assert joined(archive.about["blocks"], []) == archive.about["blocks"]


class Stop(BaseException):
    """What ends a run, as a signal would."""


@contextlib.contextmanager
def stopped_after_blocks(monkeypatch, n_blocks):
    """Stop a run once some blocks are complete."""
    finish = ArchiveWriter.finish_block

    def finish_and_stop(self, *args):
        finish(self, *args)
        if len(self.finished) == n_blocks:
            raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(ArchiveWriter, "finish_block", finish_and_stop)
        yield


@contextlib.contextmanager
def stopped_after_the_commit(monkeypatch):
    """Stop a run when all is visible, before its record is removed."""

    def stop(*_):
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Folder, "remove", stop)
        yield


def numbered(field):
    """A field with something else along the times."""
    texts = np.resize(["1", "11", "2"], len(field))
    return field.assign_coords(number=("time", np.arange(len(field))), flag=("time", texts))


def with_other_numbers(field):
    return field.assign_coords(number=field.number + 1)


def with_other_texts(field):
    """Texts of equal letters, one after the other."""
    swapped = {"1": "11", "11": "1", "2": "2"}
    return field.assign_coords(flag=("time", [swapped[text] for text in field.flag.values]))


REVISED = {
    "values": lambda field: field.copy(data=field.values + 1),
    "one value": lambda field: changed(field, lambda values: values.__setitem__((0, 0, 0), 7)),
    "labels": with_other_numbers,
    "texts": with_other_texts,
}


@pytest.mark.parametrize("what", REVISED)
@pytest.mark.parametrize("mode", ["w-", "a"])
def test_what_was_stopped_is_not_finished_with_revised_data(
    model, field, tmp_path, monkeypatch, mode, what
):
    monkeypatch.setattr(prepare, "SAMPLE", 1)  # the first two blocks; the third is revised
    field, url = numbered(field), tmp_path / "a"
    if mode == "a":
        archive, field = write(model, field, url), later_than(field)
    call = (
        partial(write, model, url=url) if mode == "w-" else partial(archive.append, progress=False)
    )
    with stopped_after_blocks(monkeypatch, 3):
        call(field)
    before, third = files(url), field[2 * ROWS : 3 * ROWS]
    parts = [field[: 2 * ROWS], REVISED[what](third), field[3 * ROWS :]]
    revised = xr.concat(parts, "time", combine_attrs="identical")
    file = "the file writing.json" if mode == "a" else "the folder"
    with pytest.raises(ArchiveError, match=f"another call .other data.* remov(e|ing) {file}"):
        call(revised)
    assert files(url) == before
    call(field)
    found = xmrcae.open_archive(url).to_dataset().sst[-len(field) :]
    assert float(abs(found - field).max()) <= BOUND


def test_after_a_stop_rows_without_times_are_appended_once(model, field, tmp_path, monkeypatch):
    """What comes next is told from what is there by its values."""
    part = field.drop_vars("time")
    archive = write(model, part, tmp_path / "a")
    with stopped_after_the_commit(monkeypatch):
        archive.append(part[:3], progress=False)
    archive.append(part[:3], progress=False)
    assert archive.append(part[:0], progress=False).reader.lengths == [4, 4, 4, 1, 3]
    with stopped_after_the_commit(monkeypatch):
        archive.append(part[3:6], progress=False)
    archive.append(part[6:9], progress=False)
    both = xr.concat([part, part[:9]], "time", combine_attrs="identical")
    assert_within(read(both, tmp_path / "a"), both, BOUND)


def test_a_complete_archive_stays_when_its_call_comes_with_other_data(
    model, field, tmp_path, monkeypatch
):
    with stopped_after_the_commit(monkeypatch):
        write(model, field, tmp_path / "a")
    before = files(tmp_path / "a")
    with pytest.raises(ArchiveError, match=r"there is an archive at .* already"):
        write(model, field + 1, tmp_path / "a")
    assert files(tmp_path / "a") == before
    write(model, field, tmp_path / "a").verify(field)


def test_who_appends_meanwhile_is_refused_and_may_append_afterwards(
    model, field, tmp_path, monkeypatch
):
    archive, later = write(model, field, tmp_path / "a"), later_than(field)
    check = writer.check_append

    def check_while_another_appends(*args):
        with pytest.raises(ArchiveError, match="another process writes"):
            archive.append(later[:3], progress=False)
        return check(*args)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "check_append", check_while_another_appends)
        archive.append(later[:3], progress=False)
    archive.append(later[3:], progress=False)
    both = xr.concat([field, later], "time", combine_attrs="identical")
    assert_within(read(both, tmp_path / "a"), both, BOUND)


def test_without_times_rows_are_appended(model, field, tmp_path):
    part = field.drop_vars("time")
    write(model, part, tmp_path / "a").append(part[:3], progress=False)
    both = xr.concat([part, part[:3]], "time", combine_attrs="identical")
    assert_within(read(both, tmp_path / "a"), both, BOUND)


def test_numbered_rows_are_appended_in_order(model, field, tmp_path):
    part = field.assign_coords(time=np.arange(13) * 0.5)
    archive = write(model, part, tmp_path / "a")
    with pytest.raises(ArchiveError, match=r"ends at 6\.0, and then comes 0\.0"):
        archive.append(part, progress=False)
    archive.append(part.assign_coords(time=part.time + 7), progress=False)
    found = read(part, tmp_path / "a")
    assert np.array_equal(found.time, np.append(np.arange(13), np.arange(14, 27)) * 0.5)


WRONG = {
    "times that go backwards": (lambda later: later[::-1], "the data to append have 20.*T.*20.*T"),
    "other units": (lambda later: later.assign_attrs(units="K"), "units='K'.*'degC'"),
    "another grid": (lambda later: later.assign_coords(lat=later.lat * 0.99), "lat"),
    "a smaller grid": (lambda later: later[:, 1:], "lat"),
    "another name": (lambda later: later.rename("sss"), "sst.*sss"),
    "another type": (lambda later: later.astype("float64"), "float32.*float64"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_continue_an_archive_is_refused_and_changes_nothing(
    model, field, tmp_path, what
):
    change, message = WRONG[what]
    archive = write(model, field, tmp_path / "a")
    before = files(tmp_path / "a")
    with pytest.raises(ValueError, match=message):
        archive.append(change(later_than(field)), progress=False)
    assert files(tmp_path / "a") == before


def test_nothing_is_appended_to_a_single_snapshot(model, field, tmp_path):
    one, other = (field.isel(time=i, drop=True) for i in (0, 1))
    archive = write(model, one, tmp_path / "a")
    before = files(tmp_path / "a")
    with pytest.raises(ArchiveError, match="no dimension to grow along"):
        archive.append(other, progress=False)
    assert files(tmp_path / "a") == before


def test_times_that_overlap_are_refused_with_both(model, field, tmp_path):
    archive = write(model, field, tmp_path / "a")
    last, first = (str(field.time.values[i])[:10] for i in (-1, 4))
    with pytest.raises(ArchiveError, match=f"ends at {last}T.*, and then comes {first}T"):
        archive.append(field[4:], progress=False)


def test_another_model_does_not_append(model, field, tmp_path):
    write(model, field, tmp_path / "a")
    other = (field + 1).mrcae.fit(**QUICK)
    with pytest.raises(ArchiveError, match="another model"):
        other.to_archive(later_than(field), tmp_path / "a", mode="a", progress=False)


def test_bounds_are_not_given_again_to_append(model, field, tmp_path):
    write(model, field, tmp_path / "a")
    with pytest.raises(ValueError, match="leave them out"):
        model.to_archive(later_than(field), tmp_path / "a", mode="a", max_error=BOUND)


def test_data_that_fit_badly_are_appended_with_a_warning(model, field, tmp_path):
    archive = write(model, field, tmp_path / "a")
    later = later_than(field)
    noise = np.random.default_rng(0).normal(0, 3, later.shape).astype("float32")
    with pytest.warns(UserWarning, match=r"take \d+ bytes per snapshot, [12]\.\d times as many"):
        archive.append(later + noise, progress=False)


@pytest.mark.parametrize("n", [1, 2, ROWS, ROWS + 1])
def test_data_like_those_at_the_start_are_appended_without_a_warning(model, field, tmp_path, n):
    archive = write(model, field, tmp_path / "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        archive.append(later_than(field)[:n], progress=False)


def test_what_cannot_be_compared_is_not_appended(model, field, tmp_path):
    archive = write(model, field, tmp_path / "a")
    chunk = next(path for path in (tmp_path / "a/level_1/sst/c/0").rglob("*") if path.is_file())
    chunk.write_bytes(b"damaged")
    before = files(tmp_path / "a")
    with pytest.raises(ArchiveError, match="level_1/sst"):
        archive.append(later_than(field), progress=False)
    assert files(tmp_path / "a") == before


def test_bytes_at_the_start_are_those_that_were_written(model, field, tmp_path, monkeypatch):
    """What appended data are compared with is what the same data take as a block of their own."""
    found = []
    method = writer.n_bytes_at_start
    monkeypatch.setattr(
        writer, "n_bytes_at_start", lambda *args: found.append(method(*args)) or 1e9
    )
    archive = write(model, field, tmp_path / "a")
    for n in (1, 3, ROWS):
        later = field[:n].assign_coords(time=field.time[:n] + np.timedelta64(600 * n, "D"))
        archive = archive.append(later, progress=False)
        block = len(archive.reader.lengths) - 1
        level = [p for p in (tmp_path / "a").glob(f"level_*/*/c/{block}") if p.is_dir()]
        assert found.pop() == sum(
            p.stat().st_size for each in level for p in each.rglob("*") if p.is_file()
        )


@pytest.mark.parametrize("mode", ["w-", "a"])
def test_a_second_writer_is_refused(model, field, tmp_path, mode):
    write(model, field, tmp_path / "a")
    url = tmp_path / ("a" if mode == "a" else "b")
    with Folder(url).lock(), pytest.raises(ArchiveError, match="another process writes"):
        model.to_archive(later_than(field), url, mode=mode, progress=False)


def test_labels_of_other_dimensions_are_appended_in_the_archives_order(model, field, tmp_path):
    aux = np.arange(len(field) * 6.0).reshape(-1, 2, 3)
    both, later = (
        each.to_dataset().assign(aux=(("time", "k", "l"), aux))
        for each in (field, later_than(field))
    )
    archive = write(model, both, tmp_path / "a")
    turned = later.assign(aux=later.aux.transpose("l", "time", "k"))
    found = archive.append(turned, progress=False).to_dataset()["aux"]
    assert found.dims == ("time", "k", "l")
    np.testing.assert_array_equal(found, np.concatenate([aux, aux]))
