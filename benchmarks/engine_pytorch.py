"""A worker that trains the same modules in stock PyTorch: float32, NCHW, an ordinary loop, PyTorch's defaults.

sepnet builds the network and, where the job says so, tells the C library to keep freed memory; no more of it is used.
The images lie in memory as ready float32 batches are cut from them: no augmentation, no loader.
"""

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.turns import Engine, repeat, serve
from sepnet.backend import keep_freed_memory
from sepnet.networks import build

VALIDATION_BATCH = 500  # as sepnet's


def prepare(job: dict[str, Any]) -> Engine:
    """Build the network and random images; ``epoch`` is the second of two, validation included."""
    if job["keep_freed_memory"]:
        keep_freed_memory()
    torch.manual_seed(0)
    shape = tuple(job["image_shape"])
    model = build(job["network"], classes=job["classes"], image_shape=shape).train()
    images = torch.rand(job["images"], *shape)
    labels = torch.randint(job["classes"], (job["images"],))
    loss_function = nn.CrossEntropyLoss()
    optimizer = build_optimizer(model, job["optimizer"])
    correct = 0

    def train_batch(indices: Tensor) -> int:
        nonlocal correct
        logits = model(images[indices])
        loss = loss_function(logits, labels[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        correct += int((logits.argmax(1) == labels[indices]).sum())
        return len(indices)

    def shuffled() -> Iterator[Tensor]:
        while True:
            yield from torch.randperm(len(images)).split(job["batch_size"])

    def epoch() -> tuple[int, float]:
        for _ in range(2):
            began = time.perf_counter()
            for indices in torch.randperm(len(images)).split(job["batch_size"]):
                train_batch(indices)
            with torch.no_grad():
                model.eval()
                for batch in images[: max(1, len(images) // 5)].split(VALIDATION_BATCH):
                    model(batch)
                model.train()
            seconds = time.perf_counter() - began
        return len(images), seconds

    upcoming = shuffled()

    def turn(seconds: float) -> tuple[int, float]:
        return repeat(lambda: train_batch(next(upcoming)), seconds)

    return Engine({"torch": torch.__version__, "precision": "fp32"}, {"turn": turn, "epoch": epoch})


def build_optimizer(model: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Return Adam or SGD with Nesterov momentum over all parameters, in PyTorch's default implementation."""
    if settings["kind"] == "adam":
        return torch.optim.Adam(model.parameters(), lr=settings["lr"], eps=settings["eps"])
    return torch.optim.SGD(
        model.parameters(),
        lr=settings["lr"],
        momentum=settings["momentum"],
        nesterov=True,
        weight_decay=settings["weight_decay"],
    )


if __name__ == "__main__":
    serve(prepare)
