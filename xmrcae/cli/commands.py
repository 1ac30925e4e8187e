"""The commands of ``xmrcae``. What they call is imported in them, so that --help is quick."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .._version import __version__
from . import options as given
from .faults import Fault, UserError, plain_warnings, tell


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        The exit status: 0; or, after a message on stderr, 1 if reading, writing or anything else
        failed while working, 2 for an error of the user's.
    """
    try:
        with plain_warnings():
            xmrcae.main(argv, prog_name="xmrcae", standalone_mode=False)
    except click.Abort:
        tell("stopped")
        return Fault.exit_code
    except click.ClickException as error:
        tell(error.format_message())
        context = getattr(error, "ctx", None)
        if context is not None:
            tell(f"see {context.command_path} --help")
        return error.exit_code
    return 0


def _examples(text: str) -> str:
    """Return examples as click prints them below a command's options."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in inspect.cleandoc(text).split("\n"))


@click.group(no_args_is_help=False, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="xmrcae")
def xmrcae() -> None:
    """Learn the scales of gridded data.

    INPUT is a NetCDF file, a folder of them, a glob such as 'sst/*.nc', or a Zarr store; several
    are put in order by their times. Exit status: 0 done, 1 a fault while working, 2 wrong
    arguments or data.
    """


@xmrcae.command(
    epilog=_examples("""
        xmrcae fit sst.nc model.nc
        xmrcae fit 'daily/*.nc' model.nc --variable sst --options 'levels=4 tolerance=0.2'
    """)
)
@given.inputs
@click.argument("model", metavar="MODEL")
@given.variables
@given.fit_options
@click.option("--overwrite", is_flag=True, help="Replace MODEL, if it is a model.")
@given.computes
def fit(
    inputs: Sequence[str],
    model: str,
    variables: Sequence[str],
    options: dict[str, Any],
    overwrite: bool,
    quiet: bool,
) -> None:
    """Fit a model to INPUT and write it to MODEL, a NetCDF file or, if named *.zarr, a Zarr store.

    The options of the fit are those of xmrcae.MrCAE.
    """
    from ..io.tree_file import check_target
    from ..model import open_model
    from .inputs import open_inputs

    filesystem, target = check_target(model, overwrite=overwrite)
    if filesystem.exists(target):
        open_model(model)  # what is no model, the last INPUT perhaps, is not replaced
    ds, names = open_inputs(inputs, variables, options)
    with ds:
        fitted = ds.mrcae.fit(given.one_or_list(names), **{"progress": not quiet, **options})
    fitted.save(model, overwrite=overwrite)
    if not quiet:
        click.echo(f"{fitted!r}\nwrote {model}")


@xmrcae.command(
    epilog=_examples("""
        xmrcae demo
        xmrcae demo --data sst.nc --variable sst --options 'gaps=mask tolerance=0.2'
    """)
)
@click.option(
    "--output",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo-output"),
    metavar="FOLDER",
    help="Where to write; demo-output by default.",
)
@click.option(
    "--data", metavar="FILE", help="NetCDF or Zarr to fit; the paper's drifting mode by default."
)
@click.option(
    "--variable", metavar="NAME", help="Variable of FILE; the only suitable one by default."
)
@given.fit_options
@click.argument("more", nargs=-1, metavar="[NAME=VALUE]...", callback=given.to_fit_options)
@given.fails_plainly
def demo(
    folder: Path,
    data: str | None,
    variable: str | None,
    options: dict[str, Any],
    more: dict[str, Any],
) -> None:
    """Fit a model, print its errors and sizes, and write it with figures to FOLDER.

    Options of the fit may also stand alone, as further arguments.
    """
    if variable is not None and data is None:
        raise UserError("--variable names a variable of --data, which is not given")
    from ..demo import run_demo

    run_demo(data, variable, {**options, **more}, folder)
