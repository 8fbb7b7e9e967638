"""The run directory, and the only code that knows its file names."""

import contextlib
import itertools
import json
import tomllib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import tomli_w
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from sepnet import environment
from sepnet.anatomy import Anatomy
from sepnet.anatomy import file as anatomy_file
from sepnet.errors import SepnetError
from sepnet.files import write_atomically
from sepnet.notices import notice, printable
from sepnet.settings import check_type
from sepnet.training.checkpoint import to_plain
from sepnet.training.history import Epoch, best, from_csv, to_csv, to_log
from sepnet.training.recipe import VALIDATIONS, Recipe, recipe_from_dict

CONFIG = "config.toml"
ENVIRONMENT = "environment.json"
LOG = "log.txt"
HISTORY = "history.csv"
CHECKPOINT = "checkpoint.safetensors"
WEIGHTS = "weights.safetensors"
LOGITS = "logits.safetensors"
RESULT = "result.json"
ANATOMY = "anatomy.json"
DEFINITION = "definition.py"


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that determines a run but the machine. Two runs of one :meth:`identity` are the same run."""

    network: str
    fingerprint: str
    """Of the network's layers; see ``networks.fingerprint``."""
    data: str
    data_sha256: str
    """Of the images and labels, training and validation; see ``Dataset.fingerprint``."""
    validation: str
    """``test`` or ``holdout``: what the validation figures were measured on."""
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Subtracted from, and divided out of, pixels in 0 … 1."""
    seed: int
    device: str
    precision: str
    initial_weights: str = ""
    """SHA-256 of the weights that training started from, where a module was given; empty where the seed drew them."""
    extended_from: tuple[int, ...] = ()
    """How many epochs the run was first made for, where it was resumed with more: its rates are another schedule's."""
    recipe: Recipe

    def __post_init__(self) -> None:
        for text in (self.network, self.data, self.device, self.precision, self.recipe.name, *self.classes):
            if isinstance(text, str) and printable(text) != text:
                raise SepnetError(f"the name '{printable(text)}' holds a control character: expected printable ones")

    def identity(self, *, auto: Collection[str] = ()) -> tuple[tuple[str, Any], ...]:
        """Return what says whether two runs are the same: what a person set, the data's hash, the fingerprint.

        Not among it are ``mean`` and ``std``, which follow from the data, nor the fields named in ``auto``, of
        ``device`` and ``precision``: those that were left to the machine.
        """
        left_out = {"mean", "std", *auto}
        return tuple((field.name, getattr(self, field.name)) for field in fields(self) if field.name not in left_out)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "recipe": self.recipe.to_dict()}

    def to_toml(self) -> str:
        """Return the configuration as TOML."""
        return tomli_w.dumps(self.to_dict())

    @staticmethod
    def from_toml(text: str, *, source: str) -> "RunConfig":
        """Return the configuration written by :meth:`to_toml`."""
        try:
            values: dict[str, Any] = tomllib.loads(text)
            for name in ("classes", "image_shape", "mean", "std", "extended_from"):
                values[name] = tuple(values[name])
            values["recipe"] = recipe_from_dict(values["recipe"], source=source)
            config = RunConfig(**values)
        except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
            raise SepnetError(f"'{source}' is not the configuration of a run ({error}): start a new run") from error
        for field in fields(config):
            if field.type in (str, int, tuple[str, ...]):
                check_type(f"{source}: {field.name}", getattr(config, field.name), field.type)
        if config.validation not in VALIDATIONS:
            raise SepnetError(f"{source}: validation is '{config.validation}': expected {' or '.join(VALIDATIONS)}")
        return config


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

    @staticmethod
    def create(out: Path, name: str, config: RunConfig) -> "Run":
        """Make the folder ``out/name``, or ``out/name-2`` and so on where it is taken."""
        if Path(name).name != name or name in ("", "..") or not name.isprintable():
            shown = name.encode("utf-8", "backslashreplace").decode()
            raise SepnetError(f"run name '{shown}' is not a folder name: expected printable characters without '/'")
        try:
            out.mkdir(parents=True, exist_ok=True)
            path = _make_folder(out, name)
        except OSError as error:
            raise SepnetError(
                f"run folder '{out / name}' could not be made: {error.strerror}; choose another --out"
            ) from error
        run = Run(path, config)
        try:
            run.write_config(config)
        except SepnetError:
            path.rmdir()
            raise
        return run

    @staticmethod
    def open(path: str | Path) -> "Run":
        """Return the run in an existing folder."""
        path = Path(path)
        file = path / CONFIG
        if not file.is_file():
            raise SepnetError(f"'{path}' is not a run: expected a folder with a {CONFIG}, as `sepnet train` makes")
        return Run(path, RunConfig.from_toml(_read_text(file), source=str(file)))

    @staticmethod
    def find(out: Path, config: RunConfig, *, auto: Collection[str] = ()) -> "Run | None":
        """Return a run of the same :meth:`RunConfig.identity` under ``out``, or None.

        A finished one comes first, then one of this very device and precision, then the longest. One that was broken
        off on another device is not gone on with.
        """
        wanted = config.identity(auto=auto)
        found = []
        for file in sorted(out.glob(f"*/{CONFIG}")):
            try:
                run = Run.open(file.parent)
                if run.config.identity(auto=auto) == wanted and (run.finished or run.config.device == config.device):
                    found.append((run.finished, run.config.identity() == config.identity(), len(run.history), run))
            except SepnetError as error:
                notice(f"skipping {file.parent}: {error}")
        return max(found, key=lambda entry: entry[:3])[3] if found else None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run against other processes."""
        try:
            with FileLock(self.path / ".lock", timeout=0):
                yield
        except Timeout:
            raise SepnetError(f"run '{self.path}' is being trained by another process: wait for it") from None

    def write_config(self, config: RunConfig) -> None:
        """Set the configuration."""
        self.config = config
        write_atomically(self.path / CONFIG, config.to_toml())

    def extend(self, epochs: int) -> None:
        """Let the run go on to more epochs, and record it."""
        if epochs < self.config.recipe.epochs:
            raise SepnetError(
                f"run '{self.path}' has {self.config.recipe.epochs} epochs, --epochs is {epochs}: "
                "expected as many or more"
            )
        if epochs > self.config.recipe.epochs:
            before = self.config.recipe.epochs
            self.note_session({"extended": {"from_epochs": before, "to_epochs": epochs}})
            recipe = replace(self.config.recipe, epochs=epochs)
            self.write_config(replace(self.config, recipe=recipe, extended_from=(*self.config.extended_from, before)))

    def note_session(self, values: dict[str, Any]) -> None:
        """Append to the record of the machines and moments at which the run was worked on."""
        sessions = [*self.sessions, {**environment.describe(), **values}]
        write_atomically(self.path / ENVIRONMENT, json.dumps({"sessions": sessions}, indent=2) + "\n")

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """What :meth:`note_session` recorded."""
        return list(self._read_json(ENVIRONMENT).get("sessions", []))

    @property
    def history(self) -> list[Epoch]:
        """The epochs done so far."""
        file = self.path / HISTORY
        if not file.is_file():
            return []
        try:
            return from_csv(_read_text(file))
        except (KeyError, TypeError, ValueError) as error:
            raise SepnetError(f"'{file}' is not the history of a run ({error}): train the run again") from error

    def write_history(self, history: list[Epoch]) -> None:
        """Write the history and the log of the epochs done so far."""
        write_atomically(self.path / HISTORY, to_csv(history))
        write_atomically(self.path / LOG, to_log(history, self.config.recipe.epochs))

    @property
    def checkpoint_path(self) -> Path:
        """Where the resumable state lies."""
        return self.path / CHECKPOINT

    def read_checkpoint(self) -> bytes | None:
        """Return the resumable state, or None before the first."""
        return self.checkpoint_path.read_bytes() if self.checkpoint_path.is_file() else None

    def write_checkpoint(self, content: bytes) -> None:
        """Set the resumable state."""
        write_atomically(self.checkpoint_path, content)

    def write_outcome(self, weights: dict[str, Tensor], logits: Tensor, labels: Tensor, seconds: float) -> None:
        """Write the final weights, the logits ``(N, classes)`` on the validation images, and the result."""
        epochs = str(self.config.recipe.epochs)
        write_atomically(self.path / WEIGHTS, save_tensors(to_plain(weights), {"epochs": epochs}))
        tensors = {"logits": logits.float(), "labels": labels}
        write_atomically(self.path / LOGITS, save_tensors(to_plain(tensors), {"validation": self.config.validation}))
        history = self.history
        result = {
            "epochs": len(history),
            "validation": self.config.validation,
            "final_accuracy": history[-1].val_accuracy,
            "best_accuracy": best(history).val_accuracy,
            "best_epoch": best(history).epoch,
            "seconds": round(seconds, 2),
            "peak_memory_mib": environment.peak_memory_mib(),
        }
        write_atomically(self.path / RESULT, json.dumps(result, indent=2) + "\n")

    def write_network(self, anatomy: Anatomy, definition: str) -> None:
        """Write what the network is: its anatomy, and its definition in Keras."""
        write_atomically(self.path / ANATOMY, anatomy_file.dump(anatomy))
        write_atomically(self.path / DEFINITION, definition)

    @property
    def anatomy(self) -> Anatomy | None:
        """The network's layers, or None where :meth:`write_network` has not been called."""
        file = self.path / ANATOMY
        return anatomy_file.load(_read_text(file), source=str(file)) if file.is_file() else None

    @property
    def definition(self) -> str | None:
        """The network in Keras, or None where :meth:`write_network` has not been called."""
        file = self.path / DEFINITION
        return _read_text(file) if file.is_file() else None

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
        for key in ("final_accuracy", "best_accuracy", "best_epoch", "seconds"):
            if not isinstance(result.get(key), int | float):
                raise SepnetError(f"'{self.path / RESULT}' has no number as {key}: train the run again")
        return result

    @property
    def finished(self) -> bool:
        """Whether all epochs of the configuration are done and saved."""
        return bool(self._read_json(RESULT).get("epochs") == self.config.recipe.epochs)

    def require_finished(self) -> None:
        """Raise unless the run is finished."""
        if not self.finished:
            epochs = self.config.recipe.epochs
            raise SepnetError(
                f"run '{self.path}' is not finished, {len(self.history)} of {epochs} epochs are done: "
                "resume it with `sepnet train … --resume`"
            )

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of the epochs done so far."""
        return sum(epoch.seconds for epoch in self.history)

    def weights(self) -> dict[str, Tensor]:
        """Return the final weights, the recipe's average where it keeps one."""
        return self._read_tensors(WEIGHTS)

    def logits(self) -> tuple[Tensor, Tensor]:
        """Return the final logits ``(N, classes)`` on the validation images, and their labels ``(N,)``."""
        tensors = self._read_tensors(LOGITS)
        if not {"logits", "labels"} <= tensors.keys():
            raise SepnetError(f"'{self.path / LOGITS}' holds no logits and labels: train the run again")
        return tensors["logits"], tensors["labels"]

    def correct(self) -> Tensor:
        """Return which validation images ``(N,)`` the final network classifies right."""
        logits, labels = self.logits()
        return torch.eq(logits.argmax(1), labels)

    def _read_tensors(self, name: str) -> dict[str, Tensor]:
        file = self.path / name
        if not file.is_file():
            raise SepnetError(
                f"run '{self.path}' has no {name}, which every finished run gets: train it to its end, or take a copy "
                "that has it"
            )
        try:
            return load_tensors(file.read_bytes())
        except SafetensorError as error:
            raise SepnetError(f"'{file}' is not a safetensors file ({error}): train the run again") from error

    def _read_json(self, name: str) -> dict[str, Any]:
        file = self.path / name
        if not file.is_file():
            return {}
        try:
            values: dict[str, Any] = json.loads(_read_text(file))
        except ValueError as error:
            raise SepnetError(f"'{file}' is not JSON ({error}): train the run again") from error
        if not isinstance(values, dict):
            raise SepnetError(f"'{file}' holds no JSON object: train the run again")
        return values


def _make_folder(out: Path, name: str) -> Path:
    """Make ``out/name``, or ``out/name-2`` and so on where it is taken; two processes get two folders."""
    for path in numbered(out / name):
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path
    raise AssertionError("there is no last number")


def numbered(path: Path) -> Iterator[Path]:
    """Yield ``path``, then the same with ``-2``, ``-3`` and so on."""
    yield path
    for number in itertools.count(2):
        yield path.with_name(f"{path.name}-{number}")


def _read_text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise SepnetError(f"'{file}' is not text ({error.reason}): train the run again") from error
