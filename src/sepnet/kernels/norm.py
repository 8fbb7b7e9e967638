"""``sepnet::norm``: batch norm as one scale and one shift per channel, which the next stage applies."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sepnet.kernels.library import library, observed, or_empty
from sepnet.kernels.native import Norm, address, native
from sepnet.kernels.tape import active

library.define("norm(Tensor sums, Tensor? weight, Tensor? bias, int count, float eps) -> (Tensor, Tensor)")
library.define(
    "norm_backward(Tensor sums, Tensor? weight, Tensor? bias, int count, float eps, Tensor moments, "
    "Tensor grad_coefficients) -> (Tensor, Tensor, Tensor)"
)


class Moving(NamedTuple):
    """Moving statistics, and how far they move towards the batch's."""

    mean: Tensor
    """``(C)``, float32."""
    variance: Tensor
    """``(C)``, float32; of the unbiased kind."""
    share: float


def norm(
    sums: Tensor, weight: Tensor | None, bias: Tensor | None, count: int, eps: float, moving: Moving | None = None
) -> Tensor:
    """Return batch norm's coefficients ``(2, C)``, scale and shift, as :func:`meaning`; move the statistics."""
    tape = active()
    if tape is not None:
        coefficients, moments = _forward(sums, weight, bias, count, eps, moving)
        if tape.wants(sums, weight, bias):
            numbers = (sums, weight, bias, count, eps, moments)
            tape.add((sums, weight, bias), (coefficients,), lambda slopes: _backward(*numbers, *slopes))  # type: ignore[arg-type]
        return coefficients
    if observed(sums):
        coefficients, moments = torch.ops.sepnet.norm(sums, weight, bias, count, eps)
        _move(moving, moments, count)
        return coefficients
    if torch.is_grad_enabled():
        return _Norm.apply(sums, weight, bias, count, eps, moving)
    return _forward(sums, weight, bias, count, eps, moving)[0]


def meaning(sums: Tensor, weight: Tensor | None, bias: Tensor | None, count: int, eps: float) -> tuple[Tensor, Tensor]:
    """Return scale and shift ``(2, C)``, float32, and mean and biased variance ``(2, C)``, float64.

    From the sums ``(2, C)``, float64, of ``count`` values and of their squares: the normalized value is
    ``x · scale + shift``. (Ioffe and Szegedy 2015, algorithm 1.)
    """
    mean = sums[0] / count
    variance = (sums[1] / count - mean.square()).clamp_min(0)
    return by_moments(mean, variance, eps, weight, bias).float(), torch.stack([mean, variance])


def by_moments(mean: Tensor, variance: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return scale and shift ``(2, C)`` of a batch norm by mean and variance ``(C)``, in their precision."""
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return torch.stack([scale, shift if bias is None else shift + bias])


@torch.no_grad()
def _move(moving: Moving | None, moments: Tensor, count: int) -> None:
    if moving is not None:
        moving.mean.lerp_(moments[0].to(moving.mean.dtype), moving.share)
        moving.variance.lerp_((moments[1] * (count / max(count - 1, 1))).to(moving.variance.dtype), moving.share)


def _fit(*tensors: Tensor | None) -> bool:
    return all(tensor is None or (tensor.dtype == torch.float32 and tensor.is_contiguous()) for tensor in tensors)


def _forward(
    sums: Tensor, weight: Tensor | None, bias: Tensor | None, count: int, eps: float, moving: Moving | None = None
) -> tuple[Tensor, Tensor]:
    compiled = native()
    statistics = (None, None) if moving is None else moving[:2]
    if compiled is None or not _fit(weight, bias, *statistics):
        coefficients, moments = meaning(sums, weight, bias, count, eps)
        _move(moving, moments, count)
        return coefficients, moments
    coefficients, moments = torch.empty_like(sums, dtype=torch.float32), torch.empty_like(sums)
    share = 0.0 if moving is None else moving.share
    tensors = (sums, weight, bias, coefficients, moments, *statistics)
    compiled.call("norm_forward", Norm(sums.shape[1], count, eps, share, *map(address, tensors)))
    return coefficients, moments


def _backward(
    sums: Tensor, weight: Tensor | None, bias: Tensor | None, count: int, eps: float, moments: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    compiled = native()
    if compiled is None or not _fit(weight, bias):
        return _backward_meaning(sums, weight, bias, count, eps, moments, slopes)
    slopes, by_sums = slopes.contiguous(), torch.empty_like(sums)
    by_weight, by_bias = (None if tensor is None else torch.empty_like(tensor) for tensor in (weight, bias))
    tensors = (sums, weight, bias, None, moments, None, None, slopes, by_sums, by_weight, by_bias)
    compiled.call("norm_backward", Norm(sums.shape[1], count, eps, 0.0, *map(address, tensors)))
    return by_sums, or_empty(by_weight, sums), or_empty(by_bias, sums)


def _backward_meaning(
    sums: Tensor, weight: Tensor | None, bias: Tensor | None, count: int, eps: float, moments: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    mean, inverse = moments[0], (moments[1] + eps).rsqrt()
    by_scale = slopes[0] - mean * slopes[1]
    factor = inverse if weight is None else inverse * weight
    by_variance = -0.5 * by_scale * factor * inverse.square()
    by_sums = torch.stack([-slopes[1] * factor - 2 * mean * by_variance, by_variance]) / count
    by_weight = sums.new_empty(0) if weight is None else (by_scale * inverse).to(weight.dtype)
    by_bias = sums.new_empty(0) if bias is None else slopes[1].to(bias.dtype, copy=True)
    return by_sums, by_weight, by_bias


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    sums, weight, bias, *ctx.numbers = inputs
    ctx.save_for_backward(sums, weight, bias, output[1])


def _slopes(ctx: Any, backward: Any, slopes: Tensor) -> tuple[Any, ...]:
    sums, weight, bias, moments = ctx.saved_tensors
    by_sums, by_weight, by_bias = backward(sums, weight, bias, *ctx.numbers, moments, slopes)
    return by_sums, None if weight is None else by_weight, None if bias is None else by_bias, None, None


def _differentiate(ctx: Any, slopes: Tensor, _: Tensor) -> tuple[Any, ...]:
    return _slopes(ctx, torch.ops.sepnet.norm_backward, slopes)


class _Norm(torch.autograd.Function):
    """The operator's coefficients and their gradient, past PyTorch's dispatcher."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = _forward(*inputs)
        _remember(ctx, inputs[:-1], output)
        return output[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> Any:
        return *_slopes(ctx, _backward, slopes), None


def _fake_forward(sums: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(sums, dtype=torch.float32), torch.empty_like(sums)


def _fake_backward(sums: Tensor, weight: Tensor | None, bias: Tensor | None, *_: Any) -> tuple[Tensor, ...]:
    return tuple(
        or_empty(None if tensor is None else torch.empty_like(tensor), sums) for tensor in (sums, weight, bias)
    )


library.impl("norm", _forward, "CPU")
library.impl("norm_backward", _backward, "CPU")
torch.library.register_fake("sepnet::norm", _fake_forward, lib=library)
torch.library.register_fake("sepnet::norm_backward", _fake_backward, lib=library)
torch.library.register_autograd("sepnet::norm", _differentiate, setup_context=_remember, lib=library)
