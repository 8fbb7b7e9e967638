"""Compile an int8 network's C source, and run it: on this machine, or on an emulated Cortex-M7."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sepnet.errors import SepnetError, first_line
from sepnet.export.c.source import Source

HERE = Path(__file__).parent
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Werror")
CORTEX_M7 = ("-mcpu=cortex-m7", "-mthumb", "-O2")
ARM_GCC, ARM_SIZE, QEMU = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
BOARD = ("-M", "mps2-an500", "-cpu", "cortex-m7", "-display", "none", "-icount", "shift=0")
SEMIHOSTING = ("-semihosting-config", "enable=on,target=native", "-monitor", "none", "-serial", "none")


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a program answered: int8 ``scores`` ``(N, classes)``; ``cost`` is for one image.

    On this machine ``cost`` is processor time in seconds, on the emulated processor a count of instructions.
    """

    scores: Tensor
    cost: float


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """A network's bytes on a Cortex-M7, as its compiled object has them, nothing else linked."""

    code: int
    """Instructions and constants: flash."""
    data: int
    """Variables that begin with a value: flash and RAM."""
    ram: int
    """Variables that begin as zeros: the arena."""


def run_on_host(source: Source, images: Tensor, *, compiler: str = "cc", flags: Sequence[str] = ("-O3",)) -> Answers:
    """Compile for this machine and run on images ``(N, C, H, W)``, uint8.

    Raises:
        SepnetError: there is no such compiler, or it refuses the source, or the program fails.

    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(source, folder, "host.c")
        _call([compiler, *WARNINGS, *flags, f"{source.name}.c", "host.c", "-o", "program"], folder)
        done = _call([str(folder / "program")], folder, _pixels(images))
    seconds = float(done.stderr.split()[-1])
    return Answers(scores=_scores(done.stdout, len(images)), cost=seconds / max(1, len(images)))


def run_on_cortex_m(source: Source, images: Tensor) -> Answers:
    """Compile for a Cortex-M7 and run on images ``(N, C, H, W)``, uint8, in an emulator.

    Raises:
        SepnetError: the cross-compiler or the emulator is not installed, or the program fails.

    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(source, folder, "cortex_m.c")
        shutil.copy(HERE / "cortex_m.ld", folder)
        files = [f"{source.name}.c", "cortex_m.c", "-o", "program.elf"]
        link = ["--specs=rdimon.specs", "-T", "cortex_m.ld"]
        _call([ARM_GCC, *CORTEX_M7, *WARNINGS, *files, *link], folder)
        (folder / "images.bin").write_bytes(_pixels(images))
        done = _call([QEMU, *BOARD, *SEMIHOSTING, "-kernel", "program.elf"], folder)
        scores = (folder / "scores.bin").read_bytes()
    return Answers(scores=_scores(scores, len(images)), cost=int(done.stdout.split()[-1]) / max(1, len(images)))


def measure_on_cortex_m(source: Source) -> Footprint:
    """Compile for a Cortex-M7 and return what the network's object takes.

    Raises:
        SepnetError: the cross-compiler is not installed.

    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(source, folder)
        _call([ARM_GCC, *CORTEX_M7, *WARNINGS, "-c", f"{source.name}.c", "-o", "network.o"], folder)
        sizes = _call([ARM_SIZE, "network.o"], folder).stdout.splitlines()[1].split()
    return Footprint(code=int(sizes[0]), data=int(sizes[1]), ram=int(sizes[2]))


def can_emulate() -> bool:
    """Say whether a Cortex-M7 can be compiled for and emulated here."""
    return shutil.which(ARM_GCC) is not None and shutil.which(QEMU) is not None


def _write(source: Source, folder: Path, *programs: str) -> None:
    (folder / f"{source.name}.h").write_text(source.header)
    (folder / f"{source.name}.c").write_text(source.source)
    for program in programs:
        text = (HERE / program).read_text().replace("NAME", source.name).replace("UPPER", source.name.upper())
        (folder / program).write_text(text)


def _call(command: list[str], folder: Path, given: bytes | None = None) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(command, cwd=folder, input=given, capture_output=True, check=True)
    except FileNotFoundError as error:
        raise SepnetError(f"'{command[0]}' is not installed: install it, or name another compiler") from error
    except subprocess.CalledProcessError as error:
        reason = first_line(error.stderr.decode(errors="replace")) or f"exit code {error.returncode}"
        raise SepnetError(f"'{Path(command[0]).name}' failed: {reason}") from error


def _pixels(images: Tensor) -> bytes:
    return images.permute(0, 2, 3, 1).contiguous().numpy().tobytes()


def _scores(content: bytes, images: int) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.int8).view(images, -1)
