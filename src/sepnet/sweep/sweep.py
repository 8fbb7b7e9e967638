"""A sweep: its file, its folder, and how what is missing gets trained."""

import shlex
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from sepnet import environment
from sepnet.errors import SepnetError
from sepnet.files import exclusively
from sepnet.notices import notice
from sepnet.rules import Rules, load_rules
from sepnet.runs import Run
from sepnet.sweep import tables
from sepnet.sweep.cluster import DaskWorkers, sources_of
from sepnet.sweep.designs import epochs_of, images, judge
from sepnet.sweep.engine import Leg, Workers, run_trials
from sepnet.sweep.ledger import Ledger, read_ledger, write_ledger
from sepnet.sweep.plan import Plan, Trial, read_plan
from sepnet.sweep.search import Designs
from sepnet.sweep.shares import processes, worker_count
from sepnet.sweep.view import Status, View
from sepnet.sweep.worker import Progress

PICTURE = "fronts.png"


@dataclass(frozen=True)
class Sweep:
    """A sweep's file, what it says, and the folder of its runs."""

    file: Path
    plan: Plan
    out: Path

    @staticmethod
    def open(file: str | Path, out: str | Path | None = None) -> "Sweep":
        """Return the sweep of a TOML file; its folder is the file's name without ``.toml`` unless ``out`` says so.

        Raises:
            SepnetError: the file is missing, or says something unknown.

        """
        file = Path(file)
        if file.suffix != ".toml":
            raise SepnetError(f"sweep file '{file}': expected a .toml file")
        return Sweep(file, read_plan(file), file.with_suffix("") if out is None else Path(out))

    def ledger(self) -> Ledger:
        """Return what its runs came to so far."""
        return read_ledger(self.out)

    def to_markdown(self, ledger: Ledger) -> str:
        """Return the page of its rows."""
        return tables.to_markdown(self.plan, ledger)

    def best_to_text(self, ledger: Ledger) -> str:
        """Return the rows that none beats at their cost."""
        return tables.best_to_text(self.plan, ledger)

    def draw(self, ledger: Ledger) -> Path:
        """Draw accuracy against costs into the sweep's folder; return the picture.

        Raises:
            SepnetError: no trial is finished, or the picture cannot be written.

        """
        from sepnet.report.theme import save  # Matplotlib, for this alone
        from sepnet.sweep.plot import fronts

        rows = [entry for entry in tables.entries(self.plan, ledger) if entry.outcomes]
        if not rows:
            raise SepnetError(f"no trial of '{self.file}' is finished: run it first")
        self.out.mkdir(parents=True, exist_ok=True)
        save(fronts(rows, self.plan.images), self.out / PICTURE)
        return self.out / PICTURE

    def run(self, *, workers: int | str | None = None, cluster: str | None = None) -> Ledger:
        """Train what is missing; write the ledger, and return it.

        Args:
            workers: processes; ``auto`` for as many as are fastest, a process a core when absent.
            cluster: in their place, the address of a Dask scheduler, or a TOML file that says how to start a cluster.

        Raises:
            SepnetError: a trial cannot be trained; the others are saved.
            Interrupted: SIGINT or SIGTERM came; what was running is saved.

        """
        count = worker_count(workers)
        if cluster is not None and workers is not None:
            raise SepnetError(
                "workers and cluster are both given: the one is this machine's, the other a cluster's own"
            )
        rules = load_rules(self.plan.rules) if self.plan.rules else None
        self.out.mkdir(parents=True, exist_ok=True)
        with exclusively(self.out, busy=f"sweep '{self.out}' is being run by another process: wait for it"):
            rows = Designs(self.plan, self.out, rules) if self.plan.search else Rows(self.plan, self.out, rules)
            try:
                if rows.waiting:
                    for left in self.out.glob(".session-*"):  # workers of a killed coordinator stop without it
                        left.unlink(missing_ok=True)
                    first = rows.waiting[0]
                    found: Workers = (
                        processes(count, first, rows.at_once, self.out, partial(images, first.data))
                        if cluster is None
                        else DaskWorkers(cluster)
                    )
                    with closing(found), View(rows.status) as view:
                        rows.say = view.say
                        sources = {} if cluster is None else sources_of(self.plan)
                        run_trials(rows, found, self.out, origin=self._origin(), sources=sources, watch=view.watch)
            finally:
                ledger = self.ledger()
                write_ledger(self.out, ledger.values())
        notice(f"{rows.status}; runs and ledger in {self.out}")
        return ledger

    def _origin(self) -> Callable[[Trial], dict[str, Any]]:
        commit = environment.commit() or ""
        return lambda trial: {"row": trial.row, "command": trial.command, "commit": commit}


class Trials:
    """Trials that are known beforehand, in their order."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.say: Callable[[str], None] = notice
        self.status = Status(total=len(trials))
        self.waiting: deque[Trial] = deque()
        self._epochs = {trial.name: epochs_of(trial) for trial in trials}
        self._done: dict[str, int] = {}

    def wait(self, trials: Sequence[tuple[Trial, int]]) -> None:
        """Let trials wait, each with the number of epochs that it has."""
        self.waiting.extend(trial for trial, _ in trials)
        self._done.update({trial.name: done for trial, done in trials})
        self._show_work()

    @property
    def at_once(self) -> int:
        """How many trials may run at a time."""
        return len(self.waiting)

    def next(self) -> Leg | None:
        """Return the next trial."""
        return self._leg(self.waiting.popleft()) if self.waiting else None

    def _leg(self, trial: Trial) -> Leg:
        return Leg(trial=trial, until=self._epochs[trial.name])

    def report(self, leg: Leg, progress: Progress) -> Leg | None:
        """Count a trial that is done."""
        trial = leg.trial
        if progress.failed:
            self._fail(trial, progress.failed)
        else:
            assert progress.accuracy is not None
            self._finish(trial, progress.accuracy)
            self._show_work()
            self.say(f"{trial.name}: {100 * progress.accuracy:.2f} % after {progress.epochs} epochs")
        return None

    def _finish(self, trial: Trial, accuracy: float) -> None:
        self.status.finish(accuracy, trial.name)
        self._done[trial.name] = self._epochs[trial.name]

    def _fail(self, trial: Trial, reason: str) -> None:
        self.status.failed += 1
        self._epochs.pop(trial.name)
        self._done.pop(trial.name, None)
        self.say(f"{trial.name} failed: {reason}")

    def _show_work(self) -> None:
        self.status.work = sum(self._done.values()) / max(1, sum(self._epochs.values()))


class Rows(Trials):
    """The trials of rows and grid that are still to be trained."""

    def __init__(self, plan: Plan, out: Path, rules: Rules | None) -> None:
        super().__init__(trials := plan.trials())
        ledger, unfinished = read_ledger(out), list[tuple[Trial, int]]()
        for trial in trials:
            outcome, folder = ledger.get((trial.row, trial.seed)), out / trial.name
            if outcome is not None and folder.exists():
                _require_same(folder, outcome.command, trial)
            if outcome is not None and outcome.finished:
                self._finish(trial, outcome.accuracy)
            elif reason := Run.open(folder).diverged if folder.exists() else "":
                self._fail(trial, f"{reason}; remove '{folder}' to try again")
            elif broken := judge(trial, rules).broken:
                self.status.rejected += 1
                self._epochs.pop(trial.name)
                notice(f"{trial.name} is not trained: {trial.network} breaks the rules ({', '.join(broken)})")
            else:
                unfinished.append((trial, outcome.epochs if outcome else 0))
        self.wait(unfinished)


def _require_same(folder: Path, command: str, trial: Trial) -> None:
    """Raise unless a run was made for this very trial; the places of files may have changed."""
    had, has = ([PurePath(word).name for word in shlex.split(text)] for text in (command, trial.command))
    if had != has:
        raise SepnetError(
            f"run '{folder}' was made by `{command}`, and row '{trial.row}' now says `{trial.command}`: give the row "
            "another name, or remove the run"
        )
