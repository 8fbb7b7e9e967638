import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from sepnet.data.augment import cut_out, mix_up, take_augmented


def _images(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def test_without_crop_and_flip_images_are_taken_as_they_are() -> None:
    images = _images(5, 6, 7).contiguous(memory_format=torch.channels_last)
    indices = torch.tensor([4, 0, 4])
    taken = take_augmented(images, indices, crop=0, flip=None, generator=torch.Generator())
    assert torch.equal(taken, images[indices])
    assert taken.is_contiguous(memory_format=torch.channels_last)


@settings(max_examples=30, deadline=None)
@given(crop=st.integers(0, 4), height=st.integers(5, 9), width=st.integers(5, 9), seed=st.integers(0, 999))
def test_each_image_is_a_window_of_its_reflect_padded_self(crop: int, height: int, width: int, seed: int) -> None:
    images = _images(4, height, width)
    flips = torch.tensor([True, False, True, False])
    generator = torch.Generator().manual_seed(seed)
    taken = take_augmented(images, torch.arange(4), crop=crop, flip=flips, generator=generator)
    padded = F.pad(images.float(), (crop,) * 4, mode="reflect") if crop else images.float()
    for image, source, flip in zip(taken.float(), padded, flips, strict=True):
        upright = image.flip(2) if flip else image
        windows = source.unfold(1, height, 1).unfold(2, width, 1)  # (C, shifts, shifts, H, W)
        matches = (windows == upright[:, None, None]).all(dim=-1).all(dim=-1).all(dim=0)
        assert matches.any()


def test_every_shift_is_drawn_about_equally_often() -> None:
    ramp = torch.arange(9, dtype=torch.uint8).view(1, 1, 1, 9).repeat(1, 1, 9, 1)
    count = 4000
    taken = take_augmented(
        ramp, torch.zeros(count, dtype=torch.int64), crop=2, flip=None, generator=torch.Generator().manual_seed(3)
    )
    centres = taken[:, 0, 4, 4].long()  # pixel 4 of a ramp shifted by −2 … 2 holds 2 … 6
    shares = centres.bincount(minlength=9).double() / count
    assert set(centres.unique().tolist()) == {2, 3, 4, 5, 6}
    assert (shares[2:7] - 0.2).abs().max() < 0.03


@settings(max_examples=30, deadline=None)
@given(side=st.integers(1, 12), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 999))
def test_a_square_is_cut_out_of_each_image(side: int, height: int, width: int, seed: int) -> None:
    images = torch.rand(6, 3, height, width).add(1).contiguous(memory_format=torch.channels_last)
    cut = cut_out(images, side, generator=torch.Generator().manual_seed(seed))
    assert cut.is_contiguous(memory_format=torch.channels_last)
    for image, source in zip(cut, images, strict=True):
        gone = (image == 0).all(dim=0)
        assert torch.equal(image[:, ~gone], source[:, ~gone])
        rows, columns = gone.any(dim=1), gone.any(dim=0)
        assert torch.equal(gone, rows[:, None] & columns)
        for line in (rows, columns):
            size = len(line)
            assert min(size, (side + 1) // 2) <= line.sum() <= min(size, side)
            assert len(line.unique_consecutive()) <= 3


def test_every_place_is_cut_out_about_equally_often() -> None:
    images = torch.ones(4000, 1, 5, 5)
    cut = cut_out(images, 1, generator=torch.Generator().manual_seed(1))
    assert ((cut == 0).double().mean(dim=(0, 1)) - 1 / 25).abs().max() < 0.015


def test_images_and_labels_are_mixed_by_the_same_share() -> None:
    images = torch.rand(4, 3, 5, 6).contiguous(memory_format=torch.channels_last)
    targets = F.one_hot(torch.tensor([2, 0, 1, 1]), 3).float()
    partners = torch.tensor([1, 0, 3, 2])
    mixed, shares = mix_up(images, targets, 0.7, partners)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(mixed, 0.7 * images + 0.3 * images[partners])
    torch.testing.assert_close(shares, torch.tensor([[0.3, 0, 0.7], [0.7, 0, 0.3], [0, 1, 0], [0, 1, 0]]))
