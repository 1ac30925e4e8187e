"""What all of an archive's rooms share: its name, its version, its errors, its JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

#: Key of the root's attributes under which an archive describes itself.
ABOUT = "xmrcae_archive"

#: Written into every archive; one of a higher version is refused.
FORMAT_VERSION = 1

#: The packages that archives need beside those of the package itself, with their least versions.
#: Before 3.1.4, zarr left the name of pcodec to numcodecs, which now leaves it to zarr;
#: before 0.3.6, pcodec does not read what later versions write.
NEEDED = {"zarr": (3, 1, 4), "numcodecs": (0, 16, 1), "pcodec": (0, 3, 6)}

#: What names the convention in an archive's attributes.
CONVENTION = {
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v1/README.md",
    "uuid": "d35379db-88df-4056-af3a-620245f8e347",
    "name": "multiscales",
    "description": "Multiscale layout of zarr datasets",
}


class ArchiveError(ValueError):
    """An archive that is damaged, foreign or too new, or data that it cannot take."""


class ArchiveFault(ArchiveError):
    """An archive that is damaged, or that another process writes: no error of the caller's."""


@contextmanager
def sound() -> Iterator[None]:
    """Turn the errors of content that contradicts itself into an ArchiveFault; a decorator too.

    Checksums tell damage, not intent: an archive may be made to have them. Not to be used around
    what users give.
    """
    try:
        yield
    except (ArchiveError, OSError, MemoryError):
        raise
    except Exception as error:  # whatever is made of content that is something else
        raise ArchiveFault(f"the archive is damaged: {type(error).__name__}: {error}") from error


@cache
def require() -> None:
    """Check that what archives need is installed; once it is, it stays so.

    Raises
    ------
    ImportError
        Naming the packages that are missing or too old.
    """
    lacking = [
        f"{name}>={'.'.join(map(str, least))}"
        for name, least in NEEDED.items()
        if _version(name) < least
    ]
    if lacking:
        raise ImportError(
            f"archives need {', '.join(lacking)}: install them with pip install 'xmrcae[archive]'"
        )


def _version(name: str) -> tuple[int, ...]:
    """Return the numbers of a package's version, as of a release; nothing if it is not installed.

    A pre-release has those of the release that it comes before.
    """
    try:
        release = re.split(r"[^\d.]", version(name))[0]
    except PackageNotFoundError:
        return ()
    return tuple(map(int, re.findall(r"\d+", release)))


def multiscales(levels: int) -> dict[str, Any]:
    """Return the attributes by which other tools list levels: convention `multiscales`, version 1.

    A level is every second point of the next finer one, from the second on.
    """
    layout: list[dict[str, Any]] = [
        {"asset": f"level_{levels - 1}", "transform": {"scale": [1.0, 1.0]}}
    ]
    for level in range(levels - 2, -1, -1):
        layout.append(
            {
                "asset": f"level_{level}",
                "derived_from": f"level_{level + 1}",
                "transform": {"scale": [2.0, 2.0], "translation": [1.0, 1.0]},
            }
        )
    return {"zarr_conventions": [CONVENTION], "multiscales": {"layout": layout}}


def group(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a Zarr group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}


def dumps(value: Any) -> bytes:
    """Return the bytes of a value in JSON: no spaces, and no NaN, which others cannot read."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def plain(value: Any) -> Any:
    """Return a value as it comes back from JSON."""
    return json.loads(dumps(value))
