"""What the coordinator of a sweep costs: ``python -m benchmarks.sweeps``, seconds a trial and memory.

Trials have no epochs: a worker in line copies a finished run into each trial's folder, so that what remains is the
coordinator's own work: plan, orders, ledger. 100 trials and 1,000 are compared, each in a process of its own.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import sepnet
from benchmarks.record import commit
from sepnet import environment
from sepnet.runs import Run
from sepnet.runs.manifest import write_manifest
from sepnet.runs.run import FILES
from sepnet.sweep import sweep as sweep_module
from sepnet.sweep.sweep import Sweep
from sepnet.sweep.worker import Order, Progress

COUNTS = (100, 1_000)
NETWORK = "champion(widths=[8, 8, 8], blocks=[1, 1, 1])"


class Copies:
    """Workers that take no time to train: a finished run is copied, under the seed and the row of the order."""

    lost: tuple[type[BaseException], ...] = (BrokenExecutor,)
    travels = False

    def __init__(self, finished: Run) -> None:
        self.finished = finished
        self.seconds = 0.0
        """Spent on copying, which is no work of the coordinator's."""

    def capacity(self) -> int:
        return 2

    def submit(self, function: object, order: Order) -> "Future[Progress]":  # noqa: ARG002
        begun = time.perf_counter()
        folder = Path(order.out) / order.trial.name
        shutil.copytree(self.finished.path, folder)
        (folder / "manifest.json").unlink()
        run = Run.open(folder)
        run.write_config(replace(run.config, seed=order.trial.seed))
        (folder / "checkpoint.safetensors").unlink()
        run.note_session({"sweep": dict(order.origin)})
        write_manifest(folder, FILES)
        self.seconds += time.perf_counter() - begun
        future: Future[Progress] = Future()
        last = run.history[-1]
        future.set_result(Progress(epochs=last.epoch, accuracy=last.val_accuracy, finished=True))
        return future

    def close(self) -> None:
        pass


def measure(trials: int) -> dict[str, Any]:
    """Return the coordinator's seconds a trial, of a first call and of one that finds all done, and its memory."""
    with tempfile.TemporaryDirectory() as place:
        finished = sepnet.train(NETWORK, "sample", "short", epochs=1, validation="holdout", out=place)
        before = environment.peak_memory_mib() or 0.0
        file = Path(place, "many.toml")
        seeds = list(range(trials))
        row = 'settings.epochs = 1\n[[row]]\nname = "a"\n'
        file.write_text(f"network = {NETWORK!r}\nrecipe = 'short'\nseeds = {seeds}\n{row}")
        workers = Copies(finished)
        vars(sweep_module)["Processes"] = lambda *_: workers
        seconds = []
        for _ in range(2):
            begun = time.perf_counter()
            Sweep.open(file).run(workers=2)
            seconds.append((time.perf_counter() - begun - workers.seconds) / trials)
            workers.seconds = 0.0
        assert len(Sweep.open(file).ledger()) == trials
    return {
        "trials": trials,
        "milliseconds_a_trial": round(1000 * seconds[0], 2),
        "milliseconds_a_trial_again": round(1000 * seconds[1], 2),
        "memory_mib": round((environment.peak_memory_mib() or 0.0) - before, 1),
    }


def main() -> None:
    """Print the figures as JSON, with machine and commit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=__doc__)
    parser.add_argument("--trials", type=int, help="measure this number alone, in this process")
    trials = parser.parse_args().trials
    if trials:
        print(json.dumps(measure(trials)))
        return
    command = [sys.executable, "-m", "benchmarks.sweeps", "--trials"]
    rows = [
        json.loads(subprocess.run([*command, str(count)], check=True, stdout=subprocess.PIPE).stdout)
        for count in COUNTS
    ]
    machine = environment.describe()
    print(json.dumps({"commit": commit(), "processor": machine["processor"], "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
