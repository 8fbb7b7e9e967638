"""The map of the rooms: every room of the tree is on it, and none imports from a room below it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import sepnet

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "sepnet"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
_, TABLE = PAGE.split("| room in `src/sepnet` | what is in it |\n| --- | --- |\n")
ROWS = [re.findall(r"`([\w/]+)`", line.split("|")[1]) for line in TABLE.split("\n\n")[0].splitlines()]
ROOMS = [room for row in ROWS for room in row]
LINKED = re.findall(r"`((?:\w+/)+\w+\.py)`", PAGE)


def _room(module: Path | str) -> str:
    """Return the room of a file below ``src/sepnet``, or of a module's name without ``sepnet.``."""
    parts = module.with_suffix("").parts if isinstance(module, Path) else module.split(".")
    return "/".join(parts[:2]) if "/".join(parts[:2]) in ROOMS else parts[0]


def _imports(file: Path) -> Iterator[str]:
    """Yield the modules of sepnet that a file imports, without ``sepnet.``; those for type checkers included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name.removeprefix("sepnet.") for name in names if name.startswith("sepnet."))


def test_the_map_names_every_room_and_no_other() -> None:
    there = {path.stem for path in SOURCES.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {room for room in ROOMS if "/" not in room} == there - {"__init__", "__main__"}
    assert all((SOURCES / room).is_dir() for room in ROOMS if "/" in room)
    assert len(set(ROOMS)) == len(ROOMS)


@pytest.mark.parametrize("row", range(len(ROWS)), ids=["-".join(row) for row in ROWS])
def test_a_room_imports_only_from_those_above_it(row: int) -> None:
    files = [file for file in SOURCES.rglob("*.py") if _room(file.relative_to(SOURCES)) in ROWS[row]]
    assert files
    above = {room for rooms in ROWS[: row + 1] for room in rooms}
    assert {
        f"{file.relative_to(SOURCES)}: {name}"
        for file in files
        for name in _imports(file)
        if _room(name) in ROOMS and _room(name) not in above
    } == set()


def test_every_file_that_the_map_points_to_is_there() -> None:
    assert LINKED
    for path in LINKED:
        places = (ROOT / path, SOURCES / path)
        assert any(place.is_file() for place in places), path


def test_no_room_takes_the_name_of_a_verb() -> None:
    """An imported room is an attribute of ``sepnet``, where it would hide the function."""
    assert not set(sepnet.__all__) & set(ROOMS)
