"""The compressed training set, and what changes no bit of it."""

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import (
    ERSST,
    columns,
    make_field,
    make_land,
    make_two_variables,
    open_real,
    pixel_errors,
    prepare_with,
    random_network,
)

from xmrcae.grid import blocks
from xmrcae.grid.compression import SHARE, Compressed, level_data
from xmrcae.grid.dimensions import find_dimensions
from xmrcae.grid.layout import Layout
from xmrcae.grid.weights import grid_weights

pytestmark = pytest.mark.minimum

VALUES = make_land((21, 30))


def plain_levels(obj, found, *, dtype=np.float64):
    """The training snapshots themselves on every level, in place of the compressed set."""
    grid = found.pyramid.grid
    array = np.asarray(Layout.of(obj, find_dimensions(obj), grid).array(obj))[
        (found.split == "training").values
    ]
    season = found_seasons(obj, found)
    standard = found.standard.astype(np.float64)
    fields = standard.apply(standard.stand_in(array.astype(np.float64), season), season).astype(
        dtype
    )
    share = np.where(standard.valid, np.isfinite(array).mean(0), 0)
    nothing = np.zeros(share.shape)
    plain = Compressed(fields, np.ones(len(fields)), len(fields), nothing, nothing)
    return level_data(plain, found.pyramid, found.standard, grid_weights("area", grid), share)


def found_seasons(obj, found):
    """Season of each training snapshot."""
    months = obj.time.dt.month.values[(found.split == "training").values] - 1
    return months if found.standard.monthly else months * 0


def exactly_compressed(plain, found):
    """Mean and singular vectors of plain snapshots in float64, by numpy, on every level."""
    finest = plain[-1].samples[found.pyramid.cut(found.pyramid.levels - 1)]
    mean = finest.mean(0)
    departure = (finest - mean).reshape(len(finest), -1)
    _, sizes, vectors = np.linalg.svd(departure, full_matrices=False)
    z = np.concatenate(
        [np.sqrt(len(finest)) * mean[None], (sizes[:, None] * vectors).reshape(-1, *mean.shape)]
    )
    one = np.concatenate([[np.sqrt(len(finest))], np.zeros(len(sizes))])
    ones = np.ones(found.standard.valid.shape)
    weights = grid_weights(None, found.pyramid.grid)
    exact = Compressed(z, one, len(z), 0 * ones, 0 * ones)
    return level_data(exact, found.pyramid, found.standard, weights, ones)


def network_for(levels, **kwargs):
    """A random network on the grid of some levels."""
    return random_network([data.has_data for data in levels], levels[-1].counts, **kwargs)


def errors_of(network, levels):
    """Time-mean squared error of each pixel of every level, and of every level against the finest."""
    one = torch.as_tensor(levels[0].constant, dtype=network.dtype, device=network.device)
    outputs = network(columns(levels[-1].samples, network.dtype), one).outputs
    pairs = zip(outputs, levels, strict=True)
    return [
        pixel_errors(field - columns(data.samples, network.dtype), one) for field, data in pairs
    ]


def assert_same_errors(network, one_set, other_set, *, tolerance):
    """Compare the errors of two sets on all levels, relative to the level's largest."""
    for a, b in zip(errors_of(network, one_set), errors_of(network, other_set), strict=True):
        assert float((a - b).abs().max() / b.abs().max()) < tolerance


def assert_same_bits(found, other):
    """Compare everything that training reads of two training sets."""
    for a, b in zip(
        found.training + found.validation, other.training + other.validation, strict=True
    ):
        for name in ("samples", "constant", "has_data", "counts", "weights"):
            np.testing.assert_array_equal(
                getattr(a, name), getattr(b, name), err_msg=name, strict=True
            )
        assert a.rank == b.rank
    np.testing.assert_array_equal(found.standard.centre, other.standard.centre)
    np.testing.assert_array_equal(found.standard.scale, other.standard.scale)


CASES = {
    "residual": {},
    "parallel": {"widening": "parallel"},
    "injection": {"restriction": "injection"},
    "harmonic": {"fill": "harmonic"},
    "area": {"weights": "area"},
    "month": {"center": "month"},
    "minmax": {"center": False, "scale": "minmax"},
}


@pytest.mark.parametrize("globe", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_compressed_errors_are_those_of_the_snapshots(case, globe):
    options = CASES[case]
    ds = make_two_variables(n_times=20, globe=globe, dtype=np.float64)
    found = prepare_with(ds, levels=3, energy=0, **options)
    plain = plain_levels(ds, found)
    kinds = {key: value for key, value in options.items() if key in ("widening", "restriction")}
    network = network_for(plain, **kinds)
    assert_same_errors(network, exactly_compressed(plain, found), plain, tolerance=1e-12)
    assert_same_errors(network, found.training, plain, tolerance=2e-6)


@pytest.mark.parametrize("widening", ["residual", "parallel"])
def test_compressed_errors_are_those_of_the_snapshots_in_float32(widening):
    ds = make_two_variables(n_times=20)
    found = prepare_with(ds, levels=3, energy=0)
    plain = plain_levels(ds, found, dtype=np.float32)
    network = network_for(plain, widening=widening, dtype=torch.float32)
    assert_same_errors(network, found.training, plain, tolerance=1e-5)


def test_compressed_errors_are_those_of_the_snapshots_of_a_real_archive(real_file):
    field = open_real(real_file, ERSST).sst.isel(
        time=slice(0, 24), lat=slice(20, 60), lon=slice(100, 160)
    )
    found = prepare_with(field, levels=3, energy=0)
    plain = plain_levels(field, found)
    assert_same_errors(network_for(plain), found.training, plain, tolerance=2e-6)


def test_an_activation_breaks_it():
    field = make_field(n_times=20)
    found = prepare_with(field, levels=2, energy=0)
    plain = plain_levels(field, found)
    network = network_for(plain, activation="relu")
    with pytest.raises(AssertionError):
        assert_same_errors(network, found.training, plain, tolerance=1e-2)


def test_gaps_filled_by_the_mean_count_as_data():
    field = make_field(n_times=20, dtype=np.float64)
    holes = np.random.default_rng(0).random(field.shape) < 0.02
    field = field.where(~holes)
    found = prepare_with(field, levels=2, gaps="mean", energy=0, weights="area")
    plain = plain_levels(field, found)
    assert_same_errors(network_for(plain), found.training, plain, tolerance=2e-6)
    for a, b in zip(found.training, plain, strict=True):
        np.testing.assert_allclose(a.weights, b.weights, rtol=1e-12)


def test_bias_has_the_weight_of_all_snapshots():
    found = prepare_with(make_field(n_times=20), levels=2)
    for data, n in ((found.training[0], 14), (found.validation[0], 4)):
        assert data.constant[0] == np.sqrt(n)
        np.testing.assert_array_equal(data.constant[1:], 0)


def test_rank_is_at_most_that_of_the_departures():
    found = prepare_with(make_field(n_times=20), levels=2, energy=0)
    assert found.training[-1].rank == len(found.training[-1].samples) == 14


def test_rank_follows_the_data_not_their_number():
    amplitudes = np.random.default_rng(0).standard_normal((60, 3))
    modes = make_field(n_times=3, dtype=np.float64).values
    field = make_field(n_times=60, dtype=np.float64).copy(data=np.tensordot(amplitudes, modes, 1))
    assert len(prepare_with(field, levels=2, energy=0).training[-1].samples) == 4


@pytest.mark.parametrize("energy", [0.1, 0.3])
def test_variance_left_out_is_under_the_tail_at_every_pixel(energy):
    ds = make_two_variables(n_times=40)
    tolerance = {"sst": 0.5, "ssh": 80.0}
    found = prepare_with(ds, levels=2, tolerance=tolerance, energy=energy)
    data, scale = found.training[-1], found.standard.scale
    bound = energy * (np.array([0.5, 80.0]) / scale) ** 2
    squares = data.samples.astype(np.float64) ** 2 / 28
    assert 1 < data.rank < len(data.samples)
    assert (squares[data.rank :].sum(0).max((1, 2)) <= bound).all()
    assert (squares[data.rank - 1 :].sum(0).max((1, 2)) > bound).any()


def test_without_tolerance_nothing_is_left_out():
    data = prepare_with(make_field(n_times=20), levels=2, tolerance=None).training[-1]
    assert data.rank == len(data.samples)


@pytest.mark.filterwarnings("ignore:.*singular vector")  # those of the other parts
def test_memory_bounds_the_rank_and_warns_of_the_variance_lost():
    field = make_field(n_times=40)
    shape = prepare_with(field, levels=2).pyramid.shape(1)
    sample = 4 * (4 / 3 * shape[0] * shape[1] + 21 * 30)
    half = sample * (28 + 8 + 4) / 2 / SHARE  # room for half of the samples of the three parts
    with pytest.warns(
        UserWarning,
        match=r"^6 singular vectors .* 28 training .* leaves out 0\.\d+ .* 7 random .* memory=",
    ):
        found = prepare_with(field, levels=2, memory=half)
    assert [len(levels[-1].samples) for levels in found.data.values()] == [14, 4, 2]


def test_enough_memory_warns_of_nothing(recwarn):
    prepare_with(make_field(n_times=20), levels=2)
    assert not recwarn.list


def test_coarse_levels_are_the_restricted_snapshots():
    field = make_field(n_times=20, dtype=np.float64)
    found = prepare_with(field, levels=3, center=False, scale=None)
    nodes = field.mrcae.pyramid(levels=3)
    for level, data in enumerate(plain_levels(field, found)):
        cut = data.samples[found.pyramid.cut(level)][:, 0]
        expected = nodes[f"level_{level}"].sst.isel(time=(found.split == "training").values)
        np.testing.assert_allclose(cut, expected.fillna(0), rtol=1e-13)
        np.testing.assert_array_equal(
            data.counts[0][found.pyramid.cut(level)], expected.notnull().all("time")
        )


def test_padding_is_not_counted():
    for globe in (True, False):
        found = prepare_with(make_field(n_times=20, globe=globe), levels=3)
        for level, data in enumerate(found.training):
            outside = np.ones(found.pyramid.shape(level), dtype=bool)
            outside[found.pyramid.cut(level)] = False
            assert not data.counts[:, outside].any()
            assert data.has_data[:, outside].any() == globe


@pytest.mark.parametrize("fill", [0, "harmonic"])
def test_padding_repeats_the_edge_on_every_level(fill):
    found = prepare_with(make_field(n_times=20, globe=False), levels=3, fill=fill)
    for level, data in enumerate(found.training):
        y, x = found.pyramid.y.inside(level), found.pyramid.x.inside(level)
        rows, columns = found.pyramid.shape(level)
        around = ((0, 0), (0, 0), (y.start, rows - y.stop), (x.start, columns - x.stop))
        np.testing.assert_array_equal(
            data.samples, np.pad(data.samples[..., y, x], around, mode="edge")
        )


def test_wrapped_columns_carry_data():
    found = prepare_with(make_field(n_times=20), levels=3)
    data, inside = found.training[-1], found.pyramid.x.inside(2)
    right, left = data.samples[..., inside.stop :], data.samples[..., : inside.start]
    np.testing.assert_array_equal(
        right, data.samples[..., inside.start : inside.start + right.shape[-1]]
    )
    np.testing.assert_array_equal(
        left, data.samples[..., inside.stop - left.shape[-1] : inside.stop]
    )


def test_coarse_weights_are_those_of_their_own_points():
    field = make_field(n_times=20, land=False)
    found = prepare_with(field, levels=3, weights="area")
    for level, data in enumerate(found.training):
        lat = found.pyramid.coordinates(level).lat.values
        cut = data.weights[0][found.pyramid.cut(level)]
        np.testing.assert_allclose(
            cut, np.repeat(np.cos(np.deg2rad(lat))[:, None], cut.shape[1], 1)
        )


# What changes no bit


@pytest.fixture
def several_bands(monkeypatch):
    """Let the decomposition run over several bands of rows."""
    monkeypatch.setattr(blocks, "PIXEL_BLOCK_BYTES", 8 * 20 * 2 * 30 * 4)


VARIANTS = {
    "odd chunks": lambda ds: ds.chunk(time=3, lat=5, lon=7),
    "one chunk": lambda ds: ds.chunk(),
    "descending latitude": lambda ds: ds.isel(lat=slice(None, None, -1)),
    "transposed": lambda ds: ds.transpose("lon", "time", "lat"),
    "descending, transposed, in chunks": lambda ds: (
        ds.isel(lat=slice(None, None, -1)).transpose().chunk(lat=4)
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_chunks_order_and_orientation_change_no_bit(variant, several_bands):
    ds = make_two_variables(n_times=20)
    assert len(blocks.pixel_blocks((20, 2, 21, 30))) > 4
    assert_same_bits(prepare_with(ds, levels=2), prepare_with(VARIANTS[variant](ds), levels=2))


@pytest.mark.filterwarnings("ignore:.*singular vector")
def test_data_larger_than_memory_change_no_bit(several_bands):
    ds = make_two_variables(n_times=20)
    memory = 4 * 2 * 21 * 30 * 20  # bytes of the data: they are read through dask
    assert_same_bits(
        prepare_with(ds, levels=2, memory=memory),
        prepare_with(ds.chunk(time=3, lat=8, lon=11), levels=2, memory=memory),
    )


@pytest.mark.parametrize("value", [0.0, -1e30, np.nan, np.inf])
@pytest.mark.parametrize("fill", [0, "harmonic"])
def test_values_on_land_change_no_bit(value, fill):
    field, ocean = make_field(), make_land((21, 30))
    valid = xr.DataArray(ocean, dims=("lat", "lon"))
    rough = field.where(valid, np.random.default_rng(0).random(field.shape).astype(np.float32))
    found = prepare_with(rough, levels=2, valid=valid, fill=fill)
    assert_same_bits(
        found, prepare_with(rough.where(valid, np.float32(value)), levels=2, valid=valid, fill=fill)
    )


def test_values_on_land_change_no_bit_with_minmax():
    field, valid = make_field(), xr.DataArray(make_land((21, 30)), dims=("lat", "lon"))
    options = {"levels": 2, "valid": valid, "center": False, "scale": "minmax"}
    assert_same_bits(
        prepare_with(field.where(valid, 1e6), **options),
        prepare_with(field.where(valid, -1e6), **options),
    )


def test_test_snapshots_change_no_bit():
    field = make_field()
    found = prepare_with(field, levels=2, split="blocks")
    changed = field.copy(deep=True)
    changed[18:] *= 3
    assert_same_bits(found, prepare_with(changed, levels=2, split="blocks"))


def test_user_weights_come_in_any_orientation():
    field = make_field()
    weights = xr.DataArray(
        np.random.default_rng(0).random((21, 30)),
        dims=("lat", "lon"),
        coords=field.coords.to_dataset().drop_vars("time").coords,
    )
    turned = weights.isel(lat=slice(None, None, -1)).T
    assert_same_bits(
        prepare_with(field, levels=2, weights=weights),
        prepare_with(field, levels=2, weights=turned),
    )


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_bad_user_weights_are_errors(bad):
    field = make_field()
    weights = xr.ones_like(field[0], dtype=float)
    weights[3, 4] = bad
    with pytest.raises(ValueError, match="weights must be finite"):
        prepare_with(field, levels=2, weights=weights)


@pytest.mark.parametrize("kind", [complex, str, bool, "datetime64[s]"])
def test_what_is_not_a_real_number_is_an_error(kind):
    field = xr.zeros_like(make_field(), dtype=int).astype(kind)
    with pytest.raises(TypeError, match="sst are of type"):
        prepare_with(field, levels=2)
