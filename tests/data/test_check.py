"""``sepnet data check``: each kind of finding, on folders that have it, and nothing on those that do not."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from rich.cells import cell_len

import sepnet
from sepnet import data as datasets
from sepnet.cli.app import run
from sepnet.data.checking import Items, as_items, suspicious_labels
from sepnet.data.dataset import Dataset, Split
from sepnet.data.duplicates import near_pairs, perceptual_hashes
from sepnet.report.labels import can_draw
from sepnet.report.mosaic import _cut
from tests.cli_support import run_json
from tests.data.picture_support import fill, picture, split_folder

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPNET_CACHE", str(tmp_path_factory.mktemp("cache")))


def _found(folder: Path, capsys: Captured, code: int) -> dict[str, Any]:
    report = run_json(f"data check {folder}", capsys, code=code)
    return {finding["kind"]: finding for finding in report["findings"]}


def test_hashes_are_those_of_scipys_cosine_transform() -> None:
    images = datasets.load("sample").test.images[:40]
    waves = scipy.fft.dctn(images.float().mean(1).numpy(), axes=(1, 2), type=2)[:, :8, :8].reshape(40, 64)[:, 1:]
    expected = np.where(waves > np.median(waves, axis=1, keepdims=True), 1.0, -1.0)
    assert (perceptual_hashes(images).numpy() == expected).mean() > 0.999


def test_copies_that_look_the_same_are_found_and_others_are_not() -> None:
    images = datasets.load("sample").test.images[:120]
    changed = []
    for number, image in enumerate(images[:30]):
        copy = Image.fromarray(image.permute(1, 2, 0).numpy())
        if number % 3 == 0:
            stream = io.BytesIO()
            copy.save(stream, "JPEG", quality=70)
            copy = Image.open(stream).convert("RGB")
        elif number % 3 == 1:
            copy = copy.resize((48, 48), Image.Resampling.LANCZOS).resize((32, 32), Image.Resampling.BICUBIC)
        else:
            copy = ImageEnhance.Brightness(copy).enhance(0.94)
        changed.append(torch.from_numpy(np.array(copy)).permute(2, 0, 1))
    pairs, distances = near_pairs(torch.cat([images, torch.stack(changed)]))
    found = {tuple(pair) for pair in pairs.tolist()}
    expected = {(number, 120 + number) for number in range(30)}
    assert found <= expected
    assert len(found) >= 28
    assert float(distances.max()) < 12


def test_a_sound_folder_has_no_findings(tmp_path: Path, capsys: Captured) -> None:
    assert run(["data", "check", str(split_folder(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "nothing found" in out
    assert "dog            4          2" in out


def test_everything_wrong_with_a_folder_is_named(tmp_path: Path, capsys: Captured) -> None:
    fill(tmp_path, {"train/cat": 12, "train/dog": 3, "train/emu": 2, "test/cat": 2, "test/dog": 2})
    train, test = tmp_path / "train", tmp_path / "test"
    shutil.copy(train / "cat" / "000.png", test / "cat" / "copy.png")
    shutil.copy(train / "cat" / "001.png", train / "dog" / "copy.png")
    with Image.open(train / "cat" / "002.png") as image:
        image.save(train / "cat" / "again.bmp")
    (train / "cat" / "broken.png").write_bytes((train / "cat" / "003.png").read_bytes()[:60])
    picture(99).save(train / "stray.png")
    picture(98, (4, 40)).save(train / "cat" / "long.png")
    found = _found(tmp_path, capsys, 1)
    assert list(found)[:4] == ["broken", "missing", "duplicates-across-splits", "duplicates-of-two-classes"]
    assert found["broken"]["cases"][0]["files"] == [str(train / "cat" / "broken.png")]
    assert found["missing"]["cases"][0]["detail"] == "class 'emu' has no test image"
    [across] = found["duplicates-across-splits"]["cases"]
    assert across["files"] == [str(train / "cat" / "000.png"), str(test / "cat" / "copy.png")]
    assert across["detail"] == "train cat; test cat"
    [torn] = found["duplicates-of-two-classes"]["cases"]
    assert torn["files"] == [str(train / "cat" / "001.png"), str(train / "dog" / "copy.png")]
    [near] = found["near-duplicates"]["cases"]
    assert near["files"] == [str(train / "cat" / "002.png"), str(train / "cat" / "again.bmp")]
    assert "14" in found["imbalance"]["summary"]
    assert "'emu' 2" in found["imbalance"]["summary"]
    assert found["outside"]["cases"][0]["files"] == [str(train / "stray.png")]
    assert "13 % kept" not in found["cropped"]["cases"][0]["detail"]
    assert "10 % kept" in found["cropped"]["cases"][0]["detail"]


def test_a_folder_that_is_not_split_is_checked_as_it_would_be_trained(tmp_path: Path, capsys: Captured) -> None:
    fill(tmp_path, {"cat": 10, "dog": 10})
    for number in range(10):
        shutil.copy(tmp_path / "cat" / f"{number:03}.png", tmp_path / "cat" / f"{number:03}-copy.png")
    found = _found(tmp_path, capsys, 1)
    assert "--group-by" in found["duplicates-across-splits"]["summary"]
    assert run(["data", "check", str(tmp_path), "--group-by", r"^(\d+)"]) == 0


def test_labels_that_a_network_is_sure_are_wrong() -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    logits = 4.0 * torch.nn.functional.one_hot(labels, 3) + torch.rand(90, 3, generator=draw)
    given = labels.clone()
    given[[4, 50]] = (labels[[4, 50]] + 1) % 3
    logits[7] = 0.3  # of an image that is hard, not mislabelled
    items = Items(
        data="x",
        classes=("a", "b", "c"),
        images=torch.zeros(90, 1, 1, 1, dtype=torch.uint8),
        names=[str(number) for number in range(90)],
        sha256=[],
        labels=given,
        held=torch.zeros(90, dtype=torch.bool),
    )
    [finding] = suspicious_labels(items, logits)
    assert {case.files for case in finding.cases} == {("4",), ("50",)}
    assert not finding.problem


def _fail(*_: object) -> None:
    raise sepnet.SepnetError("the disk is full")


@pytest.mark.slow
def test_pictures_are_written_beside_the_findings_and_nothing_else_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split_folder(tmp_path / "pets")
    shutil.copy(tmp_path / "pets" / "train" / "cat" / "000.png", tmp_path / "pets" / "test" / "cat" / "copy.png")
    out = tmp_path / "out"
    for _ in range(2):
        assert run(["data", "check", str(tmp_path / "pets"), "--out", str(out)]) == 1
    assert {file.name for file in out.iterdir()} == {"findings.json", "classes.png", "duplicates-across-splits.png"}
    assert not json.loads((out / "findings.json").read_text())["sound"]
    before = {file: file.read_bytes() for file in out.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr("sepnet.report.mosaic.worst_cases", _fail)
        with pytest.raises(sepnet.SepnetError, match="the disk is full"):
            sepnet.check_data(tmp_path / "pets", out=out)
    assert {file: file.read_bytes() for file in out.iterdir()} == before
    (out / "mine.txt").write_text("mine")
    with pytest.raises(sepnet.SepnetError, match=r"mine\.txt"):
        sepnet.check_data(tmp_path / "pets", out=out)
    assert (out / "mine.txt").read_text() == "mine"


def test_thousands_of_copies_are_told_in_a_few_words(tmp_path: Path) -> None:
    same = Split(images=torch.zeros(2000, 1, 8, 8, dtype=torch.uint8), labels=torch.arange(2000) % 2)
    report = sepnet.check_data(Dataset(name="same", classes=("a", "b"), train=same, test=same), out=tmp_path / "out")
    text = repr(report)
    assert "train[7] and 3,992 more: train a; train b; " in text
    assert max(map(len, text.splitlines())) < 400
    (case,) = report.to_dict()["findings"][0]["cases"]
    assert len(case["files"]) == 4000
    assert (tmp_path / "out" / "duplicates-across-splits.png").is_file()


@given(text=st.text(alphabet="ab …é日本", max_size=30), longest=st.integers(2, 12), tail=st.booleans())
def test_a_text_in_a_picture_is_cut_to_the_most_that_fits(text: str, longest: int, tail: bool) -> None:
    shown = _cut(text, longest, tail=tail)
    text = text if can_draw(text) else ascii(text)[1:-1]
    fitting = [text[len(text) - kept :] if tail else text[:kept] for kept in range(len(text) + 1)]
    most = max((part for part in fitting if cell_len(part) < longest), key=len)
    assert shown == (text if cell_len(text) <= longest else f"…{most}" if tail else f"{most}…")


@pytest.mark.slow
def test_a_catalogued_data_set_is_checked_by_a_run_too(tmp_path: Path) -> None:
    sample = datasets.load("sample")
    small = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(48, 10))
    trained = sepnet.train(small, sample, "published", epochs=1, device="cpu", precision="fp32", out=tmp_path)
    with pytest.raises(sepnet.SepnetError, match="was created in a Python session"):
        sepnet.check_data("sample", by=trained.path)
    report = sepnet.check_data("sample", by=trained)
    assert report.sound
    assert report.counts["test"]["truck"] == 50
    assert as_items(sample).names[2000] == "test[0]"
