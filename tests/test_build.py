"""Compiling the kernels at install: what is compiled and when, what a wheel carries, and what may go wrong."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import pytest

from sepnet.backend import build

ROOT = Path(__file__).parent.parent
COMPILES = sys.platform == "linux" and platform.machine() == "x86_64"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not COMPILES, reason="kernels are for Linux on x86-64")]

# In place of a compiler: its last argument is the library to write, the third last the marked source.
COPIES = 'for out; do before=$third; third=$second; second=$out; done; cat "$before" > "$out"'
HALF = 'for out; do :; done; echo half > "$out"; '

CHECK = """
import torch
from sepnet.backend import describe
from sepnet.backend.stage import Inputs, Params
print(describe())
torch.manual_seed(0)
x = torch.randn(2, 20, 9, 7).contiguous(memory_format=torch.channels_last)
depthwise, pointwise = torch.randn(20, 1, 3, 3), torch.randn(33, 20, 1, 1)
inputs = Inputs(x, depthwise=depthwise, pointwise=pointwise)
y = torch.ops.sepnet.stage(*inputs, *Params(padding=(1, 1)), False, False, False)[0]
expected = torch.conv2d(torch.conv2d(x.double(), depthwise.double(), padding=1, groups=20), pointwise.double())
print(float((y - expected).abs().max() / expected.abs().max()))
"""


def _compiler(folder: Path, script: str) -> str:
    # A folder of its own: Linux lets nobody write into a script that a process, even an orphan, is just starting.
    file = Path(tempfile.mkdtemp(dir=folder)) / "compiler"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of what sepnet is installed from, with nothing compiled in it."""
    return _copy(tmp_path / "tree")


def _copy(tree: Path) -> Path:
    tree.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "src/sepnet", tree / "src/sepnet", ignore=shutil.ignore_patterns("compiled", "__pycache__"))
    return tree


def _package(
    tree: Path, kind: str = "wheel", *, check: bool = True, **environment: str
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Make a wheel or sdist as pip does; return the process and the file."""
    pytest.importorskip("hatchling")
    done = subprocess.run(
        [sys.executable, "-c", f"from hatchling.build import *; print(build_{kind}('dist'))"],
        cwd=tree,
        env={**os.environ, "TMPDIR": str(tree), **environment},
        capture_output=True,
        text=True,
        check=check,
        timeout=300,
    )
    return done, tree / "dist" / done.stdout.strip()


def _libraries(wheel: Path) -> list[str]:
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    return sorted(Path(name).name for name in names if "compiled" in name)


def _run(code: str, packages: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SEPNET_KERNELS": "", "PYTHONPATH": str(packages), **environment},
        cwd=packages,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_a_wheel_carries_kernels_that_compute(tree: Path, tmp_path: Path) -> None:
    done, wheel = _package(tree, CXX=_compiler(tmp_path, 'exec g++ "$@" -O0'))
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    assert _libraries(wheel) == sorted(f"{variant}.so" for variant in build.INSTRUCTIONS), done.stderr
    packages = tmp_path / "packages"
    zipfile.ZipFile(wheel).extractall(packages)
    ran = 0
    for variant in build.INSTRUCTIONS:
        described, error = _run(CHECK, packages, SEPNET_KERNELS=variant).stdout.splitlines()
        assert described in (
            f"sepnet's kernels, {variant}",
            f"PyTorch alone: SEPNET_KERNELS={variant}, which the processor cannot run",
        )
        assert float(error) < 1e-5
        ran += described.startswith("sepnet")
    described = _run(CHECK, packages).stdout.splitlines()[0]
    assert described.startswith("sepnet's kernels" if ran else "PyTorch alone"), "as soon as torch is imported"


def test_without_a_compiler_the_wheel_is_pure_and_says_why(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done, wheel = _package(tree, PATH=str(tmp_path / "empty"), CXX="")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert _libraries(wheel) == []
    assert "no C++ compiler was found" in done.stderr
    packages = tmp_path / "packages"
    zipfile.ZipFile(wheel).extractall(packages)
    described, error = _run(CHECK, packages).stdout.splitlines()
    assert described.startswith("PyTorch alone: ")
    assert float(error) < 1e-5


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'a.h:1: error: no such thing'; exit 1", "a.h:1: error: no such thing"),
        (HALF + "exit 3", "the compiler ended with 3"),
        ("exit 0", "the compiler wrote nothing"),
        (COPIES + '; echo __kmpc_fork_call >> "$out"', "the compiler's OpenMP is LLVM's"),
    ],
)
def test_a_compiler_that_fails_is_no_failure(script: str, reason: str, tree: Path, tmp_path: Path) -> None:
    done, wheel = _package(tree, CXX=_compiler(tmp_path, script))
    assert wheel.name.endswith("-py3-none-any.whl")
    assert _libraries(wheel) == []
    assert f"sepnet's kernels were not compiled (avx512-bf16, avx512, avx2): {reason}" in done.stderr


def test_a_compiler_that_is_not_there_is_named(tree: Path) -> None:
    done, wheel = _package(tree, CXX="/no/such/compiler -m64")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "No such file or directory: '/no/such/compiler'" in done.stderr


def test_a_build_that_is_killed_leaves_no_library(tree: Path, tmp_path: Path) -> None:
    done, _ = _package(tree, CXX=_compiler(tmp_path, HALF + "kill -9 $PPID"), check=False)
    assert done.returncode == -9
    assert not list((tree / "src/sepnet/backend/compiled").glob("*.so"))
    assert _libraries(_package(tree, CXX=_compiler(tmp_path, COPIES))[1]), "and the next one is not in its way"


def test_an_editable_install_compiles_beside_the_sources(tree: Path, tmp_path: Path) -> None:
    _, wheel = _package(tree, "editable", CXX=_compiler(tmp_path, COPIES))
    assert _libraries(wheel) == []
    compiled = tree / "src/sepnet/backend/compiled"
    assert sorted(path.stem for path in compiled.iterdir()) == sorted(build.INSTRUCTIONS)


def test_a_source_distribution_has_what_is_compiled_and_nothing_compiled(tree: Path, tmp_path: Path) -> None:
    _package(tree, "editable", CXX=_compiler(tmp_path, COPIES))
    _, archive = _package(tree, "sdist")
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert (unpacked / "hatch_build.py").is_file()
    sources = "src/sepnet/backend/csrc"
    names = {path.name for path in (ROOT / sources).iterdir()}
    assert {path.name for path in (unpacked / sources).iterdir()} == names
    assert not list(unpacked.rglob("*.so"))


def test_only_what_is_out_of_date_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources, target, said = tmp_path / "source", tmp_path / "compiled", list[str]()
    shutil.copytree(build.SOURCES, sources)
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setenv("CXX", _compiler(tmp_path, COPIES))
    assert len(build.build(said.append, target)) == 3
    assert len(said) == 1
    assert len(build.build(said.append, target)) == 3
    assert len(said) == 1, "nothing is compiled twice"
    build.library("avx512", target).unlink()
    build.build(said.append, target)
    assert said[1].startswith("compiling sepnet's kernels (avx512) with")
    (sources / "vector.h").write_text((sources / "vector.h").read_text() + "// changed\n")
    monkeypatch.setenv("CXX", "false")
    assert build.build(said.append, target) == [], "of what was compiled from other sources, nothing is taken"
    monkeypatch.setenv("CXX", _compiler(tmp_path, COPIES))
    assert len(build.build(said.append, target)) == 3


def test_two_builds_at_once_do_not_disturb_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", _compiler(tmp_path, "sleep 0.1; " + COPIES))
    built: list[list[Path]] = []
    threads = [
        threading.Thread(target=lambda: built.append(build.build(lambda text: None, tmp_path / "compiled")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(paths) for paths in built] == [3, 3, 3]
    assert build.outdated(tmp_path / "compiled") == []
    assert len(list((tmp_path / "compiled").iterdir())) == 3


def test_another_machine_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert build.build(said.append, tmp_path / "compiled") == []
    assert said == ["sepnet's kernels are for Linux on x86-64: PyTorch alone will compute here"]
    assert not (tmp_path / "compiled").exists()
