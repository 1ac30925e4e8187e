"""Padding, restriction, and the lazy tree of levels."""

import copy
import itertools

import dask
import numpy as np
import pytest
import xarray as xr
from helpers import (
    AVISO,
    ERSST,
    HADGEM,
    MITGCM,
    NEMO,
    grid_of,
    layout_of,
    make_field,
    make_land,
    make_two_variables,
    open_real,
    pyramid_of,
)

from xmrcae.grid.coordinates import Grid
from xmrcae.grid.pyramid import Axis, Pyramid, restrict_known

pytestmark = pytest.mark.minimum

WEIGHTS = [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def levels_of(tree):
    """Datasets of a tree's levels, coarsest first."""
    return [tree[f"level_{k}"].to_dataset() for k in range(len(tree.children))]


def plainly_restricted(pyramid, values, has_data, level):
    """One level from the next finer one by loops over cells: section 4 of the design, for one field."""
    rows, columns = pyramid.shape(level)
    y, x = pyramid.y.inside(level), pyramid.x.inside(level)
    coarse, has = np.zeros((rows, columns)), np.zeros((rows, columns), dtype=bool)
    for i in range(y.start, y.stop):
        for j in range(columns) if pyramid.x.periodic else range(x.start, x.stop):
            if pyramid.restriction == "injection":
                if has_data[2 * i + 1, 2 * j + 1]:
                    coarse[i, j], has[i, j] = values[2 * i + 1, 2 * j + 1], True
                continue
            total = share = 0
            for di in range(3):
                for dj in range(3):
                    if has_data[2 * i + di, 2 * j + dj]:
                        total += WEIGHTS[di][dj] * values[2 * i + di, 2 * j + dj]
                        share += WEIGHTS[di][dj]
            if share:
                coarse[i, j], has[i, j] = total / share, True
    return coarse, has


def n_tasks(tree):
    """Number of tasks in the graphs of all levels together."""
    return len({key for node in levels_of(tree) for key in dict(node.__dask_graph__())})


# Sizes


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_padded_size_is_the_least_that_holds_the_data(levels, periodic):
    for size in range(2**levels, 200):
        least = next(
            n
            for q in range(1, 300)
            if (n := 2**levels * q - 1) >= size and (n - size) // 2 >= (3 if periodic else 0)
        )
        assert Axis.of(size, levels, periodic).padded == least


@pytest.mark.parametrize("periodic", [False, True])
def test_padding_is_half_on_each_side_with_the_odd_one_last(periodic):
    for size in range(8, 80):
        axis = Axis.of(size, 3, periodic)
        inside = axis.inside(2)
        before, after = inside.start, axis.padded - inside.stop
        assert inside.stop - inside.start == size
        assert after - before in (0, 1)


@pytest.mark.parametrize("periodic", [False, True])
def test_level_sits_on_every_second_point_of_the_next_finer(periodic):
    axis = Axis.of(45, 3, periodic)
    for level in range(3):
        np.testing.assert_array_equal(axis.positions(level - 1), axis.positions(level)[1::2])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_inside_is_what_lies_on_the_data(level):
    for size in range(8, 80):
        axis = Axis.of(size, 3, False)
        positions = axis.positions(level)
        expected = np.flatnonzero((positions >= 0) & (positions < size))
        np.testing.assert_array_equal(np.arange(axis.length(level))[axis.inside(level)], expected)


@pytest.mark.parametrize(("globe", "mode"), [(True, "wrap"), (False, "edge")])
def test_padding_repeats_the_edge_or_wraps(globe, mode):
    pyramid = pyramid_of(make_field(n_times=2, globe=globe))
    values = np.random.default_rng(0).random((2, *pyramid.grid.sizes))
    (top, bottom), (left, right) = (
        (axis.inside(2).start, axis.padded - axis.inside(2).stop) for axis in (pyramid.y, pyramid.x)
    )
    rows = np.pad(values, ((0, 0), (top, bottom), (0, 0)), mode="edge")
    expected = np.pad(rows, ((0, 0), (0, 0), (left, right)), mode=mode)
    np.testing.assert_array_equal(pyramid.pad(values), expected)


@pytest.mark.parametrize(
    ("sizes", "levels"),
    [
        ((89, 180), 4),
        ((128, 344), 4),
        ((64, 64), 4),
        ((37, 49), 3),
        ((16, 104), 2),
        ((9, 9), 1),
        ((3, 50), 1),
    ],
)
def test_default_levels_leave_four_bottleneck_cells(sizes, levels):
    pyramid = Pyramid.of(
        grid_of(make_field(2, sizes, globe=False)), levels=None, restriction="injection"
    )
    assert pyramid.levels == levels


def test_default_levels_are_the_most_with_four_bottleneck_cells():
    for size in range(8, 140):
        grid = Grid("y", "x", (size, 160), xr.Dataset(), (False, False), False)
        levels = Pyramid.of(grid, levels=None, restriction="injection").levels
        assert levels in (1, 4) or Axis.of(size, levels, False).length(-1) >= 4
        assert levels == 4 or Axis.of(size, levels + 1, False).length(-1) < 4


def test_too_small_a_grid_is_an_error_that_says_what_fits():
    with pytest.raises(
        ValueError, match=r"levels=5 needs at least 32 points; dimension 'lat' has 21: .*levels=4"
    ):
        make_field(n_times=2).mrcae.pyramid(levels=5)


def test_the_shorter_dimension_says_what_fits():
    with pytest.raises(ValueError, match="at most levels=2"):
        make_field(n_times=2, shape=(20, 7)).mrcae.pyramid(levels=5)


@pytest.mark.parametrize("size", [0, 1])
def test_a_grid_without_extent_is_an_error(size):
    with pytest.raises(ValueError, match=rf"dimension 'lat' has {size}: choose a larger grid"):
        make_field(n_times=2).isel(lat=slice(size)).mrcae.pyramid()


# Restriction


@pytest.mark.parametrize("restriction", ["full_weighting", "injection"])
@pytest.mark.parametrize("globe", [True, False])
@pytest.mark.parametrize("shape", [(21, 30), (16, 24)])
def test_restriction_is_that_of_plain_loops(restriction, globe, shape):
    field = make_field(n_times=1, shape=shape, dtype=np.float64, globe=globe)
    pyramid = pyramid_of(field, restriction=restriction)
    values = pyramid.pad(field.values[0])
    has_data = np.isfinite(values) & pyramid.may_have_data(2)
    for level in (1, 0):
        expected, expected_has = plainly_restricted(pyramid, values, has_data, level)
        values, has_data = pyramid.restrict(values, has_data, level)
        np.testing.assert_array_equal(has_data, expected_has)
        np.testing.assert_allclose(values, expected, rtol=1e-14)


def test_what_has_no_data_is_not_looked_at():
    pyramid = pyramid_of(make_field(n_times=1))
    values = np.random.default_rng(0).random(pyramid.shape(2))
    has_data = pyramid.pad(make_land((21, 30)))
    expected = pyramid.restrict(values, has_data, 1)
    changed = pyramid.restrict(np.where(has_data, values, np.inf), has_data, 1)
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize("restriction", ["full_weighting", "injection"])
def test_constant_field_stays_constant(restriction):
    field = make_field(n_times=2)
    constant = field.where(field.isnull(), 3.7)
    for node in levels_of(constant.mrcae.pyramid(levels=3, restriction=restriction)):
        assert node.sst.notnull().any()
        np.testing.assert_allclose(node.sst.values[node.sst.notnull()], 3.7, rtol=1e-6)


def test_weighted_mean_stays_within_the_fine_extremes(real_file):
    field = open_real(real_file, AVISO).adt.isel(time=slice(0, 3))
    nodes = levels_of(field.mrcae.pyramid(levels=3))
    for coarse, fine in itertools.pairwise(nodes):
        assert float(coarse.adt.max()) <= float(fine.adt.max())
        assert float(coarse.adt.min()) >= float(fine.adt.min())


def test_finest_level_is_the_data(real_file):
    field = open_real(real_file, ERSST).sst.isel(time=slice(0, 3))
    finest = field.mrcae.pyramid(levels=4)["level_3"].sst
    xr.testing.assert_equal(finest, field)
    assert finest.attrs == field.attrs


@pytest.mark.parametrize("name", [ERSST, HADGEM])
def test_coarse_coordinates_are_a_subset(real_file, name):
    ds = open_real(real_file, name)
    (field,) = (ds[v] for v in ds.data_vars if ds[v].ndim == 3)
    nodes = levels_of(field.isel(time=slice(0, 2)).mrcae.pyramid(levels=3))
    for coarse, fine in itertools.pairwise(nodes):
        for dim in field.dims[1:]:
            picked = np.isin(fine[dim], coarse[dim])
            np.testing.assert_array_equal(fine[dim][picked], coarse[dim])
            assert set(np.diff(np.flatnonzero(picked))) == {2}


def test_curvilinear_coordinates_come_along(real_file):
    field = open_real(real_file, NEMO).tos
    coarse = field.mrcae.pyramid(levels=2)["level_0"].tos
    rows, columns = (
        axis.positions(0)[axis.inside(0)]
        for axis in (pyramid_of(field, levels=2).y, pyramid_of(field, levels=2).x)
    )
    xr.testing.assert_equal(coarse.nav_lat, field.isel(y=rows, x=columns).nav_lat)


def test_each_snapshot_is_averaged_over_what_it_holds():
    field = make_field(n_times=4)
    field[1, 3:9, 4:20] = np.nan
    together = field.mrcae.pyramid(levels=3)
    for t in range(4):
        alone = field.isel(time=[t]).mrcae.pyramid(levels=3)
        for whole, single in zip(levels_of(together), levels_of(alone), strict=True):
            xr.testing.assert_identical(whole.sst.isel(time=[t]), single.sst)


def test_user_valid_and_land_value_leave_pixels_out():
    field = make_field(n_times=3)
    zeros = field.fillna(0)
    expected = field.mrcae.pyramid(levels=2)
    for tree in (
        zeros.mrcae.pyramid(levels=2, land_value=0),
        zeros.mrcae.pyramid(levels=2, valid=field.notnull().all("time")),
    ):
        for node, other in zip(levels_of(tree), levels_of(expected), strict=True):
            np.testing.assert_array_equal(node.sst, other.sst)


# Orientation, order, chunks


def test_descending_latitude_gives_the_flipped_pyramid(real_file):
    field = open_real(real_file, ERSST).sst.isel(time=slice(0, 3))
    flip = {"lat": slice(None, None, -1)}
    for node, other in zip(
        levels_of(field.mrcae.pyramid(levels=3)),
        levels_of(field.isel(flip).mrcae.pyramid(levels=3)),
        strict=True,
    ):
        xr.testing.assert_identical(other.sst, node.sst.isel(flip))


def test_transposed_data_give_the_transposed_pyramid():
    field = make_field(n_times=3)
    order = ("lon", "time", "lat")
    for node, other in zip(
        levels_of(field.mrcae.pyramid(levels=3)),
        levels_of(field.transpose(*order).mrcae.pyramid(levels=3)),
        strict=True,
    ):
        assert other.sst.dims == order
        xr.testing.assert_identical(other.sst, node.sst.transpose(*order))


@pytest.mark.parametrize(
    "chunks", [{"time": 3, "lat": 7, "lon": 11}, {"time": (1, 5, 2, 3), "lat": -1, "lon": 30}]
)
@pytest.mark.parametrize("restriction", ["full_weighting", "injection"])
def test_dask_equals_numpy_to_the_bit(chunks, restriction):
    field = make_field(n_times=11)
    lazy = field.chunk(chunks).mrcae.pyramid(levels=3, restriction=restriction)
    for node, other in zip(
        levels_of(field.mrcae.pyramid(levels=3, restriction=restriction)),
        levels_of(lazy),
        strict=True,
    ):
        xr.testing.assert_identical(other.compute().sst, node.sst)


def test_variables_of_a_dataset_are_each_their_own():
    ds = make_two_variables(n_times=3)
    tree = ds.mrcae.pyramid(["sst", "ssh"], levels=2)
    for name in ds.data_vars:
        for node, other in zip(
            levels_of(tree), levels_of(ds[name].mrcae.pyramid(levels=2)), strict=True
        ):
            np.testing.assert_array_equal(node[name], other[name])


def test_several_sample_dimensions_stay(real_file):
    field = open_real(real_file, MITGCM).THETA
    coarse = field.mrcae.pyramid(levels=2, sample=["time", "Z"])["level_0"].THETA
    assert coarse.dims == field.dims
    alone = field.isel(Z=4).mrcae.pyramid(levels=2)["level_0"].THETA
    np.testing.assert_array_equal(coarse.isel(Z=4), alone)


# Laziness


def test_nothing_computes_and_everything_stays_lazy(real_file, no_compute):
    field = open_real(real_file, ERSST, chunks={"time": 16}).sst
    with no_compute():
        tree = field.mrcae.pyramid(levels=4)
    assert all(dask.is_dask_collection(node.sst.variable.data) for node in levels_of(tree))


def test_graph_grows_linearly_with_chunks():
    field = make_field(n_times=64, shape=(40, 40))
    small, middle, large = (
        n_tasks(field.chunk(time=64 // n).mrcae.pyramid(levels=3)) for n in (4, 8, 16)
    )
    assert large - middle <= 2.2 * (middle - small)
    assert large <= 16 * 3 * 8


def test_one_spatial_chunk_and_sample_chunks_that_keep_their_bytes():
    field = make_field(n_times=200, shape=(63, 95)).chunk(time=2, lat=20)
    nodes = levels_of(field.mrcae.pyramid(levels=3))
    for node in nodes:
        chunks, itemsize = node.sst.chunks, node.sst.dtype.itemsize
        assert [len(along) for along in chunks[1:]] == [1, 1]
        heaviest = max(chunks[0]) * chunks[1][0] * chunks[2][0] * itemsize
        assert 0.5 <= heaviest / (2 * 63 * 95 * itemsize) <= 1.5
    assert len(nodes[0].sst.chunks[0]) < len(nodes[1].sst.chunks[0]) < len(nodes[2].sst.chunks[0])


# Encoding grids


@pytest.mark.parametrize("level", [0, 1, 2])
def test_encoding_coordinates_continue_by_the_last_spacing(level):
    field = make_field(n_times=2, shape=(21, 29), globe=False)
    pyramid = pyramid_of(field)
    coords = pyramid.encoding_coordinates(level)
    for dim, axis in (("lat", pyramid.y), ("lon", pyramid.x)):
        values, spacing = field[dim].values, float(field[dim][1] - field[dim][0])
        np.testing.assert_allclose(
            coords[dim], values[0] + spacing * axis.positions(level - 1), atol=1e-10
        )
        assert coords[dim].attrs == field[dim].attrs


@pytest.mark.parametrize("level", [1, 2])
def test_inside_marks_the_coarser_level(level):
    field = make_field(n_times=2, shape=(16, 24), globe=False)
    pyramid = pyramid_of(field)
    cells, coarser = pyramid.encoding_coordinates(level), pyramid.coordinates(level - 1)
    expected = np.isin(cells.lat, coarser.lat)[:, None] & np.isin(cells.lon, coarser.lon)
    assert cells.inside.dims == ("lat", "lon")
    assert expected.any() and not expected.all()
    np.testing.assert_array_equal(cells.inside, expected)


def test_bottleneck_may_lie_outside_the_data_altogether():
    pyramid = pyramid_of(make_field(n_times=2, shape=(8, 8), globe=False))
    cells = pyramid.encoding_coordinates(0)
    expected = (cells.lat >= -60) & (cells.lat <= 60) & (cells.lon >= 0) & (cells.lon <= 7)
    np.testing.assert_array_equal(cells.inside, expected)


def test_encoding_longitude_goes_on_over_greenwich():
    field = make_field(n_times=2)
    over = field.assign_coords(lon=(field.lon.values + 12) % 360)
    assert float(over.lon[-1]) < float(over.lon[-2])
    longitude = pyramid_of(over).encoding_coordinates(2).lon.values
    np.testing.assert_allclose(np.diff(longitude) % 360, 24)
    assert np.abs(longitude).max() < 720


def test_curvilinear_encoding_coordinates_are_missing_outside(real_file):
    field = open_real(real_file, NEMO).tos
    cells = pyramid_of(field).encoding_coordinates(1)
    np.testing.assert_array_equal(cells.nav_lat.notnull(), cells.inside)
    coarser = pyramid_of(field).coordinates(0).nav_lat.values
    np.testing.assert_array_equal(cells.nav_lat.values[cells.inside.values], coarser.ravel())


# Manners


def test_nothing_of_the_users_data_changes():
    field = make_field(n_times=3)
    before = copy.deepcopy(field)
    field.mrcae.pyramid(levels=2, land_value=0)
    xr.testing.assert_identical(field, before)


def test_pyramid_says_how_it_was_made():
    tree = make_field(n_times=2).mrcae.pyramid(levels=2, restriction="injection")
    for node in (tree, *tree.children.values()):
        assert '"restriction": "injection"' in node.attrs["xmrcae_options"]
        assert node.attrs["xmrcae_version"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_precision_stays(dtype):
    assert make_field(n_times=2, dtype=dtype).mrcae.pyramid(levels=2)["level_0"].sst.dtype == dtype


def test_layout_leaves_out_dimensions_of_length_1():
    field = make_field(n_times=2).expand_dims(depth=[0.0])
    np.testing.assert_array_equal(layout_of(field).array(field)[:, 0], field.values[0])


@pytest.mark.parametrize("gaps", ["the same at all times", "at one time alone"])
def test_snapshots_restricted_together_are_those_restricted_one_by_one(gaps):
    field = make_field(n_times=4)
    values, pyramid = field.values[:, None].copy(), pyramid_of(field, levels=2)
    values[(slice(None) if gaps == "the same at all times" else 2), :, 3:6, 4:8] = np.nan
    together = restrict_known(pyramid, values)
    for t in range(len(values)):
        for many, one in zip(together, restrict_known(pyramid, values[t]), strict=True):
            np.testing.assert_array_equal(many[t], one)
    assert len(np.unique(np.isnan(together[0]).sum((1, 2, 3)))) == (1 if "same" in gaps else 2)
