"""Names that are made up for files: none is that of something of the user's."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers import QUICK, make_field

import xmrcae
from xmrcae.archive import labelling
from xmrcae.archive.backend import MrcaeBackend
from xmrcae.archive.parts import packed, unpacked
from xmrcae.archive.prepare import OF_BLOCKS
from xmrcae.io.labels import coordinates_from_plain, coordinates_to_plain

COORDINATES = {
    "made up for a later one": {"coordinate_1": "x", "höhe": "x"},
    "made up for an earlier one": {"höhe": "x", "coordinate_0": "x"},
    "made up when that is taken": {"höhe": "x", "coordinate_0": "x", "coordinate_0_": "x"},
    "of a dimension": {"dimension_1": "y", "größe": "größe"},
    "of a dimension without coordinate": {"a b": "x", "c": "coordinate_0"},
    "two dimensions": {"größe": "größe", "c": "dimension_0"},
    "in another case": {"Lat": "x", "lat": "x", "LAT": "y"},
    "dimensions in another case": {"T": "T", "t": "t"},
}


@pytest.mark.parametrize("names", COORDINATES.values(), ids=COORDINATES)
def test_coordinates_come_back_whatever_their_names(names: dict[str, str]) -> None:
    sizes = {dim: 2 + n for n, dim in enumerate(dict.fromkeys(names.values()))}
    coords = {name: (dim, np.arange(sizes[dim]) + ord(name[-1])) for name, dim in names.items()}
    given = xr.Dataset(coords=coords)
    variables, record = coordinates_to_plain(given, list(sizes))
    dims = [record["dims"][dim] for dim in sizes]
    written = xr.Dataset(variables | {"a.part": (dims, np.zeros(list(sizes.values())))})
    assert len({str(name).lower() for name in written.variables}) == len(names) + 1
    stored = unpacked(packed({"split": written}, {}))[0]["split"]
    xr.testing.assert_identical(coordinates_from_plain(stored, record), given)


def test_coordinates_that_do_not_collide_are_stored_as_ever() -> None:
    names = {"Time": "time", "größe": "größe", "X": "x", "a b": "x", "coordinate_5": "x"}
    coords = xr.Dataset(coords={name: (dim, [0.0, 1.0]) for name, dim in names.items()})
    variables, record = coordinates_to_plain(coords, ["time", "größe"])
    assert [*variables] == ["Time", "coordinate_1", "X", "coordinate_3", "coordinate_5"]
    dims = [("time", "time"), ("größe", "dimension_1"), ("x", "x")]
    assert [*record["dims"].items()] == dims


# Archives

#: An archive's own names, those of arrays of another variable, and names that are made up.
VARIABLES = (
    *("base", "Codes", "length", "n_bytes", "u", "U", "u_classes", "u_gaps", "c"),
    *("höhe", "größe", "variable_9", "Variable_10"),
)
ON_THE_GRID = ("base", "codes", "CODES", "é", "è")
BOUND = 0.1
SHORT = QUICK | {"levels": 2, "channels": [[1]], "max_epochs": 1}


@pytest.fixture(scope="module")
def colliding() -> xr.Dataset:
    """Variables and coordinates whose names collide on a disk or in an archive's description."""
    field = make_field(12, (11, 13), land=False).drop_attrs()
    field[3, 2, 2] = np.nan
    along = {name: ("time", np.arange(12.0) + ord(name)) for name in ("T", "t", "z", "ä")}
    across = {name: ("lat", np.arange(11.0) * n) for n, name in enumerate(ON_THE_GRID)}
    several = {name: field * (1 + n / 9) for n, name in enumerate(VARIABLES)}
    return xr.Dataset(several).assign_coords(along | across)


@pytest.fixture(scope="module")
def model(colliding: xr.Dataset) -> xmrcae.MrCAE:
    return colliding.mrcae.fit([*colliding.data_vars], gaps="mask", **SHORT)


def paths(url: Path) -> list[str]:
    return [str(path.relative_to(url)) for path in url.rglob("*")]


def test_no_two_things_of_an_archive_have_one_name(
    colliding: xr.Dataset, model: xmrcae.MrCAE, tmp_path: Path
) -> None:
    url = tmp_path / "a.mrcae.zarr"
    archive = model.to_archive(colliding[{"time": slice(8)}], url, max_error=BOUND, progress=False)
    archive = archive.append(colliding[{"time": slice(8, None)}], progress=False)
    assert len({path.lower() for path in paths(url)}) == len(paths(url))
    archive.verify(colliding)
    found = xr.open_dataset(url, engine=MrcaeBackend)
    assert abs(found - colliding).to_dataarray().max() <= BOUND
    xr.testing.assert_identical(found.coords.to_dataset(), colliding.coords.to_dataset())
    coarse = archive.to_dataset(0)
    for name in ON_THE_GRID:
        assert np.array_equal(coarse[name], colliding[name][1::2])


def test_arrays_that_do_not_collide_are_named_as_ever(
    colliding: xr.Dataset, tmp_path: Path
) -> None:
    fields = colliding[["u", "höhe"]].rename(u="u_gaps").drop_vars([*ON_THE_GRID, "T"])
    fields = fields.assign_coords(length=("lat", np.arange(11)))
    model = fields.mrcae.fit(["u_gaps", "höhe"], gaps="mask", **SHORT)
    about = model.to_archive(fields, tmp_path / "a", max_error=BOUND, progress=False).about
    assert [each["array"] for each in about["variables"]] == ["u_gaps", "variable_1"]
    labels = {each["name"]: each.get("stored") for each in about["labels"]["variables"]}
    assert labels["t"] == "t" and labels["ä"].startswith("_")
    assert (tmp_path / "a" / "level_0" / "length").is_dir()


def test_the_table_of_blocks_has_no_names_but_those_that_variables_cannot_have(
    colliding: xr.Dataset, model: xmrcae.MrCAE, tmp_path: Path
) -> None:
    archive = model.to_archive(colliding, tmp_path / "a", max_error=BOUND, progress=False)
    arrays = {each["array"] for each in archive.about["variables"]}
    assert {*archive.about["blocks"]} == arrays | {*OF_BLOCKS} and not arrays & {*OF_BLOCKS}


@pytest.mark.parametrize("name", ["digest", "n_bytes", "variables", "written_by"])
def test_variables_called_as_what_a_run_notes_are_appended(tmp_path: Path, name: str) -> None:
    field = make_field(24).rename(name)
    model = field.mrcae.fit(**SHORT)
    archive = model.to_archive(field[:12], tmp_path / "a", max_error=BOUND, progress=False)
    archive = archive.append(field[12:], progress=False)
    assert float(archive.verify(field)["worst"].max()) <= BOUND


def test_an_archive_of_labels_that_differ_in_case_alone_is_appended_to(
    colliding: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = colliding[["u"]].drop_vars([*ON_THE_GRID, "ä"]).assign_coords(Depth=1.0, depth=2.0)
    model = given.u.mrcae.fit(gaps="mask", **SHORT)
    with monkeypatch.context() as before:  # such names were kept once
        before.setattr(labelling, "file_names", lambda names, **_: {name: name for name in names})
        archive = model.to_archive(given[{"time": slice(8)}], tmp_path / "a", max_error=BOUND)
    archive = archive.append(given[{"time": slice(8, None)}], progress=False)
    found = archive.to_dataset()
    xr.testing.assert_identical(found.coords.to_dataset(), given.coords.to_dataset())
