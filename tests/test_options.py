"""Options: what is allowed, what is refused and how, defaults, recipes."""

import dataclasses
import inspect
import json
import re
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
from xmrcae.core.checkpoint import Checkpoint
from xmrcae.io.model_datasets import options_of as options_of_json
from xmrcae.options import CHOICES, WHOLE, Options, make_options

MASK = xr.DataArray(np.ones((2, 2), dtype=bool), dims=("y", "x"))


BAD = [
    ("levels", [0, -1, 2.0, True, "4"]),
    ("channels", [[], "11", 4, [0], [[1, 0]], [[1, 1.5]], [1, [1]], [True], {1: 2}]),
    ("encoder", ["pca", None]),
    ("widening", ["serial", None]),
    ("restriction", ["mean"]),
    ("activation", ["tanh"]),
    ("tolerance", [-1.0, "small", [0.1, None], np.nan, True, [[1.0, 2.0]], []]),
    ("tolerance", [{"sst": -1}, {"sst": "x"}, {"sst": []}, {}]),
    ("encoding_size", [0, 10.0, "small"]),
    ("dilation", [-1, 0.5]),
    ("max_epochs", [-1, 10.0]),
    ("min_decrease", [2]),
    ("omega", [1.1, -0.1, np.nan, "half"]),
    ("anchor", [-0.1, "much", np.inf]),
    ("solver", ["sgd", ["adam"]]),
    ("solver_options", [3, [], "eps", {"eps": 1e-3}, {"max_epochs": 3}]),
    ("solver_options", [{"learning_rate": -1}, {"learning_rate": np.inf}, {"weight_decay": "x"}]),
    ("noise", [-0.01, np.inf]),
    ("split", ["random", (0.5, 0.5), 0.7, None, (0.7, 0.2, 0.2), (1.2, -0.1, -0.1)]),
    ("split", [("a", "b", "c"), (1, 2, np.nan), (True, False, False), (3, slice(4), [])]),
    ("seed", [-1, 1.0, None]),
    ("energy", [-1, "all"]),
    ("sketch", [0, 2.5, True]),
    ("horizontal", ["lat", ("lat",), ("lat", "lat"), 2]),
    ("sample", [3, []]),
    ("periodic", [1, "x"]),
    ("valid", [3, np.ones((2, 2), dtype=bool)]),
    ("land_value", ["0", np.nan]),
    ("gaps", ["interpolate", False]),
    ("fill", [1, "nearest"]),
    ("center", ["week", None, 1]),
    ("scale", ["var", 2.0]),
    ("weights", ["volume", np.ones((3, 4)), 1.0]),
    ("memory", [0, -1, "4GB", np.inf]),
    ("device", [0, None]),
    ("checkpoint", [3]),
    ("progress", ["yes", 1]),
]


@pytest.mark.parametrize(
    ("name", "bad"),
    [(name, bad) for name, values in BAD for bad in values],
    ids=lambda value: str(value)[:30],
)
def test_bad_option_is_named(name, bad):
    with pytest.raises((ValueError, TypeError), match=rf"^{name}\b"):
        xmrcae.MrCAE(**{name: bad})


def test_every_option_has_a_value_that_is_refused():
    assert {name for name, _ in BAD} == {field.name for field in dataclasses.fields(Options)}


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
    message = "unknown option xyz; The options are levels, .*tolerance"
    with pytest.raises(TypeError, match=message):
        xmrcae.MrCAE(xyz=1.0)


NEAREST = {"tolerence": "tolerance", "epochs": "max_epochs", "level": "levels", "gap": "gaps"}


@pytest.mark.parametrize(("wrong", "right"), NEAREST.items())
def test_a_misspelt_option_names_the_nearest(wrong, right):
    message = rf"unknown option {wrong}; did you mean {right} for {wrong}\?"
    with pytest.raises(TypeError, match=message):
        make_field().mrcae.fit(**{wrong: 1})


def test_the_docstring_lists_every_option_under_one_question():
    summary, _, parameters = inspect.getdoc(xmrcae.MrCAE).partition("Parameters\n")
    questions = dict(re.findall(r"^- ([^:]+): ((?:.|\n  )+)\.$", summary, re.MULTILINE))
    assert list(questions) == [
        "What to fit",
        "How far to go",
        "How to train",
        "What the data are like",
        "Where to run",
    ]
    listed = re.findall(r"`(\w+)`", " ".join(questions.values()))
    described = re.findall(r"^(\w+) : ", parameters.partition("Raises\n")[0], re.MULTILINE)
    assert listed == described == list(inspect.signature(xmrcae.MrCAE).parameters)


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
        ({"levels": 3, "channels": [[1], [1]]}, "channels has 2 entries for 3 levels"),
        ({"levels": 3, "tolerance": [1.0, 2.0]}, "tolerance has 2 entries for 3 levels"),
        ({"levels": 3, "tolerance": {"sst": [1.0, 2.0]}}, "tolerance has 2 entries for 3 levels"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        make_options(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": [[1], [1], [1]]}, "channels has 3 entries for 2 levels"),
        ({"tolerance": [1.0, 2.0, 3.0]}, "tolerance has 3 entries for 2 levels"),
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
    assert (options.max_epochs, options.min_decrease, options.noise) == (5000, 1e-3, 0.01)
    assert options.solver_options == {"learning_rate": 1e-3, "weight_decay": 1e-5, "eps": 1e-3}


def test_defaults_depend_on_the_solver():
    adam, lbfgs = make_options({"solver": "adam"}), make_options({"solver": "lbfgs"})
    for name in ("max_epochs", "min_decrease", "noise", "solver_options"):
        assert getattr(adam, name) != getattr(lbfgs, name)


def test_given_values_come_before_the_solvers():
    given = {"solver": "adam", "noise": 0, "max_epochs": 7, "solver_options": {"eps": 0.1}}
    options = make_options(given)
    assert (options.noise, options.max_epochs, options.min_decrease) == (0, 7, 1e-3)
    assert options.solver_options == {"learning_rate": 1e-3, "weight_decay": 1e-5, "eps": 0.1}


OLD = {"learning_rate": 0.1, "weight_decay": 1e-4, "adam_eps": 1e-2}


@pytest.mark.parametrize(
    ("solver", "now"),
    [
        ("lbfgs", {"learning_rate": 0.1, "weight_decay": 1e-4}),
        ("adam", {"learning_rate": 0.1, "weight_decay": 1e-4, "eps": 1e-2}),
        (np.array("adam"), {"learning_rate": 0.1, "weight_decay": 1e-4, "eps": 1e-2}),
    ],
    ids=str,
)
def test_old_names_of_the_solvers_options_are_taken_with_a_warning_of_what_to_write(solver, now):
    names = "learning_rate, weight_decay, adam_eps"
    message = f"instead of {names} write solver_options={now}: the next version"
    with pytest.warns(FutureWarning, match=re.escape(message)) as warned:
        model = xmrcae.MrCAE(solver=solver, **OLD)
    assert warned[0].filename == __file__
    assert model.options == xmrcae.MrCAE(solver=solver, solver_options=now).options


def test_old_names_join_the_solvers_options():
    with pytest.warns(FutureWarning):
        options = make_options({"solver_options": {"learning_rate": 0.1}, "weight_decay": 0.2})
    assert options.solver_options == {"learning_rate": 0.1, "weight_decay": 0.2}
    with pytest.warns(FutureWarning):  # None was the solver's default
        assert make_options({"learning_rate": None}) == Options()


def old_json(options):
    """What version 0.1 wrote of options."""
    found = json.loads(options.to_json())
    own = {"adam_eps": 1e-3} | found.pop("solver_options")
    return found | {"adam_eps" if name == "eps" else name: value for name, value in own.items()}


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
@pytest.mark.filterwarnings("error")
def test_options_of_older_files_are_read_as_they_were(solver):
    options = make_options({"solver": solver, "solver_options": {"learning_rate": 0.1}})
    assert make_options(options_of_json(old_json(options))) == options


@pytest.mark.filterwarnings("error")
def test_an_older_checkpoint_goes_on(tmp_path):
    options = {"levels": 1, "max_epochs": 1, "tolerance": None, "progress": False}
    options["checkpoint"] = tmp_path
    chosen = options | {"solver_options": {"learning_rate": 0.5}}
    first = make_field().mrcae.fit(**chosen)
    checkpoint = Checkpoint(tmp_path)
    saved = checkpoint.read()
    saved["identity"]["options"] = old_json(first.options)
    checkpoint.write(saved)
    assert make_field().mrcae.fit(**chosen).fitted.id == first.fitted.id
    with pytest.raises(ValueError, match=r"solver_options=.*0\.5.* there and .*0\.25.* here\)"):
        make_field().mrcae.fit(**options, solver_options={"learning_rate": 0.25})


def test_a_level_more_keeps_the_solvers_options_but_for_another_solver():
    options = make_options({"solver": "adam", "solver_options": {"eps": 0.1}})
    assert make_options(options.with_level(2, {})).solver_options == options.solver_options
    changed = make_options(options.with_level(2, {"solver": "lbfgs"}))
    assert changed.solver_options == Options().solver_options


def test_defaults_are_those_of_the_table():
    options = Options()
    assert (options.widening, options.restriction) == ("residual", "full_weighting")
    assert (options.dilation, options.omega) == (1, 0.5)
    assert (options.center, options.scale, options.fill) == (True, "std", 0)
    assert options.split == (0.7, 0.2, 0.1)
    assert options.channels_of(3) == [[1, 1, 1, 1]] * 3


def test_a_given_size_has_defaults_of_its_own_which_are_open_too():
    options = Options(encoding_size=200)
    assert (options.channels, options.omega, options.anchor) == ([[1] * 6], 1, 0)
    told = {"channels": [[2]], "omega": 0.5, "anchor": 0.5, "encoder": "filters"}
    assert vars(Options(encoding_size=200, **told)).items() >= told.items()


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
    numbers = {"levels": np.int64(3), "seed": np.uint8(3), "channels": [[np.int64(1)]]}
    others = {"tolerance": np.array([1.0, 0.5, 0.2]), "omega": np.float32(0.5)}
    options = make_options(numbers | others | {"land_value": np.float32(0)})
    assert json.loads(options.to_json())["levels"] == 3


@pytest.mark.parametrize("name", ["two_modes", "drifting_mode"])
def test_recipes_are_valid_options(name):
    options = xmrcae.MrCAE(**xmrcae.recipes[name]).options
    assert (options.widening, options.restriction, options.anchor) == ("parallel", "injection", 0)
    assert options.channels_of(3) == [[1, 1, 1], [1, 1, 1], [2, 2, 2]]


EPSILONS = {"two_modes": (4e-4, 2e-4, 4e-5), "drifting_mode": (1e-4, 5e-5, 1e-5)}


@pytest.mark.parametrize(("name", "epsilons"), EPSILONS.items())
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
    kept = (slice, float)
    return [part if isinstance(part, kept) else np.asarray(part).tolist() for part in split]


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
    same = make_options({"split": ([*range(700)], [900], [])}).to_json()
    assert texts[0] != texts[1] and texts[0] == same
    assert len(texts[0]) < 1200
    assert "split" not in options_of_json(json.loads(texts[0]))


KINDS = {
    "a scalar of NumPy": np.float32,
    "a 0-d array": np.array,
    "a DataArray": xr.DataArray,
    "a lazy DataArray": lambda value: xr.DataArray(value).chunk(),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", ["tolerance", "omega", "anchor", "energy", "memory", "land_value"])
def test_a_number_is_taken_by_value(kind, name):
    found = make_options({name: kind(0.5 if name != "memory" else 2.0**30)})
    expected = make_options({name: 0.5 if name != "memory" else 2.0**30})
    assert found == expected and found.to_json() == expected.to_json()
    assert type(getattr(found, name)) is float


@pytest.mark.parametrize("kind", [np.int16, *list(KINDS.values())[1:]])
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_number_is_taken_by_value(kind, name):
    found = make_options({name: kind(3)})
    assert found == make_options({name: 3}) and type(getattr(found, name)) is int


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_numbers_of_a_solver_are_taken_by_value(kind):
    found = make_options({"solver_options": {"learning_rate": kind(0.5)}})
    assert found == make_options({"solver_options": {"learning_rate": 0.5}})
    assert type(found.solver_options["learning_rate"]) is float


CHOSEN = {
    "center": False,
    "periodic": True,
    "progress": False,
    "gaps": "mean",
    "fill": 0.0,
    "solver": "adam",
    "sample": "month",
    "split": "blocks",
    "device": "cpu",
    "weights": "area",
}


@pytest.mark.parametrize("kind", [np.array, xr.DataArray])
@pytest.mark.parametrize(("name", "value"), CHOSEN.items())
def test_choices_are_taken_by_value(kind, name, value):
    if name == "weights":  # arrays are weights
        kind = np.str_
    found = make_options({name: kind(value)})
    expected = make_options({name: value})
    assert found == expected and found.to_json() == expected.to_json()


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
    options = {"levels": 1, "max_epochs": 1, "progress": False}
    model = xmrcae.MrCAE(tolerance=tolerance, **options).fit(make_field())
    assert model.options.tolerance == 0.5 and len(calls) == 1


def test_what_was_used_is_what_is_shown_saved_and_opened(tmp_path):
    field = make_field()
    options = {"levels": 1, "max_epochs": 1, "progress": False}
    options["split"] = (slice(0, 12), np.arange(12, 15), [16])
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
    first = {"tolerance": xr.DataArray(0.5), "split": split}
    make_field().mrcae.fit(**first, **options)
    for change in ({"tolerance": xr.DataArray(0.25)}, {"split": (split[0], split[2], split[1])}):
        (name,) = change
        with pytest.raises(ValueError, match=rf"another fit \({name}="):
            make_field().mrcae.fit(**first | options | change)


def test_the_package_can_be_imported_without_docstrings():
    code = "import xmrcae; xmrcae.MrCAE(levels=2)"
    subprocess.run([sys.executable, "-OO", "-c", code], check=True)


def test_numbers_that_are_wrong_are_refused_in_arrays_too():
    arrays = (xr.DataArray(np.nan), xr.DataArray([[1.0]]))
    for bad in (*map(np.array, (-1.0, True, 1j)), *arrays):
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
    given = {"tolerance": {"sst": np.float32(1)}, "land_value": -999.9}
    options = make_options(given | {"sample": ("time", "member")})
    found = json.loads(options.to_json(), parse_constant=pytest.fail)
    assert found["tolerance"] == {"sst": 1.0}


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
