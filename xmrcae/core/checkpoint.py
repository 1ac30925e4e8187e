"""The state of a fit in a folder, replaced as a whole: a stopped fit goes on where it was."""

from __future__ import annotations

import contextlib
import io
import math
import os
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem

from .._version import __version__
from ..errors import ModelFileError
from ..paths import file_system
from ..storage import in_storage, is_there, write_whole
from .state import NetworkState, check_state

FORMAT, FORMAT_VERSION = "xmrcae-checkpoint", 3

#: Name of the file in the folder.
NAME = "checkpoint.pt"

#: What to do where a fit cannot keep its state.
WAY_OUT = "The state before is kept: once that is mended, the same fit goes on from it"

#: What a state holds beside its network.
KINDS: dict[str, Any] = {
    **dict.fromkeys(("identity", "report"), dict),
    **dict.fromkeys(("memory", "seconds"), int | float),
    **dict.fromkeys(("level", "group"), int),
    "finished": bool,
    "model": str,
    "history": list,
    "stage": dict | None,
    "generator": torch.Tensor,
}

#: What it holds of a stage that goes on.
STAGE: dict[str, Any] = {
    **dict.fromkeys(("begin", "kept"), torch.Tensor),
    **dict.fromkeys(("start", "best"), int | float),
    "epoch": int,
    "values": list,
    "solver": dict,
}


class Checkpoint:
    """One file in a folder, of tensors, numbers, texts, lists and dicts; reading executes nothing.

    Parameters
    ----------
    folder : str or os.PathLike
        Created with the first state; any URL that fsspec knows.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self._filesystem, path = file_system(self.folder)
        self._path = path.rstrip("/")
        self._file = f"{self._path}/{NAME}"
        self._seen: str | None = None  # what tells the file that was last read or written here
        self._part: Path | None = None  # where this fit writes first

    def read(self) -> dict[str, Any] | None:
        """Return the last state; None if there is none.

        Raises
        ------
        ValueError
            If the folder is a file.
        ModelFileError
            If the file there is no checkpoint, damaged, or of another form.
        StorageError
            If it cannot be read.
        """
        with in_storage(
            f"the checkpoint in {self.folder} could not be read", "It may be sound: try again"
        ):
            self._seen = self._mark()
            if self._seen is None:
                if not self._filesystem.isfile(self._path):
                    return None
                raise ValueError(f"checkpoint={self.folder!r} is a file: give the path of a folder")
            data = self._filesystem.cat_file(self._file)
        try:
            file = io.BytesIO(data)
            if damaged := zipfile.ZipFile(file).testzip():  # torch does not look at checksums
                raise ValueError(f"{damaged} is damaged")
            file.seek(0)
            content = torch.load(file, weights_only=True)
            known = content["format"] == FORMAT and content["version"] == FORMAT_VERSION
        except Exception as error:  # whatever torch makes of a file that is something else
            raise ModelFileError(
                f"{self._file} is no checkpoint ({error}): choose another folder"
            ) from error
        if not known:
            raise ModelFileError(
                f"{self._file} was written by xmrcae {content.get('xmrcae_version')} in a form "
                f"that {__version__} does not read: use that version, or choose another folder"
            )
        with self.sound():
            _check_types(content, KINDS)
            if content["stage"] is not None:
                _check_types(content["stage"], STAGE)
            _check_numbers(content)
            network = _converted(content["network"], torch.Tensor, torch.Tensor.numpy)
            state = NetworkState(**network)
            check_state(state)
            return content | {"network": state}

    def of_others(self) -> dict[str, Any] | None:
        """Return the state that another process has written since this one read or wrote, if any.

        Raises
        ------
        ModelFileError, StorageError
            As `read`.
        """
        with in_storage(f"the checkpoint in {self.folder} could not be looked at", WAY_OUT):
            same = self._mark() == self._seen
        return None if same else self.read()

    def _mark(self) -> str | None:
        """Return what tells the file there from those that replace it; None if there is none."""
        self._filesystem.invalidate_cache()
        there = is_there(self._filesystem, self._file)
        return self._filesystem.ukey(self._file) if there else None

    @contextlib.contextmanager
    def sound(self) -> Iterator[None]:
        """Turn the errors of a state that is something else into a ModelFileError."""
        try:
            yield
        except ModelFileError:
            raise
        except Exception as error:
            raise ModelFileError(
                f"{self._file} does not hold the state of this fit ({error}): choose another folder"
            ) from error

    def write(self, content: dict[str, Any]) -> None:
        """Replace the state; at every moment the folder holds the last one or this one, whole.

        Parameters
        ----------
        content : dict
            Of tensors, numbers, texts, lists and dicts, and a :class:`NetworkState` as "network".
        """
        network = _converted(vars(content["network"]), np.ndarray, torch.as_tensor)
        about = {"format": FORMAT, "version": FORMAT_VERSION, "xmrcae_version": __version__}
        buffer = io.BytesIO()
        torch.save(content | about | {"network": network}, buffer)
        with in_storage(f"the checkpoint in {self.folder} could not be written", WAY_OUT):
            self._replace(buffer.getbuffer())
            self._seen = self._mark()

    def _replace(self, data: memoryview) -> None:
        """Replace the file."""
        if not isinstance(self._filesystem, LocalFileSystem):
            # object stores replace an object as a whole
            self._filesystem.pipe_file(self._file, bytes(data))
            return
        file = Path(self._file)
        file.parent.mkdir(parents=True, exist_ok=True)
        if self._part is None:
            for left in file.parent.glob(f"{NAME}.*part"):  # by fits that were killed
                left.unlink()
            # Fits in two processes have a part each, or one would put the other's half in place.
            self._part = file.with_name(f"{NAME}.{uuid.uuid4().hex}.part")
        try:
            write_whole(file, data, part=self._part, durable=True)
        except FileNotFoundError:  # another fit, which has begun by now, has removed the part
            write_whole(file, data, part=self._part, durable=True)


def _check_types(content: dict[str, Any], allowed: dict[str, Any]) -> None:
    """Raise a TypeError or KeyError unless everything is there and of its type."""
    for name, kinds in allowed.items():
        if not isinstance(content[name], kinds):
            raise TypeError(f"{name} is of type {type(content[name]).__name__}")


def _check_numbers(content: dict[str, Any]) -> None:
    """Raise an error unless all numbers of a state are ones that a fit could have left."""
    for name, least in {"level": 0, "group": 0, "memory": 1, "seconds": 0}.items():
        if not (math.isfinite(content[name]) and content[name] >= least):
            raise ValueError(f"{name} is {content[name]}")
    for row in content["history"]:
        if not all(isinstance(number, int | float) for number in row.values()):
            raise TypeError("the history does not consist of numbers")
        if not all(float(row[name]).is_integer() for name in ("level", "group")):
            raise ValueError("a level or group of the history is no whole number")


def _converted(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """Apply `function` to everything of a kind in a nest of lists and dicts."""
    if isinstance(value, dict):
        return {name: _converted(each, kind, function) for name, each in value.items()}
    if isinstance(value, list):
        return [_converted(each, kind, function) for each in value]
    return function(value) if isinstance(value, kind) else value
