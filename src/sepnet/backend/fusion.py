"""The pass that replaces layers in Dynamo's graph by ``torch.ops.sepnet`` operators.

A value is carried as ``activation(x · scale + shift + residual)``, which the next stage forms as it reads it: so a
batch norm, a sum and an activation cost no pass of their own over memory.
"""

import inspect
import operator
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from sepnet.backend import norm, pool, stage
from sepnet.backend.layer import (
    Layer,
    carry,
    count_positions,
    is_contiguous,
    meta,
    name,
    number,
    pair,
    repeat_channels,
    same_images,
    scale_inputs,
)
from sepnet.backend.mutation import changed, find_pinned
from sepnet.backend.native import Native

functional = nn.functional


@dataclass
class Value:
    """What a node of Dynamo's graph has become."""

    x: fx.Node
    coefficients: fx.Node | None = None
    residual: fx.Node | None = None
    activation: int = 0
    sums: fx.Node | None = None
    """Of ``x``, where nothing is left to be done to it."""
    formed: fx.Node | None = None

    @property
    def plain(self) -> bool:
        """Whether the value is ``x`` itself."""
        return self.coefficients is None and self.residual is None and not self.activation

    @property
    def inputs(self) -> tuple[fx.Node, fx.Node | None, fx.Node | None]:
        """What an operator begins with."""
        return self.x, self.coefficients, self.residual


class Fusion:
    """One graph's pass."""

    def __init__(self, module: fx.GraphModule, compiled: Native) -> None:
        self.module, self.compiled = module, compiled
        self.old, self.graph = module.graph, fx.Graph(module)
        self.pinned = find_pinned(self.old, FRESH)
        self.values: dict[fx.Node, Value] = {}
        """Of nodes that sepnet's operators compute."""
        self.taken: set[fx.Node] = set()
        """Nodes that are part of a later one's stage."""
        self.replaced = 0
        self.left: Counter[str] = Counter()
        """Layers that are PyTorch's to compute, by kind and reason."""
        self.order = {node: index for index, node in enumerate(self.old.nodes)}
        self.copies: dict[fx.Node, fx.Node] = {}
        self.trains = torch.is_grad_enabled() and any(
            isinstance(value := meta(node), Tensor) and value.requires_grad
            for node in self.old.nodes
            if node.op == "placeholder"
        )

    def run(self) -> bool:
        """Rewrite the module's graph; return whether any operator of it is sepnet's."""
        for node in self.old.nodes:
            if node in self.taken:
                continue
            value = self._replace(node)
            if value is None:
                self.copies[node] = self._copy(node)
            else:
                self.replaced += 1
                self.values[node] = value
        if self.replaced:
            self.graph.lint()
            self.module.graph = self.graph
        return bool(self.replaced)

    def _replace(self, node: fx.Node) -> Value | None:
        """Return a node's value if sepnet's operators compute it."""
        handler = HANDLERS.get((node.op, node.target))
        if handler is None or not self.pinned.isdisjoint((node, *node.all_input_nodes)):
            return None
        try:
            inspect.signature(handler).bind(self, node, *node.args, **node.kwargs)
        except TypeError:
            value: Value | str | None = f"{name(node)}: arguments"
        else:
            value = handler(self, node, *node.args, **node.kwargs)
        if isinstance(value, str):
            self.left[value] += 1
            return None
        return value

    def _copy(self, node: fx.Node) -> fx.Node:
        """Copy a node that is PyTorch's to compute."""
        contiguous = node.op == "output" or node.target in ("view", "as_strided") or node in self.pinned
        lost = [argument for argument in changed(node) if argument in self.values]

        def take(argument: fx.Node) -> fx.Node:
            made = self.tensor(argument, contiguous=contiguous)
            return self.graph.call_method("clone", (made,)) if argument in lost else made  # backward wants it as it is

        copied = self.graph.node_copy(node, take)
        if hasattr(node, "_dynamo_source"):  # where a placeholder comes from, which AOTAutograd asks
            copied._dynamo_source = node._dynamo_source
        return copied

    def tensor(self, node: fx.Node, *, contiguous: bool = False) -> fx.Node:
        """Return the node that holds a value as a tensor.

        If ``contiguous``, in the memory format that PyTorch would have given it where that is the default one.
        """
        value = self.values.get(node)
        made = self.copies[node] if value is None else self.formed(value)
        fake = meta(node)
        if contiguous and isinstance(fake, Tensor) and fake.ndim == 4 and self.replaced and is_contiguous(fake):
            return self.graph.call_method("contiguous", (made,))
        return made

    def formed(self, value: Value) -> fx.Node:
        """Return a value as a tensor, formed once."""
        if value.plain:
            return value.x
        if value.formed is None:
            value.formed = self._pooled(value, (1, 1))
        return value.formed

    def image(self, node: Any) -> Value | None:
        """Return images that the kernels can take."""
        if not isinstance(node, fx.Node):
            return None
        fake = meta(node)
        if not isinstance(fake, Tensor) or fake.ndim != 4 or fake.device.type != "cpu":
            return None
        if not self.compiled.computes(fake.dtype) or type(fake.shape[1]) is not int:
            return None
        value = self.values.get(node)
        if value is None:
            return Value(self.copies[node])
        return value if value.formed is None else Value(value.formed)

    def emit(self, target: Any, *arguments: Any) -> fx.Node:
        """Append a call."""
        return self.graph.call_function(target, arguments)

    def items(self, node: fx.Node, *indices: int) -> list[fx.Node]:
        """Append the outputs of an operator that has several."""
        return [self.emit(operator.getitem, node, index) for index in indices]

    def _pooled(self, value: Value, window: Sequence[int], average: bool = False, ceil: bool = False) -> fx.Node:
        params = (window, average, ceil, value.activation, 0.0)
        return self.emit(pool.POOL.overload, *value.inputs, None, *params)

    # One handler for each layer: it returns the layer's value, or why PyTorch is to compute it. Its parameters after
    # the node are the layer's own.

    def _convolution(self, node: fx.Node, input: fx.Node, *settings: Any, **named: Any) -> Value | str:
        first = Layer.of(node, *settings, **named)
        if isinstance(first, str):
            return first
        value, dtype = self.image(input), meta(node).dtype
        if value is None or not self.compiled.computes(dtype):
            return f"{name(node)}: {str(meta(node).dtype).removeprefix('torch.')} on {meta(node).device.type}"
        layers, last = [first], node
        if first.depthwise and (following := self._only_user(node)) is not None:
            second = Layer.from_node(following)
            if isinstance(second, Layer) and not second.depthwise:
                layers.append(second)
                last = self._take(following)
        following = self._only_user(last)
        relu = following is not None and self._is_relu(following)
        if following is not None and relu:
            last = self._take(following)
        if first.depthwise and first.channels_out > first.channels:
            times = first.channels_out // first.channels
            value = Value(self.emit(repeat_channels, self.formed(value), times))
        if meta(input).dtype != dtype:
            value = Value(self.graph.call_method("to", (self.formed(value), dtype)))
        depthwise, pointwise, bias = self._weights(layers)
        if depthwise is None and value.coefficients is not None and value.residual is None and not value.activation:
            scale, shift = self.items(value.coefficients, 0, 1)
            bias = self.emit(carry, pointwise, shift, bias)
            pointwise, value = self.emit(scale_inputs, pointwise, scale), Value(value.x)
        source = self.values.get(input)
        again = source is not None and not value.plain and self._is_wanted_after(input, last)
        sums = any(self._takes_sums(user, last) for user in last.users)
        geometry = (first.stride, first.padding, first.dilation) if depthwise is not None else ((1, 1), (0, 0), (1, 1))
        made = self.emit(
            stage.STAGE.overload,
            *(*value.inputs, depthwise, pointwise, bias, *geometry, value.activation, relu, sums, again, self.trains),
        )
        y, of_sums, _, given = self.items(made, 0, 1, 2, 3)
        if again and source is not None:
            source.formed = given
        self.values[last] = Value(y, sums=of_sums if sums else None)
        return self.values[last]

    def _weights(self, layers: Sequence[Layer]) -> tuple[fx.Node | None, fx.Node | None, fx.Node | None]:
        """Return depthwise weights, pointwise weights and bias of a stage.

        A depthwise layer's weights that are one factor per channel become part of the pointwise ones that follow, and
        its bias part of theirs, both exactly.
        """

        def copy(node: fx.Node | None) -> fx.Node | None:
            return None if node is None else self.tensor(node)

        first, last = layers[0], layers[-1]
        weight, bias = copy(first.weight), copy(first.bias)
        if len(layers) == 1:
            return (weight, None, bias) if first.depthwise else (None, weight, bias)
        pointwise, own = copy(last.weight), copy(last.bias)
        bias = own if bias is None else self.emit(carry, pointwise, bias, own)
        if first.kernel == (1, 1) and first.stride == (1, 1):
            return None, self.emit(scale_inputs, pointwise, weight), bias
        return weight, pointwise, bias

    def _norm(
        self,
        node: fx.Node,
        input: fx.Node,
        running_mean: fx.Node | None,
        running_var: fx.Node | None,
        weight: fx.Node | None = None,
        bias: fx.Node | None = None,
        training: bool = False,
        momentum: Any = 0.1,
        eps: Any = 1e-5,
    ) -> Value | str | None:
        value, what = self.image(input), name(node)
        if value is None:
            return None if meta(input).ndim != 4 else f"{what}: {meta(input).dtype}"
        sources = (running_mean, running_var, weight, bias)
        if any(source is not None and meta(source).dtype != torch.float32 for source in sources):
            return f"{what}: statistics or weights that are not float32"
        if (running_mean is None) != (running_var is None) or momentum is None:
            return f"{what}: settings"
        momentum, eps = number(momentum), number(eps)
        mean, var, *vectors = (None if source is None else self.tensor(source) for source in sources)
        if not value.plain:
            value = Value(self.formed(value))
        if not training:
            return Value(value.x, self.emit(norm.fold, mean, var, *vectors, eps))
        if value.sums is None:
            return f"{what}: not behind a depthwise or pointwise convolution"
        count = self.emit(count_positions, value.x)
        made = self.emit(norm.NORM.overload, value.sums, *vectors, mean, var, count, eps, momentum)
        coefficients, _, *moved = self.items(made, 0, 1, 2, 3)
        for kept, new in zip((mean, var), moved, strict=True):
            if kept is not None:
                self.graph.call_method("copy_", (kept, new))
        return Value(value.x, coefficients)

    def _takes_sums(self, user: fx.Node, source: fx.Node) -> bool:
        if HANDLERS.get((user.op, user.target)) is not Fusion._norm or user.args[:1] != (source,):
            return False
        return bool(user.args[5] if len(user.args) > 5 else user.kwargs.get("training", False))

    def _activation(self, node: fx.Node, input: fx.Node, inplace: bool = False) -> Value | None:  # noqa: ARG002
        value = self.image(input)
        if value is None:
            return None
        if value.activation:
            value = Value(self.formed(value))
        return replace(value, activation=ACTIVATIONS[node.target], sums=None, formed=None)

    def _add(self, _: fx.Node, input: Any, other: Any) -> Value | None:
        first, second = self.image(input), self.image(other)
        if first is None or second is None or not same_images(meta(input), meta(other)):
            return None
        if first.residual is not None or first.activation:
            first, second = second, first
        if first.residual is not None or first.activation:
            first = Value(self.formed(first))
        return Value(first.x, first.coefficients, self.formed(second))

    def _pool(self, node: fx.Node, input: fx.Node, *settings: Any, **named: Any) -> Value | str | None:
        value = self.image(input)
        if value is None:
            return None
        average = node.target is torch._C._nn.avg_pool2d
        given = {**dict(zip(AVERAGE_POOL if average else MAX_POOL, settings, strict=False)), **named}
        window, stride, ceil = pair(given["kernel_size"]), given.get("stride"), given.get("ceil_mode", False)
        if given.get("return_indices") or given.get("divisor_override") or pair(given.get("dilation", 1)) != (1, 1):
            return f"{name(node)}: indices, dilation or a divisor"
        if (stride not in (None, []) and pair(stride) != window) or pair(given.get("padding", 0)) != (0, 0):
            return f"{name(node)}: windows that overlap or are padded"
        following = self._only_user(node)
        dropout = None if following is None else dropout_rate(following)
        if following is not None and dropout is not None:
            last = self._take(following)
            self.values[last] = self._dropped(value, window, average, ceil, dropout)
            return self.values[last]
        return Value(self._pooled(value, window, average, ceil))

    def _dropout(self, node: fx.Node, input: fx.Node, *_: Any, **__: Any) -> Value | None:
        value, rate = self.image(input), dropout_rate(node)
        if value is None or rate is None:
            return None
        return self._dropped(value, (1, 1), False, False, rate) if rate else value

    def _dropped(self, value: Value, window: Sequence[int], average: bool, ceil: bool, rate: Any) -> Value:
        seed = self.graph.call_function(torch.randint, (2**63 - 1, ())) if rate else None
        params = (window, average, ceil, value.activation, rate)
        return Value(self.emit(pool.POOL.overload, *value.inputs, seed, *params))

    def _only_user(self, node: fx.Node) -> fx.Node | None:
        """Return the one node that uses a node's value, as its first argument; None if there are others."""
        users = list(node.users)
        fit = (
            len(users) == 1 and users[0].args[:1] == (node,) and node not in self.pinned and users[0] not in self.pinned
        )
        return users[0] if fit else None

    def _take(self, following: fx.Node) -> fx.Node:
        """Make a node part of the stage of the one before it; return it."""
        self.taken.add(following)
        self.replaced += 1
        return following

    def _is_relu(self, node: fx.Node) -> bool:
        known = HANDLERS.get((node.op, node.target)) is Fusion._activation
        return known and ACTIVATIONS[node.target] == stage.RELU

    def _is_wanted_after(self, node: fx.Node, last: fx.Node) -> bool:
        return any(self.order[user] > self.order[last] for user in node.users)


def dropout_rate(node: fx.Node) -> Any:
    """Return the rate at which a node drops values, 0 in evaluation; None if it is no dropout.

    A node where Dynamo made the rate a variable, since it had changed: then one graph serves all rates.
    """
    if HANDLERS.get((node.op, node.target)) is not Fusion._dropout:
        return None

    def read(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: ARG001
        return p if training else 0.0

    arguments: Any = node.args
    options: Any = node.kwargs
    return read(*arguments, **options)


MAX_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
AVERAGE_POOL = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
"""What follows the input."""

ACTIVATIONS: dict[Any, int] = {
    **dict.fromkeys((functional.relu, functional.relu_, torch.relu, torch.relu_, "relu", "relu_"), stage.RELU),
    **dict.fromkeys((functional.silu,), 2),
    **dict.fromkeys((functional.hardswish,), 3),
}
"""By their index in ``stage.ACTIVATIONS``."""

_FUNCTIONS: dict[Callable[..., Any], tuple[Any, ...]] = {
    Fusion._convolution: (torch.conv2d,),
    Fusion._norm: (functional.batch_norm,),
    Fusion._add: (operator.add, operator.iadd, torch.add, "add", "add_"),
    Fusion._pool: (functional.max_pool2d, torch.max_pool2d, torch._C._nn.avg_pool2d),
    Fusion._dropout: (functional.dropout,),
    Fusion._activation: tuple(ACTIVATIONS),
}
HANDLERS: dict[tuple[str, Any], Any] = {
    ("call_method" if isinstance(target, str) else "call_function", target): handler
    for handler, targets in _FUNCTIONS.items()
    for target in targets
}
FRESH = frozenset(key for key, handler in HANDLERS.items() if handler is not Fusion._dropout)
"""Calls whose result shares no memory with their arguments, but where they work in place."""
