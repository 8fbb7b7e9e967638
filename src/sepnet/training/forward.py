"""A network's logits, as a run's validation computes them: shared, so that its figures come out again later."""

import contextlib
import copy
import gc
import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from sepnet.backend import keep_freed_memory

BATCH = 500
"""Images at a time."""


def lay_out(
    model: nn.Module, image_shape: Sequence[int], device: torch.device
) -> tuple[nn.Module, torch.memory_format]:
    """Move a model to the device and into the memory format that it is computed in; return both.

    That is channels_last, the faster one, unless the model fails in it, as ``x.view(-1, 1176)`` does, and not in
    PyTorch's default. Both passes are tried on a copy, with two images ``(C, H, W)``.
    """
    trial = copy.deepcopy(model).to(device)
    layout = torch.channels_last
    if not _computes(trial, image_shape, layout) and _computes(trial, image_shape, torch.contiguous_format):
        layout = torch.contiguous_format
    return model.to(device, memory_format=layout), layout  # type: ignore[call-overload]


def _computes(model: nn.Module, image_shape: Sequence[int], layout: torch.memory_format) -> bool:
    """Tell whether a model computes images in a memory format, in evaluation and in training, and their gradients."""
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    parameter = next(model.parameters(), torch.zeros(0))
    images = torch.zeros(2, *image_shape, device=parameter.device).contiguous(memory_format=layout)
    try:
        with torch.enable_grad(), torch.random.fork_rng():
            for training in (False, True):
                output = model.train(training)(images)
            if isinstance(output, Tensor) and output.requires_grad:
                output.sum().backward()
    except Exception:  # whatever the model's code raises
        return False
    return True


class Normalizer:
    """Turns pixels 0 … 255 into what a run's network takes: ``(x / 255 − mean) / std``, channel by channel."""

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        self._layout = layout
        scale = [1 / (255 * deviation) for deviation in std]
        shift = [-m / deviation for m, deviation in zip(mean, std, strict=True)]
        self._scale, self._shift = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (scale, shift))

    def __call__(self, images: Tensor) -> Tensor:
        """Return images ``(B, C, H, W)``, uint8, as float32 in the memory format that the network takes."""
        return images.float().mul_(self._scale).add_(self._shift).contiguous(memory_format=self._layout)


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
