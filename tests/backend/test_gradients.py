# mypy: disable-error-code="operator"
# A module's attributes, which the networks here are made of, are modules or tensors to mypy.
"""Gradients of accelerated networks: taken often, in part, twice, and what is kept for them."""

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

from sepnet.networks.champion import champion
from sepnet.networks.published import published

from .comparing import NAMED, plain_network, random_images, without_dropout
from .networks import depthwise, pointwise
from .support import accelerate, needs_kernels

pytestmark = [
    needs_kernels,
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]


@pytest.mark.slow
def test_gradients_add_up_over_passes_and_may_be_taken_twice() -> None:
    torch.manual_seed(0)
    model = champion(classes=3).train()
    plain, x = copy.deepcopy(without_dropout(model)), random_images(4, 3, 16, 16)
    for network in (accelerate(model), plain):
        y = network(x)
        y.sum().backward(retain_graph=True)
        y.square().sum().backward()
        network(x).sum().backward()
    largest = max(float(p.grad.abs().max()) for p in plain.parameters() if p.grad is not None)
    for own, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, theirs.grad, rtol=1e-4, atol=1e-4 * largest)


def test_gradients_by_some_tensors_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*plain_network()).train()
    plain = copy.deepcopy(model)
    grads = []
    for network, owner in ((accelerate(model), model), (plain, plain)):
        x = random_images(4, 3, 6, 6).requires_grad_()
        middle: Any = owner[3]
        y = network(x).square().sum()
        grads.append([*torch.autograd.grad(y, [x], retain_graph=True), *torch.autograd.grad(y, [middle.weight])])
    for own, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)


def test_a_parameters_own_hooks_are_called() -> None:
    model, seen = plain_network(), []
    parameter = next(model.parameters())
    parameter.register_hook(lambda gradient: gradient * 0)
    parameter.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.abs().max()))
    accelerate(model)(random_images(2, 3, 6, 6)).sum().backward()
    assert seen == [0]


@pytest.mark.parametrize("layers", [[depthwise(3, bias=False), pointwise(3, 4)], [*plain_network()]], ids=len)
def test_weights_changed_between_the_passes_are_noticed_as_in_pytorch(layers: list[nn.Module]) -> None:
    model = nn.Sequential(*layers)
    y = accelerate(model)(random_images(2, 3, 6, 6)).square().sum()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_a_second_derivative_is_refused_not_wrong() -> None:
    model, x = plain_network(), random_images(2, 3, 6, 6).requires_grad_()
    (grad,) = torch.autograd.grad(accelerate(model)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        grad.square().sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["champion", "published"])
def test_a_network_that_has_come_apart_says_so(name: str) -> None:
    """The trainer stops where the loss is not finite; a ReLU that made 0 of NaN would hide it."""
    model = NAMED[name]().train()
    weight = next(model.parameters())
    with torch.no_grad():
        weight.fill_(torch.nan)
    assert accelerate(model)(random_images(4, 3, 16, 16)).isnan().all()


@pytest.mark.slow
def test_nothing_is_kept_after_a_pass() -> None:
    model = published(classes=3)
    network = accelerate(model)
    x = random_images(2, 3, 16, 16)
    network(x).sum().backward()
    model.zero_grad()
    gc.collect()
    before = {id(thing) for thing in gc.get_objects() if type(thing) is Tensor}
    y = network(x)
    alive = weakref.ref(y)
    y.sum().backward()
    model.zero_grad()
    del y
    gc.collect()
    assert alive() is None
    left = [thing.shape for thing in gc.get_objects() if type(thing) is Tensor and id(thing) not in before]
    assert left == []


@pytest.mark.slow
def test_a_loss_that_is_kept_keeps_no_values() -> None:
    """PyTorch frees what a gradient was computed from, though the loss, and the graph behind it, live on."""
    model = champion(classes=3)
    network, losses = accelerate(model), []

    def count() -> int:
        gc.collect()
        return sum(thing.numel() for thing in gc.get_objects() if type(thing) is Tensor)

    for _ in range(3):
        before = count()
        losses.append(network(random_images(8, 3, 16, 16)).sum())
        losses[-1].backward()
    assert count() - before < 8 * 3 * 16 * 16


@pytest.mark.slow
def test_two_runs_of_training_give_the_same_bits() -> None:
    def trained() -> list[Tensor]:
        torch.manual_seed(0)
        model = champion(classes=3).train()
        network, optimizer = accelerate(model), torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            torch.manual_seed(step)
            with torch.autocast("cpu", torch.bfloat16):
                loss = network(random_images(8, 3, 16, 16)).float().square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return [*model.state_dict().values()]

    assert all(map(torch.equal, trained(), trained()))
