"""Units of attributes: what is the same, and what an angle is in degrees."""

import math
from itertools import combinations

import numpy as np
import pytest

from xmrcae.grid.units import degrees, differ, unit_text

SAME = [
    [
        "degC",
        "Celsius",
        "deg_C",
        "degrees_celsius",
        "degree_Celsius",
        "C",
        " degC ",
        "°C",
        "deg C",
        "degreesC",
    ],
    ["K", "kelvin", "Kelvin", "kelvins", "deg_K"],
    ["m", "meter", "meters", "metre", "Metres"],
    [
        "m s-1",
        "m/s",
        "m s**-1",
        "m.s-1",
        "m  s^-1",
        "m*s-1",
        "m·s⁻¹",
        "meters per second",
        "metre second-1",
    ],
    ["W m-2", "W/m2", "W/m^2", "W m**-2", "watts m⁻²"],
    ["kg m-2 s-1", "kg/m2/s", "s-1 kg m-2"],
    ["s-1", "1/s", "1 / s", "per second"],
    ["%", "percent", "Percent", "pct"],
    ["1", "", "dimensionless", "1.0", " 1 ", "kg kg-1", "-"],
    ["1e-3", "0.001"],
    ["hPa", "mbar", "millibars", "mb"],
    ["m of water equivalent", "m  of water equivalent"],
    ["W/(m2 K)", "W/(m2  K)"],
]


@pytest.mark.parametrize("spellings", SAME, ids=[each[0] for each in SAME])
def test_spellings_of_one_unit_do_not_differ(spellings):
    assert [pair for pair in combinations(spellings, 2) if differ(*pair)] == []


def test_different_units_differ():
    first = [spellings[0] for spellings in SAME]
    others = [
        "degF",
        "km",
        "mPa",
        "MPa",
        "Pa",
        "m2 s-1",
        "m s-2",
        "g kg-1",
        "J",
        "days since 2000-01-01",
    ]
    pairs = list(combinations([*first, *others], 2))
    assert [pair for pair in pairs if not differ(*pair)] == []


@pytest.mark.parametrize("units", [["degC"], np.array(["degC"]), 1, None, [], b"K"])
def test_what_is_no_text_is_no_unit_and_differs_from_none(units):
    assert unit_text({"units": units}) is None
    assert not differ(unit_text({"units": units}), "K") and not differ("K", unit_text({}))


ANGLES = {
    1.0: [
        "degrees_north",
        "degree_E",
        "degrees",
        "deg",
        "degreeN",
        "Degrees",
        " °",
        "",
        "degrees north",
        "decimal degrees",
        "degrees_true",
        None,
        ["degrees_north"],
        1,
    ],
    180 / math.pi: ["radian", "radians", "rad", "Radians"],
    -1.0: ["degrees_west", "degree_S"],
    1 / 60: ["arc minutes", "arcmin"],
    None: ["km", "m", "1", "degC", "degrees_celsius", "grid points"],
}


@pytest.mark.parametrize(
    ("units", "expected"), [(units, value) for value, each in ANGLES.items() for units in each]
)
def test_degrees_of_a_unit(units, expected):
    assert degrees({"units": units}) == expected
    assert degrees({}) == 1.0
