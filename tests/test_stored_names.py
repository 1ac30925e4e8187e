"""Names that are made up for files: none is that of something of the user's."""

import numpy as np
import pytest
import xarray as xr

from xmrcae.archive.parts import packed, unpacked
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


def test_names_that_do_not_collide_are_stored_as_ever() -> None:
    names = {"Time": "time", "größe": "größe", "X": "x", "a b": "x", "coordinate_5": "x"}
    coords = xr.Dataset(coords={name: (dim, [0.0, 1.0]) for name, dim in names.items()})
    variables, record = coordinates_to_plain(coords, ["time", "größe"])
    assert [*variables] == ["Time", "coordinate_1", "X", "coordinate_3", "coordinate_5"]
    dims = [("time", "time"), ("größe", "dimension_1"), ("x", "x")]
    assert [*record["dims"].items()] == dims
