"""Models, accessors and codes show what matters, escaped; nothing is computed and nothing raises."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from helpers import make_field, make_two_variables

import xmrcae

SCRIPT = "<script>alert(1)</script>"
QUICK = {"levels": 2, "max_epochs": 2, "progress": False}


@pytest.fixture(scope="module")
def hostile() -> xr.DataArray:
    """A field whose names, units and attributes are code."""
    field = make_field(name=SCRIPT).rename(lat="lat<script>")
    return field.assign_attrs(units=SCRIPT, long_name=f"{SCRIPT}\nsecond line").chunk(time=7)


@pytest.fixture(scope="module")
def model(hostile: xr.DataArray) -> xmrcae.MrCAE:
    return hostile.mrcae.fit(**QUICK)


def both(obj: Any) -> tuple[str, str]:
    return repr(obj), obj._repr_html_()


def test_the_accessor_says_what_it_sees(no_compute: Callable) -> None:
    field = make_field(shape=(31, 40))
    with no_compute():
        for shown in both(field.chunk(time=7).mrcae):
            for what in (
                "DataArray sst",
                "lat: 31, lon: 40, periodic",
                "time: 20",
                "float32, lazy, 3 chunks",
            ):
                assert what in shown
    assert "not lazy" in repr(field.mrcae) and "periodic" not in repr(make_field(globe=False).mrcae)


def test_levels_shown_are_those_taken() -> None:
    for shape in ((31, 40), (64, 130), (3, 9)):
        field = make_field(n_times=2, shape=shape)
        tree = field.mrcae.pyramid()
        shapes = [f"{node.sizes['lat']} x {node.sizes['lon']}" for node in tree.children.values()]
        assert f"{len(shapes)} by default: {', '.join(shapes)}" in repr(field.mrcae)


def test_the_accessor_of_a_dataset_names_what_can_be_fitted(no_compute: Callable) -> None:
    ds = make_two_variables().chunk(time=6)
    with no_compute():
        for shown in both(ds.mrcae):
            assert "sst, ssh" in shown
        assert ".fit('sst')" in repr(ds.mrcae)
        for shown in both(ds[["sst"]].assign(depth=("lat", np.arange(21.0))).mrcae):
            assert "lat: 21, lon: 30" in shown
        for shown in both(xr.Dataset().mrcae):
            assert "not usable" in shown


@pytest.mark.parametrize(
    ("field", "why"),
    [
        (xr.DataArray(1.0), "no sample dimension"),
        (xr.DataArray(np.zeros(3), dims="time"), "no horizontal dimensions"),
        (make_field().astype(object), "dtype is object"),
        (make_field().isel(time=slice(0)), "no snapshot"),
        (make_field().isel(lat=slice(0)), "'lat' has 0"),
        (make_field().isel(lat=slice(1)), "'lat' has 1"),
        (make_field().expand_dims(depth=3), "besides the horizontal dimensions"),
        (make_field().assign_coords(lat=np.r_[np.arange(20.0), np.nan]), "missing or infinite"),
        (xr.DataArray(np.zeros((2, 5, 5)), dims=("time", 0, ("a", 1))), ""),
        (xr.DataArray(np.full((2, 9, 9), "x"), dims=("time", "y", "x")), "dtype is <U1"),
        (xr.DataArray(np.zeros((0, 0, 0)), dims=("time", "y", "x")), "not usable"),
    ],
)
def test_odd_data_are_shown_with_the_reason(field: xr.DataArray, why: str) -> None:
    for obj in (field, field.to_dataset(name="odd")):
        text, page = both(obj.mrcae)
        assert text.startswith("mrcae accessor of Data") and page.startswith("<div>")
    assert why in repr(field.mrcae) and (not why or "not usable" in repr(field.mrcae))


def test_nothing_is_computed_and_everything_is_escaped(
    hostile: xr.DataArray, model: xmrcae.MrCAE, no_compute: Callable
) -> None:
    with no_compute():
        codes = model.encode(hostile)
        unfitted = xmrcae.MrCAE(horizontal=("lat<script>", "lon"), valid=hostile[0].notnull())
        odd = hostile.expand_dims({"<script>": 3}).mrcae  # what is refused is named, too
        for obj in (hostile.mrcae, hostile.to_dataset().mrcae, odd, model, unfitted, codes):
            text, page = both(obj)
            assert "script" in page and "<script>" not in page
            assert "script" in text
    assert "not usable" in repr(odd)
    assert all("\n" not in line for line in repr(hostile.rename("a\nb").mrcae).splitlines()[1:])
    assert repr(hostile.rename("a\nb").mrcae).count("\n") == repr(hostile.mrcae).count("\n")


def test_an_unfitted_model_shows_the_options_that_are_not_defaults() -> None:
    assert "all as by default" in repr(xmrcae.MrCAE())
    for shown in both(xmrcae.MrCAE(levels=3, solver="adam", tolerance=[2.0, 1.0, 0.5])):
        assert "not fitted" in shown and "levels" in shown and "[2.0, 1.0, 0.5]" in shown
        assert "omega" not in shown


def test_an_encoding_larger_than_the_data_is_told_with_what_to_do() -> None:
    field = make_field()
    large = field.mrcae.fit(tolerance=None, **QUICK)
    small = field.mrcae.fit(encoding_size=200, **QUICK)
    numbers = int(large.encoding_sizes[-1]), int(field.isel(time=0).notnull().sum())
    assert numbers[0] > numbers[1] > int(small.encoding_sizes[-1])
    for shown in both(large):
        assert f"more numbers ({numbers[0]}) than a snapshot ({numbers[1]})" in shown
        assert all(way in shown for way in ("larger tolerance", "fewer channels", "encoding_size="))
    for shown in both(small):
        assert "more numbers" not in shown


def test_codes_read_well(hostile: xr.DataArray, model: xmrcae.MrCAE) -> None:
    codes = model.encode(hostile)
    for what in ("xmrcae_version", "xmrcae_model", "xmrcae_options", "encoding", "level_1"):
        assert what in repr(codes)
    assert max(map(len, repr(codes).splitlines())) < 160
    assert codes["level_0"]["encoding"].attrs["long_name"] == "encoding of level 0"
