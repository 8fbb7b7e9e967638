"""Damage run folders at random and judge what each command makes of it: ``python -m tests.faults.mutants``.

Every damage has to be refused in one line with exit code 2, or to make no difference to what comes out.
"""

import argparse
import contextlib
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.mutations import KINDS, Mutation
from tests.faults.scene import COMMANDS, build, call, is_refusal, outcome, restore

JUDGEMENTS = ("refused", "right", "wrong", "traceback", "hung")
FAILURES = JUDGEMENTS[2:]


class Mutant(NamedTuple):
    """One damaged run, and what a command made of it."""

    kind: str
    command: str
    judgement: str
    said: str
    """What was damaged, and the last line of errors."""


def mutants(scene: Path, count: int, seed: int, commands: Sequence[str] = tuple(COMMANDS)) -> Iterator[Mutant]:
    """Yield so many mutants of a scene that :func:`tests.faults.scene.build` made, all kinds in turn."""
    draw = random.Random(seed)
    with contextlib.chdir(scene / "now"):
        expected = {command: _expect(scene, command) for command in commands}
        for number in range(count):
            kind = list(KINDS)[number % len(KINDS)]
            yield _mutant(scene, kind, draw.choice(commands), draw, expected)


def _expect(scene: Path, command: str) -> Any:
    name, arguments = COMMANDS[command]
    restore(scene, name)
    code, printed, errors = call(arguments)
    assert code == 0, errors
    return outcome(command, printed)


def _mutant(scene: Path, kind: str, command: str, draw: random.Random, expected: dict[str, Any]) -> Mutant:
    name, arguments = COMMANDS[command]
    mutation = Mutation(scene, restore(scene, name), name, draw)
    KINDS[kind](mutation)
    before = mutation.outsiders()
    code, printed, errors = call(arguments)
    last = errors[-1] if errors else ""
    if code == "hung":
        judgement = "hung"
    elif mutation.outsiders() != before:
        judgement, last = "wrong", "written outside"
    elif is_refusal(code, errors):
        judgement = "refused"
    elif code == 0:
        judgement = "right" if outcome(command, printed) == expected[command] else "wrong"
    else:
        judgement, last = "traceback", f"{code}: {last}"
    return Mutant(kind, command, judgement, f"{mutation.said}: {last}")


def table(found: Sequence[Mutant], column: int) -> str:
    """Return how often each judgement was reached, by kind of mutation (column 0) or by command (1)."""
    counts = Counter((mutant[column], mutant.judgement) for mutant in found)
    names = list(dict.fromkeys(KINDS if column == 0 else COMMANDS))
    rows = [(name, *(counts[name, judgement] for judgement in JUDGEMENTS)) for name in names]
    rows.append(("all", *(sum(row[place] for row in rows) for place in range(1, 1 + len(JUDGEMENTS)))))  # type: ignore[misc]
    lines = [f"{'':<32}" + "".join(f"{judgement:>11}" for judgement in JUDGEMENTS)]
    return "\n".join([*lines, *(f"{row[0]:<32}" + "".join(f"{value:>11}" for value in row[1:]) for row in rows)])


def main() -> int:
    """Print the tables, and each failure as it is found; return 1 if there was one."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print every mutant")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder)
        build(scene)
        found = []
        for mutant in mutants(scene, arguments.count, arguments.seed):
            found.append(mutant)
            if arguments.show or mutant.judgement in FAILURES:
                print(len(found), " | ".join(mutant), file=sys.stderr, flush=True)
    print(f"{table(found, 0)}\n\n{table(found, 1)}")
    return int(any(mutant.judgement in FAILURES for mutant in found))


if __name__ == "__main__":
    sys.exit(main())
