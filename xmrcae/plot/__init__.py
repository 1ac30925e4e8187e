"""Pictures: where filters act, what each level reconstructs, filters, losses, errors, pyramids.

Every function and every method of ``model.plot`` returns the figure that it drew into; it shows,
saves and closes none. Fields on longitude and latitude are drawn on maps where cartopy is
installed, other fields on plain axes along their own coordinates, ascending to the right and
upwards. Land is grey. Nothing is downloaded unless it is asked for.
"""

from .curves import errors
from .model_plots import ModelPlots
from .panels import LAND
from .pyramids import pyramid

__all__ = ["LAND", "ModelPlots", "errors", "pyramid"]
