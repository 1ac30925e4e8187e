"""Write models, states and archives to disks that are full, and again when there is room.

Run in a process that may mount: ``unshare --user --map-root-user --mount python small_disks.py FOLDER``.
"""

import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import BOUND, OPTIONS, files, make_field, refused
from helpers import with_split

from xmrcae.cli import main
from xmrcae.storage import StorageError

SIZE = 2**20  # of a disk


def decode(archive: Path, path: Path) -> None:
    if main(["decode", str(archive), str(path), "--quiet"]):
        raise StorageError(f"{path}: the disk is full")  # the message itself is tested elsewhere


def cases(folder: Path) -> dict[str, tuple[Callable[[Path], Any] | None, Callable[[Path], Any]]]:
    """What is there before, and what is then written, by the name of the file or folder."""
    field = make_field(9, (15, 20))
    model = field.mrcae.fit(**OPTIONS)
    new = with_split(model, run="new")
    archive = folder / "a.mrcae.zarr"
    model.to_archive(field, archive, **BOUND)
    return {
        "model.nc": (model.save, lambda path: new.save(path, overwrite=True)),
        "model.zarr": (model.save, lambda path: new.save(path, overwrite=True)),
        "state": (None, lambda path: field.mrcae.fit(**OPTIONS, checkpoint=path)),
        "new.mrcae.zarr": (None, lambda path: model.to_archive(field, path, **BOUND)),
        "more.mrcae.zarr": (
            lambda path: model.to_archive(field[:6], path, **BOUND),
            lambda path: model.to_archive(field[6:], path, mode="a", progress=False),
        ),
        "data.nc": (None, lambda path: decode(archive, path)),
        "data.zarr": (None, lambda path: decode(archive, path)),
    }


def fail_and_go_on(
    disk: Path, name: str, before: Any, write: Callable[[Path], Any], spare: int
) -> bool:
    """Write to a disk that has so many bytes left, and again when it has room; tell if it was full."""
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], check=True)
    path = disk / name
    if before is not None:
        before(path)
    kept = files(path)
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - spare))
    full = refused(lambda: write(path), path)
    left = files(disk)
    assert not [each for each in left if each.endswith(".part") or ".old" in each]
    if full and name.startswith("model"):
        assert files(path) == kept
    (disk / "filler").unlink()
    if full:
        write(path)
    assert files(path) != kept
    return full


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    for name, (before, write) in cases(folder).items():
        count = 0
        while fail_and_go_on(folder / f"{name}.{count}", name, before, write, 4096 * count):
            count += 1
        print(f"{name}: {count} full disks", flush=True)
