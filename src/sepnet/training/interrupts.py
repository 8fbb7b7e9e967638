"""Ctrl-C and SIGTERM, held back until the training has saved itself."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType


class Interrupted(BaseException):
    """A training stopped by a signal after saving itself; the exit code is 128 plus the signal's number."""

    def __init__(self, signum: int, saved_in: Path, go_on: str = "") -> None:
        name = signal.Signals(signum).name
        go_on = go_on or (
            f"go on with `sepnet train … --resume --name {saved_in.name} --out {saved_in.parent}`, or call the same "
            "`sepnet compare` again"
        )
        super().__init__(f"stopped by {name}; saved in '{saved_in}': {go_on}")
        self.exit_code = 128 + signum


class Paused(Exception):
    """A training stopped, after saving itself, because whoever started it asked."""


class SignalGuard:
    """Within it, SIGINT and SIGTERM only set :attr:`received`; a second one acts at once.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "SignalGuard":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _receive(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.received = signum
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]
        self._previous = {}
