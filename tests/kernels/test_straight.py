# mypy: disable-error-code="operator"
# A module's attributes, which the networks here are made of, are modules or tensors to mypy.
"""Which code may be followed once and never again."""

import functools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepnet.kernels.accelerate import Accelerated, accelerate
from sepnet.kernels.follow import follow, is_called_whole
from sepnet.kernels.straight import NotStraight, changes_input, read
from tests.anatomy.foreign import FOREIGN

from .networks import NETWORKS, Parts, depthwise, pointwise
from .support import Counting, needs_kernels

SHARE = 0.5
TABLE = torch.ones(8)


class Base(Parts):
    def __init__(self) -> None:
        super().__init__(a=pointwise(3, 8), b=depthwise(8))
        self.calls = 0
        self.share = 0.5
        self.history: list[Any] = []
        self.loose = [pointwise(8, 8)]
        self.table = torch.ones(8, 1, 1)


def _noisy(x: Tensor) -> Tensor:
    return x if random.random() < 0.5 else x * 2


def _around(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any) -> Any:
        return function(*args)

    return inner


class RandomBranch(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return x + self.b(x) if random.random() < self.share else x


class RandomOfTorch(Base):
    def forward(self, x: Tensor) -> Tensor:
        keep = torch.rand(())
        return self.b(self.a(x)) * keep


class RandomNormal(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) * torch.normal(0.0, 1.0, (1,))


class Counter(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.b(self.a(x)) * self.calls


class Stored(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.last = self.a(x)
        return self.b(self.last)


class Remembered(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.history.append(1)
        return self.b(self.a(x)) * len(self.history)


class RememberedUnderAnotherName(Base):
    def forward(self, x: Tensor) -> Tensor:
        history = self.history
        history += [1]
        return self.b(self.a(x)) * len(history)


class ListsPart(Base):
    def forward(self, x: Tensor) -> Tensor:
        self.history[0] = 1
        return self.b(self.a(x))


class Global(Base):
    def forward(self, x: Tensor) -> Tensor:
        global SHARE
        SHARE = SHARE + 1
        return self.b(self.a(x)) * SHARE


class Helper(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(_noisy(self.a(x)))


class Method(Base):
    def noisy(self, x: Tensor) -> Tensor:
        return x * random.random()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.noisy(self.a(x)))


class StaticMethod(Base):
    @staticmethod
    def noisy(x: Tensor) -> Tensor:
        return x * random.random()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.noisy(self.a(x)))


class Property(Base):
    @property
    def noise(self) -> float:
        return random.random()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) * self.noise


class FunctionInHand(Base):
    def forward(self, x: Tensor) -> Tensor:
        draw = torch.rand
        return self.b(self.a(x)) * draw(())


class FunctionInTable(Base):
    DRAWS = (torch.rand,)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) * self.DRAWS[0](())


class Decorated(Base):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


class Wrapped(Base):
    @_around
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


class InContext(Base):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.a(x)
        return self.b(x)


class Switch(Base):
    def forward(self, x: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        return self.b(self.a(x))


class AsksForGradients(Base):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x) if torch.is_grad_enabled() else x


class AsksForItsKind(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) if isinstance(x, Tensor) else x


class AsksForItself(Base):
    """What PyTorch's ``nn.Identity`` returns is what it was given; of a symbol's double that is not so."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y) if y is x else y


class LooseTensor(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) * (self.table * 2)


class GlobalTensor(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) * (TABLE.sum() * 2)


class LooseModule(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.loose[0](self.a(x)))


class Lambda(Base):
    def forward(self, x: Tensor) -> Tensor:
        noisy = lambda value: value * random.random()  # noqa: E731
        return self.b(noisy(self.a(x)))


class Loop(Base):
    def forward(self, x: Tensor) -> Tensor:
        while random.random() < 0.5:
            x = x * 2
        return self.b(self.a(x))


class Attempt(Base):
    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.b(self.a(x))
        except RuntimeError:
            return x


class MutableDefault(Base):
    def forward(self, x: Tensor, seen: list[int] = []) -> Tensor:  # noqa: B006
        seen += [1]
        return self.b(self.a(x)) * len(seen)


class Printing(Base):
    def forward(self, x: Tensor) -> Tensor:
        print("forward")
        return self.b(self.a(x))


class Parent(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


class Super(Parent):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class OwnCall(Parent):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) * 2


class OwnSubscript(nn.Sequential):
    def __iter__(self) -> Any:
        return iter([module for module in self._modules.values() if random.random() < 0.5])


class Outside(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) * math.sqrt(random.getrandbits(1) + 1)


class OfLayer(Base):
    """What belongs to a layer under a name that tensors have too."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b):
            x = layer(x) * layer.T
        return x


REFUSED: tuple[type[nn.Module], ...] = (
    *(RandomBranch, RandomOfTorch, RandomNormal, Counter, Stored, Remembered, RememberedUnderAnotherName, ListsPart),
    *(Global, Helper, Method, StaticMethod, Property, FunctionInHand, FunctionInTable, Decorated, Wrapped, InContext),
    *(Switch, AsksForGradients, AsksForItsKind, AsksForItself, LooseTensor, GlobalTensor, LooseModule, Lambda, Loop),
    *(Attempt, MutableDefault, Printing, Super, OwnCall, Outside, OfLayer),
)


def _read(model: nn.Module) -> None:
    read(model, lambda module: not is_called_whole(module))


@pytest.mark.parametrize("network", REFUSED)
def test_what_may_do_something_else_the_next_time_is_refused(network: type[nn.Module]) -> None:
    with pytest.raises(NotStraight, match=r"\w"):
        _read(network())
    with pytest.raises(NotStraight):
        _read(nn.Sequential(pointwise(3, 3), network()))


def test_a_sequence_that_chooses_its_layers_is_refused() -> None:
    with pytest.raises(NotStraight, match="__iter__"):
        _read(OwnSubscript(pointwise(3, 3), depthwise(3)))


def test_a_forward_of_one_module_alone_is_refused() -> None:
    model = nn.Sequential(pointwise(3, 3), depthwise(3))
    layer: Any = model[1]
    layer.forward = lambda x: x * random.random()
    with pytest.raises(NotStraight, match="forward"):
        _read(model)


def test_code_without_its_source_is_refused() -> None:
    scope: dict[str, Any] = {"nn": nn, "Base": Base}
    exec("class Made(Base):\n    def forward(self, x):\n        return self.b(self.a(x))\n", scope)
    with pytest.raises(NotStraight, match="source"):
        _read(scope["Made"]())


def test_a_number_of_the_function_around_is_refused() -> None:
    scale = 2.0

    class Local(Base):
        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) * scale

    with pytest.raises(NotStraight, match="scale"):
        _read(Local())


def test_the_message_names_the_place() -> None:
    with pytest.raises(NotStraight) as caught:
        _read(Counter())
    line = Counter.forward.__code__.co_firstlineno + 1
    assert str(caught.value) == f"Counter.forward assigns to self.calls (line {line})"


@pytest.mark.parametrize("name", NETWORKS)
def test_straight_code_is_followed(name: str) -> None:
    follow(NETWORKS[name]())


@pytest.mark.parametrize("name", [name for name in FOREIGN if name not in ("LeNet", "SENet")])
def test_other_peoples_networks_are_followed(name: str) -> None:
    follow(FOREIGN[name]())


@needs_kernels
@pytest.mark.parametrize("network", [RandomBranch, Counter, OwnCall])
def test_what_is_refused_is_the_model_itself_and_said_in_one_line(
    network: type[nn.Module], capfd: pytest.CaptureFixture[str]
) -> None:
    model = network()
    assert accelerate(model) is model
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("the network is computed by PyTorch alone, not by sepnet's kernels: ")
    assert err.count("\n") == 1


@needs_kernels
def test_depth_that_changes_from_step_to_step_does_so() -> None:
    """Stochastic depth, followed once, would for ever be as deep as it was that time."""
    torch.manual_seed(0)
    random.seed(0)
    model = RandomBranch()
    network, x = accelerate(model), torch.randn(2, 3, 4, 4)
    assert len({float(network(x).detach().sum()) for _ in range(30)}) == 2


@needs_kernels
def test_a_module_that_is_called_whole_may_count() -> None:
    model = nn.Sequential(pointwise(3, 4), Counting(), depthwise(4))
    network, x = accelerate(model), torch.randn(2, 3, 4, 4)
    assert isinstance(network, Accelerated)
    first, second = network(x), network(x)
    leaf: Any = model[1]
    assert leaf.calls == 2
    torch.testing.assert_close(second - model[2].bias.view(-1, 1, 1), 2 * (first - model[2].bias.view(-1, 1, 1)))


class Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(torch.sigmoid(x))


class Clipped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x, True)


class Padded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(F.relu(x, inplace=False), (0, 1))


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        *((nn.ReLU(), False), (nn.ReLU(inplace=True), True), (nn.Dropout(inplace=True), True)),
        *((nn.Conv2d(1, 1, 1), False), (Swish(), True), (Clipped(), True), (Padded(), False), (Counting(), True)),
    ],
)
def test_whether_a_module_may_change_its_input(module: nn.Module, changes: bool) -> None:
    assert changes_input(module) == changes
