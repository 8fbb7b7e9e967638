"""Whether the Keras listing and the ``.keras`` file of a network compute what it computes."""

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import sepnet
from sepnet.errors import SepnetError
from sepnet.export.keras.file import keras_bytes
from sepnet.export.keras.plan import plan

TOLERANCE = 1e-4
"""Of the largest output, where that is above 1."""


def check(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return by how much the outputs of the file, and of the listing given its weights, differ from PyTorch's.

    Raises:
        SepnetError: the network is refused.

    """
    os.environ.setdefault("KERAS_BACKEND", "torch")
    draw_anew(model)
    source = sepnet.keras_definition(model, image_shape=image_shape)
    pixels = torch.rand(2, *image_shape, generator=torch.Generator().manual_seed(1)) * 255
    with torch.no_grad():
        expected = _first(model((pixels / 255).clone())).numpy()
    try:
        by_file, by_listing = _outputs(model, source, image_shape, pixels.permute(0, 2, 3, 1).numpy())
    except SepnetError:
        raise
    except Exception as error:
        return {
            "wrong": f"does not run: {type(error).__name__}: {str(error).strip().splitlines()[:1]}",
            "difference": None,
        }
    if expected.ndim == 4:
        expected = expected.transpose(0, 2, 3, 1)
    differences = [
        float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
        if found.shape == expected.shape
        else float("inf")
        for found in (by_file, by_listing)
    ]
    names = ("the file", "the listing")
    wrong = [f"{name} differs by {d:.1e}" for name, d in zip(names, differences, strict=True) if not d <= TOLERANCE]
    return {"wrong": "; ".join(wrong), "difference": max(differences)}


def draw_anew(model: nn.Module) -> None:
    """Draw weights and moving statistics so that signals stay alive and none is neutral; go to evaluation mode."""
    torch.manual_seed(3)
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
            else:
                parameter.uniform_(0.3, 1.2)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
                module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
                module.running_var.uniform_(0.3, 3.0)


def _outputs(model: nn.Module, source: str, image_shape: tuple[int, int, int], pixels: Any) -> list[Any]:
    channels = image_shape[0]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own, of PyTorch's arrays under NumPy 2
        path = Path(folder) / "network.keras"
        path.write_bytes(keras_bytes(plan(model, image_shape), mean=[0.0] * channels, std=[1.0] * channels))
        import keras

        file = keras.models.load_model(path)
        names: dict[str, Any] = {}
        exec(compile(source, "listing", "exec"), names)
        listing = names["model"]
        listing.set_weights(file.get_weights())
        return [
            keras.ops.convert_to_numpy(_first(built(images, training=False)))
            for built, images in ((file, pixels), (listing, pixels / 255))
        ]


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, (list, tuple)) else output
