"""Data sets to try the method on: the paper's analytic examples."""

from .analytic import BOUNDS, drifting_mode, two_modes

__all__ = ["BOUNDS", "drifting_mode", "two_modes"]
