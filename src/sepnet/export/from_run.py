"""A finished run written for another framework, another runtime or a device, and scored there."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from sepnet.data import Dataset
from sepnet.errors import SepnetError
from sepnet.export.artifacts import ENDINGS, SUFFIXES, Exporter, Score, require_writable, score
from sepnet.inference import classifier
from sepnet.runs import Run


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
    if format != "keras" and format not in SUFFIXES:
        raise SepnetError(f"unknown format '{format}': expected keras, {', '.join(SUFFIXES)}")
    config, name = run.config, _name(run)
    file = folder / f"{name}{ENDINGS.get(format, '.keras')}" if out is None else out
    if format == "keras":
        from sepnet.export.keras.file import write_keras
        from sepnet.export.keras.plan import plan

        layers = plan(classifier.load(run, network, trust=trust), config.image_shape, name=config.network)
        write_keras(layers, file, mean=config.mean, std=config.std)
    else:
        require_writable(file, format)
        _exporter(run, classifier.load(run, network, trust=trust)).make(format, file.stem).write(file)
    return file


def score_exports(
    run: Run, formats: Sequence[str], network: nn.Module | None = None, *, trust: bool = False
) -> list[Score]:
    """Judge what is exported by the images that the run was scored on, see :func:`sepnet.score_exports`."""
    if unknown := next((name for name in formats if name not in SUFFIXES), None):
        raise SepnetError(f"format '{unknown}' cannot be scored: expected {', '.join(SUFFIXES)}")
    exporter = _exporter(run, classifier.load(run, network, trust=trust))
    split = _data_of(run).test
    logits = classifier.Classifier(run, network, trust=trust).logits(split.images)
    return [score(exporter.make(name, _name(run)), split.images, split.labels, logits) for name in formats]


def _name(run: Run) -> str:
    return run.config.network.rpartition(":")[2]


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
