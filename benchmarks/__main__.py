"""``python -m benchmarks``."""

from benchmarks.record import finish
from benchmarks.training import main

if __name__ == "__main__":
    finish(main)
