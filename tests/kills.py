"""Calls that are stopped at one moment, each in a process that is forked with all modules imported."""

import faulthandler
import multiprocessing
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import dask
import numpy as np
import torch
import xarray as xr
from dask.base import tokenize
from helpers import make_field

import xmrcae
from xmrcae.cli import main

#: What changes files, and which argument is the path.
CHANGES = {"open": 0, "os.mkdir": 0, "os.remove": 0, "os.rename": 1, "os.rmdir": 0}

#: Flags of a file that is opened to be written.
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

#: Seconds after which a call that got Ctrl-C and has not ended gets it again: a library that was
#: interrupted while it took a lock, or started a thread, waits for it.
PATIENCE = 30.0

#: Seconds after which a call is ended that does not end; where it is then is in what it printed.
HUNG = 120.0

#: What is imported once; a process that is forked from there begins with its call.
PRELOADED = [
    "torch._dynamo", "netCDF4", "zarr", "distributed", "dask.array", "tqdm.dask", "pint",
    "kerchunk.xarray_backend", "fsspec.asyn", "matplotlib.pyplot", "PIL.PngImagePlugin",
    "cartopy.mpl.geoaxes", "xmrcae.demo", "xmrcae.plot.geographic", "xmrcae.cli.inputs",
    "xmrcae.cli.reading", "xmrcae.cli.writing", "xmrcae.archive.writer", "xmrcae.core.training",
    "xmrcae.core.checkpoint", "xmrcae.codes",
]  # fmt: skip


class Moment(NamedTuple):
    """When a call is stopped, and how.

    Attributes
    ----------
    stop : signal.Signals
        SIGKILL, or SIGINT, as Ctrl-C sends it.
    change : int, optional
        Before which of its changes of files, counted from 0.
    seconds : float, optional
        After how much time of the processor, wherever the call is then.
    """

    stop: signal.Signals
    change: int | None = None
    seconds: float | None = None


class Ended(NamedTuple):
    """How a call ended.

    Attributes
    ----------
    result : object
        What it returned; the exception that it raised.
    changes : list of str
        The files and folders that it changed, in order, by their paths below the folder.
    seconds : float
        The processor's time.
    disturbed : list of str
        What of the process is not as it was before.
    said : str
        What it printed.
    """

    result: Any
    changes: list[str]
    seconds: float
    disturbed: list[str]
    said: str


def run(call: Callable[[], Any], folder: Path, moment: Moment | None = None) -> Ended | None:
    """Do a call in a folder, in a process of its own; None if that was killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    pipe, end = context.Pipe(duplex=False)
    log = folder.with_suffix(".log")
    process = context.Process(target=_child, args=(end, call, folder, log, moment))
    process.start()
    end.close()
    stopped = moment is not None and moment.stop == signal.SIGINT
    try:
        if stopped and not pipe.poll(PATIENCE):
            _stop_again(process)
        ended = pipe.recv()
    except EOFError:
        ended = None
    process.join(PATIENCE if stopped else None)
    if process.exitcode is None:
        _stop_again(process)
        process.join()
    pipe.close()
    if ended is None:
        killed = -signal.SIGKILL, -signal.SIGPROF
        assert process.exitcode in killed, (process.exitcode, log.read_text())
        return None
    return ended._replace(said=log.read_text())


def _stop_again(process: Any) -> None:
    """Send Ctrl-C once more."""
    print("a second Ctrl-C was needed")
    os.kill(process.pid, signal.SIGINT)


def _child(
    pipe: Any, call: Callable[[], Any], folder: Path, log: Path, moment: Moment | None
) -> None:
    os.chdir(folder)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.dump_traceback_later(HUNG, exit=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what shells put behind
    torch.set_num_threads(1)
    before, start = surroundings(), time.process_time()
    changes = Changes(folder, moment)
    try:
        sys.addaudithook(changes)
        if moment is not None and moment.seconds is not None:
            _stop_after(moment.seconds, moment.stop)
        result = call()
    except BaseException as error:
        result = f"{type(error).__name__}: {error}"
        if not isinstance(error, KeyboardInterrupt):
            traceback.print_exc()
    signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = time.process_time() - start
    after = surroundings()
    disturbed = [name for name, value in before.items() if after[name] != value]
    sys.stdout.flush()
    sys.stderr.flush()
    pipe.send(Ended(result, changes.paths, seconds, disturbed, ""))


def _stop_after(seconds: float, stop: signal.Signals) -> None:
    """Stop the process after some time of the processor, which no other process can delay.

    Left to itself the signal of this clock ends a process as SIGKILL does, in the middle of
    anything.
    """
    if stop == signal.SIGINT:
        signal.signal(signal.SIGPROF, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_PROF, max(seconds, 1e-6))


class Changes:
    """A hook that notes what files a process changes in a folder, and may stop it before one."""

    def __init__(self, folder: Path, moment: Moment | None) -> None:
        self.folder, self.moment = str(folder), moment
        self.paths: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Take note of an event of Python's, before it happens."""
        if event not in CHANGES or (event == "open" and not args[2] & WRITES):
            return
        path = args[CHANGES[event]]
        path = "" if isinstance(path, int) else os.path.abspath(os.fsdecode(path))
        if not path.startswith(self.folder):
            return
        self.paths.append(os.path.relpath(path, self.folder))
        if self.moment is not None and self.moment.change == len(self.paths) - 1:
            if self.moment.stop == signal.SIGKILL:
                _cut(event, args)
            os.kill(os.getpid(), self.moment.stop)


def _cut(event: str, args: tuple[Any, ...]) -> None:
    """Leave a file as it is in the middle of being written: cut, or half of it."""
    if event == "open" and args[2] & os.O_TRUNC and os.path.isfile(args[0]):
        os.truncate(args[0], 0)
    if event == "os.rename" and os.path.isfile(args[0]):
        os.truncate(args[0], os.path.getsize(args[0]) // 2)


def surroundings() -> dict[str, Any]:
    """Return what a call must leave as it was."""
    signals = signal.valid_signals() - {signal.SIGPROF}
    return {
        "threads": torch.get_num_threads(),
        "determinism": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "torch's random state": torch.get_rng_state().numpy().tobytes(),
        "numpy's random state": np.random.get_state()[1].tobytes(),  # noqa: NPY002
        "random state": random.getstate(),
        "signals": [signal.getsignal(each) for each in sorted(signals)],
        "warnings": [each for each in warnings.filters if "decode_timedelta" not in str(each)],
        "numpy's errors": np.geterr(),
        "xarray's options": dict(xr.get_options()),
        "dask's options": dict(dask.config.config),
        "folder": os.getcwd(),
    }


# Calls, done in a folder that `write_givens` has filled

FIT: dict[str, Any] = {
    "levels": 2, "channels": [[1]], "tolerance": 0.3, "max_epochs": 12, "progress": False,
}  # fmt: skip
SHORT = ("--options", "levels=2 channels=[[1]] tolerance=0.3 max_epochs=4")

#: What the data are of: ten months, and five that are appended.
MONTHS = make_field(15, (12, 16))


def write_givens() -> None:
    """Write data, models, an archive, and outputs of earlier calls."""
    field, later = MONTHS[:10], MONTHS[10:]
    field.to_netcdf("field.nc")
    later.to_netcdf("later.nc")
    model, other = field.mrcae.fit(**FIT), field.mrcae.fit(**FIT | {"max_epochs": 1})
    model.save("model.nc")
    for name in ("saved.nc", "saved.zarr"):
        other.save(name)
    model.to_archive(field, "sst.mrcae.zarr", max_error=0.1, rows_per_block=4, progress=False)
    for call in (
        ("decode", "sst.mrcae.zarr", "out.nc", "--level", "0"),
        ("decode", "sst.mrcae.zarr", "out.zarr", "--level", "0"),
        ("plot", "sst.mrcae.zarr", "out.png", "--time", "2001-03"),
        ("demo", "--data", "field.nc", "--output", "demo", *SHORT, "--options", "max_epochs=1"),
    ):
        assert command(*call) == 0, call


def command(*arguments: str) -> int:
    """Do what the command line does."""
    return main(arguments)


def fit() -> str:
    """Fit with a checkpoint; if that is interrupted, what was learnt can be used."""
    field, model = xr.load_dataarray("field.nc"), xmrcae.MrCAE(**FIT, checkpoint="state")
    try:
        model.fit(field)
    except KeyboardInterrupt:
        if model._fitted is not None:
            assert model.partial and model.reconstruct(field).notnull().any()
        raise
    return learnt(model)


def learnt(model: xmrcae.MrCAE) -> str:
    """Return a digest of weights, masks and history of a model."""
    history = model.history.drop_vars("seconds")
    maps = [model.refinement_map(level=level) for level in range(model.levels)]
    weights = [each.detach().cpu().numpy() for each in model.fitted.codec.network.parameters()]
    return tokenize(weights, *(each.values for each in (*maps, *history.variables.values())))


def save(name: str) -> None:
    """Write a model over another."""
    xmrcae.open_model("model.nc").save(name, overwrite=True)


def write() -> None:
    """Write an archive."""
    model, field = xmrcae.open_model("model.nc"), xr.load_dataarray("field.nc")
    model.to_archive(field, "new.mrcae.zarr", max_error=0.1, rows_per_block=4, progress=False)


def append() -> None:
    """Append to an archive."""
    archive = xmrcae.open_archive("sst.mrcae.zarr")
    archive.append(xr.load_dataarray("later.nc"), progress=False)
