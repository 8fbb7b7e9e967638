"""Training end to end on a tiny network: what is learned, written, resumed and refused."""

import csv
import errno
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sepnet
from sepnet.errors import SepnetError
from sepnet.recipes.recipe import Recipe
from sepnet.runs import Run
from sepnet.training import loop
from sepnet.training.interrupts import Interrupted
from sepnet.training.step import TrainingStep
from tests.training.support import patterns, tiny

pytestmark = pytest.mark.usefixtures("pytorch_alone")

RECIPE = Recipe(
    name="test", epochs=3, batch_size=32, lr=0.2, crop=1, flip="alternating", average=0.9, weight_decay=1e-3
)


def _train(out: Path, **options: Any) -> Run:
    return sepnet.train(tiny, patterns(), options.pop("recipe", RECIPE), out=out, precision="fp32", **options)


def _weights(run: Run) -> bytes:
    return (run.path / "weights.safetensors").read_bytes()


def test_a_run_learns_and_writes_what_it_says(tmp_path: Path) -> None:
    run = _train(tmp_path, epochs=8)
    assert run.finished
    assert run.history[-1].val_accuracy > 0.9
    rows = list(csv.DictReader((run.path / "history.csv").read_text().splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(1, 9))
    log = (run.path / "log.txt").read_text().splitlines()
    assert log[0] == "Epoch 1/8"
    assert log[1].startswith("5/5 - ")
    assert f"val_accuracy: {run.history[0].val_accuracy:.4f}" in log[1]
    assert log[-1].startswith("Model took ")
    session = json.loads((run.path / "environment.json").read_text())["sessions"][0]
    assert session["torch"] == torch.__version__
    assert session["threads"] == torch.get_num_threads()


@pytest.mark.slow
def test_the_saved_network_gives_the_saved_logits_and_accuracy(tmp_path: Path) -> None:
    run, data = _train(tmp_path), patterns()
    logits, labels = run.logits()
    assert torch.equal(labels, data.test.labels)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (run.config.mean, run.config.std))
    with torch.no_grad():
        again = sepnet.load(run, tiny())((data.test.images / 255 - mean) / std)
    torch.testing.assert_close(again, logits, rtol=1e-4, atol=1e-4)
    assert run.correct().double().mean() == pytest.approx(run.history[-1].val_accuracy)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path) -> None:
    first, second, other = (_train(tmp_path, seed=seed) for seed in (3, 3, 4))
    assert first.path != second.path
    assert _weights(first) == _weights(second)
    assert _weights(first) != _weights(other)


@pytest.mark.slow
def test_the_callers_random_numbers_and_module_are_respected(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    model = tiny()
    torch.manual_seed(5)
    run = sepnet.train(model, patterns(), RECIPE, out=tmp_path, epochs=1)
    assert torch.equal(torch.rand(3), expected)
    assert not model.training
    for name, tensor in run.weights().items():
        assert torch.equal(tensor, model.state_dict()[name])


@pytest.mark.slow
def test_images_grow_to_their_own_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    update = TrainingStep._update_weights

    def note(step: TrainingStep, images: torch.Tensor, targets: torch.Tensor) -> Any:
        assert images.is_contiguous(memory_format=torch.channels_last)
        sizes.append(tuple(images.shape[2:]))
        return update(step, images, targets)

    monkeypatch.setattr(TrainingStep, "_update_weights", note)
    _train(tmp_path, recipe=replace(RECIPE, first_size=0.5, grown=0.7))
    assert sizes == [(4, 4)] * 3 + [(5, 5)] * 3 + [(6, 6)] * 2 + [(7, 7)] * 3 + [(8, 8)] * 4


@pytest.mark.slow
def test_a_mixed_batch_costs_what_its_shares_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Zhang et al. write it: the loss by each of the two labels, by their shares; label smoothing acts on both."""
    update = TrainingStep._update_weights
    drawn: list[float] = []

    def check(step: TrainingStep, images: torch.Tensor, targets: torch.Tensor) -> Any:
        assert images.is_contiguous(memory_format=torch.channels_last)
        loss, logits = update(step, images, targets)
        share, label = targets.topk(2, dim=1)
        assert ((share.sum(dim=1) - 1).abs() < 1e-6).all()
        smoothed = torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none")
        apart = sum(share[:, i] * smoothed(logits.float(), label[:, i]) for i in (0, 1))
        assert isinstance(apart, torch.Tensor)
        torch.testing.assert_close(loss, apart.mean())
        drawn.extend({round(float(value), 4) for value in share[:, 0]} - {1.0})
        return loss, logits

    monkeypatch.setattr(TrainingStep, "_update_weights", check)
    _train(tmp_path, recipe=replace(RECIPE, mixup=1.0, label_smoothing=0.1))
    assert len(set(drawn)) == len(drawn) > 5  # a batch has one share
    assert all(0.5 <= share < 1 for share in drawn)


@pytest.mark.slow
def test_a_signal_during_validation_saves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _train(tmp_path, name="whole")
    validate = loop.Trainer.validate

    def interrupted(trainer: loop.Trainer) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return validate(trainer)

    monkeypatch.setattr(loop.Trainer, "validate", interrupted)
    with pytest.raises(Interrupted) as raised:
        _train(tmp_path, name="broken")
    assert raised.value.exit_code == 130
    monkeypatch.setattr(loop.Trainer, "validate", validate)
    resumed = _train(tmp_path, name="broken", resume=True)
    assert _weights(resumed) == _weights(whole)
    assert [epoch.lr for epoch in resumed.history] == [epoch.lr for epoch in whole.history]


@pytest.mark.slow
def test_a_finished_run_goes_on_with_more_epochs_and_says_so(tmp_path: Path) -> None:
    finished = _train(tmp_path, name="run")
    again = _train(tmp_path, name="run", resume=True)
    assert _weights(again) == _weights(finished)
    assert len(again.sessions) == 1
    with pytest.raises(SepnetError, match="expected as many or more"):
        _train(tmp_path, name="run", resume=True, epochs=2)
    longer = _train(tmp_path, name="run", resume=True, epochs=5)
    assert len(longer.history) == longer.result["epochs"] == 5
    assert longer.config.extended_from == (3,)
    assert {"from_epochs": 3, "to_epochs": 5} in [session.get("extended") for session in longer.sessions]


@pytest.mark.slow
def test_a_signal_while_the_outcome_is_written_still_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Run.write_outcome

    def interrupted(run: Run, *outcome: Any) -> None:
        write(run, *outcome)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Run, "write_outcome", interrupted)
    with pytest.raises(Interrupted) as raised:
        _train(tmp_path, name="run")
    assert raised.value.exit_code == 143
    assert Run.open(tmp_path / "run").finished


@pytest.mark.slow
def test_a_run_cannot_be_resumed_as_another(tmp_path: Path) -> None:
    _train(tmp_path, name="run")
    with pytest.raises(SepnetError, match=r"has lr 0\.2, this would have 0\.3"):
        _train(tmp_path, name="run", resume=True, lr=0.3, epochs=4)
    with pytest.raises(SepnetError, match="has network 'tiny', this would have 'Sequential'"):
        sepnet.train(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), patterns(), out=tmp_path, name="run", resume=True)
    with pytest.raises(SepnetError, match="is not a run"):
        _train(tmp_path, name="absent", resume=True)


@pytest.mark.slow
def test_what_is_not_given_is_as_the_resumed_run_has_it(tmp_path: Path) -> None:
    _train(tmp_path, name="run", epochs=1, seed=7, validation="holdout")
    longer = sepnet.train(tiny, patterns(), out=tmp_path, name="run", resume=True, epochs=2)
    assert (longer.config.seed, longer.config.validation, longer.config.recipe.lr) == (7, "holdout", RECIPE.lr)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        SepnetError,
        match=r"(loss became (nan|inf)|a weight or moving statistic became infinite or nan) in epoch \d+.*lower --lr",
    ) as raised:
        _train(tmp_path, recipe=replace(RECIPE, lr=1e9, schedule="constant", average=0.0), name="wild")
    run = Run.open(tmp_path / "wild")
    assert not run.finished
    assert run.read_checkpoint() is None
    assert "it has no checkpoint yet" in str(raised.value)
    assert "lower --lr (now 1e+09) or weight_decay (now 0.001)" in str(raised.value)
    with pytest.raises(SepnetError, match=r"is not finished: .* expected finite numbers: start a new run with a lower"):
        run.require_finished()


@pytest.mark.slow
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    step = loop.Trainer._step

    def poison(trainer: loop.Trainer, indices: torch.Tensor) -> None:
        step(trainer, indices)
        if trainer.state.epoch == 1 and trainer.state.step == 2:
            next(trainer.model.parameters()).data.fill_(torch.nan)

    monkeypatch.setattr(loop.Trainer, "_step", poison)
    with pytest.raises(SepnetError, match=r"moving statistic became .* in epoch 2.*its last good checkpoint is kept"):
        _train(tmp_path, name="run")
    monkeypatch.setattr(loop.Trainer, "_step", step)
    resumed = _train(tmp_path, name="run", resume=True)
    assert resumed.sessions[-1]["from_step"] == 2
    assert _weights(resumed) == _weights(_train(tmp_path, name="whole"))


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync
    saves = 0

    def full(descriptor: int) -> None:
        nonlocal saves
        saves += 1
        if saves > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SepnetError, match="No space left on device; what was saved before is kept"):
        _train(tmp_path, name="run")
    monkeypatch.setattr(os, "fsync", sync)
    assert not list((tmp_path / "run").glob("*.partial"))
    resumed = _train(tmp_path, name="run", resume=True)
    assert resumed.sessions[-1]["from_epoch"] > 0
    assert _weights(resumed) == _weights(_train(tmp_path, name="whole"))


@pytest.mark.slow
def test_a_checkpoint_that_is_damaged_is_named(tmp_path: Path) -> None:
    run = _train(tmp_path, name="run")
    run.checkpoint_path.write_bytes(run.checkpoint_path.read_bytes()[:1000])
    with pytest.raises(SepnetError, match=r"checkpoint\.safetensors' has changed since the run was finished"):
        _train(tmp_path, name="run", resume=True, epochs=4)
    (run.path / "manifest.json").unlink()
    with pytest.raises(SepnetError, match=r"checkpoint\.safetensors' is not a safetensors file"):
        _train(tmp_path, name="run", resume=True, epochs=4)


@pytest.mark.slow
def test_holdout_trains_without_any_test_image(tmp_path: Path) -> None:
    data = patterns()
    poisoned = replace(data, test=replace(data.test, labels=torch.zeros_like(data.test.labels)))
    run = sepnet.train(tiny, poisoned, RECIPE, out=tmp_path, validation="holdout")
    assert run.path.name == "tiny-patterns-holdout"
    assert len(run.logits()[1]) == 15
    assert run.logits()[1].unique().tolist() == [0, 1, 2]
    assert run.result["validation"] == "holdout"


@pytest.mark.slow
def test_two_processes_cannot_train_one_run(tmp_path: Path) -> None:
    run = _train(tmp_path, name="run")
    with run.lock(), pytest.raises(SepnetError, match="being trained by another process"):
        _train(tmp_path, name="run", resume=True, epochs=5)
