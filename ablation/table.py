"""The ledger as a page for reading."""

import statistics
from collections.abc import Sequence

from scipy import stats

from ablation.rows import Outcome, Row, read_ledger

HEAD = """\
| row | parameters | MACs, M | held-out accuracy, % | held-out loss | training accuracy, % | seeds | verdict |
| --- | --: | --: | --: | --: | --: | --: | --- |"""


INTRODUCTION = """\
# How the champion was found

Each row changes one thing, or a few that had won before, about the network `start` and the recipe
[start.toml](../../ablation/start.toml); [networks.py](../../ablation/networks.py) has the networks. A row is trained on
45,000 of CIFAR-10's training images and scored on the other 5,000 after its last epoch; no test image is seen. Several
seeds are given as mean ± standard error. 5,000 images alone make a difference of two rows uncertain by about 0.4
points, so a small one counts only if it came again. `python -m ablation run` trains what is missing (two rows at a
time, so the seconds in [ledger.jsonl](ledger.jsonl) are no measure of speed), `python -m ablation table` prints this
page. The ledger names the machine of each run: some had bf16, and some AVX2 alone, so that they computed in float32."""


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the page: group by group, the rows and their commands; a row that has not been measured says so."""
    ledger = read_ledger()
    parts = [INTRODUCTION]
    for group in dict.fromkeys(row.group for row in rows):
        members = [row for row in rows if row.group == group]
        lines, commands = [f"## {group.capitalize()}", "", HEAD], []
        for row in members:
            outcomes = [ledger[row.name, seed] for seed in row.seeds if (row.name, seed) in ledger]
            lines.append(_line(row, outcomes))
            commands.append(row.command(row.seeds[0]))
        parts += ["\n".join(lines), "\n".join(["```sh", *commands, "```"])]
    return "\n\n".join(parts)


def _line(row: Row, outcomes: list[Outcome]) -> str:
    if not outcomes:
        return f"| {row.name} | | | missing | | | 0 of {len(row.seeds)} | |"
    first = outcomes[0]
    cells = (
        row.name,
        f"{first.parameters:,}",
        f"{first.macs / 1e6:.2f}",
        _spread([100 * outcome.accuracy for outcome in outcomes], 2),
        _spread([outcome.loss for outcome in outcomes], 4),
        _spread([100 * outcome.train_accuracy for outcome in outcomes], 2),
        str(len(outcomes)) if len(outcomes) == len(row.seeds) else f"{len(outcomes)} of {len(row.seeds)}",
        row.verdict,
    )
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float], digits: int) -> str:
    """Return mean ± standard error; of one value, the value."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {float(stats.sem(values)):.{digits}f}"
