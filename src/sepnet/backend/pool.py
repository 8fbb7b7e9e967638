"""``sepnet::pool``: batch norm, residual and activation on the way in, then pooling, then dropout."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sepnet.backend import stage
from sepnet.backend.library import Address, Call, gradients, library, new_image, new_image_like, new_like, register
from sepnet.backend.native import Pool
from sepnet.backend.stage import Inputs


class Params(NamedTuple):
    """How windows are pooled."""

    window: Sequence[int] = (1, 1)
    """Rows and columns; windows tile the image. 1×1 leaves all as it is."""
    average: bool = False
    """The mean of a window rather than its largest value."""
    ceil: bool = False
    """Whether what is left at the image's end is pooled too, as a smaller window."""
    activation: int = 0
    """As a stage's."""
    dropout: float = 0.0
    """The share of values set to 0; the others are divided by the share kept."""


_INPUTS = "Tensor x, Tensor? coefficients, Tensor? residual, Tensor? seed"
_PARAMS = "int[2] window, bool average, bool ceil, int activation, float dropout"
_SPLIT = 4
_END = _SPLIT + len(Params._fields)


def _split(flat: Sequence[Any]) -> tuple[Inputs, Tensor | None, Params, Sequence[Any]]:
    return Inputs(*flat[:3]), flat[3], Params(*flat[_SPLIT:_END]), flat[_END:]


def reference(*flat: Any) -> Tensor:
    """Return ``activation(x · scale + shift + residual)``, pooled and dropped out, in plain PyTorch.

    ``(N, C, H, W)`` to ``(N, C, H / rows, W / columns)``, rounded down, or up if ``ceil``. ``seed`` is an int64 ``()``.
    """
    inputs, seed, params, _ = _split(flat)
    value = stage.start(inputs, params.activation)
    if tuple(params.window) != (1, 1):
        pooling = nn.functional.avg_pool2d if params.average else nn.functional.max_pool2d
        value = pooling(value, tuple(params.window), ceil_mode=params.ceil)
    if params.dropout:
        value = value * dropout_factors(value, seed, params.dropout)
    return value.to(inputs.x.dtype, memory_format=torch.channels_last, copy=True)


def reference_backward(*flat: Any) -> tuple[Tensor, ...]:
    """Return the gradients by x, coefficients and residual in plain PyTorch; empty where there is none."""
    inputs, seed, params, (grad_y, _) = _split(flat)
    return gradients(lambda *tensors: (reference(*tensors, seed, *params),), inputs[:3], (grad_y,))


def dropout_factors(like: Tensor, seed: Tensor | None, dropout: float) -> Tensor:
    """Return what dropout multiplies ``(N, C, H, W)`` by: 0, or 1 / (share kept).

    Each factor is a hash of the seed and of the value's place in memory with channels innermost, so that the
    backward pass finds the same ones without keeping them. (Wellons 2018, "lowbias32", twice.)
    """
    images, channels, height, width = like.shape
    place = torch.arange(like.numel(), device=like.device).view(images, height, width, channels).permute(0, 3, 1, 2)
    number = 0 if seed is None else int(seed)
    low, high = number & _ONES, (number >> 32) & _ONES
    drawn = _mix(_mix((place + low) & _ONES) ^ high)
    kept = _kept(dropout)
    return ((drawn < kept) * torch.tensor((1 << 32) / max(kept, 1))).to(like.dtype)


_ONES = 0xFFFFFFFF


def _mix(x: Tensor) -> Tensor:
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _ONES
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _ONES
    return x ^ (x >> 16)


def _kept(dropout: float) -> int:
    """Return the share that dropout keeps, in 2³² parts."""
    return round((1 - dropout) * (1 << 32))


def _outputs(*flat: Any) -> Tensor:
    inputs, _, params, _ = _split(flat)
    x, (rows, columns) = inputs.x, params.window
    if params.ceil:
        return new_image(x, x.shape[1], (x.shape[2] + rows - 1) // rows, (x.shape[3] + columns - 1) // columns)
    return new_image(x, x.shape[1], x.shape[2] // rows, x.shape[3] // columns)


def _call_of(
    name: str, flat: Sequence[Any], shape: Sequence[int], tensors: Sequence[Tensor | None], address: Address
) -> Call | None:
    inputs, seed, params, _ = _split(flat)
    compiled, x = stage.kernels(inputs), inputs.x
    whole = not any(size % window for size, window in zip(x.shape[2:], params.window, strict=True))
    if compiled is None or (params.ceil and not whole):
        return None
    of_stage = stage.arguments(inputs, stage.Params(activation=params.activation), shape[1:], tensors, address)
    place = address(seed) if params.dropout and seed is not None else None
    numbers = (*params.window, params.average, place, _kept(params.dropout))
    return Call(compiled.kernel(name, x.dtype), Pool(of_stage, *numbers))


def _call(flat: Sequence[Any], outputs: Sequence[Tensor], address: Address) -> Call | None:
    return _call_of("pool_forward", flat, outputs[0].shape, outputs, address)


def _backward_outputs(*flat: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs, _, _, (_, with_x) = _split(flat)
    x, coefficients, residual = inputs[:3]
    return new_image_like(x if with_x else None, x), new_like(coefficients, x), new_image_like(residual, x)


def _backward_call(flat: Sequence[Any], outputs: Sequence[Tensor], address: Address) -> Call | None:
    grad_y, _ = flat[_END:]
    tensors = (None, None, None, None, grad_y, None, None, *outputs)
    return _call_of("pool_backward", flat, grad_y.shape, tensors, address)


POOL = register(f"pool({_INPUTS}, {_PARAMS}) -> Tensor", _outputs, _call, reference, images=frozenset({0, 2}))
POOL_BACKWARD = register(
    f"pool_backward({_INPUTS}, {_PARAMS}, Tensor grad_y, bool with_x) -> (Tensor, Tensor, Tensor)",
    _backward_outputs,
    _backward_call,
    reference_backward,
    images=frozenset({0, 2, _END}),
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs[:_SPLIT])
    ctx.params = inputs[_SPLIT:]


def _backward(ctx: Any, grad_y: Tensor) -> tuple[Any, ...]:
    needed = ctx.needs_input_grad[:3]
    grads = torch.ops.sepnet.pool_backward(*ctx.saved_tensors, *ctx.params, grad_y, needed[0])
    grads = (grad if need else None for grad, need in zip(grads, needed, strict=True))
    return *grads, *([None] * (1 + len(ctx.params)))


torch.library.register_autograd("sepnet::pool", _backward, setup_context=_setup_context, lib=library)
