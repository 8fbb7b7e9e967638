"""``sepnet::stage``: batch norm, residual and activation on the way in, separable convolution, sums on the way out."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from sepnet.backend.library import (
    Address,
    Call,
    gradients,
    kernels_for,
    library,
    new_image,
    new_image_like,
    new_like,
    pointers,
    register,
)
from sepnet.backend.native import Native, Stage

ACTIVATIONS: Sequence[Callable[[Tensor], Tensor]] = (
    lambda value: value,
    torch.relu,
    nn.functional.silu,
    nn.functional.hardswish,
)
"""What a stage begins with, by the kernels' numbers."""
RELU = 1


class Inputs(NamedTuple):
    """What a stage computes with. Only ``x`` must be there."""

    x: Tensor
    """``(N, C, H, W)``."""
    coefficients: Tensor | None = None
    """``(2, C)``, float32: scale and shift."""
    residual: Tensor | None = None
    """As ``x``."""
    depthwise: Tensor | None = None
    """``(C, 1, kh, kw)``, float32."""
    pointwise: Tensor | None = None
    """``(out channels, C, 1, 1)``, float32."""
    bias: Tensor | None = None
    """``(out channels)``, float32."""


class Params(NamedTuple):
    """How a stage computes."""

    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)
    activation: int = 0
    """On the way in: an index of :data:`ACTIVATIONS`."""
    relu_out: bool = False


_INPUTS = "Tensor x, Tensor? coefficients, Tensor? residual, Tensor? depthwise, Tensor? pointwise, Tensor? bias"
_PARAMS = "int[2] stride, int[2] padding, int[2] dilation, int activation, bool relu_out"
_SPLIT = len(Inputs._fields)
_END = _SPLIT + len(Params._fields)


def _split(flat: Sequence[Any]) -> tuple[Inputs, Params, Sequence[Any]]:
    return Inputs(*flat[:_SPLIT]), Params(*flat[_SPLIT:_END]), flat[_END:]


def reference(*flat: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a stage's output, its sums ``(2, out channels)`` in float64, nothing, and its input, in plain PyTorch.

    The input is ``activation(x · scale + shift + residual)``: a batch norm in front of the stage, made of its
    coefficients, a sum and an activation. It passes the depthwise convolution and the pointwise one, gets the bias,
    and is clipped if ``relu_out``. The sums are of the output and of its square over all images and positions: what
    a batch norm behind the stage needs.
    """
    inputs, params, (with_sums, with_given, _) = _split(flat)
    x, value = inputs.x, start(inputs, params.activation)
    given = value.to(x.dtype, memory_format=torch.channels_last, copy=True) if with_given else x.new_empty(0)
    if inputs.depthwise is not None:
        weight = inputs.depthwise.to(value.dtype)
        value = torch.conv2d(value, weight, None, *map(tuple, params[:3]), value.shape[1])  # type: ignore[call-overload]
    if inputs.pointwise is not None:
        value = nn.functional.conv2d(value, inputs.pointwise.to(value.dtype))
    if inputs.bias is not None:
        value = value + inputs.bias[:, None, None]
    value = value.relu() if params.relu_out else value
    value = value.to(x.dtype, memory_format=torch.channels_last, copy=True)
    wide = value.double()
    sums = torch.stack([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))]) if with_sums else x.new_empty(0).double()
    return value, sums, x.new_empty(0), given


def start(inputs: Inputs, activation: int) -> Tensor:
    """Return ``activation(x · scale + shift + residual)`` in plain PyTorch, at least in float32."""
    value = inputs.x.float() if inputs.x.dtype == torch.bfloat16 else inputs.x
    if inputs.coefficients is not None:
        value = value * inputs.coefficients[0, :, None, None] + inputs.coefficients[1, :, None, None]
    return ACTIVATIONS[activation](value if inputs.residual is None else value + inputs.residual)


def reference_backward(*flat: Any) -> tuple[Tensor, ...]:
    """Return the gradients by each of :class:`Inputs` in plain PyTorch; empty where there is no input."""
    inputs, params, (_, _, grad_y, grad_sums, grad_given, _) = _split(flat)
    with_sums, with_given = (grad is not None and grad.numel() > 0 for grad in (grad_sums, grad_given))
    return gradients(
        lambda *tensors: reference(*tensors, *params, with_sums, with_given, False),
        inputs,
        (grad_y, grad_sums, None, grad_given),
    )


def _output_shape(inputs: Inputs, params: Params) -> tuple[int, int, int]:
    """Return channels, height and width of a stage's output."""
    channels, *sizes = inputs.x.shape[1:]
    if inputs.depthwise is not None:
        sizes = [
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(
                sizes, inputs.depthwise.shape[2:], *params[:3], strict=True
            )
        ]
    return channels if inputs.pointwise is None else inputs.pointwise.shape[0], sizes[0], sizes[1]


def arguments(
    inputs: Inputs, params: Params, shape: Sequence[int], tensors: Sequence[Tensor | None], address: Address
) -> Stage:
    """Return the kernels' arguments for an output of ``shape`` (channels, height, width).

    The tensors are those of ``struct Stage`` after the bias, in its order; trailing ones may be left out.
    """
    kernel = (1, 1) if inputs.depthwise is None else inputs.depthwise.shape[2:]
    images, channels, height, width = inputs.x.shape
    return Stage(
        *(torch.get_num_threads(), images, height, width, channels, shape[1], shape[2], shape[0]),
        *(*kernel, *params.stride, *params.dilation, *params.padding, params.activation, params.relu_out),
        *pointers(address, *inputs, *tensors),
    )


def kernels(inputs: Inputs) -> Native | None:
    """Return the library, if it takes tensors of these types."""
    same = inputs.residual is None or inputs.residual.dtype == inputs.x.dtype
    return kernels_for(inputs.x.dtype, inputs.coefficients, *inputs[3:]) if same else None


def _outputs(*flat: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs, params, (with_sums, with_given, with_middle) = _split(flat)
    x, (channels, height, width), compiled = inputs.x, _output_shape(inputs, params), kernels(inputs)
    lanes = 0 if compiled is None else compiled.lanes
    with_middle = with_middle and lanes and inputs.depthwise is not None and inputs.pointwise is not None
    middle = (x.shape[0], height, width, -(-x.shape[1] // lanes) * lanes) if with_middle else 0
    return (
        new_image(x, channels, height, width),
        x.new_empty((2, channels) if with_sums else 0, dtype=torch.float64),
        x.new_empty(middle),
        new_image_like(x, x) if with_given else x.new_empty(0),
    )


def _call_of(
    name: str, flat: Sequence[Any], shape: Sequence[int], tensors: Sequence[Tensor | None], address: Address
) -> Call | None:
    inputs, params, _ = _split(flat)
    compiled = kernels(inputs)
    if compiled is None:
        return None
    return Call(compiled.kernel(name, inputs.x.dtype), arguments(inputs, params, shape[1:], tensors, address))


def _call(flat: Sequence[Any], outputs: Sequence[Tensor], address: Address) -> Call | None:
    return _call_of("stage_forward", flat, outputs[0].shape, outputs, address)


def _backward_outputs(*flat: Any) -> tuple[Tensor, ...]:
    inputs, _, (*_, with_x) = _split(flat)
    x, coefficients, residual, *weights = inputs
    return (
        new_image_like(x if with_x else None, x),
        new_like(coefficients, x),
        new_image_like(residual, x),
        *(new_like(weight, x) for weight in weights),
    )


def _backward_call(flat: Sequence[Any], outputs: Sequence[Tensor], address: Address) -> Call | None:
    y, middle, grad_y, grad_sums, grad_given, _ = flat[_END:]
    tensors = (y, None, middle, None, grad_y, grad_sums, grad_given, *outputs)
    return _call_of("stage_backward", flat, y.shape, tensors, address)


STAGE = register(
    f"stage({_INPUTS}, {_PARAMS}, bool with_sums, bool with_given, bool with_middle)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _outputs,
    _call,
    reference,
    images=frozenset({0, 2}),
)
STAGE_BACKWARD = register(
    f"stage_backward({_INPUTS}, {_PARAMS}, Tensor y, Tensor middle, Tensor? grad_y, Tensor? grad_sums, "
    "Tensor? grad_given, bool with_x) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _backward_outputs,
    _backward_call,
    reference_backward,
    images=frozenset({0, 2, _END, _END + 2, _END + 4}),
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:_SPLIT], output[0], output[2])
    ctx.params = inputs[_SPLIT:_END]
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Any, grad_sums: Any, _: Any, grad_given: Any) -> tuple[Any, ...]:
    *inputs, y, middle = ctx.saved_tensors
    needed = ctx.needs_input_grad[:_SPLIT]
    grads = torch.ops.sepnet.stage_backward(*inputs, *ctx.params, y, middle, grad_y, grad_sums, grad_given, needed[0])
    grads = (grad if need else None for grad, need in zip(grads, needed, strict=True))
    return *grads, *([None] * (len(ctx.params) + 3))


torch.library.register_autograd("sepnet::stage", _backward, setup_context=_setup_context, lib=library)


def _flops(output: Sequence[int], weights: Sequence[int] | None) -> int:
    """Return twice the multiplications by weights ``(out, in / groups, kh, kw)`` for an output of this shape."""
    return 0 if weights is None else 2 * output[0] * output[2] * output[3] * math.prod(weights)


@register_flop_formula(torch.ops.sepnet.stage)
def _forward_flops(*flat: Any, out_shape: Any, **unused: Any) -> int:  # noqa: ARG001
    shapes: Any = _split(flat)[0]
    return _flops(out_shape[0], shapes.depthwise) + _flops(out_shape[0], shapes.pointwise)


@register_flop_formula(torch.ops.sepnet.stage_backward)
def _backward_flops(*flat: Any, **unused: Any) -> int:  # noqa: ARG001
    shapes: Any = _split(flat)[0]
    y, *_, with_x = _split(flat)[2]
    deep, wide = _flops(y, shapes.depthwise), _flops(y, shapes.pointwise)
    by_input = with_x or shapes.coefficients is not None or shapes.residual is not None
    return deep + wide + by_input * deep + (by_input or shapes.depthwise is not None) * wide
