"""A network's logits, as a run's validation computes them: shared, so that its figures come out again later."""

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sepnet.kernels import keep_freed_memory

BATCH = 500
"""Images at a time."""


class Normalizer:
    """Turns pixels 0 … 255 into what a run's network takes: ``(x / 255 − mean) / std``, channel by channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        scale = [1 / (255 * deviation) for deviation in std]
        shift = [-m / deviation for m, deviation in zip(mean, std, strict=True)]
        self._scale, self._shift = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (scale, shift))

    def __call__(self, images: Tensor) -> Tensor:
        """Return images ``(B, C, H, W)``, uint8, as float32 in the same memory format."""
        return images.float().mul_(self._scale).add_(self._shift)


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[object]:
    """Compute products in a run's precision, ``bf16`` or ``fp32``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def infer(network: Callable[[Tensor], Tensor], images: Tensor, precision: str) -> Tensor:
    """Return a network's logits ``(B, classes)`` on normalized images ``(B, C, H, W)``, in float32."""
    with torch.inference_mode(), autocast(images.device, precision):
        return network(images).float()


@contextlib.contextmanager
def process_settings() -> Iterator[None]:
    """Set what computing on a processor wants.

    Freed memory is kept for reuse, from then on; numbers too small for a normal float, with which processors compute
    much slower, count as 0 meanwhile; and Python's garbage collector does not look through what is there already,
    PyTorch's half a million objects.
    """
    keep_freed_memory()
    gc.freeze()
    flushed = sys.float_info.min * 0.5 == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)
        gc.unfreeze()
