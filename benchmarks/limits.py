"""A training step of sepnet's, kernel by kernel, beside the least time that the processor allows for each.

``python -m benchmarks.limits``. The limit of a kernel is the larger of two times:

- arithmetic: 2 × multiplications of the pointwise layer / the rate of a large product of matrices in sepnet's
  precision, plus 2 × those of the depthwise layer / the rate of one in float32. Backward has them twice, for the
  gradients of the input and of the weights; a layer whose input needs no gradient only for the latter;
- memory: bytes / the rate of a large copy, of which reading and writing count. Every image that the kernel is given or
  makes counts once; what is in cache already can be had faster than memory allows.

Kernels of one step are called one by one here, so that each can be timed; in training they are one call.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.record import at_least_one, context, described, finish, save
from benchmarks.tables import figure, markdown
from sepnet.backend import describe, executor, keep_freed_memory
from sepnet.backend.launch import Launch
from sepnet.backend.native import Pool, Stage, native
from sepnet.errors import SepnetError
from sepnet.notices import notice
from sepnet.speed.synthetic_data import batches, random_dataset, training_step
from sepnet.training.experiment import resolve_precision, resolve_recipe

IMAGE_SHAPE, CLASSES, IMAGES = (3, 32, 32), 10, 2_000
STEPS = 4
"""Timed in each round."""
PRODUCTS = (1024, 2048, 4096)
"""Rows and columns of the matrices; the size with the best median counts."""
COPY_MIB = 512
IMAGE_FIELDS = ("x", "residual", "y", "middle", "given", "grad_y", "grad_given", "grad_x", "grad_residual")


@dataclass
class Row:
    """One kernel of a step: what it is given, its work, and its seconds in each step."""

    title: str
    products: int
    depthwise: int
    bytes: int
    seconds: list[float] = field(default_factory=list)


def row(name: str, arguments: Any, itemsize: int) -> Row:
    """Return a kernel's row from its arguments."""
    stage: Any = arguments.stage if isinstance(arguments, Pool) else arguments
    if not isinstance(stage, Stage):
        return Row(name, 0, 0, 0)
    before, after = stage.images * stage.height * stage.width, stage.images * stage.out_height * stage.out_width
    deep = after * stage.channels * stage.kernel_rows * stage.kernel_columns if stage.depthwise else 0
    wide = after * stage.channels * stage.out_channels if stage.pointwise else 0
    by_input = bool(stage.grad_x or stage.grad_coefficients or stage.grad_residual)
    if "backward" in name:
        deep, wide = deep * (1 + by_input), wide * (1 + (by_input or bool(stage.depthwise)))
    sizes = {
        **dict.fromkeys(("y", "grad_y"), after * stage.out_channels),
        "middle": after * stage.channels,
    }
    values = sum(sizes.get(each, before * stage.channels) for each in IMAGE_FIELDS if getattr(stage, each))
    shape = f"{stage.channels}×{stage.height}×{stage.width} → {stage.out_channels}×{stage.out_height}×{stage.out_width}"
    return Row(f"{name} {shape}", wide, deep, values * itemsize)


class Timed(Launch):
    """A launch whose kernels are called one by one, each timed into its row."""

    rows: list[Row]
    """Of all launches, in the order in which they are first called."""
    itemsize: int

    def __init__(self, calls: Sequence[Any], given: Sequence[Any], sizes: Mapping[Any, int]) -> None:
        super().__init__(calls, given, sizes)
        self._mine = [row(_name(call.kernel), call.arguments, self.itemsize) for call, _ in calls]
        self.rows += self._mine
        table = self._table.reshape(-1, 2)
        single = [ctypes.c_void_p(table[index : index + 1].ctypes.data) for index in range(len(table))]
        run = self._run

        def timed(_: Any, __: Any, words: ctypes.c_void_p) -> None:
            for mine, one in zip(self._mine, single, strict=True):
                began = time.perf_counter()
                run(one, ctypes.c_int64(1), words)
                mine.seconds.append(time.perf_counter() - began)

        self._run = timed


def _name(kernel: Any) -> str:
    return str(kernel.__name__).removeprefix("sepnet_").rsplit("_", 1)[0].replace("_", " ")


def main() -> None:
    """Measure, print the table and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="published", metavar="NAME", help="or path/to/file.py:NAME")
    parser.add_argument("--batch-size", type=at_least_one, default=128)
    parser.add_argument("--repeats", type=at_least_one, default=7, help="rounds that count, after one that does not")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), metavar="FOLDER")
    options = parser.parse_args()
    record = context("benchmarks.limits", options)
    if native() is None:
        raise SepnetError(f"computing with {describe()}: there are no kernels to measure")
    record |= {"network": options.network, "batch_size": options.batch_size}
    record |= measure(options.network, options.batch_size, options.repeats)
    save(options.out, f"limits-{options.network.rpartition(':')[2]}", record, to_markdown(record))


def measure(network: str, batch_size: int, repeats: int) -> dict[str, Any]:
    """Return a step's seconds and each kernel's, medians, the processor's rates, and the limits by these."""
    precision = resolve_precision("auto", "cpu")
    keep_freed_memory()
    torch.set_flush_denormal(True)
    dataset = random_dataset(IMAGE_SHAPE, CLASSES, max(IMAGES, batch_size), 1)
    recipe = resolve_recipe(network, None, batch_size=batch_size, first_size=1.0)
    Timed.rows, Timed.itemsize = [], 2 if precision == "bf16" else 4
    with mock.patch.object(executor, "Launch", Timed):
        step = training_step(network, dataset, recipe, device="cpu", precision=precision)
        upcoming = batches(step)
        for _ in range(3):  # compiled, planned, and once as it will be
            step(*next(upcoming))
        whole: list[float] = []
        rates: dict[str, list[float]] = {}
        for number in range(repeats + 1):
            notice(f"round {number} of {repeats}" if number else "a round that does not count")
            for _ in range(STEPS):
                began = time.perf_counter()
                step(*next(upcoming))
                whole.append(time.perf_counter() - began)
            for name, rate in measure_rates(precision):
                rates.setdefault(name, []).append(rate)
            if number == 0:
                whole.clear()
                rates.clear()
                for each in Timed.rows:
                    each.seconds.clear()
    known = {name: statistics.median(values) for name, values in rates.items()}
    best = {kind: max(v for name, v in known.items() if name.startswith(kind)) for kind in (precision, "fp32", "copy")}
    kernels = [_figures(each, precision, best) for each in Timed.rows]
    taken, least = (sum(kernel[key] for kernel in kernels if kernel["limit"]) for key in ("ms", "limit"))
    return {
        **{"precision": precision, "computed_by": describe(precision=precision), "rates": known, "best_rates": best},
        **{"kernels": kernels, "kernels_ms": taken, "limit_ms": least, "share": least / taken},
        "step_ms": 1e3 * statistics.median(whole),
    }


def measure_rates(precision: str) -> Iterator[tuple[str, float]]:
    """Yield what the processor does now: bytes a second in a copy, operations a second in products of matrices."""
    source = torch.ones(COPY_MIB * 2**18)
    target = torch.empty_like(source)
    yield "copy", 2 * COPY_MIB * 2**20 / _seconds(lambda: target.copy_(source))
    for kind in dict.fromkeys((precision, "fp32")):
        for size in PRODUCTS:
            matrix = torch.ones(size, size, dtype=torch.bfloat16 if kind == "bf16" else torch.float32)
            yield f"{kind} {size}", 2 * size**3 / _seconds(lambda matrix=matrix: matrix @ matrix)


def _seconds(work: Any) -> float:
    found = []
    for _ in range(3):
        began = time.perf_counter()
        result: Tensor = work()
        found.append(time.perf_counter() - began)
        del result
    return min(found)


def _figures(each: Row, precision: str, best: Mapping[str, float]) -> dict[str, Any]:
    arithmetic = 2 * each.products / best[precision] + 2 * each.depthwise / best["fp32"]
    memory = each.bytes / best["copy"]
    return {
        **{"kernel": each.title, "products": each.products, "depthwise": each.depthwise, "bytes": each.bytes},
        **{"ms": 1e3 * statistics.median(each.seconds), "limit": 1e3 * max(arithmetic, memory)},
        "limited_by": "arithmetic" if arithmetic > memory else "memory" if memory else "",
    }


def to_markdown(record: Mapping[str, Any]) -> str:
    """Return the page."""
    rows = [[each["kernel"], each["limited_by"], *_cells(each["ms"], each["limit"])] for each in record["kernels"]]
    rows.append(["**all that have a limit**", "", *_cells(record["kernels_ms"], record["limit_ms"])])
    rows.append(["a whole step", "", figure(record["step_ms"]), "", ""])
    best, kinds = record["best_rates"], dict.fromkeys((record["precision"], "fp32"))
    rates = ", ".join(f"{best[kind] / 1e9:,.0f} GFLOP/s in {kind}" for kind in kinds)
    lines = [
        f"# A training step of `{record['network']}`, kernel by kernel",
        f"Milliseconds, batch {record['batch_size']}, random images 3×32×32, {record['computed_by']}, "
        f"{record['precision']}; medians.",
        markdown(["kernel", "limited by", "ms", "limit, ms", "share of the limit"], rows, words=2),
        f"Measured in the same rounds: products of matrices {rates}, copying {best['copy'] / 1e9:,.1f} GB/s "
        "(reading and writing counted). What the limit is made of is at the head of `benchmarks/limits.py`.",
        described(dict(record)),
    ]
    return "\n\n".join(lines)


def _cells(ms: float, limit: float) -> list[str]:
    return [figure(ms), figure(limit or None), f"{100 * limit / ms:.0f} %" if limit else figure(None)]


if __name__ == "__main__":
    finish(main)
