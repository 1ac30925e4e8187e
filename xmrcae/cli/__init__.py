"""The command line ``xmrcae``: fit models, keep data in archives, look into these."""

from .commands import main

__all__ = ["main"]
