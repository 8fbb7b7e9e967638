"""Gives a test each kind of kernels that this processor runs."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from sepnet.backend import native
from sepnet.notices import notice_once

from .support import NO_KERNELS, TOLERANCE


def _kinds() -> list[Any]:
    found = []
    for variant in native.runnable():
        if native.library(variant).is_file():
            found += [
                pytest.param((variant, dtype), id=f"{variant}-{str(dtype).removeprefix('torch.')}")
                for dtype in TOLERANCE
                if dtype == torch.float32 or variant.endswith("bf16")
            ]
    return found or [pytest.param(None, marks=pytest.mark.skip(reason=NO_KERNELS))]


@pytest.fixture(autouse=True)
def _nothing_said() -> None:
    """Let each test hear what is said once in a process."""
    notice_once.cache_clear()


@pytest.fixture(params=_kinds())
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.dtype]:
    """The type to compute in, by one of the compiled variants."""
    variant, wanted = request.param
    monkeypatch.setenv(native.SWITCH, variant)
    native._find.cache_clear()
    if native.native() is None:
        pytest.skip(native.describe())
    yield wanted
    native._find.cache_clear()
