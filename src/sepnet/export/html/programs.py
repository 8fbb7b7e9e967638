"""Run an exported page's network: in headless Chromium, on the page itself, or its script alone in Node.js."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import torch
from torch import Tensor

from sepnet.errors import SepnetError, first_line

HERE = Path(__file__).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NODE = ("node", "nodejs")
BATCH = 100
"""Images in one message to a browser."""
PATIENCE = 300.0
"""Seconds after which a browser that does not answer is ended."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a page answered: int8 ``scores`` ``(N, classes)``, and the ``seconds`` that one image took."""

    scores: Tensor
    seconds: float


def run_page(content: bytes, images: Tensor) -> Answers:
    """Run a page's network on images ``(N, C, H, W)``, uint8, in Chromium, or in Node.js where there is no Chromium.

    Raises:
        SepnetError: neither is installed, or it fails.

    """
    if not find(*CHROMIUM, *NODE):
        raise SepnetError("a page is scored in Chromium or Node.js, and neither is on the path: install one of them")
    return run_in_chromium(content, images) if find(*CHROMIUM) else run_in_node(content, images)


def run_in_chromium(content: bytes, images: Tensor) -> Answers:
    """Run a page's network on images ``(N, C, H, W)``, uint8, in a headless Chromium that has opened the page.

    Raises:
        SepnetError: Chromium is not installed, or it fails.

    """
    answer = (HERE / "answer.js").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        page = Path(name, "page.html")
        page.write_bytes(content)
        with Browser() as browser:
            browser.open(page.as_uri())
            parts = [
                browser.evaluate(f"{answer}; answer(sepnet.logits, {json.dumps(_encoded(batch))}, {len(batch)})")
                for batch in images.split(BATCH)
            ]
    return _answers(parts, len(images))


def run_in_node(content: bytes, images: Tensor) -> Answers:
    """Run the script of a page that computes its scores on images ``(N, C, H, W)``, uint8, in Node.js.

    Raises:
        SepnetError: Node.js is not installed, or it fails.

    """
    with tempfile.TemporaryDirectory() as name:
        page = Path(name, "page.html")
        page.write_bytes(content)
        command = [find(*NODE) or "node", str(HERE / "node.js"), str(page), str(len(images))]
        try:
            done = subprocess.run(command, input=_encoded(images).encode(), capture_output=True, check=True)
        except FileNotFoundError as error:
            raise SepnetError("'node' is not installed: install Node.js") from error
        except subprocess.CalledProcessError as error:
            reason = first_line(error.stderr.decode(errors="replace")) or f"exit code {error.returncode}"
            raise SepnetError(f"Node.js failed: {reason}") from error
    return _answers([json.loads(done.stdout)], len(images))


def find(*names: str) -> str | None:
    """Return the path of the first of these programs that is installed."""
    return next((path for name in names if (path := shutil.which(name))), None)


def _encoded(images: Tensor) -> str:
    return base64.b64encode(images.permute(0, 2, 3, 1).contiguous().numpy().tobytes()).decode()


def _answers(parts: list[dict[str, Any]], images: int) -> Answers:
    scores = b"".join(base64.b64decode(part["scores"]) for part in parts)
    seconds = sum(part["seconds"] for part in parts) / max(1, images)
    return Answers(scores=torch.frombuffer(bytearray(scores), dtype=torch.int8).view(images, -1), seconds=seconds)


class Browser:
    """A headless Chromium with one page, by its DevTools protocol over pipes: JSON that ends with a zero byte.

    ``flags`` are of Chromium's command line. Its profile is a folder that is deleted afterwards.

    Raises:
        SepnetError: Chromium is not installed or does not start; so do the methods where it fails.

    """

    def __init__(self, *flags: str) -> None:
        program = find(*CHROMIUM)
        if program is None:
            raise SepnetError("Chromium is not on the path: install it")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        settings = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self._profile.name}"]
        settings += ["--no-first-run", "--disable-gpu", "--disable-background-networking", *flags]
        if os.geteuid() == 0:
            settings.append("--no-sandbox")  # root cannot start Chromium with it; the page is sepnet's own
        # Chromium reads the protocol from descriptor 3 and writes to 4.
        shell = ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null', "sh", program, *settings]
        self._process = subprocess.Popen(
            shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self._number, self._session = 0, ""
        self._seen: set[str] = set()

    def __enter__(self) -> "Browser":
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            self.call("Page.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()
        self._profile.cleanup()

    def open(self, address: str) -> None:
        """Open a page, and wait until it is loaded."""
        self._seen.clear()
        self.call("Page.navigate", url=address)
        while "Page.loadEventFired" not in self._seen:
            self._receive()

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page, or of the promise that it is."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            thrown = done["exceptionDetails"].get("exception", {}).get("description", "an exception")
            raise SepnetError(f"the page failed: {first_line(thrown)}")
        return done["result"].get("value")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return the result of a command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\0")
            self._process.stdin.flush()
        except OSError as error:
            raise SepnetError("Chromium ended unexpectedly: start it by hand to see why") from error
        while (answer := self._receive()).get("id") != self._number:
            pass
        if "error" in answer:
            raise SepnetError(f"Chromium refused {method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self) -> dict[str, Any]:
        """Return the next message: an answer or an event."""
        assert self._process.stdout is not None
        content = bytearray()
        watch = Timer(PATIENCE, self._process.kill)
        watch.start()
        while (byte := self._process.stdout.read(1)) not in (b"", b"\0"):
            content += byte
        watch.cancel()
        if not byte:
            raise SepnetError("Chromium ended unexpectedly: start it by hand to see why")
        message: dict[str, Any] = json.loads(content)
        self._seen.add(message.get("method", ""))
        return message
