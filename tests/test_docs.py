"""The pages hold together: tables are current, commands are ones that sepnet has, code runs, the site builds."""

import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from docs import figures, tables
from sepnet.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [*tables.PAGES, ROOT / "CONTRIBUTING.md"]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_tables_are_current(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == tables.current(page), "write them anew: python -m docs.tables"


@pytest.mark.slow
def test_pictures_are_current(tmp_path: Path) -> None:
    for made in figures.pictures(tmp_path):
        kept = ROOT / "docs/pictures" / made.name
        assert made.read_bytes() == kept.read_bytes(), "draw them anew: python -m docs.figures"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_understood(page: Path) -> None:
    command = get_command(app)
    for line in "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True) or [""]
        if program != "./run" or not arguments or arguments == ["--help"]:
            continue
        group, names = command, []
        while hasattr(group, "commands") and arguments:
            names.append(arguments.pop(0))
            group = group.commands[names[-1]]
        group.make_context(" ".join(names), arguments)  # raises if an option or value is not one


@pytest.mark.slow
def test_the_readme_s_python_runs(tmp_path: Path) -> None:
    verbs, network = blocks(ROOT / "README.md", "python")
    (tmp_path / "mine.py").write_text(network)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "photo.jpg")
    code = verbs.replace('"champion"', '"mine.py:mine"').replace("epochs=2", "epochs=1").replace('"base"', "run")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "runs/mine-sample/mine.c").is_file()


class Resources(HTMLParser):
    """Collects what a page loads: scripts, styles and pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        loaded = values.get("src") or (values.get("href") if tag == "link" else None)
        self.found += [loaded] if loaded else []


@pytest.mark.slow
def test_the_site_builds_without_a_broken_link_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)  # strict: a broken link fails it
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        resources = Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        assert resources.found
        assert not [name for name in resources.found if "//" in name]
