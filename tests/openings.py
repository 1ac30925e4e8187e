"""What changed files open to, found in a process that may crash, hang or run out of memory.

``python tests/openings.py KIND NUMBER`` tells of one file, with the traceback.
"""

import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from helpers import make_field, make_two_variables
from mutations import KINDS, mutate, sound_files

import xmrcae
from xmrcae.core.checkpoint import Checkpoint

HERE = Path(__file__).parent

#: Seconds of the processor and bytes that one file may take.
SECONDS, MEMORY = 2.0, 2**30

#: Seconds after which a process that does not answer is ended.
HUNG = 60.0

#: What a changed model, sound but of other data, says of those that it is given.
OTHER_DATA = ("lie on another grid", "the climatology of the fitted months", "the data have no",
              "model was fitted to", "has no variable", "that of the fitted grid in",
              "the data depart from the fitted centre by")  # fmt: skip

OPTIONS: dict[str, Any] = {"levels": 2, "max_epochs": 3, "progress": False}


class Outcome(NamedTuple):
    """What a file opened to.

    Attributes
    ----------
    kind : str
        "refused" in our words; "same" results; "told", if a warning says that nothing checks the
        file; "another", if it was forged; "crash", if a library ended the process or did not end;
        "defect".
    text : str
        The error.
    """

    kind: str
    text: str
    seconds: float = 0.0
    memory: int = 0


def write_sound_files(folder: Path) -> None:
    """Write the files that are changed."""
    for name in ("filters", "projection"):
        model, data = fitted(name), data_of(name)
        for suffix in ("nc", "zarr"):
            model.save(folder / f"{name}.{suffix}")
        model.to_archive(
            data, folder / f"{name}.mrcae.zarr", rows_per_block=10, progress=False,
            max_error=None if name == "filters" else 0.5,
        )  # fmt: skip
        shutil.copy(HERE / "files" / f"version_2_{name}.nc", folder)
    write_checkpoint(folder / "finished")
    write_checkpoint(folder / "begun", states=2)


def write_checkpoint(folder: Path, *, states: int | None = None) -> None:
    """Write the last state of a fit, or that after some states."""
    write = Checkpoint.write

    def counted(self: Checkpoint, content: dict[str, Any]) -> None:
        nonlocal states
        write(self, content)
        states = None if states is None else states - 1
        if states == 0:
            raise KeyboardInterrupt

    with mock.patch.object(Checkpoint, "write", counted), suppress(KeyboardInterrupt):
        xmrcae.MrCAE(**OPTIONS, checkpoint=folder).fit(data_of("checkpoint"))


@cache
def data_of(name: str) -> Any:
    """Return what the model in a file of this name was fitted to."""
    if "version_2" in name or "projection" in name:
        return make_two_variables(n_times=20 if "version_2" in name else 24, shape=(11, 14))
    return make_field(20, (9, 14))


def fitted(name: str) -> xmrcae.MrCAE:
    """Fit a small model."""
    own = {"encoder": "projection", "center": "month"} if name == "projection" else {}
    return xmrcae.MrCAE(**OPTIONS | own).fit(data_of(name))


def results(path: Path) -> list[Any]:
    """Return all that users see of a file: what it decodes to, and what it says of itself."""
    if path.name.endswith(".mrcae.zarr"):
        archive = xmrcae.open_archive(path)
        levels = [archive.to_dataset(level).load() for level in range(archive.levels)]
        model = archive.model
        found = [*levels, archive.codes["level_0"].to_dataset().load(), archive.measured]
        shown = archive._repr_html_() + repr(archive)
    elif path.suffix in (".nc", ".zarr"):
        model = xmrcae.open_model(path)
        found, shown = [], ""
    else:
        model = xmrcae.MrCAE(**OPTIONS, checkpoint=path).fit(data_of(path.name))
        found, shown = [], ""
    assert "<script" not in shown + model._repr_html_(), "unescaped"
    history = model.history.drop_vars("seconds")
    return [*found, model.reconstruct(data_of(path.name)).load(), model.split, history]


@cache
def sound_results(name: str) -> list[Any]:
    """Return what the file of this name opens to before it is changed."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sound = sound_files() / name
        copy = shutil.copytree if sound.is_dir() else shutil.copy
        return results(Path(copy(sound, Path(folder) / name)))


def outcome(kind: str, number: int, *, debug: bool = False) -> Outcome:
    """Make one file and tell what it opens to."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        inner = Path(folder) / "inner"
        inner.mkdir()
        path = mutate(kind, number, inner)
        expected = sound_results(path.name)
        before = [os.listdir(each) for each in (folder, inner)]
        start, said[:] = time.process_time(), []
        try:
            found = results(path)
        except (xmrcae.ModelFileError, xmrcae.ArchiveError) as error:
            result = Outcome("refused", str(error))
        except Exception as error:
            if debug:
                traceback.print_exc()
            result = Outcome("defect", f"{type(error).__name__}: {error}")
            if any(text in str(error) for text in OTHER_DATA):
                result = _of_other(said, str(error), forged=KINDS[kind][2])
        else:
            result = _compared(found, expected, said, forged=KINDS[kind][2])
        seconds = time.process_time() - start
        if before != [os.listdir(each) for each in (folder, inner)]:
            result = Outcome("defect", "it wrote files")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return result._replace(seconds=seconds, memory=memory)


def _compared(found: list[Any], expected: list[Any], said: list[Any], *, forged: bool) -> Outcome:
    """Compare what a changed file opens to with what it was."""
    if len(found) == len(expected) and all(
        a.equals(b) for a, b in zip(found, expected, strict=True)
    ):
        return Outcome("same", "")
    return _of_other(said, "other results", forged=forged)


def _of_other(said: list[Any], text: str, *, forged: bool) -> Outcome:
    """Tell whether a file may hold another model: if it is forged, or no checksums were told of."""
    if forged:
        return Outcome("another", text)
    told = any("has no checksums" in str(each.message) for each in said)
    return Outcome("told" if told else "defect", text)


class Worker:
    """A process that opens files; it is started again after a crash."""

    def __init__(self) -> None:
        self._spawn = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._pipe, end = self._spawn.Pipe()
        self._process = self._spawn.Process(target=_work, args=(end,), daemon=True)
        self._process.start()
        end.close()
        self._base = self._pipe.recv()

    def outcome(self, kind: str, number: int) -> Outcome:
        """Tell what a file opens to, whatever it does to the process."""
        self._pipe.send((kind, number))
        try:
            if self._pipe.poll(HUNG):
                result = self._pipe.recv()
                if result.seconds > SECONDS and "checkpoint" not in kind:  # a fit goes on
                    return result._replace(kind="defect", text=f"slow: {result.text}")
                if result.memory > self._base + MEMORY:
                    self._restart()
                    return result._replace(kind="defect", text=f"memory: {result.text}")
                return result
            # A library that reads a broken file in circles is no defect of ours.
            died = Outcome("crash" if _netcdf_hangs(kind, number) else "defect", "it hangs")
        except EOFError:
            self._process.join()
            died = Outcome("crash", f"exit status {self._process.exitcode}")
        self._restart()
        return died

    def _restart(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _netcdf_hangs(kind: str, number: int) -> bool:
    """Tell whether the netCDF library alone does not end on a file."""
    program = "import netCDF4, sys; netCDF4.Dataset(sys.argv[1])"
    with tempfile.TemporaryDirectory() as folder:
        path = mutate(kind, number, Path(folder))
        try:
            subprocess.run([sys.executable, "-c", program, path], timeout=HUNG / 4)
        except subprocess.TimeoutExpired:
            return path.suffix == ".nc"
    return False


def _work(pipe: Any) -> None:
    """Answer which outcome each file has."""
    for name in sorted({name for names, *_ in KINDS.values() for name in names}):
        sound_results(name)
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    while True:
        pipe.send(outcome(*pipe.recv()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as own:
        write_sound_files(Path(own))
        os.environ["XMRCAE_TEST_SOUND_FILES"] = own
        print(outcome(sys.argv[1], int(sys.argv[2]), debug=True))
