"""Which pictures become test images where nobody has split them: a share of each class, groups kept together."""

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sepnet.errors import SepnetError


def find_groups(names: Sequence[str], pattern: str) -> Tensor:
    """Return the number of each name's group ``(N,)``: of what the pattern, or its first group, matches in the name.

    Raises:
        SepnetError: the pattern is no regular expression, or matches nothing in a name.

    """
    try:
        expression = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise SepnetError(f"--group-by '{pattern}' is not a regular expression: {error}") from error
    numbers: dict[str, int] = {}
    groups = []
    for name in names:
        match = expression.search(name)
        if match is None:
            raise SepnetError(f"--group-by '{pattern}' matches nothing in '{name}': expected a match in every name")
        key = match[1] if expression.groups and match[1] is not None else match[0]
        groups.append(numbers.setdefault(key, len(numbers)))
    return torch.tensor(groups, dtype=torch.int64)


def choose(labels: Tensor, share: float, seed: int, groups: Tensor | None = None, *, least: int = 1) -> Tensor:
    """Return which images ``(N,)`` are held out: about ``share`` of each class, by the seed.

    Of each class at least ``least`` images are held out, and at least one is not. With ``groups`` ``(N,)``, all images
    of a group go the same way, and the share is met as nearly as that allows.
    """
    generator = torch.Generator().manual_seed(seed)
    if groups is not None:
        return _choose_groups(labels, groups, share, generator)
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        members = torch.nonzero(labels == label).flatten()
        count = min(max(least, round(share * len(members))), len(members) - 1)
        held[members[torch.randperm(len(members), generator=generator)[:count]]] = True
    return held


def _choose_groups(labels: Tensor, groups: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Hold whole groups out, the largest first, each if that brings the classes' shares nearer to what is wanted."""
    counts = np.zeros((int(groups.max()) + 1, int(labels.max()) + 1))
    np.add.at(counts, (groups.numpy(), labels.numpy()), 1)
    totals = np.maximum(counts.sum(0), 1)
    wanted = share * totals
    held = np.zeros(len(counts), dtype=bool)
    order = torch.randperm(len(counts), generator=generator).numpy()
    chosen = np.zeros(counts.shape[1])
    for group in order[np.argsort(-counts[order].sum(1), kind="stable")]:
        before, after = (((sums - wanted) / totals) ** 2 for sums in (chosen, chosen + counts[group]))
        if after.sum() < before.sum():
            held[group] = True
            chosen += counts[group]
    for label in np.flatnonzero(counts.sum(0)):
        _give_each_side(int(label), counts, held)
    return torch.from_numpy(held)[groups]


def _give_each_side(label: int, counts: np.ndarray, held: np.ndarray) -> None:
    """Move the smallest group with the class to the side that has none, if no class then lacks on the other side."""
    for side in (True, False):
        if counts[held == side, label].any():
            continue
        givers = np.flatnonzero((held != side) & (counts[:, label] > 0))
        for group in givers[np.argsort(counts[givers].sum(1), kind="stable")]:
            left = counts[held != side].sum(0) - counts[group]
            if (left[counts[group] > 0] > 0).all():
                held[group] = side
                break
