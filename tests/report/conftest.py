"""Fixtures for the tests of reports."""

import pytest
from matplotlib.figure import Figure

from sepnet.files import write_atomically


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no picture of a report: its files hold a few bytes."""
    monkeypatch.setattr(Figure, "draw_without_rendering", lambda figure: None)
    monkeypatch.setattr("sepnet.report.folder.save", lambda figure, path: write_atomically(path, b"a picture"))
