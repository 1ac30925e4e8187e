"""Names of the data's dimensions and coordinates beside those that codes use, and what their values are."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import make_field, make_two_variables

from xmrcae import open_model
from xmrcae.grid.dimensions import CODES_OWN

OPTIONS = {"levels": 2, "channels": [[1]], "max_epochs": 3, "progress": False}


@pytest.fixture(scope="module")
def field():
    return make_field(shape=(15, 20))


@pytest.fixture(scope="module")
def model(field):
    return field.mrcae.fit(**OPTIONS)


@pytest.mark.parametrize("name", CODES_OWN)
@pytest.mark.parametrize(
    "dims", [(), ("time",), ("lat", "lon")], ids=["scalar", "of snapshots", "of pixels"]
)
def test_names_that_codes_use_are_refused_before_training(field, name, dims):
    given = field.assign_coords({name: (dims, np.ones([field.sizes[dim] for dim in dims]))})
    with pytest.raises(ValueError, match=rf"{name!r}, which codes use.*rename.*'{name}_of_data'"):
        given.mrcae.fit(**OPTIONS)


@pytest.mark.parametrize("name", CODES_OWN)
def test_a_dimension_of_such_a_name_is_refused(field, name):
    given = xr.concat([field, field + 1], name)
    with pytest.raises(ValueError, match=rf"{name!r}, which codes use"):
        given.mrcae.fit(sample=["time", name], **OPTIONS)


@pytest.mark.parametrize("name", CODES_OWN)
def test_new_data_with_such_a_name_are_refused_by_encode_alone(model, field, name):
    given = field.assign_coords({name: 500})
    with pytest.raises(ValueError, match=rf"{name!r}, which codes use"):
        model.encode(given)
    assert model.reconstruct(given)[name] == 500


@pytest.mark.parametrize("dims", ["lat", "time"])
def test_coordinates_with_a_slash_are_refused_before_training(field, dims):
    given = field.assign_coords({"Grid/row": (dims, np.arange(field.sizes[dims]))})
    with pytest.raises(ValueError, match=r"'Grid/row', with \"/\".*rename.*'Grid_row'"):
        given.mrcae.fit(**OPTIONS)
    with pytest.raises(ValueError, match="Grid/row"):
        given.mrcae.pyramid(levels=2)


def test_a_variable_with_a_slash_is_fitted_and_its_pyramid_refused(field):
    given = field.rename("Grid/sst")
    model = given.mrcae.fit(**OPTIONS)
    assert model.decode(model.encode(given)).name == "Grid/sst"
    several = make_two_variables(shape=(15, 20)).rename(sst="Grid/sst")
    for pyramid in (
        given.mrcae.pyramid,
        lambda **options: several.mrcae.pyramid(["Grid/sst", "ssh"], **options),
    ):
        with pytest.raises(ValueError, match=r"'Grid/sst', with \"/\".*'Grid_sst'"):
            pyramid(levels=2)


@pytest.mark.parametrize(
    "values",
    [
        np.array([["north", "a"], ["b", "south"]]),
        np.array(
            [["2001-01-01", "2002-02-02"], ["2003-03-03", "2004-04-04"]], dtype="datetime64[ns]"
        ),
        np.array([[1, 2], [3, 4]], dtype="timedelta64[ns]"),
        np.array([[True, False], [False, True]]),
        np.array([[b"x", b"yz"], [b"", b"w"]]),
        np.array([[1.5, 2.5], [3.5, 4.5]], dtype=np.float32),
    ],
    ids=["text", "dates", "durations", "booleans", "bytes", "float32"],
)
def test_2d_coordinates_keep_their_type(field, values, tmp_path):
    tiled = np.tile(values, (8, 10))[:15]
    given = field.assign_coords(extra=(("lat", "lon"), tiled))
    model = given.mrcae.fit(**OPTIONS)
    codes = model.encode(given)["level_1"]["extra"]
    assert codes.dtype == values.dtype
    inside = model.encode(given)["level_1"]["inside"].values
    assert np.isin(codes.values[inside], values).all()
    assert model.decode(model.encode(given)).extra.identical(given.extra)
    model.save(tmp_path / "model.nc")


def test_text_along_snapshots_comes_back(field):
    given = field.assign_coords(season=("time", np.where(field.time.dt.month < 7, "first", "second")),
                                month=("time", pd.Index(field.time.dt.month.values)))  # fmt: skip
    model = given.mrcae.fit(**OPTIONS)
    again = model.decode(model.unstack(model.stack(model.encode(given))))
    for name in ("season", "month", "time"):
        xr.testing.assert_identical(again[name], given[name])


# Names that are no text

NAMES = pytest.mark.parametrize("name", [5, 0, 1.5, ("a", "b")])


@NAMES
@pytest.mark.parametrize("dims", [(), ("time",), ("lat", "lon")])
def test_coordinates_whose_names_are_no_text_are_refused(model, field, name, dims):
    given = field.assign_coords({name: (dims, np.ones([field.sizes[dim] for dim in dims]))})
    codes = model.encode(field)
    level = codes["level_0"].to_dataset().assign_coords({name: 1})
    uses = (
        lambda: given.mrcae.fit(**OPTIONS),
        lambda: given.to_dataset().mrcae.fit(**OPTIONS),
        lambda: given.mrcae.pyramid(levels=2),
        lambda: model.encode(given),
        lambda: model.reconstruct(given),
        lambda: model.decode(xr.DataTree.from_dict({"level_0": level}), level=0),
        lambda: model.unstack(model.stack(codes).assign_coords({name: 1})),
    )
    for use in uses:
        with pytest.raises(ValueError, match="which is no text: rename it first"):
            use()
    assert "no text" in repr(given.mrcae)


@NAMES
@pytest.mark.parametrize("dim", ["time", "lat"])
def test_dimensions_whose_names_are_no_text_are_refused(model, field, name, dim):
    given = field.drop_vars(dim).rename({dim: name})
    for use in (given.mrcae.fit, given.to_dataset().mrcae.fit, given.mrcae.pyramid, model.encode):
        options = {} if use == model.encode else {"levels": 2}
        with pytest.raises(ValueError, match="which is no text: rename it first"):
            use(**options) if options else use(given)


@NAMES
def test_variables_whose_names_are_no_text_are_refused(field, name):
    several = xr.Dataset({name: field, "other": field})
    for use in (field.rename(name).mrcae.fit, lambda: several.mrcae.fit([name, "other"])):
        with pytest.raises(ValueError, match="which is no text: rename it first"):
            use()
    assert several.mrcae.fit("other", **OPTIONS).levels == 2


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="NumPy 2 has it")
def test_text_of_any_length_is_saved_as_text(field, tmp_path):
    names = np.array([f"{'north' * n} {n}" for n in range(20)], dtype=np.dtypes.StringDType())
    model = field.assign_coords(station=("time", names)).mrcae.fit(**OPTIONS)
    model.save(tmp_path / "model.nc")
    assert open_model(tmp_path / "model.nc").split.station.values.tolist() == names.tolist()
