"""A clock for one piece of work that goes from part to part."""

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

BETWEEN = "between"
"""Whatever is no part."""
WHOLE = "whole"
"""All parts together."""


class Clock:
    """Seconds of each named part, of each piece of work that counted."""

    def __init__(self) -> None:
        self._pieces: list[dict[str, float]] = []
        self._name = BETWEEN
        self._seconds: dict[str, float] = defaultdict(float)
        self._since = 0.0

    def enter(self, name: str) -> None:
        """Let the part end that is running, and another begin."""
        now = time.perf_counter()
        self._seconds[self._name] += now - self._since
        self._name, self._since = name, now

    @contextlib.contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Let a part run meanwhile, and then the one before it again."""
        before = self._name
        self.enter(name)
        yield
        self.enter(before)

    def run(self, work: Callable[[], object], *, counts: bool) -> float:
        """Do a piece of work, and keep its parts' seconds if it counts; return its seconds."""
        self._name, self._seconds, self._since = BETWEEN, defaultdict(float), time.perf_counter()
        work()
        self.enter(BETWEEN)
        whole = sum(self._seconds.values())
        if counts:
            self._pieces.append(self._seconds)
        return whole

    def median(self, name: str) -> float:
        """Return the median seconds of a part, or of the whole, over the pieces."""
        return statistics.median(sum(p.values()) if name == WHOLE else p.get(name, 0.0) for p in self._pieces)
