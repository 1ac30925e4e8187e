"""From data and options to a fitted network: passes, training, checkpoints."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from .defaults import compact_encoder
from .errors import ModelFileError
from .fitted import Fitted, history_table
from .grid.blocks import HOST, Backend
from .grid.compression import FirstPass
from .grid.conventions import Labelled
from .memory import bounded_memory, give_back_memory
from .options import Options, renamed
from .passes import fingerprint, first_pass, second_pass

#: Options that may be others when a fit goes on: they change only how sums are rounded.
IMMATERIAL = ("memory", "device", "progress")


def fit(
    obj: Labelled, options: Options, start: Fitted | None = None
) -> tuple[Fitted | None, BaseException | None]:
    """Fit a network, or go on with the fit of a checkpoint.

    Parameters
    ----------
    obj : xarray.DataArray or xarray.Dataset
        The data.
    options : Options
        How to fit.
    start : Fitted, optional
        What to go on from.

    Returns
    -------
    fitted : Fitted or None
        What was learnt; None if it cannot be used.
    stopped : BaseException or None
        What ended the training before its time.

    Raises
    ------
    ValueError, TypeError
        For data or options that cannot be fitted, a model that one cannot go on from, and a
        checkpoint of another fit: all before training.
    """
    with bounded_memory() if options.memory else contextlib.nullcontext():
        return _fit(obj, options, start)


def _fit(
    obj: Labelled, options: Options, start: Fitted | None
) -> tuple[Fitted | None, BaseException | None]:
    """Run both passes over the data, and train."""
    from .core.checkpoint import Checkpoint
    from .core.projection import from_state
    from .core.training import find_device

    device = find_device(options.device)
    checkpoint = None if options.checkpoint is None else Checkpoint(options.checkpoint)
    saved: dict[str, Any] = (None if checkpoint is None else checkpoint.read()) or {}
    sound = checkpoint.sound if checkpoint is not None and saved else contextlib.nullcontext
    ended = bool(saved.get("finished"))
    _check_start(start, options)
    first = first_pass(
        obj,
        options,
        backend=_backend(device),
        start=start,
        memory=saved.get("memory"),
        decompose=not ended,
    )
    options = _with_encoder(options, first, start)
    identity = _identity(first, options, start)
    if saved:
        with sound():
            _check_same(saved["identity"], identity, str(options.checkpoint))
    model_id = saved.get("model") or str(uuid.uuid4())
    make_fitted = _fitted_maker(first, options, model_id)
    if ended:
        with sound():
            network = from_state(saved["network"], device)
            return make_fitted(network, saved["history"], saved["report"], partial=False), None
    save = _saver(checkpoint, identity=identity, memory=first.memory, model=model_id)
    make_trainer = _trainer_maker(
        first, options, start, device=device, save=save, saved=saved or None
    )
    data = second_pass(first, options)
    del first  # and with it as many bytes as some samples take
    give_back_memory()
    with sound():
        trainer = make_trainer(data, options)
    del data  # the trainer has what it needs of them
    give_back_memory()
    return _train(trainer, options, make_fitted, save)


def _backend(device: Any) -> Backend:
    """Return what the passes over the data compute with on a device."""
    if device.type == "cpu":
        return HOST
    from .core.samples import room

    return Backend("torch", device, room(device))


def _trainer_maker(
    first: FirstPass, options: Options, start: Fitted | None, **about: Any
) -> Callable[..., Any]:
    """Return what makes a trainer of the samples; it does not hold the first pass, nor its data."""
    from .core.training import Trainer

    return functools.partial(
        Trainer,
        channels=options.channels_of(first.description.pyramid.levels),
        epsilons=first.epsilons(options),
        progress=None,
        memory=first.memory,
        start=None if start is None else start.codec.network,
        **about,
    )


def _saver(checkpoint: Any, **about: Any) -> Callable[..., None] | None:
    """Return what writes states to a checkpoint, with what they are compared by.

    It refuses to replace the state of another fit that writes there at the same time.
    """

    def save(state: dict[str, Any], *, finished: bool = False) -> None:
        if (other := checkpoint.of_others()) is not None:
            _check_same(other["identity"], about["identity"], checkpoint.folder)
        checkpoint.write(about | {"finished": finished} | state)

    return None if checkpoint is None else save


def _with_encoder(options: Options, first: FirstPass, start: Fitted | None) -> Options:
    """Return options that name an encoder in place of "auto"."""
    if options.encoder != "auto":
        return options
    if start is not None:
        return replace(options, encoder=start.encoder)
    return replace(options, encoder=compact_encoder(math.prod(first.array.shape[1:])))


def _identity(first: FirstPass, options: Options, start: Fitted | None) -> dict[str, Any]:
    """Return what a checkpoint is compared by."""
    return {
        "options": json.loads(options.to_json()),
        "data": fingerprint(first),
        "start": None if start is None else start.id,
    }


def _fitted_maker(first: FirstPass, options: Options, model_id: str) -> Callable[..., Fitted]:
    """Return what makes a `Fitted` of a network, its history and its report."""
    # Not `first` itself, which holds the data.
    about, standard, split = first.description, first.standard, first.split
    dtype = np.dtype(first.array.dtype)

    def make_fitted(network: Any, history: Any, report: Any, *, partial: bool) -> Fitted:
        from .codec import Codec

        return Fitted(
            labels=about.labels,
            codec=Codec(network, about.pyramid, standard, model_id),
            history=history_table(history, report),
            split=split,
            dtype=dtype,
            options_json=options.to_json(),
            id=model_id,
            partial=partial,
        )

    return make_fitted


def _train(
    trainer: Any,
    options: Options,
    make_fitted: Callable[..., Fitted],
    save: Callable[..., None] | None,
) -> tuple[Fitted | None, BaseException | None]:
    """Run Algorithm 3.1, or what a checkpoint leaves of it, to its end or to an interruption."""
    stopped: BaseException | None = None
    bar = tqdm(
        desc="MrCAE", unit="epoch", initial=len(trainer.history), disable=not options.progress
    )
    try:
        with bar:
            trainer.progress = bar
            trainer.run()
        trainer.finish()
        if save is not None:
            save(trainer.state(), finished=True)
    except BaseException as error:  # raised again by the caller, who keeps what was learnt
        stopped = error
    try:
        trainer.finish()
        partial = stopped is not None
        fitted = make_fitted(trainer.network, trainer.history, trainer.report, partial=partial)
        return fitted, stopped
    except Exception:  # not to hide the error that ended the training
        if stopped is None:
            raise
        return None, stopped


def _check_start(start: Fitted | None, options: Options) -> None:
    """Refuse options under which the weights of a model would mean something else."""
    if start is None:
        return
    before = json.loads(start.options_json) | {"encoder": start.encoder}
    for name in ("encoder", "widening", "restriction", "activation", "center", "scale", "fill"):
        if getattr(options, name) not in (before[name], "auto"):
            raise ValueError(
                f"start: the model was fitted with {name}={before[name]!r}, which cannot change to "
                f"{getattr(options, name)!r} when going on from it"
            )


def _check_same(before: Mapping[str, Any], now: Mapping[str, Any], folder: str) -> None:
    """Refuse a checkpoint of another fit, naming what differs."""
    options = renamed(before["options"])
    what = [
        f"{name}={options.get(name)!r} there and {value!r} here"
        for name, value in now["options"].items()
        if name not in IMMATERIAL and options.get(name) != value
    ]
    data = before["data"]
    what += [f"other {name}" for name, digest in now["data"].items() if data.get(name) != digest]
    if before["start"] != now["start"]:
        what.append("another model to start from")
    if what:
        raise ModelFileError(
            f"checkpoint is that of another fit ({'; '.join(what)}): choose another folder than "
            f"{folder}, or fit the same data with the same options"
        )
