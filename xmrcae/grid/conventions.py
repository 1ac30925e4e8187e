"""What CF's conventions and customary names say of a coordinate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cf_xarray  # noqa: F401  (registers .cf)
import xarray as xr

from .units import degrees

Labelled = xr.DataArray | xr.Dataset

#: Degrees of a full circle.
CIRCLE = 360.0


def fields_of(obj: Labelled) -> Sequence[xr.DataArray]:
    """Return the variables of a Dataset, or the one DataArray."""
    return list(obj.data_vars.values()) if isinstance(obj, xr.Dataset) else [obj]


def coords_along(obj: Labelled, dims: Sequence[str]) -> xr.Dataset:
    """Return the coordinates that have no other dimensions than these, scalar ones too."""
    coords = obj.coords.to_dataset()
    return coords[[name for name, c in coords.coords.items() if set(c.dims) <= set(dims)]]


def is_geographic(coordinate: xr.DataArray, kind: str) -> bool:
    """Tell whether a coordinate is a "longitude" or "latitude", by its attributes or its name."""
    attrs = coordinate.attrs.items()
    texts = tuple(sorted((k, v) for k, v in attrs if isinstance(k, str) and isinstance(v, str)))
    return degrees(coordinate.attrs) is not None and kind in _kinds(coordinate.name, texts)


@lru_cache(maxsize=256)
def _kinds(name: Any, attrs: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """Ask cf-xarray what a coordinate is: "longitude", "latitude", both or neither."""
    alone = xr.Dataset(coords={name: ("dimension", [0.0], dict(attrs))})
    found = (alone.cf.coordinates, alone.cf.guess_coord_axis().cf.coordinates)
    return frozenset(kind for table in found for kind, names in table.items() if name in names)


def period(coordinate: xr.DataArray) -> float | None:
    """Return a full circle in the units of a longitude; None for any other coordinate."""
    if not is_geographic(coordinate, "longitude"):
        return None
    return CIRCLE / abs(degrees(coordinate.attrs) or 1.0)
