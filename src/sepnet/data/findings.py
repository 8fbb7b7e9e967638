"""What is found in a dataset, in words and as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sepnet.notices import printable

SHOWN = 3
"""Cases of a finding in text; JSON has all."""
FILES = 8
"""Files of a case in text,"""
DETAIL = 200
"""and characters of what there is to say of them."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One instance of a finding: the files it is of, what they are, and what there is to say."""

    files: tuple[str, ...]
    detail: str = ""
    images: tuple[int, ...] = ()
    """The files' numbers among the images that could be read."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that a person should look at, the worst case first."""

    kind: str
    """A name of letters and hyphens."""
    problem: bool
    """Whether results would be wrong, and not only less good."""
    summary: str
    cases: tuple[Case, ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class DataReport:
    """A dataset's counts and sizes, and what was found."""

    data: str
    counts: Mapping[str, Mapping[str, int]]
    """Images by split and class."""
    properties: Mapping[str, str]
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing was found that makes results wrong."""
        return not any(finding.problem for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        findings = [asdict(finding) for finding in self.findings]
        for finding in findings:
            for case in finding["cases"]:
                del case["images"]
        return {
            "data": self.data,
            "sound": self.sound,
            "counts": {split: dict(counts) for split, counts in self.counts.items()},
            "properties": dict(self.properties),
            "findings": findings,
        }

    def __repr__(self) -> str:
        return to_text(self)


def to_text(report: DataReport) -> str:
    """Return the report for a person."""
    splits = list(report.counts)
    names = list(dict.fromkeys(name for counts in report.counts.values() for name in counts))
    width = min(30, max(5, *map(len, names)))
    lines = [f"{name:<{width}}  {value}" for name, value in report.properties.items()]
    lines += ["", f"{'class':<{width}}" + "".join(f"  {split:>9}" for split in splits)]
    for name in names:
        shown = printable(name) if len(name) <= width else printable(name)[: width - 1] + "…"
        lines.append(f"{shown:<{width}}" + "".join(f"  {report.counts[split].get(name, 0):>9,}" for split in splits))
    for finding in report.findings:
        lines += ["", f"{'PROBLEM' if finding.problem else 'note'}: {finding.summary}"]
        for case in finding.cases[:SHOWN]:
            lines.append(
                f"  {printable(_listed(case.files))}" + (f": {_shortened(case.detail)}" if case.detail else "")
            )
        if len(finding.cases) > SHOWN:
            lines.append(f"  and {len(finding.cases) - SHOWN:,} more (all: --format json)")
    if not report.findings:
        lines += ["", "nothing found"]
    return "\n".join(lines)


def _listed(files: Sequence[str]) -> str:
    more = f" and {len(files) - FILES:,} more" if len(files) > FILES else ""
    return ", ".join(files[:FILES]) + more


def _shortened(detail: str) -> str:
    return printable(detail if len(detail) <= DETAIL else f"{detail[: DETAIL - 1]}…")
