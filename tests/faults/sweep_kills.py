"""Kill a cluster's workers and the coordinator of a sweep, and compare: ``python -m tests.faults.sweep_kills``.

A Dask cluster of worker processes on loopback trains the trials of a sweep; workers are killed by SIGKILL at random
moments, and the coordinator, which is called again. Every trial's result has to be there once, and its final weights
those of an undisturbed sweep.
"""

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distributed import Client

from sepnet.sweep.sweep import Sweep
from tests.sweep.support import HEAD, prepare, weights

SERVE = """
import sys
import dask
from distributed import LocalCluster

dask.config.set({"distributed.scheduler.allowed-failures": 100, "distributed.nanny.pre-spawn-environ": {
    "OMP_NUM_THREADS": 1, "SEPNET_KERNELS": "none"}})
if __name__ == "__main__":
    with LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "SEPNET_KERNELS": "none"}


@contextlib.contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """Serve a cluster from a process of its own; yield its address."""
    script = folder / "serve.py"
    script.write_text(SERVE)
    with (folder / "cluster.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(script), str(workers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=ENVIRONMENT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate()


def start(file: Path, out: Path, *options: str) -> "subprocess.Popen[bytes]":
    """Start the coordinator; its streams go to a file beside the runs' folder."""
    with out.with_suffix(".log").open("ab") as log:
        command = [sys.executable, "-m", "sepnet", "sweep", file.name, "--out", str(out), *options]
        return subprocess.Popen(command, cwd=file.parent, stdout=log, stderr=log, env=ENVIRONMENT)


def sweep_of(folder: Path, trials: int, epochs: int) -> Path:
    """Make a folder with a sweep of so many trials, two designs under seeds; return its file."""
    seeds = list(range(trials // 2))
    rows = f'seeds = {seeds}\nsettings = {{ epochs = {epochs} }}\n[[row]]\nname = "a"\n[[row]]\nname = "b"\n'
    return prepare(folder, HEAD.replace("patterns.npz", str(folder / "patterns.npz")) + rows + "parameters.width = 8\n")


def finished(out: Path) -> int:
    """Return how many trials have a seal."""
    return len(list(out.glob("*/manifest.json")))


def disturb(file: Path, out: Path, address: str, *, trials: int, workers: int, coordinators: int, draw: Any) -> None:
    """Run the sweep on a cluster to its end, killing workers and coordinators at random moments on the way.

    Raises:
        AssertionError: the coordinator failed.

    """
    kills = ["worker"] * workers + ["coordinator"] * coordinators
    draw.shuffle(kills)
    moments = sorted(draw.uniform(0.02, 0.9) * trials for _ in kills)
    process = start(file, out, "--cluster", address)
    with Client(address) as client:
        while process.poll() is None:
            time.sleep(0.05)
            if not kills or finished(out) < moments[0]:
                continue
            moments.pop(0)
            time.sleep(draw.uniform(0, 0.5))
            if kills.pop(0) == "worker":
                numbers: list[int] = []
                while not numbers:  # those killed before may not be back
                    numbers = list(client.run(os.getpid, on_error="ignore").values())
                os.kill(draw.choice(numbers), signal.SIGKILL)
            else:
                process.kill()
                process.wait()
                process = start(file, out, "--cluster", address)
    assert process.returncode == 0, out.with_suffix(".log").read_text()[-2000:]
    assert not kills, f"{len(kills)} kills came too late"


def faults(file: Path, out: Path, undisturbed: Path, trials: int) -> list[str]:
    """Return what is wrong with a sweep that was disturbed."""
    found = []
    expected, ours = weights(Sweep.open(file, undisturbed)), weights(Sweep.open(file, out))
    if len(expected) != trials or set(expected) != set(ours):
        found.append(f"{len(ours)} trials are finished, {len(expected)} undisturbed: expected {trials}")
    found += [f"{name}: other weights" for name in expected if ours.get(name) != expected[name]]
    lines = (out / "ledger.jsonl").read_text().splitlines()
    if len(lines) != trials or len(Sweep.open(file, out).ledger()) != trials:
        found.append(f"the ledger has {len(lines)} lines: expected {trials}")
    return found


def main() -> int:
    """Print how many kills there were, and each fault; return 1 if there was one."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.sweep_kills", description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=20, help="of workers")
    parser.add_argument("--coordinators", type=int, default=2, help="kills of the coordinator")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        file = sweep_of(folder, options.trials, options.epochs)
        with cluster(folder, options.workers) as address:
            assert start(file, folder / "undisturbed", "--cluster", address).wait() == 0
            disturb(
                file,
                folder / "disturbed",
                address,
                trials=options.trials,
                workers=options.kills,
                coordinators=options.coordinators,
                draw=random.Random(options.seed),
            )
        found = faults(file, folder / "disturbed", folder / "undisturbed", options.trials)
    killed = f"{options.kills} workers and {options.coordinators} coordinators killed"
    print(f"{options.trials} trials, {killed}: {len(found)} faults")
    print("".join(f"{fault}\n" for fault in found), end="")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
