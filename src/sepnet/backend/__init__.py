"""The ``torch.compile`` backend ``sepnet``: separable networks by sepnet's kernels on the processor."""

import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn

from sepnet.backend import native
from sepnet.backend.allocator import keep_freed_memory
from sepnet.backend.native import describe
from sepnet.notices import notice_once

__all__ = ["backend", "compile", "describe", "keep_freed_memory", "network"]

_OWN: Any = {"isolate_recompiles": True} if "isolate_recompiles" in inspect.signature(torch.compile).parameters else {}


def backend(module: Any, inputs: Sequence[Any], **_: Any) -> Callable[..., Any]:
    """Compile a graph for ``torch.compile(model, backend="sepnet")``; Dynamo calls this."""
    from sepnet.backend.compiler import compile_graph  # which imports Dynamo: half a second

    return compile_graph(module, inputs)


def compile(model: nn.Module) -> nn.Module:
    """Return ``torch.compile(model, backend="sepnet")``: the same network, faster, in training and in evaluation.

    Where there are no kernels for this machine it is the model itself, and that is said.
    """
    if native.native() is None:
        notice_once(f"computing with {describe()}")
        return model
    return cast(nn.Module, torch.compile(model, backend=backend, **_OWN))


def network(model: nn.Module, device: torch.device, *, varying: Sequence[int] = (0,)) -> Callable[[Tensor], Tensor]:
    """Return what computes a model on a device: compiled on the processor, as it is elsewhere.

    ``varying`` are the dimensions of images ``(N, C, H, W)`` that change from call to call: one graph serves all sizes.
    """
    if device.type != "cpu" or native.native() is None:
        return model

    def forward(images: Tensor) -> Tensor:
        return cast(Tensor, model(images))

    compiled: Any = compile(model)
    if not _OWN:  # before PyTorch 2.13 networks of one class share the limit of recompilations, with its code
        code = forward.__code__.replace(co_name=f"forward_{id(forward)}")
        compiled = torch.compile(FunctionType(code, globals(), closure=forward.__closure__), backend=backend)

    def run(images: Tensor) -> Tensor:
        if torch.nn.modules.module._has_any_global_hook():  # which Dynamo does not guard against
            return forward(images)
        torch._dynamo.maybe_mark_dynamic(images, list(varying))
        return compiled(images)

    return run
