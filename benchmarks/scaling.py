"""How the cost of training grows: with batch size, image size, width and the number of images.

``python -m benchmarks.scaling``: sepnet, and stock PyTorch where that is cheap enough.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sepnet
from benchmarks.race import Lane, jobs_for, race, ratios, spread
from benchmarks.record import at_least_one, context, described, finish, names, positive, save
from benchmarks.tables import figure, markdown
from sepnet.errors import SepnetError
from sepnet.notices import notice
from sepnet.settings import hint

NETWORK = "champion"
CLASSES = 10
IMAGES = 5_000
"""That batches are taken from, where their number is not what is varied."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One setting varied, the others as they are."""

    title: str
    setting: str
    points: tuple[int, ...]
    stock_up_to: int
    """The largest point at which stock PyTorch is measured, too; beyond it is too slow or takes too much memory."""


SERIES = {
    "batch": Series(title="Batch size", setting="images a step", points=(16, 32, 64, 128, 256, 512), stock_up_to=512),
    "image": Series(title="Image size", setting="height and width", points=(16, 24, 32, 48, 64, 96), stock_up_to=64),
    "width": Series(title="Width", setting="channels of the stem", points=(8, 16, 32, 64, 128), stock_up_to=64),
    "images": Series(
        title="Dataset size",
        setting="training images",
        points=(1_000, 2_000, 5_000, 10_000, 20_000, 50_000),
        stock_up_to=5_000,
    ),
}


def main() -> None:
    """Measure, print the tables and write them."""
    options = _parse()
    for name in options.series:
        if name not in SERIES:
            raise SepnetError(f"unknown series '{name}': {hint(name, SERIES)}")
    record = context("benchmarks.scaling", options)
    record["series"] = {
        name: [_measure(name, point, options) for point in SERIES[name].points if point <= options.largest]
        for name in options.series
    }
    save(options.out, "scaling", record, to_markdown(record))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--rounds", type=at_least_one, default=3, help="that count, after one that does not")
    parser.add_argument("--seconds", type=positive, default=3.0, help="of each engine's turn in a round")
    parser.add_argument("--series", type=names, default=list(SERIES), metavar="NAME,…", help=", ".join(SERIES))
    parser.add_argument("--largest", type=at_least_one, default=10**9, help="leave larger points of all series out")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), metavar="FOLDER")
    return parser.parse_args()


def _measure(name: str, point: int, options: argparse.Namespace) -> dict[str, Any]:
    """Race both engines at one point of a series; an epoch is run whole, and twice, of which the second counts."""
    series = SERIES[name]
    notice(f"{series.title}: {point:,}")
    network = f"benchmarks/wide.py:width_{point}" if name == "width" else NETWORK
    side = point if name == "image" else 32
    settings = {
        "batch_size": point if name == "batch" else 128,
        "image_shape": (3, side, side),
        "classes": CLASSES,
        "images": point if name == "images" else IMAGES,
    }
    engines = ["sepnet", "pytorch"] if point <= series.stock_up_to else ["sepnet"]
    jobs = jobs_for(network, engines, **settings)
    if name == "images":
        lanes = race(jobs, rounds=1, request={"command": "epoch"}, warm_up=False)
    else:
        lanes = race(jobs, rounds=options.rounds, request={"command": "turn", "seconds": options.seconds})
    macs = sepnet.summary(network, image_shape=(3, side, side), classes=CLASSES).macs
    return {"point": point, "macs": macs, **settings, **figures(lanes)}


def figures(lanes: Mapping[str, Lane]) -> dict[str, Any]:
    """Return both engines' speed and memory, and their ratio; None where stock PyTorch was not measured."""
    ours, stock = lanes["sepnet"], lanes.get("pytorch")
    return {
        "sepnet": {"images_per_second": spread(ours.rates), "peak_mib": ours.peak_mib},
        "pytorch": stock and {"images_per_second": spread(stock.rates), "peak_mib": stock.peak_mib},
        "sepnet_is_faster": ratios(ours, stock) if stock else None,
    }


def to_markdown(record: dict[str, Any]) -> str:
    """Return the page: one table for each series."""
    parts = [
        "# How the cost of training grows",
        f"`{NETWORK}`, for the width a residual network (`benchmarks/wide.py`); batch 128, images 3×32×32, unless "
        "varied. Images per second are medians over rounds; an epoch is a whole one of a run, its validation on a "
        "fifth as many images and its saving included. Ratios and peak memory as in `speed.md`; stock PyTorch only "
        "where it is cheap enough.",
    ]
    for name, points in record["series"].items():
        parts += [f"## {SERIES[name].title}", _table(name, points)]
    return "\n\n".join([*parts, described(record)])


def _table(name: str, points: Sequence[dict[str, Any]]) -> str:
    whole_epochs = name == "images"
    what = "seconds an epoch" if whole_epochs else "images/s"
    headers = [SERIES[name].setting, f"sepnet, {what}", f"PyTorch, {what}", "sepnet is faster", "sepnet, GMAC/s"]
    rows = []
    for point in points:
        rates = [point[engine] and point[engine]["images_per_second"]["median"] for engine in ("sepnet", "pytorch")]
        shown = [rate and point["images"] / rate for rate in rates] if whole_epochs else rates
        ratio = point["sepnet_is_faster"] and point["sepnet_is_faster"]["median"]
        work = 3 * point["macs"] * rates[0] / 1e9  # forward, and twice as much backward
        memory = [figure(point[engine] and point[engine]["peak_mib"]) for engine in ("sepnet", "pytorch")]
        times = f"{figure(ratio)}×" if ratio else figure(None)
        rows.append([f"{point['point']:,}", *map(figure, shown), times, figure(work), *memory])
    return markdown([*headers, "sepnet, peak MiB", "PyTorch, peak MiB"], rows, words=0)


if __name__ == "__main__":
    finish(main)
