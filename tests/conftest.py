"""What every test needs: a SIGINT that interrupts, and the same random examples in every run.

Some tests interrupt a process of their own: it must not begin with SIGINT ignored, as a background job's does. A check
on clean code must not fail by luck; `./test --hypothesis-profile=default` looks for new examples.
"""

import signal
from collections.abc import Iterator

import pytest
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
