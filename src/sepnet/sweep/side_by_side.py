"""The trainings of a comparison, side by side on a sweep's engine."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sepnet.runs import Run
from sepnet.sweep.engine import run_trials
from sepnet.sweep.plan import Trial
from sepnet.sweep.shares import processes
from sepnet.sweep.sweep import Trials
from sepnet.sweep.view import View
from sepnet.training.experiment import Job, find_or_create


def train(jobs: Sequence[Job], out: Path, count: int | None) -> None:
    """Bring the runs of jobs under ``out`` to their ends, as many at a time as there are workers.

    Args:
        jobs: of networks and datasets that another process can build and read again: by name or path.
        out: the folder of runs; those of the same configuration are gone on with.
        count: of workers, as :func:`~sepnet.sweep.shares.worker_count` has it.

    Raises:
        SepnetError: a run cannot be trained; the others are saved.
        Interrupted: SIGINT or SIGTERM came; what was running is saved.

    """
    runs = {run.path: (job, run) for job in jobs for run in [find_or_create(job, out)]}  # two jobs may be of one run
    missing = [(_trial(job, run), len(run.history)) for job, run in runs.values() if not run.finished]
    if not missing:
        return
    trials = Trials([trial for trial, _ in missing])
    trials.wait(missing)
    dataset = jobs[0].dataset
    sizes = dataset.image_shape, len(dataset.classes), len(dataset.train)
    found = processes(count, missing[0][0], len(missing), out, lambda: sizes)
    with closing(found), View(trials.status) as view:
        trials.say = view.say
        run_trials(trials, found, out, origin=lambda _: {}, sources={}, watch=view.watch, again="sepnet compare")


def _trial(job: Job, run: Run) -> Trial:
    assert isinstance(job.network, str)
    config = job.config
    return Trial(
        row="",
        seed=config.seed,
        network=job.network,
        recipe=config.recipe,
        settings={},
        data="",
        device=config.device,
        precision=config.precision,
        validation=config.validation,
        loggers=job.loggers,
        folder=run.path.name,
    )
