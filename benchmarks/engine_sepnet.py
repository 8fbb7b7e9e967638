"""A worker that trains with sepnet's own step, by a recipe."""

import tempfile
from pathlib import Path
from typing import Any

import torch

import sepnet
from benchmarks.turns import Engine, repeat, serve
from sepnet.backend import describe, keep_freed_memory
from sepnet.recipes.recipe import load_recipe
from sepnet.speed.synthetic_data import batches, random_dataset, training_step
from sepnet.training.experiment import resolve_precision


def prepare(job: dict[str, Any]) -> Engine:
    """Build the network and random images; ``epoch`` is a real run's second one, validation and saving included."""
    keep_freed_memory()
    torch.set_flush_denormal(True)
    network, images = job["network"], job["images"]
    channels, height, width = job["image_shape"]
    dataset = random_dataset((channels, height, width), job["classes"], images, max(1, images // 5))
    recipe = load_recipe(job["recipe"], batch_size=job["batch_size"], first_size=1.0)  # the peers' images have one size
    precision = resolve_precision("auto", "cpu")
    step = training_step(network, dataset, recipe, device="cpu", precision=precision)
    upcoming = batches(step)

    def train_batch() -> int:
        indices, epoch, number = next(upcoming)
        step(indices, epoch, number)
        return len(indices)

    def epoch() -> tuple[int, float]:
        with tempfile.TemporaryDirectory() as folder:
            run = sepnet.train(network, dataset, recipe, epochs=2, device="cpu", out=Path(folder))
            return images, run.history[-1].seconds

    versions = {"sepnet": sepnet.__version__, "torch": torch.__version__, "precision": precision}
    versions["computed_by"] = describe(precision=step.precision)
    return Engine(versions, {"turn": lambda seconds: repeat(train_batch, seconds), "epoch": epoch})


if __name__ == "__main__":
    serve(prepare)
