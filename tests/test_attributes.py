"""What attributes say of numbers is used or refused: units, fill values, scale factors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from helpers import make_field, make_land, make_two_variables, prepare_with

import xmrcae
from xmrcae.grid.values import plain_numbers

QUICK = {"levels": 2, "max_epochs": 1, "progress": False}


USES = {
    "encode": lambda model, obj: model.encode(obj),
    "reconstruct": lambda model, obj: model.reconstruct(obj),
    "score": lambda model, obj: model.score(obj),
    "start": lambda model, obj: xmrcae.MrCAE(**QUICK).fit(obj, start=model),
}
every_use = pytest.mark.parametrize("use", USES.values(), ids=USES)


# Units


@every_use
@pytest.mark.parametrize("units", ["K", "degF", "1"])
def test_data_in_other_units_are_refused_with_both(
    model: xmrcae.MrCAE, field: xr.DataArray, use: Callable, units: str
) -> None:
    other = field.assign_attrs(units=units)
    for obj in (other, other.chunk(time=5), other.to_dataset()):
        with pytest.raises(
            ValueError, match=rf"sst have units='{units}'.*'degC'.*their attribute `units`"
        ):
            use(model, obj)


@pytest.mark.parametrize(
    "units", ["Celsius", "degrees_celsius", " deg_C", ["K"], np.array(["K"]), 1, None]
)
def test_the_same_units_and_unknown_ones_change_nothing(
    model: xmrcae.MrCAE, field: xr.DataArray, units: Any
) -> None:
    again = model.reconstruct(field.assign_attrs(units=units))
    xr.testing.assert_identical(again, model.reconstruct(field))
    xr.testing.assert_identical(
        model.reconstruct(field.drop_attrs()).drop_attrs(), again.drop_attrs()
    )


def test_a_model_of_unknown_units_takes_any(field: xr.DataArray) -> None:
    for unknown in (field.drop_attrs(deep=False), field.assign_attrs(units=["degC"])):
        model = unknown.mrcae.fit(**QUICK)
        assert np.isfinite(model.score(field)["rmse"]).all()


def test_units_of_every_variable_are_compared() -> None:
    ds = make_two_variables(n_times=20)
    ds["ssh"].attrs["units"] = "m s-1"
    model = ds.mrcae.fit(["sst", "ssh"], **QUICK)
    ds["ssh"].attrs["units"] = "m/s"
    assert np.isfinite(model.score(ds)["rmse"]).all()
    ds["ssh"].attrs["units"] = "cm/s"
    with pytest.raises(ValueError, match=r"ssh have units='cm/s'.*'m s-1'"):
        model.score(ds[["ssh", "sst"]])


def test_a_finer_level_is_in_the_same_units() -> None:
    fine = make_field(shape=(31, 40))
    coarse = fine.isel(lat=slice(1, None, 2), lon=slice(1, None, 2))
    model = coarse.mrcae.fit(levels=2, max_epochs=1, progress=False)
    with pytest.raises(ValueError, match="sst have units='K'"):
        model.refine(fine.assign_attrs(units="K"))


@pytest.mark.parametrize(
    "units", [["degC"], np.array(["a", "b"], object), np.array([1, 2]), 1, None, []]
)
def test_units_that_are_no_text_break_nothing(
    field: xr.DataArray, units: Any, tmp_path: Path
) -> None:
    odd = field.assign_attrs(units=units)
    model = odd.mrcae.fit(**QUICK)
    score = model.score(odd)
    assert np.isfinite(score["rmse"]).all() and "units" not in score["rmse"].attrs
    ds = odd.to_dataset().assign(other=field)
    assert ds.mrcae.fit(["sst", "other"], **QUICK).score(ds)["units"].values.tolist() == [
        "",
        "degC",
    ]
    unknown = field.drop_attrs(deep=False).mrcae.fit(**QUICK)
    assert (repr(model), model._repr_html_()) == (repr(unknown), unknown._repr_html_())
    model.save(tmp_path / "model.nc")
    again = xmrcae.open_model(tmp_path / "model.nc").reconstruct(odd)
    np.testing.assert_array_equal(again.attrs["units"], units)


# Fill values


def filled(obj: Any, value: Any, **attrs: Any) -> Any:
    """The same data with a value in place of NaN, and attributes of every variable."""
    obj = obj.fillna(value)
    for each in obj.data_vars.values() if isinstance(obj, xr.Dataset) else [obj]:
        each.attrs.update(attrs)
    return obj


FILLS = {
    "_FillValue": (-999.0, {"_FillValue": np.float32(-999)}),
    "missing_value": (-999.0, {"missing_value": -999}),
    "a Python float": (np.float32(-9.99e33), {"_FillValue": -9.99e33}),
    "both": (np.float32(1e20), {"_FillValue": np.float64(1e20), "missing_value": np.float32(1e20)}),
    "several": (np.float32(0.1), {"missing_value": np.array([-1.0, 0.1])}),
    "beside NaN": (-999.0, {"_FillValue": np.nan, "missing_value": [-999.0]}),
    "text": (-999.0, {"missing_value": "-999."}),
    "neutral packing": (-999.0, {"_FillValue": -999.0, "scale_factor": 1.0, "add_offset": [0]}),
}


@pytest.mark.parametrize(("dataset", "lazy"), [(False, False), (True, True)])
@pytest.mark.parametrize(("value", "attrs"), FILLS.values(), ids=FILLS)
def test_undecoded_fill_values_are_missing(
    value: Any, attrs: Any, dataset: bool, lazy: bool
) -> None:
    names = ["sst", "ssh"] if dataset else []
    missing = make_two_variables(n_times=20) if dataset else make_field()
    stored = filled(missing, value, **attrs)
    before = stored.copy(deep=True)
    missing, obj = (each.chunk(time=7) if lazy else each for each in (missing, stored))
    fitted = [each.mrcae.fit(*([names] if names else []), **QUICK) for each in (missing, obj)]
    for result in (
        lambda m, o: m.reconstruct(o),
        lambda m, o: m.score(o).drop_attrs(),
        lambda m, o: m.encode(o),
    ):
        expected = result(fitted[0], missing)
        for found in (result(fitted[0], obj), result(fitted[1], obj)):
            xr.testing.assert_equal(found, expected)
    trees = [each.mrcae.pyramid(*([names] if names else []), levels=2) for each in (missing, obj)]
    xr.testing.assert_equal(*trees)
    xr.testing.assert_identical(stored, before)


def test_undecoded_fill_values_at_some_times_are_gaps(model: xmrcae.MrCAE) -> None:
    field = make_field()
    row, column = np.argwhere(make_land((21, 30)))[40]
    field[2:4, row, column] = np.nan
    stored = filled(field, -999.0, _FillValue=-999.0)
    with pytest.raises(ValueError, match=r"1 pixel .*\(2 values\)"):
        stored.mrcae.fit(**QUICK)
    kept = model.reconstruct(stored, keep_gaps=True)
    np.testing.assert_array_equal(kept.isnull(), field.isnull())


@pytest.mark.parametrize("lazy", [False, True])
def test_whole_numbers_have_fill_values(lazy: bool) -> None:
    field = (100 * make_field()).round()
    stored = (
        field.fillna(-32768)
        .astype(np.int16)
        .assign_attrs(_FillValue=np.int16(-32768), missing_value=1e20)
    )
    stored = stored.chunk(time=5) if lazy else stored
    found, expected = (prepare_with(each, levels=2) for each in (stored, field))
    assert found.array.dtype == np.float32
    np.testing.assert_array_equal(found.standard.valid, expected.standard.valid)
    np.testing.assert_array_equal(found.standard.centre, expected.standard.centre)


def test_results_are_without_the_attributes_that_were_used(tmp_path: Path) -> None:
    stored = filled(make_field(), -999.0, _FillValue=-999.0, missing_value=-999.0)
    results = [
        stored.mrcae.fit(**QUICK).reconstruct(stored),
        stored.mrcae.pyramid(levels=2)["level_1/sst"],
    ]
    for i, result in enumerate(results):
        assert result.attrs["units"] == "degC" and not {"_FillValue", "missing_value"} & set(
            result.attrs
        )
        result.drop_attrs(deep=False).to_netcdf(
            tmp_path / f"{i}.nc"
        )  # xarray refuses a second _FillValue


def test_a_file_that_was_opened_undecoded_is_read_as_decoding_reads_it(tmp_path: Path) -> None:
    field = make_field()
    field.encoding["_FillValue"] = np.float32(1e20)
    field.to_netcdf(tmp_path / "field.nc")
    with xr.open_dataset(tmp_path / "field.nc", mask_and_scale=False) as ds:
        assert "_FillValue" in ds.sst.attrs and float(ds.sst.max()) > 1e19
        trees = [each.mrcae.pyramid(levels=2).load() for each in (ds.sst, field)]
    xr.testing.assert_equal(*trees)


def test_a_fill_value_that_stands_nowhere_copies_nothing(field: xr.DataArray) -> None:
    assert plain_numbers(field) is field
    for value in (np.nan, -999.0):
        same = plain_numbers(field.assign_attrs(_FillValue=value))
        assert np.shares_memory(same.values, field.values) and same.attrs == field.attrs


def test_nothing_is_computed_of_lazy_data(model: xmrcae.MrCAE, no_compute: Callable) -> None:
    stored = filled(make_field(), -999.0, _FillValue=-999.0).chunk(time=5)
    with no_compute():
        model.reconstruct(stored), model.encode(stored), stored.mrcae.pyramid(levels=2)


def test_a_fill_value_that_is_no_number_is_refused(field: xr.DataArray) -> None:
    with pytest.raises(ValueError, match=r"sst have the attributes .*'missing'.*no number"):
        field.assign_attrs(missing_value="missing").mrcae.fit(**QUICK)


# Scale factors


PACKED = [{"scale_factor": 0.01}, {"add_offset": np.float32(20)}, {"scale_factor": [0.5], "add_offset": 0},
          {"scale_factor": "0.01"}, {"_Unsigned": "true"}]  # fmt: skip


@pytest.mark.parametrize("attrs", PACKED, ids=str)
def test_packed_numbers_are_refused_everywhere(
    model: xmrcae.MrCAE, field: xr.DataArray, attrs: Any
) -> None:
    name = next(iter(attrs))
    packed = field.assign_attrs(attrs)
    calls = [lambda obj, use=use: use(model, obj) for use in USES.values()]
    calls += [lambda obj: xmrcae.MrCAE(**QUICK).fit(obj), lambda obj: obj.mrcae.pyramid(levels=2)]
    for call in calls:
        for obj in (packed, packed.chunk(time=5), packed.to_dataset()):
            with pytest.raises(
                ValueError, match=rf"sst have the attributes {name}=.*xr\.decode_cf.*delete"
            ):
                call(obj)


def test_packed_numbers_are_taken_once_decoded(field: xr.DataArray) -> None:
    stored = ((field + 5) / 0.01).round().fillna(-9999).astype(np.int16)
    attrs = {"scale_factor": 0.01, "add_offset": -5.0, "_FillValue": np.int16(-9999)}
    decoded = xr.decode_cf(stored.assign_attrs(attrs).to_dataset()).sst
    found = prepare_with(decoded, levels=2)
    np.testing.assert_allclose(found.rms, prepare_with(field, levels=2).rms, rtol=1e-3)


# What a tester with odd files found


@pytest.mark.parametrize("flag", [1e20, -9.96921e36, np.inf])
def test_fill_values_of_single_precision_are_missing_in_double(flag):
    field = make_field()
    stored = field.fillna(flag).astype("float64").assign_attrs(missing_value=flag)
    np.testing.assert_array_equal(
        stored.mrcae.fit(**QUICK).reconstruct(stored).isnull(), field.isnull()
    )


def test_attributes_of_coordinates_weights_and_masks_are_read():
    field = make_field()
    model = field.mrcae.fit(**QUICK)
    halved = field.lat.copy(data=field.lat / 2).assign_attrs(scale_factor=2.0)
    with pytest.raises(ValueError, match=r"lat have the attributes scale_factor=2\.0"):
        field.assign_coords(lat=halved).mrcae.fit(**QUICK)
    ones = xr.ones_like(field[0].drop_vars("time"))
    with pytest.raises(ValueError, match="scale_factor"):
        model.score(field, weights=ones.assign_attrs(scale_factor=0.1))
    with pytest.raises(ValueError, match="weights must be finite"):
        model.score(field, weights=ones.where(field.lat > 0, 1e20).assign_attrs(_FillValue=1e20))
    mask = field[0].notnull().astype("int8").assign_attrs(scale_factor=0.5)
    with pytest.raises(ValueError, match="scale_factor"):
        field.fillna(0).mrcae.fit(valid=mask, **QUICK)


@pytest.mark.parametrize("dtype", ["complex64", str, bool, "datetime64[s]"])
def test_new_data_that_are_no_numbers_are_refused_as_by_fit(dtype):
    field = make_field(land=False)
    model = field.mrcae.fit(**QUICK)
    given = field.astype(dtype)
    for use in (model.encode, model.reconstruct, model.score):
        with pytest.raises(TypeError, match="real numbers are needed"):
            use(given)


def test_a_checkpoint_of_other_units_is_refused(tmp_path):
    field = make_field()
    field.mrcae.fit(checkpoint=tmp_path, **QUICK)
    with pytest.raises(ValueError, match=r"another fit.*other units"):
        field.assign_attrs(units="K").mrcae.fit(checkpoint=tmp_path, **QUICK)


def test_snapshots_of_the_land_value_alone_are_named():
    field = make_field().fillna(0.0)
    field[4:6] = 0
    with pytest.raises(ValueError, match=r"snapshot.*2001-0[56]"):
        field.mrcae.fit(land_value=0, **QUICK)


@pytest.mark.parametrize("chunks", [None, {"time": 5}])
def test_a_pyramid_refuses_infinities(chunks):
    field = make_field(land=False)
    field[3, 10, 10] = np.inf
    field = field if chunks is None else field.chunk(chunks)
    with pytest.raises(ValueError, match="the data hold 1 infinite values"):
        field.mrcae.pyramid(levels=2)["level_0/sst"].compute()
