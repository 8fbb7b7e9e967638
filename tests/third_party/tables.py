"""The rows as Markdown, alone or beside those of an earlier version."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .acceleration import ERRORS

Row = dict[str, Any]
PREFIX = "the network is computed by PyTorch alone, not by sepnet's kernels: "
LONGEST = 120


def to_markdown(rows: Sequence[Row], before: Sequence[Row] = ()) -> str:
    """Return a table with one line a network; with ``before`` each field tells both, if they differ."""
    earlier = {row["network"]: row for row in before}
    errors = "error of outputs, gradients in training, in evaluation (PyTorch's)"
    head = f"| network | image | kernels | {errors} | anatomy | fields checked | Keras |"
    lines = [head, "|---" * 7 + "|"]
    for row in rows:
        old = earlier.get(row["network"])
        fields = [
            _field(cell(row), cell(old) if old else None) for cell in (_kernels, _errors, _anatomy, _checked, _keras)
        ]
        image = "×".join(map(str, row.get("input", ())))
        lines.append(" | ".join(["| " + row["network"], image, *fields]) + " |")
    return "\n".join(
        [*lines, "", *_totals(rows, "now" if before else ""), *(_totals(before, "before") if before else ())]
    )


def _field(now: str, before: str | None) -> str:
    return now if before is None or before == now else f"{before} → {now}"


def _kernels(row: Row) -> str:
    found = row.get("acceleration", {})
    counts = [f"{found[kind][0]} of {found[kind][1]} {kind}" for kind in ("layers", "elementwise") if kind in found]
    return f"{found.get('verdict', '')}{', '.join(['', *counts]) if counts else ''}{_reason(found)}"


def _errors(row: Row) -> str:
    found = row.get("acceleration", {})
    pairs = [found[name] for name in ERRORS if name in found]
    return ", ".join(f"{ours:.0e} ({theirs:.0e})" for ours, theirs in pairs)


def _anatomy(row: Row) -> str:
    found = row.get("anatomy", {})
    return f"{found.get('verdict', '')}{_reason(found)}"


def _checked(row: Row) -> str:
    found = row.get("anatomy", {})
    return f"{found['exact']} exact, {found['checked'] - found['exact']} within" if "checked" in found else ""


def _keras(row: Row) -> str:
    found = row.get("keras", {})
    return f"{found.get('verdict', '')}{_reason(found)}"


def _reason(found: Row) -> str:
    told = str(found.get("reason", "")).replace("|", "\\|").removeprefix(PREFIX)
    return f": {told if len(told) <= LONGEST else told[:LONGEST].rstrip() + ' …'}" if told else ""


def _totals(rows: Sequence[Row], label: str) -> list[str]:
    lines = []
    for check in ("acceleration", "anatomy", "keras"):
        counts = Counter(row[check]["verdict"] for row in rows if check in row)
        if not counts:
            continue
        told = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        lines.append(f"- {f'{check}, {label}' if label else check}: {told}")
    return lines


CELLS = (_kernels, _errors, _anatomy, _checked, _keras)
