"""All that is known of labelled data without reading a value."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from ..options import Options
from .conventions import Labelled, coords_along, fields_of
from .coordinates import Grid
from .dimensions import find_dimensions, fittable_variables
from .layout import Layout
from .pyramid import Pyramid
from .units import check_units
from .values import plain_numbers

log = logging.getLogger("xmrcae")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What the fitted data are called.

    Attributes
    ----------
    variables : list
        Names of the variables; [None] for a DataArray without a name.
    attrs : list of dict
        Their attributes.
    is_dataset : bool
        Whether they came as a Dataset.
    dims : tuple of str
        Dimensions in their order.
    sample : tuple of str
        Those that snapshots lie along.
    """

    variables: list[Any]
    attrs: list[dict[str, Any]]
    is_dataset: bool
    dims: tuple[str, ...]
    sample: tuple[str, ...]

    def of(self, obj: Labelled) -> Labelled:
        """Return the variables of these names in new data, in this order, as plain numbers.

        Raises
        ------
        TypeError, ValueError
            If `obj` is of another kind, lacks a variable, or has it in other units.
        """
        if isinstance(obj, xr.DataArray):
            if self.is_dataset:
                raise TypeError(
                    f"the model was fitted to a Dataset of {', '.join(self.variables)}; a "
                    "DataArray was given"
                )
        elif not isinstance(obj, xr.Dataset):
            raise TypeError(f"a DataArray or a Dataset is needed, not {type(obj).__name__}")
        else:
            missing = [name for name in self.variables if name not in obj.data_vars]
            if missing:
                raise ValueError(
                    f"the Dataset has no variable {', '.join(map(repr, missing))}, to which the "
                    "model was fitted"
                )
            obj = obj[self.variables if self.is_dataset else self.variables[0]]
        for field in fields_of(obj):
            _check_numeric(field)
        check_units(fields_of(obj), self.attrs)
        return plain_numbers(obj)


@dataclass(frozen=True, kw_only=True)
class Description:
    """How data lie on a grid and its levels.

    Attributes
    ----------
    labels : Labels
        What they are called.
    pyramid : Pyramid
        Grid and levels.
    layout : Layout
        Where rows and columns lie in the data.
    samples : xarray.DataArray
        The position of each snapshot, over the sample dimensions and with their coordinates.
    """

    labels: Labels
    pyramid: Pyramid
    layout: Layout
    samples: xr.DataArray


def fittable(obj: Labelled, options: Options) -> Labelled:
    """Return data as plain numbers, without the variables of a Dataset that cannot be fitted.

    The log names each variable that is passed over.

    Raises
    ------
    TypeError, ValueError
        If nothing can be fitted.
    """
    if not isinstance(obj, Labelled):
        raise TypeError(f"fit takes a DataArray or a Dataset, not {type(obj).__name__}")
    if isinstance(obj, xr.DataArray):
        _check_numeric(obj)
        return plain_numbers(obj)
    suitable = fittable_variables(obj, horizontal=options.horizontal, sample=options.sample)
    for name in obj.data_vars:
        if name not in suitable:
            log.info(
                "variable %r is passed over: bounds, not numeric, or not on a sample and two "
                "horizontal dimensions",
                name,
            )
    if not suitable:
        for variable in obj.data_vars.values():
            _check_numeric(variable)
        find_dimensions(obj, horizontal=options.horizontal, sample=options.sample)
        names = ", ".join(map(str, obj.data_vars))
        raise ValueError(
            f"no variable of the Dataset has a sample and two horizontal dimensions: {names}"
        )
    return plain_numbers(obj[suitable])


def _check_numeric(variable: xr.DataArray) -> None:
    if variable.dtype.kind not in "iuf":
        raise TypeError(
            f"{variable.name or 'the data'} are of type {variable.dtype}: real numbers are needed; "
            "fit real and imaginary parts as two variables, or convert with .astype"
        )


def describe(obj: Labelled, options: Options, *, start: Pyramid | None = None) -> Description:
    """Find dimensions, grid, levels and labels of data.

    Parameters
    ----------
    obj : xarray.DataArray or xarray.Dataset
        As `fittable` gives them. Of lazy data only coordinates are read.
    options : Options
        `horizontal`, `sample`, `periodic`, `levels` and `restriction`.
    start : Pyramid, optional
        One whose levels are to be the coarsest.

    Raises
    ------
    ValueError
        If dimensions are not found, or too short for the levels.
    """
    dims = find_dimensions(obj, horizontal=options.horizontal, sample=options.sample)
    grid = Grid.of(obj, dims, periodic=options.periodic)
    if start is None:
        pyramid = Pyramid.of(grid, levels=options.levels, restriction=options.restriction)
    else:
        pyramid = start.refined(grid, levels=options.levels)
    layout = Layout.of(obj, dims, grid)
    fields = fields_of(obj)
    labels = Labels(
        variables=[field.name for field in fields],
        attrs=[dict(field.attrs) for field in fields],
        is_dataset=isinstance(obj, xr.Dataset),
        dims=layout.order,
        sample=dims.sample,
    )
    samples = _positions(layout, dims.sample)
    return Description(labels=labels, pyramid=pyramid, layout=layout, samples=samples)


def _positions(layout: Layout, sample: tuple[str, ...]) -> xr.DataArray:
    """Return the position of each snapshot, with the coordinates along the sample dimensions."""
    sizes = dict(zip(layout.dims.sample, layout.sample_shape, strict=True))
    shape = [sizes[dim] for dim in sample]
    coords = coords_along(layout.sample_coords, sample).coords
    return xr.DataArray(np.arange(np.prod(shape, dtype=int)).reshape(shape), coords, sample)
