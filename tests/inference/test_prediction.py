"""Prediction: what becomes of image files, and what is said of them."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import sepnet
from sepnet.cli.app import run as command
from sepnet.errors import SepnetError
from sepnet.inference import prediction
from sepnet.inference.prediction import ClassProbability, Prediction, read_image, to_text
from sepnet.networks import shipped
from sepnet.recipes.recipe import Recipe
from tests.cli_support import train_small
from tests.training.support import CLASSES, patterns, tiny

pytestmark = pytest.mark.usefixtures("pytorch_alone")

SHAPE = (3, 8, 8)
RECIPE = Recipe(name="test", epochs=2, batch_size=50, lr=0.1)
Captured = pytest.CaptureFixture[str]


def _photo(width: int = 8, height: int = 8, *, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _pixels(image: Image.Image | Path, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Return what the network is given, as (H, W, C)."""
    return read_image(image, shape)[0].permute(1, 2, 0).numpy()


# Reading.


@pytest.mark.parametrize(("suffix", "options"), [("png", {}), ("bmp", {}), ("tiff", {}), ("webp", {"lossless": True})])
def test_a_file_of_the_right_size_is_taken_pixel_for_pixel(tmp_path: Path, suffix: str, options: dict) -> None:
    photo = _photo()
    photo.save(tmp_path / f"photo.{suffix}", **options)
    image, resized = read_image(tmp_path / f"photo.{suffix}", SHAPE)
    assert (image.shape, image.dtype, resized) == (SHAPE, torch.uint8, False)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(photo))


def test_a_jpeg_is_read_as_its_decoder_gives_it(tmp_path: Path) -> None:
    _photo().save(tmp_path / "photo.jpg", quality=90)
    with Image.open(tmp_path / "photo.jpg") as decoded:
        assert np.array_equal(_pixels(tmp_path / "photo.jpg"), np.asarray(decoded))


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (2, lambda upright: upright[:, ::-1]),
        (3, lambda upright: upright[::-1, ::-1]),
        (4, lambda upright: upright[::-1]),
        (6, lambda upright: np.rot90(upright)),  # the viewer turns it clockwise
        (8, lambda upright: np.rot90(upright, -1)),
    ],
)
def test_an_image_is_turned_upright_by_its_exif_orientation(tmp_path: Path, orientation: int, stored: object) -> None:
    upright = np.asarray(_photo())
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert callable(stored)
    Image.fromarray(np.ascontiguousarray(stored(upright))).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(_pixels(tmp_path / "turned.png"), upright)


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    photo = np.asarray(_photo())
    alpha = np.random.default_rng(1).integers(0, 256, (8, 8, 1), dtype=np.uint8)
    Image.fromarray(np.concatenate([photo, alpha], axis=2)).save(tmp_path / "glass.png")
    share = alpha / 255
    assert np.abs(_pixels(tmp_path / "glass.png") - (share * photo + (1 - share) * 255)).max() <= 1


def test_a_palettes_transparent_colour_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.paste(1, (0, 0, 8, 4))
    image.save(tmp_path / "picture.gif", transparency=0)
    pixels = _pixels(tmp_path / "picture.gif")
    assert (pixels[:4] == [200, 0, 0]).all()
    assert (pixels[4:] == 255).all()


def test_grey_becomes_rgb_and_rgb_grey(tmp_path: Path) -> None:
    photo = np.asarray(_photo()).astype(float)
    luma = photo @ [0.299, 0.587, 0.114]  # ITU-R BT.601
    grey = _pixels(_photo(), (1, 8, 8))
    assert grey.shape == (8, 8, 1)
    assert np.abs(grey[..., 0] - luma).max() <= 1
    Image.fromarray(grey[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(_pixels(tmp_path / "grey.png"), np.repeat(grey, 3, axis=2))


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert np.abs(_pixels(tmp_path / "deep.png")[..., 0] - values / 257).max() <= 1


def test_of_an_animation_the_first_frame_counts(tmp_path: Path) -> None:
    frames = [_photo(seed=seed) for seed in range(3)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(_pixels(tmp_path / "moving.webp"), np.asarray(frames[0]))


@pytest.mark.parametrize("size", [(20, 8), (8, 14)])
def test_a_longer_image_is_cropped_about_its_centre(size: tuple[int, int]) -> None:
    photo = _photo(*size)
    left, above = (size[0] - 8) // 2, (size[1] - 8) // 2
    image, resized = read_image(photo, SHAPE)
    assert resized
    expected = np.asarray(photo)[above : above + 8, left : left + 8]
    assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


def test_shrinking_does_not_alias() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)  # every other pixel is white
    assert np.abs(_pixels(Image.fromarray(board)).astype(int) - 127).max() <= 8  # taking every eighth gives 0 or 255


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 50), height=st.integers(1, 50), colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_one_colour_stays_that_colour_at_any_size(width: int, height: int, colour: tuple[int, int, int]) -> None:
    image, resized = read_image(Image.new("RGB", (width, height), colour), (3, 6, 9))
    assert image.shape == (3, 6, 9)
    assert resized == ((width, height) != (9, 6))
    assert (image.permute(1, 2, 0).numpy() == colour).all()


# Predicting.


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sepnet.Run:
    """A run of the tiny network, in fp32, which does not depend on how images are batched."""
    return sepnet.train(
        tiny, patterns(), RECIPE, precision="fp32", device="cpu", out=tmp_path_factory.mktemp("runs"), name="tiny"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The first images of the run's validation set, in folders of folders."""
    place = tmp_path / "images"
    for number, image in enumerate(patterns().test.images[:12]):
        file = place / f"{number // 4}" / f"{number:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)
    return place


def test_images_of_a_folder_are_answered_as_in_the_validation(run: sepnet.Run, folder: Path) -> None:
    predictions = sepnet.predict(run, folder, network=tiny())
    assert [Path(found.file) for found in predictions] == sorted(folder.rglob("*.png"))
    logits = run.logits()[0][:12].numpy().astype(float)
    odds = np.exp(logits)
    for found, row in zip(predictions, odds / odds.sum(axis=1, keepdims=True), strict=True):
        assert [guess.name for guess in found.guesses] == [CLASSES[place] for place in np.argsort(-row)]
        assert [guess.probability for guess in found.guesses] == pytest.approx(sorted(row, reverse=True), rel=1e-4)
        assert sum(guess.probability for guess in found.guesses) == pytest.approx(1)


@pytest.mark.slow
def test_batches_change_nothing(run: sepnet.Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sepnet.predict(run, folder, network=tiny())
    monkeypatch.setattr(prediction, "BATCH", 5)
    parts = sepnet.predict(run, folder, network=tiny())
    assert [found.file for found in parts] == [found.file for found in whole]
    for one, other in zip(parts, whole, strict=True):
        assert [guess.probability for guess in one.guesses] == pytest.approx([g.probability for g in other.guesses])


@pytest.mark.parametrize(("top", "named"), [(1, 1), (2, 2), (3, 3), (50, 3)])
def test_top_is_how_many_classes_are_named(run: sepnet.Run, folder: Path, top: int, named: int) -> None:
    assert {len(found.guesses) for found in sepnet.predict(run, folder, top, network=tiny())} == {named}


def test_of_equal_probabilities_the_first_class_is_first() -> None:
    names = [str(place) for place in range(300)]
    (ranked,) = prediction._rank(torch.tensor([[0.0] * 299 + [1.0]]), names, 300)
    assert [guess.name for guess in ranked] == ["299", *names[:-1]]


@pytest.mark.slow
def test_files_folders_and_images_in_memory_may_be_mixed(run: sepnet.Run, folder: Path) -> None:
    file = folder / "0" / "00.png"
    with Image.open(file) as opened:
        predictions = sepnet.predict(run, [str(file), folder / "2", opened, _photo()], network=tiny())
    below = sorted(map(str, (folder / "2").iterdir()))
    assert [found.file for found in predictions] == [str(file), *below, str(file), ""]
    assert predictions[0] == predictions[-2]
    assert sepnet.predict(run, file, network=tiny())[0].file == str(file)


@pytest.mark.slow
def test_a_folders_hidden_files_and_other_files_are_left_out(run: sepnet.Run, folder: Path) -> None:
    (folder / "notes.txt").write_text("no image")
    (folder / "table.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (folder / "._photo.png").write_bytes(b"macOS leaves these behind")
    (folder / ".cache").mkdir()
    _photo().save(folder / ".cache" / "photo.png")
    _photo().save(folder / "LOUD.PNG")
    predictions = sepnet.predict(run, folder, network=tiny())
    assert {Path(found.file).name for found in predictions} == {*(f"{n:02}.png" for n in range(12)), "LOUD.PNG"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_not_waited_for(run: sepnet.Run, folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert len(sepnet.predict(run, folder, network=tiny())) == 12
    with pytest.raises(SepnetError, match=r"pipe\.png' is a named pipe: expected a regular file"):
        read_image(folder / "pipe.png", SHAPE)


@pytest.mark.slow
def test_a_folder_may_be_nested_deeper_than_python_recurses(run: sepnet.Run, folder: Path) -> None:
    deepest = folder
    for _ in range(1_200):
        deepest = deepest / "d"
        deepest.mkdir()
    _photo().save(deepest / "photo.png")
    try:
        assert len(sepnet.predict(run, folder, network=tiny())) == 13
    finally:  # pytest's own clean-up recurses
        (deepest / "photo.png").unlink()
        for place in (deepest, *deepest.parents)[:1_200]:
            place.rmdir()


@pytest.mark.slow
def test_broken_files_can_be_skipped(run: sepnet.Run, folder: Path, capsys: Captured) -> None:
    whole = sepnet.predict(run, folder, network=tiny())
    for name in ("00.png", "99.png"):
        (folder / name).write_bytes(b"no image")
    with pytest.raises(SepnetError, match=r"00\.png"):
        sepnet.predict(run, folder, network=tiny())
    assert sepnet.predict(run, folder, network=tiny(), skip_broken=True) == whole
    assert [line.startswith("skipped: ") for line in capsys.readouterr().err.splitlines()] == [True, True]
    with pytest.raises(SepnetError, match="none of the 1 images can be read"):
        sepnet.predict(run, folder / "00.png", network=tiny(), skip_broken=True)


@pytest.mark.slow
def test_a_notice_says_how_many_images_were_resized(run: sepnet.Run, folder: Path, capsys: Captured) -> None:
    sepnet.predict(run, folder, network=tiny())
    assert capsys.readouterr().err == ""
    _photo(30, 9).save(folder / "wide.png")
    sepnet.predict(run, folder, network=tiny())
    assert capsys.readouterr().err == "1 of 13 images cropped about the centre and resized to 8×8 pixels (Lanczos)\n"


def test_an_image_of_too_many_pixels_is_refused(
    run: sepnet.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _photo(30, 30).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 449)
    with pytest.raises(SepnetError, match=r"'.*large.png' has more than 898 pixels: make it smaller first"):
        sepnet.predict(run, tmp_path, network=tiny())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 450)  # Pillow would warn, and warnings are errors here
    assert len(sepnet.predict(run, tmp_path, network=tiny())) == 1


def _damage(tmp_path: Path) -> dict[str, bytes]:
    _photo(40, 40).save(tmp_path / "whole.png")
    _photo(40, 40).save(tmp_path / "whole.jpg")
    png, jpeg = ((tmp_path / f"whole.{suffix}").read_bytes() for suffix in ("png", "jpg"))
    note = PngInfo()
    note.add_text("bomb", "x" * 70_000_000, zip=True)
    _photo().save(tmp_path / "bomb.png", pnginfo=note)
    Image.fromarray(np.ones((8, 8), dtype=np.float32)).save(tmp_path / "floats.tiff")
    return {
        "empty.png": b"",
        "text.png": b"this is a text",
        "short.png": png[: len(png) // 2],
        "flipped.png": png[:60] + bytes(byte ^ 255 for byte in png[60:]),
        "short.jpg": jpeg[: len(jpeg) // 2],
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "bomb.png": (tmp_path / "bomb.png").read_bytes(),
        "floats.tiff": (tmp_path / "floats.tiff").read_bytes(),
    }


def test_a_damaged_file_is_named_in_one_line(tmp_path: Path) -> None:
    for name, content in _damage(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SepnetError, match=rf"{name}' (is not an image|cannot be read)") as caught:
            read_image(tmp_path / name, SHAPE)
        assert "\n" not in str(caught.value)


# The text.


def _said(*files: str) -> list[Prediction]:
    guesses = (ClassProbability(name="cat", probability=0.971), ClassProbability(name="airplane", probability=0.0123))
    return [Prediction(file=file, guesses=guesses) for file in files]


def test_lines_are_aligned() -> None:
    assert to_text(_said("a.png", "folder/b.png")) == (
        "a.png         cat       97.1 %  airplane   1.2 %\nfolder/b.png  cat       97.1 %  airplane   1.2 %"
    )


def test_a_narrow_terminal_gets_a_line_a_guess() -> None:
    assert to_text(_said("a.png"), 30) == "a.png\n  cat       97.1 %\n  airplane   1.2 %"
    assert to_text(_said("a.png"), 41).count("\n") == 0


def test_wide_characters_are_aligned_and_control_characters_escaped() -> None:
    wide, plain = to_text(_said("猫.png", "cat-1.png")).splitlines()
    assert wide.index("cat ") == plain.index("cat ") - 1  # one character, two columns
    assert to_text(_said("a\n\x1b[31m\udcff.png")).startswith("a\\n\\x1b[31m\\udcff.png  cat")


# The command line.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the sample, of a network in a file."""
    return train_small(tmp_path_factory.mktemp("trained"))


@pytest.mark.slow
def test_predict_as_json(trained: Path, folder: Path, capsys: Captured) -> None:
    assert command(["predict", "--trust", str(trained), str(folder), "--top", "2", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [entry["file"] for entry in shown] == sorted(map(str, folder.rglob("*.png")))
    for entry in shown:
        assert list(entry) == ["file", "predictions"]
        first, second = entry["predictions"]
        assert list(first) == ["class", "probability"]
        assert 1 >= first["probability"] >= second["probability"] >= 0


@pytest.mark.slow
def test_predict_as_csv(trained: Path, folder: Path, capsys: Captured) -> None:
    (folder / "broken, too.png").write_bytes(b"")
    command(["predict", "--trust", str(trained), str(folder), "--top=2", "--skip-broken", "--format=csv"])
    captured = capsys.readouterr()
    rows = list(csv.DictReader(captured.out.splitlines()))
    assert [row["file"] for row in rows[::2]] == [str(file) for file in sorted(folder.rglob("??.png"))]
    assert [row["rank"] for row in rows] == ["1", "2"] * 12
    assert all(float(row["probability"]) <= 1 for row in rows)
    assert "skipped: '" in captured.err


@pytest.mark.slow
def test_predict_for_reading(trained: Path, folder: Path, capsys: Captured) -> None:
    files = [str(folder / "0" / name) for name in ("03.png", "00.png")]
    assert command(["predict", "--trust", str(trained), *files]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[0] for line in lines] == files
    assert [line.count(" %") for line in lines] == [5, 5]
    assert captured.err == "2 of 2 images cropped about the centre and resized to 32×32 pixels (Lanczos)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("champion good.png", "sepnet has no trained weights for 'champion'"),
        ("champoin good.png", "did you mean 'champion'?"),
        ("RUN", "IMAGE|FOLDER"),
        ("RUN absent.png", "'absent.png' is neither a file nor a folder"),
        ("RUN empty", "folder 'empty' contains no images"),
        ("RUN good.png text.png", "'text.png' is not an image in a format that Pillow reads"),
        ("RUN good.png short.png", "image 'short.png' cannot be read"),
        ("RUN .", "image 'short.png' cannot be read"),
        ("RUN pipe", "'pipe' is neither a file nor a folder"),
        ("RUN link.png", "'link.png' is neither a file nor a folder"),
        ("RUN good.png --top 0", "top is 0: expected at least 1"),
        ("RUN good.png --top many", "--top"),
        ("RUN good.png --device abacus", "device is 'abacus'"),
        ("RUN good.png --precision fp8", "precision is 'fp8'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    arguments: str, message: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shipped, "WEIGHTS", tmp_path / "weights")
    (tmp_path / "empty").mkdir()
    _photo(32, 32).save("good.png")
    (tmp_path / "short.png").write_bytes((tmp_path / "good.png").read_bytes()[:1000])
    (tmp_path / "text.png").write_text("no image")
    os.mkfifo("pipe")
    (tmp_path / "link.png").symlink_to("nowhere")
    if arguments == "RUN .":
        (tmp_path / "text.png").unlink()
        (tmp_path / "link.png").unlink()
    assert command(["predict", "--trust", *arguments.replace("RUN", str(trained)).split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sepnet: error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
