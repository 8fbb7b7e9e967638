"""A chain of operators as one node of PyTorch's graph.

PyTorch's own bookkeeping takes about a tenth of a millisecond an operator, twice; a small network's step has forty,
and takes less than a hundred milliseconds.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

Slopes = Sequence[Tensor | None]
"""Gradients, one for each tensor of a list; None where there is none."""


class Tape:
    """The operators run so far that something wants the gradient of, in their order."""

    def __init__(self, sources: Iterable[Tensor]) -> None:
        self._wanted = {id(source) for source in sources}
        self._entries: list[tuple[Sequence[Tensor | None], Sequence[Tensor], Callable[[Slopes], Slopes]]] = []

    def wants(self, *tensors: Tensor | None) -> bool:
        """Tell whether the gradient by any of these tensors is wanted."""
        return any(id(tensor) in self._wanted for tensor in tensors if tensor is not None)

    def add(
        self, given: Sequence[Tensor | None], made: Sequence[Tensor], differentiate: Callable[[Slopes], Slopes]
    ) -> None:
        """Note an operator, and how the gradients by what it made become those by what it was given."""
        self._wanted.update(map(id, made))
        self._entries.append((given, made, differentiate))

    def gradients(self, made: Sequence[Tensor], slopes: Slopes, sources: Sequence[Any]) -> list[Tensor | None]:
        """Return the gradients by the sources, from those by what was made."""
        known: dict[int, Tensor] = {}
        _add(known, made, slopes)
        for inputs, outputs, differentiate in reversed(self._entries):
            found = [known.pop(id(output), None) for output in outputs]
            if any(slope is not None for slope in found):
                wanted = [tensor if self.wants(tensor) else None for tensor in inputs]
                _add(known, wanted, differentiate(found))
        return [known.get(id(source)) for source in sources]


def _add(known: dict[int, Tensor], tensors: Sequence[Tensor | None], slopes: Slopes) -> None:
    for tensor, slope in zip(tensors, slopes, strict=True):
        if tensor is not None and slope is not None:
            before = known.get(id(tensor))
            known[id(tensor)] = slope if before is None else before + slope


_here = threading.local()


def active() -> Tape | None:
    """Return the tape that operators are to be noted on, if any."""
    return getattr(_here, "tape", None)


def _is_kept() -> bool:
    """Tell, in a backward pass, whether another one over the same graph may follow."""
    return torch._C._autograd._get_current_graph_task_keep_graph()


def by_pytorch(compute: Callable[..., Tensor], *given: Tensor | None, weights: Iterable[Tensor] = ()) -> Tensor:
    """Return ``compute(*given)``, which PyTorch differentiates; ``weights`` are what it takes from elsewhere."""
    tape, weights = active(), tuple(weights)
    sources = (*given, *weights)
    if tape is None or not tape.wants(*sources):
        return compute(*given)
    leaves = [None if t is None else t.detach().requires_grad_(tape.wants(t)) for t in given]
    with torch.enable_grad():
        made = compute(*leaves)
    wanted = [leaf if tape.wants(t) else None for leaf, t in zip((*leaves, *weights), sources, strict=True)]

    def differentiate(slopes: Slopes) -> Slopes:
        needed = [leaf for leaf in wanted if leaf is not None]
        found = iter(torch.autograd.grad(made, needed, slopes, retain_graph=_is_kept(), allow_unused=True))
        return [None if leaf is None else next(found) for leaf in wanted]

    result = made.detach()
    tape.add(sources, (result,), differentiate)
    return result


def chain(run: Callable[[], Sequence[Tensor]], sources: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return what ``run()`` returns; its operators become one node that gives gradients by the sources."""
    if not any(source.requires_grad for source in sources):
        return run()
    made: Sequence[Tensor] = _Chain.apply(run, *sources)
    return made


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[[], Sequence[Tensor]], *sources: Tensor) -> tuple[Tensor, ...]:
        wanted = zip(sources, ctx.needs_input_grad[1:], strict=True)
        tape = Tape(source for source, needed in wanted if needed)
        _here.tape = tape
        try:
            made = run()
        finally:
            _here.tape = None
        ctx.tape, ctx.made, ctx.sources = tape, made, sources
        ctx.save_for_backward(*sources)
        ctx.set_materialize_grads(False)
        return tuple(tensor.detach() for tensor in made)  # what the tape holds must not hold this node

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor | None) -> Any:
        _ = ctx.saved_tensors  # raises if this has been done before and the graph was not to be kept
        tape, made, sources = ctx.tape, ctx.made, ctx.sources
        if not _is_kept():
            ctx.tape = ctx.made = ctx.sources = None
        return None, *tape.gradients(made, slopes, sources)
