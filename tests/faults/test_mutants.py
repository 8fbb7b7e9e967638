"""A few damaged run folders in every test run; ``python -m tests.faults.mutants`` makes a thousand."""

import os
from pathlib import Path

import pytest

from tests.faults.mutants import FAILURES, mutants
from tests.faults.scene import build

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="pipes, links and alarms are POSIX's"),
    pytest.mark.usefixtures("pytorch_alone"),
]


@pytest.mark.slow
def test_a_damaged_run_is_refused_in_a_line_or_makes_no_difference(tmp_path: Path) -> None:
    build(tmp_path)
    commands = ["evaluate", "predict", "extend", "compare", "resume"]  # report and export take longer
    found = list(mutants(tmp_path, 52, seed=5, commands=commands))
    assert len({mutant.kind for mutant in found}) == 13
    assert not [mutant for mutant in found if mutant.judgement in FAILURES]
