"""Print the table of third-party networks for the sepnet that is imported: ``python -m tests.third_party``."""

import argparse
import json
import os
import sys
from pathlib import Path

from .networks import INSTALL, ZOO, networks, zoo_is_installed
from .rows import CHECKS, Row, check_all
from .tables import to_markdown


def main() -> int:
    """Check the networks named, or all, print the table, and write the rows as JSON if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.third_party", description=__doc__)
    parser.add_argument("names", nargs="*", help="networks; all, if none is named")
    parser.add_argument("--json", type=Path, help="write the rows here as well; rows of other networks and checks stay")
    parser.add_argument("--before", type=Path, help="rows of an earlier version, to be shown beside")
    parser.add_argument("--show", action="store_true", help="print the rows in the JSON file again, checking nothing")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--limit", type=float, default=240, help="seconds for one network")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=CHECKS)
    asked = parser.parse_args()
    catalogue = networks()
    names = asked.names or list(catalogue)
    unknown = [name for name in names if name not in catalogue]
    if unknown:
        parser.error(f"no network is called '{unknown[0]}': choose from {', '.join(catalogue)}")
    if not zoo_is_installed() and any(catalogue[name].source == ZOO for name in names):
        parser.error(f"the networks of {ZOO} are not installed: {INSTALL}, or name networks that are written down")
    rows = read_rows(asked.json)
    if not asked.show:
        os.nice(10)
        for row in check_all(names, workers=asked.workers, limit=asked.limit, checks=asked.checks):
            rows[row["network"]] = {**rows.get(row["network"], {}), **row}
            verdicts = (f"{check}: {row[check]['verdict']}" for check in asked.checks)
            print(row["network"], *verdicts, sep="  ", file=sys.stderr, flush=True)
            if asked.json:
                lines = ",\n".join(json.dumps(rows[name]) for name in catalogue if name in rows)
                asked.json.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    shown = [rows[name] for name in catalogue if name in rows]
    print(to_markdown(shown, list(read_rows(asked.before).values())))
    return 0


def read_rows(file: Path | None) -> dict[str, Row]:
    """Return a file's rows by network; none, if there is no file."""
    if file is None or not file.exists():
        return {}
    return {row["network"]: row for row in json.loads(file.read_text(encoding="utf-8"))}


if __name__ == "__main__":
    sys.exit(main())
