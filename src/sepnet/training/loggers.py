"""Loggers beside a run's own files: TensorBoard and MLflow, with the figures of ``history.csv`` under its names."""

import contextlib
import hashlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from sepnet.errors import SepnetError, first_line
from sepnet.notices import notice
from sepnet.runs import Run
from sepnet.runs.history import Epoch

STEP = "epoch"
"""The column that is every figure's step."""
EXPERIMENT = "sepnet"
RUN_TAG, PATH_TAG = "sepnet.run", "sepnet.path"


class Logger(Protocol):
    """Writes epochs somewhere; opened with those that are done, of which it writes what is missing there."""

    def write(self, epoch: Epoch) -> None:
        """Write one more epoch."""

    def close(self, *, finished: bool) -> None:
        """End the session."""


def require_loggers(names: Sequence[str]) -> None:
    """Raise unless each logger's package is installed, and MLflow's server answers: before a run is made.

    Raises:
        SepnetError: it is not, or does not.

    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise SepnetError(f"--{name} needs the package {name}: pip install 'sepnet[{name}]'")
    if "mlflow" in names:
        with _opening("mlflow"):
            _mlflow_client().get_experiment_by_name(EXPERIMENT)


@contextlib.contextmanager
def open_loggers(names: Sequence[str], run: Run) -> Iterator[Callable[[Epoch], None]]:
    """Open the loggers, which first write the epochs that a run has; yield what writes an epoch to all of them.

    One that fails later is left out from then on, with a notice: the training matters more.

    Raises:
        SepnetError: a logger cannot be opened.

    """
    loggers = {name: _open(name, run) for name in names}

    def write(epoch: Epoch) -> None:
        for name, logger in list(loggers.items()):
            try:
                logger.write(epoch)
            except Exception as error:
                del loggers[name]
                again = f"--reuse --{name} fills in what is missing"
                notice(f"{name} is not written to any more: {first_line(error)}; the same command with {again}")

    finished = False
    try:
        yield write
        finished = True
    finally:
        for logger in loggers.values():
            with contextlib.suppress(Exception):
                logger.close(finished=finished)


def _open(name: str, run: Run) -> Logger:
    with _opening(name):
        return LOGGERS[name](run)


@contextlib.contextmanager
def _opening(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise SepnetError(
            f"--{name} could not be opened: {first_line(error)}; correct it, or train without it"
        ) from error


def _mlflow_client() -> Any:
    # Else it tries a wrong address for many minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow import MlflowClient

    return MlflowClient()


def _figures(epoch: Epoch) -> dict[str, float]:
    return {name: value for name, value in asdict(epoch).items() if name != STEP}


class TensorBoard:
    """Event files in the run's folder, in double precision; written anew when a run goes on."""

    def __init__(self, run: Run) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for file in run.tensorboard_path.glob("events.out.tfevents.*"):
            file.unlink()
        self._writer: Any = SummaryWriter(str(run.tensorboard_path))
        for epoch in run.history:
            self.write(epoch)

    def write(self, epoch: Epoch) -> None:
        """Write one more epoch."""
        for name, value in _figures(epoch).items():
            self._writer.add_scalar(name, value, epoch.epoch, new_style=True, double_precision=True)
        self._writer.flush()

    def close(self, *, finished: bool) -> None:  # noqa: ARG002
        """Close the event file."""
        self._writer.close()


class MLflow:
    """A run in MLflow's experiment ``sepnet``, found again by its folder unless it has later epochs than that."""

    def __init__(self, run: Run) -> None:
        from mlflow.entities import Metric

        self._client, self._metric = _mlflow_client(), Metric
        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        place = experiment.experiment_id if experiment else self._client.create_experiment(EXPERIMENT)
        history = run.history
        self._run, done = self._find(place, run, len(history)) or (self._create(place, run), 0)
        for epoch in history[done:]:
            self.write(epoch)

    def _find(self, experiment: str, run: Run, epochs: int) -> tuple[str, int] | None:
        """Return the run's id in MLflow and how many epochs are there, None where there is no such run."""
        for found in self._client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{_identity(run)}'"):
            steps = [one.step for one in self._client.get_metric_history(found.info.run_id, "val_accuracy")]
            if max(steps, default=0) <= epochs:
                self._client.update_run(found.info.run_id, status="RUNNING")
                return found.info.run_id, max(steps, default=0)
        return None

    def _create(self, experiment: str, run: Run) -> str:
        tags = {RUN_TAG: _identity(run), PATH_TAG: str(run.path)}
        made = self._client.create_run(experiment, tags=tags, run_name=run.path.name).info.run_id
        config = run.config
        names = ("network", "data", "validation", "seed", "device", "precision")
        parameters = {**{name: getattr(config, name) for name in names}, **config.recipe.to_dict()}
        parameters["recipe"] = parameters.pop("name")
        for name, value in parameters.items():
            self._client.log_param(made, name, value)
        return str(made)

    def write(self, epoch: Epoch) -> None:
        """Write one more epoch."""
        now = int(1000 * time.time())
        metrics = [self._metric(name, value, now, epoch.epoch) for name, value in _figures(epoch).items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, *, finished: bool) -> None:
        """Say how the session ended."""
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")


def _identity(run: Run) -> str:
    return hashlib.sha256(str(run.path.resolve()).encode()).hexdigest()


LOGGERS: dict[str, Callable[[Run], Logger]] = {"tensorboard": TensorBoard, "mlflow": MLflow}
