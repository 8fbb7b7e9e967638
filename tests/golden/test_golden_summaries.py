"""Summaries as they should look. To rewrite the tables: ``SEPNET_REWRITE_GOLDEN=1 pytest tests/golden``."""

import os
from pathlib import Path

import pytest

from sepnet.anatomy import to_json, to_markdown, to_text, trace
from sepnet.networks import NETWORKS, build

FOLDER = Path(__file__).parent / "summary"


def assert_golden(name: str, text: str) -> None:
    path = FOLDER / name
    if os.environ.get("SEPNET_REWRITE_GOLDEN"):
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("network", NETWORKS)
def test_text(network: str) -> None:
    assert_golden(f"{network}.txt", to_text(trace(build(network), name=network), 100))


def test_text_in_a_narrow_terminal() -> None:
    assert_golden("published_60.txt", to_text(trace(build("published"), name="published"), 60))


def test_markdown() -> None:
    assert_golden("published.md", to_markdown(trace(build("published"), name="published")))


def test_json() -> None:
    assert_golden("published.json", to_json(trace(build("published"), name="published")))
