"""xmrcae: multi-resolution convolutional autoencoders for labelled archives.

Importing it registers the accessor ``.mrcae`` on DataArray and Dataset. All else is imported when
it is asked for, torch when a network is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .accessor import DataArrayMrcae as _DataArrayMrcae  # noqa: F401  (registers .mrcae)
from .recipes import RECIPES as recipes

if TYPE_CHECKING:
    from . import datasets, plot
    from .archive.format import ArchiveError
    from .archive.opening import open_archive
    from .errors import ModelFileError
    from .grid.nearest import nearest_valid
    from .model import MrCAE
    from .opening import open_model

__all__ = [
    "ArchiveError",
    "ModelFileError",
    "MrCAE",
    "__version__",
    "datasets",
    "nearest_valid",
    "open_archive",
    "open_model",
    "plot",
    "recipes",
]

#: The module of each public name that is not imported yet.
_MODULES = {
    "ArchiveError": ".archive.format",
    "ModelFileError": ".errors",
    "MrCAE": ".model",
    "nearest_valid": ".grid.nearest",
    "open_archive": ".archive.opening",
    "open_model": ".opening",
}


def __getattr__(name: str) -> Any:
    if name in ("datasets", "plot"):
        return import_module(f".{name}", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
