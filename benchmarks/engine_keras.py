"""A worker that trains the same network in Keras on TensorFlow, by ``model.fit``: float32, Keras's defaults.

Nothing of sepnet is imported: the network comes as the source that ``sepnet.keras_definition`` writes. Keras and
TensorFlow are all that its Python needs.
"""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import time
from typing import Any

from benchmarks.turns import Engine, Missing, serve


def prepare(job: dict[str, Any]) -> Engine:
    """Build the network and random images; a turn is one call of ``fit``, timed from the end of its first step."""
    try:
        import keras
        import numpy as np
        import tensorflow as tf
    except ImportError as error:
        raise Missing(f"Keras on TensorFlow is not installed in this Python ({error})") from error

    class Clock(keras.callbacks.Callback):
        """Stops after so many seconds."""

        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds
            self.began: float | None = None
            self.elapsed, self.images = 0.0, 0

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float(logs["loss"])  # the step is done when its loss is there
            now = time.perf_counter()
            if self.began is None:
                self.began = now
                return
            self.elapsed = now - self.began
            self.images += min(job["batch_size"], job["images"] - batch * job["batch_size"])
            if self.elapsed >= self.seconds:
                self.model.stop_training = True

    names: dict[str, Any] = {}
    exec(job["listing"], names)
    model, settings = names["model"], job["optimizer"]
    model.compile(optimizer=_optimizer(keras, settings), loss=model.loss, metrics=["accuracy"])
    channels, height, width = job["image_shape"]
    random = np.random.default_rng(0)
    images = random.random((job["images"], height, width, channels), dtype=np.float32)
    labels = random.integers(job["classes"], size=job["images"])

    def turn(seconds: float) -> tuple[int, float]:
        clock = Clock(seconds)
        model.fit(images, labels, batch_size=job["batch_size"], epochs=10**6, verbose=0, callbacks=[clock])
        return clock.images, clock.elapsed

    versions = {"keras": keras.__version__, "tensorflow": tf.__version__, "precision": "fp32"}
    return Engine(versions, {"turn": turn})


def _optimizer(keras: Any, settings: dict[str, Any]) -> Any:
    if settings["kind"] == "adam":
        return keras.optimizers.Adam(learning_rate=settings["lr"], epsilon=settings["eps"])
    return keras.optimizers.SGD(
        learning_rate=settings["lr"],
        momentum=settings["momentum"],
        nesterov=True,
        weight_decay=settings["weight_decay"] or None,
    )


if __name__ == "__main__":
    serve(prepare)
