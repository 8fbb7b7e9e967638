"""The embedded sample: balanced, of known origin, and image for image in the full set."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from sepnet.data import Dataset, cache, cifar10, fetch, load, make_sample, sample, verify
from sepnet.errors import SepnetError

SPLITS = ("train", "test")


@pytest.fixture(scope="module")
def full() -> Dataset:
    """The real CIFAR-10, where it has been fetched."""
    if not cache.intact("cifar10", cifar10.checksums()):
        pytest.skip("the full CIFAR-10 is not in the cache: run `sepnet data fetch cifar10`")
    return load("cifar10")


@pytest.mark.parametrize(("split", "per_class"), [("train", 200), ("test", 50)])
def test_it_is_stratified(split: str, per_class: int) -> None:
    part = getattr(load("sample"), split)
    assert part.images.shape == (10 * per_class, 3, 32, 32)
    assert part.labels.bincount().tolist() == [per_class] * 10


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in sample.folder().iterdir()) < 6e6


@pytest.mark.parametrize(("split", "count"), [("train", 50_000), ("test", 10_000)])
def test_the_indices_are_of_the_official_split(split: str, count: int) -> None:
    indices = sample.sheet(split).indices
    assert len(set(indices)) == len(indices)
    assert min(indices) >= 0
    assert max(indices) < count


def test_the_source_is_stated() -> None:
    assert "Krizhevsky" in sample.provenance()["source"]
    assert sample.provenance()["seed"] == make_sample.SEED


@pytest.mark.parametrize("split", SPLITS)
def test_each_image_is_in_the_full_set_at_its_index(full: Dataset, split: str) -> None:
    part, official = getattr(load("sample"), split), getattr(full, split)
    indices = torch.tensor(sample.sheet(split).indices)
    assert torch.equal(part.images, official.images[indices])
    assert torch.equal(part.labels, official.labels[indices])


@pytest.mark.parametrize("split", SPLITS)
def test_the_choice_can_be_made_again(full: Dataset, split: str) -> None:
    labels = getattr(full, split).labels.tolist()
    assert make_sample.choose(labels, make_sample.PER_CLASS[split]) == list(sample.sheet(split).indices)


def test_the_full_set_loads_in_two_seconds(full: Dataset) -> None:
    def seconds() -> float:
        start = time.perf_counter()
        load("cifar10")
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 2


def test_tiles_go_row_by_row() -> None:
    images = np.zeros((6, 3, 32, 32), np.uint8)
    for number in range(6):
        images[number] = number
    pixels = sample.tile(images, 3)
    assert pixels.shape == (64, 96, 3)
    assert pixels[0, :, 0].tolist() == [0] * 32 + [1] * 32 + [2] * 32
    assert pixels[40, 40, 2] == 4
    assert np.array_equal(sample.untile(pixels, 3), images)


def test_nothing_is_to_be_fetched() -> None:
    assert fetch("sample").folder == sample.folder()
    assert [row.ok for row in verify("sample")] == [True, True]
    with pytest.raises(SepnetError, match="leave --source out"):
        fetch("sample", source=Path("elsewhere"))


class TestDamage:
    @pytest.fixture
    def copied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The package's sheets in a folder of this test's own."""
        place = tmp_path / "sample"
        place.mkdir()
        for path in sample.folder().iterdir():
            (place / path.name).write_bytes(path.read_bytes())
        monkeypatch.setattr(sample, "files", lambda _package: tmp_path)
        return place

    @pytest.mark.parametrize("name", ["train.webp", "test.webp"])
    def test_a_flipped_bit_is_refused(self, copied: Path, name: str) -> None:
        content = bytearray((copied / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copied / name).write_bytes(content)
        with pytest.raises(SepnetError, match="install sepnet again") as caught:
            load("sample")
        assert str(copied / name) in str(caught.value)
        assert [row.file.name for row in verify("sample") if not row.ok] == [name]

    def test_a_missing_sheet_is_named(self, copied: Path) -> None:
        (copied / "test.webp").unlink()
        with pytest.raises(SepnetError, match=r"test\.webp' cannot be read"):
            load("sample")

    def test_an_exchanged_label_is_refused(self, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        provenance = sample.provenance()
        entry = provenance["splits"]["train"]
        labels = [(entry["labels"][0] + 1) % 10, *entry["labels"][1:]]
        changed = {"splits": {**provenance["splits"], "train": {**entry, "labels": labels}}}
        monkeypatch.setattr(sample, "provenance", lambda: changed)
        with pytest.raises(SepnetError, match=r"train\.webp' has changed"):
            load("sample")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cifar-10", "did you mean 'cifar10'?"),
        ("sampel", "did you mean 'sample'?"),
        ("x", "expected one of cifar10, cifar100, fashion-mnist, sample"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, hint: str) -> None:
    for ask in (load, fetch, verify):
        with pytest.raises(SepnetError) as caught:
            ask(name)
        assert str(caught.value).startswith(f"unknown dataset '{name}'")
        assert hint in str(caught.value)
