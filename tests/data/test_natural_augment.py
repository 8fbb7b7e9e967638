"""Augmentations of natural pictures, against PyTorch's interpolation and Pillow's enhancers."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from torch.nn import functional as F

from sepnet.data.augment import crop_and_resize, jitter_colors


def _boxes(height: int, width: int) -> list[tuple[int, int, int, int]]:
    return [
        (top, left, h, w)
        for h in range(1, height + 1)
        for w in range(1, width + 1)
        for top in range(height - h + 1)
        for left in range(width - w + 1)
    ]


@settings(max_examples=20)
@given(
    height=st.integers(1, 6), width=st.integers(1, 6), smallest=st.sampled_from([0.05, 0.3]), seed=st.integers(0, 999)
)
def test_a_rectangle_is_enlarged_as_pytorch_interpolates(height: int, width: int, smallest: float, seed: int) -> None:
    images = torch.rand(4, 3, height, width, generator=torch.Generator().manual_seed(seed + 1))
    images = images.contiguous(memory_format=torch.channels_last)
    found = crop_and_resize(images, smallest, generator=torch.Generator().manual_seed(seed))
    assert found.is_contiguous(memory_format=torch.channels_last)
    for image, source in zip(found, images, strict=True):
        distances = [
            float(
                (F.interpolate(source[None, :, t : t + h, s : s + w], (height, width), mode="bilinear") - image)
                .abs()
                .max()
            )
            for t, s, h, w in _boxes(height, width)
        ]
        assert min(distances) < 1e-5


def test_areas_and_aspect_ratios_are_as_drawn() -> None:
    size, count = 64, 600
    ramps = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).float()
    found = crop_and_resize(ramps.expand(count, -1, -1, -1), 0.25, generator=torch.Generator().manual_seed(0))
    middle = slice(size // 2 - 8, size // 2 + 8)
    heights = size * (found[:, 0, middle, 0].diff(dim=1).mean(1))
    widths = size * (found[:, 1, 0, middle].diff(dim=1).mean(1))
    shares, aspects = heights * widths / size**2, widths / heights
    assert 0.24 < float(shares.min()) < 0.27
    assert 0.95 < float(shares.max()) <= 1.001
    assert abs(float(shares.mean()) - 0.625) < 0.03  # a little less: what is longer than the image is cut
    assert float(aspects.min()) > 0.72
    assert float(aspects.max()) < 1.39
    assert abs(float(aspects.log().mean())) < 0.03


def test_colours_are_changed_as_pillow_changes_them() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 10, 3), np.uint8)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    found = jitter_colors(images, 0.4, generator=torch.Generator().manual_seed(1))
    draws = torch.rand(3, 12, generator=torch.Generator().manual_seed(1))
    for image, source, factors in zip(found, pixels, (0.6 + 0.8 * draws).T.tolist(), strict=True):
        expected = Image.fromarray(source)
        for enhancer, factor in zip(
            (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), factors, strict=True
        ):
            expected = enhancer(expected).enhance(factor)
        difference = image.permute(1, 2, 0) - torch.from_numpy(np.array(expected)).float()
        assert float(difference.abs().max()) < 3  # Pillow rounds three times
    assert torch.equal(jitter_colors(images, 0.0, generator=torch.Generator()), images.float())
    assert jitter_colors(images[:, :1], 0.4, generator=torch.Generator()).shape == (12, 1, 9, 10)
