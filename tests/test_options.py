"""Options: what is allowed, what is refused and how, defaults, recipes."""

import json
import subprocess
import sys

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import make_field, make_two_variables, prepare_with

import xmrcae
from xmrcae.io.model_file import _options as options_of_json
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
    with pytest.raises(TypeError, match=r"unknown option xyz; The options are levels, .*tolerance"):
        xmrcae.MrCAE(xyz=1.0)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("tolerence", "tolerance"), ("epochs", "max_epochs"), ("level", "levels"), ("gap", "gaps")],
)
def test_a_misspelt_option_names_the_nearest(wrong, right):
    with pytest.raises(
        TypeError, match=rf"unknown option {wrong}; did you mean {right} for {wrong}\?"
    ):
        make_field().mrcae.fit(**{wrong: 1})


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
    assert (options.center, options.scale, options.fill, options.split) == (
        True,
        "std",
        0,
        (0.7, 0.2, 0.1),
    )
    assert options.channels_of(3) == [[1, 1, 1, 1]] * 3


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ([1, 2], [[1, 2], [1, 2]]),
        ([[3]], [[3], [3]]),
        ([[1], []], [[1], []]),
        (((1,), (2, 2)), [[1], [2, 2]]),
    ],
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


def test_options_as_json_tell_arrays_on_the_grid_by_their_shape():
    found = json.loads(make_options({"valid": MASK, "weights": MASK * 1.0}).to_json())
    assert found["valid"] == found["weights"] == "<DataArray (2, 2)>"


SPLITS = {
    "lists": ([0, 1, 4], [2], [3]),
    "slices": (slice(0, np.int64(5)), slice(5, None, 2), slice(6, 9, 2)),
    "dates": (slice(None, "2001-03"), ["2001-04-15", "2001-05-15"], slice("2001-06", None)),
    "booleans": (np.arange(4) < 2, np.arange(4) == 2, np.arange(4) == 3),
    "positions": (xr.DataArray(np.arange(3), dims="time"), np.array([3]), []),
    "fractions": np.array([0.5, 0.25, 0.25]),
}


def values_of(split):
    return [
        part if isinstance(part, slice | float) else np.asarray(part).tolist() for part in split
    ]


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
def test_a_split_comes_back_from_json(split):
    options = make_options({"split": split})
    again = make_options(options_of_json(json.loads(options.to_json())))
    assert values_of(again.split) == values_of(options.split) == values_of(split)


def test_dates_of_a_split_are_text_in_json():
    days = pd.date_range("2001-01-01", periods=2)
    split = (slice(days[0], None), [days[1]], days.values)
    texts = json.loads(make_options({"split": split}).to_json())["split"]
    assert texts[:2] == [{"slice": ["2001-01-01T00:00:00", None, None]}, ["2001-01-02T00:00:00"]]
    assert [text[:10] for text in texts[2]] == ["2001-01-01", "2001-01-02"]


def test_long_indexers_are_told_apart_in_json():
    first, other = np.arange(700), np.r_[np.arange(699), 800]
    texts = [make_options({"split": (each, [900], [])}).to_json() for each in (first, other)]
    assert (
        texts[0] != texts[1]
        and texts[0] == make_options({"split": ([*range(700)], [900], [])}).to_json()
    )
    assert len(texts[0]) < 1200
    assert "split" not in options_of_json(json.loads(texts[0]))


KINDS = {
    "a scalar of NumPy": np.float32,
    "a 0-d array": np.array,
    "a DataArray": xr.DataArray,
    "a lazy DataArray": lambda value: xr.DataArray(value).chunk(),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    "name", ["tolerance", "omega", "anchor", "energy", "memory", "land_value", "learning_rate"]
)
def test_a_number_is_taken_by_value(kind, name):
    found = make_options({name: kind(0.5 if name != "memory" else 2.0**30)})
    expected = make_options({name: 0.5 if name != "memory" else 2.0**30})
    assert found == expected and found.to_json() == expected.to_json()
    assert type(getattr(found, name)) is float


@pytest.mark.parametrize(
    "kind", [np.int16, np.array, xr.DataArray, lambda value: xr.DataArray(value).chunk()]
)
@pytest.mark.parametrize(
    "name", ["levels", "encoding_size", "dilation", "seed", "sketch", "max_epochs"]
)
def test_a_whole_number_is_taken_by_value(kind, name):
    found = make_options({name: kind(3)})
    assert found == make_options({name: 3}) and type(getattr(found, name)) is int


@pytest.mark.parametrize("kind", [np.array, xr.DataArray])
@pytest.mark.parametrize(
    ("name", "value"),
    [("center", False), ("periodic", True), ("progress", False), ("gaps", "mean"), ("fill", 0.0), ("solver", "adam"),
     ("sample", "month"), ("split", "blocks"), ("device", "cpu"), ("weights", "area")],
)  # fmt: skip
def test_choices_are_taken_by_value(kind, name, value):
    if name == "weights":  # arrays are weights
        kind = np.str_
    found = make_options({name: kind(value)})
    assert (
        found == make_options({name: value})
        and found.to_json() == make_options({name: value}).to_json()
    )


@pytest.mark.parametrize("kind", [np.array, xr.DataArray, pd.Series])
def test_lists_are_taken_by_value(kind):
    found = make_options({"levels": 2, "tolerance": kind([0.5, 0.25]), "channels": kind([1, 2])})
    assert (found.tolerance, found.channels) == ([0.5, 0.25], [[1, 2]])
    names = make_options({"sample": kind(["time", "member"]), "horizontal": kind(["y", "x"])})
    assert (names.sample, names.horizontal) == (["time", "member"], ["y", "x"])


def test_tolerances_may_be_a_dataset_of_numbers():
    ds = make_two_variables(n_times=20)
    options = make_options({"tolerance": 0.1 * ds.std()})
    assert options.tolerance == {name: float(0.1 * ds[name].std()) for name in ds.data_vars}
    assert json.loads(options.to_json())["tolerance"] == options.tolerance


def test_a_lazy_number_is_computed_once():
    calls = []
    lazy = dask.delayed(lambda: calls.append(1) or np.array(0.5), pure=False)()
    tolerance = xr.DataArray(da.from_delayed(lazy, (), float))
    model = xmrcae.MrCAE(tolerance=tolerance, levels=1, max_epochs=1, progress=False).fit(
        make_field()
    )
    assert model.options.tolerance == 0.5 and len(calls) == 1


def test_what_was_used_is_what_is_shown_saved_and_opened(tmp_path):
    field = make_field()
    options = {
        "levels": 1,
        "max_epochs": 1,
        "progress": False,
        "split": (slice(0, 12), np.arange(12, 15), [16]),
    }
    model = field.mrcae.fit(tolerance=xr.DataArray(0.25), **options)
    assert json.loads(model.reconstruct(field).attrs["xmrcae_options"])["tolerance"] == 0.25
    assert "0.25" in repr(xmrcae.MrCAE(tolerance=xr.DataArray(0.25)))
    model.save(tmp_path / "model.nc")
    again = xmrcae.open_model(tmp_path / "model.nc").options
    assert again.to_json() == model.options.to_json()
    assert (again.tolerance, again.split[0]) == (0.25, slice(0, 12))


def test_a_checkpoint_of_another_value_is_refused(tmp_path):
    options = {"levels": 1, "max_epochs": 1, "progress": False, "checkpoint": tmp_path}
    positions = np.arange(20)
    split = (positions[:16], positions[16:18], positions[18:])
    make_field().mrcae.fit(tolerance=xr.DataArray(0.5), split=split, **options)
    for change in ({"tolerance": xr.DataArray(0.25)}, {"split": (split[0], split[2], split[1])}):
        (name,) = change
        with pytest.raises(ValueError, match=rf"another fit \({name}="):
            make_field().mrcae.fit(
                **{"tolerance": xr.DataArray(0.5), "split": split} | options | change
            )


def test_the_package_can_be_imported_without_docstrings():
    subprocess.run(
        [sys.executable, "-OO", "-c", "import xmrcae; xmrcae.MrCAE(levels=2)"], check=True
    )


def test_numbers_that_are_wrong_are_refused_in_arrays_too():
    for bad in (
        np.array(-1.0),
        xr.DataArray(np.nan),
        xr.DataArray([[1.0]]),
        np.array(True),
        np.array(1j),
    ):
        with pytest.raises((ValueError, TypeError), match=r"^tolerance"):
            make_options({"tolerance": bad})
    for bad in (np.array(1), xr.DataArray(0)):
        with pytest.raises(ValueError, match=r"^periodic=[01] "):
            make_options({"periodic": bad})


def test_names_of_dimensions_of_a_dataset_are_taken_by_value():
    ds = make_two_variables(n_times=20).rename(time="month")
    tree = ds.mrcae.pyramid("sst", levels=2, sample=xr.DataArray("month"))
    xr.testing.assert_identical(tree, ds.mrcae.pyramid("sst", levels=2, sample="month"))


def test_no_option_makes_invalid_json():
    options = make_options(
        {"tolerance": {"sst": np.float32(1)}, "land_value": -999.9, "sample": ("time", "member")}
    )
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
