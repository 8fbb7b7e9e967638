"""What a report says, gathered from finished runs: who competes, how each did, and who won."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from sepnet.anatomy import Anatomy
from sepnet.comparison.significance import Verdict, judge, require_same_images, spread
from sepnet.data import Dataset
from sepnet.errors import SepnetError
from sepnet.inference.evaluation import Evaluation, evaluate_logits
from sepnet.recipes.recipe import VALIDATIONS
from sepnet.report.keras_listing import in_narrow_lines
from sepnet.report.reproduction import can_be_made_again
from sepnet.rules import Rules, RulesReport, check
from sepnet.runs import Run, RunConfig
from sepnet.training import experiment, trained_network


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One network trained by one recipe, once for each seed."""

    label: str
    """Unique in the report: the network's name, and the recipe's where two would be called the same."""
    runs: tuple[Run, ...]
    anatomy: Anatomy
    definition: str
    """The network in Keras."""
    rules: RulesReport
    evaluation: Evaluation
    """Of the first seed's final network, on the validation images."""
    verdict: Verdict | None
    """Against the report's first contender, which has none."""
    repeatable: bool
    """Whether :func:`sepnet.train` would take up these very runs, here and now."""

    @property
    def config(self) -> RunConfig:
        """The configuration of the first seed's run."""
        return self.runs[0].config

    def figure(self, value: Callable[[Run], float], form: str = "{:.2f}") -> str:
        """Return one figure of the runs in words: mean ± standard error where there are several."""
        several = f" (standard error, {len(self.runs)} seeds)" if len(self.runs) > 1 else ""
        return spread([value(run) for run in self.runs], form) + several

    @property
    def of_seed(self) -> str:
        """What to add to a figure of the first run alone; empty where that is the only one."""
        return f" (seed {self.config.seed})" if len(self.runs) > 1 else ""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Everything a report shows. The first contender is what the others are measured by."""

    contenders: tuple[Contender, ...]
    rules: Rules
    dataset: Dataset | None
    """As the runs were scored, its ``test`` split in the order of their logits; None where it cannot be had."""

    @property
    def config(self) -> RunConfig:
        """The configuration that all runs share, as far as data and validation go."""
        return self.contenders[0].config

    @property
    def scored(self) -> list[tuple[Contender, Run]]:
        """The runs whose exports were scored, and the contender that each is of."""
        return [(contender, run) for contender in self.contenders for run in contender.runs if run.scores]

    @property
    def images(self) -> str:
        """What accuracy was measured on, in words."""
        return VALIDATIONS[self.config.validation]

    @property
    def title(self) -> str:
        """The contenders and the data in words."""
        first, *others = (contender.label for contender in self.contenders)
        against = f"{' and '.join(others)} against {first}" if others else first
        return f"{against} on {self.config.data}"


def gather(runs: Sequence[Run], rules: Rules, dataset: Dataset | None, *, trust: bool = False) -> Contents:
    """Group runs that differ by their seed alone, and judge every group by the first.

    ``trust`` is of :func:`sepnet.training.trained_network.rebuild`.

    Raises:
        SepnetError: a run is given twice or is unfinished, the runs were not scored on the same images, or one does not
            say what its network is and it cannot be built again.

    """
    _require_different(runs)
    for run in runs:
        run.require_finished()
        require_same_images(runs[0].config, run.config)
    groups: dict[Hashable, list[Run]] = {}
    for run in runs:
        groups.setdefault(replace(run.config, seed=0).identity(), []).append(run)
    base, *_ = groups.values()
    labels = _labels([group[0].config for group in groups.values()])
    contenders = tuple(
        _contender(label, group, rules, dataset, None if group is base else judge(base, group), trust=trust)
        for label, group in zip(labels, groups.values(), strict=True)
    )
    return Contents(contenders=contenders, rules=rules, dataset=dataset)


def _contender(
    label: str, runs: list[Run], rules: Rules, dataset: Dataset | None, verdict: Verdict | None, *, trust: bool
) -> Contender:
    described = trained_network.describe(runs[0], trust=trust)
    return Contender(
        label=label,
        runs=tuple(runs),
        anatomy=described.anatomy,
        definition=in_narrow_lines(described.definition, runs[0].config.recipe),
        rules=check(described.anatomy, rules, partial(trained_network.memory_on_device, runs[0], trust=trust)),
        evaluation=evaluate_logits(*runs[0].logits(), runs[0].config.classes),
        verdict=verdict,
        repeatable=dataset is not None
        and len({run.path.parent for run in runs}) == 1
        and all(_is_repeatable(run, trust=trust) for run in runs),
    )


def _is_repeatable(run: Run, *, trust: bool) -> bool:
    """Whether a run's names still lead to its network and its device, and its configuration to itself."""
    if not can_be_made_again(run.config):
        return False
    try:
        trained_network.rebuild(run, trust=trust)
        experiment.resolve_device(run.config.device)
        found = Run.find(run.path.parent, run.config)
    except SepnetError:
        return False
    return found is not None and found.path == run.path


def _require_different(runs: Sequence[Run]) -> None:
    seen: set[Path] = set()
    for run in runs:
        if run.path.resolve() in seen:
            raise SepnetError(f"run '{run.path}' is given twice: expected each run once")
        seen.add(run.path.resolve())


def _labels(configs: list[RunConfig]) -> list[str]:
    """Name each contender by its network; by more where two have the same name; by a number if need be."""
    forms: list[Callable[[RunConfig], str]] = [
        lambda config: config.network.rpartition(":")[2],
        lambda config: f"{config.network.rpartition(':')[2]}, {config.recipe.name}",
        lambda config: f"{config.network.rpartition(':')[2]}, {config.recipe.name}, {config.recipe.epochs} epochs",
    ]
    for form in forms:
        labels = [form(config) for config in configs]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{label} ({number})" for number, label in enumerate(labels, 1)]
