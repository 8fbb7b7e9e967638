"""Which path of computation is taken, and that it is said: once to the person, always in the run."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import sepnet
from sepnet.backend import build, describe, native
from sepnet.cli.app import run
from sepnet.inference.classifier import Classifier
from sepnet.notices import notice_once
from sepnet.recipes.recipe import Recipe
from tests.backend.support import needs_kernels
from tests.cli_support import Captured, prepare
from tests.training.support import patterns, tiny

RECIPE = Recipe(name="test", epochs=1, batch_size=50, lr=0.1, average=0.9)
CAPABLE = {name: True for needs in native.VARIANTS.values() for name in needs}


@pytest.fixture(autouse=True)
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Choose anew before each test and after it; nothing has been said yet."""
    monkeypatch.delenv(native.SWITCH, raising=False)
    native._find.cache_clear()
    notice_once.cache_clear()
    yield
    native._find.cache_clear()


def _switch(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(native.SWITCH, value)
    native._find.cache_clear()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where the compiled kernels of a processor that runs them all would lie: an empty folder."""
    monkeypatch.setattr(native, "processor_capabilities", lambda: CAPABLE)
    monkeypatch.setattr(build, "library", lambda variant: tmp_path / f"{variant}.so")
    return tmp_path


def test_pytorch_alone_by_request(monkeypatch: pytest.MonkeyPatch) -> None:
    _switch(monkeypatch, "none")
    assert native.native() is None
    assert describe() == "PyTorch alone: SEPNET_KERNELS=none"


def test_pytorch_alone_for_want_of_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "processor_capabilities", dict)
    assert describe() == "PyTorch alone: the processor lacks AVX2"
    monkeypatch.setattr(native, "processor_capabilities", lambda: {"avx2": True, "fma3": True})
    _switch(monkeypatch, "avx512")
    assert describe() == "PyTorch alone: SEPNET_KERNELS=avx512, which the processor cannot run"


def test_pytorch_alone_where_nothing_was_compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe() == "PyTorch alone: no compiled library (install a C++ compiler, then sepnet again)"
    _switch(monkeypatch, "avx2")
    assert describe().startswith("PyTorch alone: no compiled library for avx2 (")


def test_pytorch_alone_on_a_gpu() -> None:
    assert describe(device="cuda") == "PyTorch alone: device cuda"


@needs_kernels
def test_pytorch_alone_in_a_precision_that_the_kernels_have_not(monkeypatch: pytest.MonkeyPatch) -> None:
    _switch(monkeypatch, "avx2")
    assert describe(precision="fp32") == "sepnet's kernels, avx2"
    assert describe(precision="bf16").startswith("PyTorch alone: sepnet's kernels for avx2 compute in fp32 alone")


WHOLE = Path(torch._C.__file__).read_bytes()  # a library that has nothing to do with sepnet


@pytest.mark.skipif(sys.platform != "linux", reason="ELF is Linux's")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is cut off"),
        (WHOLE[: len(WHOLE) // 2], "the file is cut off"),
        (bytes(10_000), "invalid ELF header"),
        (build.MARK + b"0" * 64, "they were compiled from other sources"),
    ],
)
def test_a_library_that_cannot_be_used_is_one_notice(
    content: bytes, reason: str, folder: Path, capsys: Captured
) -> None:
    path = build.library("avx512-bf16")
    path.write_bytes(content)
    assert describe() == describe() == "PyTorch alone: no compiled library (install a C++ compiler, then sepnet again)"
    again = "delete them and install sepnet again"
    assert capsys.readouterr().err == f"compiled kernels '{path}' are not used: {reason}; {again}\n"


@pytest.mark.parametrize("allowed", [0, 1])
def test_tiles_are_used_where_the_compiler_and_the_system_know_them(
    allowed: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build.library("avx512-bf16").touch()
    loaded = SimpleNamespace(sepnet_use_tiles=lambda wanted: wanted and allowed)
    monkeypatch.setattr(native, "_load", lambda _: loaded)
    assert describe() == f"sepnet's kernels, {'amx-bf16' if allowed else 'avx512-bf16'}"
    _switch(monkeypatch, "amx-bf16")
    assert describe().startswith("sepnet's kernels, amx" if allowed else "PyTorch alone: no compiled library for amx")


def test_a_wrong_name_is_one_line_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    _switch(monkeypatch, "avx")
    for command in ("train net.py:small --recipe quick.toml --device cpu", "bench net.py:small --seconds 0.01"):
        assert run(command.split()) == 2
        expected = "SEPNET_KERNELS is 'avx': expected amx-bf16, avx512-bf16, avx512, avx2 or none, or leave it unset"
        assert capsys.readouterr() == ("", f"sepnet: error: {expected}\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_tells_its_path_and_the_person_hears_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    sepnet.train(tiny, patterns(), RECIPE, out=tmp_path, name="run", device="cpu", precision="fp32")
    sepnet.train(tiny, patterns(), RECIPE, out=tmp_path, name="other", device="cpu", precision="fp32")
    first = describe()
    assert capsys.readouterr().err.count(f"computing with {first}\n") == 1
    _switch(monkeypatch, "none")
    resumed = sepnet.train(tiny, patterns(), out=tmp_path, name="run", resume=True, epochs=2)
    second = "PyTorch alone: SEPNET_KERNELS=none"
    assert [session["computed_by"] for session in resumed.sessions if "computed_by" in session] == [first, second]
    assert f"computing with {second}\n" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("bf16", 2e-2)])
def test_a_trained_network_answers_alike_on_either_path(
    precision: str, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = sepnet.train(tiny, patterns(), RECIPE, out=tmp_path, device="cpu", precision=precision)
    images = patterns().test.images
    ours = Classifier(trained, tiny()).logits(images)
    assert torch.equal(ours, trained.logits()[0])
    _switch(monkeypatch, "none")
    stock = Classifier(trained, tiny()).logits(images)
    assert float((ours - stock).abs().max() / stock.abs().max()) < tolerance
    assert math.isfinite(float(stock.sum()))
