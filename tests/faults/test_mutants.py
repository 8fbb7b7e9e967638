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


@pytest.mark.slow
def test_damaged_model_files_and_pictures_are_refused_in_a_line(tmp_path: Path) -> None:
    pytest.importorskip("tflite", reason="sepnet[tflite] is not installed")
    pytest.importorskip("ai_edge_litert", reason="sepnet[tflite] is not installed")
    pytest.importorskip("onnx", reason="sepnet[onnx] is not installed")
    doors = pytest.importorskip("tests.faults.door_mutants", reason="sepnet[keras] is not installed")
    found = [*doors.model_mutants(tmp_path, 36, seed=5), *doors.picture_mutants(tmp_path, 42, seed=5)]
    assert [mutant.judgement for mutant in found].count("refused") > 36
    assert not [mutant for mutant in found if mutant.judgement in FAILURES]
