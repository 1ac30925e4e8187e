"""Hostile numbers: results are numbers where data are valid, or data are refused at once."""

import math
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import make_field

import xmrcae
from xmrcae.core.stage import descend
from xmrcae.core.training import Trainer
from xmrcae.options import make_options

OPTIONS = {"levels": 2, "channels": [[1, 1]], "max_epochs": 4, "progress": False}

VARIANTS = {
    "default": {},
    "as they are": {"center": False, "scale": None},
    "minmax": {"center": False, "scale": "minmax"},
    "monthly": {"center": "month"},
    "projection": {"encoder": "projection", "tolerance": None},
    "adam": {"solver": "adam"},
    "relu": {"activation": "relu"},
}


def once(values):
    result = np.zeros_like(values)
    result[5] = values[5]
    return result


def one_pixel(values):
    result = values.copy()
    result[3, 1, 1] *= 1e6
    return result


def trend(values):
    return np.arange(float(len(values)))[:, None, None] + 0 * values


def noise(values):
    return np.random.default_rng(0).standard_normal(values.shape)


#: What is made of ordinary values.
FITTED = {
    "one constant": lambda values: 0 * values + 3.7,
    "a large constant": lambda values: 0 * values + 1e30,
    "zeros": lambda values: 0 * values,
    "all but the same": lambda values: values + 1e30,
    "a trend": trend,
    "noise alone": noise,
    "a pixel a million times larger": one_pixel,
    "zero but for one time": once,
}

LARGE = "a large constant", "all but the same"


def made(make, dtype=np.float32, n_times=12):
    """Ordinary values with land, and something made of them."""
    field = make_field(n_times, (10, 11), globe=False, dtype=np.float64)
    with np.errstate(over="ignore"):
        values = np.where(field.isnull(), np.nan, make(field.values)).astype(dtype)
    return field.copy(data=values)


def assert_numbers(model, field):
    """Results, codes, losses, scores and weights are numbers where there is to be one."""
    found = model.reconstruct(field)
    assert (np.isfinite(found) == field.notnull().any("time")).all()
    assert np.isfinite(model.stack(model.encode(field))).all()
    for part in ("train", "validation"):
        assert np.isfinite(model.history[f"{part}_loss"]).all()
    assert np.isfinite(model.score(field)["rmse"]).all()
    assert all(bool(p.isfinite().all()) for p in model.fitted.codec.network.parameters())


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.filterwarnings("ignore:the values of", "ignore:.*singular", "ignore:a stage of")
def test_odd_fields_are_described(kind, variant):
    if variant == "as they are" and kind in LARGE:
        pytest.skip("these are refused: see below")
    dtype = np.float64 if variant in ("default", "minmax") else np.float32
    field = made(FITTED[kind], dtype)
    assert_numbers(field.mrcae.fit(**OPTIONS, **VARIANTS[variant]), field)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("variant", ["default", "minmax", "monthly", "projection"])
@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_units_of_any_size_give_the_same_losses(factor, dtype, variant):
    field = made(lambda v: v, np.float64)
    field["time"] = xr.date_range("2001-01-01", periods=12, freq="D")
    one, other = (
        (values.astype(dtype)).mrcae.fit(**OPTIONS, **VARIANTS[variant])
        for values in (field, field * factor)
    )
    assert_numbers(other, (field * factor).astype(dtype))
    losses = one.history.train_loss, other.history.train_loss
    np.testing.assert_allclose(*(each[:2] for each in losses), rtol=1e-3)


@pytest.fixture
def no_training(monkeypatch):
    """Training has not begun when something is refused."""
    monkeypatch.setattr(Trainer, "run", lambda self: pytest.fail("training has begun"))


REFUSED = {
    "near the largest float32": (2e37, np.float32, {}, "of 'sst' reach .* or as float64$"),
    "near the largest float64": (1e307, np.float64, {}, "reach .* overflow in float64; .* units$"),
    "1e200": (1e200, np.float64, {}, r"reach 1\.\de\+201"),
    "1e-160": (1e-160, np.float64, {}, r"vary by .*e-160 .* vanish in float64"),
    "denormal float32": (1e-45, np.float32, {}, "vary by .* vanish in float32.*or as float64"),
    "denormal float64": (1e-310, np.float64, {}, "vary by .* vanish in float64"),
    "1e30": (1e30, np.float32, {"scale": None}, 'training snapshots depart .* scale="std"'),
    "1e-30": (1e-30, np.float32, {"scale": None}, 'with a scale of 1: .* scale="std"'),
    "relu": (1e30, np.float32, {"scale": None, "activation": "relu"}, "snapshots depart"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("error")
def test_what_overflows_or_vanishes_is_refused_before_training(kind, no_training):
    factor, dtype, options, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        made(lambda v: v * factor, dtype).mrcae.fit(**OPTIONS, **options)


@pytest.mark.filterwarnings("error")
def test_a_large_constant_that_is_neither_centred_nor_scaled_is_refused(no_training):
    with pytest.raises(ValueError, match="training snapshots depart from their centre"):
        made(FITTED["a large constant"]).mrcae.fit(**OPTIONS, center=False, scale=None)


def test_infinite_values_are_refused(no_training):
    with pytest.raises(ValueError, match="1 infinite value"):
        made(lambda v: np.where(v == v[2, 0, 0], np.inf, v)).mrcae.fit(**OPTIONS)


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("values", ["one", "all"])
def test_an_outlier_of_no_training_snapshot_is_refused(part, values, no_training):
    field = made(lambda v: v)
    split = (range(8), [8, 9], [10, 11])
    at = 8 if part == "validation" else 10
    field[at : at + 2 if values == "all" else at + 1] *= 1e30
    with pytest.raises(
        ValueError, match=f"the {part} snapshots depart from their centre by .*e\\+"
    ):
        field.mrcae.fit(**OPTIONS, split=split)


@pytest.mark.parametrize("n_times", [1, 2])
def test_too_few_snapshots_are_refused(n_times):
    with pytest.raises(ValueError, match=f"the data have {n_times} time.*at least 3 are needed"):
        made(lambda v: v, n_times=n_times).mrcae.fit(**OPTIONS)


def test_two_equal_snapshots_are_reproduced():
    field = made(lambda v: v[:1] + 0 * v, n_times=3)
    with pytest.warns(UserWarning, match="do not vary about their centre"):
        model = field.mrcae.fit(**OPTIONS)
    xr.testing.assert_allclose(model.reconstruct(field), field, rtol=1e-6)


@pytest.mark.parametrize("kind", ["one constant", "zeros", "a large constant"])
@pytest.mark.parametrize("center", [True, "month"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constants_are_reproduced_to_the_bit_with_a_warning(kind, center, dtype):
    field = made(FITTED[kind], dtype)
    with pytest.warns(UserWarning, match="the values of 'sst' do not vary about their centre"):
        model = field.mrcae.fit(**OPTIONS, center=center)
    np.testing.assert_array_equal(model.reconstruct(field), field)


def test_a_pixel_with_nearly_all_of_the_variance_is_warned_of():
    with pytest.warns(UserWarning, match="100.0% of their variance at one pixel"):
        made(one_pixel).mrcae.fit(**OPTIONS)


@pytest.mark.filterwarnings("error")
def test_an_ordinary_field_is_fitted_without_a_warning():
    made(lambda v: v).mrcae.fit(**OPTIONS, tolerance=0.1)


@pytest.mark.parametrize("call", ["encode", "reconstruct", "score"])
def test_new_data_that_would_overflow_are_refused(call):
    field = made(lambda v: v * 1e-10)
    model = field.mrcae.fit(**OPTIONS)
    with pytest.raises(ValueError, match=r"depart from the fitted centre by .*e.3"):
        getattr(model, call)(field * 1e35)


# Training


DIVERGING = {
    "lbfgs": {"solver_options": {"learning_rate": 1e6}},
    "adam": {"solver": "adam", "solver_options": {"learning_rate": 1e6}},
    "projection": {
        "encoder": "projection",
        "tolerance": None,
        "solver": "adam",
        "solver_options": {"learning_rate": 1e6},
    },
    "weight decay": {
        "solver": "adam",
        "solver_options": {"weight_decay": 1e6, "learning_rate": 1e6},
    },
    "anchor": {"anchor": 1e6},
    "noise": {"noise": 1},
}


@pytest.mark.parametrize("kind", DIVERGING)
@pytest.mark.filterwarnings("ignore:a stage of level")
def test_a_solver_that_diverges_leaves_finite_losses_and_weights_no_worse(kind):
    field = made(lambda v: v)
    options = OPTIONS | {"max_epochs": 30} | DIVERGING[kind]
    model = field.mrcae.fit(**options)
    assert_numbers(model, field)
    before = field.mrcae.fit(**options | {"max_epochs": 0})
    if kind != "noise":
        deepening = [(m.history.group == 0).values for m in (before, model)]
        first, kept = (
            before.history.isel(epoch=deepening[0]),
            model.history.isel(epoch=deepening[1]),
        )
        level = (kept.level == 0).values
        assert kept.train_loss[level][-1] <= first.train_loss[0]
        assert kept.validation_loss[level][-1] <= first.validation_loss[0]


class Exploding:
    """An objective whose losses are no longer finite after some evaluations."""

    level = 1

    def __init__(self, n_finite):
        self.left, self.evaluation = n_finite, self
        self.network, self.vector = self, None

    def set_vector(self, point):
        self.vector = point.clone()

    def __call__(self, point, power):
        from xmrcae.core.solvers import Evaluated

        self.left -= 1
        value = float(point.square().sum()) if self.left >= 0 else math.nan
        return Evaluated(value, 2 * point, point.square())

    def losses(self, point, found=None, *, metric=False):
        value = float(point.square().sum()) if self.left >= 0 else math.inf
        return {"train_loss": value, "validation_loss": value}


@pytest.mark.parametrize("n_finite", [0, 3])
def test_a_stage_ends_where_losses_are_no_longer_finite(n_finite):
    objective, rows = Exploding(n_finite), []
    options = make_options({"solver": "adam", "max_epochs": 9})
    start = torch.ones(2)
    with pytest.warns(
        UserWarning, match=f"level 1 diverged after {n_finite} epochs.*learning_rate"
    ):
        n_epochs = descend(
            objective,
            start,
            lambda errors: False,
            options=options,
            on_epoch=rows.append,
            save=print,
        )
    assert n_epochs == len(rows) == n_finite
    assert all(math.isfinite(row["train_loss"]) for row in rows)
    assert float(objective.vector.square().sum()) <= 2


# Options


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 2**70},
        {"seed": 2**64},
        {"noise": 1e30},
        {"noise": 1.5},
        {"anchor": 1e30},
        {"levels": 10**6},
        {"levels": 2**70},
        {"dilation": 2**70},
        {"encoding_size": 2**70},
        {"sketch": 2**70},
        {"max_epochs": 2**70},
        *({"solver_options": {"learning_rate": rate}} for rate in (0, 1e-30, 1e30)),
        {"solver_options": {"weight_decay": 1e30}},
        *({"solver": "adam", "solver_options": {"eps": eps}} for eps in (0, 1e30)),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_by_name(options):
    name = list(options)[-1]
    with pytest.raises(ValueError, match=rf"^{name}.* from .* to "):
        xmrcae.MrCAE(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 2**64 - 1},
        {"dilation": 10**12},
        {"tolerance": 1e300},
        {"tolerance": 1e-300},
        {"encoding_size": 10**12},
        {"encoding_size": 10**12, "encoder": "projection"},
        {"sketch": 10**12},
        {"energy": 1e300},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("error")
def test_the_ends_of_ranges_can_be_fitted_with(options):
    field = made(lambda v: v)
    limit = {} if {"tolerance", "encoding_size"} & set(options) else {"tolerance": 0.1}
    assert_numbers(field.mrcae.fit(**OPTIONS, **limit, **options), field)


def test_activation_needs_room_for_no_more_snapshots_than_there_are():
    field = made(lambda v: v)  # of which one is for the test
    assert int((field.mrcae.fit(**OPTIONS, activation="relu").split == "test").sum()) == 1


# Weights


def test_weights_of_land_alone_are_refused(no_training):
    field = made(lambda v: v)
    weights = field[0].isnull().astype(float)
    with pytest.raises(ValueError, match="weights are 0 on all valid pixels"):
        field.mrcae.fit(**OPTIONS, weights=weights)
    model = xmrcae.MrCAE(**OPTIONS)
    assert model._fitted is None


@pytest.mark.parametrize("encoder", ["filters", "projection"])
@pytest.mark.parametrize("at", [(0, 0), (3, 4), (9, 10)])
def test_one_pixel_may_have_all_the_weight(at, encoder):
    field = made(lambda v: v).fillna(1.0)
    weights = xr.zeros_like(field[0], dtype=float)
    weights[at] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = field.mrcae.fit(**OPTIONS, weights=weights, encoder=encoder, tolerance=None)
        assert np.isfinite(model.score(field, weights=weights)["rmse"]).all()
    assert_numbers(model, field)


@pytest.mark.filterwarnings("error")
def test_equal_snapshots_about_another_mean_leave_nothing_out():
    field = made(FITTED["zero but for one time"])
    field.mrcae.fit(**OPTIONS, encoder="projection", tolerance=None)


@pytest.mark.parametrize("encoder", ["filters", "projection"])
def test_levels_without_a_valid_pixel_have_no_loss(encoder):
    field = made(lambda v: v)
    sea = xr.zeros_like(field[0], dtype=bool)
    sea[4, 4] = sea[6, 8] = True  # by injection, points of the finest level alone
    field = field.fillna(1.0).where(sea)
    options = {"encoder": encoder, "restriction": "injection", "tolerance": None}
    model = field.mrcae.fit(**OPTIONS, **options)
    assert int(model.fitted.codec.standards[0].valid.sum()) == 0
    assert (model.history.train_loss[model.history.level == 0] == 0).all()
    assert (np.isfinite(model.reconstruct(field)) == sea).all()
