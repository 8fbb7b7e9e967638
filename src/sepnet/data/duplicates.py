"""Images that are the same, or nearly so: perceptual hashes of all in one batch, then a look at the pixels.

The hash is Zauner's (2010, "Implementation and benchmarking of perceptual image hash functions", section 3.2.1): the
signs of the 63 lowest frequencies but the mean of a 32×32 grey image's discrete cosine transform, about their median.
"""

import math

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from torch.nn import functional

SIDE = 32
"""Of the image that is hashed."""
KEPT = 8
"""Frequencies along an axis; 63 of them beside the mean."""
FARTHEST = 10
"""Hashes of two near duplicates differ in at most so many of 63 signs."""
DIFFERENCE = 12.0
"""And their pixels, at 16×16, by at most this much of 255 on average,"""
CONTRAST = 0.3
"""and by at most this share of what they differ from their own mean."""
FINE = 16
ROWS = 512
"""Of the table of all pairs at a time."""


def thumbnails(images: Tensor, side: int) -> Tensor:
    """Return images ``(N, C, H, W)``, uint8, as floats ``(N, C, side, side)``, without aliasing."""
    parts = [
        functional.interpolate(part.float(), (side, side), mode="bilinear", antialias=True)
        for part in images.split(1000)
    ]
    return torch.cat(parts)


def perceptual_hashes(images: Tensor) -> Tensor:
    """Return the hash of each image ``(N, C, H, W)``, uint8: signs ``(N, 63)``, float, of 1 and −1."""
    grey = thumbnails(images, SIDE).mean(1)
    places = torch.arange(SIDE) + 0.5
    waves = torch.cos(math.pi / SIDE * torch.arange(KEPT)[:, None] * places)  # DCT-II, the lowest frequencies
    low = (waves @ grey @ waves.T).flatten(1)[:, 1:]
    return torch.where(low > low.median(1, keepdim=True).values, 1.0, -1.0)


def near_pairs(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return pairs ``(P, 2)`` of images ``(N, C, H, W)``, uint8, that are nearly the same, and how far apart they are.

    The distance ``(P,)`` is the mean difference of their pixels at 16×16, 0 to 255.
    """
    hashes, fine = perceptual_hashes(images), thumbnails(images, FINE).flatten(1)
    spread = (fine - fine.mean(1, keepdim=True)).abs().mean(1)
    pairs, distances = [torch.empty(0, 2, dtype=torch.int64)], [torch.empty(0)]
    for start in range(0, len(images), ROWS):
        alike = hashes[start : start + ROWS] @ hashes[start:].T >= hashes.shape[1] - 2 * FARTHEST
        for candidates in (torch.nonzero(alike.triu(1)) + start).split(100_000):
            apart = (fine[candidates[:, 0]] - fine[candidates[:, 1]]).abs().mean(1)
            near = apart <= (CONTRAST * spread[candidates].amin(1)).clamp(max=DIFFERENCE)
            pairs.append(candidates[near])
            distances.append(apart[near])
    return torch.cat(pairs), torch.cat(distances)


def groups_of(pairs: Tensor, count: int) -> list[list[int]]:
    """Return the groups of images that pairs ``(P, 2)`` of ``count`` images connect, sorted."""
    first, second = pairs.numpy().T
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (first, second)), shape=(count, count))
    _, numbers = connected_components(graph, directed=False)
    members: dict[int, list[int]] = {}
    for image in sorted(set(pairs.flatten().tolist())):
        members.setdefault(int(numbers[image]), []).append(image)
    return list(members.values())
