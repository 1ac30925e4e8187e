"""How a command ends: well, with a fault while working, or with an error of the user's."""

from __future__ import annotations

import contextlib
import traceback
import warnings
from collections.abc import Iterator

import click

#: Errors of the system that say which path was wrong, not that reading or writing failed.
_WRONG_PATH = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError)


class Fault(click.ClickException):
    """Reading, writing or anything else failed while working; an archive is damaged or in use."""

    exit_code = 1


class UserError(click.ClickException):
    """A wrong option, no such file, no archive, data that do not fit."""

    exit_code = 2


@contextlib.contextmanager
def told(*, debug: bool) -> Iterator[None]:
    """Turn whatever ends a command into a message and an exit status.

    Parameters
    ----------
    debug : bool
        Whether to print the traceback too.

    Raises
    ------
    Fault, UserError
        In place of any error but click's own.
    KeyboardInterrupt
        In place of an error that came of one.
    """
    try:
        yield
    except Exception as error:
        from .spelling import spelled

        if _was_stopped(error):
            raise KeyboardInterrupt from error
        if debug:
            traceback.print_exc()
        if isinstance(error, click.ClickException):
            raise
        ended = _named(error)
        raise type(ended)(spelled(ended.message)) from error


def _was_stopped(error: BaseException | None) -> bool:
    """Tell whether an error came of Ctrl-C: libraries may fail while they clean up after it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _named(error: Exception) -> Fault | UserError:
    """Return the message and the exit status of an error."""
    from ..archive.format import ArchiveFault

    if isinstance(error, ArchiveFault):
        return Fault(str(error))
    if isinstance(error, (ValueError, TypeError, ImportError, *_WRONG_PATH)):
        return UserError(str(error))
    if isinstance(error, OSError):
        return Fault(str(error))
    return Fault(f"{type(error).__name__}: {error}; --debug shows where")


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Print warnings in one line each, without the place in the code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated metadata")
        warnings.showwarning = lambda message, *_, **__: tell(f"warning: {message}")
        yield


def tell(message: str) -> None:
    """Print a message in one line on stderr."""
    click.echo(f"xmrcae: {' '.join(message.split())}", err=True)
