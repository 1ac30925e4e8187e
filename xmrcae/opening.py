"""Models opened by their path."""

from __future__ import annotations

from typing import Any

from .io.model_file import read_model
from .model import MrCAE, fitted_model


def open_model(path: Any) -> MrCAE:
    """Read a model that was written with :meth:`MrCAE.save`.

    Parameters
    ----------
    path : str or os.PathLike
        File, folder or any URL that fsspec knows.

    Returns
    -------
    MrCAE
        On the CPU, with results equal to the bit to those of the model that was written.

    Raises
    ------
    ModelFileError
        If there is no such file, it is no model, or it is damaged or unsafe to read.

    Warns
    -----
    UserWarning
        If the file is of version 2, which has no checksums.

    Examples
    --------
    >>> import xmrcae
    >>> xmrcae.open_model("nowhere.nc")
    Traceback (most recent call last):
    xmrcae.errors.ModelFileError: no file nowhere.nc
    """
    return fitted_model(*read_model(path))
