"""Run notebooks and keep their outputs: ``python notebooks/run.py [notebook ...]``, all beside this script by default.

With XMRCAE_FAST=1 the notebooks make themselves short, and nothing that they give is kept. A
notebook whose data are absent is skipped. The exit status is 1 if any notebook fails.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

import xmrcae

MOST_BYTES = 1_500_000
#: No notebook draws a progress bar, so that none needs what tqdm misses.
QUIET = {"PYTHONWARNINGS": "ignore:IProgress not found"}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class Failed(Exception):
    """A notebook that cannot be kept."""


def run(path: Path, *, keep: bool) -> str:
    """Run one notebook where it lies.

    Parameters
    ----------
    path : pathlib.Path
        The notebook.
    keep : bool
        Write the outputs into the file, without anything that tells of the machine or the moment.

    Returns
    -------
    str
        How it went.

    Raises
    ------
    Failed
        If a cell fails, or the notebook with its outputs is too large.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, kernel_name="python3", timeout=None, record_timing=False, extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
    )  # fmt: skip
    started = time.perf_counter()
    try:
        client.execute(env=os.environ | QUIET)
    except CellExecutionError as error:
        if error.ename == "DataAbsent":
            return f"skipped: {error.evalue}"
        raise Failed(str(error)) from None
    except DeadKernelError as error:
        raise Failed(f"{error}: was there memory enough?") from None
    seconds = time.perf_counter() - started

    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata.clear()
    version = xmrcae.__version__
    text = (
        nbformat.writes(notebook).replace(version, version.partition("+")[0]) + "\n"
    )  # without commit and day
    size = len(text.encode())
    if size > MOST_BYTES:
        raise Failed(
            f"{size:,} bytes with its outputs, and {MOST_BYTES:,} are allowed: draw fewer or smaller figures"
        )
    if keep:
        path.write_text(text, encoding="utf-8")
    return f"{seconds:.0f} s, {size / 1000:,.0f} kB"


def main(names: list[str]) -> int:
    """Run the notebooks of these names, one after the other; 1 if any fails."""
    paths = [Path(name).resolve() for name in names] or sorted(
        Path(__file__).parent.resolve().glob("*.ipynb")
    )
    status = 0
    for path in paths:
        try:
            print(
                f"{path.name}: {run(path, keep=os.environ.get('XMRCAE_FAST') != '1')}", flush=True
            )
        except Failed as error:
            print(f"{path.name} failed: {error}", file=sys.stderr, flush=True)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
