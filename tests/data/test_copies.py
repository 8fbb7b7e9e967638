"""Local copies in every format and container: the same bytes, or one line that says why not."""

import gzip
import io
import json
import os
import pickle
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from sepnet.data import cifar10, containers, fetch, load
from sepnet.data.containers import read_copy
from sepnet.errors import SepnetError

from .conftest import ARCHIVES, FORMATS, Tiny, png


def refusal(path: Path) -> str:
    """The one line that a bad copy is refused with."""
    with pytest.raises(SepnetError) as caught:
        fetch("cifar10", source=path)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("form", FORMATS)
class TestEveryFormat:
    def test_a_folder_gives_the_official_bytes(self, tiny: Tiny, tmp_path: Path, form: str) -> None:
        assert read_copy(tiny.folder(form, tmp_path / "copy")) == tiny.files["binary"]

    @pytest.mark.parametrize("kind", ARCHIVES)
    def test_an_archive_gives_the_official_bytes(self, tiny: Tiny, tmp_path: Path, form: str, kind: str) -> None:
        assert read_copy(tiny.archive(form, kind, tmp_path / f"copy.{kind}")) == tiny.files["binary"]

    def test_one_flipped_bit_in_any_file_of_a_folder_is_refused(
        self, tiny: Tiny, tmp_path: Path, cache_root: Path, form: str
    ) -> None:
        for name, content in tiny.files[form].items():
            copy = tiny.folder(form, tmp_path / "copy")
            damaged = bytearray(content)
            damaged[len(content) // 2] ^= 1
            (copy / name).write_bytes(damaged)
            line = refusal(copy)
            assert f"'{name}'" in line
            assert str(copy) in line
            assert not (cache_root / "cifar10").exists()

    @pytest.mark.parametrize("kind", ARCHIVES)
    def test_damage_in_an_archive_never_changes_what_is_read(
        self, tiny: Tiny, tmp_path: Path, cache_root: Path, form: str, kind: str
    ) -> None:
        path = tiny.archive(form, kind, tmp_path / f"copy.{kind}")
        whole = path.read_bytes()
        refused = 0
        choose = random.Random(form + kind)
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[choose.randrange(len(whole))] ^= 1 << choose.randrange(8)
            path.write_bytes(damaged)
            try:
                # What can change unnoticed is a folder's name, a date, padding: no image.
                assert read_copy(path) == tiny.files["binary"]
            except SepnetError as error:
                refused += str(path) in str(error) and "\n" not in str(error)
        assert refused > 30
        assert not (cache_root / "cifar10").exists()

    @pytest.mark.parametrize("kind", ARCHIVES)
    def test_a_flipped_bit_in_an_archived_image_is_refused(
        self, tiny: Tiny, tmp_path: Path, cache_root: Path, form: str, kind: str
    ) -> None:
        path = tiny.archive(form, kind, tmp_path / f"copy.{kind}")
        damaged = bytearray(path.read_bytes())
        name = "data_batch_3" + {"binary": ".bin", "python": "", "sheets": ".png"}[form]
        stored = tiny.files[form][name]
        start = damaged.find(stored)
        damaged[start + len(stored) // 2 if start >= 0 else len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        assert str(path) in refusal(path)
        assert not (cache_root / "cifar10").exists()

    @pytest.mark.parametrize("kind", ARCHIVES)
    def test_a_truncated_archive_is_refused(self, tiny: Tiny, tmp_path: Path, form: str, kind: str) -> None:
        path = tiny.archive(form, kind, tmp_path / f"copy.{kind}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert str(path) in refusal(path)

    def test_a_missing_file_is_named(self, tiny: Tiny, tmp_path: Path, form: str) -> None:
        copy = tiny.folder(form, tmp_path / "copy")
        name = next(iter(tiny.files[form]))
        (copy / name).unlink()
        assert f"'{name}' is missing" in refusal(copy)


@pytest.mark.parametrize(
    "place",
    ["cifar-10-batches-py", "cifar-10-batches-py-target/cifar-10-batches-py"],
    ids=["torchvision", "keras"],
)
def test_batches_are_found_below_the_given_folder(tiny: Tiny, tmp_path: Path, place: str) -> None:
    tiny.folder("python", tmp_path / "root" / place)
    (tmp_path / "root" / "cifar-10-python.tar.gz").write_bytes(b"not needed")
    assert read_copy(tmp_path / "root") == tiny.files["binary"]


def test_an_archive_is_found_in_the_given_folder(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    tiny.archive("python", "tar.gz", tmp_path / "downloads" / "cifar-10-python.tar.gz")
    assert read_copy(tmp_path / "downloads") == tiny.files["binary"]


def test_a_whole_set_is_preferred_to_a_part_of_another(tiny: Tiny, tmp_path: Path) -> None:
    (tiny.folder("binary", tmp_path / "copy") / "test_batch.bin").unlink()
    tiny.folder("sheets", tmp_path / "copy" / "sheets")
    assert read_copy(tmp_path / "copy") == tiny.files["binary"]


def test_images_and_labels_keep_their_places(tiny: Tiny, tmp_path: Path) -> None:
    data = load("cifar10", source=tiny.folder("sheets", tmp_path / "copy"))
    assert data.train.images.shape == (20, 3, 32, 32)
    assert data.test.images.shape == (4, 3, 32, 32)
    record = tiny.records["data_batch_2"][3 * 3073 : 4 * 3073]  # training image 4 + 3
    assert data.train.labels[7] == record[0]
    for channel, row, column in [(0, 0, 0), (1, 5, 30), (2, 31, 31)]:
        assert data.train.images[7, channel, row, column] == record[1 + 1024 * channel + 32 * row + column]


class TestPickles:
    def test_a_stranger_is_never_opened(self, tiny: Tiny, tmp_path: Path, cache_root: Path) -> None:
        trace = tmp_path / "opened"
        trap = pickle.dumps(Trap(trace))
        pickle.loads(trap)
        assert trace.exists()  # the trap works
        trace.unlink()
        for name in tiny.files["python"]:
            copy = tiny.folder("python", tmp_path / "copy")
            (copy / name).write_bytes(trap)
            line = refusal(copy)
            assert f"'{name}'" in line
            assert "not opened" in line
            assert not trace.exists()
        assert not (cache_root / "cifar10").exists()

    def test_a_published_hash_is_not_enough(self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The images' own SHA-256 is compared too, as for every other format."""
        monkeypatch.setitem(cifar10.SHA256, "data_batch_4", "0" * 64)
        assert "'data_batch_4'" in refusal(tiny.folder("python", tmp_path / "copy"))


class Trap:
    """Creates a file when unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


class TestSheets:
    def broken(self, tiny: Tiny, tmp_path: Path, name: str, content: bytes) -> str:
        copy = tiny.folder("sheets", tmp_path / "copy")
        (copy / name).write_bytes(content)
        return refusal(copy)

    @pytest.mark.parametrize("size", [(3, 1024, 3), (4, 1023, 3), (1024, 4, 3)])
    def test_a_sheet_of_another_size(self, tiny: Tiny, tmp_path: Path, size: tuple[int, ...]) -> None:
        line = self.broken(tiny, tmp_path, "data_batch_2.png", png(np.zeros(size, np.uint8)))
        assert "'data_batch_2.png'" in line
        assert f"{size[1]}×{size[0]} RGB: expected 1024×4 RGB" in line

    def test_a_sheet_in_grey(self, tiny: Tiny, tmp_path: Path) -> None:
        line = self.broken(tiny, tmp_path, "test_batch.png", png(np.zeros((4, 1024), np.uint8)))
        assert "1024×4 L: expected 1024×4 RGB" in line

    def test_a_sheet_cut_short(self, tiny: Tiny, tmp_path: Path) -> None:
        whole = tiny.files["sheets"]["data_batch_5.png"]
        line = self.broken(tiny, tmp_path, "data_batch_5.png", whole[: len(whole) // 2])
        assert "'data_batch_5.png' is not a complete PNG file" in line

    @pytest.mark.parametrize("wrong", [b"", b"[1,", b"\xff\xfe", b"[" * 100_000])
    def test_labels_that_are_no_json(self, tiny: Tiny, tmp_path: Path, wrong: bytes) -> None:
        assert "'test_lables.json' is not JSON" in self.broken(tiny, tmp_path, "test_lables.json", wrong)

    @pytest.mark.parametrize(
        "wrong",
        [{}, [1, 2, 3], [0, 1, 2, 10], [0, 1, 2, -1], [0, 1, 2, 3.0], [0, 1, 2, True], [[0], 1, 2, 3]],
    )
    def test_labels_that_are_no_class_numbers(self, tiny: Tiny, tmp_path: Path, wrong: object) -> None:
        line = self.broken(tiny, tmp_path, "test_lables.json", json.dumps(wrong).encode())
        assert "'test_lables.json' is not a list of 4 class numbers from 0 to 9" in line

    def test_two_labels_exchanged(self, tiny: Tiny, tmp_path: Path, cache_root: Path) -> None:
        labels = json.loads(tiny.files["sheets"]["train_lables.json"])
        labels[4] = (labels[4] + 1) % 10
        line = self.broken(tiny, tmp_path, "train_lables.json", json.dumps(labels).encode())
        assert "'data_batch_2.png' with 'train_lables.json'" in line
        assert not (cache_root / "cifar10").exists()


class TestUserMistakes:
    def test_a_missing_path(self, tiny: Tiny, tmp_path: Path) -> None:
        assert f"'{tmp_path / 'none'}' does not exist" in refusal(tmp_path / "none")

    def test_a_path_too_long(self, tiny: Tiny, tmp_path: Path) -> None:
        assert "cannot be read" in refusal(tmp_path / ("n" * 5000))

    def test_an_empty_folder(self, tiny: Tiny, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert f"'{tmp_path / 'empty'}' contains no file of CIFAR-10: expected a folder" in refusal(tmp_path / "empty")

    def test_a_text_file(self, tiny: Tiny, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("not images")
        assert f"'{tmp_path / 'notes.txt'}' is not a complete archive" in refusal(tmp_path / "notes.txt")

    @pytest.mark.parametrize("kind", ["tar", "zip"])
    def test_an_archive_of_something_else(self, tiny: Tiny, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"other.{kind}"
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("notes.txt", "not images")
        else:
            with tarfile.open(path, "w") as tar:
                tar.addfile(tarfile.TarInfo("notes.txt"), io.BytesIO())
        assert f"'{path}' contains no file of CIFAR-10" in refusal(path)

    def test_a_file_that_unpacks_to_far_too_much(self, tiny: Tiny, tmp_path: Path) -> None:
        path = tmp_path / "bomb.zip"
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
            archive.open("test_batch", "w") as file,
        ):
            for _ in range(65):
                file.write(bytes(2**20))
        assert "holds 'test_batch' of 68,157,440 bytes" in refusal(path)

    def test_a_header_of_many_bytes(self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(containers, "LARGEST_ARCHIVE", 2**20)
        header = tarfile.TarInfo("name")
        header.type, header.size = tarfile.XHDTYPE, 3 * 10**9
        path = tmp_path / "copy.tar.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            file.write(header.tobuf())
            file.write(bytes(2**22))
        assert "holds more than 1,048,576 bytes" in refusal(path)

    def test_members_of_one_name(self, tiny: Tiny, tmp_path: Path) -> None:
        path = tmp_path / "copy.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for number in range(3):
                archive.writestr(f"{number}/test_batch", b"")
        assert "holds 'test_batch' twice" in refusal(path)

    @pytest.mark.parametrize("kind", ["tar", "zip"])
    def test_far_too_many_members(self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
        monkeypatch.setattr(containers, "MOST_MEMBERS", 5)
        assert "holds more than 5 files" in refusal(tiny.archive("python", kind, tmp_path / f"copy.{kind}"))

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
    def test_a_named_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "copy.tar.gz")
        assert "is a named pipe: expected a regular file" in refusal(tmp_path / "copy.tar.gz")
