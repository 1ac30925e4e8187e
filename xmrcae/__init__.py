"""xmrcae: multi-resolution convolutional autoencoders for labelled archives.

Importing it registers the accessor ``.mrcae`` on DataArray and Dataset. Torch is imported when a
network is needed.
"""

from . import datasets
from ._version import __version__
from .accessor import DataArrayMrcae as _DataArrayMrcae  # noqa: F401  (registers .mrcae)
from .grid.valid import nearest_valid
from .model import MrCAE, open_model
from .recipes import RECIPES as recipes

__all__ = ["MrCAE", "__version__", "datasets", "nearest_valid", "open_model", "plot", "recipes"]


def __getattr__(name: str) -> object:
    if name == "plot":
        from importlib import import_module

        return import_module(".plot", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
