"""A worker that times each row of a training step in stock PyTorch: float32, NCHW, autograd, PyTorch's defaults.

The network's own modules are called one after the other, as its graph says. A row's backward pass begins when the
gradient of its output is there, and ends when the next row's begins.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from benchmarks.clock import BETWEEN, Clock
from benchmarks.engine_pytorch import build_optimizer
from benchmarks.outline import nodes_of, rows_of
from benchmarks.turns import Engine, serve
from sepnet.kernels.accelerate import Accelerated
from sepnet.networks import build


class Marked(fx.Interpreter):
    """A graph, computed node by node, that tells the clock which row it is in."""

    def __init__(self, model: nn.Module, graph: fx.Graph, rows: dict[fx.Node, int], clock: Clock) -> None:
        super().__init__(model, graph=graph)
        self._rows = rows
        self._clock = clock
        self._row: int | None = None
        self._value: Any = None

    def run_node(self, n: fx.Node) -> Any:
        row = self._rows.get(n)
        if row is not None and row != self._row:
            if self._row is not None and isinstance(self._value, Tensor) and self._value.requires_grad:
                self._value.register_hook(self._backward(self._row))
            self._clock.enter(f"forward {row}")
        self._row = row
        self._value = super().run_node(n)
        return self._value

    def _backward(self, row: int) -> Any:
        return lambda _: self._clock.enter(f"backward {row}")


def prepare(job: dict[str, Any]) -> Engine:
    """Build the network and random images."""
    torch.manual_seed(0)
    shape = tuple(job["image_shape"])
    model = build(job["network"], classes=job["classes"], image_shape=shape).train()
    plan = Accelerated(model).plan()
    assert plan is not None, "as it was outlined"
    rows = rows_of(plan)
    rest = len(rows) - 1
    clock = Clock()
    nodes = {node: number for number, row in enumerate(rows) for step in row for node in nodes_of(step)}
    network = Marked(model, plan.followed.graph, nodes, clock)
    images = torch.rand(job["images"], *shape)
    labels = torch.randint(job["classes"], (job["images"],))
    loss_function = nn.CrossEntropyLoss()
    optimizer = build_optimizer(model, job["optimizer"])

    def shuffled() -> Iterator[Tensor]:
        while True:
            yield from torch.randperm(len(images)).split(job["batch_size"])

    upcoming = shuffled()

    def train_batch() -> None:
        indices = next(upcoming)
        clock.enter("loading")
        batch, targets = images[indices], labels[indices]
        loss = loss_function(network.run(batch), targets)
        loss.register_hook(lambda _: clock.enter(f"backward {rest}"))
        clock.enter(BETWEEN)
        loss.backward()
        clock.enter("optimizer")
        optimizer.step()
        optimizer.zero_grad()
        clock.enter(BETWEEN)

    def turn(steps: int, counts: bool) -> tuple[int, float]:
        clock.run(train_batch, counts=False)
        return steps * job["batch_size"], sum(clock.run(train_batch, counts=counts) for _ in range(steps))

    versions = {"torch": torch.__version__, "precision": "fp32"}
    return Engine(versions, {"turn": turn, "part": lambda name: (job["batch_size"], clock.median(name))})


if __name__ == "__main__":
    serve(prepare)
