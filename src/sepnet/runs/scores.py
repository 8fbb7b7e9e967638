"""How a run's network answered in each format that it was exported to."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sepnet.errors import SepnetError
from sepnet.settings import parse_json, shown, to_settings
from sepnet.text_table import text_table

HEADS = ("format", "images", "accuracy %", "agrees with the run %", "bytes", "RAM bytes", "ms")
UNKNOWN = "–"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A trained network in one format, judged by labelled images; shares are of 1."""

    format: str
    """``torch`` is the run itself."""
    images: int
    accuracy: float
    agreement: float
    """Images to which it gives the run's own answer."""
    bytes: int
    """Of the file; of C, of its source."""
    arena_bytes: int | None = None
    """Peak RAM of the activations, where the file fixes it: in int8, on a device."""
    seconds: float | None = None
    """For one image, on one core; None where it was not measured."""

    def __post_init__(self) -> None:
        for name in ("accuracy", "agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise SepnetError(f"{name} is {shown(getattr(self, name))}: expected a share from 0 to 1")

    @property
    def cells(self) -> tuple[str, ...]:
        """What stands below the heads of a table."""
        return (
            self.format,
            f"{self.images:,}",
            f"{100 * self.accuracy:.2f}",
            f"{100 * self.agreement:.2f}",
            f"{self.bytes:,}",
            UNKNOWN if self.arena_bytes is None else f"{self.arena_bytes:,}",
            UNKNOWN if self.seconds is None else f"{1000 * self.seconds:.2f}",
        )


def merge(kept: Sequence[Score], new: Sequence[Score]) -> list[Score]:
    """Return all scores, a new one in the place of the kept one of the same format."""
    return list({score.format: score for score in (*kept, *new)}.values())


def to_json(scores: Sequence[Score]) -> str:
    """Return scores as a file holds them."""
    return json.dumps({"scores": [asdict(score) for score in scores]}, indent=2) + "\n"


def from_json(text: str, *, source: str) -> list[Score]:
    """Return the scores of a file; ``source`` is named in errors.

    Raises:
        SepnetError: the text holds something else.

    """
    rows = parse_json(text, source).get("scores")
    if not isinstance(rows, list):
        raise SepnetError(f"{source} holds no list of scores: delete it, and score again by `sepnet export … --score`")
    return [to_settings(Score, row, source=source) for row in rows]


def to_text(scores: Sequence[Score]) -> str:
    """Return a table for a person, a line for each score."""
    return text_table([HEADS, *(score.cells for score in scores)])
