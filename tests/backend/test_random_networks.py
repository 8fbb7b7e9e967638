"""Random networks of everything that the fusion knows, in any order, against float64."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from .networks import depthwise, pointwise
from .support import RANDOM, accelerate, needs_kernels

CHANNELS = 4
LAYERS = {
    "pointwise": lambda: pointwise(CHANNELS, CHANNELS),
    "depthwise": lambda: depthwise(CHANNELS),
    "depthwise 1×1": lambda: depthwise(CHANNELS, 1),
    "dense": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    "norm": lambda: nn.BatchNorm2d(CHANNELS),
    "relu": lambda: nn.ReLU(),
    "relu in place": lambda: nn.ReLU(inplace=True),
    "sigmoid": lambda: nn.Sigmoid(),
    "silu": lambda: nn.SiLU(),
    "hardswish in place": lambda: nn.Hardswish(inplace=True),
    "leaky relu in place": lambda: nn.LeakyReLU(inplace=True),
    "dropout": lambda: nn.Dropout(0.0),
    "identity": lambda: nn.Identity(),
    "max": lambda: nn.MaxPool2d(1),
}
OPERATIONS = ("add", "add in place", "multiply", "relu", "half", "same")


class Program(nn.Module):
    """Each line makes one more value of two before it; the last is returned, and the sum of all the others' means."""

    def __init__(self, layers: list[str], lines: list[tuple[str, int, int, int]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([LAYERS[layer]() for layer in layers])
        self.lines = lines

    def forward(self, x: Tensor) -> Any:
        values = [x + 0]
        for kind, layer, first, second in self.lines:
            if kind == "layer":
                values.append(self.layers[layer](values[first]))
            elif kind == "add":
                values.append(values[first] + values[second])
            elif kind == "add in place":
                values.append(values[first].add_(values[second]))
            elif kind == "multiply":
                values.append(values[first] * values[second])
            elif kind == "relu":
                values.append(torch.relu(values[first]))
            elif kind == "half":
                values.append(values[first][:, :, ::2].repeat_interleave(2, 2)[:, :, : values[first].shape[2]])
            else:
                values.append(values[first].contiguous())
        return values[-1], sum([torch.mean(value) for value in values])


@st.composite
def programs(draw: st.DrawFn) -> Program:
    layers = draw(st.lists(st.sampled_from([*LAYERS]), min_size=2, max_size=6))
    lines = []
    for count in range(1, draw(st.integers(3, 12))):
        kind = draw(st.just("layer") | st.just("layer") | st.sampled_from(OPERATIONS))
        # Mostly what was made last: long chains; now and then anything before it.
        first = draw(st.just(count - 1) | st.integers(0, count - 1))
        lines.append((kind, draw(st.integers(0, len(layers) - 1)), first, draw(st.integers(0, count - 1))))
    return Program(layers, lines)


def _outcome(network: Any, model: nn.Module, x: Tensor) -> list[Tensor] | str:
    """Return outputs, gradients and buffers, or the kind of error."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    try:
        y, mean = network(x)
        (y.square().mean() + mean).backward()
    except RuntimeError as error:
        return "changed in place" if "inplace operation" in str(error) else str(error)
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    assert x.grad is not None
    return [y.detach(), mean.detach(), x.grad, *gradients, *(buffer.clone() for buffer in model.buffers())]


@pytest.mark.slow
@needs_kernels
@pytest.mark.parametrize("training", [True, False])
@settings(RANDOM, max_examples=12)
@given(model=programs(), seed=st.integers(0, 2**31))
def test_any_order_of_steps_computes_what_it_says(training: bool, model: Program, seed: int) -> None:
    torch.manual_seed(seed)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.1, 1.0)  # away from 0: what cancels leaves rounding alone
    model.train(training)
    plain, exact = copy.deepcopy(model), copy.deepcopy(model).double()
    network = accelerate(model)
    x = torch.randn(3, CHANNELS, 6, 5)
    right = _outcome(exact, exact, x.double())
    found = _outcome(network, model, x)
    if isinstance(right, str):
        # What PyTorch refuses only when a gradient is taken may be right without its in-place operations.
        assert found == right or right == "changed in place"
        return
    assert not isinstance(found, str), found
    by_pytorch = _outcome(plain, plain, x)
    for own, theirs, tensor in zip(found, by_pytorch, right, strict=True):
        scale = max(1.0, float(tensor.abs().max()))
        difference = float((own - tensor).abs().max())
        assert difference <= max(2e-5 * scale, 16 * float((theirs - tensor).abs().max()))  # type: ignore[operator]
