"""What a checkpoint vouches for: its tensors, its state, and the run that it belongs to."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sepnet.errors import SepnetError
from sepnet.recipes.recipe import Recipe, override
from sepnet.runs import Run
from sepnet.runs.checkpoint import State, pack, read, unpack
from sepnet.runs.config import RunConfig
from sepnet.runs.history import Epoch
from sepnet.tensors import pack_tensors, unpack_tensors
from sepnet.training.initialization import build_optimizer
from tests.report.support import CONFIG
from tests.training.support import tiny

pytestmark = pytest.mark.usefixtures("pytorch_alone")

EPOCHS = [
    Epoch(
        epoch=number,
        steps=3,
        seconds=1.0,
        images_per_second=9.0,
        lr=0.1,
        loss=1.0,
        accuracy=0.5,
        val_loss=1.0,
        val_accuracy=0.5,
    )
    for number in (1, 2)
]
STATE = State(epoch=1, step=2, loss_sum=3.0, correct=4.0, train_seconds=5.0, history=EPOCHS[:1])


def _trained(recipe: Recipe) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = tiny()
    optimizer = build_optimizer(model, recipe)
    for _ in range(2):
        model(torch.rand(4, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    return model, optimizer


MODEL, OPTIMIZER = _trained(CONFIG.recipe)
CONTENT = pack(STATE, {"model": MODEL}, OPTIMIZER, CONFIG)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "muon"])
def test_what_is_unpacked_is_what_was_packed(optimizer: str) -> None:
    config = replace(CONFIG, recipe=override(CONFIG.recipe, {"optimizer": optimizer}))
    model, filled = _trained(config.recipe)
    content = pack(STATE, {"model": model}, filled, config)
    fresh = tiny()
    restored = build_optimizer(fresh, config.recipe)
    assert unpack(content, {"model": fresh}, restored, config, source="c") == STATE
    assert pack(STATE, {"model": fresh}, restored, config) == content


@given(st.integers(0, 8 * len(CONTENT) - 1))
def test_no_bit_can_be_flipped(place: int) -> None:
    damaged = bytearray(CONTENT)
    damaged[place // 8] ^= 1 << place % 8
    with pytest.raises(SepnetError, match=r"^'c' "):
        read(bytes(damaged), CONFIG, source="c")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seed": 1}, "seed"),
        ({"std": (0.5, 1.0, 1.0)}, "std"),
        ({"recipe": replace(CONFIG.recipe, lr=0.3)}, "recipe"),
        ({"recipe": replace(CONFIG.recipe, epochs=9)}, "recipe.epochs"),
        ({"recipe": replace(CONFIG.recipe, epochs=9), "extended_from": (1,)}, "recipe.epochs"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(change: dict[str, object], field: str) -> None:
    with pytest.raises(SepnetError, match=f"is the checkpoint of another run, which has another {field}"):
        read(CONTENT, replace(CONFIG, **change), source="c")  # type: ignore[arg-type]


def test_a_run_that_was_extended_goes_on_from_its_checkpoint() -> None:
    extended = replace(CONFIG, recipe=replace(CONFIG.recipe, epochs=9), extended_from=(2,))
    assert read(CONTENT, extended, source="c")[0] == STATE
    later = pack(STATE, {"model": MODEL}, OPTIMIZER, extended)
    with pytest.raises(SepnetError, match=r"recipe\.epochs"):
        read(later, CONFIG, source="c")


Tensors = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("optimizer.0.momentum_buffer"), None),
        (lambda t: t.update({"optimizer.0.more": torch.zeros(())}), "some tensors are missing"),
        (lambda t: t.update({"optimizer.99.momentum_buffer": torch.zeros(())}), "list index out of range"),
        (lambda t: t.update({"optimizer.0.momentum_buffer": torch.zeros(7)}), "of shape"),
        (lambda t: t.pop("model.1.weight"), r"lacks tensor '1\.weight'"),
        (lambda t: t.update({"model.1.weight": t["model.1.weight"].half()}), r"'1\.weight' is float16 .*float32"),
        (lambda t: t["model.1.weight"].fill_(torch.nan), "not finite"),
        (lambda t: t.update({"model.more": torch.zeros(1)}), "unexpected tensor 'more'"),
    ],
)
def test_tensors_of_an_older_version_are_checked_too(damage: Callable[[Tensors], object], message: str | None) -> None:
    """That had no digest; a missing momentum it starts at 0, as PyTorch does."""
    tensors, metadata = unpack_tensors(CONTENT, source="c")
    damage(tensors)
    content = pack_tensors(tensors, {"state": metadata["state"]})
    fresh = tiny()
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    arguments = content, {"model": fresh}, build_optimizer(fresh, CONFIG.recipe), CONFIG
    if message is None:
        unpack(*arguments, source="c")
    else:
        with pytest.raises(SepnetError, match=message):
            unpack(*arguments, source="c")
        assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())


@pytest.mark.parametrize(
    "state", ["", "[]", "{", '{"epoch": 5}', '{"step": -1}', '{"epoch": true}', '{"history": [1]}']
)
def test_a_state_that_no_training_has_is_refused(state: str) -> None:
    with pytest.raises(SepnetError, match=r"^'c'"):
        read(pack_tensors({"x": torch.zeros(1)}, {"state": state}), CONFIG, source="c")


# The checkpoint and the history beside it.


def _run(out: Path, config: RunConfig = CONFIG) -> Run:
    run = Run.create(out, "run", config)
    run.write_checkpoint(CONTENT)
    return run


def test_an_unfinished_runs_history_is_its_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = _run(tmp_path)
    assert run.history == STATE.history
    for found in ("", "no history", run.path.joinpath("config.toml").read_text()):
        (run.path / "history.csv").write_text(found)
        run.require_history(STATE.history)
        assert "is written anew from the checkpoint" in capsys.readouterr().err
    run.checkpoint_path.unlink()
    assert run.history == STATE.history  # as it was written anew


def test_epochs_beyond_the_checkpoint_are_not_lost_unannounced(tmp_path: Path) -> None:
    run = _run(tmp_path)
    run.write_history(EPOCHS)
    with pytest.raises(SepnetError, match=r"2 epochs in history\.csv, and its .* goes on after epoch 1"):
        run.require_history(run.history)
    run.checkpoint_path.unlink()
    with pytest.raises(SepnetError, match=r"2 epochs in history\.csv, and its checkpoint\.safetensors is missing"):
        run.require_history([])
    (run.path / "history.csv").write_text("no history")
    with pytest.raises(SepnetError, match=r"history\.csv' is not the history of a run"):
        run.require_history([])
