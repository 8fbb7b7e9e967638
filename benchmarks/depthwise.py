"""Time per multiplication of depthwise convolutions, forward and backward, kernel size by kernel size.

``python -m benchmarks.depthwise``: PyTorch's own in float32 and bf16, and sepnet's. All tensors are channels_last, and
freed memory is kept. A multiplication is one of a convolution over all positions, padding included.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.race import spread
from benchmarks.record import at_least_one, context, described, finish, positive, save
from benchmarks.tables import figure, markdown
from sepnet.backend import keep_freed_memory
from sepnet.backend.native import native
from sepnet.backend.stage import Inputs, Params
from sepnet.errors import SepnetError

KERNELS = (3, 5, 7, 9)

Convolution = Callable[[Tensor, Tensor], Tensor]


class Engine(NamedTuple):
    """A depthwise convolution ``(x, weight)``, and the type it computes in."""

    convolve: Convolution
    dtype: torch.dtype


def stock(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve ``(N, C, H, W)`` by ``(C, 1, k, k)`` in PyTorch."""
    return functional.conv2d(x, weight.to(x.dtype), padding=weight.shape[-1] // 2, groups=len(weight))


def ours(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve as :func:`stock` does, by sepnet's kernels."""
    padding = weight.shape[-1] // 2
    inputs, params = Inputs(x, depthwise=weight), Params(padding=(padding, padding))
    y: Tensor = torch.ops.sepnet.stage(*inputs, *params, False, False, torch.is_grad_enabled())[0]
    return y


def engines() -> dict[str, Engine]:
    """Return what is measured, sepnet's kernels where they are compiled."""
    found = {"PyTorch fp32": Engine(stock, torch.float32), "PyTorch bf16": Engine(stock, torch.bfloat16)}
    compiled = native()
    for name, dtype in (("sepnet fp32", torch.float32), ("sepnet bf16", torch.bfloat16)):
        if compiled is not None and compiled.computes(dtype):
            found[name] = Engine(ours, dtype)
    return found


class Layer:
    """One depthwise convolution of one engine, on tensors of its own."""

    def __init__(self, engine: Engine, shape: tuple[int, int, int, int], kernel: int) -> None:
        torch.manual_seed(0)
        self.convolve = engine.convolve
        self.x = torch.randn(shape).to(engine.dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
        self.weight = torch.randn(shape[1], 1, kernel, kernel).requires_grad_()  # float32, as autocast keeps it
        self.gradient = torch.randn(shape).to(engine.dtype).contiguous(memory_format=torch.channels_last)
        self.seconds: dict[str, list[float]] = {"forward": [], "backward": []}

    def run(self) -> None:
        """Time one pass forward and one backward, to the image and to the weights."""
        began = time.perf_counter()
        y = self.convolve(self.x, self.weight)
        between = time.perf_counter()
        torch.autograd.grad(y, (self.x, self.weight), self.gradient)
        ended = time.perf_counter()
        self.seconds["forward"].append(between - began)
        self.seconds["backward"].append(ended - between)


def main() -> None:
    """Measure, print the table and write it."""
    options = _parse()
    record = context("benchmarks.depthwise", options)
    shape = _shape(options.shape)
    keep_freed_memory()
    torch.set_flush_denormal(True)
    found = engines()
    layers = {(name, kernel): Layer(engine, shape, kernel) for name, engine in found.items() for kernel in KERNELS}
    for number in range(options.rounds + 1):
        for layer in layers.values():
            _turn(layer, options.seconds, counts=number > 0)
    rows = [
        {"engine": name, "kernel": kernel, "pass": way, "picoseconds": figures}
        for (name, kernel), layer in layers.items()
        for way, figures in picoseconds(layer.seconds, shape, kernel).items()
    ]
    record |= {"shape": shape, "rows": rows}
    save(options.out, "depthwise", record, to_markdown(record))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.depthwise", description=__doc__)
    parser.add_argument("--rounds", type=at_least_one, default=7, help="that count, after one that does not")
    parser.add_argument("--seconds", type=positive, default=0.3, help="of each layer's turn in a round")
    parser.add_argument("--shape", default="128x64x32x32", metavar="NxCxHxW", help="of the images")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), metavar="FOLDER")
    return parser.parse_args()


def _shape(text: str) -> tuple[int, int, int, int]:
    parts = text.split("x")
    if len(parts) != 4 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise SepnetError(f"shape '{text}' is not understood: expected N, C, H and W as 128x64x32x32")
    count, channels, height, width = map(int, parts)
    return count, channels, height, width


def _turn(layer: Layer, seconds: float, *, counts: bool) -> None:
    """Run a layer for so many seconds, and keep the turn's medians if it counts."""
    kept, layer.seconds = layer.seconds, {"forward": [], "backward": []}
    began = time.perf_counter()
    while not layer.seconds["forward"] or time.perf_counter() - began < seconds:
        layer.run()
    if counts:
        for way, values in layer.seconds.items():
            kept[way].append(statistics.median(values))
    layer.seconds = kept


def picoseconds(
    seconds: dict[str, list[float]], shape: tuple[int, int, int, int], kernel: int
) -> dict[str, dict[str, float]]:
    """Return the time per multiplication, 10⁻¹² s, of each round's medians; backward has twice as many as forward."""
    count, channels, height, width = shape
    forward = count * channels * height * width * kernel**2
    multiplications = {"forward": forward, "backward": 2 * forward}
    return {way: spread([1e12 * value / multiplications[way] for value in seconds[way]]) for way in multiplications}


def to_markdown(record: dict[str, Any]) -> str:
    """Return the page: time per multiplication, and that beside the same engine's 3×3."""
    found = {(row["engine"], row["pass"], row["kernel"]): row["picoseconds"]["median"] for row in record["rows"]}
    rows = []
    for engine, way in dict.fromkeys((engine, way) for engine, way, _ in found):
        values = [found[engine, way, kernel] for kernel in KERNELS]
        rows.append([engine, way, *map(figure, values), *(f"{figure(value / values[0])}×" for value in values[1:])])
    headers = ["engine", "pass", *(f"{k}×{k}, ps" for k in KERNELS), *(f"{k}×{k} : 3×3" for k in KERNELS[1:])]
    lines = [
        "# Depthwise convolutions: time per multiplication",
        f"Picoseconds, images {'×'.join(map(str, record['shape']))} in channels_last memory, stride 1; backward is "
        "the gradients of image and weights, twice as many multiplications. Medians over rounds in which the layers "
        "took turns.",
        markdown(headers, rows, words=2),
        described(record),
    ]
    if not any(row["engine"].startswith("sepnet") for row in record["rows"]):
        lines.insert(3, "Missing: sepnet's kernels, which are not compiled here.")
    return "\n\n".join(lines)


if __name__ == "__main__":
    finish(main)
