"""``sepnet doctor``."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sepnet import backend, doctor, environment
from sepnet.backend import native
from sepnet.cli import app
from tests.backend.support import needs_kernels


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    native._find.cache_clear()
    yield
    native._find.cache_clear()


@pytest.mark.slow
@needs_kernels
def test_the_kernels_are_tried_against_pytorch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)
    assert app.run(["doctor", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    compiled = native.native()
    assert compiled is not None
    assert compiled.variant in found["facts"]["kernels built"]
    assert found["works"]
    difference = doctor._difference()
    assert difference is not None
    assert 0 < difference < 1e-5


@needs_kernels
def test_kernels_that_compute_something_else_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda images: 1.1 * model(images)

    monkeypatch.setattr(backend, "compile", wrong)
    assert app.run(["doctor"]) == 1
    assert f"set {native.SWITCH}=none, and report it" in capsys.readouterr().out


@needs_kernels
def test_what_would_make_it_faster_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.SWITCH, native.NONE)
    threads = torch.get_num_threads()
    torch.set_num_threads(environment.cores() + 1)
    try:
        found = doctor.examine()
    finally:
        torch.set_num_threads(threads)
    assert found.facts["kernels chosen"] == f"PyTorch alone: {native.SWITCH}=none"
    assert any(f"unset {native.SWITCH}" in advice for advice in found.advice)
    assert any(f"set OMP_NUM_THREADS={environment.cores()}" in advice for advice in found.advice)


def test_every_dataset_in_the_cache_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_difference", lambda: None)
    monkeypatch.setenv("SEPNET_CACHE", str(tmp_path))
    assert doctor.examine().facts["dataset cache"] == f"{tmp_path} (no dataset)"
    for name in ("cifar100", "fashion-mnist"):
        (tmp_path / name).mkdir()
    assert doctor.examine().facts["dataset cache"] == f"{tmp_path} (cifar100, fashion-mnist)"
