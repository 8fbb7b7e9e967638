"""CIFAR-100 and Fashion-MNIST in small: found, compared with their checksums, downloaded, trained on by name."""

import gzip
import hashlib
import io
import re
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import sepnet
from sepnet.data import DATASETS, cifar100, fashion_mnist, fetch, load, sources, verify
from sepnet.data.catalog import cached
from sepnet.data.published import PublishedFile, origin
from sepnet.data.sources import Origin, RemoteFile
from sepnet.errors import SepnetError

COUNTS = {"train": 40, "t10k": 20}
CLASSES = ("apple", "aquarium_fish", "baby")


@dataclass(frozen=True)
class Small:
    """A dataset in small: its published files by name, and its images and labels by split."""

    files: Mapping[str, bytes]
    images: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]

    def folder(self, place: Path) -> Path:
        place.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (place / name).write_bytes(content)
        return place


def idx(array: np.ndarray) -> bytes:
    """An array in the IDX format, http://yann.lecun.com/exdb/mnist/."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def tar_gz(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        folder = tarfile.TarInfo("cifar-100-binary")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            member = tarfile.TarInfo(f"cifar-100-binary/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def small_fashion() -> Small:
    random = np.random.default_rng(1)
    images = {split: random.integers(0, 256, (count, 28, 28), dtype=np.uint8) for split, count in COUNTS.items()}
    labels = {split: (np.arange(count) % 10).astype(np.uint8) for split, count in COUNTS.items()}
    files = {
        f"{split}-{kind}-ubyte.gz": gzip.compress(idx(array))
        for split in COUNTS
        for kind, array in (("images-idx3", images[split]), ("labels-idx1", labels[split]))
    }
    return Small(files=files, images={split: array[:, None] for split, array in images.items()}, labels=labels)


def small_cifar100() -> Small:
    random = np.random.default_rng(2)
    images = {split: random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8) for split, count in COUNTS.items()}
    labels = {split: random.integers(0, len(CLASSES), count, dtype=np.uint8) for split, count in COUNTS.items()}
    records = {
        split: b"".join(
            bytes([17, label]) + image.tobytes() for image, label in zip(images[split], labels[split], strict=True)
        )
        for split in COUNTS
    }
    names = "\n".join((*CLASSES, "")).encode()
    members = {"train.bin": records["train"], "test.bin": records["t10k"], "fine_label_names.txt": names}
    return Small(files={"cifar-100-binary.tar.gz": tar_gz(members)}, images=images, labels=labels)


def shrunk(file: PublishedFile, content: bytes, address: str) -> PublishedFile:
    """The description of a published file, with the checksums of other content and another address."""
    kept = content if file.name == file.remote.name else gzip.decompress(content)
    remote = RemoteFile(
        url=address + file.remote.name, size=len(content), md5=hashlib.md5(content, usedforsecurity=False).hexdigest()
    )
    return replace(file, size=len(kept), sha256=hashlib.sha256(kept).hexdigest(), remote=remote)


@pytest.fixture
def address() -> str:
    """Where nobody answers; a test of downloads has another."""
    return "http://127.0.0.1:9/"


@pytest.fixture
def fashion(cache_root: Path, offline: None, address: str, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A small Fashion-MNIST in place of the real one, and an empty cache."""
    small = small_fashion()
    files = [shrunk(file, small.files[file.remote.name], address) for file in fashion_mnist.FILES]
    put("fashion-mnist", "Fashion-MNIST", files, address, fashion_mnist.ORIGIN, monkeypatch)
    return small


@pytest.fixture
def cifar(cache_root: Path, offline: None, address: str, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A small CIFAR-100 in place of the real one, and an empty cache."""
    small = small_cifar100()
    file = shrunk(cifar100.FILE, small.files[cifar100.FILE.name], address)
    put("cifar100", "CIFAR-100", [file], file.remote.url, cifar100.ORIGIN, monkeypatch)
    return small


def put(
    name: str, title: str, files: list[PublishedFile], address: str, real: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = origin(name, title=title, address=address, files=files, to_dataset=real.to_dataset)
    monkeypatch.setitem(DATASETS, name, cached("in small", made))


def refusal(name: str, source: Path | None = None) -> str:
    with pytest.raises(SepnetError) as caught:
        fetch(name, source=source)
    line = str(caught.value)
    assert "\n" not in line
    return line


def left(cache_root: Path) -> list[str]:
    """What is in the cache, but for locks."""
    return [path.name for path in cache_root.iterdir() if path.suffix != ".lock"] if cache_root.exists() else []


class TestWhatIsRead:
    def test_fashion_mnist(self, fashion: Small, tmp_path: Path, cache_root: Path) -> None:
        fetched = fetch("fashion-mnist", source=fashion.folder(tmp_path / "copy"))
        assert fetched.folder == cache_root / "fashion-mnist"
        assert left(cache_root) == ["fashion-mnist"]
        assert [row.ok for row in verify("fashion-mnist")] == [True] * 4
        data = load("fashion-mnist")
        assert data.image_shape == (1, 28, 28)
        assert (len(data.classes), data.classes[0], data.classes[9]) == (10, "T-shirt/top", "Ankle boot")
        for split, name in ((data.train, "train"), (data.test, "t10k")):
            assert np.array_equal(split.images, fashion.images[name])
            assert np.array_equal(split.labels, fashion.labels[name])

    def test_cifar100(self, cifar: Small, tmp_path: Path, cache_root: Path) -> None:
        data = load("cifar100", source=cifar.folder(tmp_path / "copy"))
        assert [row.file for row in verify("cifar100")] == [cache_root / "cifar100" / "cifar-100-binary.tar.gz"]
        assert data.classes == CLASSES
        assert data.image_shape == (3, 32, 32)
        for split, name in ((data.train, "train"), (data.test, "t10k")):
            assert np.array_equal(split.images, cifar.images[name])
            assert np.array_equal(split.labels, cifar.labels[name])


class TestPlaces:
    def test_an_archive_of_any_name(self, cifar: Small, tmp_path: Path) -> None:
        archive = tmp_path / "mine"
        archive.write_bytes(cifar.files["cifar-100-binary.tar.gz"])
        assert fetch("cifar100", source=archive).source == f"'{archive}'"

    def test_two_levels_below_the_given_folder_and_no_more(self, fashion: Small, tmp_path: Path) -> None:
        fashion.folder(tmp_path / "root" / "FashionMNIST" / "raw")
        assert "holds no 'train-images-idx3-ubyte.gz'" in refusal("fashion-mnist", source=tmp_path)
        fetch("fashion-mnist", source=tmp_path / "root")

    def test_unpacked_files_and_files_compressed_again(self, fashion: Small, tmp_path: Path) -> None:
        copy = fashion.folder(tmp_path / "copy")
        for number, (name, content) in enumerate(fashion.files.items()):
            (copy / name).unlink()
            packed = gzip.compress(gzip.decompress(content), compresslevel=1, mtime=7)
            if number % 2:
                (copy / name).write_bytes(packed)
            else:
                (copy / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
        fetch("fashion-mnist", source=copy)
        assert np.array_equal(load("fashion-mnist").test.images, fashion.images["t10k"])

    def test_mnist_beside_it_is_passed_over(self, fashion: Small, tmp_path: Path) -> None:
        for name in fashion.folder(tmp_path / "root" / "A-MNIST").iterdir():
            name.write_bytes(gzip.compress(b"digits"))
        assert "holds 6 bytes" in refusal("fashion-mnist", source=tmp_path / "root")
        fashion.folder(tmp_path / "root" / "B-FashionMNIST")
        fetch("fashion-mnist", source=tmp_path / "root")

    def test_one_of_four_files_is_not_enough(self, fashion: Small, tmp_path: Path) -> None:
        file = fashion.folder(tmp_path / "copy") / "t10k-images-idx3-ubyte.gz"
        assert "is not a folder: expected a folder with Fashion-MNIST's 'train-images" in refusal("fashion-mnist", file)

    def test_nothing_there(self, cifar: Small, tmp_path: Path) -> None:
        assert "does not exist: expected a folder with CIFAR-100's 'cifar-100-binary.tar.gz', or that file" in refusal(
            "cifar100", tmp_path / "none"
        )


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "flipped": (
        lambda content: gzip.compress(bytes([*gzip.decompress(content)[:-1], 77])),
        "holds .* with SHA-256 .* expected",
    ),
    "truncated": (lambda content: content[: len(content) // 2], "is not a complete gzip file"),
    "no gzip": (lambda _: b"<html>", "is not a complete gzip file"),
    "shorter": (lambda content: gzip.compress(gzip.decompress(content)[:-1]), r"holds [\d,]+ bytes: expected"),
    "bomb": (lambda content: gzip.compress(gzip.decompress(content) + bytes(2**24)), "holds more than"),
    "empty": (lambda _: b"", "holds 0 bytes"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_and_nothing_kept(
    fashion: Small, tmp_path: Path, cache_root: Path, damage: str
) -> None:
    change, message = DAMAGE[damage]
    file = fashion.folder(tmp_path / "copy") / "t10k-images-idx3-ubyte.gz"
    file.write_bytes(change(file.read_bytes()))
    assert re.search(f"'{re.escape(str(file))}' {message}", line := refusal("fashion-mnist", tmp_path / "copy")), line
    assert left(cache_root) == []


def test_a_bomb_is_not_unpacked(fashion: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a file would unpack to, what is asked of the reader is one byte more than there should be."""
    asked = []
    read = gzip.GzipFile.read

    def watched(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        asked.append(size)
        return read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", watched)
    file = fashion.folder(tmp_path / "copy") / "train-labels-idx1-ubyte.gz"
    file.write_bytes(gzip.compress(bytes(2**24)))
    refusal("fashion-mnist", tmp_path / "copy")
    assert asked[-1] == 8 + COUNTS["train"] + 1


@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"x", lambda _: b""])
def test_another_archive_is_refused(
    cifar: Small, tmp_path: Path, cache_root: Path, change: Callable[[bytes], bytes]
) -> None:
    file = cifar.folder(tmp_path / "copy") / "cifar-100-binary.tar.gz"
    file.write_bytes(change(file.read_bytes()))
    assert "bytes: expected CIFAR-100's" in refusal("cifar100", tmp_path / "copy")
    assert "bytes: expected CIFAR-100's" in refusal("cifar100", file)
    assert left(cache_root) == []


def test_a_missing_file_is_named(fashion: Small, tmp_path: Path, cache_root: Path) -> None:
    (fashion.folder(tmp_path / "copy") / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "holds no 't10k-labels-idx1-ubyte.gz'" in refusal("fashion-mnist", tmp_path / "copy")
    assert left(cache_root) == []


def test_the_cache_is_checked_at_each_load(fashion: Small, tmp_path: Path, cache_root: Path) -> None:
    fetch("fashion-mnist", source=fashion.folder(tmp_path / "copy"))
    file = cache_root / "fashion-mnist" / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    with pytest.raises(SepnetError, match=r"has changed: .*run `sepnet data fetch fashion-mnist` to replace it"):
        load("fashion-mnist")
    assert [row.file for row in verify("fashion-mnist") if not row.ok] == [file]


@pytest.mark.parametrize("name", ["fashion", "cifar"])
def test_offline_the_way_on_is_told(name: str, request: pytest.FixtureRequest, cache_root: Path) -> None:
    request.getfixturevalue(name)
    dataset = {"fashion": "fashion-mnist", "cifar": "cifar100"}[name]
    line = refusal(dataset)
    assert line.startswith(f"{dataset} is not in the cache and could not be fetched: tried http://127.0.0.1:9/")
    assert f"Run `sepnet data fetch {dataset} --source PATH`" in line
    assert left(cache_root) == []


class TestDownloads:
    @pytest.fixture
    def address(self, site: tuple[Path, str]) -> str:
        return site[1]

    def test_all_four_files(self, fashion: Small, site: tuple[Path, str], capfd: pytest.CaptureFixture[str]) -> None:
        fashion.folder(site[0])
        assert np.array_equal(load("fashion-mnist").train.labels, fashion.labels["train"])
        assert f"fetching fashion-mnist from {site[1]}" in capfd.readouterr().err

    def test_the_archive(self, cifar: Small, site: tuple[Path, str]) -> None:
        cifar.folder(site[0])
        assert fetch("cifar100").source == f"{site[1]}cifar-100-binary.tar.gz"
        assert load("cifar100").classes == CLASSES

    @pytest.mark.parametrize("damage", ["flipped", "truncated", "missing"])
    def test_one_bad_file_and_nothing_is_kept(
        self, fashion: Small, site: tuple[Path, str], cache_root: Path, damage: str
    ) -> None:
        file = fashion.folder(site[0]) / "t10k-images-idx3-ubyte.gz"
        if damage == "missing":
            file.unlink()
        else:
            file.write_bytes(DAMAGE[damage][0](file.read_bytes()))
        expected = "404" if damage == "missing" else "not the published file 't10k-images-idx3-ubyte.gz'"
        assert expected in refusal("fashion-mnist")
        assert left(cache_root) == []

    def test_an_interrupted_one_leaves_nothing(
        self, fashion: Small, site: tuple[Path, str], cache_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fashion.folder(site[0])
        written: list[Path] = []
        real = sources._download_file

        def interrupted(remote: RemoteFile, path: Path, advance: Callable[[int], None]) -> Path:
            if len(written) == 2:
                raise KeyboardInterrupt
            written.append(real(remote, path, advance))
            return written[-1]

        monkeypatch.setattr(sources, "_download_file", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch("fashion-mnist")
        assert [path.parent for path in written] == [cache_root / "fashion-mnist.partial"] * 2
        assert left(cache_root) == []


@pytest.mark.slow
def test_a_run_is_resumed_and_evaluated_by_name(
    fashion: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n"
        "def small(*, classes=10, image_shape=(1, 28, 28)):\n"
        "    return nn.Sequential(nn.AvgPool2d(14), nn.Flatten(), nn.Linear(4 * image_shape[0], classes))\n"
    )
    fetch("fashion-mnist", source=fashion.folder(tmp_path / "copy"))
    recipe = sepnet.Recipe(epochs=1, batch_size=20)
    first = sepnet.train("net.py:small", "fashion-mnist", recipe, precision="fp32", device="cpu")
    assert first.path == Path("runs/small-fashion-mnist")
    more = sepnet.train("net.py:small", "fashion-mnist", resume=True, epochs=2)
    assert (more.path, len(more.history)) == (first.path, 2)
    assert sepnet.evaluate(more, "fashion-mnist").images == COUNTS["t10k"]


def test_what_is_written_down_adds_up() -> None:
    """Sizes follow from the counts that the authors give; a real copy compares the checksums."""
    sizes = {file.name: file.size for file in fashion_mnist.FILES}
    for prefix, count in (("train", 60_000), ("t10k", 10_000)):
        assert sizes[f"{prefix}-images-idx3-ubyte"] == 16 + count * 28 * 28
        assert sizes[f"{prefix}-labels-idx1-ubyte"] == 8 + count
    assert cifar100.FILE.size == cifar100.ARCHIVE.size
