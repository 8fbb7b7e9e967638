"""A finished run's network at work: loaded, and answering exactly as its validation did."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sepnet import data as datasets
from sepnet.backend import network as compiled
from sepnet.data import Dataset, Pictures, folder
from sepnet.errors import SepnetError
from sepnet.inference.evaluation import Evaluation, evaluate_logits, to_text
from sepnet.notices import notice, printable
from sepnet.recipes.recipe import VALIDATIONS
from sepnet.runs import Run, RunConfig
from sepnet.training import experiment, trained_network
from sepnet.training.forward import BATCH, Normalizer, infer, lay_out, process_settings
from sepnet.training.initialization import apply_norm_settings


def load(run: Run, network: nn.Module | None = None, *, trust: bool = False) -> nn.Module:
    """Return a finished run's trained network in evaluation mode, on the CPU where no module is given.

    ``network`` is the module to load the weights into; without it the network is built, see
    :mod:`sepnet.training.trained_network`.

    Raises:
        SepnetError: the run is unfinished, or the network is no longer the one that was trained.

    """
    run.require_finished()
    if network is None:
        network = trained_network.rebuild(run, trust=trust)
    else:
        trained_network.require_unchanged(apply_norm_settings(network, run.config.recipe), run)
    return trained_network.load_weights(network, run)


class TakesImages(Protocol):
    """Whatever takes images and answers with a score for each class."""

    @property
    def label(self) -> str:
        """What errors call it."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of its classes."""

    @property
    def image_shape(self) -> Sequence[int]:
        """``(C, H, W)`` of one image."""

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits ``(N, classes)``, float32 on the CPU, on images ``(N, C, H, W)``, uint8."""


class Classifier:
    """A finished run's network, which takes pixels and answers as in the run's validation, bit for bit.

    Bit for bit, that is, on the same processor and versions, in the run's precision.
    """

    def __init__(
        self,
        run: Run,
        network: nn.Module | None = None,
        *,
        trust: bool = False,
        device: str | torch.device | None = None,
        precision: str | None = None,
    ) -> None:
        config = run.config
        self.device = torch.device(_resolve_device(config, device))
        self.precision = experiment.resolve_precision(precision or config.precision, self.device.type)
        model, layout = lay_out(load(run, network, trust=trust), config.image_shape, self.device)
        self._network = compiled(model, self.device)
        self._normalize = Normalizer(config.mean, config.std, self.device, layout)
        self.classes, self.image_shape = config.classes, config.image_shape
        self.label = f"run '{run.path}'"

    def logits(self, images: Tensor) -> Tensor:
        """Return the logits ``(N, classes)``, float32 on the CPU, on images ``(N, C, H, W)``, uint8."""
        parts = []
        with process_settings():
            for batch in images.split(BATCH):
                resident = batch.to(self.device).contiguous(memory_format=torch.channels_last)
                parts.append(infer(self._network, self._normalize(resident), self.precision).cpu())
        return torch.cat(parts)


def answers(model: TakesImages, images: Tensor, *, mirrored: bool = False) -> Tensor:
    """Return logits ``(N, classes)`` on images ``(N, C, H, W)``, or their mean with those on mirror images."""
    logits = model.logits(images)
    return (logits + model.logits(images.flip(3))) / 2 if mirrored else logits


def _resolve_device(config: RunConfig, device: str | torch.device | None) -> str:
    """Return the device that was asked for, else the run's; the processor where the run's GPU is not here."""
    if device is None and config.device != "cpu" and not torch.cuda.is_available():
        notice(f"trained on '{config.device}', which this machine does not have: computing on the CPU")
        return "cpu"
    return experiment.resolve_device(device or config.device)


@dataclass(frozen=True, kw_only=True, repr=False)
class DatasetEvaluation(Evaluation):
    """A network, judged by its answers to images of a dataset."""

    data: str
    validation: str
    """``test`` or ``holdout``: which of the dataset's images."""
    mirrored: bool
    """Whether an answer is the mean of those to an image and to its mirror image."""

    @property
    def images_in_words(self) -> str:
        """Which images it answered to."""
        return f"{VALIDATIONS[self.validation]} of {self.data}" + ", each also mirrored" * self.mirrored

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain values, what was evaluated first."""
        context = {"data": self.data, "validation": self.validation, "mirrored": self.mirrored}
        return {**context, **super().to_dict()}


@dataclass(frozen=True, kw_only=True, repr=False)
class RunEvaluation(DatasetEvaluation):
    """A run's trained network, judged so."""

    network: str
    run: str
    """Its folder."""

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain values, what was evaluated first."""
        return {"network": self.network, "run": self.run, **super().to_dict()}

    def __repr__(self) -> str:
        return f"{self.network} of {printable(self.run)}, on the {self.images_in_words}\n{to_text(self)}"


def evaluate(
    run: Run,
    data: str | Path | Dataset | None = None,
    *,
    validation: str | None = None,
    mirrored: bool = False,
    skip_broken: bool = False,
    network: nn.Module | None = None,
    trust: bool = False,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> RunEvaluation:
    """Judge a finished run's network on images of a dataset; what is not given is as in the run.

    Raises:
        SepnetError: as for :func:`sepnet.evaluate`.

    """
    config = run.config
    validation = validation or config.validation
    experiment.require_validation(validation)
    classifier = Classifier(run, network, trust=trust, device=device, precision=precision)
    dataset = load_data(run, data, skip_broken=skip_broken)
    require_same_kind(classifier, dataset.name, dataset.classes, dataset.image_shape)
    held_out = dataset.holdout() if "holdout" in (validation, config.validation) else dataset
    as_trained = held_out if config.validation == "holdout" else dataset
    same = _note_differences(run, as_trained, validation)
    split = (held_out if validation == "holdout" else dataset).test
    evaluation = evaluate_logits(answers(classifier, split.images, mirrored=mirrored), split.labels, config.classes)
    last = run.history[-1].val_accuracy
    if same and not mirrored and abs(evaluation.accuracy - last) > ROUNDING:
        notice(
            f"run {run.path} scored {100 * last:.2f} % on these images and now scores "
            f"{100 * evaluation.accuracy:.2f} %: its weights are not those of its last epoch, "
            "or this machine computes differently"
        )
    figures = {field.name: getattr(evaluation, field.name) for field in fields(evaluation)}
    return RunEvaluation(
        network=config.network,
        run=str(run.path),
        data=dataset.name,
        validation=validation,
        mirrored=mirrored,
        **figures,
    )


def _as_trained(config: RunConfig) -> Pictures:
    """Return how pictures become images as the run's network takes them."""
    channels, height, width = config.image_shape
    pictures = config.pictures or Pictures(path="", channels=channels)
    return replace(pictures, image_size=(height, width), channels=channels)


def load_given(data: str | Path | Dataset, pictures: Pictures) -> Dataset:
    """Return a dataset that is given, by its name, or by a path where ``pictures`` says how they become images.

    Raises:
        SepnetError: it cannot be loaded.

    """
    if isinstance(data, Dataset):
        return data
    if datasets.is_path(data):
        return folder.load(replace(pictures, path=os.path.normpath(data)))
    return datasets.load(str(data))


def load_data(run: Run, data: str | Path | Dataset | None = None, *, skip_broken: bool = False) -> Dataset:
    """Return the run's data, or others as its network takes them, without files that cannot be read if ``skip_broken``.

    Raises:
        SepnetError: they cannot be loaded.

    """
    config = run.config
    if data is not None:
        pictures = _as_trained(config)
        return load_given(data, replace(pictures, skip_broken=pictures.skip_broken or skip_broken))
    try:
        return datasets.reload(config.data, config.pictures)
    except SepnetError as error:
        raise SepnetError(f"the images that run '{run.path}' was scored on cannot be loaded: {error}") from error


def require_same_kind(taker: TakesImages, name: str, classes: Sequence[str], image_shape: Sequence[int]) -> None:
    """Raise unless a dataset, of this name, has the taker's classes, in their order, and its image shape.

    Raises:
        SepnetError: it has others.

    """
    if tuple(image_shape) != tuple(taker.image_shape):
        given, wanted = ("×".join(map(str, shape)) for shape in (image_shape, taker.image_shape))
        raise SepnetError(f"images of {name} are {given}, {taker.label} takes {wanted}: choose other data")
    if tuple(classes) != tuple(taker.classes):
        given, wanted = (", ".join(names) for names in (classes, taker.classes))
        raise SepnetError(f"classes of {name} are {given}, those of {taker.label} {wanted}: expected the same")


ROUNDING = 0.02
"""More than another processor or precision changes an accuracy by."""


def _note_differences(run: Run, dataset: Dataset, validation: str) -> bool:
    """Return whether the images are those that the run's own figures are of, and say where they are not.

    ``dataset`` is split as in the run.
    """
    config = run.config
    same = dataset.fingerprint() == config.data_sha256
    if dataset.name != config.data:
        notice(f"run {run.path} was trained on {config.data} and is evaluated on {dataset.name}")
    elif not same:
        notice(f"{dataset.name} has changed since run {run.path} was trained")
    if validation == "holdout" != config.validation:
        notice(f"run {run.path} was trained with no images held out: these may be among those it was trained on")
    return same and validation == config.validation
