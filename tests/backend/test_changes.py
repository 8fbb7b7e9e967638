# mypy: disable-error-code="operator"
# A module's attributes, which the networks here are made of, are modules or tensors to mypy.
"""What changes about a network after it was compiled takes effect; values changed in place are as in PyTorch."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.nn.modules.module as module_hooks
import torch.nn.utils.prune
from torch import Tensor, nn

from sepnet.backend import network

from .comparing import plain_network, random_images
from .networks import ByMode, Parts, depthwise, pointwise
from .support import accelerate, needs_kernels

pytestmark = [
    needs_kernels,
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing when gradients are computed"),  # by weights alone
    pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated:DeprecationWarning"),
]


def _trained_alike(model: nn.Module, change: Callable[[nn.Module], object], images: Tensor) -> Any:
    """Change a network after it was accelerated; assert that it still does as it says, and return it."""
    network = accelerate(model)
    network(images)
    change(model)
    torch.testing.assert_close(network(images), model(images), rtol=1e-4, atol=1e-5)
    return network


def _set(module: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(module, name, value)


CHANGES: dict[str, Callable[[Any], object]] = {
    "a module replaced": lambda model: _set(model, **{"3": depthwise(8, 5)}),
    "a module added": lambda model: model.append(nn.Sigmoid()),
    "a module taken away": lambda model: model.pop(2),
    "a forward hook": lambda model: model[3].register_forward_hook(lambda *_: torch.ones(2, 8, 6, 6)),
    "a forward pre-hook": lambda model: model[3].register_forward_pre_hook(lambda _, inputs: (inputs[0] * 2,)),
    "weight norm": lambda model: nn.utils.parametrizations.weight_norm(model[0]),
    "pruned": lambda model: nn.utils.prune.l1_unstructured(model[0], "weight", 0.5),
    "another padding": lambda model: _set(model[3], padding_mode="reflect", _reversed_padding_repeated_twice=[1] * 4),
    "another stride": lambda model: _set(model[3], stride=(2, 2)),
    "another eps": lambda model: _set(model[1], eps=0.5),
    "a forward of its own": lambda model: _set(model[3], forward=lambda x: x * 3),
    "weights replaced": lambda model: _set(model[0], weight=nn.Parameter(torch.randn(8, 3, 1, 1))),
    "no bias": lambda model: _set(model[0], bias=None),
    "weights loaded": lambda model: model.load_state_dict(plain_network().state_dict()),
    "a part compiled": lambda model: _set(model, **{"3": torch.jit.trace(model[3], torch.zeros(2, 8, 6, 6))}),
    "statistics removed": lambda model: _set(model[1], running_mean=None, running_var=None),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_to_the_network_is_followed(name: str) -> None:
    torch.manual_seed(0)
    _trained_alike(plain_network(), CHANGES[name], random_images(2, 3, 6, 6))


def _tripled(_: nn.Module, gradients: tuple[Tensor | None, ...], *__: Any) -> tuple[Tensor | None, ...]:
    return tuple(None if gradient is None else 3 * gradient for gradient in gradients)


def _sevenfold(weight: Any) -> None:
    weight.grad.mul_(7)


def _doubled(module: nn.Module, inputs: Any) -> Any:
    return (inputs[0] * 2,) if isinstance(module, nn.Conv2d) else None


GRADIENT_HOOKS: dict[str, Callable[[Any], Any]] = {
    "a backward hook": lambda model: model[3].register_full_backward_hook(_tripled),
    "a backward pre-hook": lambda model: model[3].register_full_backward_pre_hook(_tripled),
    "a hook of a weight": lambda model: model[0].weight.register_hook(lambda gradient: 5 * gradient),
    "a hook after accumulation": lambda model: model[0].weight.register_post_accumulate_grad_hook(_sevenfold),
}
GLOBAL_HOOKS: dict[str, Callable[[Any], Any]] = {
    "a global forward hook": lambda _: module_hooks.register_module_forward_hook(
        lambda module, _, output: output * 2 if isinstance(module, nn.Conv2d) else None
    ),
    "a global forward pre-hook": lambda _: module_hooks.register_module_forward_pre_hook(_doubled),
    "a global backward hook": lambda _: module_hooks.register_module_full_backward_hook(_tripled),
}


def _gradients(network: Any, model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the gradients of one step from the model's state, which stays."""
    state = copy.deepcopy(model.state_dict())
    model.zero_grad()
    network(images).square().sum().backward()
    model.load_state_dict(state)
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def _followed(network: Any, model: nn.Module, add: Callable[[Any], Any]) -> None:
    """Assert that a hook changes the gradients from the next step on, and not after it was removed."""
    images = random_images(2, 3, 6, 6)
    before = _gradients(network, model, images)
    hook = add(model)
    try:
        with_hook = _gradients(network, model, images)
        torch.testing.assert_close(with_hook, _gradients(model, model, images), rtol=1e-3, atol=1e-4)
    finally:
        hook.remove()
    assert not torch.allclose(with_hook["0.weight"], before["0.weight"], rtol=0.1)
    torch.testing.assert_close(_gradients(network, model, images), before, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRADIENT_HOOKS)
def test_a_hook_on_gradients_is_followed(name: str) -> None:
    torch.manual_seed(0)
    model = plain_network()
    _followed(accelerate(model), model, GRADIENT_HOOKS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", GLOBAL_HOOKS)
def test_a_global_hook_is_followed_in_training(name: str) -> None:
    """By :func:`sepnet.backend.network`; ``torch.compile`` itself says that it does not follow them."""
    torch.manual_seed(0)
    model = plain_network()
    _followed(network(model, torch.device("cpu")), model, GLOBAL_HOOKS[name])


@pytest.mark.slow
def test_the_mode_of_every_module_is_followed() -> None:
    model = ByMode()
    both = nn.Sequential(model, pointwise(8, 2))
    network, x = accelerate(both), random_images(2, 3, 6, 6)
    for outer, inner in ((True, True), (False, False), (True, False), (False, True), (True, True)):
        both.train(outer)
        model.train(inner)
        torch.testing.assert_close(network(x), both(x), rtol=1e-4, atol=1e-5)


class Scaled(Parts):
    FACTOR = 1.0

    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(8))
        self.depth = 0
        self.weights = [1.0, 2.0]

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        for _ in range(self.depth):
            x = self.b(x)
        return x * self.FACTOR * self.weights[0]


@pytest.mark.slow
def test_a_setting_that_the_code_reads_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Scaled(), random_images(2, 3, 6, 6)
    network = _trained_alike(model, lambda model: _set(model, depth=2), x)
    for change in (
        lambda: _set(model, depth=0),
        lambda: model.weights.__setitem__(0, 3.0),
        lambda: monkeypatch.setattr(Scaled, "FACTOR", 0.5),
    ):
        change()
        torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-5)


class ChangesTwice(Parts):
    """In PyTorch the shortcut is changed along with what it is another name of."""

    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        shortcut = x
        x += 1
        return self.b(x) + shortcut


class ChangesView(ChangesTwice):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        first = x[:, :4]
        first.add_(1)
        return self.b(x)


class ChangesAfterUse(ChangesTwice):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return x + torch.relu_(x)


class ChangesImages(ChangesTwice):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(F.relu(x, True)))


class ChangesThroughIdentity(ChangesTwice):
    def __init__(self) -> None:
        super().__init__()
        self.same, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.act(self.same(x)) + x


@pytest.mark.slow
@pytest.mark.parametrize("network", [ChangesTwice, ChangesView, ChangesAfterUse, ChangesImages, ChangesThroughIdentity])
def test_values_changed_in_place_under_two_names_are_as_in_pytorch(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = network(), random_images(2, 3, 6, 6)
    torch.testing.assert_close(accelerate(model)(x.clone()), model(x.clone()), rtol=1e-4, atol=1e-5)
