"""Units as attributes spell them: whether two are the same, and what an angle is in degrees."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

#: Spellings of one unit, beside those that differ by a plural "s" or by capitals in a word.
SPELLINGS = {
    "degC": ("C", "celsius", "degcelsius", "centigrade"),
    "degF": ("F", "fahrenheit", "degfahrenheit"),
    "K": ("kelvin", "degk", "degkelvin"),
    "m": ("meter", "metre"),
    "km": ("kilometer", "kilometre"),
    "cm": ("centimeter", "centimetre"),
    "mm": ("millimeter", "millimetre"),
    "s": ("sec", "second"),
    "min": ("minute",),
    "h": ("hr", "hour"),
    "d": ("day",),
    "kg": ("kilogram",),
    "g": ("gram",),
    "Pa": ("pascal",),
    "hPa": ("hectopascal", "mb", "mbar", "millibar"),
    "J": ("joule",),
    "W": ("watt",),
    "degree": ("deg", "°"),
    "radian": ("rad",),
    "%": ("pct", "percent"),
    "1": ("dimensionless", "unitless", "fraction", "none"),
}
NAMES = {other: unit for unit, others in SPELLINGS.items() for other in (unit, *others)}
NAMES |= {name.lower(): unit for name, unit in NAMES.items() if len(name) > 3}

#: One factor of a product: the sign before it, its name, its exponent.
FACTOR = re.compile(r"\s*([/.*·]?)\s*([^\W\d]+|[%°])(?:(?:\*\*|\^)?([-+]?\d+))?")

DEGREES = re.compile(
    r"(?:decimal_)?(?:deg(?:ree)?s?|°)_?"  # with the direction that counts positive, or negative:
    r"(?:(north|east|true|n|e|t)|(south|west|s|w))?"
)
ANGLES = {
    "radian": 180 / math.pi,
    "rad": 180 / math.pi,
    "arcminute": 1 / 60,
    "arcmin": 1 / 60,
    "arcsecond": 1 / 3600,
    "arcsec": 1 / 3600,
}


def unit_text(attrs: Mapping[Any, Any]) -> str | None:
    """Return the attribute `units`, without spaces around it; None where it is no text."""
    units = attrs.get("units")
    return units.strip() if isinstance(units, str) else None


def differ(a: str | None, b: str | None) -> bool:
    """Tell whether two units are known and not the same; "m s-1" and "metres/second" are."""
    return a is not None and b is not None and _factors(a) != _factors(b)


def check_units(fields: Sequence[xr.DataArray], fitted: Sequence[Mapping[Any, Any]]) -> None:
    """Raise a ValueError if a variable is in other units than those that were fitted.

    Parameters
    ----------
    fields : sequence of xarray.DataArray
        The fitted variables.
    fitted : sequence of mapping
        Attributes of each when it was fitted.
    """
    for field, attrs in zip(fields, fitted, strict=True):
        given, expected = unit_text(field.attrs), unit_text(attrs)
        if differ(given, expected):
            raise ValueError(
                f"{field.name or 'the data'} have units={given!r}, the model was fitted to "
                f"{expected!r}: convert them first, or, if both mean the same, make {expected!r} "
                "their attribute `units`"
            )


def degrees(attrs: Mapping[Any, Any]) -> float | None:
    """Return how many degrees one unit of a coordinate is: 1 where its attributes name no unit.

    Degrees to the south and west count negative. None for what is no angle, such as km.
    """
    name = re.sub(r"[\s_]+", "_", (unit_text(attrs) or "degree").lower()).replace("arc_", "arc")
    if match := DEGREES.fullmatch(name):
        return -1.0 if match[2] else 1.0
    return ANGLES.get(name.removesuffix("s"))


def _factors(units: str) -> frozenset[tuple[str, int]] | str:
    """Return the factors of a product with their exponents; the text itself where it is none."""
    text = unicodedata.normalize("NFKC", units.replace("º", "°"))
    text = text.replace("\N{MINUS SIGN}", "-").strip()  # what a raised minus is normalised to
    try:
        text = f"{float(text):g}"
    except ValueError:
        pass
    text = re.sub(r"(?i)(\bdeg(ree)?s?|°)[ _]*(?=[cfk])", "deg", text)
    text = re.sub(r"\bper\b", "/", text)
    text = re.sub(r"^1(?=\s*/)", "", text)
    exponents: dict[str, int] = {}
    position = len(text) if text in ("", "1", "-") else 0
    while position < len(text):
        factor = FACTOR.match(text, position)
        if factor is None:
            return " ".join(text.split())
        sign, name, exponent = factor.groups()
        name = _known(name)
        exponents[name] = exponents.get(name, 0) + int(exponent or 1) * (-1 if sign == "/" else 1)
        position = factor.end()
    return frozenset((name, power) for name, power in exponents.items() if power and name != "1")


def _known(name: str) -> str:
    """Return the symbol of a unit's name; the name itself where `SPELLINGS` does not have it."""
    if name in NAMES or len(name) <= 3:  # capitals tell symbols apart: mPa and MPa
        return NAMES.get(name, name)
    word = name.lower()
    return NAMES.get(word, NAMES.get(word.removesuffix("s"), name))
