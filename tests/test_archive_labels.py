"""Labels of archives: what xarray had comes back through JSON and plain numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cftime
import dask.array
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xmrcae.archive.appending import check_append, order
from xmrcae.archive.format import ArchiveError
from xmrcae.archive.labelling import (
    ENCODING,
    Labels,
    assemble,
    describe,
    from_plain,
    stored,
    to_plain,
)

PLAIN = {"int32", "int64", "uint32", "uint64", "float32", "float64"}  # what pcodec packs
PLACEHOLDER = "__xarray_dataarray_variable__"


def through_json(record: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(record, allow_nan=False))


def as_written(labels: Labels, rows_per_block: int = 3) -> tuple[dict, dict, dict]:
    """Record, static and rows as an archive holds them: JSON, and numbers block by block."""
    record = through_json(labels.record)
    static = {name: variable.values for name, variable in labels.static.items()}
    rows = {}
    for name, variable in labels.rows.items():
        each, append = stored(record)[name], record["append"]
        assert variable.dims[0] == append
        rows[name] = np.concatenate(
            [
                to_plain(each, variable.isel({append: slice(i, i + rows_per_block)}).values)
                for i in range(0, variable.sizes[append], rows_per_block)
            ]
        )
    for name, values in {**static, **rows}.items():
        assert str(values.dtype) in PLAIN
        assert values.dtype == stored(record)[name]["plain"]
    return record, static, rows


def round_trip(
    obj: xr.DataArray | xr.Dataset,
    variables: list[Any],
    append: Any = "time",
    horizontal: tuple[Any, Any] = ("y", "x"),
) -> xr.Dataset:
    record, static, rows = as_written(describe(obj, variables, append, horizontal))
    dataset = obj.to_dataset(name=PLACEHOLDER) if isinstance(obj, xr.DataArray) else obj
    names = [each["name"] for each in record["variables"] if each["kind"] == "archived"]
    archived = {
        name: dataset.variables[PLACEHOLDER if isinstance(obj, xr.DataArray) else name].transpose()
        for name in names
    }  # in another order of dimensions
    decoded = {name: from_plain(stored(record)[name], values) for name, values in rows.items()}
    return assemble(record, static, decoded, archived)


def kept(encoding: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in encoding.items() if key in ENCODING}


def assert_same(found: xr.Dataset, given: xr.Dataset) -> None:
    """Identical, and also in what `assert_identical` does not compare."""
    xr.testing.assert_identical(found, given)
    assert list(found.variables) == list(given.variables)
    assert list(found.coords) == list(given.coords)
    assert kept(found.encoding) == kept(given.encoding)
    assert {type(found.xindexes[n]) for n in found.xindexes} == {
        type(given.xindexes[n]) for n in given.xindexes
    }
    for name, variable in given.variables.items():
        assert found.variables[name].dtype == variable.dtype, name
        assert found.variables[name].dims == variable.dims, name
        # text for text: NaN does not equal itself
        assert repr(found.variables[name].encoding) == repr(kept(variable.encoding)), name
        if name in given.indexes:
            assert type(found.indexes[name]) is type(given.indexes[name]), name


@pytest.mark.parametrize(
    ("file", "variables", "append", "horizontal"),
    [
        ("aviso_med_adt_2005.nc", ["adt"], "time", ("latitude", "longitude")),
        ("cmap_precip_tropics.nc", ["precip"], "time", ("lat", "lon")),
        ("cylinder_wake_openfoam.nc", ["u", "v"], "time", ("y", "x")),
        ("ersst_v5_2010-2020.nc", ["sst"], "time", ("lat", "lon")),
        ("hadgem_a1b_360day.nc", ["air_temperature"], "time", ("latitude", "longitude")),
        ("mitgcm_land_is_zero.nc", ["THETA", "SALT"], "time", ("YC", "XC")),
        ("nemo_tripolar_tos.nc", ["tos"], "time_counter", ("y", "x")),
        ("oisst_v21_climatology.nc", ["sst"], "time", ("lat", "lon")),
        ("oisst_v21_icec_arctic.nc", ["icec"], "time", ("lat", "lon")),
        ("oisst_v2_lsmask.nc", ["mask"], "time", ("lat", "lon")),
    ],
)
@pytest.mark.parametrize("chunks", [None, {}])
def test_a_file_comes_back_as_xarray_opened_it(
    real_file: Callable[[str], Path],
    file: str,
    variables: list[str],
    append: str,
    horizontal: tuple[str, str],
    chunks: dict | None,
):
    with xr.open_dataset(real_file(file), chunks=chunks) as given:
        assert_same(round_trip(given, variables, append, horizontal), given)


def made_up() -> xr.Dataset:
    """Four times, two members, with labels of all sorts."""
    rng = np.random.default_rng(0)
    times = pd.date_range("2000-01-01", periods=4, freq="MS", unit="ns")
    return xr.Dataset(
        {
            "sst": (("y", "time", "member", "x"), rng.normal(size=(3, 4, 2, 5)), {"units": "K"}),
            "flag": (("time", "x"), rng.random((4, 5)) > 0.5),
            "mask": (("y", "x"), rng.random((3, 5)) > 0.5),
            "a/b": ("x", np.arange(5, dtype="int8")),
            7: ("time", np.arange(4, dtype="uint16"), {3: np.float32(1.5), "nan": float("nan")}),
        },
        coords={
            "time": times,
            "member": ["first", "second"],
            "lead": ("member", np.array([6, 12], dtype="timedelta64[s]")),
            "valid_time": (("member", "time"), times.values + np.array([[6], [12]], "m8[h]")),
            "run": ("time", np.array(["a", "b", "ü", "a"], dtype=object)),
            "station": ("time", np.array([b"xy", b"z", b"xy", b"\xff"])),
            "y": np.array([3.0, 2.0, 1.0], dtype="f4"),
            "half": ("y", np.array([0.5, np.nan, 1.0], dtype="f2")),
            "x": np.arange(5, dtype=">i4"),
            "area": (("y", "x"), rng.random((3, 5)), {"cell": [1, 2]}),
            "height": 2.0,
            "reference": cftime.datetime(1999, 12, 30, 6, calendar="360_day"),
            "gaps": ("time", np.array(["2000-01-01", "NaT", "NaT", "2000"], dtype="M8[s]")),
        },
        attrs={"history": "made up", "levels": np.arange(3)},
    )


def test_labels_of_all_sorts_come_back():
    given = made_up()
    given.sst.encoding = {"dtype": np.dtype("i2"), "scale_factor": 0.01, "_FillValue": np.int16(-1)}
    given.run.encoding = {"dtype": str, "zlib": True, "chunksizes": (2,)}
    given.station.encoding = {"dtype": np.dtype("S1"), "char_dim_name": "letters"}
    given.time.encoding = {"units": "days since 1900-01-01", "_FillValue": float("nan")}
    given.encoding = {"unlimited_dims": {"time"}, "source": "somewhere.nc"}
    assert_same(round_trip(given, ["sst"]), given)


def test_a_multi_index_comes_back():
    pairs = pd.MultiIndex.from_product([[2000, 2001], ["djf", "jja"]], names=["year", "season"])
    given = made_up().drop_vars("time").rename(time="z")
    given = given.assign_coords(xr.Coordinates.from_pandas_multiindex(pairs, "z"))
    given.z.attrs["long_name"] = "year and season"
    given.year.attrs["axis"] = "T"
    found = round_trip(given, ["sst"], "z")
    assert_same(found, given)
    xr.testing.assert_identical(found.sel(year=2001), given.sel(year=2001))


@pytest.mark.parametrize("calendar", ["360_day", "noleap", "all_leap", "julian", "standard"])
def test_dates_of_every_calendar_come_back_to_the_microsecond(calendar: str):
    dates = xr.date_range("1850-02-28", periods=7, calendar=calendar, use_cftime=True, freq="7h")
    dates = dates.shift(1, "us")
    given = xr.Dataset({"v": (("time", "y", "x"), np.zeros((7, 2, 2)))}, coords={"time": dates})
    assert_same(round_trip(given, ["v"]), given)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_of_every_unit_come_back(unit: str):
    times = np.array(["1950-01-01", "NaT", "2261-12-31"], dtype=f"M8[{unit}]")
    given = xr.Dataset({"v": (("t", "y", "x"), np.zeros((3, 2, 2)))}, coords={"when": ("t", times)})
    assert_same(round_trip(given, ["v"], "t"), given)


@pytest.mark.parametrize("name", [None, "sst", "time", 3])
def test_an_array_opens_by_open_dataarray_whatever_its_name(name: Any):
    given = made_up().sst.drop_vars("reference").rename(name)
    found = round_trip(given, [name])
    # what `xarray.open_dataarray` does with the only variable of a Dataset
    (variable,) = found.data_vars.values()
    own = found.attrs.get("__xarray_dataarray_name__", variable.name)
    xr.testing.assert_identical(variable.rename(None if own == PLACEHOLDER else own), given)


def test_a_dimension_without_coordinate_gets_none_and_one_without_index_gets_none():
    given = made_up().drop_vars("time").drop_indexes("x").set_xindex("run")
    assert_same(round_trip(given, ["sst"]), given)


def test_coordinates_among_other_variables_keep_their_places():
    given = made_up().set_coords(["flag", 7]).reset_coords(["area", "gaps"])
    assert_same(round_trip(given, ["sst"]), given)


def test_a_single_snapshot_comes_back():
    given = made_up().isel(time=1)
    assert_same(round_trip(given, ["sst"], None), given)


def test_numbers_beside_stay_lazy(no_compute: Callable):
    given = made_up().drop_vars(["run", "station"])
    lazy = dask.array.zeros((4, 3, 5), chunks=(1, 3, 5))
    given["rain"] = (("time", "y", "x"), lazy)
    with no_compute():
        record, static, rows = describe(given, ["sst"], "time", ("y", "x"))
        static = {name: variable.values for name, variable in static.items()}
        rows = {name: variable.data for name, variable in rows.items()}
        found = assemble(record, static, rows, {"sst": given.sst.variable})
    assert isinstance(rows["rain"], dask.array.Array)
    assert isinstance(found.rain.data, dask.array.Array)


def test_no_rows_are_rows():
    for each in describe(made_up(), ["sst"], "time", ("y", "x")).record["variables"]:
        if each["kind"] == "rows":
            none = from_plain(each, np.zeros(0, dtype=each["plain"]))
            assert none.shape == (0,)
            assert none.dtype == each["dtype"]


def test_text_in_memory_and_text_of_a_file_are_appended_to_each_other():
    first, second = halves()
    second["run"] = second.run.astype(str)
    assert appended(first, second).run.values.tolist() == ["a", "b", "ü", "a"]


def test_nothing_of_the_users_is_changed():
    given = made_up()
    before = given.copy(deep=True)
    round_trip(given, ["sst"])
    assert_same(given, before)


def test_what_no_number_text_or_time_holds_is_left_out_with_a_warning():
    given = made_up().assign_coords(odd=("time", np.array([None, "a", 1, "b"], dtype=object)))
    with pytest.warns(UserWarning, match="'odd' holds neither numbers, text nor times"):
        found = round_trip(given, ["sst"])
    assert_same(found, given.drop_vars("odd"))


def test_a_name_that_json_cannot_hold_is_refused():
    given = made_up().rename({7: ("a", "b")})
    with pytest.raises(ArchiveError, match=r"\('a', 'b'\) is of type tuple"):
        describe(given, ["sst"], "time", ("y", "x"))


def test_another_level_has_its_own_horizontal_coordinates():
    given = made_up()
    record, static, rows = as_written(describe(given, ["sst"], "time", ("y", "x")))
    decoded = {name: from_plain(stored(record)[name], values) for name, values in rows.items()}
    coarse = given.sst.isel(y=slice(2), x=slice(3)).variable
    level = xr.Dataset(coords={"y": [2.5, 0.5], "x": ("x", [0.5, 2.5, 4.5], {"axis": "X"})})
    found = assemble(record, static, decoded, {"sst": coarse}, level)
    gone = ["flag", "mask", "a/b", "area", "half", "x", "y"]
    expected = given.drop_vars(gone).drop_vars("sst").assign(sst=coarse).assign_coords(level.coords)
    xr.testing.assert_identical(found, expected)
    assert {"x", "y"} <= set(found.indexes)


def appended(given: xr.Dataset, later: xr.Dataset) -> xr.Dataset:
    """`given` archived, `later` appended, the whole opened."""
    record, static, rows = as_written(describe(given, ["sst"], "time", ("y", "x")))
    new = describe(later, ["sst"], "time", ("y", "x"))
    ordered = order(record)
    last = None if ordered is None else from_plain(ordered, rows[ordered["stored"]][-1:])
    record = through_json(check_append(record, static, last, new))
    decoded = {}
    for name, values in rows.items():
        each = stored(record)[name]
        both = np.concatenate([values, to_plain(each, new.rows[name].values)])
        decoded[name] = from_plain(each, both)
    whole = xr.concat([given.sst, later.sst], "time").transpose(*given.sst.dims)
    return assemble(record, static, decoded, {"sst": whole.variable})


def halves() -> tuple[xr.Dataset, xr.Dataset]:
    given = made_up()
    return given.isel(time=slice(2)), given.isel(time=slice(2, None))


def test_what_is_appended_comes_back_behind_the_rest():
    first, second = halves()
    second = second.assign_coords(
        run=("time", ["a longer text", "a"]), station=("time", [b"longer", b"xy"])
    )
    found = appended(first, second[[*second.variables][::-1]])
    expected = xr.concat([first, second], "time", data_vars="minimal", coords="minimal")
    dims = ("time", "member", "y", "x")
    xr.testing.assert_identical(found.transpose(*dims), expected.transpose(*dims))
    assert found.valid_time.dims == first.valid_time.dims
    assert found.station.dtype == "S6"


def test_rows_without_a_coordinate_are_appended():
    first, second = (half.drop_vars(["time", "gaps"]) for half in halves())
    assert appended(first, second).sizes["time"] == 4


@pytest.mark.parametrize("days", [29, 60])
def test_times_that_overlap_or_go_backwards_are_refused(days: int):
    first, second = halves()
    second["time"] = second.time - pd.Timedelta(days=days)  # 29 days: the archive's last time
    with pytest.raises(ArchiveError, match=r"'time' must increase.*2000-02-01.*comes") as error:
        appended(first, second)
    assert str(second.time.values[0]) in str(error.value)


def test_times_out_of_order_are_refused_naming_both():
    first, second = halves()
    with pytest.raises(ArchiveError, match=r"data to append have 2000-04-01.*comes 2000-03-01"):
        appended(first, second.isel(time=[1, 0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("flag"), "variables: the archive has .*'flag'"),
        (lambda d: d.assign(sst=d.sst.assign_attrs(units="C")), "units of 'sst': .*'K'.*'C'"),
        (lambda d: d.assign(sst=d.sst.astype("f4")), "type of 'sst': .*float64.*float32"),
        (lambda d: d.assign_coords(x=d.x + 1), r"'x' does not lie.*\[0 1 2.*\[1 2 3"),
        (lambda d: d.assign_coords(member=["first", "third"]), "'member' .*'second'.*'third'"),
        (lambda d: d.isel(member=[0]), "sizes: .*'member': 2.*'member': 1"),
        (lambda d: d.assign(mask=~d.mask), "'mask' does not lie along the rows"),
        (lambda d: d.assign_coords(height=("time", [2.0, 2.0])), "kind of 'height'"),
    ],
)
def test_data_that_do_not_agree_are_refused_naming_both_sides(
    change: Callable[[xr.Dataset], xr.Dataset], message: str
):
    first, second = halves()
    with pytest.raises(ArchiveError, match=message):
        appended(first, change(second))


def test_times_finer_than_the_archives_unit_are_refused():
    first, second = halves()
    second["gaps"] = second.gaps.astype("M8[ns]") + np.timedelta64(1, "ns")
    with pytest.raises(ArchiveError, match=r"'gaps' .*without rounding"):
        appended(first, second)
