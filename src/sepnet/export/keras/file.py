"""A Keras model with trained weights, and the ``.keras`` file that holds it."""

import json
import os
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sepnet.errors import SepnetError, first_line
from sepnet.export.keras.builder import KerasLayer
from sepnet.export.keras.plan import KerasPlan
from sepnet.files import open_regular, write_atomically
from sepnet.notices import notice

SUFFIX = ".keras"
MARK = "sepnet_"
"""How the names of the models in sepnet's files begin."""


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


def write_keras(plan: KerasPlan, path: Path, *, mean: Sequence[float], std: Sequence[float]) -> None:
    """Write the ``.keras`` file of a network; one that sepnet wrote before is replaced, and it says so.

    Raises:
        SepnetError: the name does not end in ``.keras``, the folder does not exist, another's file is there, or
            it could not be written.

    """
    if path.suffix != SUFFIX:
        raise SepnetError(f"'{path}' does not end in {SUFFIX}, without which Keras opens no file: name it so")
    if not path.parent.is_dir():
        raise SepnetError(f"folder '{path.parent}' does not exist: make it, or choose another --out")
    if time.localtime().tm_year < 1980:
        raise SepnetError(
            f"this machine's clock says {time.localtime().tm_year}, and a {SUFFIX} file, a ZIP archive, holds no date "
            "before 1980: set the clock"
        )
    if path.exists():
        if not _is_ours(path):
            raise SepnetError(f"'{path}' exists and is not sepnet's: move it away, or choose another --out")
        notice(f"replacing {path}")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras's own, of PyTorch's arrays under NumPy 2
        model = to_keras(plan, mean=mean, std=std)
        file = Path(folder) / f"model{SUFFIX}"
        model.save(file)
        content = file.read_bytes()
    write_atomically(path, content)


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


def _is_ours(path: Path) -> bool:
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            name = json.loads(archive.read("config.json"))["config"]["name"]
    except (SepnetError, zipfile.BadZipFile, OSError, KeyError, TypeError, ValueError):
        return False
    return str(name).startswith(MARK)
