"""The namespace ``torch.ops.sepnet``: how an operator is declared, and what its declarations share.

An operator is told once: by its schema, its outputs (allocated, not yet computed), its kernel's call, and its
reference meaning in plain PyTorch. PyTorch's dispatcher and the executor's plans are made from that.
"""

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sepnet.backend.native import Native, native

library = torch.library.Library("sepnet", "DEF")

Address = Callable[[Tensor], int]
"""From a tensor to what stands for its address in a kernel's arguments."""


@dataclass(frozen=True)
class Call:
    """A kernel and the structure of its arguments."""

    kernel: Any
    arguments: ctypes.Structure


@dataclass(frozen=True)
class Operator:
    """One functional operator that a kernel computes."""

    schema: str
    outputs: Callable[..., Any]
    """From the operator's arguments to its outputs, allocated: a tensor or a tuple of them."""
    call: Callable[..., Call | None]
    """From the arguments, the tuple of outputs and :data:`Address` to the kernel's call; None where there is none."""
    reference: Callable[..., Any]
    """The outputs in plain PyTorch."""
    images: frozenset[int]
    """Which arguments are images ``(N, C, H, W)``, channels innermost in memory; all other tensors are contiguous."""

    @property
    def name(self) -> str:
        """Its name in ``torch.ops.sepnet``."""
        return self.schema[: self.schema.index("(")]

    @property
    def overload(self) -> Any:
        """The operator as it stands in graphs."""
        return getattr(torch.ops.sepnet, self.name).default

    def ordered(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments with each tensor in the kernels' memory format, copied only if it must be."""
        return tuple(
            value
            if not isinstance(value, Tensor)
            else channels_last(value)
            if index in self.images
            else value.contiguous()
            for index, value in enumerate(arguments)
        )

    def __call__(self, *arguments: Any) -> Any:
        """Compute the operator on the processor."""
        ordered = self.ordered(arguments)
        outputs = self.outputs(*ordered)
        call = self.call(ordered, outputs if isinstance(outputs, tuple) else (outputs,), Tensor.data_ptr)
        if call is None:
            return self.reference(*arguments)
        call.kernel(ctypes.byref(call.arguments))
        return outputs


OPERATORS: dict[Any, Operator] = {}
"""By their overloads."""


def register(schema: str, outputs: Any, call: Any, reference: Any, images: frozenset[int] = frozenset()) -> Operator:
    """Declare an operator to PyTorch."""
    operator = Operator(schema, outputs, call, reference, images)
    library.define(schema)
    library.impl(operator.name, operator, "CPU")
    torch.library.register_fake(f"sepnet::{operator.name}", outputs, lib=library)
    OPERATORS[operator.overload] = operator
    return operator


def channels_last(tensor: Tensor) -> Tensor:
    """Return ``(N, C, H, W)`` with channels innermost in memory, copied only if it must be; others as they are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def new_image(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Return an uninitialized ``(N, channels, height, width)``, channels innermost in memory."""
    shape = (like.shape[0], channels, height, width)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def new_like(tensor: Tensor | None, like: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Return an uninitialized tensor like the first; an empty one where there is none: operators cannot return None."""
    return like.new_empty(0) if tensor is None else torch.empty_like(tensor, memory_format=layout)


new_image_like = functools.partial(new_like, layout=torch.channels_last)


def gradients(
    function: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor | None], grads: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Return a reference's gradients by its tensors, by PyTorch's autograd; empty tensors for those that are missing.

    ``grads`` are those by its outputs: None or empty for one that nothing depends on, as are outputs beyond them.
    """
    with torch.enable_grad():
        given = [None if tensor is None else tensor.detach().requires_grad_() for tensor in tensors]
        made = [(y, grad) for y, grad in zip(function(*given), grads, strict=False) if y.requires_grad]
        wanted = [tensor for tensor in given if tensor is not None]
        outputs = [y for y, _ in made]
        by_outputs = [torch.zeros_like(y) if grad is None or not grad.numel() else grad for y, grad in made]
        found = iter(torch.autograd.grad(outputs, wanted, by_outputs, allow_unused=True, materialize_grads=True))
    return tuple(outputs[0].new_empty(0) if tensor is None else next(found) for tensor in given)


def kernels_for(dtype: torch.dtype, *float32: Tensor | None) -> Native | None:
    """Return the library, if it computes images of this type and the other tensors that there are are float32."""
    compiled = native()
    whole = all(tensor is None or tensor.dtype == torch.float32 for tensor in float32)
    return compiled if compiled and compiled.computes(dtype) and whole else None


def pointers(address: Address, *tensors: Tensor | None) -> list[int | None]:
    """Return the addresses of tensors; none for one that is missing or empty."""
    return [None if tensor is None or not tensor.numel() else address(tensor) for tensor in tensors]
