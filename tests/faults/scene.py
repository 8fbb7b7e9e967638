"""Runs of a tiny network on the sample, finished and broken off, and the commands that read them."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sepnet.cli.app import run
from sepnet.report import build as report_build
from sepnet.report import readme
from sepnet.report.contents import Contents
from sepnet.training import loop
from sepnet.training.interrupts import Interrupted

NETWORKS = """
from torch import nn


def small(*, classes=10, image_shape=(3, 32, 32)):
    convolution = nn.Conv2d(3, 4, 4, stride=4)
    return nn.Sequential(convolution, nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16, 10))


def larger(*, classes=10, image_shape=(3, 32, 32)):
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 10))
"""
RECIPE = "batch_size = 500\nlr = 0.05\nweight_decay = 0.001\nepochs = 2\n"
OPTIONS = "--recipe quick.toml --precision fp32 --device cpu"
RUN = "runs/small-sample"
"""Where the run lies that is damaged."""
FINISHED, BROKEN_OFF = "finished", "broken off"
COMMANDS = {
    "evaluate": (FINISHED, f"evaluate {RUN} --trust --format json"),
    "predict": (FINISHED, f"predict {RUN} image.png --trust --format json"),
    "report": (FINISHED, f"report {RUN} --trust"),
    "export": (FINISHED, f"export {RUN} --trust --out small.keras"),
    "extend": (FINISHED, f"train net.py:small --resume --epochs 3 {OPTIONS}"),
    "compare": (
        FINISHED,
        "compare net.py:larger net.py:small --data sample --epochs 2 --precision fp32 --device cpu "
        "--recipe quick.toml --base-recipe quick.toml --no-report --format json",
    ),
    "resume": (BROKEN_OFF, f"train net.py:small --resume {OPTIONS}"),
}
"""By name: of which run, and how it is called."""


class Hung(BaseException):
    """A command took longer than any should."""


def build(folder: Path) -> None:
    """Make the scene: the folder ``now`` to work in, and beside it the runs that it is filled from."""
    now = folder / "now"
    now.mkdir(parents=True)
    (now / "net.py").write_text(NETWORKS)
    (now / "quick.toml").write_text(RECIPE)
    Image.new("RGB", (32, 32), "navy").save(now / "image.png")
    with contextlib.chdir(now):
        assert call(f"train net.py:larger {OPTIONS}")[0] == 0
        (now / "runs").rename(folder / "beside")
        for name, seed, stop in ((FINISHED, 0, None), ("other", 1, None), (BROKEN_OFF, 0, 6), ("earlier", 0, 2)):
            with stopped_at(stop):
                code, _, errors = call(f"train net.py:small {OPTIONS} --seed {seed} --name small-sample")
            assert code == (0 if stop is None else 128 + signal.SIGTERM), errors
            Path(RUN).rename(folder / name)


@contextlib.contextmanager
def stopped_at(number: int | None) -> Iterator[None]:
    """Stop a training by SIGTERM after so many steps; epochs have four."""
    step = loop.Trainer._step

    def stop(trainer: loop.Trainer, *arguments: Any) -> None:
        step(trainer, *arguments)
        if trainer.state.epoch * trainer.steps + trainer.state.step + 1 == number:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.Trainer, "_step", stop)
        yield


def restore(folder: Path, name: str) -> Path:
    """Fill ``now`` afresh with the run called ``name``; return the run's folder."""
    now = folder / "now"
    shutil.rmtree(now / "runs", ignore_errors=True)
    (now / "small.keras").unlink(missing_ok=True)
    shutil.copytree(folder / "beside", now / "runs")
    shutil.copytree(folder / name, now / RUN)
    return now / RUN


def call(arguments: str, *, limit: float = 120.0) -> tuple[int | str, str, list[str]]:
    """Return a command's exit code (or ``hung``, or an exception), what it printed, and its lines of errors."""

    def hang(*_: object) -> None:
        raise Hung

    out, errors = io.StringIO(), io.StringIO()
    previous = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), pytest.MonkeyPatch.context() as patch:
            patch.setattr(report_build, "write", _only_readme)
            code: int | str = run(arguments.split())
    except Hung:
        code = "hung"
    except (Exception, Interrupted, SystemExit) as error:
        code = f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return code, out.getvalue(), errors.getvalue().splitlines()


def _only_readme(contents: Contents, folder: Path) -> Path:
    """Stand in for what writes a report, which takes seconds for its pictures: print its words and figures."""
    print(readme.to_readme(contents, {}, folder=Path("report")))
    return folder


def outcome(command: str, printed: str) -> Any:
    """Return what a command that succeeded has to give again, from what it printed and wrote; seconds left out."""
    if command in ("extend", "resume"):
        return run_files(Path(RUN))
    if command == "export":
        import keras  # which is not needed for the other commands

        model = keras.models.load_model("small.keras")
        return model.predict(np.linspace(0, 255, 3072).reshape(1, 32, 32, 3), verbose=0).tolist()
    if command == "compare":
        values = json.loads(printed)
        for side in ("base", "challenger"):
            for key in ("runs", "seconds"):
                del values[side][key]
        del values["path"]
        return values
    return printed


def run_files(folder: Path) -> list[bytes]:
    """Return weights, logits, and history without its timings."""
    tensors = [(folder / f"{name}.safetensors").read_bytes() for name in ("weights", "logits")]
    rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    timed = [place for place, name in enumerate(rows[0]) if name in ("seconds", "images_per_second")]
    kept = [[cell for place, cell in enumerate(row) if place not in timed] for row in rows]
    return [*tensors, json.dumps(kept).encode()]


def is_refusal(code: int | str, errors: list[str]) -> bool:
    """Whether a command ended as one does after a user's mistake: one line says what is wrong, exit code 2."""
    said = [line for line in errors if re.match(r'sepnet: error: .|\{"error": ', line)]
    return code == 2 and len(said) == 1 and said[0] == errors[-1]
