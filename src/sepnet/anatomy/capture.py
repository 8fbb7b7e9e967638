"""Capture a network once, by ``torch.export``, for one image."""

from __future__ import annotations

import inspect
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.export
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from sepnet.errors import SepnetError, first_line, where

if TYPE_CHECKING:
    from torch.export import ExportedProgram

VALUES_DECIDE = ("GuardOnDataDependentSymNode", "DynamicOutputShapeException", "DataDependentOutputException")
"""The errors by which PyTorch says that the values in a tensor would have to be known."""


def capture(model: nn.Module, image_shape: tuple[int, int, int], network: str) -> ExportedProgram:
    """Return ``model`` in evaluation mode on one image ``(1, C, H, W)``, as a graph of ATen operators.

    Python runs once, with tensors that have shapes and no values; the model is left as it was.

    Raises:
        SepnetError: the network does not accept such an image, or decides by the values in a tensor.

    """
    like = next((one for one in model.parameters() if one.is_floating_point()), torch.zeros(()))
    image = torch.zeros(1, *image_shape, dtype=like.dtype, device=like.device)
    _require_plain(model, network)
    with _undisturbed(model), quiet():
        try:
            if any(isinstance(module, LazyModuleMixin) for module in model.modules()):
                with torch.no_grad():
                    model(image)
            return torch.export.export(model, (image,), strict=False)
        except Exception as error:
            raise SepnetError(_complaint(model, image, network, error)) from error


def _require_plain(model: nn.Module, network: str) -> None:
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            place = f"layer '{path}'" if path else "it"
            raise SepnetError(
                f"network '{network}' cannot be read: {place} is compiled by torch.jit, which hides its operations; "
                "give the network uncompiled"
            )
    for other in [*inspect.signature(model.forward).parameters.values()][1:]:
        if other.default is other.empty and other.kind in (other.POSITIONAL_ONLY, other.POSITIONAL_OR_KEYWORD):
            raise SepnetError(
                f"network '{network}' cannot be read: its forward also expects '{other.name}'; only the image is given"
            )


def _complaint(model: nn.Module, image: Tensor, network: str, error: Exception) -> str:
    """Return one line that names the layer and what went wrong in it: in PyTorch alone, if it fails there too."""
    values_decide = type(error).__name__ in VALUES_DECIDE
    if not values_decide:
        try:
            with torch.no_grad():
                model(image)
        except Exception as plain:  # whatever a stranger's module raises
            error = plain
    layer = _innermost(model, error)
    place = place_of(layer)
    if values_decide:
        return (
            f"network '{network}' cannot be read: {place} it decides by the values in a tensor; "
            "make the choice from shapes or settings instead"
        )
    reason = where(error) + (first_line(error) or type(error).__name__)
    advice = "; give it the image shape it was made for" if isinstance(error, RuntimeError) else ""
    size = "×".join(map(str, image.shape[1:]))
    return f"network '{network}' cannot be read: {place}, for an image {size}: {reason}{advice}"


def place_of(layer: str) -> str:
    """Return in words where something happens, by the path of a module, which is empty for the network itself."""
    return f"in layer '{layer}'" if layer else "in its own forward"


def _innermost(model: nn.Module, error: Exception) -> str:
    """Return the path of the module in whose code an error was raised."""
    paths = {id(module): path for path, module in model.named_modules()}
    frames = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((paths[id(owner)] for owner in reversed(frames) if id(owner) in paths), "")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep PyTorch's own warnings and logs of a capture or an export off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode; afterwards put back its mode, attributes, buffers and the random state."""
    modules = [module for module in model.modules() if not isinstance(module, LazyModuleMixin)]
    attributes = [(module, dict(vars(module))) for module in modules]
    buffers = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers(recurse=False)]
    with torch.random.fork_rng({parameter.get_device() for parameter in model.parameters() if parameter.is_cuda}):
        try:
            model.eval()
            yield
        finally:
            for module, before in attributes:
                vars(module).clear()
                vars(module).update(before)
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
