"""A Keras model with trained weights, and the ``.keras`` file that holds it."""

import contextlib
import io
import json
import os
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sepnet.errors import SepnetError, first_line
from sepnet.export.keras.builder import KerasLayer
from sepnet.export.keras.plan import KerasPlan

SUFFIX = ".keras"
MARK = "sepnet_"
"""How the names of the models in sepnet's files begin."""
NOTES = "sepnet.json"
"""The file of a ``.keras`` archive that holds what Keras has no place for."""
BATCH = 500


def to_keras(plan: KerasPlan, *, mean: Sequence[float], std: Sequence[float]) -> Any:
    """Return a compiled ``keras.Model`` with the plan's weights, for raw pixels ``(N, H, W, C)`` in 0 … 255.

    Its first layer turns pixels into ``(x / 255 − mean) / std``, for each channel. ``KERAS_BACKEND`` is taken as
    it is; where it is unset, the backend is PyTorch.

    Raises:
        SepnetError: Keras is not installed.

    """
    keras = _import_keras()
    pixels = keras.Input(plan.image)
    scale, offset = [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
    tensors = {0: keras.layers.Rescaling(scale=scale, offset=offset)(pixels)}
    layers: dict[int, Any] = {}
    for layer in plan.layers:
        inputs = [tensors[source] for source in layer.inputs]
        tensors[layer.output] = _apply(keras, layer, inputs, layers)
    name = MARK + "".join(letter if letter.isalnum() else "_" for letter in plan.network)
    model = keras.Model(pixels, tensors[plan.output], name=name)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not plan.gives_probabilities)
    model.compile(optimizer="sgd", loss=loss, metrics=["accuracy"])  # no state to save, as Adam would have
    return model


def keras_bytes(
    plan: KerasPlan,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    notes: Mapping[str, str] = MappingProxyType({}),
    comment: str = "",
) -> bytes:
    """Return the ``.keras`` file of a network.

    ``notes`` become a JSON file of its ZIP archive, and ``comment`` the archive's: Keras reads neither.

    Raises:
        SepnetError: Keras is not installed, or the clock is before the first date of a ZIP archive.

    """
    if time.localtime().tm_year < 1980:
        raise SepnetError(
            f"this machine's clock says {time.localtime().tm_year}, and a {SUFFIX} file, a ZIP archive, holds no date "
            "before 1980: set the clock"
        )
    with tempfile.TemporaryDirectory() as folder, quiet_keras():
        file = Path(folder) / f"model{SUFFIX}"
        to_keras(plan, mean=mean, std=std).save(file)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr(NOTES, json.dumps(dict(notes)))
            archive.comment = comment.encode()
        return file.read_bytes()


def open_model(content: bytes) -> Any:
    """Return the model in a ``.keras`` file, which runs no code of the file's own.

    Raises:
        SepnetError: Keras is not installed.

    """
    keras = _import_keras()
    with tempfile.TemporaryDirectory() as folder, quiet_keras():
        file = Path(folder) / f"model{SUFFIX}"
        file.write_bytes(content)
        return keras.models.load_model(file, compile=False, safe_mode=True)


def scores(model: Any, images: Tensor) -> Tensor:
    """Return a model's scores ``(N, classes)``, float32, of images ``(N, C, H, W)``, uint8."""
    with quiet_keras():
        parts = [model.predict_on_batch(batch.permute(0, 2, 3, 1).numpy()) for batch in images.split(BATCH)]
    return torch.from_numpy(np.concatenate(parts))


def read_notes(content: bytes) -> dict[str, str]:
    """Return the notes of a ``.keras`` file."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        notes: dict[str, str] = json.loads(archive.read(NOTES))
        return notes


def computes_by_torch() -> bool:
    """Say whether PyTorch, whose threads can be limited, is what Keras computes by."""
    return bool(_import_keras().backend.backend() == "torch")


@contextlib.contextmanager
def quiet_keras() -> Iterator[None]:
    """Hide Keras's own warnings, of PyTorch's arrays under NumPy 2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_ours(content: bytes) -> bool:
    """Say whether sepnet wrote a ``.keras`` file."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            name = json.loads(archive.read("config.json"))["config"]["name"]
    except (zipfile.BadZipFile, OSError, KeyError, TypeError, ValueError):
        return False
    return str(name).startswith(MARK)


def _apply(keras: Any, layer: KerasLayer, inputs: list[Any], layers: dict[int, Any]) -> Any:
    """Return the result of one call; the first one makes the layer and gives it its weights."""
    if layer.kind == "slice":
        return inputs[0][(slice(None), *layer.settings["ranges"])]
    if not layer.is_layer:
        return getattr(keras.ops, layer.kind.removeprefix("ops."))(*inputs, **layer.settings)
    made = layer.identity not in layers
    if made:
        layers[layer.identity] = getattr(keras.layers, layer.kind)(**layer.settings)
    result = layers[layer.identity](inputs if len(inputs) > 1 else inputs[0])
    if made and layer.weights:
        layers[layer.identity].set_weights(list(layer.weights))
    return result


def _import_keras() -> Any:
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ModuleNotFoundError as error:
        command = f"{sys.executable} -m pip install {error.name}"
        raise SepnetError(f"{error.name} cannot be imported: install it with `{command}`") from error
    except (ImportError, ValueError) as error:
        backend = os.environ.get("KERAS_BACKEND")
        raise SepnetError(
            f"Keras cannot start ({first_line(error)}): KERAS_BACKEND is '{backend}', expected torch or another "
            "backend that is installed"
        ) from error
    return keras
