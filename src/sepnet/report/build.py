"""From runs to a report's folder."""

from collections.abc import Sequence
from pathlib import Path

from sepnet import data as datasets
from sepnet.data import Dataset
from sepnet.errors import SepnetError
from sepnet.notices import notice
from sepnet.report.contents import Contents, gather
from sepnet.report.folder import write
from sepnet.rules import Rules
from sepnet.runs import Run

REPORT = "report"


def make(
    runs: Sequence[Run], rules: Rules, *, dataset: Dataset | None = None, out: Path | None = None, trust: bool = False
) -> Path:
    """Write the report of finished runs, and return its folder.

    Args:
        runs: of one network or of several, one or more seeds each; the first one's network is what the others
            are measured by.
        rules: what every network is judged by.
        dataset: the runs' dataset; loaded by its name when absent.
        out: the report's folder. When absent, it is ``report`` in the folder of the only run, or in
            ``RUN-against-RUN`` beside the last run.
        trust: see :func:`sepnet.training.trained_network.rebuild`.

    Raises:
        SepnetError: as for :func:`sepnet.report.contents.gather` and :func:`sepnet.report.folder.write`.

    """
    if not runs:
        raise SepnetError("no run was given: expected at least one")
    for run in runs:
        run.require_finished()
        run.logits()  # raises if they are missing: before anything is written
    contents = gather(runs, rules, _scored_images(runs[0], dataset), trust=trust)
    folder = out or _default_folder(contents)
    notice(f"writing the report into {folder}")
    return write(contents, folder)


def _scored_images(run: Run, dataset: Dataset | None) -> Dataset | None:
    """Return the dataset as the run was scored on it, or None, with a notice, where it cannot be had."""
    without = "the report has no pictures of images"
    try:
        dataset = datasets.reload(run.config.data, run.config.pictures) if dataset is None else dataset
        dataset = dataset.holdout() if run.config.validation == "holdout" else dataset
    except SepnetError as error:
        notice(f"{without}: {error}")
        return None
    if dataset.fingerprint() != run.config.data_sha256:
        notice(f"{without}: '{run.config.data}' is no longer what run '{run.path}' was trained on")
        return None
    return dataset


def _default_folder(contents: Contents) -> Path:
    first, *others = contents.contenders
    if not others:
        return first.runs[0].path / REPORT
    against, *names = (one.runs[0].path.name for one in contents.contenders)
    return others[-1].runs[-1].path.parent / f"{'-and-'.join(names)}-against-{against}" / REPORT
