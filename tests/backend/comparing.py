# mypy: disable-error-code="operator"
# A module's attributes, which the networks here are made of, are modules or tensors to mypy.
"""How an accelerated network is compared with the same network in plain PyTorch and float64."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sepnet.networks.base import base
from sepnet.networks.champion import champion
from sepnet.networks.published import published
from sepnet.networks.resnet8 import resnet8

from .networks import depthwise, pointwise
from .support import TOLERANCE, accelerate, operators

NAMED: dict[str, Callable[[], nn.Module]] = {
    "base": base,
    "published": published,
    "champion": champion,
    "resnet8": resnet8,
}


def tensors(output: Any) -> Iterable[Tensor]:
    """Yield the tensors of an output, in order."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (list, tuple, dict)):
        for part in output.values() if isinstance(output, dict) else output:
            yield from tensors(part)


def kinds(output: Any) -> Any:
    """Return an output's containers and its tensors' shapes."""
    if isinstance(output, dict):
        return {name: kinds(part) for name, part in output.items()}
    if isinstance(output, (list, tuple)):
        return type(output)(map(kinds, output))
    return output.shape


def run(network: Callable[[Tensor], Any], model: nn.Module, images: Tensor, autocast: bool) -> dict[str, Tensor]:
    """Return outputs, the gradient by the images and every parameter, and every buffer after the pass."""
    images = images.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = network(images)
    found = {f"output {index}": tensor for index, tensor in enumerate(tensors(output))}
    generator = torch.Generator().manual_seed(1)
    model.zero_grad()
    grads = [torch.randn(tensor.shape, generator=generator, dtype=torch.float64) for tensor in found.values()]
    sum((tensor.double() * grad).sum() for tensor, grad in zip(found.values(), grads, strict=True)).backward()  # type: ignore[union-attr]
    gradients = {f"gradient by {name}": parameter.grad for name, parameter in model.named_parameters()}
    found |= {name: gradient for name, gradient in gradients.items() if gradient is not None}
    assert images.grad is not None
    found["gradient by images"] = images.grad
    return {name: t.detach() for name, t in found.items()} | {name: b.clone() for name, b in model.named_buffers()}


def same(model: nn.Module, images: Tensor, *, autocast: bool = False, steps: int = 2) -> None:
    """Assert that a network does as it would in float64, as nearly as PyTorch's own computation does.

    What rounding leaves where PyTorch's gradients cancel (a bias before a batch norm has none), or where a ReLU's
    gate turns, is measured by what it leaves in PyTorch's own.
    """
    plain, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    network = accelerate(model)
    for step in range(steps):
        with operators() as replaced:
            own = run(network, model, images, autocast)
        assert replaced or step, "none of sepnet's operators was put in"
        by_pytorch = run(plain, plain, images, autocast)
        right = run(exact, exact, images.double(), False)
        assert own.keys() == by_pytorch.keys() == right.keys()
        gradients = max(float(t.abs().max()) for name, t in right.items() if name.startswith("gradient by"))
        for name, tensor in right.items():
            assert own[name].shape == tensor.shape, name
            assert own[name].dtype == by_pytorch[name].dtype, name
            largest = float(tensor.abs().max())
            largest = max(largest, 0.1) if not name.startswith("gradient") else largest  # a mean may be 0
            allowed = TOLERANCE[torch.float32] * max(largest, gradients if name.startswith("gradient") else 0)
            difference = float((own[name].double() - tensor).abs().max())
            theirs = float((by_pytorch[name].double() - tensor).abs().max())
            if autocast:
                allowed = TOLERANCE[torch.bfloat16] * largest + 8 * theirs
            assert difference <= max(allowed, 16 * theirs), (name, difference / largest, theirs / largest)


def random_images(*shape: int, channels_last: bool = False) -> Tensor:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


def plain_network() -> nn.Sequential:
    return nn.Sequential(pointwise(3, 8), nn.BatchNorm2d(8), nn.ReLU(), depthwise(8), pointwise(8, 4)).eval()


def without_dropout(model: nn.Module) -> nn.Module:
    """Masks differ: those of the kernels are not PyTorch's."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model
