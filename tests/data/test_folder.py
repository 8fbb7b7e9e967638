"""Folders of pictures as datasets: what is read, in which order, by which rule, and once."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

import sepnet
from sepnet import data as datasets
from sepnet.data import decoding
from sepnet.errors import SepnetError
from sepnet.runs.config import RunConfig
from tests.data.picture_support import fill, picture, split_folder

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test decodes for itself."""
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SEPNET_CACHE", str(place))
    return place


@pytest.mark.slow
def test_a_data_set_written_out_as_files_is_that_data_set(tmp_path: Path) -> None:
    sample = datasets.load("sample")
    for split in ("train", "test"):
        part = getattr(sample, split)
        for label in sample.classes:
            (tmp_path / split / label).mkdir(parents=True)
        for number, (image, label) in enumerate(zip(part.images.numpy(), part.labels.tolist(), strict=True)):
            file = tmp_path / split / sample.classes[label] / f"{number:04}.bmp"
            Image.fromarray(image.transpose(1, 2, 0)).save(file)
    found = datasets.open_data(tmp_path)
    assert found.fingerprint() == sample.fingerprint()
    assert found.classes == sample.classes
    assert found.pictures is not None
    assert found.pictures.image_size == (32, 32)


def test_pictures_of_any_size_and_kind_become_images_by_the_rule_of_predictions(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "b": 2}, (20, 31))
    picture(9, (30, 10)).convert("CMYK").save(tmp_path / "a" / "cmyk.jpg")
    picture(8, (9, 12)).convert("L").save(tmp_path / "a" / "grey.png")
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(tmp_path / "b" / "deep.png")
    turned = picture(7, (12, 40))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "b" / "turned.png", exif=exif)
    seethrough = picture(6, (16, 16))
    seethrough.putalpha(128)
    seethrough.save(tmp_path / "b" / "alpha.webp", lossless=True)
    dataset = datasets.open_data(tmp_path, image_size=(12, 16), split_seed=3)
    images = {image.numpy().tobytes() for part in (dataset.train, dataset.test) for image in part.images}
    expected = set()
    for file in tmp_path.glob("*/*"):
        with Image.open(file) as opened:
            upright = ImageOps.exif_transpose(opened)
            if upright.mode == "I;16":
                upright = Image.fromarray((np.asarray(upright) // 256).astype(np.uint8))
            if upright.mode == "RGBA":
                white = Image.new("RGBA", upright.size, "white")
                upright = Image.alpha_composite(white, upright)
            fitted = ImageOps.fit(upright.convert("RGB"), (16, 12), Image.Resampling.LANCZOS)
            expected.add(np.asarray(fitted).transpose(2, 0, 1).tobytes())
    assert images == expected


def test_grey_is_asked_for_and_kept(tmp_path: Path) -> None:
    dataset = datasets.open_data(split_folder(tmp_path), channels=1)
    with Image.open(tmp_path / "train" / "cat" / "000.png") as first:
        assert torch.equal(dataset.train.images[0, 0], torch.from_numpy(np.array(first.convert("L"))))


@pytest.mark.parametrize("test", ["test", "val", "valid", "Validation"])
def test_a_split_may_have_any_of_its_names(tmp_path: Path, test: str) -> None:
    split_folder(tmp_path)
    (tmp_path / "test").rename(tmp_path / test)
    dataset = datasets.open_data(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (8, 4)
    assert dataset.train.labels.tolist() == [0] * 4 + [1] * 4  # numbered through by class: sorted by name


def test_numbers_are_classes_in_their_order(tmp_path: Path) -> None:
    assert datasets.open_data(fill(tmp_path, {"10": 2, "9": 2, "1": 2})).classes == ("1", "9", "10")


def test_a_class_folder_without_pictures_is_named(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "c": 2})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").write_text("none yet")
    with pytest.raises(SepnetError, match=r"the class folder '.*/b' holds no picture: put some into it, or take it"):
        datasets.open_data(tmp_path)


def test_one_level_is_split_by_the_seed(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 10, "b": 20})
    first, again, other = (datasets.open_data(tmp_path, split_seed=seed) for seed in (0, 0, 1))
    assert first.test.labels.bincount().tolist() == [2, 4]
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_the_table_of_an_imagefolder_is_the_same_data_set(tmp_path: Path) -> None:
    expected = datasets.open_data(split_folder(tmp_path / "folders"))
    for form in ("csv", "jsonl"):
        rows = []
        root = tmp_path / form
        root.mkdir()
        for file in sorted((tmp_path / "folders").glob("*/*/*.png")):
            split, label, name = file.parts[-3:]
            (root / split).mkdir(exist_ok=True)
            shutil.copy(file, root / split / name)
            rows.append({"file_name": f"{split}/{name}", "label": label, "note": "a, b"})
        lines = [json.dumps(row) for row in rows]
        if form == "csv":
            lines = ["file_name,label,note", *(f'{row["file_name"]},{row["label"]},"a, b"' for row in rows)]
        (root / f"metadata.{form}").write_text("\n".join(lines) + "\n")
        assert datasets.open_data(root).fingerprint() == expected.fingerprint()


def test_a_table_in_each_split_names_the_classes(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        fill(tmp_path, {split: 4})
        names = sorted(file.name for file in (tmp_path / split).glob("*.png"))
        rows = [f"{name},{place % 2}" for place, name in enumerate(names)]
        (tmp_path / split / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    dataset = datasets.open_data(tmp_path)
    assert dataset.classes == ("0", "1")
    assert dataset.test.labels.tolist() == [0, 1, 0, 1]


def test_keras_and_medmnist_arrays_are_read_as_they_are(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    train, test = draw.integers(0, 256, (6, 8, 8, 3), np.uint8), draw.integers(0, 256, (4, 8, 8, 3), np.uint8)
    labels = np.array([[0], [1]] * 3), np.array([[1], [0]] * 2)
    np.savez_compressed(tmp_path / "keras.npz", x_train=train, y_train=labels[0], x_test=test, y_test=labels[1])
    dataset = datasets.open_data(tmp_path / "keras.npz")
    assert torch.equal(dataset.train.images, torch.from_numpy(train.transpose(0, 3, 1, 2)))
    assert dataset.test.labels.tolist() == [1, 0, 1, 0]
    assert dataset.name == "keras"
    np.savez(tmp_path / "grey.npz", images=train[..., 0], labels=labels[0], classes=np.array(["no", "yes"]))
    grey = datasets.open_data(tmp_path / "grey.npz", channels=1, image_size=(4, 4))
    assert grey.classes == ("no", "yes")
    assert grey.image_shape == (1, 4, 4)
    resized = ImageOps.fit(Image.fromarray(train[0, :, :, 0]), (4, 4), Image.Resampling.LANCZOS)
    assert any(torch.equal(image[0], torch.from_numpy(np.array(resized))) for image in grey.train.images) or any(
        torch.equal(image[0], torch.from_numpy(np.array(resized))) for image in grey.test.images
    )


def test_pictures_are_decoded_once_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = datasets.open_data(split_folder(tmp_path / "here"))
    monkeypatch.setattr(decoding, "read_picture", None)
    (tmp_path / "here").rename(tmp_path / "there")
    assert datasets.open_data(tmp_path / "there").fingerprint() == first.fingerprint()


def test_a_damaged_cache_is_seen_and_made_again(tmp_path: Path, own_cache: Path, capsys: Captured) -> None:
    first = datasets.open_data(split_folder(tmp_path / "pets"))
    [images] = own_cache.glob("pictures/*/images.npy")
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)
    assert datasets.open_data(tmp_path / "pets").fingerprint() == first.fingerprint()
    assert "damaged" in capsys.readouterr().err
    datasets.open_data(tmp_path / "pets")
    assert "damaged" not in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEPNET_CACHE", str(tmp_path / "file"))
    assert len(datasets.open_data(split_folder(tmp_path / "pets")).train) == 8
    assert "not kept in the cache" in capsys.readouterr().err


def test_broken_files_stop_or_are_skipped_by_name(tmp_path: Path, capsys: Captured) -> None:
    split_folder(tmp_path)
    whole = (tmp_path / "train" / "cat" / "000.png").read_bytes()
    (tmp_path / "train" / "cat" / "cut.png").write_bytes(whole[:-60])
    (tmp_path / "train" / "dog" / "text.jpg").write_text("no picture")
    (tmp_path / "test" / "cat" / "link.png").symlink_to(tmp_path / "train" / "cat" / "001.png")
    with pytest.raises(SepnetError) as caught:
        datasets.open_data(tmp_path)
    for name in ("3 of 15", "cut.png", "text.jpg", "link.png", "--skip-broken"):
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    dataset = datasets.open_data(tmp_path, skip_broken=True)
    assert (len(dataset.train), len(dataset.test)) == (8, 4)
    assert capsys.readouterr().err.count("skipped: ") == 3


def test_memory_is_checked_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split_folder(tmp_path)
    monkeypatch.setattr(decoding, "available_memory", lambda: 2 * 12 * 3 * 64 * 64 - 1)
    monkeypatch.setattr(decoding, "read_picture", None)
    with pytest.raises(SepnetError, match=r"12 images of 3×64×64 need .* GiB"):
        datasets.open_data(tmp_path, image_size=(64, 64))


@pytest.mark.slow
def test_a_run_knows_how_its_pictures_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "pets", {"cat": 10, "dog": 10}, (9, 9))
    dataset = sepnet.load_data("pets", image_size=8, group_by=r"(\d)\.png", split_seed=5)
    small = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(12, 2))
    run = sepnet.train(small, dataset, "published", epochs=1, device="cpu", precision="fp32")
    again = RunConfig.from_toml(run.config.to_toml(), source="x")
    assert again == run.config
    assert again.pictures == dataset.pictures
    assert again.data == "pets"
    assert datasets.reload(again.data, again.pictures).fingerprint() == run.config.data_sha256


def test_groups_stay_together_in_the_holdout_too(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 60, "dog": 60})
    dataset = datasets.open_data(tmp_path, group_by=r"^(\d\d)\d")
    held = dataset.holdout()
    for one, other in ((dataset.train, dataset.test), (held.train, held.test)):
        assert one.groups is not None
        assert other.groups is not None
        assert not set(one.groups.tolist()) & set(other.groups.tolist())
        assert set(one.labels.tolist()) == set(other.labels.tolist()) == {0, 1}
