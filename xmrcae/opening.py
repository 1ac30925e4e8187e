"""Models opened by their path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .io.model_file import read_model
from .model import MrCAE, fitted_model


def open_model(path: Any, *, device: str = "cpu") -> MrCAE:
    """Read a model that was written with :meth:`MrCAE.save`.

    Parameters
    ----------
    path : str or os.PathLike
        File, folder or any URL that fsspec knows.
    device : str, default "cpu"
        Where it is to encode and decode: "cpu", "cuda", or "auto", as in :class:`MrCAE`.

    Returns
    -------
    MrCAE
        On the device that the model was written on, results are equal to the bit.

    Raises
    ------
    ValueError
        If the device cannot be used here.
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
    from .core.training import find_device

    place = find_device(device)
    options, fitted = read_model(path)
    if place.type != "cpu":
        fitted = replace(fitted, codec=fitted.codec.to(place))
    return fitted_model(options, fitted)
