"""One step as a CUDA graph: a small network's kernels take less time than Python takes to launch them."""

from collections.abc import Callable

import torch
from torch import Tensor

from sepnet.errors import first_line
from sepnet.notices import notice_once

Update = Callable[..., tuple[Tensor, Tensor]]
"""From the tensors of a batch, images first, to loss and logits, the weights updated."""

EAGER_CALLS = 3
"""Before the capture, so that libraries have chosen their algorithms and the optimizer has its state."""


class Graphed:
    """Calls an update; from the fourth batch of a shape on, it replays a graph of the launches.

    Loss and logits are overwritten by the next call. An update that cannot be captured is run as it is. (PyTorch's
    documentation, "CUDA Graphs: whole-network capture".)
    """

    def __init__(self, update: Update) -> None:
        self._update = update
        self._by_shape: dict[torch.Size, _OfOneShape] = {}  # an epoch's last batch is smaller; images may grow

    def __call__(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss and logits of the batch."""
        shape = batch[0].shape
        if shape not in self._by_shape:
            self._by_shape[shape] = _OfOneShape(self._update, *batch)
        return self._by_shape[shape](*batch)


class _OfOneShape:
    def __init__(self, update: Update, *batch: Tensor) -> None:
        self._update = update
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs = [tensor.clone() for tensor in batch]
        self._outputs: tuple[Tensor, Tensor] | None = None

    def __call__(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        if self._calls > EAGER_CALLS:
            return self._update(*batch)
        if self._graph is None and self._calls < EAGER_CALLS:
            self._calls += 1
            return self._apart(*batch)
        for kept, new in zip(self._inputs, batch, strict=True):
            kept.copy_(new)
        if self._graph is None and not self._capture(*self._inputs):
            return self._update(*batch)
        assert self._graph is not None
        assert self._outputs is not None
        self._graph.replay()
        return self._outputs

    def _apart(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Run the update on a stream of its own, as a capture wants the calls before it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs = self._update(*batch)
        torch.cuda.current_stream().wait_stream(stream)
        return outputs

    def _capture(self, *batch: Tensor) -> bool:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                outputs = self._update(*batch)
        except RuntimeError as error:
            notice_once(f"the training step is launched kernel by kernel, not as a CUDA graph: {first_line(error)}")
            self._calls = EAGER_CALLS + 1
            return False
        self._graph, self._outputs = graph, outputs
        return True
