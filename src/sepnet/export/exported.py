"""An exported file at work: labels, image size and answers, from nothing but the file and its runtime."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from sepnet.data import Dataset, Pictures
from sepnet.errors import SepnetError, first_line
from sepnet.export.keras import file as keras_file
from sepnet.export.onnx import file as onnx_file
from sepnet.export.seal import require_sealed
from sepnet.export.tflite import file as tflite_file
from sepnet.files import read_file
from sepnet.inference.classifier import DatasetEvaluation, answers, load_given, require_same_kind
from sepnet.inference.evaluation import evaluate_logits, to_text
from sepnet.notices import printable
from sepnet.training.experiment import require_validation


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportedFile:
    """A network in a file that sepnet wrote; ``image_shape`` is ``(C, H, W)``."""

    path: Path
    classes: tuple[str, ...]
    image_shape: tuple[int, ...]
    answer: Callable[[Tensor], Tensor]
    """The runtime's scores ``(N, classes)`` of images ``(N, C, H, W)``, uint8."""

    @property
    def label(self) -> str:
        """What errors call it."""
        return f"'{self.path}'"

    def logits(self, images: Tensor) -> Tensor:
        """Return the scores ``(N, classes)``, float32, on images ``(N, C, H, W)``, uint8.

        Raises:
            SepnetError: the runtime fails, or answers with another number of classes.

        """
        try:
            found = self.answer(images)
        except SepnetError:
            raise
        except Exception as error:  # whatever a runtime raises
            raise _broken(self.path, error) from error
        if found.shape != (len(images), len(self.classes)):
            raise _broken(self.path, f"scores of shape {tuple(found.shape)} for {len(self.classes)} labels")
        return found


def names_file(source: object) -> bool:
    """Say whether a file is given, where a run may be given as well."""
    if not isinstance(source, str | Path):
        return False
    path = Path(source)
    return not path.is_dir() and (path.suffix.lower() in (*READERS, *ELSEWHERE) or path.is_file())


def open_file(path: Path) -> ExportedFile:
    """Return the network in an exported file.

    Raises:
        SepnetError: it is none that sepnet wrote, has changed, or its runtime is not installed.

    """
    suffix = path.suffix.lower()
    if suffix in ELSEWHERE:
        raise SepnetError(
            f"'{path}' is run by {ELSEWHERE[suffix]}, not here: give a {_choices()} file, or score it by "
            "`sepnet export RUN --score`"
        )
    if suffix not in READERS:
        raise SepnetError(f"'{path}' is not a run's folder, nor a {_choices()} file as `sepnet export` makes")
    content = read_file(path)
    require_sealed(content, str(path))
    try:
        notes, image_shape, answer = READERS[suffix](content)
        classes = json.loads(notes["labels"])
        return ExportedFile(path=path, classes=tuple(map(str, classes)), image_shape=tuple(image_shape), answer=answer)
    except SepnetError:
        raise
    except Exception as error:  # whatever a runtime raises of a file of another format
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception | str) -> SepnetError:
    reason = first_line(error) or type(error).__name__
    return SepnetError(f"'{path}' is no {path.suffix} file that works here ({reason}): export the run again")


Opened = tuple[dict[str, str], Sequence[int], Callable[[Tensor], Tensor]]
"""What is written in a file, an image's ``(C, H, W)``, and how it answers."""


def _keras(content: bytes) -> Opened:
    notes = keras_file.read_notes(content)
    model = keras_file.open_model(content)
    _, height, width, channels = model.input_shape
    return notes, (channels, height, width), lambda images: keras_file.scores(model, images)


def _onnx(content: bytes) -> Opened:
    session = onnx_file.open_session(content)
    notes = session.get_modelmeta().custom_metadata_map
    _, *image_shape = session.get_inputs()[0].shape
    return notes, image_shape, lambda images: onnx_file.scores(session, images)


def _tflite(content: bytes) -> Opened:
    notes = tflite_file.read_notes(content)
    interpreter = tflite_file.open_interpreter(content)
    _, height, width, channels = interpreter.get_input_details()[0]["shape_signature"].tolist()
    scale, zero_point = interpreter.get_output_details()[0]["quantization"]

    def answer(images: Tensor) -> Tensor:
        return (tflite_file.scores(interpreter, images).float() - zero_point) * scale

    return notes, (channels, height, width), answer


READERS: dict[str, Callable[[bytes], Opened]] = {".keras": _keras, ".onnx": _onnx, ".tflite": _tflite}
ELSEWHERE = {".c": "a device", ".h": "a device", ".html": "a browser"}
"""Formats that answer outside Python."""


def _choices() -> str:
    *first, last = READERS
    return f"{', '.join(first)} or {last}"


@dataclass(frozen=True, kw_only=True, repr=False)
class FileEvaluation(DatasetEvaluation):
    """An exported file, judged by its answers to images of a dataset."""

    file: str

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation as plain values, what was evaluated first."""
        return {"file": self.file, **super().to_dict()}

    def __repr__(self) -> str:
        return f"{printable(self.file)}, on the {self.images_in_words}\n{to_text(self)}"


def evaluate(
    file: ExportedFile,
    data: str | Path | Dataset | None,
    *,
    validation: str | None = None,
    mirrored: bool = False,
    skip_broken: bool = False,
) -> FileEvaluation:
    """Judge an exported file on images of a dataset, see :func:`sepnet.evaluate`.

    Raises:
        SepnetError: no dataset is given, it is unknown, or of other classes or another shape.

    """
    validation = validation or "test"
    require_validation(validation)
    if data is None:
        raise SepnetError(f"{file.label} does not say what it was trained on: name a dataset or a folder by --data")
    channels, *size = file.image_shape
    pictures = Pictures(path="", image_size=tuple(size), channels=channels, skip_broken=skip_broken)
    dataset = load_given(data, pictures)
    require_same_kind(file, dataset.name, dataset.classes, dataset.image_shape)
    split = (dataset.holdout() if validation == "holdout" else dataset).test
    evaluation = evaluate_logits(answers(file, split.images, mirrored=mirrored), split.labels, file.classes)
    figures = {field.name: getattr(evaluation, field.name) for field in fields(evaluation)}
    return FileEvaluation(file=str(file.path), data=dataset.name, validation=validation, mirrored=mirrored, **figures)
