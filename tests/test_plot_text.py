"""Attributes that are no text, as files may hold, are left out of labels and break no plot."""

from typing import Any

import numpy as np
import pytest
import xarray as xr
from helpers import make_field
from matplotlib.figure import Figure
from plots import bars, panels

import xmrcae

pytestmark = pytest.mark.usefixtures("no_trace")

QUICK = {"levels": 2, "channels": [[1]], "tolerance": None, "max_epochs": 2, "progress": False}

NO_TEXT = {
    "list": ["degC"],
    "empty list": [],
    "array of text": np.array(["degC", "K"], dtype=object),
    "array of numbers": np.array([1.0, 2.0]),
    "number": 1,
    "zero": 0,
    "None": None,
}


@pytest.fixture(params=NO_TEXT.values(), ids=NO_TEXT)
def odd(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"units": request.param, "long_name": request.param, "standard_name": request.param}


@pytest.fixture
def field(odd: dict[str, Any]) -> xr.DataArray:
    """A field that has none of its words as text, nor have its coordinates."""
    field = make_field(n_times=6, shape=(15, 20))
    coords = {name: field[name].assign_attrs(odd) for name in ("lat", "lon")}
    return field.assign_coords(coords).assign_attrs(odd)


def words(fig: Figure) -> list[str]:
    fig.canvas.draw()
    return [bar.get_xlabel() for bar in bars(fig)]


def test_reconstruction_names_the_variable(field: xr.DataArray) -> None:
    fig = field.mrcae.fit(**QUICK).plot.reconstruction(field[0], projection=None)
    assert words(fig) == ["sst", "reconstruction − data"]
    assert panels(fig)[1].get_title().partition("rmse ")[2][-1].isdigit()
    assert (panels(fig)[0].get_xlabel(), panels(fig)[0].get_ylabel()) == ("lon", "lat")


def test_refinement_names_the_coordinates(field: xr.DataArray) -> None:
    fig = field.mrcae.fit(**QUICK).plot.refinement(level=1, projection=None)
    assert len(words(fig)) == 2
    assert (panels(fig)[-1].get_xlabel(), panels(fig)[-1].get_ylabel()) == ("lon", "lat")


def test_pyramid_names_the_variable(field: xr.DataArray) -> None:
    fig = xmrcae.plot.pyramid(field[:1].mrcae.pyramid(levels=2), projection=None)
    assert words(fig) == ["sst"]
    assert (panels(fig)[0].get_xlabel(), panels(fig)[0].get_ylabel()) == ("lon", "lat")


def test_maps_are_drawn(field: xr.DataArray) -> None:
    fig = xmrcae.plot.pyramid(field[:1].mrcae.pyramid(levels=2))
    assert words(fig) == ["sst"]


def test_errors_name_what_they_are_of(odd: dict[str, Any]) -> None:
    table = {name: ("level", [2.0, 1.0], odd) for name in ("rmse_global", "encoding_size")}
    score = xr.Dataset(table | {"ratio": ("level", [8.0, 4.0])}, {"level": [0, 1]})
    fig = xmrcae.plot.errors([score, score])
    assert words(fig) == []
    assert fig.axes[0].get_ylabel() == "rmse_global"


@pytest.mark.parametrize(("units", "end"), [("1", ""), ("1e-3", " 1e-3"), ("10 m", " 10 m")])
def test_an_error_without_dimension_has_no_unit(units: str, end: str) -> None:
    field = make_field(n_times=6, shape=(15, 20)).assign_attrs(units=units)
    fig = field.mrcae.fit(**QUICK).plot.reconstruction(field[0])
    number = panels(fig)[1].get_title().partition("rmse ")[2]
    assert number.endswith(end) and float(number.removesuffix(end)) > 0
