"""The runs that a report's notebook is of, found from where the notebook lies."""

from collections.abc import Mapping
from pathlib import Path

from sepnet.errors import SepnetError
from sepnet.runs.run import CONFIG, Run


class RecordedRuns:
    """The runs of a notebook by name: each where it was, seen from the working folder, or in the working folder.

    Args:
        runs: the folder, the last accuracy as a share of 1, and the training seconds of each run.
        train: whether a run may be missing, since the notebook will train it.

    Raises:
        SepnetError: runs are missing, or are others.

    """

    def __init__(self, runs: Mapping[str, tuple[str, float, float]], *, train: bool) -> None:
        self._runs = runs
        missing = [name for name in runs if self._find(name) is None]
        if missing and not train:
            raise SepnetError(self._missing(missing))

    def open(self, name: str) -> Run | None:
        """Return the run, and print that it is reused; None where it has to be trained."""
        run = self._find(name)
        if run is not None:
            print(f"reusing the finished run {run.path}")
        return run

    def require(self, name: str) -> Run:
        """Return a run that cannot be trained again from names alone.

        Raises:
            SepnetError: it is missing.

        """
        run = self.open(name)
        if run is None:
            raise SepnetError(f"the run '{self._runs[name][0]}' is missing, and its network cannot be built by name")
        return run

    def _find(self, name: str) -> Run | None:
        folder, accuracy, _ = self._runs[name]
        if (Path(folder) / CONFIG).is_file():
            run = Run.open(folder)
            run.require_finished()
            found = run.result["final_accuracy"]
            if found != accuracy:
                raise SepnetError(
                    f"run '{folder}' has a last accuracy of {100 * found:.2f} %, and this notebook is of one with "
                    f"{100 * accuracy:.2f} %: move that one there"
                )
            return run
        trained = Path(name)
        if (trained / CONFIG).is_file() and Run.open(trained).finished:
            return Run.open(trained)
        return None

    def _missing(self, names: list[str]) -> str:
        folders = " and ".join(f"'{self._runs[name][0]}'" for name in names)
        minutes = max(1, round(sum(self._runs[name][2] for name in names) / 60))
        return (
            f"missing beside this notebook: {folders}; copy what is missing there, or set TRAIN = True to train it "
            f"into this folder, which takes about {minutes} minute{'s' if minutes > 1 else ''}"
        )
