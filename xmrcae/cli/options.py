"""Arguments and options that several commands have, and what their values mean."""

from __future__ import annotations

import ast
import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from .faults import UserError, told

#: Bounds of an archive's errors: one for all variables, or one for each.
Bounds = float | dict[str, float] | None


def fails_plainly(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the option --debug, without which its errors are one line."""

    @click.option("--debug", is_flag=True, help="Show where an error came from.")
    @functools.wraps(command)
    def plain(*, debug: bool, **arguments: Any) -> None:
        with told(debug=debug):
            command(**arguments)

    return plain


def computes(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of all that compute; it is handed `quiet` alone."""

    @click.option(
        "--dask-address",
        metavar="ADDRESS",
        help="Compute on the dask cluster whose scheduler is there, such as tcp://host:8786.",
    )
    @click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Compute on a dask cluster of N processes of this machine, started for this call.",
    )
    @quiet
    @functools.wraps(command)
    def on_cluster(*, dask_address: str | None, workers: int | None, **arguments: Any) -> None:
        with _cluster(dask_address, workers):
            command(**arguments)

    return fails_plainly(on_cluster)


@contextlib.contextmanager
def _cluster(address: str | None, workers: int | None) -> Iterator[None]:
    """Compute on a dask cluster, if one is asked for."""
    if address is None and workers is None:
        yield
        return
    if address is not None and workers is not None:
        raise UserError("--dask-address and --workers both say where to compute: give one")
    try:
        from distributed import Client
    except ImportError as error:
        raise UserError(
            f"--dask-address and --workers need the package distributed ({error}): "
            'pip install "xmrcae[complete]"'
        ) from error
    local = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": ":0"}
    with Client(address) if workers is None else Client(**local):
        yield


def to_bounds(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> Bounds:
    """Return the bounds that NUMBER, or any number of NAME=NUMBER, stand for; None for none."""
    bounds: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            bounds[name] = float(number)
        except ValueError:
            raise click.BadParameter(f"{text!r} is neither NUMBER nor NAME=NUMBER") from None
    if len(given) > len(bounds) or ("" in bounds and len(bounds) > 1):
        raise click.BadParameter("give one NUMBER, or NAME=NUMBER once for each variable")
    return bounds.get("", bounds or None)


def to_fit_options(
    context: click.Context, parameter: click.Parameter, given: Sequence[str]
) -> dict[str, Any]:
    """Return the options of a fit that NAME=VALUE stand for; a value that is no literal is text."""
    options = {}
    for text in given:
        for pair in re.split(r"\s+(?=\w+=)", text.strip()):
            name, equals, value = pair.partition("=")
            if not equals:
                raise click.BadParameter(f"{pair!r}: give NAME=VALUE, such as gaps=mask")
            try:
                options[name] = ast.literal_eval(value)
            except (SyntaxError, ValueError):
                options[name] = value
    return options


def one_or_list(names: Sequence[str]) -> Any:
    """Return a name if there is one, which stands for an array; else the list, for a Dataset."""
    return names[0] if len(names) == 1 else list(names)


@contextlib.contextmanager
def dask_computing(what: str, *, quiet: bool) -> Iterator[None]:
    """Show the progress of what dask computes on this machine; leave no thread at work.

    After an error, threads of dask's own pool would still write to files that are removed.
    """
    import dask
    from dask.system import CPU_COUNT
    from tqdm.dask import TqdmCallback

    with ThreadPoolExecutor(CPU_COUNT) as pool, dask.config.set(pool=pool):
        with TqdmCallback(desc=what, disable=quiet):
            yield


def _several(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> tuple[str, ...]:
    """Refuse a lone argument, which click would take for the one after INPUT."""
    if not given:
        names = [str(p.metavar) for p in context.command.params if isinstance(p, click.Argument)]
        raise click.UsageError(f"{' and '.join(names)} are needed, in this order", context)
    return given


inputs = click.argument("inputs", nargs=-1, metavar="INPUT...", callback=_several)
archive = click.argument("archive", metavar="ARCHIVE")
output = click.argument("output", metavar="OUTPUT")
quiet = click.option("--quiet", is_flag=True, help="Print errors and warnings only.")
overwrite = click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it is there.")
variables = click.option(
    "--variable",
    "variables",
    multiple=True,
    metavar="NAME",
    help="Variable to take, once for each; the only suitable one by default.",
)
fit_options = click.option(
    "--options",
    multiple=True,
    metavar="NAME=VALUE",
    callback=to_fit_options,
    help="Options of the fit, such as gaps=mask, or several in quotes: "
    "'gaps=mask tolerance=0.2 split=(0.8, 0.1, 0.1)'. Others are levels, channels, encoding_size, "
    "center, horizontal, sample, periodic, land_value and max_epochs; all of them are listed by "
    "python -c 'import xmrcae; help(xmrcae.MrCAE)'.",
)
level = click.option(
    "--level", type=int, metavar="K", help="Level wanted, 0 the coarsest; the finest by default."
)
