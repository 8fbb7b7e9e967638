"""``sepnet::norm``: batch norm as one scale and one shift per channel, which the next stage applies."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sepnet.backend.library import Address, Call, gradients, kernels_for, library, new_like, pointers, register
from sepnet.backend.native import Norm

_BATCH = "Tensor sums, Tensor? weight, Tensor? bias"


def reference(
    sums: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    count: int,
    eps: float,
    momentum: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return scale and shift ``(2, C)``, mean and biased variance ``(2, C)``, float64, and the new running statistics.

    From the sums ``(2, C)``, float64, of ``count`` values and of their squares: the normalized value is
    ``x · scale + shift``. The running statistics ``(C)`` move towards the batch's, whose variance is the unbiased one
    there, by ``momentum``; they are empty where there are none. (Ioffe and Szegedy 2015, algorithm 1.)
    """
    mean = sums[0] / count
    variance = (sums[1] / count - mean.square()).clamp_min(0)
    moments = torch.stack([mean, variance])
    coefficients = fold(mean, variance, weight, bias, eps).float()
    if running_mean is None or running_var is None:
        return coefficients, moments, coefficients.new_empty(0), coefficients.new_empty(0)
    unbiased = variance * (count / max(count - 1, 1))
    new_mean = torch.lerp(running_mean, mean.to(running_mean.dtype), momentum)
    return coefficients, moments, new_mean, torch.lerp(running_var, unbiased.to(running_var.dtype), momentum)


def fold(mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Return scale and shift ``(2, C)`` of a batch norm by mean and variance ``(C)``, in their precision."""
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return torch.stack([scale, shift if bias is None else shift + bias])


def reference_backward(*flat: Any) -> tuple[Tensor, ...]:
    """Return the gradients by sums, weight and bias in plain PyTorch; empty where there is none."""
    sums, weight, bias, count, eps, _, grad_coefficients = flat
    tensors = (sums, weight, bias)
    return gradients(lambda s, w, b: reference(s, w, b, None, None, count, eps, 0.0), tensors, (grad_coefficients,))


def _outputs(sums: Tensor, weight: Any, bias: Any, mean: Any, var: Any, *_: Any) -> tuple[Tensor, ...]:  # noqa: ARG001
    coefficients = torch.empty_like(sums, dtype=torch.float32)
    return coefficients, torch.empty_like(sums), new_like(mean, coefficients), new_like(var, coefficients)


def _call(flat: Sequence[Any], outputs: Sequence[Tensor], address: Address) -> Call | None:
    sums, weight, bias, mean, var, count, eps, momentum = flat
    compiled = kernels_for(torch.float32, weight, bias, mean, var)
    if compiled is None:
        return None
    tensors = pointers(address, sums, weight, bias, *outputs[:2], mean, var, *outputs[2:])
    return Call(compiled.kernel("norm_forward"), Norm(sums.shape[1], count, eps, momentum, *tensors))


def _backward_outputs(sums: Tensor, weight: Any, bias: Any, *_: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(sums), new_like(weight, sums), new_like(bias, sums)


def _backward_call(flat: Sequence[Any], outputs: Sequence[Tensor], address: Address) -> Call | None:
    sums, weight, bias, count, eps, moments, grad_coefficients = flat
    compiled = kernels_for(torch.float32, weight, bias)
    if compiled is None:
        return None
    tensors = (sums, weight, bias, None, moments, None, None, None, None, grad_coefficients, *outputs)
    return Call(compiled.kernel("norm_backward"), Norm(sums.shape[1], count, eps, 0.0, *pointers(address, *tensors)))


NORM = register(
    f"norm({_BATCH}, Tensor? running_mean, Tensor? running_var, SymInt count, float eps, float momentum)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _outputs,
    _call,
    reference,
)
NORM_BACKWARD = register(
    f"norm_backward({_BATCH}, SymInt count, float eps, Tensor moments, Tensor grad_coefficients)"
    " -> (Tensor, Tensor, Tensor)",
    _backward_outputs,
    _backward_call,
    reference_backward,
)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    sums, weight, bias, _, _, *ctx.numbers, _ = inputs
    ctx.save_for_backward(sums, weight, bias, output[1])
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad_coefficients: Tensor, *_: Any) -> tuple[Any, ...]:
    sums, weight, bias, moments = ctx.saved_tensors
    grads = torch.ops.sepnet.norm_backward(sums, weight, bias, *ctx.numbers, moments, grad_coefficients)
    return grads[0], None if weight is None else grads[1], None if bias is None else grads[2], *([None] * 5)


torch.library.register_autograd("sepnet::norm", _backward, setup_context=_setup_context, lib=library)
