"""A finished run written for another framework, another runtime or a device, and scored there."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from sepnet.data import Dataset
from sepnet.errors import SepnetError
from sepnet.export.artifacts import ENDINGS, SUFFIXES, Exporter, require_writable, score, seconds_on_one_core
from sepnet.inference import classifier
from sepnet.networks import split_name
from sepnet.networks.shipped import is_shipped
from sepnet.notices import notice
from sepnet.runs import Run
from sepnet.runs.scores import Score

TORCH = "torch"
"""What a table of scores calls the run itself."""


def export_run(
    run: Run,
    format: str,
    out: Path | None,
    folder: Path,
    network: nn.Module | None = None,
    *,
    trust: bool = False,
) -> Path:
    """Write a run's network, see :func:`sepnet.export_run`; unless ``out`` is given, in ``folder``."""
    require_formats([format])
    file = folder / f"{_name(run)}{ENDINGS[format]}" if out is None else out
    require_writable(file, format)
    _exporter(run, classifier.load(run, network, trust=trust)).make(format, file.stem).write(file)
    return file


def score_exports(
    run: Run, formats: Sequence[str], network: nn.Module | None = None, *, trust: bool = False
) -> list[Score]:
    """Judge what is exported by the images that the run was scored on, see :func:`sepnet.score_exports`."""
    require_formats(formats)
    exporter = _exporter(run, classifier.load(run, network, trust=trust))
    split = _data_of(run).test
    answering = classifier.Classifier(run, network, trust=trust)
    logits = answering.logits(split.images)
    on_processor = answering.device.type == "cpu"
    itself = Score(
        format=TORCH,
        images=len(split),
        accuracy=float((logits.argmax(1) == split.labels).double().mean()),
        agreement=1.0,
        bytes=run.weights_bytes,
        seconds=seconds_on_one_core(answering.logits, split.images) if on_processor else None,
    )
    scores = [itself]
    for name in dict.fromkeys(formats):
        scores.append(score(exporter.make(name, _name(run)), split.images, split.labels, logits))
    _keep(run, scores)
    return scores


def require_formats(formats: Sequence[str]) -> None:
    """Raise if a format is unknown, before any is written."""
    for name in formats:
        if name not in SUFFIXES:
            raise SepnetError(f"unknown format '{name}': expected {', '.join(SUFFIXES)}")


def _keep(run: Run, scores: Sequence[Score]) -> None:
    """Keep scores in the run's folder; where nothing can be written there, say so: they have been computed."""
    if is_shipped(run.path):
        return
    try:
        run.keep_scores(scores)
    except SepnetError as error:
        notice(f"the scores are not kept: {error}")


def _name(run: Run) -> str:
    return split_name(run.config.network).attribute


def _exporter(run: Run, model: nn.Module) -> Exporter:
    config = run.config
    return Exporter(
        model=model,
        image_shape=config.image_shape,
        name=_name(run),
        classes=config.classes,
        mean=config.mean,
        std=config.std,
        images=lambda: _data_of(run).train.images,
    )


def _data_of(run: Run) -> Dataset:
    """Return a run's data, split as it was trained and scored on them."""
    dataset = classifier.load_data(run)
    return dataset.holdout() if run.config.validation == "holdout" else dataset
