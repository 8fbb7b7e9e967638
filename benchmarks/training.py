"""Images per second of training: sepnet, stock PyTorch and Keras on TensorFlow on the same work."""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.race import TITLES, Lane, jobs_for, race, ratios, spread
from benchmarks.record import at_least_one, context, described, names, positive, save
from benchmarks.tables import figure, markdown, median_and_range
from sepnet.errors import SepnetError
from sepnet.networks import NETWORKS
from sepnet.notices import notice
from sepnet.settings import hint

IMAGE_SHAPE, CLASSES = (3, 32, 32), 10
HEADERS = ("network", "engine", "images/s", "range", "sepnet is faster", "range", "peak MiB")


def main() -> None:
    """Measure, print the table and write it."""
    options = _parse()
    for engine in options.engines:
        if engine not in TITLES:
            raise SepnetError(f"unknown engine '{engine}': {hint(engine, TITLES)}")
    for network in options.networks:
        if network not in NETWORKS and ".py:" not in network:
            raise SepnetError(f"unknown network '{network}': {hint(network, NETWORKS)}")
    record = context("benchmarks", options)
    record["rows"] = rows = []
    for network in options.networks:
        notice(f"{network}: {', '.join(TITLES[engine] for engine in options.engines)}")
        jobs = jobs_for(
            network,
            options.engines,
            batch_size=options.batch_size,
            image_shape=IMAGE_SHAPE,
            classes=CLASSES,
            images=options.images,
        )
        request = {"command": "turn", "seconds": options.seconds}
        lanes = race(jobs, rounds=options.rounds, request=request, keras_python=options.keras_python)
        rows += [row(network, lane, lanes.get("sepnet")) for lane in lanes.values()]
    save(options.out, "speed", record, to_markdown(record, options.batch_size))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=at_least_one, default=7, help="that count, after one that does not")
    parser.add_argument("--seconds", type=positive, default=5.0, help="of each engine's turn in a round")
    parser.add_argument("--networks", type=names, default=["published", "base", "champion"], metavar="NAME,…")
    parser.add_argument("--engines", type=names, default=list(TITLES), metavar="NAME,…", help=", ".join(TITLES))
    parser.add_argument("--batch-size", type=at_least_one, default=128)
    parser.add_argument("--images", type=at_least_one, default=50_000, help="random ones, that batches are taken from")
    parser.add_argument("--keras-python", default=sys.executable, metavar="PYTHON", help="one that has TensorFlow")
    parser.add_argument("--out", type=Path, default=Path("results/speed"), metavar="FOLDER")
    return parser.parse_args()


def row(network: str, lane: Lane, sepnet: Lane | None) -> dict[str, Any]:
    """Return one engine's figures on one network; all None but the reason where the engine is missing."""
    return {
        "network": network,
        "engine": lane.engine,
        "missing": lane.missing,
        "versions": lane.versions,
        "images_per_second": spread(lane.rates) if lane.rates else None,
        "rounds": lane.rates,
        "sepnet_is_faster": ratios(sepnet, lane) if sepnet and sepnet is not lane else None,
        "peak_mib": lane.peak_mib,
    }


def to_markdown(record: dict[str, Any], batch_size: int) -> str:
    """Return the page: what was done where, and the table."""
    rows = [
        [
            row["network"],
            TITLES[row["engine"]] + (" (missing)" if row["missing"] else ""),
            *median_and_range(row["images_per_second"]),
            *median_and_range(row["sepnet_is_faster"], "×"),
            figure(row["peak_mib"]),
        ]
        for row in record["rows"]
    ]
    versions = {title: version for row in record["rows"] for title, version in row["versions"].items()}
    for name in ("precision", "computed_by"):
        versions.pop(name, None)
    precisions = {TITLES[row["engine"]]: row["versions"].get("precision") for row in record["rows"]}
    paths = dict.fromkeys(row["versions"].get("computed_by") for row in record["rows"])
    lines = [
        "# Speed of training",
        f"Images per second, batch {batch_size}, random images 3×32×32: medians over rounds in which the engines took "
        "turns; ratios were taken within each round. Peak memory is each process's own.",
        markdown(HEADERS, rows, words=2),
        *[f"sepnet computed by {path}." for path in paths if path],
        *[f"Missing: {reason}." for reason in dict.fromkeys(row["missing"] for row in record["rows"]) if reason],
        "Precision: " + ", ".join(f"{title} {name}" for title, name in precisions.items() if name) + ". Versions: "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}.",
        described(record),
    ]
    return "\n\n".join(lines)
