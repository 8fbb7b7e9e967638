"""What every test needs: a SIGINT that interrupts, and the same random examples in every run.

Some tests interrupt a process of their own: it must not begin with SIGINT ignored, as a background job's does. A check
on clean code must not fail by luck; `./test --hypothesis-profile=default` looks for new examples.
"""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from sepnet.backend import native

signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="module")
def pytorch_alone() -> Iterator[None]:
    """Train by PyTorch alone where the kernels are not what is tested: compiling takes a second a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(native.SWITCH, native.NONE)
        native._find.cache_clear()
        yield
    native._find.cache_clear()


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return what makes a folder of that name, once for all processes that run tests, and returns it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(name: str, build: Callable[[Path], object]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                folder.mkdir()
                build(folder)
                done.touch()
        return folder

    return make
