"""The bookkeeping of graphs, with stand-ins for CUDA's: what a graph replays, and when."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sepnet.training.cuda_graph import EAGER_CALLS, Graphed


class Device:
    """Counts an update's calls, and what is captured of them."""

    def __init__(self) -> None:
        self.eager = 0
        self.replays = 0
        self.total = torch.zeros(())
        self.capturing: Any = None
        self.broken = False

    def update(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        outputs = (images.sum() + labels.sum()).clone(), images * 2
        if self.capturing is None:
            self.eager += 1
            self.total += outputs[0]
        elif self.broken:
            raise RuntimeError("operation not permitted\nwhen stream is capturing")
        else:
            self.capturing.call = images, labels, outputs
        return outputs


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()

    class Graph:
        def replay(self) -> None:
            images, labels, outputs = self.call  # type: ignore[attr-defined]
            device.replays += 1
            outputs[0].copy_(images.sum() + labels.sum())
            outputs[1].copy_(images * 2)
            device.total += outputs[0]

    class Stream:
        def wait_stream(self, other: "Stream") -> None: ...

    @contextlib.contextmanager
    def capture(graph: Graph) -> Iterator[None]:
        device.capturing = graph
        try:
            yield
        finally:
            device.capturing = None

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    return device


def _batch(number: int, size: int) -> tuple[Tensor, Tensor]:
    return torch.full((size, 3), float(number)), torch.full((size,), number)


def test_every_batch_is_taken_once_and_gives_its_own_outputs(device: Device) -> None:
    graphed, total = Graphed(device.update), 0.0
    sizes = [4, 4, 4, 4, 4, 2, 4, 4, 2, 2, 2, 2, 4]
    for number, size in enumerate(sizes):
        images, labels = _batch(number, size)
        loss, logits = graphed(images, labels)
        total += float(images.sum() + labels.sum())
        assert loss == images.sum() + labels.sum()
        assert torch.equal(logits, images * 2)
    assert device.total == total
    assert device.eager == 2 * EAGER_CALLS
    assert device.replays == len(sizes) - 2 * EAGER_CALLS


def test_what_cannot_be_captured_is_run_as_it_is_and_said(device: Device, capfd: pytest.CaptureFixture[str]) -> None:
    device.broken = True
    graphed = Graphed(device.update)
    for number in range(EAGER_CALLS + 4):
        loss, _ = graphed(*_batch(number, 4))
        assert loss == 16 * number
    assert (device.eager, device.replays) == (EAGER_CALLS + 4, 0)
    assert "not as a CUDA graph: operation not permitted" in capfd.readouterr().err
