"""What a design costs, judged by a rules file before anything is trained."""

import contextlib
import functools
from collections.abc import Iterator

from sepnet import data as datasets
from sepnet.anatomy import trace
from sepnet.errors import SepnetError
from sepnet.export.int8.footprint import footprint
from sepnet.networks import build
from sepnet.rules import Rules, RulesReport, check
from sepnet.sweep.plan import Trial


@functools.cache
def images(data: str) -> tuple[tuple[int, int, int], int, int]:
    """Return shape ``(C, H, W)``, classes and number of a dataset's images to train on."""
    dataset = datasets.open_data(data).holdout()
    return dataset.image_shape, len(dataset.classes), len(dataset.train)


@functools.lru_cache(maxsize=1024)
def _judge(network: str, data: str, rules: Rules | None) -> RulesReport | None:
    shape, classes, _ = images(data)
    model = build(network, classes=classes, image_shape=shape)
    if rules is None:
        return None
    anatomy = trace(model, shape, name=network)
    return check(anatomy, rules, functools.partial(footprint, model, shape, name=network))


def judge(trial: Trial, rules: Rules | None) -> RulesReport | None:
    """Return how a trial's network is judged, None without rules.

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
