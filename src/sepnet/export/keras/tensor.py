"""What a Keras tensor holds of a PyTorch one, and how to bring it into another order."""

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
Sides = tuple[tuple[int, int], ...]
"""Positions before and after, along each dimension."""


class Inexpressible(Exception):
    """An operation that Keras's layers cannot do; ``advice`` says what to do about it."""

    def __init__(self, reason: str, advice: str = "replace it, or keep to PyTorch") -> None:
        super().__init__(reason)
        self.advice = advice


@dataclass(frozen=True, eq=False)
class Held:
    """A tensor of the network, and the Keras tensor that holds the same values, perhaps in another order.

    ``number`` names the Keras tensor, 0 is the image; ``shape`` is PyTorch's, without the batch. ``index`` has the
    shape of the Keras tensor, without the batch: it gives, for each of its places, the place in the flattened
    PyTorch tensor. An image is channels last in Keras, as :func:`natural` says; once flattened, ``index`` is the
    permutation by which the weights of a dense layer have to follow. ``field`` is the receptive field.
    """

    number: int
    shape: tuple[int, ...]
    index: Array
    field: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Weight:
    """A parameter or buffer: ``array`` holds the values of ``source``, perhaps under another shape, in a layer Keras's.

    ``statistic`` says that no training step changes it.
    """

    source: Tensor
    array: Array
    statistic: bool = False


@lru_cache(maxsize=256)
def plain(shape: tuple[int, ...]) -> Array:
    """Return the index of a Keras tensor in PyTorch's own order."""
    index = np.arange(prod(shape), dtype=np.int32).reshape(shape)
    index.flags.writeable = False
    return index


def natural(shape: tuple[int, ...]) -> Array:
    """Return the index of an image ``(C, H, W)`` channels last, of anything else in PyTorch's own order."""
    return plain(shape).transpose(1, 2, 0) if len(shape) == 3 else plain(shape)


def places_in(picked: Array, size: int) -> Array:
    """Return, for each of ``size`` old places, where ``picked`` has it; -1 where it does not."""
    places = np.full(size, -1, dtype=np.int32)
    places[picked.ravel()] = np.arange(picked.size, dtype=np.int32)
    return places


Move = tuple[str, dict[str, Any], Array]


def moves(index: Array, target: Array) -> list[Move]:
    """Return the layers (kind, settings, index afterwards) that bring a Keras tensor into another order.

    It is refused where ``Reshape``, ``Permute`` and a choice along the last axis are not enough.
    """
    order = places_in(index, index.size)[target.ravel()]
    if np.array_equal(order, np.arange(order.size)):
        return _reshape(index, target)
    digits = _digits(order, index.shape, target.shape)
    if digits:
        descending = sorted(digits, key=lambda digit: -digit[1])
        folded = index.reshape([size for size, _ in descending])
        turn = [descending.index(digit) for digit in digits]
        turned = folded.transpose(turn)
        if np.array_equal(turned.ravel(), target.ravel()):
            permute: Move = ("Permute", {"dims": tuple(axis + 1 for axis in turn)}, turned)
            return [*_reshape(index, folded), permute, *_reshape(turned, target)]
    rows = order.reshape(-1, target.shape[-1]) - np.arange(0, order.size, target.shape[-1])[:, None]
    if index.shape == target.shape and (rows == rows[0]).all():
        return [("ops.take", {"indices": rows[0].tolist(), "axis": -1}, target)]
    raise Inexpressible("it needs values in an order that Keras reaches by no reshape and transposition")


def _reshape(index: Array, target: Array) -> list[Move]:
    if index.shape == target.shape:
        return []
    return [("Flatten", {}, target)] if target.ndim == 1 else [("Reshape", {"target_shape": target.shape}, target)]


def _digits(order: Array, source: tuple[int, ...], target: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return ``order``, the place in the source for each place of the target, as a number of mixed radix.

    Each digit, slowest first, has a size and a step; none goes over the end of an axis of source or target. An
    order that is no such number gives none.
    """
    ends = np.cumprod((1, *reversed(source))).tolist()
    digits: list[tuple[int, int]] = []
    for axis in reversed(target):
        size = axis
        while size > 1:
            step = int(order[1])
            room = next((end // step for end in ends if end > step > 0), 0)
            alike = order[: min(room, size)] == np.arange(min(room, size)) * step
            count = len(alike) if alike.all() else int(alike.argmin())
            if count < 2 or size % count:
                return []
            digits.insert(0, (count, step))
            order, size = order[::count], size // count
    return digits
