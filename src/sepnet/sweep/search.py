"""Search under a budget: Optuna proposes, anatomy rejects, and only the best of a rung go on."""

import json
import math
import time
import warnings
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sepnet.errors import SepnetError
from sepnet.notices import notice
from sepnet.rules import Rules
from sepnet.runs import Run
from sepnet.sweep.designs import Judgement, epochs_of, judge
from sepnet.sweep.engine import Leg
from sepnet.sweep.ledger import outcome_of, read_ledger
from sepnet.sweep.plan import DESIGN, Plan, Row, Trial
from sepnet.sweep.space import OBJECTIVES, Choices, Range, Search
from sepnet.sweep.view import Status
from sepnet.sweep.worker import Progress

if TYPE_CHECKING:
    from optuna import Study

JOURNAL = "study.journal"
STUDY = "sweep"
FEWEST, SECONDS = 20, 5.0
"""Designs rejected, and seconds gone, before the space is tried at its low end."""
MOST_REJECTED = 1000
"""In a row, after which the search ends."""


class Designs:
    """The trials of a search, in the place of a sweep's rows."""

    def __init__(self, plan: Plan, out: Path, rules: Rules | None) -> None:
        assert plan.search is not None
        self.say: Callable[[str], None] = notice
        self.plan, self.search, self.out, self.rules = plan, plan.search, out, rules
        self.status = Status(total=self.search.trials)
        self.study = _open_study(out, self.search)
        self.waiting: deque[Trial] = deque()
        self._numbers: dict[str, int] = {}
        self._known: dict[tuple[str, str], int] = {}
        self._spent: dict[str, int] = {}
        """Epochs done or on their way, by trial."""
        self._rungs: dict[int, dict[str, float]] = {rung: {} for rung in self.search.rungs}
        self._kept = 0
        self._take_up()
        if not self.waiting and not self._is_over():
            self.waiting.append(self._propose())
        self._show_work()

    def _take_up(self) -> None:
        """Count what the study and the folders have, and go on with what was broken off."""
        from optuna.trial import TrialState

        ledger = read_ledger(self.out)
        for frozen in self.study.get_trials(deepcopy=False):
            if frozen.state is TrialState.WAITING:
                continue
            trial = self._trial(frozen.number, frozen.params) if len(frozen.params) == len(self._dimensions) else None
            outcome = ledger.get((trial.row, trial.seed)) if trial else None
            if trial and outcome:
                self._spent[trial.name] = outcome.epochs
                for rung in self._rungs:
                    if outcome.epochs >= rung:
                        self._rungs[rung][trial.name] = outcome.history[rung - 1][1]
            if frozen.state is TrialState.RUNNING:
                if trial is None or self._judge(trial).broken:
                    self.study.tell(frozen.number, state=TrialState.FAIL)
                    continue
                self.waiting.append(trial)
            elif trial is None or frozen.constraints:
                self.status.rejected += 1
                continue
            elif frozen.state is TrialState.COMPLETE and outcome:
                self.status.finish(outcome.accuracy, trial.name)
            elif frozen.state is TrialState.PRUNED:
                self.status.pruned += 1
            else:
                self.status.failed += 1
            self._remember(trial, frozen.number)

    def _remember(self, trial: Trial, number: int) -> None:
        self._kept += 1
        self._numbers[trial.name] = number
        self._known.setdefault(_identity(trial), number)

    @property
    def _dimensions(self) -> dict[str, Range | Choices]:
        return self.search.dimensions()

    def _trial(self, number: int, drawn: dict[str, Any]) -> Trial:
        parameters, settings = self.search.design(drawn)
        row = Row(name=f"{DESIGN}{number}", parameters=parameters, settings=settings)
        return self.plan.trial(row, self.plan.seeds[0])

    @property
    def at_once(self) -> int:
        """How many trials may run at a time."""
        return self.search.trials or 10**9

    def next(self) -> Leg | None:
        """Return a trial that was broken off, or a new design; None where the search is over."""
        if not self.waiting and self._is_over():
            return None
        trial = self.waiting.popleft() if self.waiting else self._propose_or_end()
        return None if trial is None else self._leg(trial, self._spent.get(trial.name, 0))

    def _is_over(self) -> bool:
        most_trials, most_epochs = self.search.trials or math.inf, self.search.epochs or math.inf
        return self._kept >= most_trials or sum(self._spent.values()) >= most_epochs

    def _leg(self, trial: Trial, done: int) -> Leg:
        """Return the trial with its next rung at or after so many epochs, or with its last epoch."""
        epochs = epochs_of(trial)
        until = next((rung for rung in self._rungs if done <= rung < epochs), epochs)
        self._spent[trial.name] = until
        return Leg(trial=trial, until=until, rung=until < epochs)

    def _propose_or_end(self) -> Trial | None:
        try:
            return self._propose()
        except _Exhausted as reason:
            self._kept = 10**9
            notice(str(reason))
            return None

    def _propose(self) -> Trial:
        """Return a design that keeps the rules and was not tried before.

        Raises:
            SepnetError: there is none near the space's low end, nor among those that were drawn.

        """
        from optuna.trial import TrialState

        begun, tried = time.monotonic(), list[tuple[Trial, Judgement]]()
        for count in range(MOST_REJECTED):
            drawn = self.study.ask(_distributions(self._dimensions))
            trial = self._trial(drawn.number, drawn.params)
            judgement = self._judge(trial)
            if judgement.broken:
                tried.append((trial, judgement))
                self.status.rejected += 1
                drawn.set_constraint("rules", judgement.over)
                self.study.tell(drawn, state=TrialState.PRUNED)
            elif (same := self._known.get(_identity(trial))) is not None:
                earlier = self.study.get_trials(deepcopy=False)[same]
                if earlier.state is TrialState.COMPLETE:
                    self.study.tell(drawn, earlier.values)
                else:
                    self.study.tell(drawn, state=TrialState.FAIL)
            else:
                self._remember(trial, drawn.number)
                return trial
            late = count >= FEWEST or time.monotonic() - begun > SECONDS
            if late and not self._kept and tried and "low" not in self.study.user_attrs:
                self._try_low_end(tried)
        raise _Exhausted(f"no new design that keeps the rules in {MOST_REJECTED} draws: the search ends")

    def _try_low_end(self, tried: list[tuple[Trial, Judgement]]) -> None:
        """Let the space's low end be proposed next, if that keeps the rules.

        Raises:
            SepnetError: it does not.

        """
        low = {name: one.low if isinstance(one, Range) else one[0] for name, one in self._dimensions.items()}
        trial = self._trial(0, low)
        tried.append((trial, self._judge(trial)))
        if not tried[-1][1].broken:
            self.study.set_user_attr("low", True)
            self.study.enqueue_trial(low)
            return
        smallest, judged = min(tried, key=lambda one: (one[1].parameters or math.inf, one[1].over))
        size = "" if judged.parameters is None else f", with {judged.parameters:,} parameters"
        raise SepnetError(
            f"no design of {len(tried)} tried keeps the rules: the smallest is {smallest.network}{size} "
            f"({', '.join(judged.broken)}); widen the space or the budget"
        )

    def _judge(self, trial: Trial) -> Judgement:
        """Return how a design is judged; one that cannot be built is broken, too."""
        epochs_of(trial)
        try:
            return judge(trial, self.rules)
        except SepnetError as error:
            return Judgement(parameters=None, broken=(str(error),), over=1.0)

    def report(self, leg: Leg, progress: Progress) -> Leg | None:
        """Tell the study what a trial came to; return how it goes on, if it is among the best of its rung."""
        from optuna.trial import Trial as Drawn
        from optuna.trial import TrialState

        trial, number, accuracy = leg.trial, self._numbers[leg.trial.name], progress.accuracy
        if progress.failed:
            self.status.failed += 1
            self.study.tell(number, state=TrialState.FAIL)
            self.say(f"{trial.name} failed: {progress.failed}")
            return None
        assert accuracy is not None
        self._spent[trial.name] = progress.epochs
        figures = f"{trial.name}: {100 * accuracy:.2f} % after {progress.epochs} epochs"
        if not progress.finished:
            rung = self._rungs[progress.epochs]
            rung[trial.name] = accuracy
            if len(self.search.objectives) == 1:
                Drawn(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id).report(
                    accuracy, progress.epochs
                )
            better = sum(other > accuracy for other in rung.values())
            if better < math.ceil(self.search.keep * len(rung)):
                return self._leg(trial, progress.epochs + 1)
            self.status.pruned += 1
            self.study.tell(number, state=TrialState.PRUNED)
            self._show_work()
            self.say(f"{figures}, pruned")
            return None
        outcome = outcome_of(Run.open(self.out / trial.name))
        self.study.tell(number, [float(getattr(outcome, name)) for name in self.search.objectives])
        self.status.finish(accuracy, trial.name)
        self._show_work()
        self.say(f"{figures}: {trial.network}")
        return None

    def _show_work(self) -> None:
        status = self.status
        ended = status.done + status.pruned + status.failed
        shares = [ended / self.search.trials] if self.search.trials else []
        shares += [sum(self._spent.values()) / self.search.epochs] if self.search.epochs else []
        status.work = min(1.0, max(shares))


class _Exhausted(Exception):
    """Nothing new can be proposed."""


def _identity(trial: Trial) -> tuple[str, str]:
    return trial.network, json.dumps(trial.settings, sort_keys=True)


def _distributions(dimensions: dict[str, Range | Choices]) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, one in dimensions.items():
        if not isinstance(one, Range):
            found[name] = CategoricalDistribution(one)
        elif one.whole:
            found[name] = IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
        else:
            found[name] = FloatDistribution(one.low, one.high, log=one.log, step=one.step)
    return found


def _open_study(out: Path, search: Search) -> "Study":
    """Return the study in the sweep's folder.

    Raises:
        SepnetError: Optuna is not installed, or the study is of another space.

    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError:
        raise SepnetError("a [search] needs the package optuna: pip install 'sepnet[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is experimental there
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(out / JOURNAL))),
            study_name=STUDY,
            directions=[OBJECTIVES[name] for name in search.objectives],
            load_if_exists=True,
        )
        # Drawn anew for each session: a sampler that began again would propose what it did.
        seed = (search.seed * 1_000_003 + len(study.get_trials(deepcopy=False))) % 2**32
        random, tpe = optuna.samplers.RandomSampler, optuna.samplers.TPESampler
        study.sampler = random(seed) if search.sampler == "random" else tpe(seed=seed, multivariate=True)
    space = json.dumps([search.objectives, search.parameters, search.settings])
    if study.user_attrs.setdefault("space", space) != space:
        raise SepnetError(f"the search in '{out}' has another space or other objectives: choose another --out")
    study.set_user_attr("space", space)
    return study
