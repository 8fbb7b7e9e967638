"""A training step, stage by stage: stock PyTorch before, sepnet after, and the least time that the processor allows.

``python -m benchmarks.stages``. A stage is a convolution, or a depthwise one and the pointwise one behind it, with
what follows it (batch norm, ReLU, a sum), or a pooling layer with the dropout behind it. Before: the same modules in
stock PyTorch, float32, NCHW, its default allocator. After: sepnet's own step; a stage is the time inside its kernels.
They apply a batch norm, a sum and the ReLU behind these as they read them, so that this counts in the next stage.

The limit of a stage, forward and backward, is the larger of two times:

- arithmetic: 2 × multiplications of the pointwise layer / the rate of a large product of matrices in sepnet's
  precision, plus 2 × those of the depthwise layer / the rate of one in float32. Backward has them twice, for the
  gradients of the input and of the weights; a layer whose input is the dataset's images only for the latter;
- memory: bytes / the rate of a large copy, of which reading and writing count. Every image counts once, in sepnet's
  precision: forward reads the input and writes the output and, where it is kept, the image between a depthwise and
  a pointwise layer. Backward reads the output's gradient, the output (where ReLU or batch norm is behind it), the
  image between and the input, and writes the input's gradient.

A 1×1 depthwise layer is no work: it folds into the pointwise weights. Images that are in cache already can be had
faster than memory allows.
"""

import argparse
import contextlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import race
from benchmarks.clock import BETWEEN, WHOLE
from benchmarks.outline import WAYS, Row, outline
from benchmarks.record import at_least_one, context, described, finish, save
from benchmarks.tables import NOTHING, figure, markdown
from sepnet.jobs import resolve_precision
from sepnet.notices import notice

IMAGE_SHAPE, CLASSES = (3, 32, 32), 10
IMAGES = 2_000
STEPS = 3
"""Timed in each engine's turn, after one that is not."""
PRODUCTS = (1024, 2048, 4096)
"""Rows and columns of the matrices; the size with the best median counts."""
COPY_MIB = 512
SIDES = {"before": "pytorch", "after": "sepnet"}
MODULES = {"pytorch": "benchmarks.stages_pytorch", "sepnet": "benchmarks.stages_sepnet"}
PARTS = {
    "loading": "loading, augmentation",
    "optimizer": "optimizer, average of the weights",
    BETWEEN: "between the stages (Python, PyTorch's own operators)",
    WHOLE: "a whole step",
}

Figures = dict[str, Any]


def main() -> None:
    """Measure, print the tables and write them."""
    options = _parse()
    record = context("benchmarks.stages", options)
    precision = resolve_precision("auto", "cpu")
    rows = outline(options.network, image_shape=IMAGE_SHAPE, classes=CLASSES, precision=precision)
    record |= {"network": options.network, "batch_size": options.batch_size}
    record |= tabulate(rows, precision, options.batch_size, measure(rows, precision, options))
    save(options.out, f"stages-{options.network.rpartition(':')[2]}", record, to_markdown(record))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network", default="published", metavar="NAME", help="or path/to/file.py:NAME")
    parser.add_argument("--batch-size", type=at_least_one, default=128)
    parser.add_argument("--repeats", type=at_least_one, default=7, help="rounds that count, after one that does not")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), metavar="FOLDER")
    return parser.parse_args()


def measure(rows: Sequence[Row], precision: str, options: argparse.Namespace) -> Figures:
    """Return each side's versions and median seconds of each part of a step, and the machine's median rates.

    Each side is a process of its own, one of which computes at a time; their order changes from round to round.
    """
    settings = {"batch_size": options.batch_size, "image_shape": IMAGE_SHAPE, "classes": CLASSES}
    jobs = race.jobs_for(options.network, list(MODULES), images=max(IMAGES, options.batch_size), **settings)
    rates: dict[str, list[float]] = {}
    with contextlib.ExitStack() as stack:
        with mock.patch.dict(race.MODULES, MODULES):  # the same engines, by workers of their own
            workers = {side: stack.enter_context(race.Worker(name, sys.executable)) for side, name in SIDES.items()}
        answers = {side: worker.ask(**jobs[SIDES[side]]) for side, worker in workers.items()}
        for number in range(options.repeats + 1):
            notice(f"round {number} of {options.repeats}" if number else "a round that does not count")
            for worker in list(workers.values())[:: 1 if number % 2 else -1]:
                worker.ask(command="turn", steps=STEPS, counts=number > 0)
            for name, rate in _rates(workers["after"], precision).items():
                rates.setdefault(name, []).extend([rate] if number else [])
        parts = [*PARTS, *(f"{way} {number}" for number in range(len(rows)) for way in WAYS)]
        seconds = {
            side: {name: worker.ask(command="part", name=name)["seconds"] for name in parts}
            for side, worker in workers.items()
        }
    return {
        "versions": {side: answer["versions"] for side, answer in answers.items()},
        "rates": {name: statistics.median(values) for name, values in rates.items()},
        "seconds": seconds,
    }


def _rates(worker: race.Worker, precision: str) -> dict[str, float]:
    """Return what the processor does now: operations a second in products, bytes a second in a copy."""
    rates = {"copy": 2 * COPY_MIB * 2**20 / worker.ask(command="copy", mib=COPY_MIB)["seconds"]}
    for kind in dict.fromkeys((precision, "fp32")):
        for size in PRODUCTS:
            answer = worker.ask(command="product", size=size, precision=kind)
            rates[f"{kind} {size}"] = 2 * size**3 / answer["seconds"]
    return rates


def tabulate(rows: Sequence[Row], precision: str, batch: int, measured: Figures) -> Figures:
    """Return the figures of each stage, of all stages together, and of the parts of a whole step."""
    seconds, rates = measured["seconds"], measured["rates"]
    best = {
        kind: max(rate for name, rate in rates.items() if name.startswith(kind)) for kind in (precision, "fp32", "copy")
    }
    stages = [_stage(row, number, precision, batch, seconds, best) for number, row in enumerate(rows[:-1])]
    both = {side: {way: _sum(stage["ms"][side][way] for stage in stages) for way in WAYS} for side in (*SIDES, "limit")}
    rest = len(rows) - 1
    step = [{"part": f"stages, {way}", **{side: both[side][way] for side in SIDES}} for way in WAYS]
    names = {**{f"{way} {rest}": f"{rows[rest].title}, {way}" for way in WAYS}, **PARTS}
    step += [{"part": title, **{side: 1e3 * seconds[side][name] for side in SIDES}} for name, title in names.items()]
    return {
        **{"precision": precision, "versions": measured["versions"], "rates": rates, "best_rates": best},
        **{"stages": stages, "all_stages": {"ms": both, "share": shares(stages)}, "step": step},
    }


def _stage(
    row: Row, number: int, precision: str, batch: int, seconds: Mapping[str, Mapping[str, float]], best: Figures
) -> Figures:
    work = {way: {name: batch * count for name, count in row.work[way].items()} for way in WAYS}
    limits = {way: limit(work[way], precision, best) for way in WAYS}
    ms = {side: {way: 1e3 * seconds[side][f"{way} {number}"] or None for way in WAYS} for side in SIDES}
    ms["limit"] = {way: 1e3 * max(limits[way].values()) or None for way in WAYS}
    stage = {"stage": row.title, "input": row.start, "output": row.end, "work": work, "ms": ms}
    by = {way: max(limits[way], key=limits[way].__getitem__) for way in WAYS}
    return {**stage, "limited_by": by, "share": shares([stage])}


def limit(work: Mapping[str, float], precision: str, rates: Mapping[str, float]) -> dict[str, float]:
    """Return the least seconds that arithmetic and memory allow for so many multiplications and bytes."""
    products, depthwise = (2 * work.get(name, 0) for name in ("products", "depthwise"))
    arithmetic = products / rates[precision] + depthwise / rates["fp32"]
    return {"memory": work.get("bytes", 0) / rates["copy"], "arithmetic": arithmetic}


def shares(stages: Sequence[Figures]) -> dict[str, dict[str, float | None]]:
    """Return the limit as a share of each side's time, forward, backward and both; of stages that have a limit."""
    found: dict[str, dict[str, float | None]] = {}
    for side in SIDES:
        found[side] = {}
        for name, ways in {**{way: (way,) for way in WAYS}, "both": WAYS}.items():
            pairs = [(stage["ms"]["limit"][way], stage["ms"][side][way]) for stage in stages for way in ways]
            known = [(least, taken) for least, taken in pairs if least and taken]
            found[side][name] = sum(p[0] for p in known) / sum(p[1] for p in known) if known else None
    return found


def _sum(values: Any) -> float:
    return sum(value or 0 for value in values)


def to_markdown(record: Figures) -> str:
    """Return the page: the stages, the whole step, and what the limits are made of."""
    headers = ["stage", "input → output", *(f"{way}, ms: {side}" for way in WAYS for side in (*SIDES, "limit"))]
    headers += ["limited by (forward / backward)", "before: share of limit", "after: share of limit", "faster"]
    rows = [
        [
            f"{number}. {stage['stage']}",
            f"{_size(stage['input'])} → {_size(stage['output'])}",
            *_cells(stage, " / ".join(dict.fromkeys(stage["limited_by"].values()))),
        ]
        for number, stage in enumerate(record["stages"], start=1)
    ]
    rows.append(["**all stages**", "", *_cells(record["all_stages"], "")])
    step = [
        [
            part["part"],
            *map(figure, (part["before"], part["after"])),
            NOTHING if part["part"] == PARTS[BETWEEN] else _ratio(part["before"], part["after"]),
        ]
        for part in record["step"]
    ]
    step[-1] = [f"**{cell}**" for cell in step[-1]]
    lines = [
        f"# A training step of `{record['network']}`, stage by stage",
        f"Milliseconds, batch {record['batch_size']}, random images 3×32×32; medians over rounds in which the sides "
        "took turns. Before: stock PyTorch as it comes (fp32, NCHW). After: "
        f"{record['versions']['after']['computed_by']}, {record['precision']}.",
        markdown(headers, rows, words=2),
        _explained(record),
        markdown(["part of a step", "before, ms", "after, ms", "faster"], step),
        "Each part is a median of its own, so that they add up to about the whole. Stock PyTorch's own Python "
        "counts in its stages; its images are not augmented, and it keeps no average of the weights.",
        described(record),
    ]
    return "\n\n".join(lines)


def _cells(figures: Figures, limited_by: str) -> list[str]:
    """Return the cells of one line of figures: milliseconds, what limits it, shares and how much faster."""
    ms, share = figures["ms"], figures["share"]
    times = [figure(ms[side][way] or None) for way in WAYS for side in (*SIDES, "limit")]
    both = [_sum(ms[side].values()) for side in SIDES]
    return [*times, limited_by, *(_percent(share[side]["both"]) for side in SIDES), _ratio(*both)]


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f} %"


def _ratio(before: float, after: float) -> str:
    return f"{figure(before / after)}×" if before > 0 < after else NOTHING


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _explained(record: Figures) -> str:
    best, precision = record["best_rates"], record["precision"]
    kinds = dict.fromkeys((precision, "fp32"))
    products = ", ".join(f"{best[kind] / 1e9:,.0f} GFLOP/s in {kind}" for kind in kinds)
    return (
        f"The limit is the larger of *arithmetic* (2 × multiplications of pointwise layers at the {precision} rate, of "
        f"depthwise layers at the fp32 rate; backward twice as many) and *memory* (each image that is read or written, "
        f"once, in {precision}). Forward reads the input and writes the output and, if it is kept, the image between "
        "depthwise and pointwise; backward reads the output's gradient, the output, the image between and the input, "
        "and writes the input's gradient. Measured in the same rounds: products of matrices "
        f"{products}, copying {best['copy'] / 1e9:,.1f} GB/s (reading and writing counted). Shares are of forward and "
        "backward together; above 100 %, images lay in cache. Before, a stage includes what follows "
        "its convolution; after, a batch norm, a sum and the ReLU behind these count in the stage that reads them."
    )


if __name__ == "__main__":
    finish(main)
