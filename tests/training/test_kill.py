"""``kill -9`` at random moments, in processes of their own: the final weights are those of an undisturbed run."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sepnet.backend import native

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import sepnet
from sepnet.training import loop
from tests.training.support import patterns, tiny
from tests.training.test_loop import RECIPE

loop.CHECKPOINT_SECONDS = 0.01
name = sys.argv[2]
resume = (Path("runs") / name / "config.toml").is_file()
sepnet.train(tiny, patterns(), RECIPE, epochs=40, name=name, resume=resume)
"""


def _start(folder: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(ROOT), name]
    environment = {**os.environ, native.SWITCH: native.NONE}  # test_resuming.py goes on with kernels
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment)


def _finish(process: subprocess.Popen[str]) -> None:
    error = process.communicate()[1]
    assert process.returncode == 0, error


@pytest.mark.slow
def test_a_run_killed_three_times_ends_with_the_same_weights(tmp_path: Path) -> None:
    _finish(_start(tmp_path, "whole"))
    generator = random.Random(7)
    for _ in range(3):
        process = _start(tmp_path, "killed")
        assert process.stderr is not None
        for _ in range(generator.randint(1, 24)):  # two lines an epoch: at most 12 of the 40 epochs
            process.stderr.readline()
        time.sleep(generator.uniform(0, 0.05))
        process.kill()
        error = process.communicate()[1]
        assert process.returncode == -9, error
    _finish(_start(tmp_path, "killed"))

    whole, killed = tmp_path / "runs" / "whole", tmp_path / "runs" / "killed"
    for file in ("weights.safetensors", "logits.safetensors"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes()
    sessions = json.loads((killed / "environment.json").read_text())["sessions"]
    starts = [(session["from_epoch"], session["from_step"]) for session in sessions]
    assert len(starts) == 4
    assert starts == sorted(starts)
    assert starts[-1] > (2, 0)
