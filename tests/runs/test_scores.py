"""The scores of exports that a run keeps: sealed with it, of each format the last, none of weights that have gone."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sepnet.errors import SepnetError
from sepnet.report import readme
from sepnet.report.contents import gather
from sepnet.rules import load_rules
from sepnet.runs import Run, scores
from sepnet.runs.scores import Score
from tests.report.support import finished_run

C = Score(format="c", images=8, accuracy=0.625, agreement=1, bytes=1234, arena_bytes=567, seconds=0.0015)
ONNX = Score(format="onnx", images=8, accuracy=0.5, agreement=0.875, bytes=4321)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A finished run."""
    return finished_run(tmp_path, "tiny", 5, history=[0.5])


def test_of_each_format_the_last_score_is_kept_and_sealed(run: Run) -> None:
    assert run.scores == []
    run.keep_scores([C])
    run.keep_scores([ONNX, replace(C, accuracy=0.75)])
    opened = Run.open(run.path)
    assert opened.scores == [replace(C, accuracy=0.75), ONNX]
    file = run.path / "scores.json"
    file.write_text(file.read_text().replace("0.75", "1.0"))
    with pytest.raises(SepnetError, match=r"scores\.json' has changed since the run was finished"):
        Run.open(run.path)
    file.unlink()
    assert Run.open(run.path).scores == []


def test_scores_of_weights_that_were_trained_on_are_dropped(run: Run) -> None:
    run.keep_scores([C])
    (run.path / "manifest.json").unlink()
    assert run.scores == []
    with pytest.raises(SepnetError, match="is not finished"):
        run.keep_scores([C])
    run.write_outcome(run.weights(), *run.logits())
    assert Run.open(run.path).scores == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected a JSON object"),
        ("{}", "holds no list of scores: delete it"),
        ('{"scores": [{"format": "c"}]}', "has no 'images'"),
        (scores.to_json([C]).replace("0.625", "62.5"), "accuracy is 62.5: expected a share from 0 to 1"),
    ],
)
def test_what_is_no_table_of_scores_is_named(text: str, message: str) -> None:
    with pytest.raises(SepnetError, match=message):
        scores.from_json(text, source="scores.json")


def test_they_are_read_as_they_were_written_and_shown_aligned() -> None:
    assert scores.from_json(scores.to_json([C, ONNX]), source="") == [C, ONNX]
    head, *rows = scores.to_text([C, ONNX]).splitlines()
    assert {len(row) for row in rows} == {len(head)}
    assert rows[0].split() == ["c", "8", "62.50", "100.00", "1,234", "567", "1.50"]
    assert rows[1].split()[-2:] == ["–", "–"]
    assert asdict(C)["seconds"] == 0.0015


def test_a_report_shows_them_in_a_table(run: Run) -> None:
    def text() -> str:
        return readme.to_readme(gather([run], load_rules("assignment"), None), {}, folder=Path("report"))

    assert "## Exports" not in text()
    run.keep_scores([C, ONNX])
    shown = text().partition("## Exports")[2].partition("## How it was made")[0]
    assert "| c | 8 | 62.50 | 100.00 | 1,234 | 567 | 1.50 |" in shown
    assert len({line.count("|") for line in shown.splitlines() if line.startswith("|")}) == 1
