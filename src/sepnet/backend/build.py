"""Compiles the kernels while sepnet is installed, where it can.

``hatch_build.py`` loads this file by its path: the standard library alone is used here.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SOURCES = Path(__file__).parent / "csrc"
COMPILED = Path(__file__).parent / "compiled"

_AVX2 = ("-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")
INSTRUCTIONS = {"avx512-bf16": (*_AVX512, "-mavx512bf16"), "avx512": _AVX512, "avx2": _AVX2}
"""Flags of each variant; spelled out, since GCC before 11 knows no ``-march=x86-64-v4``."""

# Of -ffast-math only what changes no result. The libgomp of -fopenmp is PyTorch's at run time: see native.py.
FLAGS = ("-std=gnu++17", "-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi")

MARK = b"sepnet-sources:"
"""In a library that was compiled here; a digest of its sources and flags follows."""


def build(say: Callable[[str], None], target: Path = COMPILED) -> list[Path]:
    """Bring all variants in ``target`` up to date, and return those that then are.

    What cannot be compiled is said and left out: sepnet works without, by PyTorch alone.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        say("sepnet's kernels are for Linux on x86-64: PyTorch alone will compute here")
        return []
    wanted = outdated(target)
    reason = "no C++ compiler was found as $CXX, g++ or c++"
    for compiler in compilers() if wanted else []:
        say(f"compiling sepnet's kernels ({', '.join(wanted)}) with {shlex.join(compiler)}")
        try:
            reason = _compile(compiler, wanted, target)
        except OSError as error:
            reason = str(error)
        wanted = outdated(target)
        if not wanted:
            break
    if wanted:
        say(f"sepnet's kernels were not compiled ({', '.join(wanted)}): {reason}")
    return [library(variant, target) for variant in INSTRUCTIONS if variant not in wanted]


def library(variant: str, folder: Path = COMPILED) -> Path:
    """Return where a compiled variant lies."""
    return folder / f"{variant}.so"


def mark(variant: str) -> bytes:
    """Return what a library holds that was compiled from the present sources with the present flags."""
    digest = hashlib.sha256(" ".join((*FLAGS, *INSTRUCTIONS[variant])).encode())
    for file in sorted([*SOURCES.glob("*.h"), *SOURCES.glob("*.cpp")]):
        digest.update(b"\n%b\n%b" % (file.name.encode(), file.read_bytes()))
    return MARK + digest.hexdigest().encode()


def outdated(folder: Path) -> list[str]:
    """Return the variants that are missing, or were compiled from other sources or with other flags."""
    paths = {variant: library(variant, folder) for variant in INSTRUCTIONS}
    return [variant for variant, path in paths.items() if not path.is_file() or mark(variant) not in path.read_bytes()]


def compilers() -> list[list[str]]:
    """Return the commands to try: ``$CXX`` and no other if it is set, else what is on the path."""
    if named := shlex.split(os.environ.get("CXX", "")):
        return [named]
    found = {Path(path).resolve(): path for name in ("c++", "g++") if (path := shutil.which(name))}
    return [[path] for path in reversed(found.values())]


def _compile(compiler: list[str], variants: list[str], target: Path) -> str:
    """Compile variants, all at once; return why one was not, if so."""
    target.mkdir(exist_ok=True)
    failures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            for variant in variants:
                processes[variant] = _start(compiler, variant, folder)
            for process in processes.values():
                process.wait()
        finally:
            for process in processes.values():
                process.kill()
        for variant, process in processes.items():
            if failure := _failure(process.returncode, variant, folder):
                failures.append(failure)
                continue
            # Under its name only when whole: other processes may be loading it, or compiling it, too.
            partial = target / f".{variant}-{folder.name}"
            shutil.copyfile(library(variant, folder), partial)
            partial.replace(library(variant, target))
    return failures[-1] if failures else ""


def _start(compiler: list[str], variant: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start compiling a variant into ``folder``, the compiler's words into a file beside it."""
    marked = folder / f"{variant}.cpp"
    text = mark(variant).decode()
    marked.write_text(f'extern "C" {{\nextern const char sepnet_mark[];\nconst char sepnet_mark[] = "{text}";\n}}\n')
    files = [SOURCES / "kernels.cpp", marked, "-o", library(variant, folder)]
    with (folder / f"{variant}.txt").open("wb") as words:
        command = [*compiler, *FLAGS, *INSTRUCTIONS[variant], *map(str, files)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words)


def _failure(code: int, variant: str, folder: Path) -> str | None:
    """Return why a variant that has been compiled is none, or None if it is."""
    lines = (folder / f"{variant}.txt").read_text(errors="replace").splitlines()
    if code:
        return next((line for line in lines if "error" in line), f"the compiler ended with {code}")
    if not library(variant, folder).is_file():
        return "the compiler wrote nothing"
    if b"__kmpc_" in library(variant, folder).read_bytes():
        # A second runtime beside PyTorch's GNU one, of which each would answer half of the calls.
        return "the compiler's OpenMP is LLVM's, not GNU's"
    return None
