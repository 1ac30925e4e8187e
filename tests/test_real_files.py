"""The main job on real files, end to end."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from helpers import (
    AVISO,
    CMAP,
    CYLINDER,
    ERSST,
    HADGEM,
    ICE,
    LAND_SEA_MASK,
    MITGCM,
    NEMO,
    open_real,
)

import xmrcae

QUICK = {"max_epochs": 5, "progress": False}
ERSST_OPTIONS = {"levels": 4, "tolerance": [0.4, 0.3, 0.2, 0.15], **QUICK}


@pytest.fixture(scope="module")
def sst(real_file: Callable[[str], Path]) -> xr.DataArray:
    return open_real(real_file, ERSST).sst


@pytest.fixture(scope="module")
def fitted(sst: xr.DataArray) -> xmrcae.MrCAE:
    return sst.mrcae.fit(**ERSST_OPTIONS)


def assert_same_model(one: xmrcae.MrCAE, other: xmrcae.MrCAE) -> None:
    """The same losses, maps and weights, to the bit."""
    xr.testing.assert_identical(
        one.history.drop_vars("seconds"), other.history.drop_vars("seconds")
    )
    for level in range(one.levels):
        a, b = one.refinement_map(level=level), other.refinement_map(level=level)
        assert np.array_equal(a.sortby("lat").values, b.sortby("lat").transpose(*a.dims).values)
    networks = (model.fitted.codec.network.state_dict() for model in (one, other))
    for a, b in zip(*(network.values() for network in networks), strict=True):
        assert a.equal(b)


def test_nan_exactly_where_not_valid(sst: xr.DataArray, fitted: xmrcae.MrCAE) -> None:
    again = fitted.reconstruct(sst)
    assert np.array_equal(np.isnan(again), np.isnan(sst))
    assert again.dims == sst.dims and again.dtype == np.float32
    assert again.attrs["units"] == "degC"


def test_values_under_land_change_nothing(sst: xr.DataArray, fitted: xmrcae.MrCAE) -> None:
    valid = sst.notnull().any("time")
    noise = np.random.default_rng(0).normal(300, 1000, sst.shape).astype("float32")
    other = sst.where(valid, sst.copy(data=noise)).mrcae.fit(valid=valid, **ERSST_OPTIONS)
    assert_same_model(fitted, other)
    assert np.array_equal(
        fitted.reconstruct(sst).values, other.reconstruct(sst).values, equal_nan=True
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda da: da.isel(lat=slice(None, None, -1)),
        lambda da: da.transpose("lon", "time", "lat"),
        lambda da: da.chunk(time=7, lat=30, lon=50),
    ],
    ids=["reversed latitude", "transposed", "odd chunks"],
)
def test_order_orientation_and_chunks_change_no_bit(
    sst: xr.DataArray, fitted: xmrcae.MrCAE, change: Callable[[xr.DataArray], xr.DataArray]
) -> None:
    changed = change(sst)
    other = changed.mrcae.fit(**ERSST_OPTIONS)
    assert_same_model(fitted, other)
    again = other.reconstruct(changed)
    assert again.dims == changed.dims
    assert np.array_equal(again["lat"], changed["lat"])
    xr.testing.assert_equal(
        again.transpose(*sst.dims).sortby("lat"), fitted.reconstruct(sst).sortby("lat")
    )


def test_encode_accepts_longitudes_of_the_other_convention(
    sst: xr.DataArray, fitted: xmrcae.MrCAE
) -> None:
    rolled = sst.assign_coords(lon=(sst.lon + 180) % 360 - 180).sortby("lon")
    again = fitted.reconstruct(rolled)
    assert np.array_equal(again["lon"], rolled["lon"])
    expected = fitted.reconstruct(sst).values[:, :, np.searchsorted(sst.lon, rolled.lon % 360)]
    assert np.array_equal(again.values, expected, equal_nan=True)


def test_error_at_the_seam_of_longitude(sst: xr.DataArray, fitted: xmrcae.MrCAE) -> None:
    error = ((fitted.reconstruct(sst) - sst) ** 2).mean(["time", "lat"]) ** 0.5
    assert float(error.isel(lon=[0, -1]).max() / error.mean()) <= 1.5


def test_coarse_coordinates_are_subsets_of_the_fine(
    sst: xr.DataArray, fitted: xmrcae.MrCAE
) -> None:
    tree, codes = sst.mrcae.pyramid(levels=4), fitted.encode(sst)
    for level in range(3):
        decoded = fitted.decode(codes, level=level)
        for dim in ("lat", "lon"):
            assert set(decoded[dim].values) <= set(tree[f"level_{level + 1}"][dim].values)
            assert np.array_equal(decoded[dim], tree[f"level_{level}"][dim])


def test_nothing_is_computed_when_built(
    sst: xr.DataArray, fitted: xmrcae.MrCAE, no_compute: Callable
) -> None:
    lazy = sst.chunk(time=20)
    with no_compute():
        codes = fitted.encode(lazy)
        decoded = fitted.decode(codes, level=2)
        again, stacked = fitted.reconstruct(lazy), fitted.stack(codes)
        unstacked = fitted.unstack(stacked)
        tree = lazy.mrcae.pyramid(levels=4)
        repr(fitted), fitted._repr_html_(), fitted.refinement_count(level=3)
    assert all(
        obj.chunks
        for obj in (
            decoded,
            again,
            stacked,
            tree["level_0"]["sst"],
            unstacked["level_0"]["encoding"],
        )
    )
    xr.testing.assert_identical(again.compute(), fitted.reconstruct(sst))


def test_rebuilt_codes_decode_to_the_same_field(sst: xr.DataArray, fitted: xmrcae.MrCAE) -> None:
    codes = fitted.encode(sst)
    rebuilt = xr.DataTree.from_dict({
        name: xr.Dataset({"encoding": (node["encoding"].dims, node["encoding"].values.copy())}, coords=node.coords)
        for name, node in codes.children.items()
    })  # fmt: skip
    xr.testing.assert_equal(fitted.decode(rebuilt), fitted.decode(codes))


def test_encoding_size_counts_finite_codes(sst: xr.DataArray, fitted: xmrcae.MrCAE) -> None:
    codes = fitted.encode(sst.isel(time=[0]))
    counts = [int(codes[f"level_{k}"]["encoding"].notnull().sum()) for k in range(4)]
    assert np.array_equal(np.cumsum(counts), fitted.encoding_sizes)
    assert np.array_equal(
        fitted.score(sst.isel(time=[0, 1]))["encoding_size"], fitted.encoding_sizes
    )


def test_score_is_what_decode_against_the_pyramid_gives(
    sst: xr.DataArray, fitted: xmrcae.MrCAE
) -> None:
    test = sst.isel(time=(fitted.split == "test").values)
    score, tree, codes = fitted.score(test), test.mrcae.pyramid(levels=4), fitted.encode(test)
    for level in range(4):
        error = (fitted.decode(codes, level=level) - tree[f"level_{level}"]["sst"]) ** 2
        assert np.isclose(score["rmse"][level], float(error.mean()) ** 0.5, rtol=1e-4)
        assert np.isclose(
            score["worst_pixel_rmse"][level], float(error.mean("time").max()) ** 0.5, rtol=1e-4
        )
    assert np.isclose(score["rmse_global"][3], score["rmse"][3])
    weighted = fitted.score(test, weights="area")["rmse"]
    area = np.cos(np.deg2rad(test.lat))
    finest = (fitted.reconstruct(test) - test) ** 2
    assert np.isclose(weighted[3], float(finest.weighted(area).mean()) ** 0.5, rtol=1e-4)
    lazy = fitted.score(test.chunk(time=4, lat=20))
    xr.testing.assert_allclose(lazy, score)


def test_unseen_times_keep_their_own_coordinates(sst: xr.DataArray, fitted: xmrcae.MrCAE) -> None:
    later = sst.isel(time=slice(3)).assign_coords(time=sst.time[:3] + np.timedelta64(36500, "D"))
    later = later.assign_coords(run=("time", ["a", "b", "c"]), height=2.0)
    again = fitted.reconstruct(later)
    assert again["time"].identical(later["time"]) and list(again["run"].values) == ["a", "b", "c"]
    assert float(again["height"]) == 2.0
    snapshot = fitted.reconstruct(later.isel(time=1))
    xr.testing.assert_equal(snapshot, again.isel(time=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ersst", "mediterranean", "two_modes", "drifting_mode"])
def test_coarse_levels_stay_good_by_default(real_file: Callable[[str], Path], name: str) -> None:
    if name == "ersst":
        da = open_real(real_file, ERSST).sst
        options: dict = {"levels": 4, "tolerance": [0.4, 0.3, 0.2, 0.15], "max_epochs": 50}
    elif name == "mediterranean":
        da = open_real(real_file, AVISO).adt
        options = {"gaps": "mask", "tolerance": 0.005, "max_epochs": 50}
    else:
        recipe = xmrcae.recipes[name]
        da, options = (
            getattr(xmrcae.datasets, name)(),
            {key: recipe[key] for key in ("levels", "tolerance")},
        )
    model = da.mrcae.fit(progress=False, **options)
    history = model.history.to_dataframe()
    own = np.sqrt(history.groupby("level")["train_mse"].last()) * float(
        model.fitted.codec.standards[0].scale[0]
    )
    train = da.isel({da.dims[0]: (model.split == "training").values})
    assert (model.score(train)["rmse"].values <= 1.2 * own.values).all()
    ends = history.groupby(["level", "group"])["train_loss"].last()
    assert (ends <= ends.groupby("level").shift() * (1 + 1e-5))[
        ends.index.get_level_values(1) > 0
    ].all()


def test_cftime_and_scalar_coordinates(real_file: Callable[[str], Path]) -> None:
    da = open_real(real_file, HADGEM).air_temperature
    model = da.mrcae.fit(**QUICK)
    again = model.reconstruct(da)
    assert again["time"].identical(da["time"])
    for name in ("forecast_reference_time", "height", "forecast_period"):
        assert again[name].identical(da[name])
    assert again.attrs["units"] == "K" and again.attrs["standard_name"] == "air_temperature"
    codes = model.encode(da)
    assert not {"units", "standard_name"} & set(codes["level_0"]["encoding"].attrs)
    assert float(model.score(da)["rmse"][-1]) < float(da.std("time").mean())


def test_monthly_centring_with_dates(real_file: Callable[[str], Path]) -> None:
    da = open_real(real_file, ERSST).sst
    model = da.mrcae.fit(center="month", levels=2, **QUICK)
    january = da.isel(time=slice(0, None, 12))
    xr.testing.assert_equal(
        model.reconstruct(january), model.reconstruct(da).isel(time=slice(0, None, 12))
    )
    with pytest.raises(ValueError, match="dates"):
        da.assign_coords(time=np.arange(128)).mrcae.fit(center="month", sample="time", **QUICK)


def test_few_rows(real_file: Callable[[str], Path]) -> None:
    da = open_real(real_file, CMAP).precip
    model = da.mrcae.fit(**QUICK)
    assert model.levels == 2
    assert model.reconstruct(da).sizes == da.sizes


def test_two_variables_without_a_time_coordinate(real_file: Callable[[str], Path]) -> None:
    ds = open_real(real_file, CYLINDER).isel(time=slice(30, None))
    model = ds.mrcae.fit(["u", "v"], **QUICK)
    again = model.reconstruct(ds)
    assert list(again.data_vars) == ["u", "v"] and again["step"].identical(ds["step"])
    assert np.array_equal(np.isnan(again["v"]), np.isnan(ds["v"]))
    assert model.score(ds)["rmse"].dims == ("level", "variable")
    both = xmrcae.MrCAE(**QUICK).fit(ds[["u", "v"]])
    assert np.array_equal(both.reconstruct(ds)["u"], again["u"], equal_nan=True)
    with pytest.raises(TypeError, match="Dataset"):
        model.encode(ds.u)


def test_two_dimensional_coordinates(real_file: Callable[[str], Path]) -> None:
    tos = open_real(real_file, NEMO).tos
    rng = np.random.default_rng(0)
    times = xr.concat(
        [tos.isel(time_counter=0) + rng.normal(0, 1, ()) for _ in range(12)], "time_counter"
    )
    da = times + xr.DataArray(rng.normal(0, 0.1, times.shape).astype("float32"), dims=times.dims)
    model = da.mrcae.fit(sample="time_counter", **QUICK)
    again = model.reconstruct(da)
    assert again["nav_lat"].identical(da["nav_lat"])
    coarse = model.decode(model.encode(da), level=0)
    assert coarse["nav_lon"].dims == ("y", "x")
    assert np.isin(coarse["nav_lon"].values, da["nav_lon"].values).all()


def test_gaps_in_time_are_refused_with_a_count_and_the_ways_out(
    real_file: Callable[[str], Path],
) -> None:
    da = open_real(real_file, AVISO).adt
    with pytest.raises(ValueError, match="9 pixels") as error:
        da.mrcae.fit(**QUICK)
    assert all(way in str(error.value) for way in ('gaps="mask"', 'gaps="mean"', "193"))
    model = da.mrcae.fit(gaps="mask", levels=2, **QUICK)
    assert int(model.reconstruct(da).isel(time=0).notnull().sum()) == 16728
    filled = da.mrcae.fit(gaps="mean", levels=2, **QUICK)
    assert int(filled.reconstruct(da).isel(time=0).notnull().sum()) == 16737
    kept = filled.reconstruct(da, keep_gaps=True)
    assert np.array_equal(kept.isnull(), da.isnull())


def test_varying_ice_is_refused(real_file: Callable[[str], Path]) -> None:
    with pytest.raises(ValueError, match="gaps"):
        open_real(real_file, ICE, chunks={}).mrcae.fit(**QUICK)


def test_staggered_grids_and_depth_are_refused_by_name(real_file: Callable[[str], Path]) -> None:
    ds = open_real(real_file, MITGCM)
    with pytest.raises(ValueError) as error:
        ds.mrcae.fit(["UVEL", "THETA"], **QUICK)
    assert all(dim in str(error.value) for dim in ("XC", "XG", "YC", "YG"))
    with pytest.raises(ValueError, match=r"\bZ\b.*sample="):
        ds.THETA.mrcae.fit(**QUICK)


def test_land_as_zero(real_file: Callable[[str], Path]) -> None:
    ds = open_real(real_file, MITGCM)
    depths = {"sample": "Z", "split": (slice(0, 9), slice(9, 12), slice(12, None)), **QUICK}
    theta = ds.THETA.isel(time=0)
    with pytest.raises(ValueError, match="gaps in time"):  # deeper down there is more land
        theta.mrcae.fit(land_value=0.0, **depths)
    model = theta.mrcae.fit(land_value=0.0, gaps="mean", **depths)
    assert np.array_equal(model.reconstruct(theta).isel(Z=0).isnull(), (theta == 0).all("Z"))
    surface = ds.maskC.isel(Z=0, drop=True)
    named = theta.mrcae.fit(valid=surface, **depths)
    assert np.array_equal(named.reconstruct(theta).isel(Z=0).notnull(), surface)


def test_a_grid_half_a_cell_off_is_refused(real_file: Callable[[str], Path]) -> None:
    climatology = open_real(real_file, "oisst_v21_climatology.nc")
    mask = open_real(real_file, LAND_SEA_MASK).mask
    with pytest.raises(ValueError, match=r"'lon' differs first at 0, 0\.5 instead of 0\.0"):
        climatology.mrcae.fit("sst", valid=mask, **QUICK)
    model = climatology.mrcae.fit("sst", levels=2, **QUICK)
    with pytest.raises(ValueError, match="'lon'"):
        model.encode(climatology.sst.assign_coords(lon=climatology.lon + 0.5))
