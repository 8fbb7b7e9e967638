"""The rows: what is tried, in the order in which it was, and the ledger of what came out."""

import json
import shlex
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sepnet.errors import SepnetError
from sepnet.files import write_atomically
from sepnet.settings import hint

HERE = Path(__file__).parent
ROWS = HERE / "rows.toml"
LEDGER = HERE.parent / "results" / "ablation" / "ledger.jsonl"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing tried: a network of ``networks.py`` and what it changes about the recipe ``start.toml``."""

    name: str
    group: str
    """The question it belongs to: rows of one group are compared with each other."""
    network: str = "start"
    settings: dict[str, Any] = field(default_factory=dict)
    data: str = "cifar10"
    seeds: tuple[int, ...] = (0,)
    verdict: str = ""

    def run_name(self, seed: int) -> str:
        """Return the name of a run's folder."""
        return f"{self.name}-seed{seed}"

    def arguments(self, seed: int) -> list[str]:
        """Return the arguments of ``sepnet`` that train the row."""
        settings = [part for key, value in self.settings.items() for part in ("--set", f"{key}={_toml(value)}")]
        return [
            *("train", f"ablation/networks.py:{self.network}", "--data", self.data, "--validation", "holdout"),
            *("--recipe", "ablation/start.toml", *settings, "--seed", str(seed)),
        ]

    def command(self, seed: int) -> str:
        """Return the command line that trains the row, from the project's folder."""
        return shlex.join(["./run", *self.arguments(seed)])


def _toml(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run of a row came to, on the held-out images."""

    row: str
    seed: int
    command: str
    parameters: int
    macs: int
    epochs: int
    accuracy: float
    loss: float
    train_accuracy: float
    seconds: float
    """Of the machine, which trained several rows at a time."""
    commit: str
    machine: str
    history: list[tuple[float, float]]
    """Held-out loss and accuracy after each epoch."""


def read_rows() -> list[Row]:
    """Return every row of ``rows.toml``."""
    rows = tomllib.loads(ROWS.read_text("utf-8"))["row"]
    return [Row(**{**values, "seeds": tuple(values.get("seeds", (0,)))}) for values in rows]


def choose(rows: list[Row], names: list[str]) -> list[Row]:
    """Return the rows of these names, or of these groups; all if none is given."""
    known = {row.name for row in rows} | {row.group for row in rows}
    for name in names:
        if name not in known:
            raise SepnetError(f"no row '{name}' in '{ROWS}': {hint(name, sorted(known))}")
    return [row for row in rows if not names or row.name in names or row.group in names]


def read_ledger() -> dict[tuple[str, int], Outcome]:
    """Return what has been measured, by row and seed."""
    if not LEDGER.exists():
        return {}
    outcomes = [Outcome(**json.loads(line)) for line in LEDGER.read_text("utf-8").splitlines()]
    return {(outcome.row, outcome.seed): outcome for outcome in outcomes}


def add_to_ledger(outcome: Outcome) -> None:
    """Write an outcome into the ledger, in place of an earlier one of the same row and seed."""
    outcomes = {**read_ledger(), (outcome.row, outcome.seed): outcome}
    lines = [json.dumps(asdict(entry)) for entry in outcomes.values()]
    LEDGER.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(LEDGER, ("\n".join(lines) + "\n").encode())
