"""Algorithm 3.1: what a stage may and may not do."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import DEVICE, make_field, pixel_errors, prepare_with

import xmrcae
from xmrcae.core import losses, masks
from xmrcae.core.losses import loss_terms
from xmrcae.core.network import Network
from xmrcae.core.samples import Samples
from xmrcae.core.stage import Objective
from xmrcae.core.training import Trainer
from xmrcae.options import make_options


class Silent:
    """A progress bar that shows nothing."""

    def update(self) -> None:
        """Do nothing."""

    def set_postfix(self, **kwargs: Any) -> None:
        """Do nothing."""


def trainer_of(field: xr.DataArray, **options: Any) -> Trainer:
    """A trainer that is ready to run."""
    chosen = make_options({"levels": 2, "max_epochs": 30, **options})
    prepared = prepare_with(field, **{"levels": 2, **options})
    levels = prepared.pyramid.levels
    return Trainer(
        prepared.data, chosen, channels=chosen.channels_of(levels),
        epsilons=chosen.epsilons(levels, prepared.labels.variables, prepared.rms, prepared.standard.scale),
        device=DEVICE, progress=Silent(),
    )  # fmt: skip


def stages(trainer: Trainer) -> list[list[dict[str, float]]]:
    """The rows of the history, stage by stage."""
    result: list[list[dict[str, float]]] = []
    for row in trainer.history:
        if not result or (row["level"], row["group"]) != (
            result[-1][-1]["level"],
            result[-1][-1]["group"],
        ):
            result.append([])
        result[-1].append(row)
    return result


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": None},
        {"tolerance": None, "widening": "parallel"},
        {"solver": "adam", "tolerance": None},
        {
            "solver": "adam",
            "solver_options": {"learning_rate": 0.3},
            "noise": 0.0,
            "tolerance": None,
        },
        {"omega": 1.0, "tolerance": None},
        {"omega": 0.0, "tolerance": None},
    ],
    ids=str,
)
def test_a_stage_never_ends_above_its_start(options: dict[str, Any]) -> None:
    trainer = trainer_of(make_field(), **options)
    starts = []
    train = trainer._train

    def watched(level: int, group: int, unfinished: Any) -> None:
        samples = trainer.data["training"]
        errors, _ = trainer.evaluation.errors(samples, level, samples[level].leading)
        starts.append(float(loss_terms(errors, samples[level], trainer.options.omega)[2]))
        train(level, group, unfinished)

    trainer._train = watched  # type: ignore[method-assign]
    trainer.run()
    ends = [rows[-1]["train_loss"] for rows in stages(trainer)]
    assert len(ends) == len(starts) >= 6
    assert (np.array(ends) <= np.array(starts) * (1 + 1e-6)).all()
    if "solver_options" not in options:  # with that no weights are ever kept
        assert ends[-1] < 0.9 * starts[0]


def test_a_new_group_changes_nothing_until_it_is_trained() -> None:
    trainer = trainer_of(make_field(), tolerance=None)
    trainer.run()
    samples = trainer.data["training"][1]
    before = trainer.network(samples.pixels, samples.constant).outputs[1]
    trainer.growth.add_groups(1, [(trainer.network.storable[1].any(0), 2)])
    added = trainer.network.levels[1].groups[-1]
    after = trainer.network(samples.pixels, samples.constant).outputs[1]
    assert torch.equal(before, after)
    assert added.encoder_weight.abs().sum() > 0


def test_a_new_group_reads_the_leading_patches_of_the_residual() -> None:
    trainer = trainer_of(make_field(land=False, globe=False), tolerance=None, channels=[[1]])
    trainer.network.deepen(noise=0.0, generator=torch.Generator())
    samples = trainer.data["training"][0]
    residual = samples.pixels - trainer.network(samples.pixels, samples.constant).outputs[0]
    trainer.growth.add_groups(0, [(trainer.network.storable[0].any(0), 1)])
    group = trainer.network.levels[0].groups[0]
    shape = (*trainer.network.shape(0), -1)
    has = trainer.network.has_data[0].reshape(*shape[:2], 1)
    field = (residual.reshape(shape) * has).unfold(0, 3, 2).unfold(1, 3, 2)
    patches = field.reshape(-1, 9).double()
    leading = torch.linalg.svd(patches, full_matrices=False)[2][0]
    assert abs(float(leading @ group.encoder_weight[0].detach().double())) > 0.999


def test_the_last_row_of_a_stage_belongs_to_the_kept_weights() -> None:
    field = make_field()
    trainer = trainer_of(field, tolerance=None, channels=[[1]])
    trainer.run()
    last = trainer.history[-1]
    for part, name in (("train", "training"), ("validation", "validation")):
        data = trainer.data[name]
        output = trainer.network(data[1].pixels, data[1].constant).outputs[1]
        errors = pixel_errors(output - data[1].pixels, data[1].constant)
        assert np.isclose(
            last[f"{part}_mse"], float(losses.mean_error(errors, data[1].weights)), rtol=1e-5
        )
        largest, _ = losses.max_error(errors, data[1].counts)
        assert np.isclose(last[f"{part}_max"], float(largest), rtol=1e-5)
    assert np.isclose(last["train_global_loss"], last["train_loss"], rtol=1e-5)


def test_the_best_weights_on_validation_are_kept_by_value() -> None:
    adam = {"solver": "adam", "solver_options": {"learning_rate": 0.05}, "max_epochs": 60}
    trainer = trainer_of(make_field(), tolerance=None, channels=[[1]], **adam)
    trainer.run()
    for rows in stages(trainer):
        start = rows[0]["train_loss"]
        allowed = [row["validation_loss"] for row in rows[:-1] if row["train_loss"] <= start]
        assert rows[-1]["validation_loss"] <= min(allowed) * (1 + 1e-5)


def test_history_has_global_metrics_every_tenth_epoch_and_at_the_end_of_a_stage() -> None:
    model = make_field().mrcae.fit(
        levels=2, max_epochs=25, tolerance=None, progress=False, min_decrease=0.0
    )
    history = model.history
    assert history["epoch"].values[0] == 1
    for column in ("train_global_mse", "validation_global_max", "train_global_loss"):
        stage = (history["level"] == 0) & (history["group"] == 0)
        known = np.flatnonzero(
            history[column].values[stage.values].astype(float)
            == history[column].values[stage.values]
        )
        assert list(known + 1) == [10, 20, 25]
    for column in (
        "train_mse",
        "train_max",
        "train_loss",
        "validation_mse",
        "validation_max",
        "validation_loss",
    ):
        assert history[column].notnull().all()
    assert np.allclose(
        history["train_loss"], 0.5 * (history["train_mse"] + history["train_max"]), rtol=1e-5
    )
    assert (history["seconds"].diff("epoch") >= 0).all()


def test_a_resolved_level_gets_no_group() -> None:
    loose = make_field().mrcae.fit(levels=2, tolerance=[100.0, 0.01], max_epochs=15, progress=False)
    assert loose.refinement_map(level=0).sizes["group"] == 0
    assert loose.refinement_map(level=1).sizes["group"] == 4


@pytest.mark.parametrize("size", [100, 333, 100_000])
def test_an_encoding_of_given_size(size: int) -> None:
    field = make_field()
    model = field.mrcae.fit(
        levels=2, encoder="filters", encoding_size=size, max_epochs=10, progress=False
    )
    found = int(model.encoding_sizes[-1])
    everything = field.mrcae.fit(levels=2, tolerance=None, max_epochs=0, progress=False)
    assert 0.9 * min(size, int(everything.encoding_sizes[-1])) <= found <= size
    with pytest.raises(ValueError, match="bottleneck alone"):
        field.mrcae.fit(levels=2, encoding_size=3, progress=False)
    with pytest.raises(ValueError, match="encoding_size and tolerance"):
        xmrcae.MrCAE(encoding_size=size, tolerance=0.1)


def test_the_default_tolerance_takes_half_as_many_numbers_as_there_are_values() -> None:
    field = make_field()
    options: dict[str, Any] = {"levels": 2, "max_epochs": 10, "progress": False}
    n_values = int(field[0].notnull().sum())
    with pytest.warns(UserWarning, match=f"at {n_values // 2} numbers .* give a tolerance"):
        limited = field.mrcae.fit(**options)
    training = field[(limited.split == "training").values]
    rms = float(((training - training.mean("time")) ** 2).mean() ** 0.5)
    assert int(limited.encoding_sizes[-1]) == n_values // 2
    told = field.mrcae.fit(tolerance=0.1 * rms, **options)
    assert int(told.encoding_sizes[-1]) > n_values // 2


def test_cells_of_highest_error_come_first_where_numbers_run_out() -> None:
    trainer = trainer_of(make_field(), channels=[[1, 1]])
    network, samples = trainer.network, trainer.data["training"]
    trainer.growth.deepen()
    errors, _ = trainer.evaluation.errors(samples, 0, samples[0].leading)
    shape, able = network.has_data[0].shape, network.storable[0][0]
    means = masks.cell_errors(errors.reshape(shape), samples[0].counts.reshape(shape))[0]
    growth = replace(trainer.growth, most_codes=int(able.sum()) + 7)
    with pytest.warns(UserWarning, match="highest error come first"):
        assert growth.widen(0, 1)
    mask = network.levels[0].groups[0].mask
    assert int(mask.sum()) == 7 and means[mask].min() >= means[able & ~mask].max()
    with pytest.warns(UserWarning, match="no more cells"):
        assert not growth.widen(0, 1)


def test_an_encoding_of_given_size_holds_the_worst_cells() -> None:
    trainer = trainer_of(make_field(), encoder="filters", encoding_size=150, channels=[[1]])
    trainer.growth.deepen()
    mask, resolved = trainer.growth.next_mask(0)
    samples, shape = trainer.data["training"], trainer.network.has_data[0].shape
    errors, _ = trainer.evaluation.errors(samples, 0, samples[0].leading)
    means = masks.cell_errors(errors.reshape(shape), samples[0].counts.reshape(shape))[0]
    storable = trainer.network.storable[0][0]
    assert not resolved and int(mask.sum()) == trainer.growth.n_cells[0] < int(storable.sum())
    assert means[mask].min() >= means[storable & ~mask].max()


def test_epochs_are_limited() -> None:
    model = make_field().mrcae.fit(levels=1, max_epochs=7, tolerance=None, progress=False)
    assert model.history.sizes["epoch"] == 5 * 7
    untrained = make_field().mrcae.fit(levels=2, max_epochs=0, tolerance=None, progress=False)
    assert untrained.reconstruct(make_field()).notnull().any()


def test_weights_of_the_mean_matter_to_the_mean_only() -> None:
    field = make_field()
    area = np.cos(np.deg2rad(field.lat))
    plain, weighted = (
        trainer_of(field, weights=weights) for weights in (None, (area + 0 * field[0]).fillna(0))
    )
    for level in range(2):
        a, b = (trainer.data["training"][level] for trainer in (plain, weighted))
        assert torch.equal(a.pixels, b.pixels) and torch.equal(a.counts, b.counts)
        assert np.isclose(float(b.weights.sum()), 1) and not torch.allclose(a.weights, b.weights)


def test_the_tail_is_reported_though_not_trained_on() -> None:
    field = make_field(n_times=40)
    prepared = prepare_with(field, levels=2, tolerance=3.0)
    assert 1 < prepared.training[0].rank < len(prepared.training[0].samples)
    model = field.mrcae.fit(levels=2, tolerance=3.0, max_epochs=10, progress=False)
    train = field.isel(time=(model.split == "training").values)
    scale = float(model.fitted.standard.scale[0])
    reported = float(model.history["train_mse"][-1]) ** 0.5 * scale
    assert np.isclose(reported, float(model.score(train)["rmse"][-1]), rtol=1e-3)


@pytest.mark.parametrize("widening", ["residual", "parallel"])
def test_history_is_what_score_measures(widening: str) -> None:
    field = make_field()
    model = field.mrcae.fit(levels=2, widening=widening, max_epochs=20, progress=False)
    scale = float(model.fitted.standard.scale[0])
    for part, name in (("training", "train"), ("validation", "validation"), ("test", "test")):
        score = model.score(field.isel(time=(model.split == part).values))
        assert np.isclose(
            float(model.history[f"{name}_mse"][-1]) ** 0.5 * scale, score["rmse"][-1], rtol=1e-4
        )
        worst = float(model.history[f"{name}_max"][-1]) ** 0.5 * scale
        assert np.isclose(worst, score["worst_pixel_rmse"][-1], rtol=1e-4)


def test_relu_trains_on_the_snapshots_themselves() -> None:
    field = make_field()
    prepared = prepare_with(field, levels=2, activation="relu")
    assert len(prepared.training[0].samples) == 14 and (prepared.training[0].constant == 1).all()
    model = field.mrcae.fit(
        levels=2, activation="relu", tolerance=None, max_epochs=20, progress=False
    )
    train = field.isel(time=(model.split == "training").values)
    scale = float(model.fitted.standard.scale[0])
    assert np.isclose(
        float(model.history["train_mse"][-1]) ** 0.5 * scale,
        model.score(train)["rmse"][-1],
        rtol=1e-4,
    )
    codes = model.encode(field)["level_1"]["encoding"]
    assert float(codes.min()) >= 0


def test_relu_needs_memory_for_the_snapshots() -> None:
    with pytest.raises(
        ValueError, match=r"activation='relu' .* room for \d+ of 20: allow more, or fit fewer"
    ):
        make_field().mrcae.fit(levels=2, activation="relu", memory=1e5, progress=False)


@pytest.mark.parametrize(
    ("device", "current"), [("cuda:1", 0), ("cuda", 1), ("cuda:0", 1), ("auto", 1)]
)
def test_another_gpu_than_the_first_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, current: int
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    monkeypatch.setattr(torch, "empty", lambda *size, device: device)
    monkeypatch.delattr("xmrcae.passes.survey")  # nothing is read before
    with pytest.raises(ValueError, match=f"device={device!r}: .* let CUDA_VISIBLE_DEVICES name"):
        make_field().mrcae.fit(device=device)


def test_a_fitted_model_holds_no_gradients() -> None:
    network = make_field().mrcae.fit(levels=2, max_epochs=1, progress=False).fitted.codec.network
    assert network.n_parameters
    assert all(parameter.grad is None for parameter in network.parameters())


def test_samples_are_not_copied() -> None:
    data = prepare_with(make_field(), levels=2).training[1]
    samples = Samples.of(data, torch.device("cpu"))
    assert np.shares_memory(samples.pixels.numpy(), data.samples)
    assert np.isclose(float(samples.weights.sum()), 1)


@pytest.mark.parametrize("worth", [100, 2**20])
def test_a_stage_takes_as_many_threads_as_its_numbers_are_worth(
    monkeypatch: pytest.MonkeyPatch, worth: int
) -> None:
    monkeypatch.setattr("xmrcae.core.threads.WORTH", worth)
    seen: set[int] = set()
    forward = Network.forward

    def seeing(*arguments: object) -> object:
        seen.add(torch.get_num_threads())
        return forward(*arguments)

    monkeypatch.setattr(Network, "forward", seeing)
    torch.set_num_threads(2)  # the fixture of all tests puts it back
    make_field().mrcae.fit(levels=2, max_epochs=1, progress=False)
    assert seen == {2 if worth == 100 else 1}
    assert torch.get_num_threads() == 2


def test_a_stage_on_some_samples_keeps_nothing_that_is_worse_on_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What such a stage takes for the best weights may be worse than those at its start."""

    def misled(objective: Objective, point: torch.Tensor, *_: object, **__: object) -> int:
        objective.evaluation.network.set_vector(point + 1)
        return 0

    field = make_field(n_times=60)
    options = {"levels": 2, "tolerance": None, "sketch": 8, "progress": False}
    untrained = field.mrcae.fit(max_epochs=0, **options)
    monkeypatch.setattr("xmrcae.core.training.descend", misled)
    model = field.mrcae.fit(**options)
    assert torch.equal(model.fitted.codec.network.vector(), untrained.fitted.codec.network.vector())
    xr.testing.assert_equal(
        model.history.drop_vars("seconds"), untrained.history.drop_vars("seconds")
    )
