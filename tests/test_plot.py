"""The pictures of a fitted model, drawn without a screen: what they show is what the model says."""

import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import cftime
import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from helpers import ERSST, HADGEM, make_field, make_two_variables, open_real
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from plots import bars, colours_of_missing, drawn, mesh_of, panels

import xmrcae
from xmrcae.plot import LAND
from xmrcae.plot.text import when

pytestmark = [pytest.mark.minimum, pytest.mark.usefixtures("no_trace")]

QUICK = {"levels": 2, "max_epochs": 5, "progress": False}


@pytest.fixture(scope="module")
def field() -> xr.DataArray:
    """Northernmost row first; lively in one part, quiet in the other."""
    field = make_field(shape=(31, 40)).isel(lat=slice(None, None, -1))
    return field.where(field.lon < 200, 15 + (field - 15) / 20).assign_attrs(field.attrs)


@pytest.fixture(scope="module")
def model(field: xr.DataArray) -> xmrcae.MrCAE:
    """With two groups on each level, which act in some of its cells."""
    return field.mrcae.fit(channels=[[1, 2]], tolerance=0.1, **QUICK)


def assert_shows(ax: Any, expected: xr.DataArray) -> None:
    """The panel shows a (lat, lon) field where it lies, the right way up."""
    expected = expected.transpose("lat", "lon").sortby(["lat", "lon"])
    shown = drawn(ax)
    np.testing.assert_allclose(shown["y"], expected["lat"], atol=1e-4)
    np.testing.assert_allclose(shown["x"], expected["lon"], atol=1e-4)
    np.testing.assert_allclose(shown, expected, rtol=1e-6)
    assert ax.get_ylim()[0] < ax.get_ylim()[1] and ax.get_xlim()[0] < ax.get_xlim()[1]


def test_refinement_shows_the_number_of_filters_on_every_level(
    model: xmrcae.MrCAE, field: xr.DataArray
) -> None:
    fig = model.plot.refinement()
    shares = model.score(field)["active_share"].values
    assert 0 < shares[1] < 1
    assert [ax.get_title() for ax in panels(fig)] == [
        f"level {k}: {shares[k]:.0%} active" for k in range(2)
    ]
    for level, ax in enumerate(panels(fig)):
        count = model.refinement_count(level=level)
        storable = model.fitted.codec.network.storable[level].any(0).cpu().numpy()
        stored = model.fitted.orient(xr.DataArray(storable, dims=("lat", "lon")))
        expected = count.where(stored).isel(
            lat=(count["inside"] | stored).any("lon").values,
            lon=(count["inside"] | stored).any("lat").values,
        )
        assert_shows(ax, expected)
        assert not stored.all() and (colours_of_missing(ax) == to_rgba(LAND)).all()
    (bar,) = bars(fig)
    assert "filters" in bar.get_xlabel()
    assert list(bar.get_xticks()) == [0, 1, 2, 3]
    colours = {tuple(mesh_of(panels(fig)[0]).to_rgba(n)) for n in (0, 1, 2, 3)}
    assert len(colours) == 4 and to_rgba(LAND) not in colours
    assert np.array_equal(
        mesh_of(panels(fig)[0]).to_rgba(2.9), mesh_of(panels(fig)[1]).to_rgba(3.1)
    )


def test_refinement_of_a_level_adds_its_groups(model: xmrcae.MrCAE) -> None:
    fig = model.plot.refinement(level=1)
    masks = model.refinement_map(level=1)
    assert len(panels(fig)) == 2 + 2
    assert [ax.get_title().split(":")[0] for ax in panels(fig)[2:]] == [
        "level 1, group 1",
        "level 1, group 2",
    ]
    for ax, mask in zip(panels(fig)[2:], masks, strict=True):
        assert float(drawn(ax).sum()) == int(mask.sum()) > 0
    assert [label.get_text() for label in bars(fig)[1].get_xticklabels()] == ["idle", "active"]
    with pytest.raises(ValueError, match="level=2"):
        model.plot.refinement(level=2)


def test_a_level_without_groups_says_so(field: xr.DataArray) -> None:
    model = field.mrcae.fit(tolerance=[100.0, 0.01], **QUICK)
    fig = model.plot.refinement(level=0)
    assert panels(fig)[0].get_title() == "level 0: no group" and len(panels(fig)) == 2
    assert drawn(panels(fig)[0]).max() == 0


def test_reconstruction_shows_levels_data_and_error(
    model: xmrcae.MrCAE, field: xr.DataArray
) -> None:
    snapshot = field.isel(time=3)
    fig = model.plot.reconstruction(snapshot, projection=None)
    codes, again = model.encode(snapshot), model.reconstruct(snapshot)
    shown = [model.decode(codes, level=0), again, snapshot, again - snapshot]
    assert len(panels(fig)) == len(shown)
    for ax, expected in zip(panels(fig), shown, strict=True):
        assert_shows(ax, expected)
        assert expected.isnull().any() and (colours_of_missing(ax) == to_rgba(LAND)).all()
    rmse = model.score(snapshot)["rmse"].values
    assert rmse[1] == pytest.approx(float(((again - snapshot) ** 2).mean() ** 0.5), rel=1e-4)
    assert [ax.get_title() for ax in panels(fig)] == [
        f"level 0 (15 × 20)\nrmse {rmse[0]:.2g} degC",
        f"level 1 (31 × 40)\nrmse {rmse[1]:.2g} degC",
        f"data, {str(snapshot.time.values)[:10]}",
        "error of level 1",
    ]
    assert [bar.get_xlabel() for bar in bars(fig)] == [
        "a made-up temperature [degC]",
        "reconstruction − data [degC]",
    ]
    limits = {mesh_of(ax).get_clim() for ax in panels(fig)[:3]}
    assert limits == {(float(snapshot.min()), float(snapshot.max()))}
    low, high = mesh_of(panels(fig)[3]).get_clim()
    off = abs(again - snapshot)
    assert (
        -low == high and 0.005 < float((off > high).sum() / off.count()) < 0.015
    )  # the rest is in the bar's ends
    labels = {ax.get_xlabel() for ax in panels(fig)} | {ax.get_ylabel() for ax in panels(fig)}
    assert labels == {"longitude [degrees_east]", "latitude [degrees_north]"}


def test_order_and_longitude_of_the_snapshot_change_nothing(
    model: xmrcae.MrCAE, field: xr.DataArray
) -> None:
    snapshot = field.isel(time=[3])
    other = snapshot.assign_coords(lon=(snapshot.lon + 180) % 360 - 180).sortby("lon").sortby("lat")
    other = other.assign_coords(lon=other.lon.assign_attrs(snapshot.lon.attrs)).transpose(
        "lon", "time", "lat"
    )
    first, second = (panels(model.plot.reconstruction(each)) for each in (snapshot, other))
    for a, b in zip(first, second, strict=True):
        xr.testing.assert_allclose(drawn(a), drawn(b))


def test_missing_pixels_and_land_values_are_grey(model: xmrcae.MrCAE, field: xr.DataArray) -> None:
    snapshot = field.isel(time=3).copy()
    land = snapshot.isnull().sortby("lat").values
    row, column = (int(i[0]) for i in np.nonzero(~land))
    snapshot[field.sizes["lat"] - 1 - row, column] = np.nan
    fig = model.plot.reconstruction(
        snapshot.where(snapshot.notnull() | ~field.isel(time=3).isnull(), 99.0)
    )
    _, again, data, error = (drawn(ax).isnull().values for ax in panels(fig))
    assert np.array_equal(again, land)
    assert data[row, column] and error[row, column]
    assert data.sum() == error.sum() == land.sum() + 1


def test_one_snapshot_at_a_time(model: xmrcae.MrCAE, field: xr.DataArray) -> None:
    with pytest.raises(ValueError, match=r"got time: 3.*isel\(time=0\)"):
        model.plot.reconstruction(field.isel(time=slice(3)))
    with pytest.raises(ValueError, match="got time: 0"):
        model.plot.reconstruction(field.isel(time=slice(0)))
    assert not plt.get_fignums()


def test_a_snapshot_without_a_value_is_an_error(model: xmrcae.MrCAE, field: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="no value on a valid pixel"):
        model.plot.reconstruction(field.isel(time=0) * np.nan)
    assert not plt.get_fignums()


def test_a_constant_field_is_drawn(field: xr.DataArray) -> None:
    constant = field * 0 + 5
    model = constant.mrcae.fit(levels=2, max_epochs=2, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = [
            model.plot.reconstruction(constant[0]),
            xmrcae.plot.pyramid(constant.mrcae.pyramid(levels=2).isel(time=0)),
        ]
        for fig in (*figures, model.plot.history(), model.plot.errors(constant)):
            fig.canvas.draw()
    for fig, n in zip(figures, (3, 2), strict=True):  # equal values have equal colours
        assert len({mesh_of(ax).get_clim() for ax in panels(fig)[:n]}) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.datetime64("2000-01-01"), "2000-01-01"), (np.datetime64("2000-01-01T06:00"), "2000-01-01T06:00"),
        (np.datetime64("2000-01-01T00:00:30"), "2000-01-01T00:00:30"), (np.timedelta64(30, "h"), "t 1 days 06:00:00"),
        (np.timedelta64(48, "h"), "t 2 days"), (20000105, "t 20000105"), (0.123456, "t 0.1235"), ("r1i1", "r1i1"),
        (cftime.Datetime360Day(2000, 2, 30), "2000-02-30"),
        (cftime.Datetime360Day(2000, 2, 30, 9), "2000-02-30T09:00"),
    ],
)  # fmt: skip
def test_titles_tell_the_place_of_a_snapshot(value: Any, text: str) -> None:
    field = xr.DataArray(np.zeros((1, 2, 2)), dims=("t", "y", "x"), coords={"t": [value]})
    assert when(field, ["t"]) == when(field[0], ["t"]) == f", {text}"


def test_titles_of_stacked_samples_tell_each_place(field: xr.DataArray) -> None:
    stacked = xr.concat(
        [field[:2]] * 2, xr.DataArray(["a", "b"], dims="member", name="member")
    ).stack(s=["member", "time"])
    assert when(stacked.isel(s=3), ["s"]) == ", b, " + str(field["time"].values[1])[:10]


def test_a_power_of_ten_does_not_lie_on_the_label(field: xr.DataArray) -> None:
    small = (field * 1e-5).assign_attrs(units="kg m-2 s-1", long_name="Precipitation")
    fig = small.mrcae.fit(levels=2, max_epochs=2, progress=False).plot.reconstruction(small[0])
    fig.canvas.draw()
    for bar in bars(fig):
        offset, name = bar.xaxis.get_offset_text(), bar.xaxis.label
        assert not offset.get_text() or not offset.get_window_extent().overlaps(
            name.get_window_extent()
        )
    assert offset.get_text()


def test_variables_of_a_dataset_are_chosen_by_name() -> None:
    ds = make_two_variables()
    ds["ssh"].attrs = {"units": "m", "standard_name": "sea_surface_height"}
    model = ds.mrcae.fit(["sst", "ssh"], channels=[[1]], tolerance=None, **QUICK)
    snapshot = ds.isel(time=0)
    first, second = (
        model.plot.reconstruction(snapshot),
        model.plot.reconstruction(snapshot, variable="ssh"),
    )
    assert_shows(panels(first)[2], snapshot["sst"])
    assert_shows(panels(second)[2], snapshot["ssh"])
    rmse = float(model.score(snapshot)["rmse"].sel(level=1, variable="ssh"))
    assert panels(second)[1].get_title().endswith(f"\nrmse {rmse:.2g} m")
    assert [bar.get_xlabel() for bar in bars(second)] == [
        "sea_surface_height [m]",
        "reconstruction − data [m]",
    ]
    with pytest.raises(ValueError, match=r"variable='u'.*sst, ssh"):
        model.plot.reconstruction(snapshot, variable="u")


def test_longitudes_across_greenwich_do_not_tear_the_map() -> None:
    field = make_field(globe=False, shape=(21, 40))
    field = field.assign_coords(lon=("lon", (field.lon.values + 340) % 360, field.lon.attrs))
    model = field.mrcae.fit(channels=[[1]], tolerance=None, **QUICK)
    for ax in [
        *panels(model.plot.refinement()),
        *panels(model.plot.reconstruction(field.isel(time=0))),
    ]:
        assert 30 < np.diff(ax.get_xlim())[0] < 50
    np.testing.assert_allclose(drawn(ax)["x"], np.arange(340, 380), atol=1e-4)


def curvilinear(*, folds: bool) -> xr.DataArray:
    """A field without 1-D coordinates whose first row is the northernmost."""
    field = (
        make_field(globe=False, shape=(21, 40))
        .isel(lat=slice(None, None, -1))
        .rename(lat="j", lon="i")
    )
    lat, lon = (
        field["j"].values[:, None] + 0.1 * np.arange(40),
        field["i"].values + 0.1 * np.arange(21)[:, None],
    )
    lon = (lon + 340) % 360 if folds else lon
    coords = {
        "nav_lat": (("j", "i"), lat, {"standard_name": "latitude", "units": "degrees_north"}),
        "nav_lon": (("j", "i"), lon, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    return field.drop_vars(["j", "i"]).assign_coords(coords)


@pytest.mark.parametrize("folds", [False, True])
def test_curvilinear_grids_are_drawn_north_up(folds: bool) -> None:
    field = curvilinear(folds=folds).where(
        lambda field: field.nav_lat < 30, 15
    )  # quiet in the north
    model = field.mrcae.fit(channels=[[1]], tolerance=0.2, **QUICK)
    on = {"projection": None}
    count = model.refinement_count(level=1)
    count = count.where(count["inside"], drop=True)
    assert count[-1].sum() > count[0].sum()
    snapshot = field.isel(time=0)
    expected = {
        panels(model.plot.refinement(level=1, **on))[1]: count,
        panels(model.plot.reconstruction(snapshot, **on))[2]: snapshot,
        panels(xmrcae.plot.pyramid(field.mrcae.pyramid(levels=2).isel(time=0), **on))[1]: snapshot,
    }
    labels = (
        {"longitude [degrees_east]", "latitude [degrees_north]"}
        if not folds
        else {"i (position)", "j (position)"}
    )
    for ax, values in expected.items():
        ax.figure.canvas.draw()
        assert {ax.get_xlabel(), ax.get_ylabel()} == labels
        mesh = mesh_of(ax)
        left = mesh.get_coordinates()[:, 0]
        heights = ax.transData.transform(left)[:, 1]
        rows = mesh.get_array()[:: -1 if heights[0] < heights[-1] else 1]  # from the top
        seen = ~np.ma.getmaskarray(rows)
        assert seen.sum() > 0.5 * values.size
        np.testing.assert_allclose(rows[seen], values.values[seen], rtol=1e-6)
        if folds:  # rows are counted on the data, whose first is the northernmost
            assert left[:, 1][heights.argmax()] < left[:, 1][heights.argmin()]


def test_a_given_figure_is_drawn_into(model: xmrcae.MrCAE, field: xr.DataArray) -> None:
    outer = Figure(figsize=(9, 9), layout="constrained")
    upper, lower = outer.subfigures(2)
    assert (
        model.plot.refinement(fig=upper) is upper
        and model.plot.reconstruction(field[0], fig=lower) is lower
    )
    assert len(panels(outer)) == 6
    ax = Figure().add_subplot()
    assert model.plot.history(ax=ax) is ax.figure
    assert not plt.get_fignums()
    assert model.plot.history() is plt.gcf()  # a new one is pyplot's, so that notebooks show it


def test_panels_share_their_axes_and_show_every_cell(
    model: xmrcae.MrCAE, field: xr.DataArray
) -> None:
    on = {"projection": None}
    for fig in (model.plot.refinement(level=1, **on), model.plot.reconstruction(field[0], **on)):
        corners = np.concatenate(
            [mesh_of(ax).get_coordinates().reshape(-1, 2) for ax in panels(fig)]
        )
        for ax in panels(fig):
            for limits, values in zip((ax.get_xlim(), ax.get_ylim()), corners.T, strict=True):
                np.testing.assert_allclose(limits, (values.min(), values.max()))


def test_colour_maps_are_taken(model: xmrcae.MrCAE, field: xr.DataArray) -> None:
    for fig in (
        model.plot.refinement(cmap="cividis"),
        model.plot.reconstruction(field[0], cmap=plt.get_cmap("cividis")),
    ):
        mesh = mesh_of(panels(fig)[0])
        assert mesh.to_rgba(mesh.get_clim()[1]) == pytest.approx(plt.get_cmap("cividis")(1.0))
    assert plt.get_cmap("cividis").get_bad()[3] == 0  # matplotlib's own is as it was


def test_history_shows_losses_and_stages(model: xmrcae.MrCAE) -> None:
    history = model.history
    fig = model.plot.history()
    (ax,) = fig.axes
    assert (
        ax.get_yscale() == "log"
        and ax.get_xlabel() == "epoch"
        and "[scaled units squared]" in ax.get_ylabel()
    )
    lines = {line.get_label(): line for line in ax.lines}
    for label, name in (("train", "train_loss"), ("validation, own", "validation_loss")):
        (line,) = (line for key, line in lines.items() if key.startswith(label))
        np.testing.assert_array_equal(line.get_ydata(), history[name])
    points = lines["validation, finest level (3.4)"]
    assert points.get_linestyle() == "None"
    np.testing.assert_array_equal(
        points.get_ydata(), history["validation_global_loss"].dropna("epoch")
    )
    names = ["level 0 deepen", "group 1", "group 2", "level 1 deepen", "group 1", "group 2"]
    labels = sorted(ax.texts, key=lambda text: text.xy[0])
    assert [label.get_text() for label in labels] == names
    stages = history["level"] * 10 + history["group"]
    begins = history["epoch"].values[np.flatnonzero(np.diff(stages, prepend=-1))] - 0.5
    np.testing.assert_array_equal([label.xy[0] for label in labels], begins)
    vertical = [
        line.get_xdata()[0]
        for line in ax.lines
        if len(line.get_xdata()) == 2 and np.ptp(line.get_xdata()) == 0
    ]
    assert sorted(vertical) == list(begins)
    (band,) = ax.patches
    assert (band.get_x(), band.get_x() + band.get_width()) == (
        begins[3],
        history.sizes["epoch"] + 0.5,
    )


def with_history(
    model: xmrcae.MrCAE, lengths: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give a model a history of stages (level, group, epochs)."""
    level, group = (
        np.concatenate([np.full(stage[2], stage[i]) for stage in lengths]) for i in (0, 1)
    )
    n = len(level)
    losses = {name: ("epoch", np.geomspace(1, 1e-3, n)) for name in model.history.data_vars}
    history = xr.Dataset(
        losses | {"level": ("epoch", level), "group": ("epoch", group)},
        {"epoch": np.arange(1, n + 1)},
    )
    monkeypatch.setattr(type(model), "history", history.assign_attrs(units="scaled units squared"))


def test_labels_of_stages_never_overlap(
    model: xmrcae.MrCAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = [(k, j, n) for k in range(4) for j, n in enumerate((500, 1, 1, 400, 1))]
    with_history(model, [*lengths, (4, 0, 1), (5, 0, 400)], monkeypatch)
    fig = model.plot.history()
    fig.canvas.draw()
    (ax,) = fig.axes
    boxes = [text.get_window_extent() for text in ax.texts]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    names = [text.get_text() for text in ax.texts]
    bands = [(patch.get_x() - 0.5, patch.get_width()) for patch in ax.patches]
    assert bands == [(903, 903), (3 * 903, 903), (4 * 903 + 1, 400)]
    assert {f"level {k} deepen" for k in range(4)} <= set(names) and "group 1" in names
    assert all(fig.bbox.contains(*corner) for box in boxes for corner in (box.min, box.max))


def test_an_empty_history_is_an_error(model: xmrcae.MrCAE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(model), "history", model.history.isel(epoch=slice(0)))
    with pytest.raises(ValueError, match="history is empty"):
        model.plot.history()


def test_an_unfitted_model_says_so() -> None:
    with pytest.raises(ValueError, match="not fitted"):
        xmrcae.MrCAE().plot.refinement()


@pytest.mark.parametrize(
    ("name", "variable", "when", "label", "has_land"),
    [
        (ERSST, "sst", "data, 2010-02-01", "Monthly Means of Sea Surface Temperature [degC]", True),
        (HADGEM, "air_temperature", "data, 1861-06-01", "air_temperature [K]", False),
    ],
)
def test_real_files_are_drawn(
    real_file: Callable[[str], Path],
    name: str,
    variable: str,
    when: str,
    label: str,
    has_land: bool,
) -> None:
    da = open_real(real_file, name)[variable][:20]
    model = da.mrcae.fit(channels=[[1]], tolerance=None, **QUICK | {"max_epochs": 2})
    snapshot = da.isel(time=1)
    fig = model.plot.reconstruction(snapshot)
    y, x = da.dims[1:]
    assert_shows(panels(fig)[2], snapshot.rename({y: "lat", x: "lon"}))
    assert panels(fig)[2].get_title() == when
    assert bars(fig)[0].get_xlabel() == label
    for ax in [*panels(fig)[1:], panels(model.plot.refinement())[1]]:
        missing = colours_of_missing(ax)
        assert bool(len(missing)) == has_land and (missing == to_rgba(LAND)).all()
    assert len(model.plot.history().axes) == 1
