"""What replays a graph: the same to the last bit, whichever pass comes when, and whatever changes in mid-training."""

import copy
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.utils.parametrize
from torch import Tensor, nn

from sepnet.backend import executor, launch, network
from sepnet.networks.champion import champion
from sepnet.networks.layers import GlobalAveragePool, SeparableConv2d
from sepnet.recipes.recipe import Recipe
from sepnet.speed.synthetic_data import batches, training_step
from sepnet.training.step import TrainingStep
from tests.training.support import CLASSES, patterns, tiny

from .comparing import random_images
from .support import accelerate, needs_kernels, operators

pytestmark = needs_kernels

RECIPE = Recipe(
    name="test", epochs=3, batch_size=15, optimizer="muon", lr=0.2, crop=1, label_smoothing=0.1, average=0.9
)


def _step(recipe: Recipe, precision: str = "fp32") -> TrainingStep:
    torch.manual_seed(0)
    torch._dynamo.reset()
    return training_step(champion(classes=len(CLASSES)), patterns(), recipe, device="cpu", precision=precision)


def _train(step: TrainingStep, steps: int = 6) -> dict[str, Any]:
    batch = batches(step)
    for _ in range(steps):
        step(*next(batch))
    return {**step.model.state_dict(), "sums": step.sums}


def _without_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        executor.Executor, "__call__", lambda self, arguments: executor.Recording(self._module).run(*arguments)
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_is_the_same_to_the_last_bit(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _train(_step(RECIPE, precision))
    _without_plans(monkeypatch)
    for name, tensor in _train(_step(RECIPE, precision)).items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.slow
def test_images_that_grow_and_a_smaller_last_batch_take_one_graph() -> None:
    torch._dynamo.reset()
    recipe = replace(RECIPE, epochs=4, batch_size=44, first_size=0.5)
    step = training_step(_dropped(), patterns(), recipe, device="cpu", precision="fp32")
    with operators() as compiled:
        for epoch in range(4):
            for number in (0, 1, 3):
                step(step.order(epoch)[44 * number : 44 * (number + 1)], epoch, number)
    graphs = 1 if torch.__version__ >= "2.13" else 2  # before, the second call is the first of any size
    assert compiled.count("stage") == compiled.count("stage_backward") == 2 * graphs


def _dropped() -> nn.Module:
    return nn.Sequential(
        *(SeparableConv2d(3, 16), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5)),
        *(SeparableConv2d(16, 16), nn.BatchNorm2d(16), nn.ReLU(), GlobalAveragePool(), nn.Linear(16, len(CLASSES))),
    )


def test_two_passes_before_their_gradients_and_a_graph_that_is_kept() -> None:
    torch.manual_seed(0)
    model = _dropped()
    model.get_submodule("4").p = 0.0  # type: ignore[assignment]
    plain, network = copy.deepcopy(model), accelerate(model)
    batches = [random_images(4, 3, 8, 8) * scale for scale in (1, 2, 3)]
    for compute, owner in ((network, model), (plain, plain)):
        for _ in range(3):  # the last ones from plans
            first, second, third = (compute(batch) for batch in batches)
            owner.zero_grad()
            second.square().sum().backward()
            first.square().sum().backward(retain_graph=True)
            first.sum().backward()
            del third
    for own, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_several_threads_may_train_at_once() -> None:
    models = [_dropped() for _ in range(2)]
    network = [accelerate(model) for model in models]
    images = random_images(4, 3, 8, 8)
    for compute in network:
        for _ in range(2):
            compute(images).sum().backward()
    expected = []
    for model in models:
        model.eval()
        model.zero_grad()
    for compute in network:
        compute(images)
        compute(images).square().sum().backward()
    for model in models:
        expected.append([parameter.grad for parameter in model.parameters()])
        model.zero_grad()
    failures: list[str] = []

    def train(index: int) -> None:
        for _ in range(20):
            models[index].zero_grad()
            network[index](images).square().sum().backward()
            for own, right in zip(models[index].parameters(), expected[index], strict=True):
                if own.grad is None or right is None or not torch.equal(own.grad, right):
                    failures.append("another gradient")

    threads = [threading.Thread(target=train, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_dropout_is_drawn_anew_at_each_pass_and_follows_pytorchs_seed() -> None:
    model = _dropped()
    network, x = accelerate(model), random_images(4, 3, 8, 8)
    network(x)
    torch.manual_seed(1)
    first, second = network(x), network(x)
    torch.manual_seed(1)
    assert torch.equal(network(x), first)
    assert not torch.equal(first, second)


class Halved(nn.Module):
    """Code that a parametrization runs."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


class Powers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor, self.powers = 1.0, [1]

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for power in self.powers:
            total = total + self.factor * x**power
        return total


def _set(module: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(module, name, value)


FIRED: list[object] = []
"""Who called a hook."""


def _fire(*_: object) -> None:
    FIRED.append("hook")


CHANGES: dict[str, Callable[[Any], object]] = {
    "a changed dropout rate": lambda model: _set(model[3], p=0.0),
    "a changed momentum": lambda model: _set(model[1], momentum=0.9),
    "a submodule's eval()": lambda model: model[1].eval(),
    "a frozen parameter": lambda model: model[0][1].weight.requires_grad_(requires_grad=False),
    "a submodule replaced": lambda model: _set(model, **{"8": nn.Linear(8, len(CLASSES))}),
    "weights that lie elsewhere": lambda model: _set(model[8].weight, data=torch.zeros(len(CLASSES), 8)),
    "a setting of the user's own class": lambda model: _set(model[9], factor=3.0),
    "a list in the user's own class": lambda model: model[9].powers.append(2),
    "a parametrization": lambda model: nn.utils.parametrize.register_parametrization(model[8], "weight", Halved()),
    "a forward pre-hook": lambda model: model[2].register_forward_pre_hook(_fire),
    "a forward hook": lambda model: model[2].register_forward_hook(_fire),
    "a tensor's hook": lambda model: model[8].weight.register_hook(_fire),
    "a hook after accumulation": lambda model: model[8].weight.register_post_accumulate_grad_hook(_fire),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_mid_training_takes_effect_at_the_next_step(name: str) -> None:
    """Compared with PyTorch alone."""
    torch.manual_seed(0)
    model: Any = tiny()
    model.append(Powers())
    model[3].p = 0.5 if "dropout" in name else 0.0
    network = accelerate(model)

    def step(compute: Callable[[Tensor], Tensor], owner: nn.Module, images: Tensor) -> list[Tensor]:
        owner.zero_grad()
        logits = compute(images)
        logits.square().mean().backward()
        grads = [torch.zeros(()) if p.grad is None else p.grad.clone() for p in owner.parameters()]
        return [logits.detach(), *grads, *(buffer.clone() for buffer in owner.buffers())]

    for _ in range(4):
        step(network, model, random_images(6, 3, 8, 8))
    CHANGES[name](model)
    for seed in range(3):
        images = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        alone = copy.deepcopy(model)
        FIRED.clear()
        found = step(network, model, images)
        assert bool(FIRED) == ("hook" in name)
        for own, right in zip(found, step(alone, alone, images), strict=True):
            torch.testing.assert_close(own, right, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_dropout_rate_that_changes_at_every_step_is_followed_and_takes_no_graph_each() -> None:
    dropout = nn.Dropout(0.5)
    network, x = accelerate(nn.Sequential(SeparableConv2d(3, 64), dropout)), random_images(4, 3, 8, 8)
    with operators() as compiled:
        for step in range(12):
            dropout.p = 0.05 + 0.07 * step
            dropped = network(x)
            dropped.sum().backward()
            assert float((dropped == 0).double().mean()) == pytest.approx(dropout.p, abs=0.02)
    assert compiled.count("stage") <= 2


@pytest.mark.slow
def test_networks_of_one_class_do_not_use_up_each_others_recompilations() -> None:
    torch._dynamo.reset()
    for width in range(8, 20):
        model = nn.Sequential(SeparableConv2d(3, width), nn.BatchNorm2d(width), nn.ReLU())
        with operators() as compiled:
            network(model, torch.device("cpu"))(random_images(2, 3, 8, 8))
        assert "stage" in compiled, f"network {width - 7} runs without sepnet's kernels"


@pytest.mark.slow
def test_the_number_of_threads_is_followed() -> None:
    model, x, threads = _dropped().eval(), random_images(4, 3, 8, 8), torch.get_num_threads()
    network = accelerate(model)
    for _ in range(2):
        network(x)
    try:
        torch.set_num_threads(threads + 1)
        torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-5)
    finally:
        torch.set_num_threads(threads)


class Asking(nn.Module):
    """Code whose way depends on the numbers: Dynamo's graph ends there, and another begins behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.behind = SeparableConv2d(3, 8), SeparableConv2d(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        x = nn.functional.pad(x, (0, int(x.sum() > 0)))
        y: Tensor = self.behind(x)
        return y


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo's own
def test_a_network_whose_graph_breaks_is_replaced_on_either_side() -> None:
    torch.manual_seed(0)
    model = Asking()
    network = accelerate(model)
    with operators() as replaced:
        for sign in (1, -1, 1):
            x = sign * random_images(2, 3, 6, 6)
            torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-5)
    assert replaced.count("stage") >= 2


def test_memory_of_values_that_are_not_wanted_at_once_is_shared() -> None:
    lives = {"a": (0, 1, 100), "b": (1, 2, 64), "c": (2, 3, 100), "d": (0, 3, 10)}
    offsets, size = launch.lay_out(lives)
    assert offsets["a"] == offsets["c"], "one is dead when the other is born"
    for one, (born, died, length) in lives.items():
        assert offsets[one] % launch.ALIGNMENT == 0
        assert offsets[one] + length <= size
        for other, (first, last, room) in lives.items():
            if one != other and born <= last and first <= died:
                assert offsets[one] + length <= offsets[other] or offsets[other] + room <= offsets[one]


def test_trained_network_is_tinys_own() -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    x = random_images(4, 3, 8, 8, channels_last=True)
    with torch.inference_mode():
        torch.testing.assert_close(accelerate(model)(x), model(x), rtol=1e-4, atol=1e-5)
