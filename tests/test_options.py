"""Options: what is allowed, what is refused and how, defaults, recipes."""

import json

import numpy as np
import pytest
import xarray as xr
from helpers import make_field, make_two_variables, prepare_with

import xmrcae
from xmrcae.options import CHOICES, Options, make_options

MASK = xr.DataArray(np.ones((2, 2), dtype=bool), dims=("y", "x"))


@pytest.mark.parametrize(
    "bad",
    [
        {"levels": 0}, {"levels": -1}, {"levels": 2.0}, {"levels": True}, {"levels": "4"},
        {"channels": []}, {"channels": "11"}, {"channels": 4}, {"channels": [0]}, {"channels": [[1, 0]]},
        {"channels": [[1, 1.5]]}, {"channels": [1, [1]]}, {"channels": [True]}, {"channels": {1: 2}},
        {"tolerance": -1.0}, {"tolerance": "small"}, {"tolerance": [0.1, None]}, {"tolerance": np.nan},
        {"tolerance": {"sst": -1}}, {"tolerance": {"sst": "x"}}, {"tolerance": []}, {"tolerance": {}},
        {"tolerance": [[1.0, 2.0]]}, {"tolerance": True},
        {"widening": "serial"}, {"widening": None}, {"restriction": "mean"}, {"solver": "sgd"}, {"solver": ["adam"]},
        {"dilation": -1}, {"dilation": 0.5}, {"anchor": -0.1}, {"anchor": "much"}, {"anchor": None},
        {"anchor": np.inf}, {"omega": 1.1}, {"omega": -0.1}, {"omega": np.nan}, {"omega": "half"},
        {"max_epochs": -1}, {"max_epochs": 10.0}, {"min_decrease": 2}, {"learning_rate": -1}, {"learning_rate": np.inf},
        {"adam_eps": "x"}, {"weight_decay": -1}, {"noise": -0.01}, {"noise": np.inf},
        {"activation": "tanh"}, {"center": "week"}, {"center": None}, {"center": 1}, {"scale": "var"}, {"scale": 2.0},
        {"weights": "volume"}, {"weights": np.ones((3, 4))}, {"weights": 1.0}, {"fill": 1}, {"fill": "nearest"},
        {"valid": 3}, {"valid": np.ones((2, 2), dtype=bool)}, {"land_value": "0"}, {"land_value": np.nan},
        {"gaps": "interpolate"}, {"gaps": False}, {"periodic": 1}, {"periodic": "x"},
        {"horizontal": "lat"}, {"horizontal": ("lat",)}, {"horizontal": ("lat", "lat")}, {"horizontal": 2},
        {"sample": 3}, {"sample": []}, {"split": "random"}, {"split": (0.5, 0.5)}, {"split": 0.7}, {"split": None},
        {"split": (0.7, 0.2, 0.2)}, {"split": (1.2, -0.1, -0.1)}, {"split": ("a", "b", "c")}, {"split": (1, 2, np.nan)},
        {"split": (True, False, False)}, {"split": (3, slice(4), [])},
        {"energy": -1}, {"energy": "all"}, {"memory": 0}, {"memory": -1}, {"memory": "4GB"}, {"memory": np.inf},
        {"device": 0}, {"device": None}, {"seed": -1}, {"seed": 1.0}, {"seed": None}, {"progress": "yes"},
        {"progress": 1},
    ],
    ids=lambda bad: "-".join(f"{name}={value!r}"[:40] for name, value in bad.items()),
)  # fmt: skip
def test_bad_option_is_named(bad):
    (name,) = bad
    with pytest.raises((ValueError, TypeError), match=rf"^{name}\b"):
        xmrcae.MrCAE(**bad)


@pytest.mark.parametrize("option", [{"horizontal": "lat"}, {"sample": 3}, {"levels": 0}])
def test_bad_option_of_a_datasets_pyramid_is_named(option):
    with pytest.raises((ValueError, TypeError), match=rf"^{next(iter(option))}="):
        make_two_variables(n_times=2).mrcae.pyramid(**option)


@pytest.mark.parametrize("name", CHOICES)
def test_error_lists_the_choices(name):
    with pytest.raises(ValueError) as error:
        make_options({name: "nonsense"})
    for choice in CHOICES[name]:
        assert repr(choice) in str(error.value)


def test_unknown_option_lists_those_that_exist():
    with pytest.raises(TypeError, match=r"unknown option tolerence; .*tolerance"):
        xmrcae.MrCAE(tolerence=1.0)


def test_several_unknown_options_are_all_named():
    with pytest.raises(TypeError, match="unknown options epochs, filters;"):
        xmrcae.MrCAE(filters=1, epochs=3)


def test_options_are_keyword_only():
    with pytest.raises(TypeError):
        xmrcae.MrCAE(4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "minmax"}, "center=False"),
        ({"valid": MASK, "land_value": 0}, "valid and land_value"),
        ({"levels": 3, "channels": [[1], [1]]}, "channels has 2 lists for 3 levels"),
        ({"levels": 3, "tolerance": [1.0, 2.0]}, "tolerance has 2 values for 3 levels"),
        ({"levels": 3, "tolerance": {"sst": [1.0, 2.0]}}, "tolerance has 2 values for 3 levels"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        make_options(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": [[1], [1], [1]]}, "channels has 3 lists for 2 levels"),
        ({"tolerance": [1.0, 2.0, 3.0]}, "tolerance has 3 values for 2 levels"),
        ({"tolerance": {"salt": 1.0}}, "tolerance names .*salt.* the variables are .*sst"),
    ],
)
def test_counts_are_checked_against_the_levels_found(options, message):
    with pytest.raises(ValueError, match=message):
        prepare_with(make_field(shape=(24, 24)), **options)


def test_tolerances_must_name_every_variable():
    with pytest.raises(ValueError, match=r"tolerance names \['sst'\].*'ssh', 'sst'"):
        prepare_with(make_two_variables(n_times=20), levels=2, tolerance={"sst": 1.0})


def test_defaults_of_adam_are_the_authors():
    options = make_options({"solver": "adam"})
    assert (options.max_epochs, options.min_decrease, options.learning_rate) == (5000, 1e-3, 1e-3)
    assert (options.adam_eps, options.weight_decay, options.noise) == (1e-3, 1e-5, 0.01)


def test_defaults_depend_on_the_solver():
    adam, lbfgs = make_options({"solver": "adam"}), make_options({"solver": "lbfgs"})
    for name in ("max_epochs", "learning_rate", "weight_decay", "noise"):
        assert getattr(adam, name) != getattr(lbfgs, name)


def test_given_values_come_before_the_solvers():
    options = make_options({"solver": "adam", "noise": 0, "max_epochs": 7})
    assert (options.noise, options.max_epochs, options.learning_rate) == (0, 7, 1e-3)


def test_defaults_are_those_of_the_table():
    options = Options()
    assert (options.widening, options.restriction, options.dilation, options.omega) == (
        "residual",
        "full_weighting",
        1,
        0.5,
    )
    assert (options.center, options.scale, options.fill, options.split) == (True, "std", 0, (0.7, 0.2, 0.1))
    assert options.channels_of(3) == [[1, 1, 1, 1]] * 3


@pytest.mark.parametrize(
    ("channels", "expected"),
    [([1, 2], [[1, 2], [1, 2]]), ([[3]], [[3], [3]]), ([[1], []], [[1], []]), (((1,), (2, 2)), [[1], [2, 2]])],
)
def test_one_list_of_channels_serves_all_levels(channels, expected):
    assert make_options({"channels": channels}).channels_of(2) == expected


def test_channels_are_nobodys_but_the_options():
    channels = [[1, 1], [2, 2]]
    options = make_options({"channels": channels})
    options.channels_of(2)[0].append(9)
    channels[1].append(9)
    assert options.channels_of(2) == [[1, 1], [2, 2]]


@pytest.mark.parametrize(
    ("tolerance", "expected"),
    [
        (2.0, [[1.0, 0.25], [1.0, 0.25]]),
        ([2.0, 4.0], [[1.0, 0.25], [4.0, 1.0]]),
        ({"ssh": 4.0, "sst": [2.0, 6.0]}, [[1.0, 1.0], [9.0, 1.0]]),
        ("default", [[0.01, 0.04], [0.01, 0.04]]),
        (None, None),
    ],
)
def test_epsilons_are_squared_tolerances_in_scaled_units(tolerance, expected):
    rms, scale = np.array([2.0, 8.0]), np.array([2.0, 4.0])
    found = make_options({"tolerance": tolerance}).epsilons(2, ["sst", "ssh"], rms, scale)
    assert found is expected is None or np.allclose(found, expected)


def test_numbers_of_numpy_will_do():
    options = make_options({
        "levels": np.int64(3), "tolerance": np.array([1.0, 0.5, 0.2]), "omega": np.float32(0.5), "seed": np.uint8(3),
        "channels": [[np.int64(1)]], "land_value": np.float32(0),
    })  # fmt: skip
    assert json.loads(options.to_json())["levels"] == 3


@pytest.mark.parametrize("name", ["two_modes", "drifting_mode"])
def test_recipes_are_valid_options(name):
    options = xmrcae.MrCAE(**xmrcae.recipes[name]).options
    assert (options.widening, options.restriction, options.anchor) == ("parallel", "injection", 0)
    assert options.channels_of(3) == [[1, 1, 1], [1, 1, 1], [2, 2, 2]]


@pytest.mark.parametrize(
    ("name", "epsilons"), [("two_modes", (4e-4, 2e-4, 4e-5)), ("drifting_mode", (1e-4, 5e-5, 1e-5))]
)
def test_recipes_have_the_papers_epsilons(name, epsilons):
    found = make_options(xmrcae.recipes[name]).epsilons(3, ["u"], np.ones(1), np.ones(1))
    np.testing.assert_allclose(np.ravel(found), epsilons)


def test_recipes_cannot_be_changed():
    with pytest.raises(TypeError):
        xmrcae.recipes["two_modes"]["levels"] = 5


def test_options_as_json_tell_arrays_by_what_they_are():
    options = make_options({"valid": MASK, "weights": MASK * 1.0, "split": (slice(0, 5), np.arange(3), [])})
    found = json.loads(options.to_json())
    assert found["valid"] == "<DataArray (2, 2)>"
    assert found["split"] == ["<slice(0, 5, None)>", "<ndarray (3,)>", []]


def test_no_option_makes_invalid_json():
    options = make_options({"tolerance": {"sst": np.float32(1)}, "land_value": -999.9, "sample": ("time", "member")})
    assert json.loads(options.to_json(), parse_constant=pytest.fail)["tolerance"] == {"sst": 1.0}


def test_options_do_not_change():
    options = make_options({})
    with pytest.raises(AttributeError):
        options.levels = 3


def test_a_sketch_is_a_whole_number_and_of_a_linear_network() -> None:
    for wrong, error in ((0, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="sketch="):
            make_options({"sketch": wrong})
    with pytest.raises(ValueError, match="sketch combines snapshots"):
        make_options({"sketch": 4, "activation": "relu"})


def test_an_array_of_tolerances_is_kept_as_a_list() -> None:
    options = make_options({"tolerance": np.array([0.3, 0.2]), "levels": 2})
    assert options.tolerance == [0.3, 0.2]
    assert json.loads(options.to_json())["tolerance"] == [0.3, 0.2]
