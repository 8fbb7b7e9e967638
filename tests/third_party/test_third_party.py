"""A few of the networks of results/third-party: no verdict is worse than the recorded one."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.backend.support import needs_kernels

from .networks import networks
from .rows import CHECKS, check_all
from .tables import to_markdown

RECORDED = Path(__file__).parents[2] / "results" / "third-party"
SUBSET = ("TutorialLeNet", "MobileNetV2", "ConvNeXt", "DenseNetOfLists", "Subclass")
"""Written down, small, each with another idiom; all the others are a command's: ``python -m tests.third_party``."""
FROM_WORST = {
    "acceleration": ("wrong", "not", "part", "whole"),
    "anatomy": ("wrong", "refused", "read"),
    "keras": ("wrong", "refused", "equal"),
}


def recorded(name: str) -> dict[str, Any]:
    return {row["network"]: row for row in json.loads((RECORDED / name).read_text(encoding="utf-8"))}


@pytest.mark.slow
@needs_kernels
def test_no_network_is_worse_than_recorded() -> None:
    rows = list(check_all(SUBSET, workers=2, limit=120))
    assert [row["network"] for row in rows] == list(SUBSET)
    for row in rows:
        before = recorded("rows.json")[row["network"]]
        for check in CHECKS:
            rank, least = (FROM_WORST[check].index(of[check]["verdict"]) for of in (row, before))
            assert rank >= least, (row["network"], check, row[check])
        assert row["anatomy"]["checked"] >= 10


def test_recorded_table_has_every_network() -> None:
    rows, before = recorded("rows.json"), recorded("before.json")
    assert list(rows) == list(before) == list(networks())
    text = (RECORDED / "README.md").read_text(encoding="utf-8")
    assert to_markdown(list(rows.values()), list(before.values())) in text


@pytest.mark.parametrize("check", CHECKS)
def test_nothing_that_was_right_became_wrong(check: str) -> None:
    rows, before = recorded("rows.json"), recorded("before.json")
    wrong = {name for name, row in rows.items() if row[check]["verdict"] not in FROM_WORST[check][1:]}
    assert wrong <= {name for name, row in before.items() if row[check]["verdict"] == "wrong"}
