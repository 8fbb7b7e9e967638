"""A finished run written for another framework, another runtime or a device, and scored there."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import nn

from sepnet.data import Dataset
from sepnet.errors import SepnetError
from sepnet.export.artifacts import ENDINGS, SUFFIXES, Exporter, judge, require_writable, seconds_on_one_core
from sepnet.inference import classifier
from sepnet.networks import NETWORKS, split_name
from sepnet.networks.shipped import is_shipped
from sepnet.notices import notice
from sepnet.runs import Run
from sepnet.runs.scores import Score
from sepnet.training.trained_network import find_run

TORCH = "torch"
"""What a table of scores calls the run itself."""


@dataclass(kw_only=True, eq=False)
class Exports:
    """The formats of one run; its weights and images are read, and its int8 plan made, once for all of them."""

    run: Run
    folder: Path
    """Where a file goes that is given no place."""
    network: nn.Module | None = None
    trust: bool = False

    @staticmethod
    def of(run: str | Path | Run, network: nn.Module | None = None, *, trust: bool = False) -> "Exports":
        """Return the exports of a run, as :func:`sepnet.load` takes it."""
        found = find_run(run)
        folder = Path() if isinstance(run, str) and run in NETWORKS else found.path
        return Exports(run=found, folder=folder, network=network, trust=trust)

    def write(self, format: str, out: Path | None = None) -> Path:
        """Write the run's network, see :func:`sepnet.export_run`."""
        require_formats([format])
        file = self.folder / f"{self._name}{ENDINGS[format]}" if out is None else out
        require_writable(file, format)
        self._exporter.make(format, file.stem).write(file)
        return file

    def score(self, formats: Sequence[str]) -> list[Score]:
        """Judge what is written by the images that the run was scored on, see :func:`sepnet.score_exports`."""
        require_formats(formats)
        answering = classifier.Classifier(self.run, self.network, trust=self.trust)
        split = self._data.test
        logits = answering.logits(split.images)
        on_processor = answering.device.type == "cpu"
        seconds = seconds_on_one_core(answering.logits, split.images) if on_processor else None
        scores = [judge(TORCH, logits, split.labels, logits, bytes=self.run.weights_bytes, seconds=seconds)]
        for name in dict.fromkeys(formats):
            artifact = self._exporter.make(name, self._name)
            scores.append(artifact.score(split.images, split.labels, logits))
        self._keep(scores)
        return scores

    def _keep(self, scores: Sequence[Score]) -> None:
        """Keep scores in the run's folder; where nothing can be written there, say so: they have been computed."""
        if is_shipped(self.run.path):
            return
        try:
            self.run.keep_scores(scores)
        except SepnetError as error:
            notice(f"the scores are not kept: {error}")

    @property
    def _name(self) -> str:
        return split_name(self.run.config.network).attribute

    @cached_property
    def _exporter(self) -> Exporter:
        config = self.run.config
        return Exporter(
            model=classifier.load(self.run, self.network, trust=self.trust),
            image_shape=config.image_shape,
            name=self._name,
            classes=config.classes,
            mean=config.mean,
            std=config.std,
            images=lambda: self._data.train.images,
        )

    @cached_property
    def _data(self) -> Dataset:
        """The run's data, split as it was trained and scored on them."""
        dataset = classifier.load_data(self.run)
        return dataset.holdout() if self.run.config.validation == "holdout" else dataset


def require_formats(formats: Sequence[str]) -> None:
    """Raise if a format is unknown, before any is written."""
    for name in formats:
        if name not in SUFFIXES:
            raise SepnetError(f"unknown format '{name}': expected {', '.join(SUFFIXES)}")
