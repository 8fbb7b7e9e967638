"""What a design costs, judged by a rules file before anything is trained."""

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass

from sepnet import data as datasets
from sepnet.anatomy import trace
from sepnet.anatomy.parameter_count import parameters_of
from sepnet.errors import SepnetError
from sepnet.export.int8.footprint import footprint
from sepnet.networks import build
from sepnet.rules import Rules, check
from sepnet.sweep.plan import Trial


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Whether a design keeps the rules."""

    parameters: int | None
    """None where it cannot be built, or has lazy layers."""
    broken: tuple[str, ...] = ()
    """The rules that it does not keep."""
    over: float = 0.0
    """By how much it is beyond its limits, in shares of each, in all; above 0 where a rule is broken."""


@functools.cache
def images(data: str) -> tuple[tuple[int, int, int], int, int]:
    """Return shape ``(C, H, W)``, classes and number of a dataset's images to train on."""
    dataset = datasets.open_data(data).holdout()
    return dataset.image_shape, len(dataset.classes), len(dataset.train)


@functools.lru_cache(maxsize=1024)
def _judge(network: str, data: str, rules: Rules | None) -> Judgement:
    shape, classes, _ = images(data)
    model = build(network, classes=classes, image_shape=shape)
    parameters = parameters_of(model)
    if rules is None:
        return Judgement(parameters=parameters)
    limit = rules.parameters_below
    # Most of what a search proposes is too large, and that is known without a capture.
    if limit is not None and parameters is not None and parameters >= limit:
        return Judgement(parameters=parameters, broken=("parameters",), over=(parameters + 1 - limit) / limit)
    report = check(trace(model, shape, name=network), rules, functools.partial(footprint, model, shape, name=network))
    broken = [result for result in report.results if not result.kept]
    over = sum((result.over or 1) / (result.limit or 1) for result in broken)
    return Judgement(parameters=parameters, broken=tuple(result.rule for result in broken), over=over)


def judge(trial: Trial, rules: Rules | None) -> Judgement:
    """Return how a trial's network is judged.

    Raises:
        SepnetError: the network or the dataset is unknown, or they do not fit; the row is named.

    """
    with _naming(trial):
        return _judge(trial.network, trial.data, rules)


def epochs_of(trial: Trial) -> int:
    """Return the epochs of a trial's recipe.

    Raises:
        SepnetError: the recipe is unknown, or a field or its value; the row is named.

    """
    with _naming(trial):
        return trial.resolve_recipe().epochs


@contextlib.contextmanager
def _naming(trial: Trial) -> Iterator[None]:
    try:
        yield
    except SepnetError as error:
        raise SepnetError(f"row '{trial.row}': {error}") from error
