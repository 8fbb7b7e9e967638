"""A step's calls of kernels, noted once and then repeated: in a small network Python takes as long between them.

What CUDA graphs are on a GPU. The arguments of a kernel hold addresses, so the tensors of the step that is noted lie
in memory that is kept; a repetition computes in the same places, in the same order, and to the same bits.
"""

import ctypes
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode
from torch.utils._pytree import tree_leaves, tree_map_only

from sepnet.kernels.snapshot import Snapshot
from sepnet.kernels.straight import Reading

Gradients = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From images and targets of a batch to loss and logits; the parameters get their gradients."""

CALLS_BEFORE = 3
"""In a row, on batches of one shape, before one is noted: what comes once an epoch is not worth it."""
MOST_COPIED = 0.25
"""The share of a step's memory that may be PyTorch's own results, which a repetition copies to their places."""
ALIGNMENT = 64
"""Bytes, as PyTorch's own memory."""


class Repeated:
    """Calls a function that finds gradients; from the fifth batch of one shape in a row on, repeats its calls.

    The function computes the same each time, whatever numbers it is given, as long as the model stays as it is; a
    changed mode, setting, module, tensor or hook is followed at the next call. Loss, logits and gradients are
    overwritten by the next call. A function that cannot be repeated is called as it is.

    ``readings`` returns the plain values that the model's code takes, None where it may do otherwise each time.
    """

    def __init__(self, function: Gradients, model: nn.Module, readings: Callable[[], Sequence[Reading] | None]) -> None:
        self._function = function
        self._model = model
        self._readings = readings
        self._state: Snapshot | None = None
        self._batch: object = None
        self._calls = 0
        self._recording: Recording | None = None
        self._refused = False

    @property
    def repeating(self) -> bool:
        """Whether calls are noted."""
        return self._recording is not None

    def __call__(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss and logits of the batch."""
        if self._refused:
            return self._function(images, targets)
        if self._state is None or not self._state.holds() or not (self._recording is None or self._recording.holds()):
            self._state, self._batch, self._recording = Snapshot(self._model), None, None
        if self._state.hooked:
            return self._function(images, targets)
        batch = (torch.get_num_threads(), *((t.shape, t.stride(), t.dtype) for t in (images, targets)))
        self._calls = self._calls + 1 if batch == self._batch else 0
        self._batch = batch
        if self._recording is not None and self._recording.batch == batch:
            return self._recording.repeat(images, targets)
        if self._calls:
            self._recording = None  # which frees its memory
        readings = self._readings() if self._calls == CALLS_BEFORE else None
        if readings is None:
            return self._function(images, targets)
        recording = Recording(batch, readings)
        outputs = recording.note(self._function, images, targets, [*self._model.parameters()])
        self._refused = recording.refused
        self._recording = None if self._refused else recording
        return outputs


class Recording:
    """The calls of one step, in the places where its tensors lay."""

    def __init__(self, batch: object, readings: Sequence[Reading]) -> None:
        self.batch = batch
        self._readings = readings
        self.refused = False
        self._memory = _Memory()
        self._given: list[Tensor] = []
        self._outputs: tuple[Tensor, Tensor] | None = None
        self._gradients: list[tuple[nn.Parameter, Tensor]] = []
        self._calls: list[Callable[[], object]] = []

    def note(
        self, function: Gradients, images: Tensor, targets: Tensor, parameters: Sequence[nn.Parameter]
    ) -> tuple[Tensor, Tensor]:
        """Call the function and return what it returns; note what it calls."""
        self._given = [self._memory.copy(tensor) for tensor in (images, targets)]
        recorder = Recorder(self._memory)
        with recorder:
            outputs = function(*self._given)
        self._outputs, self._calls = outputs, recorder.calls
        self._gradients = [(parameter, parameter.grad) for parameter in parameters if parameter.grad is not None]
        self.refused = recorder.refused or recorder.copied > MOST_COPIED * self._memory.size
        return outputs

    def holds(self) -> bool:
        """Tell whether every plain value that the model's code takes is still what it was."""
        return all(reading.holds() for reading in self._readings)

    @torch.no_grad()
    def repeat(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Do the same with another batch."""
        for place, new in zip(self._given, (images, targets), strict=True):
            place.copy_(new)
        for call in self._calls:
            call()
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        assert self._outputs is not None
        return self._outputs


class Recorder(TorchDispatchMode):
    """Notes PyTorch's operators and the kernels that are called while it is entered."""

    def __init__(self, memory: "_Memory") -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []
        self.copied = 0
        """Bytes of the results of PyTorch's own operators."""
        self.refused = False
        self._memory = memory
        self._drawing = False
        self._by_seed: dict[int, list[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operator; its result lies in memory that is kept."""
        given = kwargs or {}
        result = func(*args, **given)
        name, returned = func._schema.name, [part.alias_info for part in func._schema.returns]
        self.refused |= name == _OF_PYTHON
        views = name in _VIEWS or any(alias is not None and not alias.is_write for alias in returned)
        if views or self._drawing:
            return result
        if name in _ALLOCATIONS:
            return tree_map_only(Tensor, self._memory.like, result)
        self.refused |= _varies(func) or any(not isinstance(part, Tensor | None) for part in tree_leaves(result))
        if func._schema.is_mutable:
            self.calls.append(lambda: func(*args, **given))
            return result
        kept = tree_map_only(Tensor, self._memory.copy, result)
        places = _tensors(kept)
        self.copied += sum(place.nbytes for place in places)

        def again() -> None:
            for place, new in zip(places, _tensors(func(*args, **given)), strict=True):
                place.copy_(new)

        self.calls.append(again)
        return kept

    def note(self, kernel: Callable[[Any], object], arguments: ctypes.Structure) -> None:
        """Note a kernel that has been called with these arguments."""
        reference = ctypes.byref(arguments)
        self.calls.append(lambda: kernel(reference))
        users = self._by_seed.get(getattr(arguments, "seed", 0))
        if users is not None:
            users.append(arguments)

    def draw(self, make: Callable[[], int]) -> int:
        """Return a seed; a repetition draws another, for the kernels that were given this one."""
        self._drawing = True
        try:
            seed = make()
        finally:
            self._drawing = False
        users = self._by_seed.setdefault(seed, [])

        def again() -> None:
            new = make()
            for arguments in users:
                arguments.seed = new

        self.calls.append(again)
        return seed


def recorder() -> Recorder | None:
    """Return what notes calls at the moment, if anything does."""
    mode = _get_current_dispatch_mode()
    return mode if isinstance(mode, Recorder) else None


_OF_PYTHON = "aten::lift_fresh"
"""Takes a tensor that Python made of numbers, which may be others the next time."""
_VIEWS = {"aten::_unsafe_view"}
"""That their schema does not call so."""
_ALLOCATIONS = {f"aten::{name}" for name in ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")}


def _tensors(result: Any) -> list[Tensor]:
    return [part for part in tree_leaves(result) if isinstance(part, Tensor)]


def _varies(func: Any) -> bool:
    """Tell whether the shape of an operator's result may depend on the numbers it is given."""
    return any(tag in func.tags for tag in (torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output))


_Block = np.ndarray[Any, np.dtype[np.uint8]]


class _Memory:
    """Memory for tensors. What one no longer needs the next one gets: a step needs no more than without it."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes."""
        self._free: list[_Block] = []

    def copy(self, tensor: Tensor) -> Tensor:
        """Return a copy that lies here."""
        return self.like(tensor).copy_(tensor)

    def like(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the same type, shape and strides that lies here, its numbers not set."""
        if not tensor.numel():
            return tensor
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        part = self._take((last + 1) * tensor.element_size())
        return torch.from_numpy(part).view(tensor.dtype).as_strided(tensor.shape, tensor.stride())

    def _take(self, size: int) -> _Block:
        fitting = [number for number, block in enumerate(self._free) if size <= len(block) <= 2 * size]
        if fitting:
            block = self._free.pop(min(fitting, key=lambda number: len(self._free[number])))
        else:
            whole = np.empty(size + ALIGNMENT, np.uint8)
            first = -whole.ctypes.data % ALIGNMENT
            block = whole[first : first + size]
            self.size += size
        part = block[:size]
        weakref.finalize(part, self._free.append, block).atexit = False  # when the last tensor that lies there is gone
        return part
