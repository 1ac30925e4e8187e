"""What all of an archive's rooms share: its name, its version, its error."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

#: Key of the root's attributes under which an archive describes itself.
ABOUT = "xmrcae_archive"

#: Written into every archive; one of a higher version is refused.
FORMAT_VERSION = 1

#: The packages that archives need beside those of the package itself, with their least versions.
#: Before 3.1.4, zarr left the name of pcodec to numcodecs, which now leaves it to zarr;
#: before 0.3.6, pcodec does not read what later versions write.
NEEDED = {"zarr": (3, 1, 4), "numcodecs": (0, 16), "pcodec": (0, 3, 6)}


class ArchiveError(ValueError):
    """An archive that is damaged, foreign or too new, or data that it cannot take."""


def require() -> None:
    """Check that what archives need is installed.

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
    """Return the first three numbers of a package's version; nothing if it is not installed."""
    try:
        return tuple(int(part) for part in version(name).split(".")[:3])
    except (PackageNotFoundError, ValueError):
        return ()
