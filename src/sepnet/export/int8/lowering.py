"""From a captured graph of ATen operators to the few layers that the int8 quantization knows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sepnet.anatomy.graph import Graph, Value, read_graph
from sepnet.errors import SepnetError
from sepnet.export.int8.layers import (
    Activation,
    Add,
    Concat,
    Convolution,
    Flatten,
    Layer,
    Mean,
    Network,
    Pad,
    Pair,
    Shape,
    Window,
)

IDENTITY = {
    *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "identity"),
    *("contiguous", "clone", "alias", "detach", "lift_fresh_copy"),
}
POINTWISE = {
    *("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "mish", "elu", "celu", "selu"),
    *("leaky_relu", "sigmoid", "tanh", "softplus", "log_sigmoid", "hardshrink", "softshrink", "threshold"),
    *("clamp", "clamp_min", "clamp_max", "abs", "neg", "exp", "log", "sqrt", "rsqrt", "square", "pow", "erf"),
    *("add", "sub", "rsub", "mul", "div", "maximum", "minimum"),
}
"""Functions of each number alone, where they are given one tensor: a table of 256 entries computes any of them."""
KEEPS_ORDER = {"softmax", "_softmax", "log_softmax", "_log_softmax"}
"""At a network's end these are left off: the largest score stays the largest."""
NO_ZEROS = ((0, 0), (0, 0))


@dataclass(eq=False)
class Handle:
    """What is known of a tensor: the value ``number``, then ``function`` of each number, then ``zeros`` around it.

    Functions and zeros wait here until a layer needs them, since most are taken in by the layer that follows.
    ``order`` says which of PyTorch's places each place of a flattened image holds.
    """

    number: int
    shape: Shape
    function: Callable[[Tensor], Tensor] | None = None
    name: str = ""
    path: str = ""
    zeros: tuple[Pair, Pair] = NO_ZEROS
    order: Tensor | None = None


def lower(model: nn.Module, image_shape: Sequence[int], name: str = "network") -> Network:
    """Return the layers of a network for images ``(C, H, W)``; the model is left as it was.

    Raises:
        SepnetError: it cannot be captured, or int8 arithmetic is not known for one of its operators.

    """
    graph = read_graph(model, image_shape, name)
    with torch.no_grad():
        return _Lowering(graph, image_shape).network


class _Lowering:
    def __init__(self, graph: Graph, image_shape: Sequence[int]) -> None:
        channels, height, width = image_shape
        self.network = Network((height, width, channels))
        self._name = graph.network
        self._handles = {graph.image: Handle(0, self.network.image)}
        self._layers: dict[int, Layer] = {}
        self._constants = {value: own.detach() for value, own in graph.tensors.items()}
        for operation in graph.operations:
            self._op = operation
            if operation.sees_image:
                self._handles[operation.results[0]] = self._lower()
            else:
                operation.run(self._constants)
        if not isinstance(graph.result, Value) or prod(graph.result.shape) != graph.result.shape[1]:
            raise SepnetError(f"network '{self._name}' cannot be exported: expected scores (N, classes), one each")
        last = self._settle(self._handles[graph.result])
        if last.order is not None or last.number == 0:
            self._refuse("gives an image as its scores")
        _drop_unused(self.network, last.number)

    def _lower(self) -> Handle:
        op = self._op
        known = getattr(self, f"_{op.name}", None)
        if known is not None:
            handle: Handle = known(self._handles[op.images[0]])
            return handle
        if op.name in IDENTITY or (op.name in KEEPS_ORDER and not op.results[0].users):
            return self._handles[op.images[0]]
        if op.name in POINTWISE:
            return self._pointwise()
        self._refuse("has no int8 arithmetic here; use other layers, or another --format")

    def _refuse(self, why: str) -> NoReturn:
        place = f"'{self._op.path}'" if self._op.path else "its own forward"
        raise SepnetError(f"network '{self._name}' cannot be exported to int8: {self._op.name} in {place} {why}")

    def _add_layer(self, kind: type[Layer], sources: Sequence[Handle], shape: Shape, **settings: Any) -> Handle:
        inputs = tuple(source.number for source in sources)
        number = len(self.network.layers) + 1
        layer = kind(inputs=inputs, output=number, shape=shape, path=self._op.path, **settings)
        self.network.layers.append(layer)
        self._layers[number] = layer
        return Handle(number, shape)

    def _settle(self, handle: Handle, *, zeros: bool = True) -> Handle:
        """Return the handle with its function computed, and its zeros put around it unless those may wait."""
        if handle.function is not None:
            function, name = handle.function, handle.name
            inner = Handle(handle.number, handle.shape)
            made = self._add_layer(Activation, [inner], handle.shape, function=function, name=name)
            self.network.layers[-1].path = handle.path
            handle.number, handle.function = made.number, None
        if zeros and handle.zeros != NO_ZEROS:
            height, width = handle.zeros
            plain = replace(handle, zeros=NO_ZEROS)
            made = self._add_layer(Pad, [plain], _padded(handle), height=height, width=width, channels=(0, 0))
            handle.number, handle.shape, handle.zeros = made.number, made.shape, NO_ZEROS
        return handle

    def _constant(self, name: str) -> Tensor | None:
        value = self._op[name]
        if value is None:
            return None
        if value not in self._constants:
            self._refuse(f"computes its {name} from the image")
        return self._constants[value]

    def _shape(self) -> Shape:
        """Return the shape (H, W, C) of the current operator's result."""
        _, channels, *size = self._op.shape
        if len(size) not in (0, 2):
            self._refuse(f"gives a tensor of shape {self._op.shape}; expected images or vectors")
        return (size[0], size[1], channels) if size else (1, 1, channels)

    def _conv2d(self, source: Handle) -> Handle:
        source = self._settle(source, zeros=False)
        op, weight, bias = self._op, self._constant("weight"), self._constant("bias")
        assert weight is not None
        dilation = _pair(op["dilation"])
        padding = _convolution_padding(op["padding"], weight.shape[2:], dilation)
        return self._add_layer(
            Convolution,
            [source],
            self._shape(),
            weight=weight.clone(),
            bias=torch.zeros(len(weight)) if bias is None else bias.clone(),
            stride=_pair(op["stride"]),
            padding=_added(padding, source.zeros),
            dilation=dilation,
            groups=op["groups"],
        )

    def _linear(self, source: Handle) -> Handle:
        if len(self._op.shape) != 2:
            self._refuse("works along the last axis of an image")
        source = self._settle(source)
        weight, bias = self._constant("weight"), self._constant("bias")
        assert weight is not None
        columns = weight if source.order is None else weight[:, source.order]
        return self._add_layer(
            Convolution,
            [source],
            self._shape(),
            weight=columns[:, :, None, None].clone(),
            bias=torch.zeros(len(weight)) if bias is None else bias.clone(),
        )

    def _batch_norm(self, source: Handle) -> Handle:
        if self._op["training"]:
            self._refuse("uses the batch's own mean")
        mean, variance = self._constant("running_mean"), self._constant("running_var")
        assert mean is not None
        assert variance is not None
        weight, bias = self._constant("weight"), self._constant("bias")
        scale = (variance.double() + self._op["eps"]).rsqrt() * (1 if weight is None else weight.double())
        shift = (0 if bias is None else bias.double()) - mean.double() * scale
        return self._affine(source, scale, shift)

    def _affine(self, source: Handle, scale: Tensor, shift: Tensor) -> Handle:
        """Multiply and shift each channel: in the convolution before, or else by a depthwise one of 1×1."""
        layer = self._layers.get(source.number)
        alone = len(self._op.images[0].users) == 1
        folds = source.function is None and source.zeros == NO_ZEROS and source.order is None and alone
        if folds and isinstance(layer, Convolution):
            layer.weight = (layer.weight.double() * scale[:, None, None, None]).float()
            layer.bias = (layer.bias.double() * scale + shift).float()
            return Handle(source.number, source.shape)
        source = self._settle(source)
        if source.order is not None:
            scale, shift = scale[source.order], shift[source.order]
        weight, groups = scale.float()[:, None, None, None], len(scale)
        made = self._add_layer(Convolution, [source], source.shape, weight=weight, bias=shift.float(), groups=groups)
        made.order = source.order
        return made

    def _pointwise(self) -> Handle:
        op = self._op
        handles = [self._handles[value] for value in op.images]
        handles = [handle if handle.zeros == NO_ZEROS else self._settle(handle) for handle in handles]
        vectors = [value for value in op.inputs if value in self._constants and self._constants[value].numel() > 1]
        if vectors:
            return self._by_channel(handles, vectors)
        first = handles[0]
        if all(handle.number == first.number for handle in handles):
            functions = {value: self._handles[value].function for value in op.images}
            constants = {value: self._constants[value] for value in op.inputs if value in self._constants}

            def function(x: Tensor) -> Tensor:
                known = {**constants, **{value: inner(x) if inner else x for value, inner in functions.items()}}
                result: Tensor = op.target(**pytree.tree_map_only(Value, known.__getitem__, op.arguments))
                return result

            name = op.name if not first.name else f"{first.name}+{op.name}"
            return replace(first, function=function, name=name, path=op.path)
        if op.name != "add" or op["alpha"] not in (None, 1) or len(handles) != 2:
            self._refuse("of two images has no int8 arithmetic here; use other layers, or another --format")
        left, right = (self._settle(handle) for handle in handles)
        if left.shape != right.shape or not _same_order(left, right):
            self._refuse("broadcasts one image over another")
        made = self._add_layer(Add, [left, right], left.shape)
        made.order = left.order
        return made

    def _by_channel(self, handles: list[Handle], vectors: list[Value]) -> Handle:
        """Add, subtract, multiply or divide by one number for each channel."""
        op, channels = self._op, self._op.shape[1]
        constant = self._constants[vectors[0]].double()
        each = constant.ndim == 1 if len(op.shape) == 2 else constant.shape[-3:] == (channels, 1, 1)
        first_is_image = op["self"] in self._handles
        if len(handles) != 1 or constant.numel() != channels or not (each or op.name == "prelu"):
            self._refuse("has a tensor that is not one number for each channel")
        if op.name not in ("add", "sub", "mul", "div") or op["alpha"] not in (None, 1) or not first_is_image:
            self._refuse("with one number for each channel has no int8 arithmetic here")
        constant = constant.flatten()
        one, zero = torch.ones_like(constant), torch.zeros_like(constant)
        scale = {"mul": constant, "div": 1 / constant}.get(op.name, one)
        shift = {"add": constant, "sub": -constant}.get(op.name, zero)
        return self._affine(handles[0], scale, shift)

    def _pad(self, source: Handle) -> Handle:
        if self._op["mode"] not in (None, "constant"):
            self._refuse(f"is of mode '{self._op['mode']}'; only zeros are known")
        if self._op["value"]:
            self._refuse(f"adds {self._op['value']}; only zeros are known")
        amounts = [*self._op["pad"], *[0] * 6]
        width, height, channels = ((amounts[place], amounts[place + 1]) for place in (0, 2, 4))
        if min(*width, *height, *channels) < 0 or any(amounts[6:]) or len(self._op.shape) != 4:
            self._refuse("crops, or pads more than the height, width and channels of images")
        if channels == (0, 0):
            source = self._settle(source, zeros=False)
            return replace(source, zeros=_added(source.zeros, (height, width)))
        source = self._settle(source)
        return self._add_layer(Pad, [source], self._shape(), height=height, width=width, channels=channels)

    _constant_pad_nd = _pad

    def _max_pool2d(self, source: Handle) -> Handle:
        if _pair(self._op["dilation"]) != (1, 1):
            self._refuse("is dilated")
        return self._window(self._settle(source), _pair(self._op["padding"]), averages=False)

    def _avg_pool2d(self, source: Handle) -> Handle:
        if self._op["divisor_override"]:
            self._refuse("has a divisor of its own")
        padding = _pair(self._op["padding"])
        if self._op["count_include_pad"] and padding != (0, 0):
            zeros = ((padding[0], padding[0]), (padding[1], padding[1]))
            source, padding = replace(source, zeros=_added(source.zeros, zeros)), (0, 0)
        return self._window(self._settle(source), padding, averages=True)

    def _window(self, source: Handle, before: Pair, *, averages: bool) -> Handle:
        op, shape = self._op, self._shape()
        kernel, stride = _pair(op["kernel_size"]), _pair(op["stride"] or op["kernel_size"])
        sizes = zip(shape[:2], source.shape[:2], kernel, stride, before, strict=True)
        after = [max((out - 1) * step + extent - size - first, 0) for out, size, extent, step, first in sizes]
        padding = ((before[0], after[0]), (before[1], after[1]))
        return self._add_layer(
            Window, [source], shape, kernel=kernel, stride=stride, padding=padding, averages=averages
        )

    def _mean(self, source: Handle) -> Handle:
        if sorted(dim % 4 for dim in self._op["dim"] or ()) != [2, 3] or len(self._op.images[0].shape) != 4:
            self._refuse("is over other axes than height and width")
        source = self._settle(source)
        return self._add_layer(Mean, [source], (1, 1, source.shape[2]))

    def _adaptive_avg_pool2d(self, source: Handle) -> Handle:
        source = self._settle(source)
        shape = self._shape()
        if shape[:2] == (1, 1):
            return self._add_layer(Mean, [source], shape)
        if source.shape[0] % shape[0] or source.shape[1] % shape[1]:
            self._refuse(f"divides {source.shape[0]}×{source.shape[1]} pixels into windows of unequal sizes")
        kernel = (source.shape[0] // shape[0], source.shape[1] // shape[1])
        return self._add_layer(Window, [source], shape, kernel=kernel, stride=kernel, padding=NO_ZEROS, averages=True)

    def _cat(self, _: Handle) -> Handle:
        if self._op["dim"] % len(self._op.shape) != 1 or len(self._op.images) != len(self._op["tensors"]):
            self._refuse("is not of images along their channels")
        sources = [self._settle(self._handles[value]) for value in self._op.images]
        if any(source.order is not None for source in sources):
            self._refuse("is of flattened images; concatenate them before flattening")
        return self._add_layer(Concat, sources, self._shape())

    def _flatten(self, source: Handle) -> Handle:
        if self._op.shape[1:] == self._op.images[0].shape[1:]:
            return source
        if len(self._op.shape) != 2:
            self._refuse("reshapes images to something else than vectors")
        source = self._settle(source)
        height, width, channels = source.shape
        made = self._add_layer(Flatten, [source], (1, 1, height * width * channels))
        places = torch.arange(height * width * channels).view(channels, height, width)
        made.order = places.permute(1, 2, 0).flatten() if height * width > 1 else None
        return made

    _view = _reshape = _squeeze = _flatten


def _drop_unused(network: Network, last: int) -> None:
    """Leave off layers that do not lead to the scores, and end with the layer that gives these."""
    needed = {last}
    for layer in reversed(network.layers):
        if layer.output in needed:
            needed.update(layer.inputs)
    network.layers = [layer for layer in network.layers if layer.output in needed]


def _padded(handle: Handle) -> Shape:
    height, width, channels = handle.shape
    return height + sum(handle.zeros[0]), width + sum(handle.zeros[1]), channels


def _same_order(left: Handle, right: Handle) -> bool:
    if left.order is None or right.order is None:
        return left.order is right.order
    return torch.equal(left.order, right.order)


def _pair(value: Any) -> Pair:
    if isinstance(value, int):
        return value, value
    first, *rest = value
    return first, rest[0] if rest else first


def _added(one: tuple[Pair, Pair], other: tuple[Pair, Pair]) -> tuple[Pair, Pair]:
    (top, bottom), (left, right) = one
    return (top + other[0][0], bottom + other[0][1]), (left + other[1][0], right + other[1][1])


def _convolution_padding(padding: Any, kernel: Sequence[int], dilation: Pair) -> tuple[Pair, Pair]:
    if padding == "valid":
        return NO_ZEROS
    if padding == "same":
        first, second = (step * (extent - 1) for extent, step in zip(kernel, dilation, strict=True))
        return (first // 2, first - first // 2), (second // 2, second - second // 2)
    height, width = _pair(padding)
    return (height, height), (width, width)
