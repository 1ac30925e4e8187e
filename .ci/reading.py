"""Read archives where nothing else is installed, with the oldest packages that are admitted, and compare.

    python .ci/reading.py ENVIRONMENT

This Python has all packages, the newest ones; ENVIRONMENT those of .ci/reading.txt, and in its
folder `codecs` the same zarr, numcodecs and pcodec for this Python, to write an archive with. The
archive that is kept in the tests and one by each set of packages are read, at every level, by both.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]

WRITE = """
import sys
from importlib.metadata import version
used = {f"{name}=={version(name)}" for name in ("numcodecs", "pcodec", "zarr")}
pins = set(open(sys.argv[2]).read().split())
assert used <= pins, used - pins
sys.path.insert(0, "tests")
from test_archive_format import make_kept
make_kept(sys.argv[1])
"""

#: What is not imported to read where it is installed.
UNUSED = ["torch", "cartopy", "cf_xarray", "matplotlib", "netCDF4", "h5py", "pooch"]

READ = f"""
import sys
import numpy, xarray, xmrcae
levels = xarray.open_datatree(sys.argv[1], engine="mrcae").children.values()
numpy.savez(sys.argv[2], *(level.sst.values for level in levels))
xmrcae.open_archive(sys.argv[1]).verify()
imported = sys.modules.keys() & set({UNUSED})
assert not imported, imported
"""

# xarray imports dask itself where it is installed.
ABSENT = f"""
from importlib.util import find_spec
installed = list(filter(find_spec, ["dask", *{UNUSED}]))
assert not installed, installed
"""


def run(python: Path | str, code: str, *arguments: object, path: Path | None = None) -> None:
    """Run a program, with a folder that is searched for packages first; an error if it fails."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    command = [python, "-c", code, *arguments]
    subprocess.run(list(map(str, command)), cwd=REPOSITORY, env=env, check=True)


def read(python: Path | str, archive: Path, folder: Path) -> list[np.ndarray]:
    """Return the values of every level, coarsest first."""
    run(python, READ, archive, folder / "levels.npz")
    with np.load(folder / "levels.npz") as levels:
        return list(levels.values())


def main(environment: Path, folder: Path) -> None:
    """Write, read, compare."""
    oldest, newest = environment / "bin" / "python", sys.executable
    run(oldest, ABSENT)
    by_oldest, by_newest = folder / "oldest.mrcae.zarr", folder / "newest.mrcae.zarr"
    run(newest, WRITE, by_oldest, ".ci/reading.txt", path=environment / "codecs")
    run(newest, WRITE, by_newest, ".ci/constraints.txt")
    for archive in (REPOSITORY / "tests/files/archive_1.mrcae.zarr", by_oldest, by_newest):
        levels = zip(read(oldest, archive, folder), read(newest, archive, folder), strict=True)
        for found, expected in levels:
            np.testing.assert_allclose(found, expected, rtol=1e-6)
            assert np.isfinite(found).any()
        print(archive.name)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(sys.argv[1]).absolute(), Path(temporary))
