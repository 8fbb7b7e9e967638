"""A run that a signal stops between two steps goes on, by sepnet's kernels too, as if it had never stopped."""

import functools
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sepnet
from sepnet.recipes.recipe import Recipe
from sepnet.training import loop
from sepnet.training.interrupts import Interrupted
from tests.training.support import patterns, tiny
from tests.training.test_loop import RECIPE


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        replace(RECIPE, optimizer="adam", lr=0.01),
        replace(RECIPE, optimizer="muon", first_size=0.5),
        replace(RECIPE, cutout=3, mixup=0.2),
    ],
    ids=["adam", "muon and growing images", "sgd, cutout and mixup"],
)
def test_a_run_stopped_in_the_middle_of_an_epoch_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    train = functools.partial(sepnet.train, tiny, patterns(), recipe, out=tmp_path, precision="fp32")
    whole = train(name="whole")
    step = loop.Trainer._step
    for stop_at in (1, 12):

        def stop(trainer: loop.Trainer, indices: torch.Tensor, stop_at: int = stop_at) -> None:
            step(trainer, indices)
            if trainer.state.epoch * trainer.steps + trainer.state.step == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(loop.Trainer, "_step", stop)
        with pytest.raises(Interrupted) as raised:
            train(name="broken", resume=stop_at > 1)
        assert raised.value.exit_code == 143
    monkeypatch.setattr(loop.Trainer, "_step", step)
    resumed = train(name="broken", resume=True)
    assert [(s["from_epoch"], s["from_step"]) for s in resumed.sessions] == [(0, 0), (0, 2), (2, 3)]
    assert (resumed.path / "weights.safetensors").read_bytes() == (whole.path / "weights.safetensors").read_bytes()
    assert (resumed.path / "logits.safetensors").read_bytes() == (whole.path / "logits.safetensors").read_bytes()
    for epoch, other in zip(resumed.history, whole.history, strict=True):
        assert (epoch.loss, epoch.accuracy, epoch.val_loss) == (other.loss, other.accuracy, other.val_loss)
