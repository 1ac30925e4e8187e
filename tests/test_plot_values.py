"""Filters, errors and pyramids show the values that they are asked for, and say what else they take."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from helpers import make_field, make_two_variables
from matplotlib.figure import Figure
from plots import bars, drawn, mesh_of, panels

import xmrcae

pytestmark = [pytest.mark.minimum, pytest.mark.usefixtures("no_trace")]

QUICK = {"levels": 2, "max_epochs": 2, "progress": False, "tolerance": None}


@pytest.fixture(scope="module")
def ds() -> xr.Dataset:
    return make_two_variables()


@pytest.fixture(scope="module")
def model(ds: xr.Dataset) -> xmrcae.MrCAE:
    return ds.mrcae.fit(["sst", "ssh"], channels=[[1, 2]], **QUICK)


def images(fig: Figure) -> list[np.ndarray]:
    return [np.asarray(ax.images[0].get_array()) for ax in panels(fig)]


def test_filters_are_the_weights_of_the_network(model: xmrcae.MrCAE) -> None:
    fig = model.plot.filters(level=1, group=2)
    group = model.fitted.codec.network.levels[1].groups[1]
    shown = images(fig)
    assert len(shown) == 2 * 2 * 2  # encoder and decoder, variables, filters
    for k, name in enumerate(("encoder_weight", "decoder_weight")):
        weights = getattr(group, name).detach().cpu().numpy().reshape(2, 2, 3, 3)
        expected = weights.transpose(1, 0, 2, 3).reshape(4, 3, 3)
        np.testing.assert_array_equal(shown[4 * k : 4 * k + 4], expected)
    assert all(ax.get_ylim()[0] < ax.get_ylim()[1] for ax in panels(fig))  # the first row below
    assert [ax.get_title() for ax in panels(fig)[:2]] == ["group 2\nfilter 1", "group 2\nfilter 2"]
    assert panels(fig)[6].get_ylabel() == "decoder\nssh"
    assert [bar.get_xlabel() for bar in bars(fig)] == [
        "weight of the encoder [1]",
        "weight of the decoder [1]",
    ]
    limits = [ax.images[0].get_clim() for ax in panels(fig)]
    assert limits[0] == limits[3] and -limits[0][0] == limits[0][1] == np.abs(shown[:4]).max()


def test_all_filters_of_a_level_begin_with_its_deepening(model: xmrcae.MrCAE) -> None:
    fig = model.plot.filters(level=0)
    deepening = model.fitted.codec.network.levels[0].deepening
    shown = images(fig)
    assert len(shown) == 2 * 2 * 4 and panels(fig)[0].get_title() == "deepening"
    np.testing.assert_array_equal(
        shown[4], deepening.encoder_weight.detach().cpu().numpy().reshape(2, 3, 3)[1]
    )
    with pytest.raises(ValueError, match=r"group=3: level 0 has the groups 0, 1, 2"):
        model.plot.filters(level=0, group=3)
    with pytest.raises(ValueError, match="level=2"):
        model.plot.filters(level=2)
    outer = Figure()
    assert model.plot.filters(level=0, group=0, fig=outer) is outer


def test_codes_by_projection_have_decoders_alone() -> None:
    model = make_field().mrcae.fit(channels=[[1]], encoder="projection", **QUICK)
    fig = model.plot.filters()
    assert [bar.get_xlabel() for bar in bars(fig)] == ["weight of the decoder [1]"]
    weights = model.fitted.codec.network.levels[1].groups[0].decoder_weight.detach().cpu().numpy()
    assert len(images(fig)) == 2
    np.testing.assert_array_equal(images(fig)[1], weights.reshape(3, 3))


def test_errors_are_drawn_against_size(model: xmrcae.MrCAE, ds: xr.Dataset) -> None:
    score = model.score(ds)
    ax = model.plot.errors(ds, variable="ssh", metric="rmse").axes[0]
    line, values = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), score["encoding_size"])
    np.testing.assert_array_equal(line.get_ydata(), score["rmse"].sel(variable="ssh"))
    assert ax.get_xscale() == ax.get_yscale() == "log"
    valid = int(ds.isel(time=0).notnull().sum().to_array().sum())
    assert (
        values.get_xdata()[0] == valid and f"{valid:,}" in ax.get_legend().get_texts()[1].get_text()
    )
    assert [text.get_text() for text in ax.texts] == ["level 0", "level 1"]

    own = Figure().add_subplot()
    two = xmrcae.plot.errors(
        [score, score.assign(encoding_size=score["encoding_size"] * 2)], labels=["a", "b"], ax=own
    )
    assert two is own.figure and [text.get_text() for text in own.get_legend().get_texts()] == [
        "a",
        "b",
    ]
    assert (
        own.lines[0].get_color() != own.lines[1].get_color()
        and own.lines[0].get_marker() != own.lines[1].get_marker()
    )
    np.testing.assert_array_equal(
        own.lines[0].get_ydata(), score["rmse_global"].sel(variable="sst")
    )


def test_errors_of_a_variable_have_its_name_and_units(model: xmrcae.MrCAE, ds: xr.Dataset) -> None:
    assert list(model.score(ds)["units"]) == [
        ds[name].attrs.get("units", "") for name in ("sst", "ssh")
    ]
    (ax,) = model.plot.errors(ds, variable="sst").axes
    assert ax.get_ylabel() == "root-mean-square error against the finest data of sst [degC]"
    alone = ds["sst"].mrcae.fit(levels=2, max_epochs=1, progress=False)
    (ax,) = xmrcae.plot.errors({"alone": alone.score(ds["sst"]), "both": model.score(ds)}).axes
    assert ax.get_ylabel() == "root-mean-square error against the finest data [degC]"


def test_errors_refuse_before_they_read(
    model: xmrcae.MrCAE, ds: xr.Dataset, no_compute: Callable
) -> None:
    lazy = ds.chunk(time=5)
    for kwargs in ({"metric": "mse"}, {"variable": "u"}):
        with no_compute(), pytest.raises(ValueError, match=r"mse|'u'"):
            model.plot.errors(lazy, **kwargs)


def test_axes_of_errors_always_have_numbers() -> None:
    for sizes, errors in (
        ([200, 290], [0.21, 0.29]),
        ([200, 5000], [0.011, 0.4]),
        ([10, 10**6], [1e-5, 1.0]),
    ):
        table = {
            "rmse_global": ("level", errors, {"units": "m"}),
            "encoding_size": ("level", sizes),
        }
        score = xr.Dataset(table | {"ratio": ("level", 250 / np.array(sizes))}, {"level": [0, 1]})
        fig = xmrcae.plot.errors(score)
        fig.canvas.draw()
        for axis, (low, high) in (
            (fig.axes[0].xaxis, fig.axes[0].get_xlim()),
            (fig.axes[0].yaxis, fig.axes[0].get_ylim()),
        ):
            ticks = [*zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=True)]
            ticks += [*zip(axis.get_minorticklocs(), axis.get_minorticklabels(), strict=True)]
            assert (
                2 <= len([text for at, text in ticks if low <= at <= high and text.get_text()]) <= 9
            )


def test_what_is_no_score_is_an_error(model: xmrcae.MrCAE, ds: xr.Dataset) -> None:
    score = model.score(ds)
    single = score.isel(variable=0, drop=True)
    for given, kwargs, match in (
        ([], {}, "there is none"),
        ([score, score], {"labels": ["a"]}, "2 different ones are needed"),
        ({"a": score}, {"labels": ["a"]}, "labels already"),
        (score, {"metric": "mse"}, "metric='mse'"),
        (score, {"variable": "u"}, "variable='u': the score has sst, ssh"),
        (single, {"variable": "sst"}, "single field"),
        (
            [single, single.assign(rmse_global=single.rmse_global.assign_attrs(units="K"))],
            {},
            "units differ",
        ),
    ):
        with pytest.raises(ValueError, match=match):
            xmrcae.plot.errors(given, **kwargs)
    with pytest.raises(TypeError, match="'a' is no Dataset as model\\.score"):
        xmrcae.plot.errors({"a": 3})
    assert not plt.get_fignums()


def test_pyramid_shows_every_level(ds: xr.Dataset) -> None:
    ds = ds.assign(ssh=ds.ssh.assign_attrs(long_name="height", units="m"))
    tree = ds.chunk(time=5).mrcae.pyramid(["sst", "ssh"], levels=3).isel(time=[4])
    fig = xmrcae.plot.pyramid(tree, variable="ssh", projection=None, cmap="cividis")
    for k, ax in enumerate(panels(fig)):
        expected = tree[f"level_{k}/ssh"][0]
        np.testing.assert_allclose(drawn(ax), expected, rtol=1e-6)
        np.testing.assert_allclose(drawn(ax)["x"], expected["lon"], atol=1e-4)
        rows, columns = expected.shape
        assert ax.get_title().startswith(f"level {k} ({rows} × {columns})")
        finest = tree["level_2/ssh"]
        assert mesh_of(ax).get_clim() == (float(finest.min()), float(finest.max()))
    assert ax.get_title().endswith(", 2001-06-01") and bars(fig)[0].get_xlabel() == "height [m]"


def test_pyramids_without_coordinates_lie_by_position() -> None:
    field = (
        make_field(n_times=1, shape=(9, 14))
        .drop_vars(["lat", "lon", "time"])
        .rename(lat="j", lon="i")
    )
    fig = xmrcae.plot.pyramid(field.mrcae.pyramid(levels=2))
    coarse, fine = (drawn(ax) for ax in panels(fig))
    assert list(fine["x"].values) == list(range(14)) and set(coarse["x"].values) < set(
        fine["x"].values
    )
    assert panels(fig)[0].get_ylabel() == "j (position)"


def test_what_is_no_pyramid_at_one_time_is_an_error(ds: xr.Dataset) -> None:
    tree = ds.mrcae.pyramid(["sst", "ssh"], levels=2)
    with pytest.raises(ValueError, match=r"got time: 20.*tree.isel\(time=0\)"):
        xmrcae.plot.pyramid(tree)
    with pytest.raises(ValueError, match="variable='u': the pyramid holds sst, ssh"):
        xmrcae.plot.pyramid(tree.isel(time=0), variable="u")
    with pytest.raises(TypeError, match="DataTree with /level_0"):
        xmrcae.plot.pyramid(ds)
    assert not plt.get_fignums()


def test_a_lone_cell_is_as_large_as_the_data() -> None:
    field = make_field(globe=False, shape=(7, 30), land=False)
    model = field.mrcae.fit(**QUICK | {"channels": [[1]]})
    for projection in ("auto", None):
        coarsest = mesh_of(
            panels(model.plot.refinement(projection=projection))[0]
        ).get_coordinates()
        assert coarsest.shape[0] == 2
        np.testing.assert_allclose(np.ptp(coarsest[..., 1]), 140)
