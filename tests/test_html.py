"""What a notebook shows of results: the figures of their plain values, in HTML that no name can break."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import sepnet
from sepnet import html
from tests.cli_support import train_small


class Cells(HTMLParser):
    """The rows of all tables as texts; fails on a tag that is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        assert tag in ("polyline", "path")

    def handle_data(self, data: str) -> None:
        self.text += data
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sepnet.Run:
    return sepnet.Run.open(train_small(tmp_path_factory.mktemp("run")))


def test_an_anatomy_shows_each_layer_s_figures() -> None:
    anatomy = sepnet.summary("champion")
    shown = Cells(anatomy._repr_html_())
    assert len(shown.rows) == 1 + len(anatomy.layers)
    for row, layer in zip(shown.rows[1:], anatomy.layers, strict=True):
        assert row[:2] == [layer.name, layer.kind]
        assert f"{layer.macs:,}" in row
        assert f"{layer.trainable:,}" in row
    assert "99,426" in shown.text


def test_rules_show_what_is_kept_and_what_is_broken() -> None:
    report = sepnet.check("base")
    shown = Cells(report._repr_html_())
    for result in report.results:
        assert ["pass" if result.kept else "FAIL", result.rule, result.measured] in shown.rows
        assert all(["", f"– {broken.layer}", broken.reason] in shown.rows for broken in result.violations)


@pytest.mark.slow
def test_a_run_shows_its_figures_and_its_curve(run: sepnet.Run) -> None:
    text = run._repr_html_()
    shown = dict(Cells(text).rows)
    assert shown["network"] == run.config.network
    assert shown["accuracy, test images"].startswith(f"{100 * run.result['final_accuracy']:.2f} %")
    assert text.count("<polyline") == 2


def test_a_comparison_and_its_verdict_show_both_judgements(run: sepnet.Run, tmp_path: Path) -> None:
    comparison = sepnet.compare(run, run, out=tmp_path)
    judged = comparison.verdict
    for shown in (comparison._repr_html_(), judged._repr_html_()):
        text = Cells(shown).text
        names = [run.config.network] * 2 if shown.count("<svg") else ["base", "challenger"]
        assert judged.by_assignment.sentence(*names) in text
        assert judged.by_statistics.sentence(*names) in text


def test_columns_are_those_of_the_history_s_file(run: sepnet.Run) -> None:
    with (run.path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {name: [float(row[name]) for row in rows] for name in rows[0]} == run.columns


def test_a_name_cannot_break_the_page() -> None:
    name = "<script>alert('&')</script>\""
    shown = Cells(html.table(("", name), [(name, name)], caption=name) + html.lines([name]))
    assert shown.rows == [["", name], [name, name]]
    assert "<script" not in html.curves({name: [1.0, 2.0]}, title=name)


def test_a_curve_is_drawn_to_scale_in_the_colour_of_the_text() -> None:
    text = html.curves({"one": [10.0, 30.0, 20.0], "two": [20.0], "none": []}, title="figures")
    drawn = ElementTree.fromstring(text)
    one, two = (
        [tuple(map(float, p.split(","))) for p in line.attrib["points"].split()] for line in drawn.iter("polyline")
    )
    assert [x for x, _ in one] == sorted({x for x, _ in one})
    low, high, middle = (y for _, y in one)
    assert middle == pytest.approx((low + high) / 2, abs=0.1)
    assert high < low  # pixels count from the top
    assert two[0] == (one[0][0], middle)
    assert not re.search(r"#[0-9a-f]{3}|rgb", text)
    assert html.curves({}, title="figures") == ""


def test_progress_in_a_notebook_is_a_bar_that_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython import display

    from sepnet.training import progress

    updates: list[str] = []

    class Handle:
        def update(self, shown: display.HTML) -> None:
            updates.append(shown.data)

    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(display, "display", lambda shown, display_id: Handle())
    with progress.TrainingProgress(epochs=3) as shown:
        shown.step(epoch=1, step=4, steps=16, loss=1.5, accuracy=0.25, rate=900, seconds_left=61)
    bar, after = updates
    assert 'value="4" max="16"' in bar
    assert "2/3 4/16 loss 1.500 accuracy 0.250 900 images/s 1:01 left" in bar
    assert after == ""
