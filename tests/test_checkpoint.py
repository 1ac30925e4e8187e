"""Fits that were stopped go on to the same end, to the bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openings
import pytest
import torch
import xarray as xr
from helpers import DEVICE, make_field
from openings import data_of, write_checkpoint

import xmrcae
from xmrcae.core.checkpoint import Checkpoint
from xmrcae.core.training import Trainer

OPTIONS: dict[str, Any] = {"levels": 2, "channels": [[1, 2]], "max_epochs": 25, "progress": False}


def assert_same_fit(one: xmrcae.MrCAE, other: xmrcae.MrCAE) -> None:
    """Compare weights, masks and history to the bit, but for the seconds."""
    a, b = (model.fitted.codec.network for model in (one, other))
    parameters = list(zip(a.parameters(), b.parameters(), strict=True))
    assert parameters and all(torch.equal(p, q) for p, q in parameters)
    for level in range(one.levels):
        assert one.refinement_map(level=level).equals(other.refinement_map(level=level))
    assert one.history.drop_vars("seconds").identical(other.history.drop_vars("seconds"))


def interrupted_after(
    monkeypatch: pytest.MonkeyPatch, n_saves: int, field: xr.DataArray, **options: Any
) -> None:
    """Fit until the state has been saved so many times."""
    with monkeypatch.context() as patch:
        init = Trainer.__init__

        def counting(self: Trainer, *args: Any, save: Any, **kwargs: Any) -> None:
            left = iter(range(n_saves - 1))

            def counted(state: dict[str, Any]) -> None:
                save(state)
                if next(left, None) is None:
                    raise KeyboardInterrupt

            init(self, *args, save=counted, **kwargs)

        patch.setattr(Trainer, "__init__", counting)
        with pytest.raises(KeyboardInterrupt):
            xmrcae.MrCAE(**OPTIONS | options).fit(field)


@pytest.mark.parametrize("options", [
    {}, {"solver": "adam"}, {"sketch": 3}, {"widening": "parallel", "anchor": 0.0}, {"activation": "relu"},
    {"encoding_size": 300}, {"solver_options": {"weight_decay": 1e-4}, "min_decrease": 0.2, "max_epochs": 60},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("n_saves", [1, 3, 4])
def test_an_interrupted_fit_goes_on_to_the_same_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, n_saves: int, options: dict[str, Any]
) -> None:
    field = make_field()
    whole = xmrcae.MrCAE(**OPTIONS | options).fit(field)
    interrupted_after(monkeypatch, n_saves, field, checkpoint=tmp_path / "state", **options)
    resumed = xmrcae.MrCAE(**OPTIONS | options, checkpoint=tmp_path / "state").fit(field)
    assert not resumed.partial
    assert_same_fit(whole, resumed)
    assert (resumed.history["seconds"].diff("epoch") >= 0).all()


@pytest.mark.parametrize(("before", "after"), [("cpu", "auto"), ("auto", "cpu")])
def test_an_interrupted_fit_goes_on_on_another_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: str, after: str
) -> None:
    field = make_field()
    whole = xmrcae.MrCAE(**OPTIONS, device=before).fit(field)
    interrupted_after(monkeypatch, 4, field, checkpoint=tmp_path, device=before)
    saved = Checkpoint(tmp_path).read()["history"]
    resumed = xmrcae.MrCAE(**OPTIONS, device=after, checkpoint=tmp_path).fit(field)
    assert not resumed.partial
    loss, expected = (model.history["validation_loss"].values for model in (resumed, whole))
    n_done = len(saved) - 1  # a stage replaces its last row
    assert n_done > 10 and np.array_equal(loss[:n_done], expected[:n_done])
    assert loss[-1] == pytest.approx(expected[-1], rel=1e-6 if DEVICE.type == "cpu" else 0.1)


def test_a_checkpoint_changes_no_bit(tmp_path: Path) -> None:
    field = make_field()
    assert_same_fit(
        xmrcae.MrCAE(**OPTIONS).fit(field), xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path).fit(field)
    )


def test_a_finished_fit_is_returned_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    field = make_field()
    first = xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path).fit(field)
    content = (tmp_path / "checkpoint.pt").read_bytes()
    monkeypatch.delattr("xmrcae.core.evaluation.Evaluation.objective")
    monkeypatch.delattr("xmrcae.grid.compression.compress")
    again = xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path).fit(field.chunk(time=5))
    assert_same_fit(first, again)
    assert again.fitted.id == first.fitted.id and again.history.identical(first.history)
    assert again.reconstruct(field).identical(first.reconstruct(field))
    assert (tmp_path / "checkpoint.pt").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def altered(field: xr.DataArray, part: str) -> xr.DataArray:
    """The field with one value of one snapshot of a part changed in its last digits."""
    result = field.copy(deep=True)
    model = xmrcae.MrCAE(**OPTIONS | {"max_epochs": 0}).fit(field)
    snapshot = np.flatnonzero(model.split == part)[0]
    at = np.argwhere(np.isfinite(result.values[snapshot]))[100]
    result.values[(snapshot, *at)] += 1e-3
    return result


@pytest.mark.parametrize("change, options, message", [
    (lambda field: altered(field, "training"), {}, r"other data\)"),
    (lambda field: altered(field, "validation"), {}, r"other data\)"),
    (lambda field: altered(field, "test"), {}, r"other data\)"),
    (lambda field: field.copy(data=np.roll(field, 1, axis=0)), {}, r"other data\)"),
    (lambda field: field.assign_coords(lat=field["lat"] * 1.001), {}, "other grid"),
    (lambda field: field.assign_coords(time=field["time"] + np.timedelta64(1, "D")), {}, "other snapshots"),
    (lambda field: field.where(field["lat"] < field["lat"].max()), {}, "other valid pixels"),
    (lambda field: field, {"omega": 0.25}, r"omega=0.5 there and 0.25 here\)"),
    (lambda field: field, {"channels": [[1]], "seed": 3}, "channels=.* there and .* here; seed=0 there and 3 here"),
    (lambda field: field, {"weights": "area"}, "weights=None there"),
])  # fmt: skip
def test_a_checkpoint_of_another_fit_is_refused_by_name(
    tmp_path: Path, change: Any, options: dict[str, Any], message: str
) -> None:
    field = make_field()
    xmrcae.MrCAE(**OPTIONS | {"max_epochs": 2}, checkpoint=tmp_path).fit(field)
    content = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match=f"is that of another fit .*{message}"):
        xmrcae.MrCAE(**OPTIONS | {"max_epochs": 2} | options, checkpoint=tmp_path).fit(
            change(field)
        )
    assert (tmp_path / "checkpoint.pt").read_bytes() == content


def test_what_is_no_checkpoint_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is no checkpoint"):
        xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path).fit(make_field())
    assert (tmp_path / "checkpoint.pt").read_bytes() == b"something else"
    with pytest.raises(ValueError, match="is a file: give the path of a folder"):
        xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path / "checkpoint.pt").fit(make_field())
    with pytest.raises(TypeError, match="checkpoint=3"):
        xmrcae.MrCAE(checkpoint=3)


def test_a_checkpoint_of_another_form_is_refused_and_stays(tmp_path: Path) -> None:
    older = {"format": "xmrcae-checkpoint", "version": 1, "xmrcae_version": "0.9"}
    torch.save(older, tmp_path / "checkpoint.pt")
    content = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match=r"written by xmrcae 0\.9 in a form that .* does not read"):
        xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path).fit(make_field())
    assert (tmp_path / "checkpoint.pt").read_bytes() == content


def test_a_state_half_written_is_left_aside(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    field = make_field()
    interrupted_after(monkeypatch, 2, field, checkpoint=tmp_path)
    (tmp_path / "checkpoint.pt.part").write_bytes(b"the beginning of")
    assert_same_fit(
        xmrcae.MrCAE(**OPTIONS).fit(field), xmrcae.MrCAE(**OPTIONS, checkpoint=tmp_path).fit(field)
    )


def test_the_folder_is_in_no_result(tmp_path: Path) -> None:
    model = xmrcae.MrCAE(**OPTIONS | {"max_epochs": 1}, checkpoint=tmp_path).fit(make_field())
    assert str(tmp_path) not in str(model.encode(make_field()).attrs) + str(
        model.reconstruct(make_field()).attrs
    )


def test_a_checkpoint_in_memory_through_fsspec() -> None:
    field = make_field()
    options = OPTIONS | {"max_epochs": 3, "checkpoint": "memory://xmrcae-test/state"}
    first = xmrcae.MrCAE(**options).fit(field)
    assert xmrcae.MrCAE(**options).fit(field).fitted.id == first.fitted.id


def test_a_changed_weight_of_a_checkpoint_is_told(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "state")
    path = tmp_path / "state" / "checkpoint.pt"
    data = path.read_bytes()
    network = Checkpoint(tmp_path / "state").read()["network"]
    weights = next(values for values in network.weights.values() if values.size > 8).tobytes()
    assert data.count(weights) == 1
    changed = bytes([weights[0] ^ 1]) + weights[1:]
    path.write_bytes(data.replace(weights, changed))
    with pytest.raises(xmrcae.ModelFileError, match="is no checkpoint"):
        Checkpoint(tmp_path / "state").read()


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("level", -1, "level is -1"),
        ("memory", 0, "memory is 0"),
        ("memory", np.inf, "memory is inf"),
        ("seconds", np.nan, "seconds is nan"),
        ("stage", {}, "'begin'"),
        ("history", [{"level": 0, "group": 0.6}], "no whole number"),
        ("history", [{"level": np.inf, "group": 0}], "no whole number"),
    ],
)
def test_a_state_that_no_fit_could_have_left_is_refused(
    tmp_path: Path, name: str, value: Any, match: str
) -> None:
    write_checkpoint(tmp_path, states=2)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save(content | {name: value}, tmp_path / "checkpoint.pt")
    with pytest.raises(xmrcae.ModelFileError, match=match):
        Checkpoint(tmp_path).read()


WEIGHTS = "levels.0.groups.0.encoder_weight"


@pytest.mark.parametrize(
    ("name", "place", "change", "match"),
    [
        ("has_data", 1, torch.Tensor.long, "not of bool"),
        ("counts", None, torch.Tensor.byte, "not of bool"),
        ("counts", None, torch.zeros_like, "where there are no data"),
        ("masks", 0, lambda masks: [torch.zeros_like(masks[0])], "acts nowhere"),
        ("masks", 0, lambda masks: [masks[0][:1]], "acts nowhere"),
        ("weights", WEIGHTS, lambda weights: weights + 1e30, "not finite"),
        ("weights", WEIGHTS, lambda weights: weights / 0, "NaN or infinite"),
    ],
)
def test_a_network_that_no_fit_could_have_left_is_refused(
    tmp_path: Path, name: str, place: Any, change: Callable[[Any], Any], match: str
) -> None:
    write_checkpoint(tmp_path, states=2)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    holder, key = (content["network"], name) if place is None else (content["network"][name], place)
    holder[key] = change(holder[key])
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(xmrcae.ModelFileError, match=match):
        xmrcae.MrCAE(**openings.OPTIONS, checkpoint=tmp_path).fit(data_of("checkpoint"))
