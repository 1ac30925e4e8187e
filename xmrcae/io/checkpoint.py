"""The state of a fit in a folder, replaced as a whole, so that a fit that was stopped goes on where it was."""

from __future__ import annotations

import io
import os
from typing import Any

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

from .._version import __version__

FORMAT, FORMAT_VERSION = "xmrcae-checkpoint", 1

#: Name of the file in the folder.
NAME = "checkpoint.pt"


class Checkpoint:
    """One file in a folder, of tensors, numbers, texts, lists and dicts: reading it executes nothing.

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
        """The last state; None if there is none.

        Raises
        ------
        ValueError
            If the file there is no checkpoint, or a newer version's.
        """
        import torch

        if not self._filesystem.exists(self._file):
            if self._filesystem.isfile(self._path):
                raise ValueError(f"checkpoint={self.folder!r} is a file: give the path of a folder")
            return None
        try:
            content = torch.load(io.BytesIO(self._filesystem.cat_file(self._file)), weights_only=True)
            known = content["format"] == FORMAT
        except Exception as error:  # whatever torch makes of a file that is something else
            raise ValueError(f"{self._file} is no checkpoint ({error}): choose another folder") from error
        if not known or content["version"] > FORMAT_VERSION:
            raise ValueError(
                f"{self._file} was written by xmrcae {content.get('xmrcae_version')} in a form that {__version__} does "
                "not read: update it, or choose another folder"
            )
        return content

    def write(self, content: dict[str, Any]) -> None:
        """Replace the state; at every moment the folder holds the last one or this one, whole."""
        import torch

        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "version": FORMAT_VERSION, "xmrcae_version": __version__} | content, buffer)
        if not isinstance(self._filesystem, LocalFileSystem):
            self._filesystem.pipe_file(self._file, buffer.getvalue())  # object stores replace an object as a whole
            return
        os.makedirs(self._path, exist_ok=True)
        part = f"{self._file}.part"
        with open(part, "wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self._file)
