"""Words on pictures: names with units, and where along its dimensions a snapshot lies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr


def text_of(attrs: Mapping[Any, Any], name: str) -> str:
    """Return an attribute that is text, else "": files also hold lists, arrays and numbers."""
    value = attrs.get(name)
    return value if isinstance(value, str) else ""


def label(obj: xr.DataArray, what: str = "") -> str:
    """Return the name of an array, or what it is of, with its units."""
    names = (what, text_of(obj.attrs, "long_name"), text_of(obj.attrs, "standard_name"), obj.name)
    name, units = next((str(name) for name in names if name), "value"), text_of(obj.attrs, "units")
    return f"{name} [{units}]" if units else name


def when(snapshot: xr.DataArray | xr.Dataset, sample: Sequence[str]) -> str:
    """Return the place of a snapshot along its sample dimensions, to go on a title."""
    known = [dim for dim in sample if dim in snapshot.coords]
    return "".join(f", {_place(dim, snapshot[dim].squeeze().values[()])}" for dim in known)


def _place(dim: str, value: Any) -> str:
    """Return a value along one of them; the time of day only if it is not midnight."""
    if isinstance(value, tuple):  # of a stacked dimension
        return ", ".join(_place(dim, part) for part in value)
    if isinstance(value, np.timedelta64 | pd.Timedelta):  # before integers: NumPy's are those too
        return f"{dim} {str(pd.Timedelta(value)).removesuffix(' 00:00:00')}"
    if isinstance(value, int | np.integer):
        return f"{dim} {value}"
    if isinstance(value, float | np.floating):
        return f"{dim} {value:.4g}"
    if isinstance(value, np.datetime64) or hasattr(value, "strftime"):
        return str(value)[:19].replace(" ", "T").removesuffix(":00").removesuffix("T00:00")
    return str(value)[:24]
