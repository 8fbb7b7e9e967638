"""``sepnet::pool``: batch norm, residual and activation on the way in, then pooling, then dropout."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sepnet.kernels.library import channels_last, library, new_image, observed, or_empty
from sepnet.kernels.native import Pool
from sepnet.kernels.stage import Form, Given, arguments, compiled_for, differentiate, formed, in_memory_order
from sepnet.kernels.tape import Tape, active


class PoolForm(NamedTuple):
    """How windows are pooled."""

    window: tuple[int, int] = (1, 1)
    """Rows and columns; windows tile the image, and what is left at its end is not pooled. 1×1 leaves all as it is."""
    average: bool = False
    """The mean of a window rather than its largest value."""
    activation: int = 0
    """As a stage's."""
    dropout: float = 0.0
    """The share of values set to 0; the others are divided by the share kept."""
    seed: int = 0
    """Of the dropout."""


_GIVEN = "Tensor x, Tensor? coefficients, Tensor? residual"
_FORM = "int[2] window, bool average, int activation, float dropout, int seed"
_TENSORS = 3

library.define(f"pool({_GIVEN}, {_FORM}) -> Tensor")
library.define(f"pool_backward({_GIVEN}, {_FORM}, Tensor grad_y, bool with_x) -> (Tensor, Tensor, Tensor)")


def pool(given: Given, form: PoolForm) -> Tensor:
    """Return the pooled input, as :func:`meaning` defines it."""
    tape = active()
    if tape is not None:
        return _taped(tape, given, form)
    compute = torch.ops.sepnet.pool if observed(given.x) else _Pool.apply if torch.is_grad_enabled() else _forward
    y: Tensor = compute(*given[:_TENSORS], *form)
    return y


def meaning(given: Given, form: PoolForm) -> Tensor:
    """Return ``activation(x · scale + shift + residual)``, pooled and dropped out, in PyTorch.

    ``(N, C, H, W)`` to ``(N, C, H / rows, W / columns)``, rounded down.
    """
    value = formed(given, form.activation)
    if tuple(form.window) != (1, 1):
        pooling = nn.functional.avg_pool2d if form.average else nn.functional.max_pool2d
        value = pooling(value, tuple(form.window))
    if form.dropout:
        value = value * dropout_factors(value, form)
    return value.to(given.x.dtype)


def dropout_factors(like: Tensor, form: PoolForm) -> Tensor:
    """Return what dropout multiplies ``(N, C, H, W)`` by: 0, or 1 / (share kept).

    Each factor is a hash of the seed and of the value's place in memory with channels innermost, so that the
    backward pass finds the same ones without keeping them. (Wellons 2018, "lowbias32", twice.)
    """
    images, channels, height, width = like.shape
    place = torch.arange(like.numel(), device=like.device).view(images, height, width, channels).permute(0, 3, 1, 2)
    low, high = form.seed & _ONES, (form.seed >> 32) & _ONES
    number = _mix(_mix((place + low) & _ONES) ^ high)
    kept = _kept(form.dropout)
    return (number < kept) * ((1 << 32) / max(kept, 1))


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


def _split(flat: tuple[Any, ...]) -> tuple[Given, PoolForm, tuple[Any, ...]]:
    end = _TENSORS + len(PoolForm._fields)
    return Given(*flat[:_TENSORS]), PoolForm(*flat[_TENSORS:end]), flat[end:]


def _shape(x: Tensor, form: PoolForm) -> tuple[int, int, int]:
    return x.shape[1], x.shape[2] // form.window[0], x.shape[3] // form.window[1]


def _arguments(given: Given, form: PoolForm, *tensors: Tensor | None) -> Pool:
    stage = arguments(given, Form(activation=form.activation), _shape(given.x, form), *tensors)
    return Pool(stage, *form.window, form.average, form.seed, _kept(form.dropout))


def _forward(*flat: Any) -> Tensor:
    given, form, _ = _split(flat)
    compiled = compiled_for(given)
    if compiled is None:
        y = meaning(given, form)
        return y.clone() if y is given.x else y
    given = in_memory_order(given)
    y = new_image(given.x, *_shape(given.x, form))
    compiled.call("pool_forward", _arguments(given, form, y), given.x.dtype)
    return y


def _backward(*flat: Any) -> tuple[Tensor, ...]:
    given, form, (grad_y, with_x) = _split(flat)
    compiled = compiled_for(given)
    if compiled is None:
        found = differentiate(lambda *parts: (meaning(*parts),), given, form, (grad_y,))
        return found[:_TENSORS]
    given = in_memory_order(given)
    slopes = [None if tensor is None else torch.empty_like(tensor) for tensor in given[:_TENSORS]]
    if not with_x:
        slopes[0] = None
    grad_y = channels_last(grad_y)
    tensors = (None, None, None, None, grad_y, None, None, *slopes)
    compiled.call("pool_backward", _arguments(given, form, *tensors), given.x.dtype)
    return tuple(or_empty(slope, given.x) for slope in slopes)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs[:_TENSORS])
    ctx.form = inputs[_TENSORS:]


def _slopes(ctx: Any, backward: Any, grad_y: Tensor) -> tuple[Any, ...]:
    found = backward(*ctx.saved_tensors, *ctx.form, grad_y, ctx.needs_input_grad[0])
    needed = zip(found, ctx.needs_input_grad[:_TENSORS], strict=True)
    return *(slope if need else None for slope, need in needed), *([None] * len(ctx.form))


def _differentiate(ctx: Any, grad_y: Tensor) -> tuple[Any, ...]:
    compiled = compiled_for(Given(*ctx.saved_tensors))
    return _slopes(ctx, _backward if compiled is None else torch.ops.sepnet.pool_backward, grad_y)


class _Pool(torch.autograd.Function):
    """The operator and its gradient, past PyTorch's dispatcher."""

    @staticmethod
    def forward(ctx: Any, *flat: Any) -> Tensor:
        y = _forward(*flat)
        _remember(ctx, flat, y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        return _slopes(ctx, _backward, grad_y)


def _taped(tape: Tape, given: Given, form: PoolForm) -> Tensor:
    sources = given[:_TENSORS]
    y = _forward(*sources, *form)
    if tape.wants(*sources):
        with_x = tape.wants(given.x)
        tape.add(sources, (y,), lambda slopes: _backward(*sources, *form, *slopes, with_x))
    return y


def _fake_forward(*flat: Any) -> Tensor:
    given, form, _ = _split(flat)
    return new_image(given.x, *_shape(given.x, form))


def _fake_backward(*flat: Any) -> tuple[Tensor, ...]:
    given, _, (_, with_x) = _split(flat)
    images = [None if image is None else channels_last(torch.empty_like(image)) for image in (given.x, given.residual)]
    coefficients = None if given.coefficients is None else torch.empty_like(given.coefficients)
    return tuple(or_empty(slope, given.x) for slope in (images[0] if with_x else None, coefficients, images[1]))


library.impl("pool", _forward, "CPU")
library.impl("pool_backward", _backward, "CPU")
torch.library.register_fake("sepnet::pool", _fake_forward, lib=library)
torch.library.register_fake("sepnet::pool_backward", _fake_backward, lib=library)
torch.library.register_autograd("sepnet::pool", _differentiate, setup_context=_remember, lib=library)
