"""Who beats whom: by the assignment, and by the statistics. The two are never mixed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from sepnet import html
from sepnet.errors import SepnetError
from sepnet.runs import Run, RunConfig
from sepnet.runs.history import Epoch, best

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class ByAssignment:
    """The challenger's best epoch against the base's final and best, each by its first seed's run.

    Comparing best epochs picks the maximum of noisy figures on the very images that judge; it is the
    assignment's rule, and no evidence that one recipe is better than the other.
    """

    base_final: float
    base_best: float
    base_best_epoch: int
    challenger_best: float
    challenger_best_epoch: int
    passed_epoch: int | None
    """First epoch at which the challenger stood above the base's best, or None."""
    beats_final: bool
    beats_best: bool

    def sentence(self, base: str, challenger: str) -> str:
        """Return the judgement in words, of the networks of these names."""
        if self.beats_best:
            verb = "beats"
        elif self.beats_final:
            verb = "beats the last, not the best epoch of"
        else:
            verb = "does not beat"
        passed = "" if self.passed_epoch is None else f", which it first passed at epoch {self.passed_epoch}"
        return (
            f"{challenger} {verb} {base}: best {_percent(self.challenger_best)} % against {base}'s last "
            f"{_percent(self.base_final)} % and best {_percent(self.base_best)} %{passed}"
        )


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """McNemar's exact test on two trained models' answers to the same images (McNemar 1947, exact form).

    It judges these two sets of weights. Another seed may answer otherwise; several seeds judge the recipes.
    """

    images: int
    only_base_right: int
    only_challenger_right: int
    difference: float
    """Challenger's last accuracy minus the base's, as a share of 1."""
    p_value: float
    """Two-sided: how probable so uneven a split of the disagreements would be if both erred alike."""
    winner: str
    """``base``, ``challenger``, or ``neither`` at the 5 % level."""

    def sentence(self, base: str, challenger: str) -> str:
        """Return the judgement in words, of the networks of these names."""
        return (
            f"{_better(self.winner, base, challenger)}: last epochs differ by {100 * self.difference:+.2f} points on "
            f"{self.images:,} images; only {challenger} right on {self.only_challenger_right:,} images, only {base} on "
            f"{self.only_base_right:,}; McNemar's exact p = {self.p_value:.2g} (of these two trained models, not of "
            "their recipes)"
        )


@dataclass(frozen=True, kw_only=True)
class Welch:
    """Welch's interval of the difference of mean last-epoch accuracies over seeds (Welch 1947)."""

    base_mean: float
    base_standard_error: float
    challenger_mean: float
    challenger_standard_error: float
    base_runs: int
    challenger_runs: int
    difference: float
    low: float
    high: float
    """Ends of the 95 % interval of challenger minus base."""
    winner: str
    """``neither``, too, where no seed differs from another: so few values say nothing of the spread."""

    def sentence(self, base: str, challenger: str) -> str:
        """Return the judgement in words, of the networks of these names."""
        return (
            f"{_better(self.winner, base, challenger)}: last epochs over {self.challenger_runs} and {self.base_runs} "
            f"seeds {_percent(self.challenger_mean)} ± {_percent(self.challenger_standard_error)} against "
            f"{_percent(self.base_mean)} ± {_percent(self.base_standard_error)} (mean ± standard error); difference "
            f"{100 * self.difference:+.2f} points, Welch's 95 % interval {100 * self.low:+.2f} to "
            f"{100 * self.high:+.2f}"
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Both judgements of one comparison."""

    validation: str
    by_assignment: ByAssignment
    by_statistics: McNemar | Welch

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain values; the test's name stands beside its figures."""
        test = "mcnemar_exact" if isinstance(self.by_statistics, McNemar) else "welch"
        return {
            "validation": self.validation,
            "by_assignment": asdict(self.by_assignment),
            "by_statistics": {"test": test, **asdict(self.by_statistics)},
        }

    def _repr_html_(self) -> str:
        """Return both judgements as a notebook shows them."""
        names = "base", "challenger"
        rows = [
            ("by the assignment", self.by_assignment.sentence(*names)),
            ("by the statistics", self.by_statistics.sentence(*names)),
        ]
        return html.table(("", ""), rows, caption="Verdict", words=2)


def judge(base_runs: Sequence[Run], challenger_runs: Sequence[Run]) -> Verdict:
    """Judge finished runs, one of each network or one of each for every seed.

    Raises:
        SepnetError: a run is unfinished, or the runs were not validated on the same images.

    """
    first, other = base_runs[0], challenger_runs[0]
    for run in (*base_runs, *challenger_runs):
        run.require_finished()
        require_same_images(first.config, run.config)
        if run.logits()[1].tolist() != first.logits()[1].tolist():
            raise SepnetError(f"'{first.path}' and '{run.path}' were not validated on the same images")
    if len(base_runs) == len(challenger_runs) == 1:
        statistics: McNemar | Welch = mcnemar(first.correct(), other.correct())
    else:
        statistics = welch(_last_accuracies(base_runs), _last_accuracies(challenger_runs))
    return Verdict(
        validation=first.config.validation,
        by_assignment=by_assignment(first.history, other.history),
        by_statistics=statistics,
    )


def require_same_images(first: RunConfig, second: RunConfig) -> None:
    """Raise unless two runs are, or would be, scored on the same images."""
    for name in ("data", "validation"):
        values = getattr(first, name), getattr(second, name)
        if values[0] != values[1]:
            raise SepnetError(
                f"{first.network} has {name} '{values[0]}' and {second.network} '{values[1]}': expected the same"
            )


def by_assignment(base: Sequence[Epoch], challenger: Sequence[Epoch]) -> ByAssignment:
    """Judge two histories by the assignment's rule; a tie is no win."""
    base_best, challenger_best = best(base), best(challenger)
    passed = [epoch.epoch for epoch in challenger if epoch.val_accuracy > base_best.val_accuracy]
    return ByAssignment(
        base_final=base[-1].val_accuracy,
        base_best=base_best.val_accuracy,
        base_best_epoch=base_best.epoch,
        challenger_best=challenger_best.val_accuracy,
        challenger_best_epoch=challenger_best.epoch,
        passed_epoch=passed[0] if passed else None,
        beats_final=challenger_best.val_accuracy > base[-1].val_accuracy,
        beats_best=bool(passed),
    )


def mcnemar(base_right: Tensor, challenger_right: Tensor) -> McNemar:
    """Test two models' right answers, each ``(N,)`` bool, image by image."""
    from scipy import stats  # half a second, which a summary need not wait for

    only_base = int((base_right & ~challenger_right).sum())
    only_challenger = int((challenger_right & ~base_right).sum())
    disagreements = only_base + only_challenger
    p_value = float(stats.binomtest(only_base, disagreements).pvalue) if disagreements else 1.0
    difference = (only_challenger - only_base) / len(base_right)
    return McNemar(
        images=len(base_right),
        only_base_right=only_base,
        only_challenger_right=only_challenger,
        difference=difference,
        p_value=p_value,
        winner=_winner(difference, p_value < 1 - CONFIDENCE),
    )


def spread(values: Sequence[float], form: str = "{:.2f}") -> str:
    """Return mean ± standard error; of one value, the value."""
    mean = form.format(statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean} ± {form.format(statistics.stdev(values) / math.sqrt(len(values)))}"


def welch(base: Sequence[float], challenger: Sequence[float]) -> Welch:
    """Compare the mean accuracies of two recipes over their seeds, at least two each."""
    from scipy import stats  # half a second, which a summary need not wait for

    if min(len(base), len(challenger)) < 2:
        raise SepnetError(f"{len(base)} runs against {len(challenger)}: expected one each, or at least two each")
    difference = _mean(challenger) - _mean(base)
    low, high = _welch_interval(base, challenger, difference)
    return Welch(
        base_mean=_mean(base),
        base_standard_error=float(stats.sem(base)),
        challenger_mean=_mean(challenger),
        challenger_standard_error=float(stats.sem(challenger)),
        base_runs=len(base),
        challenger_runs=len(challenger),
        difference=difference,
        low=low,
        high=high,
        winner=_winner(difference, low < high and not low <= 0 <= high),
    )


def _welch_interval(base: Sequence[float], challenger: Sequence[float], difference: float) -> tuple[float, float]:
    """Return the interval's ends; without any spread between seeds it is the difference alone."""
    from scipy import stats  # half a second, which a summary need not wait for

    errors = [float(stats.sem(values)) ** 2 for values in (base, challenger)]
    if sum(errors) == 0:
        return difference, difference
    freedom = sum(errors) ** 2 / sum(
        error**2 / (len(values) - 1) for error, values in zip(errors, (base, challenger), strict=True)
    )
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(sum(errors))
    return difference - half, difference + half


def _last_accuracies(runs: Sequence[Run]) -> list[float]:
    return [run.history[-1].val_accuracy for run in runs]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _winner(difference: float, significant: bool) -> str:
    if not significant:
        return "neither"
    return "challenger" if difference > 0 else "base"


def _better(winner: str, base: str, challenger: str) -> str:
    names = {"base": f"{base} is better", "challenger": f"{challenger} is better"}
    return names.get(winner, "no difference is shown")


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
