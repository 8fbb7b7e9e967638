"""A sweep's ledger for reading: the page, the best, and rows for other programs."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

from sepnet.comparison.significance import spread, welch
from sepnet.sweep.ledger import Ledger, Outcome, of_row
from sepnet.sweep.plan import DESIGN, Plan, Row
from sepnet.text_table import text_table

COSTS = ("parameters", "macs", "seconds")
"""What accuracy is weighed against."""


@dataclass(frozen=True)
class Entry:
    """A row and what its finished seeds came to."""

    row: Row
    seeds: Sequence[int]
    outcomes: Sequence[Outcome]
    command: str
    """Of the first seed."""

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(outcome.accuracy for outcome in self.outcomes)

    def cost(self, name: str) -> float:
        """Return the mean of one of :data:`COSTS`, infinite where it is unknown."""
        values = [getattr(outcome, name) for outcome in self.outcomes]
        return math.inf if None in values else statistics.fmean(values)


def entries(plan: Plan, ledger: Ledger) -> list[Entry]:
    """Return the sweep's rows with what the ledger has of them; of a search, the designs that were not pruned."""
    if plan.search:
        designs = [one for one in ledger.values() if one.row.startswith(DESIGN) and one.finished]
        return [Entry(Row(name=one.row), [one.seed], [one], one.command) for one in designs]
    found = []
    for row in plan.rows:
        seeds = plan.seeds_of(row)
        found.append(Entry(row, seeds, of_row(ledger, row.name, seeds), plan.trial(row, seeds[0]).command))
    return found


def to_markdown(plan: Plan, ledger: Ledger) -> str:
    """Return the page: group by group, the rows and their commands; a row that has not been measured says so."""
    rows = entries(plan, ledger)
    parts = [f"# {plan.title}"] if plan.title else []
    parts += [plan.text.strip()] if plan.text else []
    for group in dict.fromkeys(entry.row.group for entry in rows):
        members = [entry for entry in rows if entry.row.group == group]
        table = [
            f"| row | parameters | MACs, M | {plan.images} accuracy, % | {plan.images} loss | training accuracy, % "
            f"| seeds | points above {rows[0].row.name} | verdict |",
            "| --- | --: | --: | --: | --: | --: | --: | --: | --- |",
            *(_line(entry, rows[0]) for entry in members),
        ]
        parts += [f"## {group[0].upper()}{group[1:]}"] if group else []
        parts += ["\n".join(table), "\n".join(["```sh", *(entry.command for entry in members), "```"])]
    return "\n\n".join(parts)


def _line(entry: Entry, first: Entry) -> str:
    outcomes, seeds = entry.outcomes, entry.seeds
    if not outcomes:
        return f"| {entry.row.name} | | | missing | | | 0 of {len(seeds)} | | |"
    parameters, macs = outcomes[0].parameters, outcomes[0].macs
    cells = (
        entry.row.name,
        "unknown" if parameters is None else f"{parameters:,}",
        "unknown" if macs is None else f"{macs / 1e6:.2f}",
        spread([100 * outcome.accuracy for outcome in outcomes]),
        spread([outcome.loss for outcome in outcomes], "{:.4f}"),
        spread([100 * outcome.train_accuracy for outcome in outcomes]),
        str(len(outcomes)) if len(outcomes) == len(seeds) else f"{len(outcomes)} of {len(seeds)}",
        "" if entry is first else _above(entry, first),
        entry.row.verdict,
    )
    return f"| {' | '.join(cells)} |"


def _above(entry: Entry, first: Entry) -> str:
    """Return the difference of mean accuracies in points, with Welch's 95 % interval where both have several seeds."""
    if not first.outcomes:
        return ""
    difference = f"{100 * (entry.accuracy - first.accuracy):+.2f}"
    if min(len(entry.outcomes), len(first.outcomes)) < 2:
        return difference
    judged = welch(*([outcome.accuracy for outcome in one.outcomes] for one in (first, entry)))
    return f"{difference} ({100 * judged.low:+.2f} to {100 * judged.high:+.2f})"


def front(rows: Iterable[Entry], cost: str) -> list[Entry]:
    """Return the rows than which none is as cheap and more accurate, or as accurate and cheaper; cheapest first."""
    found: list[Entry] = []
    for entry in sorted(rows, key=lambda entry: (entry.cost(cost), -entry.accuracy)):
        if not found or entry.accuracy > found[-1].accuracy:
            found.append(entry)
    return found


def best_to_text(plan: Plan, ledger: Ledger) -> str:
    """Return the rows that are on a front, the most accurate first, and the command of the best."""
    rows = [entry for entry in entries(plan, ledger) if entry.outcomes]
    if not rows:
        return "no trial is finished yet"
    fronts = {cost: front(rows, cost) for cost in COSTS}
    members = [entry for entry in rows if any(entry in found for found in fronts.values())]
    members.sort(key=lambda entry: -entry.accuracy)
    table: list[tuple[str, ...]] = [("row", "accuracy, %", "parameters", "MACs", "seconds", "on the front against")]
    for entry in members:
        costs = [f"{entry.cost(cost):,.0f}" for cost in COSTS]
        against = ", ".join(cost for cost in COSTS if entry in fronts[cost]).replace("macs", "MACs")
        accuracy = spread([100 * outcome.accuracy for outcome in entry.outcomes])
        table.append((entry.row.name, accuracy, *costs, against))
    return f"{text_table(table, left=(0, 5))}\n\nbest: {members[0].command}"


def to_csv(outcomes: Iterable[Outcome]) -> str:
    """Return the ledger as CSV, a line for each run; what is unknown is empty."""
    names = [field.name for field in fields(Outcome) if field.name != "history"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(asdict(outcome) for outcome in outcomes)
    return text.getvalue()
