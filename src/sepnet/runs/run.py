"""The run directory, and the only code that knows its file names."""

import contextlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sepnet import environment
from sepnet.anatomy import Anatomy
from sepnet.anatomy import file as anatomy_file
from sepnet.errors import SepnetError
from sepnet.files import exclusively, exists, read_file, read_text, remove_file, write_atomically
from sepnet.folders import create_folder, numbered
from sepnet.notices import notice, notice_once
from sepnet.runs import checkpoint, scores
from sepnet.runs.config import RunConfig
from sepnet.runs.figures import derive_figures, require_figures, require_logits
from sepnet.runs.history import Epoch, from_csv, to_columns, to_csv, to_log
from sepnet.runs.manifest import MANIFEST, verify_manifest, write_manifest
from sepnet.runs.scores import Score
from sepnet.settings import parse_json
from sepnet.tensors import pack_tensors, unpack_tensors

__all__ = ["Run", "RunConfig", "numbered"]

CONFIG = "config.toml"
ENVIRONMENT = "environment.json"
LOG = "log.txt"
HISTORY = "history.csv"
CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"
LOGITS = "logits.safetensors"
TENSORBOARD = "tensorboard"
RESULT = "result.json"
ANATOMY = "anatomy.json"
DEFINITION = "definition.py"
SCORES = "scores.json"
FILES = (CONFIG, ENVIRONMENT, ANATOMY, DEFINITION, CHECKPOINT, HISTORY, LOG, WEIGHTS, LOGITS, RESULT, SCORES)
"""All that a run's folder holds of its own, beside the manifest that seals a finished one, in the order of writing."""
OPTIONAL = (CHECKPOINT, ANATOMY, DEFINITION, SCORES)
"""What may be deleted: the first serves to train more epochs, the others are made anew."""
SEALED_BY = "sealed_by"
"""The key of a result that says that its run is finished when it has a manifest, and not before."""


def write_run(folder: Path, files: Mapping[str, bytes]) -> "Run":
    """Write a copy of a run, or a later state of it, as :meth:`Run.read_files` returned it; return the run.

    Whoever is killed between two files leaves a run that goes on from its checkpoint.

    Raises:
        SepnetError: a name is no run's, the folder could not be written, or it is no run then.

    """
    if strange := sorted(set(files) - {*FILES, MANIFEST}):
        raise SepnetError(f"'{folder}' would get files that are no run's: {', '.join(strange)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*FILES, MANIFEST):
        if name in files:
            write_atomically(folder / name, files[name])
    return Run.open(folder)


def run_folders(out: Path) -> list[Path]:
    """Return the folders of runs under ``out``, sorted; a hidden one is not yet, or never became, a run."""
    return [file.parent for file in sorted(out.glob(f"*/{CONFIG}")) if not file.parent.name.startswith(".")]


class Run:
    """One training, finished or not, in a folder of its own."""

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path = path
        self.config = config
        self.network: nn.Module | Callable[..., nn.Module] | str | None = None
        """What was trained, where that was in this Python session: it is built from this; it is not saved."""

    def __repr__(self) -> str:
        done = f"{len(self.history)} of {self.config.recipe.epochs} epochs"
        accuracy = f", {100 * self.history[-1].val_accuracy:.2f} %" if self.history else ""
        return f"Run({str(self.path)!r}, {done}{accuracy})"

    def _repr_html_(self) -> str:
        """Return the table and the curve that a notebook shows."""
        from sepnet.runs.listing import to_html

        return to_html(self)

    @staticmethod
    def create(out: Path, name: str, config: RunConfig) -> "Run":
        """Make the folder ``out/name``, or ``out/name-2`` and so on where it is taken; an empty one is not."""
        return Run(create_folder(out, name, {CONFIG: config.to_toml()}), config)

    @staticmethod
    def open(path: str | Path) -> "Run":
        """Return the run in an existing folder; a finished one is checked first, as by :meth:`verify`."""
        run = Run._read(Path(path))
        run.verify()
        return run

    @staticmethod
    def _read(path: Path) -> "Run":
        file = path / CONFIG
        if not exists(file):
            raise SepnetError(f"'{path}' is not a run: expected a folder with a {CONFIG}, as `sepnet train` makes")
        return Run(path, RunConfig.from_toml(read_text(file, follow_links=False), source=str(file)))

    @staticmethod
    def find(out: Path, config: RunConfig, *, auto: Collection[str] = ()) -> "Run | None":
        """Return a run of the same :meth:`RunConfig.identity` under ``out``, or None.

        A finished one comes first, then one of this very device and precision, then the longest. One that was broken
        off on another device is not gone on with. What cannot be read is skipped, with a notice.

        Raises:
            SepnetError: the only such run is damaged.

        """
        wanted = config.identity(auto=auto)
        found, damaged = [], []
        for folder in run_folders(out):
            try:
                run = Run._read(folder)
            except SepnetError as error:
                notice(f"skipping {folder}: {error}")
                continue
            try:
                if run.config.identity(auto=auto) == wanted and (run.finished or run.config.device == config.device):
                    run.verify()
                    found.append((run.finished, run.config.identity() == config.identity(), len(run.history), run))
            except SepnetError as error:
                damaged.append(error)
        if damaged and not found:
            raise damaged[0]
        return max(found, key=lambda entry: entry[:3])[3] if found else None

    def verify(self) -> None:
        """Check a finished run: its files by their manifest, and its figures by one another.

        Raises:
            SepnetError: a file is missing, has changed or contradicts another; it is named.

        """
        if exists(self.path / MANIFEST):
            verify_manifest(self.path, FILES, optional=OPTIONAL)
        if not self.finished:
            return
        if not self.sealed:
            notice_once(
                f"run {self.path} has no {MANIFEST}, as it was made by an older version: its figures are only "
                f"checked against each other; `Run.open(…).seal()` seals it"
            )
        self._verify_figures()

    def _verify_figures(self) -> None:
        history, epochs = self.history, self.config.recipe.epochs
        if len(history) != epochs:
            raise SepnetError(
                f"'{self.path / HISTORY}' has {len(history)} epochs, the finished run {epochs}: "
                "restore it, or train the run again"
            )
        source = str(self.path / RESULT)
        require_figures(self._read_json(RESULT), history, self.config.validation, source=source)
        if exists(self.path / LOG) and self._read_text(LOG) != to_log(history, epochs):
            raise SepnetError(f"'{self.path / LOG}' is not the log of '{HISTORY}' beside it: restore it")
        if exists(self.path / LOGITS):
            self.logits()

    def seal(self) -> None:
        """Write the manifest of a finished run's files, as a run of an older version has none."""
        with self.lock():
            self.verify()
            self.require_finished()
            write_manifest(self.path, FILES)

    def lock(self, timeout: float = 0.0) -> contextlib.AbstractContextManager[None]:
        """Hold the run against other processes, and remove what killed ones left half-written."""
        busy = f"run '{self.path}' is being trained by another process: wait for it"
        return exclusively(self.path, busy=busy, timeout=timeout)

    def write_config(self, config: RunConfig) -> None:
        """Set the configuration."""
        self.config = config
        write_atomically(self.path / CONFIG, config.to_toml())

    def extend(self, epochs: int) -> None:
        """Let the run go on to more epochs, and record it; call it under the lock.

        The manifest goes first: from then on, and whenever the process is killed, the run is an unfinished one.
        """
        before = self.config.recipe.epochs
        if epochs < before:
            raise SepnetError(f"run '{self.path}' has {before} epochs, --epochs is {epochs}: expected as many or more")
        if epochs == before:
            return
        if self.finished and self._state() is None:
            raise SepnetError(
                f"run '{self.path}' has no {CHECKPOINT}, from which it would go on: restore it, or start a new run"
            )
        remove_file(self.path / MANIFEST)
        recipe = replace(self.config.recipe, epochs=epochs)
        self.write_config(replace(self.config, recipe=recipe, extended_from=self.config.epochs_planned))
        self.note_session({"extended": {"from_epochs": before, "to_epochs": epochs}})

    def note_session(self, values: dict[str, Any]) -> None:
        """Append to the record of the machines and moments at which the run was worked on."""
        sessions = [*self.sessions, {**environment.describe(), **values}]
        write_atomically(self.path / ENVIRONMENT, json.dumps({"sessions": sessions}, indent=2) + "\n")

    def read_files(self) -> dict[str, bytes]:
        """Return the contents of the run's files by name, for :func:`write_run` on another machine."""
        names = [name for name in (*FILES, MANIFEST) if exists(self.path / name)]
        return {name: read_file(self.path / name, follow_links=False) for name in names}

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """What :meth:`note_session` recorded."""
        sessions = self._read_json(ENVIRONMENT).get("sessions", [])
        if not (isinstance(sessions, list) and all(isinstance(session, dict) for session in sessions)):
            raise SepnetError(f"'{self.path / ENVIRONMENT}' holds no list of sessions: delete it")
        return sessions

    @property
    def history(self) -> list[Epoch]:
        """The epochs done so far: of an unfinished run, those that its checkpoint goes on from."""
        state = None if self.finished else self._state()
        return self._recorded_history() if state is None else state.history

    @property
    def columns(self) -> dict[str, list[Any]]:
        """The history as columns by name; ``pandas.DataFrame`` and ``polars.DataFrame`` take them as they are."""
        return to_columns(self.history)

    def _recorded_history(self) -> list[Epoch]:
        if not exists(self.path / HISTORY):
            if self.finished:
                raise SepnetError(f"'{self.path / HISTORY}' is missing: restore it, or train the run again")
            return []
        return from_csv(self._read_text(HISTORY), source=str(self.path / HISTORY))

    def _state(self) -> checkpoint.State | None:
        content = self.read_checkpoint()
        if content is None:
            return None
        return checkpoint.read(content, self.config, source=str(self.checkpoint_path))[0]

    def require_history(self, history: list[Epoch]) -> None:
        """Raise if the folder records epochs beyond those that training is about to go on from; rewrite it else."""
        try:
            recorded = self._recorded_history()
        except SepnetError as error:
            if not history:
                raise
            notice(f"{error}; it is written anew from the checkpoint")
            recorded = []
        if len(recorded) > len(history):
            found = f"goes on after epoch {len(history)}" if history else "is missing"
            raise SepnetError(
                f"run '{self.path}' has {len(recorded)} epochs in {HISTORY}, and its {CHECKPOINT} {found}: "
                "restore the checkpoint, or start a new run"
            )
        if recorded or history:
            self.write_history(history)

    def write_history(self, history: list[Epoch]) -> None:
        """Write the history and the log of the epochs done so far."""
        write_atomically(self.path / HISTORY, to_csv(history))
        write_atomically(self.path / LOG, to_log(history, self.config.recipe.epochs))

    @property
    def checkpoint_path(self) -> Path:
        """Where the resumable state lies."""
        return self.path / CHECKPOINT

    @property
    def tensorboard_path(self) -> Path:
        """The folder of TensorBoard's event files, where they are wanted."""
        return self.path / TENSORBOARD

    def read_checkpoint(self) -> bytes | None:
        """Return the resumable state, or None before the first."""
        return read_file(self.checkpoint_path, follow_links=False) if exists(self.checkpoint_path) else None

    def write_checkpoint(self, content: bytes) -> None:
        """Set the resumable state."""
        write_atomically(self.checkpoint_path, content)

    def write_outcome(self, weights: dict[str, Tensor], logits: Tensor, labels: Tensor) -> None:
        """Write the final weights, the logits ``(N, classes)`` on the validation images, the result, and the seal."""
        epochs = str(self.config.recipe.epochs)
        write_atomically(self.path / WEIGHTS, pack_tensors(weights, {"epochs": epochs}))
        tensors = {"logits": logits.float(), "labels": labels}
        write_atomically(self.path / LOGITS, pack_tensors(tensors, {"validation": self.config.validation}))
        result = {
            **derive_figures(self.history, self.config.validation),
            "peak_memory_mib": environment.peak_memory_mib(),
            SEALED_BY: MANIFEST,
        }
        write_atomically(self.path / RESULT, json.dumps(result, indent=2) + "\n")
        remove_file(self.path / SCORES)  # of the weights before, where the run was given more epochs
        write_manifest(self.path, FILES)

    def write_network(self, anatomy: Anatomy, definition: str) -> None:
        """Write what the network is: its anatomy, and its definition in Keras."""
        self._add({ANATOMY: anatomy_file.dump(anatomy).encode(), DEFINITION: definition.encode()})

    def _add(self, contents: dict[str, bytes]) -> None:
        """Write files that may be missing, and seal a sealed run with them.

        The seal comes first: a file that it names may be missing, one that it does not name may not be there.
        """
        if self.sealed:
            for name in contents:
                remove_file(self.path / name)
            write_manifest(self.path, FILES, more=contents)
        for name, content in contents.items():
            write_atomically(self.path / name, content)

    def keep_scores(self, new: Sequence[Score]) -> None:
        """Keep how the run's network answers in formats that it was exported to; of each format the last score.

        Raises:
            SepnetError: the run is unfinished, another process holds it, or the system refused.

        """
        with self.lock():
            self.require_finished()
            self._add({SCORES: scores.to_json(scores.merge(self.scores, new)).encode()})

    @property
    def scores(self) -> list[Score]:
        """What :meth:`keep_scores` kept of the final weights."""
        if not self.finished or not exists(self.path / SCORES):
            return []
        return scores.from_json(self._read_text(SCORES), source=f"'{self.path / SCORES}'")

    @property
    def anatomy(self) -> Anatomy | None:
        """The network's layers, or None where :meth:`write_network` has not been called."""
        file = self.path / ANATOMY
        return anatomy_file.load(self._read_text(ANATOMY), source=str(file)) if exists(file) else None

    @property
    def definition(self) -> str | None:
        """The network in Keras, or None where :meth:`write_network` has not been called."""
        return self._read_text(DEFINITION) if exists(self.path / DEFINITION) else None

    @property
    def log(self) -> str:
        """The epochs done so far as Keras prints them, and at the end the seconds they took."""
        return to_log(self.history, self.config.recipe.epochs)

    @property
    def result(self) -> dict[str, Any]:
        """The final figures, empty while the run is unfinished."""
        if not self.finished:
            return {}
        result = self._read_json(RESULT)
        require_figures(result, self.history, self.config.validation, source=str(self.path / RESULT))
        result.pop(SEALED_BY, None)
        return result

    @property
    def sealed(self) -> bool:
        """Whether the run has a manifest, which is the last file that a finished one gets."""
        return exists(self.path / MANIFEST)

    @property
    def finished(self) -> bool:
        """Whether all epochs of the configuration are done and saved."""
        if self.sealed or not exists(self.path / RESULT):
            return self.sealed
        result = self._read_json(RESULT)  # of an older version, which made no manifest, or of one half-finished
        return SEALED_BY not in result and bool(result.get("epochs") == self.config.recipe.epochs)

    @property
    def diverged(self) -> str:
        """What ended the last session, where the loss or a weight was no longer finite; else empty."""
        return str(self.sessions[-1].get("diverged", "")) if self.sessions else ""

    def require_finished(self) -> None:
        """Raise unless the run is finished."""
        if self.finished:
            return
        if self.diverged:
            raise SepnetError(f"run '{self.path}' is not finished: {self.diverged}")
        done, epochs = len(self.history), self.config.recipe.epochs
        saved = f"without {MANIFEST}, the last file that a finished run gets, " if done == epochs else ""
        raise SepnetError(
            f"run '{self.path}' is not finished, {saved}{done} of {epochs} epochs are done: "
            "resume it with `sepnet train … --resume`"
        )

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the epochs done so far."""
        return sum(epoch.seconds for epoch in self.history)

    def weights(self) -> dict[str, Tensor]:
        """Return the final weights, the recipe's average where it keeps one."""
        return self._read_tensors(WEIGHTS)

    @property
    def weights_bytes(self) -> int:
        """The size of the file of the final weights."""
        return (self.path / WEIGHTS).stat().st_size

    def logits(self) -> tuple[Tensor, Tensor]:
        """Return the final logits ``(N, classes)`` on the validation images, and their labels ``(N,)``."""
        tensors, source = self._read_tensors(LOGITS), str(self.path / LOGITS)
        if tensors.keys() != {"logits", "labels"}:
            raise SepnetError(f"'{source}' holds no logits and labels: train the run again")
        logits, labels = tensors["logits"], tensors["labels"]
        require_logits(logits, labels, self.config, self.history[-1], source=source)
        return logits, labels

    def correct(self) -> Tensor:
        """Return which validation images ``(N,)`` the final network classifies right."""
        logits, labels = self.logits()
        return torch.eq(logits.argmax(1), labels)

    def _read_tensors(self, name: str) -> dict[str, Tensor]:
        file = self.path / name
        if not exists(file):
            raise SepnetError(
                f"run '{self.path}' has no {name}, which every finished run gets: train it to its end, or take a copy "
                "that has it"
            )
        return unpack_tensors(read_file(file, follow_links=False), source=str(file))[0]

    def _read_text(self, name: str) -> str:
        return read_text(self.path / name, follow_links=False)

    def _read_json(self, name: str) -> dict[str, Any]:
        return parse_json(self._read_text(name), f"'{self.path / name}'") if exists(self.path / name) else {}
