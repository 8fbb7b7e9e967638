"""Batched augmentation on the training device, for small images and natural pictures."""

import math

import torch
from torch import Tensor, nn


def take_augmented(
    images: Tensor, indices: Tensor, *, crop: int, flip: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Return images ``indices`` ``(B,)`` of ``images`` ``(N, C, H, W)``, shifted and flipped: ``(B, C, H, W)``.

    Each image is shifted by a whole number of pixels from −``crop`` to ``crop`` on either axis, the border
    filled by reflection without the edge pixel (as ``reflect`` padding), and mirrored where ``flip`` ``(B,)``
    is true. Fastest on images in channels_last memory, which the result has too.

    """
    count, channels, height, width = len(indices), *images.shape[1:]
    shifts = torch.randint(-crop, crop + 1, (2, count, 1), generator=generator).to(images.device)
    rows = _reflect(torch.arange(height, device=images.device) + shifts[0], height)
    columns = _reflect(torch.arange(width, device=images.device) + shifts[1], width)
    if flip is not None:
        columns = torch.where(flip[:, None], columns.flip(1), columns)
    pixels = (indices[:, None, None] * height + rows[:, :, None]) * width + columns[:, None, :]
    flat = images.permute(0, 2, 3, 1).reshape(-1, channels)
    taken = flat.index_select(0, pixels.flatten())
    return taken.view(count, height, width, channels).permute(0, 3, 1, 2)


ASPECT = 4 / 3
"""Of a random resized crop, width to height, at most, and at least its inverse."""


def crop_and_resize(images: Tensor, smallest: float, *, generator: torch.Generator) -> Tensor:
    """Return images ``(B, C, H, W)`` of floats, of each a random rectangle enlarged to the whole, bilinearly.

    Its area is drawn evenly from the share ``smallest`` of the image's to all of it, its aspect ratio evenly on a
    logarithmic scale from 3/4 to 4/3, a side that is longer than the image's is cut to that, and its place evenly.
    (Szegedy et al. 2015, "Going deeper with convolutions", section 6.)
    """
    count, _, height, width = images.shape
    draws = torch.rand(4, count, generator=generator, dtype=torch.float64)
    area = (smallest + (1 - smallest) * draws[0]) * height * width
    aspect = torch.exp((2 * draws[1] - 1) * math.log(ASPECT))
    sizes = torch.sqrt(area / aspect), torch.sqrt(area * aspect)
    boxes = []
    for size, draw, longest in zip(sizes, draws[2:], (height, width), strict=True):
        side = size.round().clamp(1, longest)
        boxes.append(((draw * (longest - side + 1)).floor().clamp(max=longest - 1), side))
    rows, columns = (
        _interpolation(start, side, longest).to(images)
        for (start, side), longest in zip(boxes, (height, width), strict=True)
    )
    cropped = torch.einsum("bij,bcjk,blk->bcil", rows, images, columns)
    layout = torch.channels_last if images.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return cropped.contiguous(memory_format=layout)


def _interpolation(start: Tensor, side: Tensor, size: int) -> Tensor:
    """Return weights ``(B, size, size)`` by which pixels ``start … start + side − 1`` of a line become ``size`` pixels.

    ``start`` and ``side`` are ``(B,)``. Pixel i of the result is taken at (i + ½) · side / size − ½ of the part, pixel
    centres at whole numbers, and no pixel outside the part has a weight.
    """
    places = (torch.arange(size, dtype=torch.float64) + 0.5) * (side / size)[:, None] - 0.5
    places = start[:, None] + torch.minimum(places.clamp(min=0), side[:, None] - 1)
    return (1 - (places[:, :, None] - torch.arange(size)).abs()).clamp(min=0)


GREY = (0.299, 0.587, 0.114)
"""Red, green and blue in brightness (ITU-R BT.601), as Pillow has them."""


def jitter_colors(images: Tensor, strength: float, *, generator: torch.Generator) -> Tensor:
    """Return images ``(B, C, H, W)`` of pixels 0 … 255 as floats, brightness, contrast and saturation of each changed.

    Three factors for each image are drawn evenly from 1 − ``strength`` to 1 + ``strength`` and applied in this order:
    to the pixels, to their distance from the image's mean grey, and to their distance from their own grey; after each,
    values are cut to 0 … 255. Images of other than 3 channels have no saturation, and their mean is their grey.
    """
    draws = torch.rand(3, len(images), 1, 1, 1, generator=generator).to(images.device)
    brightness, contrast, saturation = 1 + strength * (2 * draws - 1)
    images = (images * brightness).clamp_(0, 255)
    images = torch.lerp(_grey(images).mean((2, 3), keepdim=True), images, contrast).clamp_(0, 255)
    return images if images.shape[1] != 3 else torch.lerp(_grey(images), images, saturation).clamp_(0, 255)


def _grey(images: Tensor) -> Tensor:
    """Return the brightness ``(B, 1, H, W)`` of images ``(B, C, H, W)``."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def cut_out(images: Tensor, side: int, *, generator: torch.Generator) -> Tensor:
    """Return images ``(B, C, H, W)``, a square of ``side`` pixels of each set to 0; what lies over an edge is lost.

    (DeVries and Taylor 2017, "Cutout".)
    """
    inside = []
    for size in images.shape[2:]:
        starts = torch.randint(size, (len(images), 1), generator=generator) - side // 2
        positions = torch.arange(size)
        inside.append(((positions >= starts) & (positions < starts + side)).to(images.device))
    rows, columns = inside
    return images.clone().masked_fill_(rows[:, None, :, None] & columns[:, None, None, :], 0)


def mix_up(images: Tensor, targets: Tensor, share: float, partners: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``share`` of each image and target, and the rest of its partner's: ``(B, C, H, W)`` and ``(B, classes)``.

    ``targets`` are probabilities ``(B, classes)``, ``partners`` indices ``(B,)`` into the batch. (Zhang et al. 2018,
    "mixup".)
    """
    return images.lerp(images[partners], 1 - share), targets.lerp(targets[partners], 1 - share)


def shrink(images: Tensor, share: float) -> Tensor:
    """Return images ``(B, C, H, W)`` of floats at a share of their height and width, interpolated without aliasing."""
    height, width = (max(1, round(size * share)) for size in images.shape[2:])
    smaller = nn.functional.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return smaller.contiguous(memory_format=torch.contiguous_format if images.is_contiguous() else torch.channels_last)


def _reflect(positions: Tensor, size: int) -> Tensor:
    """Fold positions outside ``0 … size − 1`` back inside."""
    if size == 1:
        return torch.zeros_like(positions)
    period = 2 * (size - 1)
    folded = positions.remainder(period)
    return torch.where(folded < size, folded, period - folded)
