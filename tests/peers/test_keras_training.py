"""The ``published`` recipe beside Keras itself: the same network, weights and order of images."""

import os

os.environ["KERAS_BACKEND"] = "torch"

from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from torch import nn

import sepnet
from sepnet.recipes.recipe import load_recipe
from tests.training.support import CLASSES, patterns

# Keras's own, of PyTorch's arrays under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, len(CLASSES)),
    )


def _keras_twin(model: nn.Module) -> keras.Model:
    """Return the same network in Keras, channels last, with the same weights."""
    twin = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.MaxPooling2D(2),
            keras.layers.Flatten(),
            keras.layers.Dense(len(CLASSES), activation="softmax"),
        ]
    )
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    twin.layers[0].set_weights([state["0.weight"].transpose(2, 3, 1, 0), state["0.bias"]])
    dense = state["5.weight"].reshape(len(CLASSES), 4, 4, 4).transpose(2, 3, 1, 0).reshape(64, len(CLASSES))
    twin.layers[4].set_weights([dense, state["5.bias"]])
    twin.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return twin


@pytest.mark.slow
def test_two_epochs_agree_with_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = _network(), patterns()
    twin = _keras_twin(model)
    monkeypatch.setattr(torch, "randperm", lambda count, **_: torch.arange(count))
    run = sepnet.train(
        model,
        data,
        load_recipe("published", epochs=2, batch_size=32, initializer="default"),
        precision="fp32",
        out=tmp_path,
    )
    to_keras = [
        (split.images.permute(0, 2, 3, 1).numpy() / 255).astype(np.float32) for split in (data.train, data.test)
    ]
    history = twin.fit(
        to_keras[0],
        data.train.labels.numpy(),
        batch_size=32,
        epochs=2,
        shuffle=False,
        verbose=0,
        validation_data=(to_keras[1], data.test.labels.numpy()),
    ).history
    history = {name: [float(value) for value in values] for name, values in history.items()}
    for index, epoch in enumerate(run.history):
        assert epoch.loss == pytest.approx(history["loss"][index], rel=2e-3)
        assert epoch.accuracy == pytest.approx(history["accuracy"][index], abs=1e-6)
        assert epoch.val_loss == pytest.approx(history["val_loss"][index], rel=5e-3)
    kernel = model.state_dict()["0.weight"].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_allclose(kernel, twin.layers[0].get_weights()[0], atol=2e-4)
    moving_mean = twin.layers[1].get_weights()[2]
    np.testing.assert_allclose(model.state_dict()["2.running_mean"].numpy(), moving_mean, atol=2e-4)
