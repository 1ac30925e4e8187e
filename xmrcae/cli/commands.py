"""The commands of ``xmrcae``. What they call is imported in them, so that --help is quick."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .._version import __version__
from ..text import in_bytes
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
    """Keep gridded data as small archives that open coarse first, and learn their scales.

    INPUT is a NetCDF file, a folder of them, a glob such as 'sst/*.nc', or a Zarr store; several
    are put in order by their times; a glob does not find what is written. ARCHIVE is a folder, best
    named *.mrcae.zarr, or any URL that fsspec knows. Exit status: 0 done, 1 a fault while working,
    2 wrong arguments or data.
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
    from ..opening import open_model
    from .inputs import open_inputs
    from .outputs import check_name

    check_name(model)
    filesystem, target = check_target(model, overwrite=overwrite)
    if filesystem.exists(target):
        open_model(model)  # what is no model, the last INPUT perhaps, is not replaced
    ds, names, _ = open_inputs(inputs, variables, options, written=[model])
    with ds:
        fitted = ds.mrcae.fit(given.one_or_list(names), **{"progress": not quiet, **options})
    fitted.save(model, overwrite=overwrite)
    if not quiet:
        click.echo(f"{fitted!r}\nwrote {model}")


@xmrcae.command(
    epilog=_examples("""
        xmrcae archive 'daily/*.nc' sst.mrcae.zarr --variable sst --max-error 0.1
        xmrcae archive uv.zarr uv.mrcae.zarr --variable u --variable v --rmse u=0.1 --rmse v=0.2

        As a cron job, every night, adding what is new:
        xmrcae archive '/data/daily/*.nc' /data/sst.mrcae.zarr --max-error 0.1 --quiet

        From Python: xarray.open_dataset("sst.mrcae.zarr", engine="mrcae")
    """)
)
@given.inputs
@given.archive
@click.option(
    "--max-error",
    multiple=True,
    callback=given.to_bounds,
    metavar="[NAME=]NUMBER",
    help="No value is off by more than this, in the data's units; NAME= for one variable.",
)
@click.option(
    "--rmse",
    multiple=True,
    callback=given.to_bounds,
    metavar="[NAME=]NUMBER",
    help="No snapshot has a root-mean-square error larger than this.",
)
@given.variables
@click.option("--model", metavar="MODEL", help="Model to use, as fit writes it; fitted without it.")
@given.fit_options
@click.option("--levels", type=int, metavar="N", help="Levels of the archive; chosen by default.")
@click.option("--codes", type=int, metavar="N", help="Codes of a snapshot; chosen by default.")
@click.option(
    "--rows-per-block", type=int, metavar="N", help="Times that are packed, and read, together."
)
@click.option(
    "--lossless",
    is_flag=True,
    help="Keep as they are values whose type cannot follow the bound; otherwise they are an error.",
)
@given.computes
def archive(
    inputs: Sequence[str],
    archive: str,
    variables: Sequence[str],
    model: str | None,
    options: dict[str, Any],
    quiet: bool,
    **asked: Any,
) -> None:
    """Write INPUT to ARCHIVE, or add to it the times that it lacks.

    If ARCHIVE is there, times that it has are skipped, without comparing their values, and later
    ones are appended, within the bounds that it was begun with. If the call is stopped, the same
    call goes on from what is complete. Without --max-error and --rmse, the codes alone are kept.
    """
    from .inputs import open_inputs
    from .outputs import n_bytes, size_of
    from .reading import open_if_there
    from .writing import append_later, begin, check_asked

    if model is not None and options:
        raise UserError("--options are those of a fit, and --model is fitted already: give one")
    there = open_if_there(archive)
    is_new = there is None
    if there is not None:
        check_asked(there, asked, options, model)
        variables = variables or list(map(str, there.names))
    ds, names, files = open_inputs(inputs, variables, options, written=[archive, model])
    with ds:
        if there is None:
            there, message = begin(ds, names, archive, model, options, progress=not quiet, **asked)
        else:
            there, message = append_later(there, archive, ds, progress=not quiet)
    if quiet:
        return
    if is_new and files:
        n_given = sum(map(n_bytes, files))
        message += f": {size_of(archive)}, of {in_bytes(n_given)} in the input files"
    click.echo(f"{there!r}\n{archive}: {message}")


@xmrcae.command(
    epilog=_examples("""
        xmrcae append sst-2021.nc sst.mrcae.zarr
        xmrcae append 'daily/2021*.nc' sst.mrcae.zarr --quiet
    """)
)
@given.inputs
@given.archive
@given.computes
def append(inputs: Sequence[str], archive: str, quiet: bool) -> None:
    """Add to ARCHIVE, which must be there, the times of INPUT that it lacks.

    Times that it has are skipped, without comparing their values. Nothing that is there is written
    again.
    """
    from .inputs import open_inputs
    from .reading import open_there
    from .writing import append_later

    there = open_there(archive)
    ds, *_ = open_inputs(inputs, list(map(str, there.names)), written=[archive])
    with ds:
        there, message = append_later(there, archive, ds, progress=not quiet)
    if not quiet:
        click.echo(f"{there!r}\n{archive}: {message}")


@xmrcae.command(
    epilog=_examples("""
        xmrcae info sst.mrcae.zarr
        xmrcae info s3://bucket/sst.mrcae.zarr --json
    """)
)
@given.archive
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@given.fails_plainly
def info(archive: str, as_json: bool) -> None:
    """Show what ARCHIVE holds: grid, times, levels with their bytes, bounds and measured errors."""
    from .reading import describe, open_there

    there = open_there(archive)
    click.echo(json.dumps(describe(there), indent=1) if as_json else repr(there))


@xmrcae.command(
    epilog=_examples("""
        xmrcae decode sst.mrcae.zarr sst.nc
        xmrcae decode sst.mrcae.zarr summer.nc --time 2020-06:2020-08
        xmrcae decode sst.mrcae.zarr coarse.zarr --level 0
    """)
)
@given.archive
@given.output
@given.level
@given.variables
@click.option(
    "--time",
    metavar="START[:END]",
    help="Times wanted, as 2020, 2020-06:2020-08 or 2020-01-01T12:; END is included.",
)
@given.overwrite
@given.computes
def decode(
    archive: str,
    output: str,
    level: int | None,
    variables: Sequence[str],
    time: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Decode ARCHIVE to OUTPUT, a NetCDF file (*.nc) or a Zarr store (*.zarr).

    All times of the finest level are decoded unless --time and --level say otherwise. OUTPUT
    appears once it is complete; its attribute history says what was done.
    """
    from .inputs import select
    from .outputs import check_name, size_of, writing
    from .reading import check_variables, open_level, open_there, select_times, with_history

    if os.path.realpath(archive) == os.path.realpath(output):
        raise UserError(f"OUTPUT {output} is the archive itself: give another path")
    ending = check_name(output)
    there = open_there(archive)
    check_variables(there, variables)
    dim = there.about["append"]
    ds = select_times(open_level(there, archive, level), dim, time)
    ds = select(ds, variables) if variables else ds
    level = there.levels - 1 if level is None else level
    ds = with_history(ds, there, archive, level)
    with writing(output, overwrite=overwrite) as part:
        with given.dask_computing("decode", quiet=quiet):
            if ending == ".zarr":
                ds.to_zarr(part, consolidated=False)
            else:
                ds.to_netcdf(part, engine="netcdf4")
    if not quiet:
        n = "1 snapshot" if dim is None else f"{ds.sizes[dim]} along {dim}"
        click.echo(f"{output}: {n}, level {level}, {size_of(output)}")


@xmrcae.command(
    epilog=_examples("""
        xmrcae plot sst.mrcae.zarr sst.png
        xmrcae plot sst.mrcae.zarr june.png --time 2020-06 --variable sst
    """)
)
@given.archive
@given.output
@click.option("--time", metavar="TIME", help="The snapshot; the first of that month or year.")
@click.option("--variable", metavar="NAME", help="Variable to draw; the first by default.")
@given.overwrite
@given.quiet
@given.fails_plainly
def plot(
    archive: str,
    output: str,
    time: str | None,
    variable: str | None,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Draw one snapshot of ARCHIVE at all levels to OUTPUT; the last by default.

    OUTPUT is *.png, *.pdf, *.svg or what else matplotlib writes.
    """
    from ..plot.panels import import_pyplot
    from .outputs import check_name, size_of, writing
    from .reading import draw, open_there

    pyplot = import_pyplot()
    pyplot.switch_backend("agg")
    ending = check_name(output, [f".{name}" for name in pyplot.FigureCanvasBase.filetypes])
    there = open_there(archive)
    with writing(output, overwrite=overwrite) as part:
        figure = draw(there, time, variable)
        try:
            figure.savefig(part, format=ending[1:], dpi=110)
        finally:
            pyplot.close(figure)
    if not quiet:
        click.echo(f"{output}: 1 snapshot, {there.levels} levels, {size_of(output)}")


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
    """Fit a model, print its errors and sizes, and write it, figures and an archive to FOLDER.

    Options of the fit may also stand alone, as further arguments.
    """
    if variable is not None and data is None:
        raise UserError("--variable names a variable of --data, which is not given")
    from ..demo import run_demo

    run_demo(data, variable, {**options, **more}, folder)
