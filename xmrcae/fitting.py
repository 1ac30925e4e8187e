"""From data and options to a fitted network: preparation, training, checkpoints."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from .core.checkpoint import Checkpoint
from .fitted import Fitted
from .grid.conventions import Labelled
from .options import Options

if TYPE_CHECKING:
    from .core.training import Trainer

#: Options that a fit may go on without: they change no result.
IMMATERIAL = ("memory", "progress")


class Fit:
    """One fit, from the data to what it leaves.

    Parameters
    ----------
    obj : xarray.DataArray or xarray.Dataset
        The data.
    options : Options
        How to fit.
    start : Fitted, optional
        What to go on from.

    Raises
    ------
    ValueError, TypeError
        For data or options that cannot be fitted, a model that one cannot go on from, and a checkpoint of another fit.
    """

    def __init__(self, obj: Labelled, options: Options, *, start: Fitted | None = None) -> None:
        from .core.training import Trainer, find_device
        from .grid.training_set import Preparation

        device = find_device(options.device)
        self._options = options
        self._checkpoint = None if options.checkpoint is None else Checkpoint(options.checkpoint)
        saved = None if self._checkpoint is None else self._checkpoint.read()
        self._finished = saved is not None and saved["finished"]
        if start is not None:
            _check_start(start, options)
        preparation = Preparation(
            obj, options, memory=None if saved is None else saved["memory"], products=not self._finished,
            start=None if start is None else (start.inference.pyramid, start.standard, start.variables, start.attrs),
        )  # fmt: skip
        self._identity = {
            "options": json.loads(options.to_json()),
            "data": preparation.fingerprint(),
            "start": None if start is None else start.id,
        }
        self._memory = preparation.memory
        self._id = str(uuid.uuid4()) if saved is None else saved["model"]
        if saved is not None:
            _check_same(saved["identity"], self._identity, str(options.checkpoint))
        self._prepared = preparation.outline() if self._finished else preparation.compress()
        levels = preparation.pyramid.levels
        self._trainer = Trainer(
            self._prepared.data, options, channels=options.channels_of(levels), epsilons=preparation.epsilons,
            device=device, progress=None, block_bytes=self._prepared.room,
            start=None if start is None else start.inference.network,
            save=None if self._checkpoint is None else self._save, saved=saved,
        )  # fmt: skip

    def run(self) -> None:
        """Train, or go on training; nothing if the checkpoint is that of a finished fit."""
        if self._finished:
            return
        trainer: Trainer = self._trainer
        with tqdm(desc="MrCAE", unit="epoch", initial=len(trainer.history), disable=not self._options.progress) as bar:
            trainer.progress = bar
            trainer.run()
        self._finished = True
        trainer.finish()
        if self._checkpoint is not None:
            self._save(trainer.state())

    def result(self) -> Fitted:
        """What the fit leaves, finished or interrupted."""
        self._trainer.finish()
        return Fitted.of(
            self._prepared, self._trainer.network, self._trainer.history, self._options.to_json(), self._id,
            report=self._trainer.report,
        )  # fmt: skip

    def _save(self, state: dict[str, Any]) -> None:
        assert self._checkpoint is not None
        about = {
            "identity": self._identity,
            "memory": self._memory,
            "model": self._id,
            "finished": self._finished,
        }
        self._checkpoint.write(about | state)


def _check_start(start: Fitted, options: Options) -> None:
    """Refuse options under which the weights of a model would mean something else."""
    before = {"encoder": "filters"} | json.loads(start.options_json)
    for name in ("encoder", "widening", "restriction", "activation", "center", "scale", "fill"):
        if before[name] != getattr(options, name):
            raise ValueError(
                f"start: the model was fitted with {name}={before[name]!r}, which cannot change to "
                f"{getattr(options, name)!r} when going on from it"
            )


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """Refuse a checkpoint of another fit, naming what differs."""
    what = [
        f"{name}={before['options'].get(name)!r} there and {value!r} here"
        for name, value in now["options"].items()
        if name not in IMMATERIAL and before["options"].get(name) != value
    ]
    what += [f"other {name}" for name, digest in now["data"].items() if before["data"].get(name) != digest]
    if before["start"] != now["start"]:
        what.append("another model to start from")
    if what:
        raise ValueError(
            f"checkpoint={folder!r} is that of another fit ({'; '.join(what)}): choose another folder, or fit the same "
            "data with the same options"
        )
