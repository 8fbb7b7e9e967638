"""``python -m ablation``: train the rows that the ledger lacks, or print the table."""

import argparse
import signal
import sys

from ablation.race import train_missing
from ablation.rows import choose, read_rows
from ablation.table import as_markdown
from sepnet.errors import SepnetError


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m ablation", description=__doc__)
    parser.add_argument("what", choices=("run", "table", "commands"), help="what to do with the rows")
    parser.add_argument("rows", nargs="*", help="names of rows or groups; all unless given")
    parser.add_argument("--jobs", type=int, default=2, help="rows trained at a time (default: 2)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        rows = choose(read_rows(), options.rows)
        if options.what == "run":
            train_missing(rows, jobs=max(1, options.jobs))
        elif options.what == "table":
            print(as_markdown(rows))
        else:
            print("\n".join(row.command(seed) for row in rows for seed in row.seeds))
    except SepnetError as error:
        print(f"ablation: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
