"""The guide "When something goes wrong": errors begin as it quotes them, and its cures help."""

import contextlib
import io
import re
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import faults
import numpy as np
import pytest
import xarray as xr
from conftest import REPOSITORY
from helpers import QUICK

import xmrcae
from xmrcae.archive import format as archive_format
from xmrcae.cli import main

pytest.importorskip("pcodec")

PAGE = (REPOSITORY / "docs/guides/when-something-goes-wrong.md").read_text()
QUOTED = dict(re.findall(r"^### (.+)\n\n```text\n(.+)\n```$", PAGE, re.MULTILINE))

OPTIONS: dict[str, Any] = QUICK | {"levels": 2, "tolerance": None}

#: What goes wrong, and what is to be done instead.
Calls = tuple[Callable[[], Any], Callable[[], Any]]


def fits(obj: xr.DataArray, wrong: dict[str, Any], cure: dict[str, Any]) -> Calls:
    """The same data with other options."""
    return lambda: obj.mrcae.fit(**OPTIONS | wrong), lambda: obj.mrcae.fit(**OPTIONS | cure)


def fit_each(wrong: xr.DataArray, cure: xr.DataArray, **options: Any) -> Calls:
    """Other data with the same options."""
    return lambda: wrong.mrcae.fit(**OPTIONS), lambda: cure.mrcae.fit(**OPTIONS, **options)


def gaps(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    gappy = field.where((field.time != field.time[3]) | (field.lat > 0))
    return fits(gappy, {}, {"gaps": "mean"})


def no_sample(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    runs = field.rename(time="step").drop_vars("step").expand_dims(run=2)
    return fits(runs, {}, {"sample": ["run", "step"]})


def too_few(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    return fit_each(field[:2], field[:3])


def names(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    layer = field.expand_dims(level=[1000])
    return fit_each(layer, layer.rename(level="pressure"))


def too_many_levels(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    return fits(field, {"levels": 9}, {"levels": 4})


def infinite(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    hot = field.where(field != field[2, 0, 0], np.inf)
    return fit_each(hot, hot.where(np.isfinite(hot)), gaps="mean")


def unknown(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    return lambda: xmrcae.MrCAE(max_epoch=3), lambda: xmrcae.MrCAE(max_epochs=3)


def checkpoint(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    field.mrcae.fit(**OPTIONS, checkpoint="state")
    return fits(field + 1, {"checkpoint": "state"}, {"checkpoint": "another"})


def units(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    kelvin = (field + 273.15).assign_attrs(units="K")
    celsius = (kelvin - 273.15).assign_attrs(units="degC")
    return lambda: model.score(kelvin), lambda: model.score(celsius)


def grid(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    shifted = field.assign_coords(lat=field.lat + 1)
    return lambda: model.encode(shifted), lambda: model.encode(shifted.interp(lat=field.lat))


def damaged(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    model.save("whole.nc")
    whole, copy = Path("whole.nc").read_bytes(), Path("model.nc")
    copy.write_bytes(whole[: len(whole) // 2])
    return (
        lambda: xmrcae.open_model(copy),
        lambda: copy.write_bytes(whole) and xmrcae.open_model(copy),
    )


def full_disk(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    def without_room() -> None:
        with faults.faulty(Path.cwd(), 1, faults.full_disk()):
            model.save("model.zarr")

    return without_room, lambda: model.save("model.zarr")


def missing(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    def lacking(name: str) -> str:
        if name == "pcodec":
            raise PackageNotFoundError(name)
        return version(name)

    def without() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(archive_format, "version", lacking)
            archive_format.require.cache_clear()
            archive(field, model)

    return without, lambda: archive(field, model)


def archive(field: xr.DataArray, model: xmrcae.MrCAE, bound: float = 0.1, **options: Any) -> None:
    model.to_archive(field, "a.mrcae.zarr", max_error=bound, progress=False, **options)


def too_fine(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    return (
        lambda: archive(field, model, 1e-7),
        lambda: archive(field, model, 1e-7, lossless=True),
    )


def earlier(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    archive(field[:10], model)

    def append(later: xr.DataArray) -> None:
        xmrcae.open_archive("a.mrcae.zarr").append(later, progress=False)

    return lambda: append(field[5:]), lambda: append(field[10:])


def another_bound(field: xr.DataArray, model: xmrcae.MrCAE) -> Calls:
    archive(field[:10], model)
    field.to_netcdf("data.nc")

    def run(*options: str) -> None:
        """Run the command; what it prints as it fails is the message of an error."""
        with contextlib.redirect_stderr(io.StringIO()) as printed:
            if main(["archive", "data.nc", "a.mrcae.zarr", "--quiet", *options]):
                raise RuntimeError(printed.getvalue().removeprefix("xmrcae: "))

    return lambda: run("--max-error", "0.2"), run


#: What raises the error that the guide has under each title, in its order.
ERRORS = {
    "Gaps in time": gaps,
    "No sample dimension": no_sample,
    "Too few snapshots": too_few,
    "Names that codes use": names,
    "Too many levels for the grid": too_many_levels,
    "Infinite values": infinite,
    "An option that there is not": unknown,
    "The checkpoint of another fit": checkpoint,
    "Other units": units,
    "Another grid": grid,
    "A damaged model file": damaged,
    "A full disk": full_disk,
    "Packages of an extra are missing": missing,
    "A bound that the data's type cannot follow": too_fine,
    "Times that the archive has already": earlier,
    "An archive that was begun with another bound": another_bound,
}


def test_every_error_of_the_guide_is_raised() -> None:
    assert list(QUOTED) == list(ERRORS) == re.findall("^### (.+)$", PAGE, re.MULTILINE)
    assert len(QUOTED) == 16


@pytest.mark.parametrize("title", ERRORS)
def test_an_error_begins_as_quoted_and_its_cure_helps(
    field: xr.DataArray,
    model: xmrcae.MrCAE,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    title: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    goes_wrong, cured = ERRORS[title](field, model)
    with pytest.raises(Exception, match="^" + re.escape(QUOTED[title])):
        goes_wrong()
    cured()
