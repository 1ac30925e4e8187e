"""Build sdist and wheel, look at what they hold, and use each in an environment that holds nothing else of the project.

    python .ci/package.py [FOLDER]

leaves both in FOLDER, and nothing without it. The wheel is built from the sdist. It needs `build`,
`hatchling` and `hatch-vcs` here; what the package itself requires is installed anew, as
.ci/constraints.txt has it.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]

#: Import, accessor, version, model file; in a folder without the source tree.
USE = """
import importlib.metadata, xarray, xmrcae
assert "site-packages" in xmrcae.__file__, xmrcae.__file__
assert xmrcae.__version__ == importlib.metadata.version("xmrcae"), xmrcae.__version__
field = xmrcae.datasets.drifting_mode(n_times=40, size=31)
model = field.mrcae.fit(levels=2, max_epochs=2, progress=False)
model.save("model.nc", overwrite=True)
xarray.testing.assert_equal(xmrcae.open_model("model.nc").reconstruct(field), model.reconstruct(field))
field.to_netcdf("field.nc")
print("xmrcae", xmrcae.__version__)
"""


def run(*command: Any, cwd: Path) -> None:
    """Run a command without this process's own Python path; an error if it fails."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([str(part) for part in command], cwd=cwd, env=env, check=True)


def sdist_lacks(sdist: Path) -> set[str]:
    """The files under version control that a sdist does not hold; none where git does not know the folder."""
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True)
    return set(listed.stdout.splitlines()) - held


def check_wheel(wheel: Path) -> None:
    """Refuse a wheel that does not hold the package, all of it, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    package = {
        str(p.relative_to(REPOSITORY)) for p in (REPOSITORY / "xmrcae").rglob("*") if p.is_file()
    }
    package = {name for name in package if "__pycache__" not in name}
    if held != package or "xmrcae/py.typed" not in held:
        sys.exit(f"{wheel.name} and the folder xmrcae differ in {sorted(held ^ package)}")


def main(folder: Path) -> None:
    """Build into a folder, and check."""
    dist = folder / "dist"
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, REPOSITORY, cwd=folder)
    (sdist,), (wheel,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    if lacks := sdist_lacks(sdist):
        sys.exit(f"{sdist.name} lacks {sorted(lacks)}")
    check_wheel(wheel)

    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run(*install, "-c", REPOSITORY / ".ci" / "constraints.txt", f"{wheel}[plot]", cwd=folder)
    run(python, "-c", USE, cwd=folder)
    run(
        python,
        "-m",
        "xmrcae",
        "demo",
        "--data",
        "field.nc",
        "--output",
        folder / "demo-output",
        cwd=folder,
    )
    run(*install, "--no-deps", "--force-reinstall", sdist, cwd=folder)
    run(python, "-c", USE, cwd=folder)
    run(python, "-m", "pip", "check", cwd=folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
        if sys.argv[1:]:
            target = Path(sys.argv[1])
            target.mkdir(parents=True, exist_ok=True)
            for path in (Path(temporary) / "dist").iterdir():
                shutil.copy(path, target)
