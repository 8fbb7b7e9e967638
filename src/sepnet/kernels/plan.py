"""Which layers of a network are computed together: its traced graph, cut into steps."""

import itertools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from sepnet.kernels.follow import Followed
from sepnet.kernels.stage import RELU


@dataclass(kw_only=True)
class Convolution:
    """A depthwise convolution, a pointwise one, or both, and a ReLU behind them."""

    node: fx.Node
    """The last of the nodes computed, whose value this is."""
    source: fx.Node
    depthwise: nn.Conv2d | None = None
    pointwise: nn.Conv2d | None = None
    relu: bool = False


@dataclass(kw_only=True)
class Norm:
    """A batch norm: its coefficients, which the next step applies."""

    node: fx.Node
    source: fx.Node
    module: nn.BatchNorm2d


@dataclass(kw_only=True)
class Same:
    """Nothing: the value that came."""

    node: fx.Node
    source: fx.Node


@dataclass(kw_only=True)
class Activation:
    """An activation, which the next step applies."""

    node: fx.Node
    source: fx.Node
    kind: int
    """An index of ``stage.ACTIVATIONS``."""

    @property
    def name(self) -> str:
        """The name of its module in PyTorch."""
        return str(_ACTIVATIONS[self.kind][0].__name__)


@dataclass(kw_only=True)
class Add:
    """A sum of two values, which the next step forms."""

    node: fx.Node
    sources: tuple[fx.Node, fx.Node]


@dataclass(kw_only=True)
class Pooling:
    """Pooling, dropout, or the one and then the other."""

    node: fx.Node
    source: fx.Node
    pool: nn.MaxPool2d | nn.AvgPool2d | None = None
    dropout: nn.Dropout | None = None


@dataclass(kw_only=True)
class Other:
    """Whatever else: computed as the network says."""

    node: fx.Node


Step = Convolution | Norm | Same | Activation | Add | Pooling | Other


@dataclass(kw_only=True)
class Chain:
    """Neighbouring steps that sepnet computes, which PyTorch need know only as a whole."""

    first: int
    last: int
    arriving: list[fx.Node]
    """Whose values come from before."""
    leaving: list[fx.Node]
    """Whose values are wanted later."""
    modules: list[nn.Module]
    """Whose weights are used."""


@dataclass
class Plan:
    """The steps of a network, and after which of them each value is no longer wanted."""

    steps: list[Step]
    followed: Followed
    last_uses: dict[int, list[fx.Node]] = field(default_factory=dict)
    chains: dict[int, Chain] = field(default_factory=dict)
    """By their first step."""

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The network's modules by name."""
        return self.followed.modules

    @property
    def called_whole(self) -> list[nn.Module]:
        """The modules that are called as they are."""
        nodes = (step.node for step in self.steps if isinstance(step, Other) and step.node.op == "call_module")
        return [self.modules[str(node.target)] for node in nodes]

    @property
    def wins(self) -> bool:
        """Whether any step is computed by sepnet's kernels."""
        return any(not isinstance(step, (Same, Other)) for step in self.steps)


def make_plan(followed: Followed) -> Plan:
    """Cut a network's graph into steps."""
    planner = _Planner(followed.modules)
    plan = Plan([step for node in followed.graph.nodes if (step := planner.step(node))], followed)
    wanted_by = {user: index for index, step in enumerate(plan.steps) for user in planner.covered(step)}
    for node in followed.graph.nodes:
        uses = [wanted_by[user] for user in node.users if user in wanted_by]
        if uses:
            plan.last_uses.setdefault(max(uses), []).append(node)
    plan.chains = {chain.first: chain for chain in _find_chains(plan)}
    return plan


def _find_chains(plan: Plan) -> Iterator[Chain]:
    own = [not isinstance(step, Other) for step in plan.steps]
    made_at = {step.node: index for index, step in enumerate(plan.steps)}
    used_until = {node: index for index, nodes in plan.last_uses.items() for node in nodes}
    for mine, group in itertools.groupby(range(len(own)), key=own.__getitem__):
        indices = list(group)
        if mine:
            first, last = indices[0], indices[-1]
            steps = plan.steps[first : last + 1]
            sources = dict.fromkeys(source for step in steps for source in _sources(step))
            modules = dict.fromkeys(module for step in steps for module in _modules(step))
            yield Chain(
                first=first,
                last=last,
                arriving=[node for node in sources if made_at[node] < first],
                leaving=[step.node for step in steps if used_until.get(step.node, -1) > last],
                modules=list(modules),
            )


def _sources(step: Step) -> tuple[fx.Node, ...]:
    match step:
        case Add(sources=sources):
            return sources
        case Other():
            return ()
    return (step.source,)


def _modules(step: Step) -> list[nn.Module]:
    match step:
        case Convolution(depthwise=depthwise, pointwise=pointwise):
            return [module for module in (depthwise, pointwise) if module is not None]
        case Norm(module=module):
            return [module]
    return []


class _Planner:
    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.modules = modules
        self._taken: dict[fx.Node, fx.Node] = {}  # nodes inside a step, and its last one

    def covered(self, step: Step) -> list[fx.Node]:
        """Return every node that a step computes."""
        return [step.node, *(node for node, last in self._taken.items() if last is step.node)]

    def step(self, node: fx.Node) -> Step | None:
        """Return the step that begins at a node; None for one inside an earlier step."""
        if node in self._taken:
            return None
        module = self._module(node)
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node):
            return Other(node=node)
        if isinstance(module, nn.Conv2d):
            return self._convolution(node, source, module)
        if type(module) is nn.BatchNorm2d:
            return Norm(node=node, source=source, module=module)
        if type(module) is nn.Identity:
            return Same(node=node, source=source)
        kind = self._activation(node)
        if kind is not None:
            return Activation(node=node, source=source, kind=kind)
        if _is_add(node):
            return Add(node=node, sources=(source, node.args[1]))  # type: ignore[arg-type]
        if _is_tiling(module):
            dropout = self._only_user(node)
            if dropout is not None and type(self._module(dropout)) is nn.Dropout:
                last = self._take(node, dropout)
                return Pooling(node=last, source=source, pool=module, dropout=self._module(dropout))  # type: ignore[arg-type]
            return Pooling(node=node, source=source, pool=module)  # type: ignore[arg-type]
        if type(module) is nn.Dropout:
            return Pooling(node=node, source=source, dropout=module)
        return Other(node=node)

    def _convolution(self, node: fx.Node, source: fx.Node, module: nn.Conv2d) -> Step:
        step = Convolution(node=node, source=source)
        if _is_pointwise(module):
            step.pointwise = module
        elif _is_depthwise(module):
            step.depthwise = module
            after = self._only_user(node)
            pointwise = None if after is None else self._module(after)
            if after is not None and isinstance(pointwise, nn.Conv2d) and _is_pointwise(pointwise):
                step.pointwise, step.node = pointwise, self._take(node, after)
        else:
            return Other(node=node)
        after = self._only_user(step.node)
        if after is not None and self._activation(after) == RELU:
            step.relu, step.node = True, self._take(step.node, after)
        return step

    def _take(self, node: fx.Node, following: fx.Node) -> fx.Node:
        """Make ``following`` the last node of the step that ``node`` is the last one of."""
        for inner, last in self._taken.items():
            if last is node:
                self._taken[inner] = following
        self._taken[node] = self._taken[following] = following
        return following

    def _module(self, node: fx.Node) -> nn.Module | None:
        """Return the module that a node calls with one tensor and nothing else, if it does."""
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            return None
        return self.modules[str(node.target)]

    def _only_user(self, node: fx.Node) -> fx.Node | None:
        """Return the one node that uses a node's value, as its first argument; None if there are others."""
        users = list(node.users)
        return users[0] if len(users) == 1 and users[0].args[:1] == (node,) else None

    def _activation(self, node: fx.Node) -> int | None:
        """Return which activation a node is; None for none that the kernels have."""
        # In place or not is the same here: a value that is changed in place is used by nothing else.
        if node.op == "call_module":
            target: Any = type(self._module(node))
        else:
            target = node.target if len(node.args) == 1 and node.kwargs.keys() <= {"inplace"} else None
        return next((kind for kind, names in _ACTIVATIONS.items() if target in names), None)


_ACTIVATIONS: dict[int, Sequence[Any]] = {
    RELU: (nn.ReLU, nn.functional.relu, torch.relu, torch.relu_, "relu", "relu_"),
    2: (nn.SiLU, nn.functional.silu),
    3: (nn.Hardswish, nn.functional.hardswish),
}
"""Modules, functions and methods, by their index in ``stage.ACTIVATIONS``."""


def _is_add(node: fx.Node) -> bool:
    both = len(node.args) == 2 and all(isinstance(argument, fx.Node) for argument in node.args) and not node.kwargs
    if node.op == "call_method":
        return both and node.target in ("add", "add_")
    return both and node.op == "call_function" and node.target in (operator.add, operator.iadd, torch.add)


def _is_pointwise(module: nn.Conv2d) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.groups == 1
        and module.kernel_size == (1, 1)
        and module.stride == (1, 1)
        and zero_padding(module) == (0, 0)
    )


def _is_depthwise(module: nn.Conv2d) -> bool:
    if type(module) is not nn.Conv2d or module.groups != module.in_channels:
        return False
    padding = zero_padding(module)
    reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    return padding is not None and all(p <= r for p, r in zip(padding, reach, strict=True))


def zero_padding(module: nn.Conv2d) -> tuple[int, int] | None:
    """Return how many zeros a convolution puts at either end of rows and columns; None for another padding."""
    if module.padding_mode != "zeros":
        return None
    if module.padding == "same":
        total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        return (total[0] // 2, total[1] // 2) if total[0] % 2 == total[1] % 2 == 0 else None
    if module.padding == "valid":
        return (0, 0)
    return module.padding[0], module.padding[1]  # type: ignore[return-value]


def reaches(module: nn.Conv2d, sizes: Sequence[int]) -> bool:
    """Tell whether a convolution's kernel fits into padded images of so many rows and columns."""
    padding = zero_padding(module)
    return padding is not None and all(
        size + 2 * p > d * (k - 1)
        for size, p, d, k in zip(sizes, padding, module.dilation, module.kernel_size, strict=True)
    )


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def window(module: nn.MaxPool2d | nn.AvgPool2d) -> tuple[int, int]:
    """Return rows and columns of a pooling layer's window."""
    return _pair(module.kernel_size)


def _is_tiling(module: nn.Module | None) -> bool:
    """Tell whether a module pools windows that tile the image."""
    if not isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) or type(module) not in (nn.MaxPool2d, nn.AvgPool2d):
        return False
    plain = _pair(module.stride) == window(module) and _pair(module.padding) == (0, 0)
    if isinstance(module, nn.MaxPool2d):
        return plain and _pair(module.dilation) == (1, 1) and not module.return_indices
    return plain and module.divisor_override is None
