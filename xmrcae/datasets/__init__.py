"""Data sets to try the method on: the paper's analytic examples, turbulence, sea surface temperatures."""

from .analytic import BOUNDS, drifting_mode, two_modes
from .jhtdb import open_jhtdb
from .jhtdb_client import jhtdb_slice

__all__ = ["BOUNDS", "drifting_mode", "jhtdb_slice", "open_jhtdb", "two_modes"]
