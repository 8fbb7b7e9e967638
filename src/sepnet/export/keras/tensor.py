"""What a Keras tensor holds of a PyTorch one, and how to bring it into another order."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]


class Inexpressible(Exception):
    """An operation that Keras's layers cannot do; ``advice`` says what to do about it."""

    def __init__(self, reason: str, advice: str = "replace it, or keep to PyTorch") -> None:
        super().__init__(reason)
        self.advice = advice


@dataclass(frozen=True)
class Constant:
    """A parameter or buffer as given to an operation: ``tensor`` is ``source``, perhaps under another shape."""

    tensor: Tensor
    source: Tensor

    @property
    def array(self) -> Array:
        """Its values."""
        values: Array = self.tensor.detach().cpu().float().numpy()
        return values


@dataclass(frozen=True, eq=False)
class Held:
    """A tensor of the network, and the Keras tensor that holds the same values, perhaps in another order.

    ``number`` names the Keras tensor, 0 is the image; ``shape`` is PyTorch's, without the batch. ``index`` has the
    shape of the Keras tensor, without the batch: it gives, for each of its places, the place in the flattened
    PyTorch tensor. An image is channels last in Keras, so its ``index`` is :func:`channels_last`; once flattened,
    ``index`` is the permutation by which the weights of a dense layer have to follow. ``field`` is the receptive
    field. ``waiting`` is what the next layer may take into itself: zeros around the image, or the depthwise half
    of a pair; until then ``number`` is of no use.
    """

    number: int
    shape: tuple[int, ...]
    index: Array
    field: tuple[int, int]
    waiting: "Padding | Depthwise | None" = None

    def viewed(self, picked: Array) -> "Held":
        """Return the value in which place ``i`` holds what the flattened place ``picked[i]`` held."""
        return replace(self, shape=picked.shape, index=places_in(picked, prod(self.shape))[self.index])


@dataclass(frozen=True, eq=False)
class Padding:
    """Zeros (before, after) around the height and the width of ``base``."""

    base: Held
    zeros: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class Depthwise:
    """A depthwise convolution of ``base`` without bias: Keras's settings, its kernel as Keras has it."""

    base: Held
    settings: dict[str, Any]
    kernel: Constant
    array: Array


@lru_cache(maxsize=256)
def plain(shape: tuple[int, ...]) -> Array:
    """Return the index of a Keras tensor in PyTorch's own order."""
    index = np.arange(prod(shape), dtype=np.int32).reshape(shape)
    index.flags.writeable = False
    return index


@lru_cache(maxsize=256)
def channels_last(shape: tuple[int, ...]) -> Array:
    """Return the index ``(H, W, C)`` of a Keras image whose PyTorch shape is ``(C, H, W)``."""
    return plain(shape).transpose(1, 2, 0)


def natural(shape: tuple[int, ...]) -> Array:
    """Return the index of an image channels last, of anything else in PyTorch's own order."""
    return channels_last(shape) if len(shape) == 3 else plain(shape)


def places_in(picked: Array, size: int) -> Array:
    """Return, for each of ``size`` old places, where ``picked`` has it; -1 where it does not."""
    places = np.full(size, -1, dtype=np.int32)
    places[picked.ravel()] = np.arange(picked.size, dtype=np.int32)
    return places


Move = tuple[str, dict[str, Any], Array]


def moves(index: Array, target: Array) -> list[Move]:
    """Return the layers (kind, settings, index afterwards) that bring a Keras tensor into another order.

    Raises:
        Inexpressible: ``Reshape``, ``Permute`` and a choice along the last axis are not enough.

    """
    if index.shape == target.shape and np.array_equal(index, target):
        return []
    found = _reshape(index, target) or _permute(index, target) or _unfold(index, target) or _reorder(index, target)
    if not found:
        raise Inexpressible("it needs values in an order that Keras reaches by no reshape and transposition")
    return found


def _reshape(index: Array, target: Array) -> list[Move]:
    if not np.array_equal(index.ravel(), target.ravel()):
        return []
    if index.shape == target.shape:
        return []
    if target.ndim == 1:
        return [("Flatten", {}, target)]
    return [("Reshape", {"target_shape": target.shape}, target)]


def _permute(index: Array, target: Array) -> list[Move]:
    """Transpose, then perhaps reshape."""
    for order in permutations(range(index.ndim)):
        turned = index.transpose(order)
        if np.array_equal(turned.ravel(), target.ravel()):
            return [_permutation(order, turned), *_reshape(turned, target)]
    return []


def _unfold(index: Array, target: Array) -> list[Move]:
    """Reshape, then transpose."""
    for order in permutations(range(target.ndim)):
        turned = target.transpose(order)
        if np.array_equal(turned.ravel(), index.ravel()):
            back = tuple(int(place) for place in np.argsort(order))
            return [*_reshape(index, turned), _permutation(back, target)]
    return []


def _reorder(index: Array, target: Array) -> list[Move]:
    """Reorder the last axis: by a transposition where it is one, as in a channel shuffle, else one by one."""
    if index.shape != target.shape:
        return []
    row, wanted = index.reshape(-1, index.shape[-1])[0], target.reshape(-1, index.shape[-1])[0]
    where = {value: place for place, value in enumerate(row.tolist())}
    if not where.keys() >= set(wanted.tolist()):
        return []
    order = np.array([where[value] for value in wanted.tolist()])
    if not np.array_equal(index[..., order], target):
        return []
    lead = index.shape[:-1]
    for sizes, turn in _turns(order):
        folded = index.reshape(*lead, *sizes)
        axes = (*range(len(lead)), *(len(lead) + axis for axis in turn))
        turned = folded.transpose(axes)
        return [*_reshape(index, folded), _permutation(axes, turned), *_reshape(turned, target)]
    return [("ops.take", {"indices": order.tolist(), "axis": -1}, target)]


def _turns(order: Array) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield the sizes and the transposition of two or three axes that put ``arange`` into ``order``."""
    count = len(order)
    divisors = [size for size in range(1, count + 1) if count % size == 0]
    for first in divisors:
        for second in divisors:
            if count % (first * second):
                continue
            sizes = tuple(size for size in (first, second, count // (first * second)) if size > 1)
            for turn in permutations(range(len(sizes))):
                if np.array_equal(np.arange(count).reshape(sizes).transpose(turn).ravel(), order):
                    yield sizes, turn


def _permutation(order: tuple[int, ...], turned: Array) -> Move:
    return "Permute", {"dims": tuple(axis + 1 for axis in order)}, turned
