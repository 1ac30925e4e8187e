"""The state of a fit in a folder, replaced as a whole: a stopped fit goes on where it was."""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import fsspec.core
import numpy as np
import torch
from fsspec.implementations.local import LocalFileSystem

from .._version import __version__
from ..errors import ModelFileError
from .state import NetworkState

FORMAT, FORMAT_VERSION = "xmrcae-checkpoint", 2

#: Name of the file in the folder.
NAME = "checkpoint.pt"

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


class Checkpoint:
    """One file in a folder, of tensors, numbers, texts, lists and dicts; reading executes nothing.

    Parameters
    ----------
    folder : str or os.PathLike
        Created with the first state; any URL that fsspec knows.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self._filesystem, path = fsspec.core.url_to_fs(self.folder)
        self._path = path.rstrip("/")
        self._file = f"{self._path}/{NAME}"

    def read(self) -> dict[str, Any] | None:
        """Return the last state; None if there is none.

        Raises
        ------
        ValueError
            If the folder is a file.
        ModelFileError
            If the file there is no checkpoint, damaged, or of another form.
        """
        if not self._filesystem.exists(self._file):
            if self._filesystem.isfile(self._path):
                raise ValueError(f"checkpoint={self.folder!r} is a file: give the path of a folder")
            return None
        try:
            file = io.BytesIO(self._filesystem.cat_file(self._file))
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
            for name, kinds in KINDS.items():
                if not isinstance(content[name], kinds):
                    raise TypeError(f"{name} is of type {type(content[name]).__name__}")
            if not all(
                isinstance(n, int | float) for row in content["history"] for n in row.values()
            ):
                raise TypeError("the history does not consist of numbers")
            network = _converted(content["network"], torch.Tensor, torch.Tensor.numpy)
            state = NetworkState(**network)
            if not all(np.isfinite(weights).all() for weights in state.weights.values()):
                raise ValueError("weights are NaN or infinite")
            return content | {"network": state}

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
        if not isinstance(self._filesystem, LocalFileSystem):
            # object stores replace an object as a whole
            self._filesystem.pipe_file(self._file, buffer.getvalue())
            return
        os.makedirs(self._path, exist_ok=True)
        part = f"{self._file}.part"
        try:
            with open(part, "wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, self._file)
        except BaseException:  # Ctrl-C too
            with contextlib.suppress(FileNotFoundError):
                os.remove(part)
            raise


def _converted(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """Apply `function` to everything of a kind in a nest of lists and dicts."""
    if isinstance(value, dict):
        return {name: _converted(each, kind, function) for name, each in value.items()}
    if isinstance(value, list):
        return [_converted(each, kind, function) for each in value]
    return function(value) if isinstance(value, kind) else value
