"""What is written for a device or another runtime, beside Keras: the files, and how each answers.

``onnx`` is the float network; ``onnx-int8``, ``tflite`` and ``c`` are of one int8 plan.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from sepnet.errors import SepnetError
from sepnet.export.c.programs import run_on_host
from sepnet.export.c.source import MARK, Source, identifier, write_source
from sepnet.export.int8 import reference
from sepnet.export.int8.lowering import lower
from sepnet.export.int8.plan import Plan
from sepnet.export.int8.quantization import quantize
from sepnet.export.int8.schedule import schedule
from sepnet.export.onnx import file as onnx_file
from sepnet.export.onnx.qdq import onnx_int8_bytes
from sepnet.export.tflite import file as tflite_file
from sepnet.export.tflite.operators import write_tflite
from sepnet.files import write_atomically
from sepnet.notices import notice

SUFFIXES = {"onnx": ".onnx", "onnx-int8": ".onnx", "tflite": ".tflite", "c": ".c"}
ENDINGS = {"onnx": ".onnx", "onnx-int8": "-int8.onnx", "tflite": ".tflite", "c": ".c"}
"""How a file is named after its network, unless the user names it."""
TIMED = 20
"""Images by which a latency is measured, one at a time."""

Answer = Callable[[Tensor], tuple[Tensor, float]]
"""Scores ``(N, classes)`` of images ``(N, C, H, W)``, uint8, and the seconds that one took on one core."""


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
        if format == "onnx":
            content = onnx_file.onnx_bytes(
                self.model, self.image_shape, name=self.name, classes=self.classes, mean=self.mean, std=self.std
            )
            return Artifact(format=format, files={".onnx": content}, answer=_onnx(content))
        if format == "tflite":
            made = write_tflite(self.plan)
            answer = _tflite(made.content)
            return Artifact(format=format, files={".tflite": made.content}, answer=answer, arena_bytes=made.arena_bytes)
        content = onnx_int8_bytes(self.plan)
        return Artifact(format=format, files={".onnx": content}, answer=_onnx(content), arena_bytes=self._arena())

    def _arena(self) -> int:
        return schedule(self.plan).arena_bytes

    def _c(self, source: Source) -> Answer:
        def answer(images: Tensor) -> tuple[Tensor, float]:
            if shutil.which("cc") is None:
                return reference.run(self.plan, images), float("nan")
            answers = run_on_host(source, images)
            return answers.scores, answers.cost

        return answer


def _onnx(content: bytes) -> Answer:
    def answer(images: Tensor) -> tuple[Tensor, float]:
        found = onnx_file.scores(content, images)
        session = onnx_file.open_session(content, threads=1)
        singles = [{onnx_file.INPUT: image.numpy()} for image in images[:TIMED].split(1)]
        session.run(None, singles[0])
        start = time.perf_counter()
        for single in singles:
            session.run(None, single)
        return found, (time.perf_counter() - start) / len(singles)

    return answer


def _tflite(content: bytes) -> Answer:
    def answer(images: Tensor) -> tuple[Tensor, float]:
        interpreter = tflite_file.open_interpreter(content)
        return tflite_file.scores(interpreter, images), tflite_file.seconds(interpreter, images[:TIMED])

    return answer


def _is_ours(path: Path) -> bool:
    content = path.read_bytes()
    if path.suffix == ".tflite":
        return tflite_file.is_ours(content)
    return onnx_file.is_ours(content) if path.suffix == ".onnx" else MARK.encode() in content.partition(b"\n")[0]


@dataclass(frozen=True, kw_only=True)
class Score:
    """An artifact judged by labelled images; shares are of 1."""

    format: str
    images: int
    accuracy: float
    agreement: float
    """Images to which it gives the run's own answer."""
    bytes: int
    arena_bytes: int | None
    seconds: float
    """For one image, on one core; not a number where it was not measured."""


def score(artifact: Artifact, images: Tensor, labels: Tensor, logits: Tensor) -> Score:
    """Judge an artifact by images ``(N, C, H, W)``, uint8, their labels, and the run's logits ``(N, classes)``."""
    found, seconds = artifact.answer(images)
    answers = found.argmax(1)
    main = next(reversed(artifact.files.values()))
    return Score(
        format=artifact.format,
        images=len(images),
        accuracy=float((answers == labels).double().mean()),
        agreement=float((answers == logits.argmax(1)).double().mean()),
        bytes=len(main),
        arena_bytes=artifact.arena_bytes,
        seconds=seconds,
    )


def score_table(scores: Sequence[Score]) -> str:
    """Return scores for a person, a line each."""
    lines = [
        f"{'format':<10}{'images':>8}{'accuracy %':>12}{'agreement %':>13}{'file bytes':>12}{'RAM bytes':>11}{'ms':>8}"
    ]
    for one in scores:
        arena = f"{one.arena_bytes:,}" if one.arena_bytes else "–"
        took = f"{1000 * one.seconds:.2f}" if one.seconds == one.seconds else "–"
        shares = f"{100 * one.accuracy:>12.2f}{100 * one.agreement:>13.2f}"
        lines.append(f"{one.format:<10}{one.images:>8,}{shares}{one.bytes:>12,}{arena:>11}{took:>8}")
    return "\n".join(lines)
