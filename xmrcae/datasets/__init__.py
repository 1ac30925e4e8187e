"""Data sets to try the method on: analytic examples, turbulence, sea surface temperatures."""

from .analytic import BOUNDS, drifting_mode, two_modes
from .jhtdb import open_jhtdb
from .jhtdb_client import jhtdb_slice
from .noaa import ersst_v5, oisst_v2_lsmask, oisst_v2_monthly, oisst_v21_daily

__all__ = [
    "BOUNDS",
    "drifting_mode",
    "ersst_v5",
    "jhtdb_slice",
    "oisst_v2_lsmask",
    "oisst_v2_monthly",
    "oisst_v21_daily",
    "open_jhtdb",
    "two_modes",
]
