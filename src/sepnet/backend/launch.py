"""Kernels called one after the other, their arguments relocated at each call."""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sepnet.backend.library import Call
from sepnet.backend.native import native

ALIGNMENT = 64
"""Bytes, as PyTorch's own memory."""
WORD = 8


class Launch:
    """A run of kernels. Addresses stand in a table that is filled anew for each call; calls may overlap."""

    __name__ = "launch"

    def __init__(
        self, calls: Sequence[tuple[Call, Sequence[Any]]], given: Sequence[Any], sizes: Mapping[Any, int]
    ) -> None:
        """Plan the calls of kernels whose arguments hold numbers, from 1 on, of the places named beside them.

        The places are those in ``given``, whose tensors come with each call, in that order, and those in ``sizes``,
        of so many bytes, which are wanted in between alone.
        """
        compiled = native()
        assert compiled is not None
        self._run = compiled.kernel("run")
        uses: dict[Any, list[int]] = {}
        for index, (_, places) in enumerate(calls):
            for place in places:
                uses.setdefault(place, []).append(index)
        offsets, self._arena = lay_out(
            {place: (uses[place][0], uses[place][-1], size) for place, size in sizes.items()}
        )
        numbers = {place: index for index, place in enumerate(given)}
        words: list[int] = []
        table, where, which, offset = [], [], [], []
        for call, places in calls:
            table += [ctypes.cast(call.kernel, ctypes.c_void_p).value, WORD * len(words)]
            raw = np.frombuffer(bytes(call.arguments), np.int64)
            for position in pointer_positions(type(call.arguments)):
                if raw[position]:
                    place = places[raw[position] - 1]
                    where.append(len(words) + position)
                    which.append(numbers.get(place, len(given)))
                    offset.append(offsets.get(place, 0))
            words += raw.tolist()
        self._words = np.array(words, np.int64)
        self._table = np.array(table, np.int64)
        self._where, self._which, self._offset = (np.array(column, np.int64) for column in (where, which, offset))
        self._arguments = (ctypes.c_void_p(self._table.ctypes.data), ctypes.c_int64(len(calls)))

    def __call__(self, *given: Tensor) -> None:
        """Call the kernels."""
        addresses = [tensor.data_ptr() for tensor in given]
        arena = torch.empty(self._arena, dtype=torch.uint8)
        addresses.append(arena.data_ptr())
        words = self._words.copy()
        words[self._where] = np.array(addresses, np.int64)[self._which] + self._offset
        self._run(*self._arguments, ctypes.c_void_p(words.ctypes.data))


def pointer_positions(structure: Any) -> list[int]:
    """Return which words of a structure are addresses."""
    found: list[int] = []
    start = 0
    for _, kind in structure._fields_:
        if issubclass(kind, ctypes.Structure):
            found += [start + position for position in pointer_positions(kind)]
        elif kind is ctypes.c_void_p:
            found.append(start)
        start += ctypes.sizeof(kind) // WORD
    return found


def lay_out(lives: Mapping[Any, tuple[int, int, int]]) -> tuple[dict[Any, int], int]:
    """Return an offset for each block, and the bytes that all take together.

    From the first and last moment in which each is wanted, and its size: largest first, each at the lowest offset
    that is free as long as it lives. (Pisarchyk and Lee 2020, "Efficient memory management for deep neural net
    inference", greedy by size.)
    """
    placed: list[tuple[int, int, int, int]] = []
    offsets: dict[Any, int] = {}
    for place, (first, last, size) in sorted(lives.items(), key=lambda item: -item[1][2]):
        room = -(-size // ALIGNMENT) * ALIGNMENT
        start = 0
        for begin, end, born, died in sorted(placed):
            if born <= last and first <= died and start < end and begin < start + room:
                start = end
        placed.append((start, start + room, first, last))
        offsets[place] = start
    return offsets, max((end for _, end, _, _ in placed), default=0)
