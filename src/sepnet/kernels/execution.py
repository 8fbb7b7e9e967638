"""One pass through the steps of a plan."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from sepnet.kernels import plan as plans
from sepnet.kernels.library import observed
from sepnet.kernels.native import native
from sepnet.kernels.norm import Moving, by_moments, norm
from sepnet.kernels.plan import Plan
from sepnet.kernels.pooling import PoolForm, pool
from sepnet.kernels.recording import recorder
from sepnet.kernels.stage import ACTIVATIONS, Form, Given, stage
from sepnet.kernels.tape import by_pytorch, chain


def precision() -> torch.dtype | None:
    """Return the type that convolutions compute in now; None if there are no kernels for it."""
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
    compiled = native()
    return dtype if compiled is not None and compiled.computes(dtype) else None


@dataclass
class Value:
    """A step's value, ``activation(x · scale + shift + residual)``, which the next step forms as it reads it."""

    x: Tensor
    coefficients: Tensor | None = None
    residual: Tensor | None = None
    activation: int = 0
    sums: Tensor | None = None
    """Of ``x``, where nothing is left to be done to it."""
    formed: Tensor | None = None

    @property
    def plain(self) -> bool:
        """Whether the value is ``x`` itself."""
        return self.coefficients is None and self.residual is None and not self.activation

    def tensor(self) -> Tensor:
        """Return the value as a tensor, formed once."""
        if self.plain:
            return self.x
        if self.formed is None:
            self.formed = pool(self.given(), PoolForm(activation=self.activation))
        return self.formed

    def ready(self) -> "Value":
        """Return the value, without what has already been done to form it."""
        return self if self.formed is None else Value(self.formed)

    def given(self) -> Given:
        """Return what a step begins with."""
        return Given(self.x, self.coefficients, self.residual)


class Execution:
    """One pass through the steps."""

    def __init__(self, plan: Plan, images: Tensor) -> None:
        self.plan = plan
        self.images = images
        self.values: dict[fx.Node, Any] = {}
        self.casts = torch.is_autocast_enabled("cpu")
        self.dtype = precision()
        self.contiguous = images.is_contiguous()

    def run(self) -> Any:
        """Return the network's output."""
        chained = torch.is_grad_enabled() and not observed(self.images)
        index = 0
        while index < len(self.plan.steps):
            together = self.plan.chains.get(index) if chained else None
            if together is None:
                self._step(index)
                index += 1
            else:
                self._chain(together)
                index = together.last + 1
        return self.values[self.plan.steps[-1].node]

    def _chain(self, together: plans.Chain) -> None:
        """Run several steps as one node of PyTorch's graph."""
        arriving = [tensor for node in together.arriving if isinstance(tensor := self._tensor(node), Tensor)]

        def run() -> list[Tensor]:
            for index in range(together.first, together.last + 1):
                self._step(index)
            return [self._tensor(node) for node in together.leaving]

        weights = [parameter for module in together.modules for parameter in module.parameters(recurse=False)]
        sources = {id(tensor): tensor for tensor in (*arriving, *weights)}  # one may come under two names
        for node, tensor in zip(together.leaving, chain(run, [*sources.values()]), strict=True):
            self.values[node] = Value(tensor) if isinstance(self.values[node], Value) else tensor

    def _step(self, index: int) -> None:
        step = self.plan.steps[index]
        match step:
            case plans.Convolution():
                value = self._convolution(step, index)
            case plans.Norm():
                value = self._norm(step)
            case plans.Same(source=source):
                value = self.values[source]
            case plans.Activation():
                value = self._activation(step)
            case plans.Add():
                value = self._add(step)
            case plans.Pooling():
                value = self._pooling(step)
            case plans.Other(node=node) if node.op == "placeholder":
                value = self.images
            case plans.Other(node=node) if node.op == "output":
                value = _as_returned(fx.map_arg(node.args[0], self._laid_out))
            case plans.Other(node=node):
                value = self._other(node)
        self.values[step.node] = value
        for node in self.plan.last_uses.get(index, ()):
            self.values.pop(node, None)

    def _tensor(self, node: fx.Node) -> Any:
        value = self.values[node]
        return value.tensor() if isinstance(value, Value) else value

    def _laid_out(self, node: fx.Node) -> Any:
        """Return a value as the network's code would have it: its numbers in the order of the images'."""
        value = self._tensor(node)
        if not self.contiguous or not isinstance(value, Tensor) or value.ndim != 4:
            return value
        return value.contiguous() if value.is_contiguous(memory_format=torch.channels_last) else value

    def _own(self, node: fx.Node) -> Any:
        """Return a value that may be changed: a stage remembers its output."""
        value = self.values[node]
        return value.x.clone() if isinstance(value, Value) and value.plain else self._tensor(node)

    def _value(self, node: fx.Node) -> Value | None:
        """Return images that the kernels can take."""
        value = self.values[node]
        if isinstance(value, Value):
            return value.ready()
        if not isinstance(value, Tensor) or value.ndim != 4 or not value.numel() or value.device.type != "cpu":
            return None
        return Value(value) if value.dtype in (torch.float32, self.dtype) else None

    def _other(self, node: fx.Node) -> Any:
        take = self._own if node in self.plan.followed.changing else self._tensor
        if node.op == "call_method" and node.target == "view":  # which fails on another order
            take = self._laid_out
        args, kwargs = fx.map_arg((node.args, node.kwargs), take)
        match node.op:
            case "call_module":
                return self.plan.modules[str(node.target)](*args, **kwargs)
            case "call_function":
                return node.target(*args, **kwargs)  # type: ignore[operator]
            case "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        owner, _, name = str(node.target).rpartition(".")
        return getattr(self.plan.modules[owner], name)

    def _convolution(self, step: plans.Convolution, index: int) -> Value | Tensor:
        value = self._convolved(step)
        if value is None:
            return self._by_layers(step.depthwise, step.pointwise, step.relu, self._tensor(step.source))
        needed_again = step.source not in self.plan.last_uses.get(index, ())
        if step.depthwise is not None and step.depthwise.out_channels > step.depthwise.in_channels:
            multiplier = step.depthwise.out_channels // step.depthwise.in_channels
            value = Value(by_pytorch(lambda tensor: _repeat_channels(tensor, multiplier), value.tensor()))
        depthwise, pointwise, bias = _weights(step.depthwise, step.pointwise)
        form = Form(activation=value.activation, relu_out=step.relu)
        if step.depthwise is not None and depthwise is not None:
            padding = plans.zero_padding(step.depthwise)
            assert padding is not None
            form = form._replace(stride=step.depthwise.stride, padding=padding, dilation=step.depthwise.dilation)
        if depthwise is None and pointwise is not None and value.coefficients is not None:
            value, pointwise, bias = _fold_norm(value, pointwise, bias)
        y, sums, given = stage(
            Given(*value.given()[:3], depthwise, pointwise, bias),
            form,
            with_sums=any(self._takes_sums(user) for user in step.node.users),
            with_given=needed_again and not value.plain,
        )
        source = self.values[step.source]
        if given.numel() and isinstance(source, Value):
            source.formed = given
        return Value(y, sums=sums if sums.numel() else None)

    def _convolved(self, step: plans.Convolution) -> Value | None:
        """Return what a convolution begins with, in the precision that it computes in; None if it is PyTorch's."""
        value = self._value(step.source)
        if value is None or (value.x.dtype != self.dtype and not self.casts):
            return None
        channels = value.x.shape[1]
        for layer in (step.depthwise, step.pointwise):
            if layer is not None and layer.in_channels != channels:
                return None
            channels = channels if layer is None else layer.out_channels
        if step.depthwise is not None and not plans.reaches(step.depthwise, value.x.shape[2:]):
            return None
        if value.x.dtype == self.dtype:
            return value
        return Value(by_pytorch(lambda tensor: tensor.to(self.dtype), value.tensor()))

    def _by_layers(
        self, depthwise: nn.Conv2d | None, pointwise: nn.Conv2d | None, relu: bool, tensor: Tensor
    ) -> Tensor:
        for layer in (depthwise, pointwise):
            tensor = tensor if layer is None else by_pytorch(layer, tensor, weights=layer.parameters())
        return by_pytorch(torch.relu, tensor) if relu else tensor

    def _takes_sums(self, node: fx.Node) -> bool:
        module = self.plan.modules.get(str(node.target)) if node.op == "call_module" else None
        return type(module) is nn.BatchNorm2d and (module.training or module.running_mean is None)

    def _norm(self, step: plans.Norm) -> Value | Tensor:
        value, module = self.values[step.source], step.module
        known = (module.running_mean is None) != module.track_running_stats
        if not isinstance(value, Value) or not value.plain or value.x.shape[1] != module.num_features or not known:
            return by_pytorch(module, self._tensor(step.source), weights=module.parameters())
        if not module.training and module.running_mean is not None and module.running_var is not None:
            statistics = (module.running_mean, module.running_var, module.eps)
            return Value(value.x, by_pytorch(partial(by_moments, *statistics), module.weight, module.bias))
        count = value.x.numel() // value.x.shape[1]
        if value.sums is None or count == 1:  # of which PyTorch raises
            return by_pytorch(module, value.x, weights=module.parameters())
        moving = _moving(module) if module.training else None
        coefficients = norm(value.sums, module.weight, module.bias, count, module.eps, moving)
        return Value(value.x, coefficients)

    def _activation(self, step: plans.Activation) -> Value | Tensor:
        value = self._value(step.source)
        if value is None:
            return by_pytorch(ACTIVATIONS[step.kind], self._tensor(step.source))
        if value.activation:
            value = Value(value.tensor())
        return replace(value, activation=step.kind, sums=None, formed=None)

    def _add(self, step: plans.Add) -> Value | Tensor:
        first, second = (self._value(source) for source in step.sources)
        if first is None or second is None or first.x.shape != second.x.shape or first.x.dtype != second.x.dtype:
            return by_pytorch(_sum_as(step.node), *map(self._tensor, step.sources))
        if first.residual is not None or first.activation:
            first, second = second, first
        if first.residual is not None or first.activation:
            first = Value(first.tensor())
        return Value(first.x, first.coefficients, second.tensor())

    def _pooling(self, step: plans.Pooling) -> Value | Tensor:
        dropout = step.dropout.p if step.dropout is not None and step.dropout.training else 0.0
        window = (1, 1) if step.pool is None else plans.window(step.pool)
        value = self._value(step.source)
        if value is None and step.pool is None:
            return self._flat_dropout(self._tensor(step.source), dropout)
        if value is None or any(size < extent for size, extent in zip(value.x.shape[2:], window, strict=True)):
            return self._pool_by_layers(step)
        if (
            step.pool is not None
            and step.pool.ceil_mode
            and any(s % w for s, w in zip(value.x.shape[2:], window, strict=True))
        ):
            return self._pool_by_layers(step)
        form = PoolForm(
            window=window,
            average=isinstance(step.pool, nn.AvgPool2d),
            activation=value.activation,
            dropout=dropout,
            seed=_draw_seed() if dropout else 0,
        )
        if window == (1, 1) and not dropout:
            return value
        return Value(pool(value.given(), form))

    def _flat_dropout(self, tensor: Tensor, dropout: float) -> Tensor:
        if not dropout:
            return tensor
        if tensor.dtype not in (torch.float32, torch.bfloat16) or not tensor.ndim or not tensor.numel():
            return by_pytorch(partial(nn.functional.dropout, p=dropout), tensor)
        flat = by_pytorch(lambda whole: whole.reshape(-1, whole.shape[-1], 1, 1), tensor)
        dropped = pool(Given(flat), PoolForm(dropout=dropout, seed=_draw_seed()))
        return by_pytorch(lambda part: part.view(tensor.shape), dropped)

    def _pool_by_layers(self, step: plans.Pooling) -> Tensor:
        tensor: Tensor = self._tensor(step.source)
        for layer in (step.pool, step.dropout):
            tensor = tensor if layer is None else by_pytorch(layer, tensor)
        return tensor


def _as_returned(result: Any) -> Any:
    """Return an output in the network's own kinds of containers, for which the graph has its own."""
    match result:
        case list():
            return [_as_returned(part) for part in result]
        case dict():
            return {name: _as_returned(part) for name, part in result.items()}
        case tuple() if type(result) is tuple:
            return tuple(map(_as_returned, result))
    return result


def _draw_seed() -> int:
    """Return a seed from PyTorch's global generator."""

    def draw() -> int:
        return int(torch.randint(2**63 - 1, ()))

    noted_by = recorder()
    return draw() if noted_by is None else noted_by.draw(draw)


def _weights(
    depthwise: nn.Conv2d | None, pointwise: nn.Conv2d | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return depthwise weights, pointwise weights and bias of a stage; a 1×1 depthwise layer becomes part of the next.

    Its weights are one factor per channel: the pointwise weights that follow take it in exactly. So does the
    pointwise layer's bias with a depthwise one before it.
    """
    if pointwise is None:
        assert depthwise is not None
        return depthwise.weight, None, depthwise.bias
    if depthwise is None:
        return None, pointwise.weight, pointwise.bias
    weight, bias = pointwise.weight, pointwise.bias
    if depthwise.bias is not None:
        bias = by_pytorch(_carry, weight, depthwise.bias, bias)
    if depthwise.kernel_size == (1, 1) and depthwise.stride == (1, 1):
        return None, by_pytorch(_scale_inputs, weight, depthwise.weight), bias
    return depthwise.weight, weight, bias


def _repeat_channels(images: Tensor, times: int) -> Tensor:
    """Return images with each channel so many times in a row, one for each filter of a depthwise layer."""
    repeated = images.permute(0, 2, 3, 1)[..., None].expand(-1, -1, -1, -1, times)
    return repeated.flatten(3).permute(0, 3, 1, 2)


def _fold_norm(value: Value, pointwise: Tensor, bias: Tensor | None) -> tuple[Value, Tensor, Tensor | None]:
    """Take scale and shift into pointwise weights and bias, exactly, where nothing stands between."""
    if value.coefficients is None or value.residual is not None or value.activation:
        return value, pointwise, bias
    bias = by_pytorch(
        lambda weight, coefficients, own: _carry(weight, coefficients[1], own), pointwise, value.coefficients, bias
    )
    weight = by_pytorch(
        lambda weight, coefficients: _scale_inputs(weight, coefficients[0]), pointwise, value.coefficients
    )
    return Value(value.x), weight, bias


def _carry(pointwise: Tensor, shift: Tensor, bias: Tensor | None) -> Tensor:
    """Return the bias that a shift of every input channel and a pointwise layer's own bias come to."""
    carried = (pointwise.flatten(1) * shift).sum(1)  # a matrix product would be rounded to bf16 under autocast
    return carried if bias is None else carried + bias


def _scale_inputs(pointwise: Tensor, scale: Tensor) -> Tensor:
    """Return the pointwise weights that take in a scale of every input channel."""
    return pointwise * scale.view(1, -1, 1, 1)


def _sum_as(node: fx.Node) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the sum that a node stands for."""
    if node.op == "call_method":
        return lambda first, second: getattr(first, str(node.target))(second)
    return node.target  # type: ignore[return-value]


def _moving(module: nn.BatchNorm2d) -> Moving | None:
    """Return the statistics that a batch norm keeps, one batch further."""
    if module.running_mean is None or module.running_var is None or module.num_batches_tracked is None:
        return None
    module.num_batches_tracked.add_(1)
    share = 1 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
    return Moving(module.running_mean, module.running_var, share)
