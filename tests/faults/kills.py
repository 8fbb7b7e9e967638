"""Kill trainings and comparisons at random moments and go on with them: ``python -m tests.faults.kills``.

Half of the kills come after a random time, the others right before or after a random system call that makes a file, a
name or a folder durable, moves or removes it. Weights, logits and history have to be those of an undisturbed process.
"""

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sepnet import folders
from sepnet.cli.app import run
from sepnet.training import loop
from tests.faults.scene import NETWORKS, OPTIONS, RECIPE, RUN, is_refusal, run_files

TRAIN = f"train net.py:small {OPTIONS} --epochs 4"
EXTEND = f"train net.py:small {OPTIONS} --resume --epochs 6"
COMPARE = (
    "compare net.py:larger net.py:small --data sample --epochs 2 --precision fp32 --device cpu --recipe quick.toml "
    "--base-recipe quick.toml"
)
CALLS = ("fsync", "replace", "rename", "unlink", "mkdir", "rmdir")


def start(arguments: str, *, kill: Callable[[], object] = int) -> int:
    """Start a command in a process of its own, whose imports are done; ``kill`` sees to its end. Return its number."""
    number = os.fork()
    if number == 0:
        code = 70
        try:
            with Path("errors.txt").open("a") as errors:
                os.dup2(errors.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                loop.CHECKPOINT_SECONDS = folders.ABANDONED_SECONDS = 0.0
                kill()
                code = run(arguments.split())
        except BaseException:  # a forked process must not go on as its parent would
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return number


def end(number: int) -> int:
    """Wait for a process; return its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def after_calls(count: int) -> None:
    """Let this process kill itself at the call of that number of :data:`CALLS`, before or after it by turns."""
    done = 0

    def counting(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            done += 1
            if done == count and count % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*arguments, **options)
            if done == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted

    for name in CALLS:
        setattr(os, name, counting(getattr(os, name)))


def after_seconds(seconds: float) -> None:
    """Let this process kill itself after a time."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    timer.daemon = True
    timer.start()


def finish(commands: list[str]) -> float:
    """Run commands to their ends; return the seconds of the longest."""
    longest = 0.0
    for command in commands:
        begun = time.monotonic()
        code = end(start(command))
        assert code == 0, Path("errors.txt").read_text().splitlines()[-1]
        longest = max(longest, time.monotonic() - begun)
    return longest


def workplace(folder: Path) -> Path:
    """Make a folder with networks and a recipe."""
    folder.mkdir(parents=True)
    (folder / "net.py").write_text(NETWORKS)
    (folder / "quick.toml").write_text(RECIPE)
    return folder


def outcomes(folder: Path) -> dict[str, list[bytes]]:
    """Return what the runs below a folder have come to, by their names."""
    return {file.parent.name: run_files(file.parent) for file in sorted(folder.glob("runs/*/weights.safetensors"))}


def leftovers(folder: Path) -> list[str]:
    """Return the partial files and folders below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.partial"))


def trials(folder: Path, kind: str, kills: int, draw: random.Random) -> Iterator[tuple[int, str]]:
    """Yield the kills and the fault, if any, of one trial after the other, until so many kills are done."""
    stages = [COMPARE] if kind == "compare" else [TRAIN, EXTEND]
    with contextlib.chdir(workplace(folder / kind / "undisturbed")):
        seconds = finish(stages)
        expected = outcomes(Path())
    number = 0
    while kills > 0:
        number += 1
        with contextlib.chdir(workplace(folder / kind / str(number))):
            done, fault = _trial(stages, seconds, min(kills, 6), draw)
            fault = fault or ("" if outcomes(Path()) == expected else "another outcome")
            fault = fault or ", ".join(leftovers(Path()))
            yield done, fault
            kills -= max(1, done)


def _trial(stages: list[str], seconds: float, kills: int, draw: random.Random) -> tuple[int, str]:
    done = 0
    for place, stage in enumerate(stages):
        while True:
            command = stage
            if stage == TRAIN and Path(RUN, "config.toml").is_file():
                command += " --resume"
            kill: Callable[[], object] = int
            if done < kills * (place + 1) // len(stages):
                by_time = partial(after_seconds, draw.uniform(0, seconds))
                kill = draw.choice([by_time, partial(after_calls, draw.randint(1, 60))])
            code = end(start(command, kill=kill))
            if code == -signal.SIGKILL:
                done += 1
                continue
            if code != 0:
                lines = Path("errors.txt").read_text().splitlines()
                return done, f"{'refused' if is_refusal(code, lines[-1:]) else 'failed'}: {lines[-1]}"
            break
    return done, ""


def main() -> int:
    """Print how many kills there were, and each fault; return 1 if there was one."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=("train", "compare"))
    arguments = parser.parse_args()
    draw, counts, faults = random.Random(arguments.seed), Counter[str](), Counter[str]()
    kinds = [arguments.only] if arguments.only else ["train", "compare"]
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            for done, fault in trials(Path(folder), kind, arguments.count // len(kinds), draw):
                counts[kind] += done
                if fault:
                    faults[kind] += 1
                    print(f"{kind}: {fault}", file=sys.stderr, flush=True)
    for kind in kinds:
        print(f"{kind}: killed {counts[kind]} times, {faults[kind]} faults")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
