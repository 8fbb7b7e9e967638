"""The worker's end of the pipe: a job, then turns, one JSON object a line. The standard library alone is used here."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Missing(Exception):
    """This engine cannot do the job on this machine; the message says why."""


class Engine(NamedTuple):
    """An engine that has built its network and images."""

    versions: dict[str, str]
    commands: dict[str, Callable[..., tuple[int, float]]]
    """Each returns how many images it trained on, and the seconds that took."""


def serve(prepare: Callable[[dict[str, Any]], Engine]) -> None:
    """Answer the job, then a turn at a time; between turns this process waits for the pipe and computes nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer

    def answer(**content: Any) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        engine = prepare(json.loads(sys.stdin.readline()))
    except Missing as error:
        answer(missing=str(error))
        return
    answer(versions=engine.versions)
    for line in sys.stdin:
        request = json.loads(line)
        images, seconds = engine.commands[request.pop("command")](**request)
        answer(images=images, seconds=seconds, peak_mib=peak_mib())


def repeat(step: Callable[[], int], seconds: float) -> tuple[int, float]:
    """Take steps, each of which returns its images, for so many seconds and at least once, after one untimed."""
    step()
    images, began = 0, time.perf_counter()
    while True:
        images += step()
        elapsed = time.perf_counter() - began
        if elapsed >= seconds:
            return images, elapsed


def peak_mib() -> float | None:
    """Return the most memory that this process has held, in MiB, where Linux tells.

    Not ``getrusage``, whose figure a process takes over from the one that started it.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) / 2**10, 1)
