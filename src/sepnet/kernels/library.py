"""The namespace ``torch.ops.sepnet``, and what its operators share."""

import torch
import torch.utils._python_dispatch
from torch import Tensor, nn

from sepnet.kernels.recording import Recorder

library = torch.library.Library("sepnet", "DEF")


def observed(tensor: Tensor) -> bool:
    """Tell whether someone looks at the operators called: a compiler, a counter of operations, an export.

    They must see ``torch.ops.sepnet``. Otherwise the kernels are called past PyTorch's dispatcher, which for the
    forty operators of a small network's step takes longer than some of them.
    """
    return (
        type(tensor) not in (Tensor, nn.Parameter)
        or torch.compiler.is_compiling()
        or not isinstance(torch.utils._python_dispatch._get_current_dispatch_mode(), Recorder | None)
    )


def channels_last(tensor: Tensor) -> Tensor:
    """Return ``(N, C, H, W)`` with channels innermost in memory, copied only if it must be."""
    return tensor.contiguous(memory_format=torch.channels_last)


def new_image(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Return an uninitialized ``(N, channels, height, width)``, channels innermost in memory."""
    shape = (like.shape[0], channels, height, width)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def or_empty(tensor: Tensor | None, like: Tensor) -> Tensor:
    """Return the tensor, or an empty one in its place: operators cannot return None."""
    return like.new_empty(0) if tensor is None else tensor
