"""The table of a Hugging Face ``imagefolder``: ``metadata.csv`` or ``metadata.jsonl`` beside the pictures."""

import csv
import io
import json
from pathlib import Path, PurePosixPath
from typing import Any

from sepnet.errors import SepnetError
from sepnet.files import read_text
from sepnet.notices import printable
from sepnet.settings import shown

NAMES = ("metadata.csv", "metadata.jsonl")
FILE = "file_name"
LABELS = ("label", "labels", "class", "category")
"""The column of the class, the first of these that is there."""


def find_table(folder: Path) -> Path | None:
    """Return a folder's table, or None.

    Raises:
        SepnetError: it has two, or one in a format that is not read.

    """
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise SepnetError(f"'{folder}' has both {' and '.join(NAMES)}: expected one")
    if not found and (folder / "metadata.parquet").is_file():
        raise SepnetError(f"'{folder / 'metadata.parquet'}' is not read: expected {' or '.join(NAMES)}")
    return found[0] if found else None


def read_table(table: Path) -> list[tuple[str, str]]:
    """Return the file, relative to the table's folder, and the class of each row.

    Raises:
        SepnetError: it cannot be read, a column is missing, a file lies outside the folder or is listed twice.

    """
    text = read_text(table, follow_links=False)
    records = _csv_records(text, table) if table.suffix == ".csv" else _json_records(text, table)
    if not records:
        raise SepnetError(f"'{table}' has no rows: expected one for each picture")
    columns = records[0][1]
    if FILE not in columns:
        raise SepnetError(f"'{table}' has no column '{FILE}': it has {', '.join(map(shown, columns))}")
    label = next((name for name in LABELS if name in columns), None)
    if label is None:
        raise SepnetError(f"'{table}' has no column '{LABELS[0]}': it has {', '.join(map(shown, columns))}")
    rows, seen = [], set()
    for line, record in records:
        name = _file_name(record.get(FILE), f"'{table}', line {line}")
        if name in seen:
            raise SepnetError(f"'{table}', line {line}: '{printable(name)}' is listed twice")
        seen.add(name)
        rows.append((name, _class_name(record.get(label), f"'{table}', line {line}: {label}")))
    return rows


def _csv_records(text: str, table: Path) -> list[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        return [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise SepnetError(f"'{table}', line {reader.line_num}: {error}") from error


def _json_records(text: str, table: Path) -> list[tuple[int, dict[str, Any]]]:
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SepnetError(f"'{table}', line {number} is not JSON ({error})") from error
        if not isinstance(record, dict):
            raise SepnetError(f"'{table}', line {number} is {shown(record)}: expected a JSON object")
        records.append((number, record))
    return records


def _file_name(value: Any, place: str) -> str:
    path = PurePosixPath(value) if isinstance(value, str) else None
    if path is None or not path.parts or path.is_absolute() or ".." in path.parts or printable(str(path)) != str(path):
        raise SepnetError(f"{place}: {FILE} is {shown(value)}: expected a file in or below the table's folder")
    return str(path)


def _class_name(value: Any, place: str) -> str:
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise SepnetError(f"{place} is {shown(value)}: expected the name or number of a class")
    name = str(value).strip()
    if printable(name) != name:
        raise SepnetError(f"{place} is {shown(value)}: expected printable characters")
    return name
