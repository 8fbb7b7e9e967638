"""Runs trials on an executor, however many processes or machines are behind it."""

import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from sepnet import environment
from sepnet.errors import SepnetError
from sepnet.runs import Run
from sepnet.runs.run import write_run
from sepnet.sweep.plan import Trial
from sepnet.sweep.worker import Order, Progress, advance, begin_process
from sepnet.training.interrupts import Interrupted, SignalGuard

TICK = 0.2
"""Seconds between two looks at signals, where no trial ends."""
MOST_LOSSES = 5
"""Workers that may die in a row under one trial before it gets an epoch further."""
LOG = "workers.log"


@dataclass(frozen=True, kw_only=True)
class Leg:
    """A trial, and the epochs after which its result is asked for."""

    trial: Trial
    until: int
    rung: bool = False
    """Whether that is before its last one."""


class Source(Protocol):
    """What is to be trained."""

    def next(self) -> Leg | None:
        """Return a trial to begin or to go on with, None where there is none at present."""

    def report(self, leg: Leg, progress: Progress) -> Leg | None:
        """Take a trial's result; return how it goes on, None where it does not."""


class Workers(Protocol):
    """An executor, how many trials it takes at a time, and what it raises where a worker has died."""

    lost: tuple[type[BaseException], ...]
    travels: bool
    """Whether workers may lie on machines without the sweep's folder."""

    def capacity(self) -> int:
        """Return how many trials can run now."""

    def submit(self, function: Callable[..., Progress], order: Order) -> "Future[Progress]":
        """Start a trial."""

    def close(self) -> None:
        """Let go of the workers."""


class Processes:
    """Processes of this machine, each with its share of the cores; one that dies is replaced."""

    lost: tuple[type[BaseException], ...] = (BrokenExecutor,)
    travels = False

    def __init__(self, count: int, out: Path) -> None:
        self.count = count
        self._settings = (max(1, environment.cores() // count), str(out.resolve() / LOG))
        self._executor: Executor | None = None

    def capacity(self) -> int:
        """Return the number of processes."""
        return self.count

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """Start a call in a process; in new ones, where one of the old has died."""
        try:
            if self._executor is not None:
                return self._executor.submit(function, *arguments)
        except BrokenExecutor:
            self.close()
        self._executor = self._start()
        return self._executor.submit(function, *arguments)

    def _start(self) -> Executor:
        context = get_context("forkserver" if os.name == "posix" else "spawn")
        context.set_forkserver_preload(["sepnet.sweep.worker"])  # imports PyTorch once, not once a process
        return ProcessPoolExecutor(self.count, context, initializer=begin_process, initargs=self._settings)

    def close(self) -> None:
        """End the processes."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)


def run_trials(
    source: Source,
    workers: Workers,
    out: Path,
    *,
    origin: Callable[[Trial], Mapping[str, Any]],
    sources: Mapping[str, str],
    watch: Callable[[int], None],
    again: str = "sepnet sweep",
) -> None:
    """Run what the source has until there is nothing left.

    Args:
        source: of the trials.
        workers: who trains them.
        out: the folder of the runs.
        origin: what a new run notes of its sweep.
        sources: Python files that workers elsewhere need.
        watch: is called now and then with the number of trials that are running.
        again: the command that goes on after an interruption.

    Raises:
        SepnetError: a trial cannot be trained, or loses its workers again and again; the others are saved.
        Interrupted: SIGINT or SIGTERM came; what was running is saved.

    """
    session = out.resolve() / f".session-{secrets.token_hex(8)}"
    session.touch()
    active: dict[Future[Progress], Leg] = {}
    waiting: deque[Leg] = deque()
    losses: Counter[tuple[str, int]] = Counter()
    error: SepnetError | None = None

    def order(leg: Leg) -> Order:
        folder = out / leg.trial.name
        return Order(
            trial=leg.trial,
            until=leg.until,
            out=str(out.resolve()),
            session=str(session),
            origin=origin(leg.trial),
            files=Run.open(folder).read_files() if workers.travels and folder.exists() else {},
            sources=sources if workers.travels else {},
            travels=workers.travels,
            folder=str(Path.cwd()),
        )

    dead: tuple[type[BaseException], ...] = (*workers.lost, CancelledError)

    def finish(leg: Leg, future: "Future[Progress]") -> None:
        name = leg.trial.name
        try:
            progress = future.result()
        except dead as loss:
            at = name, len(Run.open(out / name).history) if (out / name).exists() else 0
            losses[at] += 1
            if losses[at] > MOST_LOSSES:
                raise SepnetError(
                    f"trial '{name}' lost its worker {losses[at]} times in a row ({type(loss).__name__}): is there "
                    f"enough memory? See '{out / LOG}', or take fewer --workers"
                ) from None
            waiting.append(leg)
            return
        except SepnetError as reason:
            raise SepnetError(f"trial '{name}': {reason}") from reason
        if progress.files is not None:
            write_run(out / name, progress.files)
        if further := leg if _goes_on(leg, progress) else source.report(leg, progress):
            waiting.append(further)

    try:
        with SignalGuard() as signals:
            while True:
                stopping = signals.received or error
                if stopping:
                    session.unlink(missing_ok=True)
                room = 0 if stopping else workers.capacity() - len(active)
                while room > 0 and (leg := waiting.popleft() if waiting else source.next()):
                    active[workers.submit(advance, order(leg))] = leg
                    room -= 1
                watch(len(active))
                if not active and (stopping or room > 0):
                    break
                if not active:
                    time.sleep(TICK)
                for future in wait(active, timeout=TICK, return_when=FIRST_COMPLETED).done:
                    try:
                        finish(active.pop(future), future)
                    except SepnetError as reason:
                        error = error or reason
            if error:
                raise error
            if signals.received:
                raise Interrupted(signals.received, out, f"call the same `{again}` again")
    finally:
        session.unlink(missing_ok=True)


def _goes_on(leg: Leg, progress: Progress) -> bool:
    """Whether a worker stopped before it was told to: its time was up, or it was interrupted."""
    return not (progress.finished or progress.failed or (leg.rung and progress.epochs >= leg.until))
