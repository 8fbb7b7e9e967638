"""A step whose calls were noted once and are repeated: the same to the last bit, and only where nothing may differ."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sepnet import jobs
from sepnet.kernels import accelerate, recording, repeated
from sepnet.kernels.native import native
from sepnet.kernels.recording import CALLS_BEFORE, Repeated
from sepnet.networks.champion import champion
from sepnet.networks.layers import GlobalAveragePool, SeparableConv2d
from sepnet.networks.published import published
from sepnet.rehearsal import batches, training_step
from sepnet.runs import Run
from sepnet.training.recipe import Recipe
from sepnet.training.step import TrainingStep
from tests.training.support import CLASSES, patterns, tiny

from .support import Counting, needs_kernels

pytestmark = needs_kernels

RECIPE = Recipe(
    name="test", epochs=3, batch_size=15, optimizer="muon", lr=0.2, crop=1, label_smoothing=0.1, average=0.9
)


def _step(network: Callable[[], nn.Module], recipe: Recipe, precision: str = "fp32") -> TrainingStep:
    torch.manual_seed(0)
    return training_step(network(), patterns(), recipe, device="cpu", precision=precision)


def _train(step: TrainingStep, steps: int = 30) -> dict[str, Any]:
    """Return all that training leaves, after ten steps an epoch."""
    batch = batches(step)
    for _ in range(steps):
        step(*next(batch))
    assert step.average is not None
    return {
        **step.model.state_dict(),
        **{f"{name}.grad": parameter.grad for name, parameter in step.model.named_parameters()},
        **{f"average.{name}": tensor for name, tensor in step.average.model.state_dict().items()},
        "sums": step.sums,
    }


def _small_champion() -> nn.Module:
    return champion(classes=len(CLASSES))


class Drawn(nn.Module):
    """Random numbers that PyTorch draws, and a branch that it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.norm = nn.BatchNorm2d(16)
        self.pairs = nn.Sequential(*(SeparableConv2d(16, 16) for _ in range(4)))
        self.head = nn.Linear(16, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = self.pairs(x)
        logits: Tensor = self.head(nn.functional.dropout(x.mean((2, 3)).sigmoid(), 0.2))
        return logits


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("network", "changes"),
    [
        (tiny, {}),
        (_small_champion, {}),
        (_small_champion, {"mixup": 0.2, "cutout": 2, "class_weights": "balanced", "resized_crop": 0.3}),
        (lambda: published(classes=len(CLASSES), image_shape=(3, 8, 8)), {"optimizer": "adam", "lr": 1e-3}),
        (Drawn, {"class_weights": "balanced", "color_jitter": 0.2}),
    ],
    ids=["dropout", "champion", "mixed", "published", "drawn"],
)
def test_training_is_the_same_to_the_last_bit(
    network: Callable[[], nn.Module], changes: dict[str, Any], precision: str
) -> None:
    compiled = native()
    assert compiled is not None
    if precision == "bf16" and not compiled.computes(torch.bfloat16):
        pytest.skip("no kernels for bf16 on this processor")
    step, plain = (_step(network, replace(RECIPE, **changes), precision) for _ in range(2))
    assert isinstance(step.gradients, Repeated)
    plain.gradients = plain.find_gradients
    found, expected = _train(step), _train(plain)
    assert step.gradients.repeating
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_images_that_grow_and_a_smaller_last_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, epochs=4, batch_size=16, first_size=0.5)
    whole, plain = (_step(tiny, recipe) for _ in range(2))
    plain.gradients = plain.find_gradients
    noted: list[torch.Size] = []
    original = recording.Recording.note

    def note(self: Any, function: Any, images: Tensor, *rest: Any) -> Any:
        noted.append(images.shape)
        return original(self, function, images, *rest)

    monkeypatch.setattr(recording.Recording, "note", note)
    for epoch in range(4):
        for number in range(10):
            for step in (whole, plain):
                step(step.order(epoch)[16 * number : 16 * (number + 1)], epoch, number)
    assert [shape[-1] for shape in noted] == [4, 5, 6, 7, 8]
    assert {shape[0] for shape in noted} == {16}, "the last batch of an epoch, of 6, comes too seldom"
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(whole.model.state_dict()[name], tensor), name


def _counted(model: nn.Module) -> tuple[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], list[int]]:
    network, calls = accelerate(model.train()), []

    def gradients(images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(images))
        model.zero_grad(set_to_none=True)
        logits = network(images)
        loss = nn.functional.cross_entropy(logits, targets)
        loss.backward()
        return loss.detach(), logits.detach()

    return repeated(network, gradients), calls


def _batch(size: int = 6) -> tuple[Tensor, Tensor]:
    images = torch.randn(size, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    return images, torch.randint(len(CLASSES), (size,))


def test_the_function_is_not_called_again_once_its_calls_are_noted() -> None:
    gradients, calls = _counted(tiny())
    for _ in range(10):
        gradients(*_batch())
    assert len(calls) == CALLS_BEFORE + 1
    for _ in range(3):
        gradients(*_batch(4))
        gradients(*_batch())
    assert calls[CALLS_BEFORE + 1 :] == [4, 4, 4], "another shape once in between loses nothing"
    gradients(*_batch(4))
    gradients(*_batch(4))
    gradients(*_batch())
    assert calls[-3:] == [4, 4, 6]


def test_weights_that_lie_elsewhere_are_followed() -> None:
    model: Any = tiny()
    gradients, calls = _counted(model)
    for _ in range(6):
        gradients(*_batch())
    head = model[-1]
    head.weight.data = torch.zeros_like(head.weight)
    before = len(calls)
    assert torch.equal(gradients(*_batch())[1], head.bias.detach().expand(6, -1))
    assert len(calls) == before + 1


class Halved(nn.Module):
    """Code that a parametrization runs."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


def _set(module: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(module, name, value)


FIRED: list[object] = []
"""Who called a hook."""
CHANGES: dict[str, Callable[[Any], object]] = {
    "a changed dropout rate": lambda model: _set(model[3], p=0.0),
    "a changed momentum": lambda model: _set(model[1], momentum=0.9),
    "a submodule's eval()": lambda model: model[1].eval(),
    "a frozen parameter": lambda model: model[0][1].weight.requires_grad_(requires_grad=False),
    "a submodule replaced": lambda model: _set(model, **{"8": nn.Linear(8, len(CLASSES))}),
    "a setting of the user's own class": lambda model: _set(model[9], factor=3.0),
    "a list in the user's own class": lambda model: model[9].powers.append(2),
    "a parametrization": lambda model: nn.utils.parametrize.register_parametrization(model[8], "weight", Halved()),
    "a forward pre-hook": lambda model: model[2].register_forward_pre_hook(lambda *_: FIRED.append("hook")),
    "a forward hook": lambda model: model[2].register_forward_hook(lambda *_: FIRED.append("hook")),
    "a backward hook": lambda model: model[4].register_full_backward_hook(lambda *_: FIRED.append("hook")),
    "a tensor's hook": lambda model: model[8].weight.register_hook(lambda _: FIRED.append("hook")),
    "a hook after accumulation": lambda model: model[8].weight.register_post_accumulate_grad_hook(
        lambda _: FIRED.append("hook")
    ),
}


class Powers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor, self.powers = 1.0, [1]

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for power in self.powers:
            total = total + self.factor * x**power
        return total


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_mid_training_is_followed(name: str) -> None:
    torch.manual_seed(0)
    model: Any = tiny()
    model.append(Powers())
    model[3].p = 0.5 if "dropout" in name else 0.0
    gradients, _ = _counted(model)
    for _ in range(6):
        gradients(*_batch())
    assert isinstance(gradients, Repeated)
    assert gradients.repeating
    CHANGES[name](model)
    for _ in range(6):
        alone, batch = copy.deepcopy(model), _batch()
        FIRED.clear()
        loss, logits = gradients(*batch)
        assert len(FIRED) == ("hook" in name)
        alone.zero_grad(set_to_none=True)
        expected = alone(batch[0])
        expected_loss = nn.functional.cross_entropy(expected, batch[1])
        expected_loss.backward()
        torch.testing.assert_close((loss, logits), (expected_loss.detach(), expected.detach()), rtol=1e-4, atol=1e-5)
        for (key, found), plain in zip(model.named_parameters(), alone.parameters(), strict=True):
            assert (found.grad is None) == (plain.grad is None), key
            if found.grad is not None:
                torch.testing.assert_close(found.grad, plain.grad, rtol=1e-3, atol=1e-5)
        for found, plain in zip(model.buffers(), alone.buffers(), strict=True):
            torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


class Growing(nn.Module):
    """Its dropout rate is set in its own ``train()``: 0 in the first epoch, then all is dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: Any = tiny()
        self.epoch = 0

    def train(self, mode: bool = True) -> "Growing":
        self.epoch += mode
        self.layers[3].p = float(self.epoch > 1)
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


def test_a_rate_that_grows_from_epoch_to_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, optimizer="sgd", epochs=2, batch_size=15, average=0.0)
    job = jobs.prepare(lambda: Growing(), patterns(), recipe, device="cpu", precision="fp32")
    histories = []
    for name in ("replayed", "alone"):
        if name == "alone":
            monkeypatch.setattr("sepnet.training.step.accelerate", lambda model: model)
        run = Run.create(tmp_path, name, job.config)
        jobs.train_run(job, run)
        histories.append([(epoch.loss, epoch.val_loss) for epoch in run.history])
    torch.testing.assert_close(*map(torch.tensor, histories), rtol=1e-2, atol=1e-3)


def test_the_number_of_threads_is_followed() -> None:
    gradients, calls = _counted(tiny())
    threads = torch.get_num_threads()
    for _ in range(6):
        gradients(*_batch())
    before = len(calls)
    try:
        torch.set_num_threads(threads + 1)
        gradients(*_batch())
    finally:
        torch.set_num_threads(threads)
    assert len(calls) == before + 1


class Asking(nn.Module):
    """Code whose way depends on the numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x, (0, int(x.sum() > 0)))


def _around(module: nn.Module) -> nn.Module:
    return nn.Sequential(
        *(SeparableConv2d(3, 8), nn.BatchNorm2d(8), nn.ReLU(), module),
        *(SeparableConv2d(8, 8), GlobalAveragePool(), nn.Linear(8, len(CLASSES))),
    )


@pytest.mark.parametrize("module", [Counting(), Asking()], ids=["counting", "asking"])
def test_what_may_do_otherwise_is_called_each_time(module: nn.Module) -> None:
    gradients, calls = _counted(_around(module))
    for _ in range(8):
        gradients(*_batch())
    assert len(calls) == 8


def test_a_running_mean_of_all_batches_is_called_each_time() -> None:
    gradients, calls = _counted(_around(nn.BatchNorm2d(8, momentum=None)))
    for _ in range(8):
        gradients(*_batch())
    assert len(calls) == 8, "its share of each batch is a number that Python reads"


def test_a_network_that_is_mostly_pytorchs_is_called_each_time() -> None:
    wide = nn.Sequential(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(6)))
    gradients, calls = _counted(nn.Sequential(SeparableConv2d(3, 16), wide, GlobalAveragePool(), nn.Linear(16, 3)))
    for _ in range(8):
        gradients(*_batch())
    assert len(calls) == 8, "copying its results would take longer than calling it"


def test_a_tensor_of_pythons_numbers_is_not_noted() -> None:
    with recording.Recorder(recording._Memory()) as recorder:
        torch.ones(3).add(1)
        assert not recorder.refused
        torch.tensor([1.0, 2.0])
        assert recorder.refused


def test_memory_that_is_free_again_is_used_again() -> None:
    memory = recording._Memory()
    first = memory.like(torch.empty(10, 10))
    place = first.data_ptr()
    view = first[1:]
    del first
    second = memory.like(torch.empty(10, 10))
    assert second.data_ptr() != place, "a view is left"
    del view
    other = memory.like(torch.empty(9, 10))
    assert other.data_ptr() == place
    assert memory.size == 2 * 400
    assert place % recording.ALIGNMENT == 0


@pytest.mark.parametrize("shape", [(7,), (0, 3), (2, 3, 4, 5)])
def test_a_copy_has_shape_strides_and_type(shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        tensor = torch.randint(2, shape).to(dtype)
        for given in (tensor.permute(*reversed(range(len(shape)))), tensor.sum().to(dtype)):
            copy = recording._Memory().copy(given)
            assert torch.equal(copy, given)
            assert (copy.dtype, copy.stride()) == (given.dtype, given.stride())
