"""A small session of a user, for processes of their own: python session.py FOLDER [WITHOUT...].

WITHOUT are packages that are not to be found, and `network`. What fails ends the session; asserts
would be nothing to `python -OO`.
"""

import contextlib
import importlib.metadata
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest


def leave_out(names: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let packages be neither imported nor found, as if they were not installed."""
    find = importlib.metadata.Distribution.from_name

    def from_name(name: str) -> importlib.metadata.Distribution:
        if name in names:
            raise importlib.metadata.PackageNotFoundError(name)
        return find(name)

    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(importlib.metadata.Distribution, "from_name", from_name)
    from xmrcae.archive.format import require

    require.cache_clear()  # what it found before


def refuse_network(event: str, arguments: Any) -> None:
    """Refuse to look up or reach a host: an audit hook."""
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise ConnectionError(f"{event}{arguments} where there is no network")


def said(*arguments: Any, status: int = 0) -> str:
    """Run the command line; what it says, once it has ended with a status."""
    from xmrcae.cli import main

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        ended = main(list(map(str, arguments)))
    check(ended == status, f"{arguments} ended with {ended}: {text.getvalue()}")
    return text.getvalue()


def check(holds: Any, message: str) -> None:
    """End the session if something does not hold."""
    if not holds:
        raise SystemExit(message)


def needs(package: str, extra: str, use: Callable[[], Any]) -> None:
    """Check that a use is refused by an error that names a package and the extra that has it."""
    try:
        use()
    except ImportError as error:
        check(package in str(error) and f"xmrcae[{extra}]" in str(error), f"{error!r}")
    else:
        raise SystemExit(f"{use} does without {package}")


def run(folder: Path, without: Sequence[str]) -> None:
    """Fit, encode, save, archive, read, draw; by the command line too."""
    from helpers import make_field

    import xmrcae

    field = make_field(n_times=12, shape=(15, 20), name="größe").assign_attrs(units="°C")
    options = {"levels": 2, "max_epochs": 1, "tolerance": 5.0, "progress": False}
    model = field.mrcae.fit(**options, checkpoint=folder / "checkpoint")
    check(all(map(len, (repr(model), model._repr_html_(), repr(field.mrcae)))), "no repr")
    decoded = model.decode(model.encode(field))
    check(decoded.identical(model.reconstruct(field)), "decode(encode) is no reconstruction")
    model.save(folder / "model.nc")
    again = xmrcae.open_model(folder / "model.nc").reconstruct(field)
    check(again.identical(decoded), "a model that was saved gives something else")
    said("archive", "--help")
    archive(field, model, folder, without)
    draw(model, folder, without)


def archive(field: Any, model: Any, folder: Path, without: Sequence[str]) -> None:
    """Write and read an archive, or see that it is refused."""
    import xarray as xr

    import xmrcae

    url = folder / "field.mrcae.zarr"
    field.to_netcdf(folder / "field.nc")
    model.save(folder / "own.nc")
    write = ("archive", folder / "field.nc", url, "--max-error", 0.1, "--model", folder / "own.nc")
    if "pcodec" in without:
        needs("pcodec", "archive", lambda: model.to_archive(field, url, max_error=0.1))
        needs("pcodec", "archive", lambda: field.mrcae.to_archive(url, max_error=0.1))
        needs("pcodec", "archive", lambda: xmrcae.open_archive(url))
        needs("pcodec", "archive", lambda: xr.open_dataset(url, engine="mrcae"))
        check("xmrcae[archive]" in said(*write, status=2), "the command line names no extra")
        return
    model.to_archive(field, url, max_error=0.1, progress=False)
    with xr.open_dataset(url) as read:
        check(float(abs(read[field.name] - field).max()) <= 0.1, "an archive is off its bound")
    check("°C" in said("info", url), "info has no units")
    check("complete" in said(*write), "an archive is not known again")
    said("decode", url, folder / "again.nc", "--quiet")


def draw(model: Any, folder: Path, without: Sequence[str]) -> None:
    """Draw a model and an archive, or see that it is refused."""
    if "matplotlib" in without:
        needs("matplotlib", "plot", model.plot.history)
        needs("matplotlib", "plot", model.plot.refinement)
        url = folder / "field.mrcae.zarr"
        for call in (("plot", url, folder / "a.png"), ("demo", "--output", folder / "demo")):
            check("xmrcae[plot]" in said(*call, status=2), f"{call[0]} names no extra")
        return
    model.plot.history().savefig(folder / "history.png")
    model.plot.refinement().savefig(folder / "refinement.png")
    if "pcodec" not in without:
        said("plot", folder / "field.mrcae.zarr", folder / "field.png")


if __name__ == "__main__":
    leave_out(sys.argv[2:], pytest.MonkeyPatch())
    if "network" in sys.argv[2:]:
        sys.addaudithook(refuse_network)
    run(Path(sys.argv[1]), sys.argv[2:])
    print("done")
