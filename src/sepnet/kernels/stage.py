"""``sepnet::stage``: batch norm, residual and activation on the way in, separable convolution, sums on the way out."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from sepnet.kernels.library import channels_last, library, new_image, observed, or_empty
from sepnet.kernels.native import Native, Stage, address, native
from sepnet.kernels.tape import Slopes, Tape, active

ACTIVATIONS: Sequence[Callable[[Tensor], Tensor]] = (
    lambda value: value,
    torch.relu,
    nn.functional.silu,
    nn.functional.hardswish,
)
"""What a stage begins with, by the kernels' numbers."""
RELU = 1


class Given(NamedTuple):
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


class Form(NamedTuple):
    """How a stage computes."""

    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)
    activation: int = 0
    """On the way in: an index of :data:`ACTIVATIONS`."""
    relu_out: bool = False


_GIVEN = "Tensor x, Tensor? coefficients, Tensor? residual, Tensor? depthwise, Tensor? pointwise, Tensor? bias"
_FORM = "int[2] stride, int[2] padding, int[2] dilation, int activation, bool relu_out"
_IMAGES = (Given._fields.index("x"), Given._fields.index("residual"))
_SPLIT = len(Given._fields)
_END = _SPLIT + len(Form._fields)

library.define(
    f"stage({_GIVEN}, {_FORM}, bool with_sums, bool with_given, bool with_middle) -> (Tensor, Tensor, Tensor, Tensor)"
)
library.define(
    f"stage_backward({_GIVEN}, {_FORM}, Tensor y, Tensor middle, Tensor? grad_y, Tensor? grad_sums, "
    "Tensor? grad_given, bool with_x) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)


def stage(
    given: Given, form: Form, *, with_sums: bool = False, with_given: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a stage's output, sums and input, as :func:`meaning` defines them; empty where they are not wanted."""
    tape = active()
    if tape is not None:
        return _taped(tape, given, form, with_sums, with_given)
    flat = (*given, *form, with_sums, with_given, torch.is_grad_enabled())
    compute = torch.ops.sepnet.stage if observed(given.x) else _Stage.apply if flat[-1] else _forward
    y, sums, _, kept = compute(*flat)
    return y, sums, kept


def meaning(given: Given, form: Form) -> tuple[Tensor, Tensor, Tensor]:
    """Return a stage's output, its sums ``(2, out channels)`` in float64, and its input, in plain PyTorch.

    The input is ``activation(x · scale + shift + residual)``: a batch norm in front of the stage, made of its
    coefficients, a sum and an activation. It passes the depthwise convolution and the pointwise one, gets the bias,
    and is clipped if ``relu_out``. The sums are of the output and of its square over all images and positions: what
    a batch norm behind the stage needs.
    """
    value = start = formed(given, form.activation)
    if given.depthwise is not None:
        value = nn.functional.conv2d(
            value,
            given.depthwise.to(value.dtype),
            stride=tuple(form.stride),
            padding=tuple(form.padding),
            dilation=tuple(form.dilation),
            groups=value.shape[1],
        )
    if given.pointwise is not None:
        value = nn.functional.conv2d(value, given.pointwise.to(value.dtype))
    if given.bias is not None:
        value = value + given.bias[:, None, None]
    if form.relu_out:
        value = value.relu()
    value, start = value.to(given.x.dtype), start.to(given.x.dtype)
    wide = value.double()
    return value, torch.stack([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))]), start


def formed(given: Given, activation: int) -> Tensor:
    """Return ``activation(x · scale + shift + residual)`` in plain PyTorch."""
    value = given.x
    if given.coefficients is not None:
        value = value * given.coefficients[0, :, None, None] + given.coefficients[1, :, None, None]
    if given.residual is not None:
        value = value + given.residual
    return ACTIVATIONS[activation](value)


def _output_shape(given: Given, form: Form) -> tuple[int, int, int]:
    """Return channels, height and width of a stage's output."""
    channels, *sizes = given.x.shape[1:]
    if given.depthwise is not None:
        sizes = [
            (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, padding, dilation in zip(sizes, given.depthwise.shape[2:], *form[:3], strict=True)
        ]
    return channels if given.pointwise is None else given.pointwise.shape[0], sizes[0], sizes[1]


def arguments(given: Given, form: Form, shape: Sequence[int], *tensors: Tensor | None) -> Stage:
    """Return the kernels' arguments for an output of ``shape`` (channels, height, width).

    The tensors are those of ``struct Stage`` after the bias, in its order; trailing ones may be left out.
    """
    kernel = (1, 1) if given.depthwise is None else given.depthwise.shape[2:]
    images, channels, height, width = given.x.shape
    return Stage(
        *(torch.get_num_threads(), images, height, width, channels, shape[1], shape[2], shape[0]),
        *(*kernel, *form.stride, *form.dilation, *form.padding, form.activation, form.relu_out),
        *map(address, (*given, *tensors)),
    )


def compiled_for(given: Given) -> Native | None:
    """Return the compiled kernels if they take tensors of these types: weights and coefficients in float32."""
    compiled = native()
    numbers = (given.coefficients, *given[3:])
    fit = (
        compiled is not None and compiled.computes(given.x.dtype) and all(same_type(t, torch.float32) for t in numbers)
    )
    return compiled if fit and same_type(given.residual, given.x.dtype) else None


def same_type(tensor: Tensor | None, dtype: torch.dtype) -> bool:
    """Tell whether a tensor, if there is one, is of a type."""
    return tensor is None or tensor.dtype == dtype


def in_memory_order(given: Given) -> Given:
    """Return what is given in the memory format of the kernels."""
    images = (channels_last(given.x), None if given.residual is None else channels_last(given.residual))
    coefficients, *weights = (None if t is None else t.contiguous() for t in (given.coefficients, *given[3:]))
    return Given(images[0], coefficients, images[1], *weights)


def _split(flat: tuple[Any, ...]) -> tuple[Given, Form, tuple[Any, ...]]:
    return Given(*flat[:_SPLIT]), Form(*flat[_SPLIT:_END]), flat[_END:]


def _forward(*flat: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given, form, (with_sums, with_given, with_middle) = _split(flat)
    x, compiled = given.x, compiled_for(given)
    if compiled is None:
        y, sums, start = meaning(given, form)
        nothing = x.new_empty(0)
        return y, sums if with_sums else nothing.double(), nothing, start.clone() if with_given else nothing
    given = in_memory_order(given)
    y, sums, middle, kept = outputs = _empty_outputs(given, form, compiled, with_sums, with_given, with_middle)
    kernel_arguments = arguments(given, form, y.shape[1:], y, _filled(sums), _filled(middle), _filled(kept))
    compiled.call("stage_forward", kernel_arguments, x.dtype)
    return outputs


def _backward(*flat: Any) -> tuple[Tensor, ...]:
    given, form, (y, middle, grad_y, *others, with_x) = _split(flat)
    grad_sums, grad_given = (None if slope is None else _filled(slope) for slope in others)
    compiled = compiled_for(given)
    if compiled is None:
        return differentiate(meaning, given, form, (grad_y, grad_sums, grad_given))
    given = in_memory_order(given)
    slopes = [None if tensor is None else torch.empty_like(tensor) for tensor in given]
    if not with_x:
        slopes[0] = None
    y = channels_last(y)
    grad_y, grad_given = (None if slope is None else channels_last(slope) for slope in (grad_y, grad_given))
    grad_sums = None if grad_sums is None else grad_sums.contiguous()
    tensors = (y, None, _filled(middle), None, grad_y, grad_sums, grad_given, *slopes)
    compiled.call("stage_backward", arguments(given, form, y.shape[1:], *tensors), given.x.dtype)
    return tuple(or_empty(slope, given.x) for slope in slopes)


def differentiate(function: Any, given: Given, form: Any, slopes: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
    """Return the gradients by what is given, through plain PyTorch; empty where nothing is given."""
    with torch.enable_grad():
        leaves = Given._make(None if tensor is None else tensor.detach().requires_grad_() for tensor in given)
        outputs = function(leaves, form)
        pairs = [(output, slope) for output, slope in zip(outputs, slopes, strict=True) if slope is not None]
        found = torch.autograd.grad(
            [output for output, _ in pairs],
            [leaf for leaf in leaves if leaf is not None],
            [slope for _, slope in pairs],
            allow_unused=True,
            materialize_grads=True,
        )
    left = iter(found)
    slopes_by = [or_empty(None if leaf is None else next(left), given.x) for leaf in leaves]
    for index in _IMAGES:
        slopes_by[index] = _as_image(slopes_by[index])
    return tuple(slopes_by)


def _as_image(slope: Tensor) -> Tensor:
    return channels_last(slope) if slope.ndim == 4 else slope


def _filled(tensor: Tensor) -> Tensor | None:
    return tensor if tensor.numel() else None


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:_SPLIT], output[0], output[2])
    ctx.form = inputs[_SPLIT:_END]
    ctx.set_materialize_grads(False)


def _slopes(ctx: Any, backward: Any, grad_y: Any, grad_sums: Any, grad_given: Any) -> tuple[Any, ...]:
    *given, y, middle = ctx.saved_tensors
    found = backward(*given, *ctx.form, y, middle, grad_y, grad_sums, grad_given, ctx.needs_input_grad[0])
    needed = zip(found, ctx.needs_input_grad[:_SPLIT], strict=True)
    return *(slope if need else None for slope, need in needed), *([None] * (len(ctx.form) + 3))


def _differentiate(ctx: Any, grad_y: Any, grad_sums: Any, _: Any, grad_given: Any) -> tuple[Any, ...]:
    # Below PyTorch's autograd, where operators compute, nothing could be differentiated by it.
    compiled = compiled_for(Given._make(ctx.saved_tensors[:_SPLIT]))
    backward = _backward if compiled is None else torch.ops.sepnet.stage_backward
    return _slopes(ctx, backward, grad_y, grad_sums, grad_given)


class _Stage(torch.autograd.Function):
    """The operator and its gradient, past PyTorch's dispatcher."""

    @staticmethod
    def forward(ctx: Any, *flat: Any) -> tuple[Tensor, ...]:
        output = _forward(*flat)
        _remember(ctx, flat, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Any, grad_sums: Any, _: Any, grad_given: Any) -> Any:
        return _slopes(ctx, _backward, grad_y, grad_sums, grad_given)


def _taped(tape: Tape, given: Given, form: Form, with_sums: bool, with_given: bool) -> tuple[Tensor, Tensor, Tensor]:
    wanted = tape.wants(*given)
    y, sums, middle, kept = _forward(*given, *form, with_sums, with_given, wanted)
    if wanted:
        with_x = tape.wants(given.x)

        def differentiate(slopes: Slopes) -> Slopes:
            return _backward(*given, *form, y, middle, *slopes, with_x)

        tape.add(given, (y, sums, kept), differentiate)
    return y, sums, kept


def _empty_outputs(
    given: Given, form: Form, compiled: Native | None, with_sums: bool, with_given: bool, with_middle: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return outputs of the right shapes, not yet computed."""
    channels, height, width = _output_shape(given, form)
    x = given.x
    both = given.depthwise is not None and given.pointwise is not None
    padded = -(-x.shape[1] // compiled.lanes) * compiled.lanes if compiled else 0
    return (
        new_image(x, channels, height, width),
        x.new_empty((2, channels) if with_sums else 0, dtype=torch.float64),
        x.new_empty((len(x), height, width, padded) if with_middle and both and compiled else 0),
        new_image(x, *x.shape[1:]) if with_given else x.new_empty(0),
    )


def _fake_forward(*flat: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    given, form, wanted = _split(flat)
    return _empty_outputs(given, form, compiled_for(given), *wanted)


def _fake_backward(*flat: Any) -> tuple[Tensor, ...]:
    given, _, (*_, with_x) = _split(flat)
    slopes = [or_empty(None if tensor is None else torch.empty_like(tensor), given.x) for tensor in given]
    for index in _IMAGES:
        slopes[index] = _as_image(slopes[index])
    return tuple(slopes if with_x else [given.x.new_empty(0), *slopes[1:]])


library.impl("stage", _forward, "CPU")
library.impl("stage_backward", _backward, "CPU")
torch.library.register_fake("sepnet::stage", _fake_forward, lib=library)
torch.library.register_fake("sepnet::stage_backward", _fake_backward, lib=library)
torch.library.register_autograd("sepnet::stage", _differentiate, setup_context=_remember, lib=library)


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
