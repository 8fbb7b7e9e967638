"""What is written for another framework, another runtime or a device: the files, and how each answers.

``keras`` and ``onnx`` are the float network; ``onnx-int8``, ``tflite``, ``c`` and ``html`` are of one int8
plan.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from sepnet.anatomy.trace import trace
from sepnet.errors import SepnetError
from sepnet.export.c.programs import run_on_host
from sepnet.export.c.source import MARK, Source, identifier, write_source
from sepnet.export.html.page import write_page
from sepnet.export.html.programs import run_page
from sepnet.export.int8 import reference
from sepnet.export.int8.lowering import lower
from sepnet.export.int8.plan import Plan
from sepnet.export.int8.quantization import quantize
from sepnet.export.int8.schedule import schedule
from sepnet.export.keras import file as keras_file
from sepnet.export.keras.plan import plan as keras_plan
from sepnet.export.onnx import file as onnx_file
from sepnet.export.onnx.qdq import onnx_int8_bytes
from sepnet.export.seal import PLACE, seal
from sepnet.export.shared import metadata
from sepnet.export.tflite import file as tflite_file
from sepnet.export.tflite.operators import write_tflite
from sepnet.files import read_file, write_atomically
from sepnet.notices import notice
from sepnet.runs.scores import Score

SUFFIXES = {
    "keras": ".keras",
    "onnx": ".onnx",
    "onnx-int8": ".onnx",
    "tflite": ".tflite",
    "c": ".c",
    "html": ".html",
}
ENDINGS = {**SUFFIXES, "onnx-int8": "-int8.onnx"}
"""How a file is named after its network, unless the user names it."""
TIMED = 20
"""Images by which a latency is measured, one at a time."""

Answer = Callable[[Tensor], tuple[Tensor, float | None]]
"""Scores ``(N, classes)`` of images ``(N, C, H, W)``, uint8, and the seconds that one took on one core, if measured."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Artifact:
    """A format's files by suffix, and how they answer; ``arena_bytes`` is the peak RAM of those of int8."""

    format: str
    files: dict[str, bytes]
    answer: Answer
    arena_bytes: int | None = None

    def write(self, path: Path) -> None:
        """Write the files beside each other; what sepnet wrote before is replaced, and it says so.

        Raises:
            SepnetError: as :func:`require_writable`, or the system refused.

        """
        require_writable(path, self.format)
        for ending, content in self.files.items():
            place = path.with_suffix(ending)
            if place.exists():
                notice(f"replacing {place}")
            write_atomically(place, content)

    def score(self, images: Tensor, labels: Tensor, logits: Tensor) -> Score:
        """Judge its answers to images ``(N, C, H, W)``, uint8, by labels and by the run's logits ``(N, classes)``."""
        found, seconds = self.answer(images)
        size, arena = len(next(reversed(self.files.values()))), self.arena_bytes
        return judge(self.format, found, labels, logits, bytes=size, arena_bytes=arena, seconds=seconds)


def require_writable(path: Path, format: str) -> None:
    """Raise unless a format's files may be written at ``path``.

    Raises:
        SepnetError: the name has another suffix, the folder does not exist, or another's file is there.

    """
    suffix = SUFFIXES[format]
    if path.suffix != suffix:
        raise SepnetError(f"'{path}' does not end in {suffix}, as files of the format '{format}' do: name it so")
    if format == "c" and identifier(path.stem) != path.stem:
        raise SepnetError(
            f"'{path.name}' cannot start a name in C: use letters, digits and _, as {identifier(path.stem)}.c"
        )
    if not path.parent.is_dir():
        raise SepnetError(f"folder '{path.parent}' does not exist: make it, or choose another --out")
    for place in (path, path.with_suffix(".h")) if format == "c" else (path,):
        if place.exists() and not _is_ours(place):
            raise SepnetError(f"'{place}' exists and is not sepnet's: move it away, or choose another --out")


@dataclass(kw_only=True, eq=False)
class Exporter:
    """Makes the artifacts of one trained network; ``images`` are training images ``(N, C, H, W)``, uint8."""

    model: nn.Module
    image_shape: Sequence[int]
    name: str
    classes: Sequence[str]
    mean: Sequence[float]
    std: Sequence[float]
    images: Callable[[], Tensor]
    _plan: Plan | None = field(default=None, init=False)

    @property
    def plan(self) -> Plan:
        """The int8 plan, made once."""
        if self._plan is None:
            settings = {"mean": self.mean, "std": self.std, "classes": self.classes, "name": self.name}
            network = lower(self.model, self.image_shape, self.name)
            self._plan = quantize(network, self.images(), **settings)  # type: ignore[arg-type]
        return self._plan

    def make(self, format: str, name: str) -> Artifact:
        """Return the artifact of a format; identifiers of a C source begin with ``name``.

        Raises:
            SepnetError: the network cannot be expressed, or a package is missing.

        """
        if format == "c":
            source = write_source(self.plan, name)
            files = {".h": source.header.encode(), ".c": source.source.encode()}
            return Artifact(format=format, files=files, answer=self._c(source), arena_bytes=self._arena())
        if format == "keras":
            layers = keras_plan(self.model, self.image_shape, name=self.name)
            notes = metadata(self.classes, self.mean, self.std)
            content = seal(keras_file.keras_bytes(layers, mean=self.mean, std=self.std, notes=notes, comment=PLACE))
            return Artifact(format=format, files={".keras": content}, answer=_keras(content))
        if format == "onnx":
            content = onnx_file.onnx_bytes(
                self.model, self.image_shape, name=self.name, classes=self.classes, mean=self.mean, std=self.std
            )
            return Artifact(format=format, files={".onnx": content}, answer=_onnx(content))
        if format == "tflite":
            made = write_tflite(self.plan)
            answer = _tflite(made.content)
            return Artifact(format=format, files={".tflite": made.content}, answer=answer, arena_bytes=made.arena_bytes)
        if format == "html":
            page = write_page(self.plan, trace(self.model, self.image_shape, name=self.name))
            answer = _html(page.content)
            return Artifact(format=format, files={".html": page.content}, answer=answer, arena_bytes=page.arena_bytes)
        content = onnx_int8_bytes(self.plan)
        return Artifact(format=format, files={".onnx": content}, answer=_onnx(content), arena_bytes=self._arena())

    def _arena(self) -> int:
        return schedule(self.plan).arena_bytes

    def _c(self, source: Source) -> Answer:
        def answer(images: Tensor) -> tuple[Tensor, float | None]:
            if shutil.which("cc") is None:
                return reference.run(self.plan, images), None
            answers = run_on_host(source, images)
            return answers.scores, answers.cost

        return answer


def _keras(content: bytes) -> Answer:
    def answer(images: Tensor) -> tuple[Tensor, float | None]:
        model = keras_file.open_model(content)
        found = keras_file.scores(model, images)
        if not keras_file.computes_by_torch():
            return found, None
        return found, seconds_on_one_core(lambda image: keras_file.scores(model, image), images)

    return answer


def _onnx(content: bytes) -> Answer:
    def answer(images: Tensor) -> tuple[Tensor, float]:
        session = onnx_file.open_session(content, threads=1)
        took = seconds_on_one_core(lambda image: session.run(None, {onnx_file.INPUT: image.numpy()}), images)
        return onnx_file.scores(onnx_file.open_session(content), images), took

    return answer


def _tflite(content: bytes) -> Answer:
    def answer(images: Tensor) -> tuple[Tensor, float]:
        interpreter = tflite_file.open_interpreter(content)
        return tflite_file.scores(interpreter, images), tflite_file.seconds(interpreter, images[:TIMED])

    return answer


def _html(content: bytes) -> Answer:
    def answer(images: Tensor) -> tuple[Tensor, float]:
        answers = run_page(content, images)
        return answers.scores, answers.seconds

    return answer


def seconds_on_one_core(answer: Callable[[Tensor], object], images: Tensor) -> float:
    """Return the mean processor time that an answer to one image takes, PyTorch kept to one thread."""
    singles = images[:TIMED].split(1)
    with _one_thread():
        answer(singles[0])
        start = time.process_time()
        for single in singles:
            answer(single)
        return (time.process_time() - start) / len(singles)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _is_ours(path: Path) -> bool:
    try:
        content = read_file(path)
    except SepnetError:
        return False
    if path.suffix == keras_file.SUFFIX:
        return keras_file.is_ours(content)
    if path.suffix == ".tflite":
        return tflite_file.is_ours(content)
    return onnx_file.is_ours(content) if path.suffix == ".onnx" else MARK.encode() in content.partition(b"\n")[0]


def judge(
    format: str,
    scores: Tensor,
    labels: Tensor,
    logits: Tensor,
    *,
    bytes: int,
    arena_bytes: int | None = None,
    seconds: float | None,
) -> Score:
    """Return how scores ``(N, classes)`` compare with the images' labels, and with the run's logits."""
    answers = scores.argmax(1)
    return Score(
        format=format,
        images=len(labels),
        accuracy=float((answers == labels).double().mean()),
        agreement=float((answers == logits.argmax(1)).double().mean()),
        bytes=bytes,
        arena_bytes=arena_bytes,
        seconds=seconds,
    )
