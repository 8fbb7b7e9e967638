"""Engines beside each other: each in a process of its own, one computing at a time, round after round."""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sepnet
from sepnet.errors import SepnetError
from sepnet.networks import NETWORKS
from sepnet.notices import notice
from sepnet.recipes.recipe import load_recipe

ROOT = Path(__file__).parent.parent
MODULES = {
    "sepnet": "benchmarks.engine_sepnet",
    "pytorch": "benchmarks.engine_pytorch",
    "pytorch-allocator": "benchmarks.engine_pytorch",
    "keras": "benchmarks.engine_keras",
}
TITLES = {
    "sepnet": "sepnet",
    "pytorch": "PyTorch as it comes",
    "pytorch-allocator": "PyTorch, keeping freed memory",
    "keras": "Keras on TensorFlow",
}


@dataclass(kw_only=True)
class Lane:
    """What one engine did: images per second of each round, or why it did nothing."""

    engine: str
    missing: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    peak_mib: float | None = None


class Worker:
    """One engine's process, which waits for its job and then for each turn; use as a context."""

    def __init__(self, engine: str, python: str) -> None:
        self.engine = engine
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed in __exit__)
        try:
            self._process = subprocess.Popen(
                [python, "-m", MODULES[engine]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                cwd=ROOT,
            )
        except OSError as error:
            self._log.close()
            raise SepnetError(f"'{python}' cannot be run: {error.strerror}; name a Python interpreter") from error

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SepnetError(f"the worker of {TITLES[self.engine]} ended with {self._process.wait()}: {self._last()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last(self) -> str:
        self._log.seek(0)
        return (self._log.read().strip().splitlines() or ["it said nothing"])[-1]


def race(
    jobs: Mapping[str, Mapping[str, Any]],
    *,
    rounds: int,
    request: Mapping[str, Any],
    keras_python: str = sys.executable,
    warm_up: bool = True,
) -> dict[str, Lane]:
    """Give each engine its job, then a turn in every round; the first round, a warm-up, does not count.

    The order of turns is reversed from round to round. Only these engines' processes exist meanwhile.
    """
    with contextlib.ExitStack() as stack:
        workers, lanes = [], {}
        for engine, job in jobs.items():
            python = keras_python if engine == "keras" else sys.executable
            lanes[engine] = Lane(engine=engine, missing=job.get("missing"))
            if lanes[engine].missing is None:
                worker = stack.enter_context(Worker(engine, python))
                answer = worker.ask(**job)
                lanes[engine].missing = answer.get("missing")
                lanes[engine].versions = answer.get("versions", {})
                workers.append(worker)
            if reason := lanes[engine].missing:
                notice(f"{TITLES[engine]} is left out: {reason}")
        workers = [worker for worker in workers if lanes[worker.engine].missing is None]
        for number in range(rounds + warm_up):
            for worker in workers if number % 2 else workers[::-1]:
                answer = worker.ask(**request)
                lane = lanes[worker.engine]
                lane.peak_mib = answer["peak_mib"]
                if number or not warm_up:
                    lane.rates.append(answer["images"] / answer["seconds"])
    return lanes


def jobs_for(network: str, engines: Sequence[str], **settings: Any) -> dict[str, dict[str, Any]]:
    """Return each engine's job: the network by its own recipe, the peers with an optimizer of the same kind.

    ``settings`` are ``batch_size``, ``image_shape``, ``classes`` and ``images``.
    """
    recipe = NETWORKS[network].recipe if network in NETWORKS else "champion"
    loaded = load_recipe(recipe)
    optimizer = {
        "kind": loaded.optimizer,
        "lr": loaded.lr,
        "momentum": loaded.momentum,
        "eps": loaded.eps,
        "weight_decay": loaded.weight_decay,
    }
    job = {"network": network, "recipe": recipe, "optimizer": optimizer, **settings}
    return {engine: {**job, **_particulars(engine, job)} for engine in engines}


def _particulars(engine: str, job: Mapping[str, Any]) -> dict[str, Any]:
    if engine != "keras":
        return {"keep_freed_memory": engine == "pytorch-allocator"}
    try:
        shape, classes = tuple(job["image_shape"]), job["classes"]
        return {"listing": sepnet.keras_definition(job["network"], image_shape=shape, classes=classes)}
    except SepnetError as error:
        return {"missing": str(error)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def ratios(lane: Lane, other: Lane) -> dict[str, float] | None:
    """Return how many times as fast ``lane`` was as ``other``, taken within each round; None where one is missing."""
    if not lane.rates or not other.rates:
        return None
    return spread([ours / theirs for ours, theirs in zip(lane.rates, other.rates, strict=True)])
