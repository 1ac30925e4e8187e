"""Fits that go on from a model: more epochs, more groups, a finer grid."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray as xr
from helpers import make_field, make_two_variables

import xmrcae

pytestmark = pytest.mark.minimum

OPTIONS: dict[str, Any] = {
    "levels": 2,
    "channels": [[1]],
    "tolerance": None,
    "max_epochs": 10,
    "progress": False,
}


def weights_of(model: xmrcae.MrCAE) -> torch.Tensor:
    return (
        torch.nn.utils.parameters_to_vector(model.fitted.codec.network.parameters())
        .detach()
        .clone()
    )


def groups_of(model: xmrcae.MrCAE) -> list[int]:
    return [len(level.groups) for level in model.fitted.codec.network.levels]


def test_more_epochs() -> None:
    field = make_field()
    model = xmrcae.MrCAE(**OPTIONS).fit(field)
    before, identity = weights_of(model), model.fitted.id
    more = xmrcae.MrCAE(**OPTIONS | {"max_epochs": 100}).fit(field, start=model)
    assert groups_of(more) == groups_of(model) == [1, 1]
    assert set(more.history["level"].values) == {1} and set(more.history["group"].values) == {1}
    assert float(more.history["train_loss"][-1]) < 0.98 * float(model.history["train_loss"][-1])
    assert torch.equal(weights_of(model), before) and model.fitted.id == identity != more.fitted.id


def test_no_epochs_change_nothing() -> None:
    field = make_field()
    model = xmrcae.MrCAE(**OPTIONS).fit(field)
    same = xmrcae.MrCAE(**OPTIONS | {"max_epochs": 0}).fit(field, start=model)
    assert torch.equal(weights_of(model), weights_of(same))
    assert np.array_equal(same.reconstruct(field), model.reconstruct(field), equal_nan=True)


def test_more_groups() -> None:
    field = make_field()
    model = xmrcae.MrCAE(**OPTIONS).fit(field)
    more = xmrcae.MrCAE(**OPTIONS | {"channels": [[1, 2], [1, 1, 1]]}).fit(field, start=model)
    assert groups_of(more) == [2, 3]
    stages = list(
        dict.fromkeys(zip(more.history["level"].values, more.history["group"].values, strict=True))
    )
    assert stages == [(0, 2), (1, 1), (1, 2), (1, 3)]
    assert (
        more.refinement_map(level=1)
        .isel(group=0)
        .equals(model.refinement_map(level=1).isel(group=0))
    )
    assert float(more.score(field)["rmse"][-1]) < 0.9 * float(model.score(field)["rmse"][-1])


def test_scale_is_that_of_the_model() -> None:
    ds = make_two_variables()
    model = xmrcae.MrCAE(**OPTIONS).fit(ds)
    other = xmrcae.MrCAE(**OPTIONS).fit(ds * 2 + 1, start=model)
    assert np.array_equal(other.fitted.standard.scale, model.fitted.standard.scale)


def test_a_saved_model_is_gone_on_from(tmp_path: Any) -> None:
    field = make_field()
    model = xmrcae.MrCAE(**OPTIONS).fit(field)
    model.save(tmp_path / "model.nc")
    options = OPTIONS | {"channels": [[1, 1]]}
    one, other = (
        xmrcae.MrCAE(**options).fit(field, start=m)
        for m in (model, xmrcae.open_model(tmp_path / "model.nc"))
    )
    assert torch.equal(weights_of(one), weights_of(other))


def test_going_on_goes_on_after_a_kill(tmp_path: Any) -> None:
    field = make_field()
    model = xmrcae.MrCAE(**OPTIONS).fit(field)
    more = xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path).fit(field, start=model)
    assert (
        xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path).fit(field, start=model).fitted.id
        == more.fitted.id
    )
    with pytest.raises(ValueError, match="another model to start from"):
        xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path).fit(field)


@pytest.mark.parametrize("options, change, message", [
    ({"widening": "parallel"}, lambda f: f, "fitted with widening='residual', which cannot change to 'parallel'"),
    ({"center": False}, lambda f: f, "fitted with center=True"),
    ({}, lambda f: f.isel(lat=slice(1, None)), "dimension 'lat' has 20 points"),
    ({}, lambda f: f.assign_coords(lon=f["lon"] + 1), "coordinate 'lon' differs first"),
    ({}, lambda f: f.rename("ssh"), r"the model describes \['sst'\], the data hold \['ssh'\]"),
    ({"levels": 1}, lambda f: f, "is not the grid of the model"),
])  # fmt: skip
def test_what_one_cannot_go_on_to_is_refused(options: Any, change: Any, message: str) -> None:
    model = xmrcae.MrCAE(**OPTIONS | {"max_epochs": 0}).fit(make_field())
    with pytest.raises(ValueError, match=message):
        xmrcae.MrCAE(**OPTIONS | options).fit(change(make_field()), start=model)
    with pytest.raises(ValueError, match="not fitted yet"):
        xmrcae.MrCAE(**OPTIONS).fit(make_field(), start=xmrcae.MrCAE())


# A finer grid


@pytest.mark.parametrize(("size", "globe"), [((41, 60), True), ((42, 60), False), ((43, 60), True)])
def test_a_level_more_starts_from_what_the_model_knows(size: tuple[int, int], globe: bool) -> None:
    fine = make_field(shape=size, globe=globe, n_times=30)
    coarse = fine.mrcae.pyramid(levels=2)["level_0"]["sst"]
    model = coarse.mrcae.fit(levels=2, tolerance=0.05, max_epochs=10, progress=False)
    refined = model.refine(fine, max_epochs=0)
    assert refined.levels == 3 and model.levels == 2
    small, large = model.fitted.codec, refined.fitted.codec
    for level in range(2):
        assert torch.equal(small.network.has_data[level], large.network.has_data[level])
        assert model.refinement_map(level=level).equals(refined.refinement_map(level=level))
        a, b = small.network.levels[level], large.network.levels[level]
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    found = refined.decode(refined.encode(fine), level=1)
    np.testing.assert_allclose(found, model.reconstruct(coarse), atol=2e-4 * float(coarse.std()))
    trained = model.refine(fine, max_epochs=10)
    assert set(trained.history["level"].values) == {1, 2}
    assert float(trained.score(fine)["rmse"][-1]) < float(refined.score(fine)["rmse"][-1])


def test_what_was_not_trained_anew_has_a_dash_and_every_level_its_name() -> None:
    field = make_field(shape=(23, 31), globe=False)
    model = xmrcae.MrCAE(**OPTIONS).fit(field[:, ::2, ::2])
    finer = model.refine(field)
    assert "nan" not in repr(finer) and repr(finer).splitlines()[3].split()[-2:-1] == ["-"]
    more = xmrcae.MrCAE(**OPTIONS | {"channels": [[1, 2], [1, 1]]}).fit(
        field[:, ::2, ::2], start=model
    )
    texts = [text.get_text() for text in more.plot.history().axes[0].texts]
    plt.close()
    assert {"level 0 group 2", "level 1 group 1"} <= set(texts)


def test_options_of_one_value_a_level_repeat_the_last() -> None:
    fine = make_field(shape=(42, 60))
    coarse = fine.isel(lat=slice(1, None, 2), lon=slice(1, None, 2))
    options = {
        "levels": 2,
        "channels": [[1], [2]],
        "tolerance": [0.4, 0.2],
        "max_epochs": 2,
        "progress": False,
    }
    refined = coarse.mrcae.fit(**options).refine(fine)
    assert refined.options.channels == [[1], [2], [2]] and refined.options.tolerance == [
        0.4,
        0.2,
        0.2,
    ]
    chosen = coarse.mrcae.fit(**options).refine(fine, tolerance=0.1)
    assert chosen.options.tolerance == 0.1


def test_a_refined_model_is_read_back(tmp_path: Any) -> None:
    fine = make_field(shape=(42, 60))
    coarse = fine.isel(lat=slice(1, None, 2), lon=slice(1, None, 2))
    refined = coarse.mrcae.fit(levels=2, max_epochs=2, progress=False).refine(fine, max_epochs=2)
    refined.save(tmp_path / "model.zarr")
    again = xmrcae.open_model(tmp_path / "model.zarr")
    pyramids = again.fitted.codec.pyramid, refined.fitted.codec.pyramid
    assert len({(p.levels, p.y, p.x, p.restriction) for p in pyramids}) == 1
    xr.testing.assert_identical(again.reconstruct(fine), refined.reconstruct(fine))


def test_data_of_another_resolution_are_refused() -> None:
    model = make_field().mrcae.fit(levels=2, max_epochs=0, progress=False)
    with pytest.raises(ValueError, match=r"every 2\. row.*dimension 'lat' has"):
        model.refine(make_field())
