"""A worker that times each row of sepnet's own training step, by a recipe; and what the processor can do at most.

A row's time is that inside sepnet's kernels. The last row, PyTorch's, is timed as a whole: forward until the loss is
there, backward until the first kernel of the row before it is called.
"""

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import sepnet
from benchmarks.clock import BETWEEN, Clock
from benchmarks.outline import Calls, plan_of, rows_of
from benchmarks.turns import Engine, serve
from sepnet.jobs import resolve_precision
from sepnet.kernels import describe, keep_freed_memory
from sepnet.rehearsal import batches, random_dataset, training_step
from sepnet.training.recipe import load_recipe

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def prepare(job: dict[str, Any]) -> Engine:
    """Build the network and random images."""
    keep_freed_memory()
    torch.set_flush_denormal(True)
    channels, height, width = job["image_shape"]
    dataset = random_dataset((channels, height, width), job["classes"], job["images"], 1)
    recipe = load_recipe(job["recipe"], batch_size=job["batch_size"], first_size=1.0)  # the peers' images have one size
    precision = resolve_precision("auto", "cpu")
    step = training_step(job["network"], dataset, recipe, device="cpu", precision=precision)
    step.gradients = step.find_gradients  # call by call, each of which is known, not repeated as noted
    plan = plan_of(step.network)
    assert plan is not None, "as it was outlined"
    rest = len(rows_of(plan)) - 1
    clock = Clock()
    calls = Calls(plan, lambda row: clock.enter(f"forward {row}") if row == rest else None)

    @contextlib.contextmanager
    def timed(way: str, row: int, *_: ctypes.Structure | torch.dtype | None) -> Iterator[None]:
        if row == rest:  # which runs already, and goes on
            yield
            return
        clock.enter(f"{way} {row}")
        yield
        clock.enter(BETWEEN)

    def end_of_forward(_: object, __: object, loss: Tensor) -> None:
        clock.enter(BETWEEN)
        loss.register_hook(lambda _: clock.enter(f"backward {rest}"))

    step.loss_function.register_forward_hook(end_of_forward)
    parts: list[tuple[object, str, str]] = [(step, "batch", "loading"), (step.optimizer, "step", "optimizer")]
    if step.average:
        parts.append((step.average, "update", "optimizer"))
    for owner, method, name in parts:
        setattr(owner, method, _within(clock, name, getattr(owner, method)))
    upcoming = batches(step)

    def train_batch() -> None:
        indices, epoch, number = next(upcoming)
        with calls.heard(timed):
            step(indices, epoch, number)

    def turn(steps: int, counts: bool) -> tuple[int, float]:
        clock.run(train_batch, counts=False)
        return steps * job["batch_size"], sum(clock.run(train_batch, counts=counts) for _ in range(steps))

    versions = {"sepnet": sepnet.__version__, "torch": torch.__version__, "precision": precision}
    versions["computed_by"] = describe(step.network, precision=step.precision)
    commands: dict[str, Callable[..., tuple[int, float]]] = {
        "turn": turn,
        "part": lambda name: (job["batch_size"], clock.median(name)),
        "product": product,
        "copy": copy,
    }
    return Engine(versions, commands)


def _within(clock: Clock, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        with clock.within(name):
            return work(*arguments, **options)

    return timed


def product(size: int, precision: str) -> tuple[int, float]:
    """Return the seconds of a product of two square matrices, after one that is not timed."""
    left, right = (torch.randn(size, size).to(DTYPES[precision]) for _ in range(2))
    out = torch.empty_like(left)
    return 0, _second(lambda: torch.mm(left, right, out=out))


def copy(mib: int) -> tuple[int, float]:
    """Return the seconds of a copy of so many MiB from one place to another, after one that is not timed."""
    source = torch.ones(mib * 2**20, dtype=torch.uint8)  # not zeros, which the system need not keep
    target = torch.empty_like(source)
    return 0, _second(lambda: target.copy_(source))


def _second(work: Callable[[], object]) -> float:
    work()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    serve(prepare)
