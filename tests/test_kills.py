"""Calls that are stopped at any moment leave what was complete, and are finished by the same call."""

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import kills
import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize
from kills import SHORT, Ended, Moment, command, run
from test_archive_writer import files

import xmrcae
from xmrcae.archive.folder import LOCK
from xmrcae.archive.journal import JOURNAL
from xmrcae.core.checkpoint import Checkpoint
from xmrcae.io import tree_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")


class Case(NamedTuple):
    """A call, and what it writes in the folder that it is done in.

    An archive has the same bytes each time, if its model is given: one that is fitted keeps how
    many seconds that took.
    """

    call: Callable[[], Any]
    outputs: tuple[str, ...]
    fits: bool = False


FIGURES = ("levels.png", "refinement.png", "history.png", "archive.png")
ARCHIVING = ("--max-error", "0.1", "--rows-per-block", "4")

CASES = {
    "fit with a checkpoint": Case(kills.fit, ("state",)),
    "save to netCDF": Case(partial(kills.save, "saved.nc"), ("saved.nc",)),
    "save to Zarr": Case(partial(kills.save, "saved.zarr"), ("saved.zarr",)),
    "to_archive": Case(kills.write, ("new.mrcae.zarr",)),
    "append": Case(kills.append, ("sst.mrcae.zarr",)),
    "xmrcae fit": Case(
        partial(command, "fit", "field.nc", "saved.nc", "--overwrite", *SHORT), ("saved.nc",)
    ),
    "xmrcae archive": Case(
        partial(command, "archive", "field.nc", "new.mrcae.zarr", *ARCHIVING, *SHORT),
        ("new.mrcae.zarr",),
        fits=True,
    ),
    "xmrcae append": Case(
        partial(command, "append", "later.nc", "sst.mrcae.zarr"), ("sst.mrcae.zarr",)
    ),
    "xmrcae decode to netCDF": Case(
        partial(command, "decode", "sst.mrcae.zarr", "out.nc", "--overwrite"), ("out.nc",)
    ),
    "xmrcae decode to Zarr": Case(
        partial(command, "decode", "sst.mrcae.zarr", "out.zarr", "--overwrite"), ("out.zarr",)
    ),
    "xmrcae plot": Case(
        partial(command, "plot", "sst.mrcae.zarr", "out.png", "--overwrite"), ("out.png",)
    ),
    "xmrcae demo": Case(
        partial(command, "demo", "--data", "field.nc", "--output", "demo", *SHORT),
        tuple(f"demo/{name}" for name in ("model.nc", "archive.mrcae.zarr", *FIGURES)),
        fits=True,
    ),
}

#: A hundred moments of each case; always five, and three of the slowest.
SLOWEST = ("xmrcae archive", "xmrcae plot", "xmrcae demo")
MOMENTS = [
    pytest.param(name, seed, marks=[pytest.mark.soak] * (seed >= (3 if name in SLOWEST else 5)))
    for name in CASES
    for seed in range(100)
]


def content(path: Path) -> Any:
    """Return a digest of all that users see of an output; None if there is none that opens."""
    if path.name.endswith(".mrcae.zarr"):
        try:
            archive = xmrcae.open_archive(path)
        except xmrcae.ArchiveError as error:
            begun = (path / JOURNAL).exists()
            said = "was stopped: the same call finishes it" if begun else "there is no archive"
            assert said in str(error)
            return None
        fields = [archive.to_dataset(level).load() for level in range(archive.levels)]
        archive.verify(kills.MONTHS[: fields[0].sizes["time"]])
        return tokenize(fields)
    if path.name == "state":
        state = Checkpoint(path).read()
        return tokenize(state["network"].weights) if state and state["finished"] else None
    if not path.exists():
        return None
    if path.suffix == ".png":
        return tokenize(path.read_bytes())
    if path.name.startswith("out."):
        engine = "zarr" if path.is_dir() else None
        with xr.open_dataset(path, engine=engine) as ds:
            return tokenize(ds.load().drop_attrs(deep=False))
    return tokenize(kills.learnt(xmrcae.open_model(path)))


#: The same of an output that no call changes any more.
known_content = cache(content)


class Stage:
    """Where calls are stopped: what stands there before, and what is there after each call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "before").mkdir()
        ended = run(kills.write_givens, folder / "before")
        assert ended is not None and ended.result is None, ended
        self._after: dict[str, tuple[Path, Ended]] = {}

    def copy(self, name: str) -> Path:
        """Return a new folder in which nothing was called yet."""
        return shutil.copytree(self.folder / "before", self.folder / name)

    def after(self, name: str) -> tuple[Path, Ended]:
        """Return where a call was not disturbed, and how it ended."""
        if name not in self._after:
            folder = self.copy(name)
            ended = run(CASES[name].call, folder)
            assert ended is not None and "Error" not in str(ended.result), ended
            self._after[name] = folder, ended
        return self._after[name]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("kills"))


#: How, and at which changes of files or whenever, calls are stopped, in turn.
KINDS = [
    (signal.SIGKILL, "outputs"), (signal.SIGINT, "outputs"), (signal.SIGKILL, None), (signal.SIGINT, None),
    (signal.SIGKILL, "files"), (signal.SIGINT, "files"), (signal.SIGKILL, None), (signal.SIGINT, None),
]  # fmt: skip


def moment(seed: int, whole: Ended, outputs: tuple[str, ...]) -> Moment:
    """Draw when and how a call is stopped: before a change of a file, or anywhere."""
    rng, (stop, where) = np.random.default_rng(seed), KINDS[seed % len(KINDS)]
    if where is None:
        return Moment(stop, seconds=rng.uniform(0, whole.seconds))
    places = [
        number for number, path in enumerate(whole.changes)
        if where == "files" or path in outputs or os.path.dirname(path) in outputs
    ]  # fmt: skip
    return Moment(stop, change=int(rng.choice(places or range(len(whole.changes)))))


def names(folder: Path) -> set[str]:
    """Return the paths of all files and folders below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def leftovers(folder: Path, *complete: Path) -> set[str]:
    """Return what is in a folder, and neither was there before nor belongs to what is complete."""
    return names(folder).difference(*map(names, complete))


@pytest.mark.parametrize(("name", "seed"), MOMENTS)
def test_what_was_complete_stays_and_the_same_call_goes_on(
    stage: Stage, name: str, seed: int
) -> None:
    outputs, whole = CASES[name].outputs, stage.after(name)[1]
    check(stage, name, moment(seed, whole, outputs))


@pytest.mark.parametrize("left", ["record and lock", "lock"])
@pytest.mark.parametrize("name", ["to_archive", "append", "xmrcae archive", "xmrcae append"])
def test_who_is_killed_when_all_is_visible_leaves_nothing_to_remove(
    stage: Stage, name: str, left: str
) -> None:
    changes = stage.after(name)[1].changes
    at = len(changes) - (2 if "record" in left else 1)
    assert os.path.basename(changes[at]) == (JOURNAL if "record" in left else LOCK)
    check(stage, name, Moment(signal.SIGKILL, change=at))


def test_a_fit_that_is_killed_again_and_again_ends_as_if_it_were_not(stage: Stage) -> None:
    folder, whole = stage.copy("again"), stage.after("fit with a checkpoint")[1]
    ends = [run(kills.fit, folder, Moment(signal.SIGKILL, change=9)) for _ in range(8)]
    n_killed = ends.index(next(filter(None, ends)))
    assert n_killed >= 2 and ends[n_killed].result == whole.result


def test_ctrl_c_while_a_thread_starts_leaves_none_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start = set(threading.enumerate()), threading.Thread.start

    def interrupted(self: threading.Thread) -> None:
        start(self)
        if self not in before:
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        kills.MONTHS.mrcae.fit(**kills.FIT)
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(10)
    assert not any(thread.is_alive() for thread in left)


def test_ctrl_c_reaches_no_library_that_writes_a_model(
    monkeypatch: pytest.MonkeyPatch, model: xmrcae.MrCAE, tmp_path: Path
) -> None:
    write, before, written = tree_file._write, signal.getsignal(signal.SIGINT), []

    def stopped(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        write(*args, **kwargs)
        written.append(os.listdir(tmp_path))

    monkeypatch.setattr(tree_file, "_write", stopped)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.save(tmp_path / "model.nc")
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(written) == len(written[0]) == 1 and not os.listdir(tmp_path)


def check(stage: Stage, name: str, at: Moment) -> None:
    """Stop a call, see what it leaves, and do it again."""
    case, before, (after, whole) = CASES[name], stage.folder / "before", stage.after(name)
    folder = stage.copy(f"stopped {len(os.listdir(stage.folder))}")
    ended = run(case.call, folder, at)
    print(f"{at}, of {len(whole.changes)} and {whole.seconds:.2f} s: {ended and ended.result}")
    if at.change is not None:
        print("before", whole.changes[at.change])
        assert ended is None or ended.result != whole.result
    expected = {output: known_content(after / output) for output in case.outputs}
    left = {output: content(folder / output) for output in case.outputs}
    for output in case.outputs:
        assert left[output] in (known_content(before / output), expected[output])
    added = leftovers(folder, before, after)
    if ended is None and at.change is not None:
        check_killed(folder, whole.changes[: at.change], case.outputs)
    if ended is not None:
        check_stopped(ended, whole)
        assert not [path for path in added if not path.endswith((JOURNAL, LOCK))]
    assert all(re.search(r"\.(part|old)(/|$)|/writing\.(json|lock)$", path) for path in added), (
        added
    )
    again = run(case.call, folder)
    assert again is not None and not again.disturbed
    if again.result != whole.result:
        print(again.result)
        assert left == expected and "ArchiveError: " in str(again.result)
    assert {output: content(folder / output) for output in case.outputs} == expected
    for output in case.outputs:
        if output.endswith(".mrcae.zarr") and not case.fits:
            assert files(folder / output) == files(after / output)
    added = leftovers(folder, before, after)
    assert all(re.search(r"\.[0-9a-f]{32}\.(part|old)(/|$)", path) for path in added), added
    shutil.rmtree(folder)


def check_killed(folder: Path, changes: list[str], outputs: tuple[str, ...]) -> None:
    """Check that who was killed after some changes has left the lock of each archive it held."""
    for lock in (f"{output}/{LOCK}" for output in outputs if output.endswith(".mrcae.zarr")):
        # a lock changes twice: it is created, and removed
        assert (folder / lock).exists() == bool(changes.count(lock) % 2), lock


#: What Python says of objects of libraries that were interrupted while they were made or removed.
OF_LIBRARIES = re.compile(
    r"Exception ignored in: .*\nTraceback .*\n( .*\n)+\S*(Error|Interrupt): .*\n"
    r"|.*RuntimeWarning: coroutine .* was never awaited\n( .*\n)*"
    r"|RuntimeWarning: Enable tracemalloc .*\n"
)


def check_stopped(ended: Ended, whole: Ended) -> None:
    """Check that a call that was interrupted says no more than that, and left its process alone."""
    assert not ended.disturbed
    said = OF_LIBRARIES.sub("", ended.said)
    assert "Traceback" not in said
    if whole.result == 0:
        assert ended.result in (0, 1) and (not ended.result or said.endswith("xmrcae: stopped\n"))
    else:
        assert ended.result in (whole.result, "KeyboardInterrupt: ")
