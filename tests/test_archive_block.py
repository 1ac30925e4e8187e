"""A block decodes to its values within the bound, gaps and strays as they were."""

import re

import numpy as np
import pytest
from helpers import random_network, with_land

from xmrcae.archive.block import BlockCoder, Variable
from xmrcae.archive.decoder import Decoder
from xmrcae.archive.format import ArchiveError
from xmrcae.archive.waves import TERMS, Predictor

TIMES = 6
BOUNDS = [{"max_error": 0.1}, {"rmse": 0.05}, {"max_error": 0.1, "rmse": 0.05}, {}]


def make_decoder(empty=()):
    """A decoder of two variables; of some of them no pixel is valid."""
    land, counts = with_land()
    for has in land:
        has[list(empty)] = False
    state = random_network(land, counts).state()
    return Decoder(state, [(slice(1, None), slice(None, -1))] * 3)


def make_coder(dtypes=("f4", "f4"), offset=0.0, decoder=None, **options):
    """A coder of two variables; the second keeps pixels that the model does not know."""
    decoder = decoder or make_decoder()
    rng = np.random.default_rng(0)
    kept = decoder.valid[-1].copy()
    kept[1, 10:14] = True
    variables = []
    for v, dtype in enumerate(dtypes):
        masks = [*(valid[v] for valid in decoder.valid[:-1]), kept[v]]
        base = [offset + rng.standard_normal((12, mask.sum())) for mask in masks]
        bounded = options.get("max_error") or options.get("rmse")
        weights = rng.integers(-900, 900, len(TERMS))
        variable = Variable(
            array=f"v{v}",
            dtype=np.dtype(dtype),
            kept=kept[v],
            scale=2.0 + v,
            base=base,
            predictor=Predictor(kept[v], [int(w) for w in weights]) if bounded else None,
            classes=rng.integers(0, 8, kept[v].sum()).astype("u1"),
            **options,
        )
        variables.append(variable)
    steps = [np.full(channels.max() + 1, 0.25) for channels in decoder.channels]
    return BlockCoder(decoder, variables, steps)


def make_block(coder, times=TIMES, seed=1):
    """Codes, seasons, and values near what these decode to."""
    rng = np.random.default_rng(seed)
    codes = coder.quantise(rng.standard_normal((times, sum(coder.decoder.sizes))))
    season = rng.integers(0, 12, times)
    fields = coder.fields(codes, season, len(coder.decoder.sizes) - 1)
    fields = fields + rng.standard_normal(fields.shape)
    values = [fields[:, v].astype(each.dtype) for v, each in enumerate(coder.variables)]
    return values, codes, season


def check_round_trip(coder, values, codes, season, **bounds):
    """Encode, decode in new arrays, compare value by value; return what is stored."""
    arrays, records = coder.encode(values, codes, season)
    again = coder.decode({name: a.copy() for name, a in arrays.items()}, records, codes, season)
    for variable, given, found in zip(coder.variables, values, again, strict=True):
        assert found.dtype == given.dtype == variable.dtype
        np.testing.assert_array_equal(np.isnan(found), np.isnan(given))
        error = np.abs(found.astype("f8") - given)
        if variable.max_error is not None:
            assert np.nanmax(error, initial=0) <= variable.max_error
        if variable.rmse is not None:
            known = np.isfinite(error).sum((1, 2))
            assert (np.nansum(error**2, (1, 2)) <= variable.rmse**2 * known).all()
        record = records[variable.array]
        assert record["worst"] == np.nanmax(error, initial=0)
        assert record["squared_error"] == pytest.approx(np.nansum(error**2))
        n = max(1, np.isfinite(found).sum())
        assert record["mean"] == pytest.approx(np.nansum(found, dtype="f8") / n)
        assert record["square"] == pytest.approx(np.nansum(found.astype("f8") ** 2) / n)
    return arrays, records


# Bounds


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("dtypes", [("f4", "f4"), ("f8", "f2"), ("f2", "f4")])
def test_values_come_back_within_the_bounds(bounds, dtypes):
    coder = make_coder(dtypes, **bounds)
    arrays, records = check_round_trip(coder, *make_block(coder))
    assert set(arrays) == ({"v0", "v1"} if bounds else set())
    assert all((record["step"] > 0) == bool(bounds) for record in records.values())


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("dtypes", [("f4", "f4"), ("f8", "f2")])
def test_decoded_values_lie_within_the_range_of_those_given(bounds, dtypes):
    coder = make_coder(dtypes, **bounds)
    values, codes, season = make_block(coder)
    values = [value.clip(-1.8, 0.7) for value in values]
    arrays, records = check_round_trip(coder, values, codes, season)
    for given, found in zip(values, coder.decode(arrays, records, codes, season), strict=True):
        assert np.nanmin(given) <= np.nanmin(found) and np.nanmax(found) <= np.nanmax(given)
    for name in records:  # as in archives of before: values beyond the range are in the steps
        del records[name]["least"], records[name]["most"]
    assert min(map(np.nanmin, coder.decode(arrays, records, codes, season))) < -1.85


@pytest.mark.parametrize("times", [1, 2])
def test_a_block_may_be_short(times):
    coder = make_coder(max_error=0.1)
    check_round_trip(coder, *make_block(coder, times))


def test_steps_nearly_fill_the_bound():
    coder = make_coder(max_error=0.1)
    records = coder.encode(*make_block(coder))[1]
    for record in records.values():
        assert 0.19 < record["step"] < 0.2 and 0.09 < record["worst"] <= 0.1


def test_a_bound_of_each_snapshot_holds_where_one_is_harder_than_the_rest():
    coder = make_coder(rmse=0.05)
    values, codes, season = make_block(coder)
    fields = coder.fields(codes, season, 2)
    for v, value in enumerate(values):  # the step is at first so large that this one has all of it
        value[2] = fields[2, v] + 0.08
    records = check_round_trip(coder, values, codes, season)[1]
    assert all(record["step"] < 0.05 * np.sqrt(12) for record in records.values())


def test_large_offsets_leave_small_bounds_in_float64():
    coder = make_coder(("f8", "f8"), offset=1e5, max_error=1e-8)
    check_round_trip(coder, *make_block(coder))


def test_values_that_float32_cannot_tell_apart_are_refused_or_kept_as_they_are():
    coder = make_coder(offset=1e5, max_error=1e-3)
    block = make_block(coder)
    refusal = r"v0: max_error=0.001 .* float32 are 0.0078.* apart.* bound of at least ([0-9.]+),"
    with pytest.raises(ArchiveError, match=refusal) as refused:
        coder.encode(*block)
    least = float(re.search(refusal, str(refused.value))[1])
    assert 0.0156 < least < 0.02
    make_coder(offset=1e5, max_error=least).encode(*block)
    make_coder(offset=1e5, rmse=least).encode(*block)
    coder = make_coder(offset=1e5, max_error=1e-3, lossless=True)
    block[0][0][2, 5:9, 5:9] = np.nan
    arrays, records = check_round_trip(coder, *block)
    assert set(arrays) == {"v0_exact", "v1_exact"}
    assert all(each["lossless"] == 1 and each["worst"] == 0 for each in records.values())


@pytest.mark.parametrize("bound", [1e-12, 1e-200, 5e-324])
def test_steps_too_many_for_integers_are_refused(bound):
    coder = make_coder(("f8", "f8"), rmse=bound)
    with pytest.raises(ArchiveError, match="cannot be kept"):
        coder.encode(*make_block(coder))


def test_a_bound_that_is_not_kept_is_found(monkeypatch):
    coder = make_coder(max_error=0.1)
    block = make_block(coder)
    undo = Predictor.undo
    monkeypatch.setattr(
        Predictor, "undo", lambda self, d: undo(self, d) + (np.arange(len(d)) == 3)[:, None]
    )
    with pytest.raises(ArchiveError, match=r"v0: an error of .* was found where max_error=0.1"):
        coder.encode(*block)


def test_tiny_values_and_negative_zeros_come_back_within_the_bound():
    coder = make_coder(max_error=0.1)
    values, codes, season = make_block(coder)
    values = [
        np.where(np.isnan(v), v, np.float32(tiny))
        for v, tiny in zip(values, (1e-45, -0.0), strict=True)
    ]
    check_round_trip(coder, values, codes, season)


# Gaps, strays, infinities


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_gaps_and_strays_come_back_as_they_were(bounds):
    coder = make_coder(**bounds)
    values, codes, season = make_block(coder)
    rng = np.random.default_rng(2)
    values[0][rng.random(values[0].shape) < 0.3] = np.nan
    values[1][3] = np.nan
    y, x = np.argwhere(~coder.variables[1].kept)[7]
    values[1][[0, 3], y, x] = 0.1, -1e30
    arrays, records = check_round_trip(coder, values, codes, season)
    assert {"v0_gaps", "v1_gaps", "v1_strays"} <= set(arrays) and "v0_strays" not in arrays
    assert records["v0"]["strays"] == 0 and records["v1"]["strays"] == 2
    found = coder.decode(arrays, records, codes, season)[1]
    assert found[0, y, x] == np.float32(0.1) and found[3, y, x] == np.float32(-1e30)


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_blocks_without_a_value_come_back(bounds):
    coder = make_coder(**bounds)
    values, codes, season = make_block(coder)
    values[0][:] = np.nan
    records = check_round_trip(coder, values, codes, season)[1]
    assert records["v0"]["mean"] == records["v0"]["worst"] == 0
    assert records["v0"]["least"] is records["v0"]["most"] is None


def test_a_variable_without_a_pixel_comes_back():
    coder = make_coder(decoder=make_decoder(empty=[0]), max_error=0.1)
    assert not coder.variables[0].kept.any()
    arrays, _ = check_round_trip(coder, *make_block(coder))
    assert arrays["v0"].shape == (TIMES, 0)


@pytest.mark.parametrize("stray", [False, True])
def test_infinite_values_are_refused(stray):
    coder = make_coder(max_error=0.1)
    values, codes, season = make_block(coder)
    y, x = np.argwhere(coder.variables[0].kept != stray)[0]
    values[0][:2, y, x] = np.inf, -np.inf
    with pytest.raises(ArchiveError, match="v0: 2 values are infinite"):
        coder.encode(values, codes, season)


# What a reader may leave out


def test_the_first_snapshots_are_decoded_alone():
    coder = make_coder(max_error=0.1)
    values, codes, season = make_block(coder)
    values[0][2:4, 5:9, 5:9] = np.nan
    arrays, records = coder.encode(values, codes, season)
    whole = coder.decode(arrays, records, codes, season)
    first = {name: array[:3] for name, array in arrays.items()}
    for part, all_of_it in zip(
        coder.decode(first, records, codes[:3], season[:3]), whole, strict=True
    ):
        np.testing.assert_array_equal(part, all_of_it[:3])


def test_one_variable_is_decoded_alone():
    coder = make_coder(max_error=0.1)
    values, codes, season = make_block(coder)
    arrays, records = coder.encode(values, codes, season)
    (found,) = coder.decode({"v1": arrays["v1"]}, records, codes, season, ["v1"])
    np.testing.assert_array_equal(found, coder.decode(arrays, records, codes, season)[1])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_fields_are_base_maps_and_what_codes_decode_to(level):
    coder = make_coder()
    _, codes, season = make_block(coder)
    own = codes[:, : sum(coder.decoder.sizes[: level + 1])]
    fields = coder.fields(own, season, level)
    decoded = coder.decoder.decode(own * 0.25, level)
    valid = coder.decoder.valid[level]
    n_pixels = valid[0].sum()
    for v, (variable, part) in enumerate(
        zip(coder.variables, np.split(decoded, [n_pixels], axis=1), strict=True)
    ):
        kept = variable.kept if level == 2 else valid[v]
        expected = np.full((len(codes), *kept.shape), np.nan)
        expected[:, kept] = variable.base[level][season]
        expected[:, valid[v]] += variable.scale * part
        np.testing.assert_allclose(fields[:, v], expected, rtol=1e-12, atol=1e-12)
