"""constraints.txt pins all that ./test installs: ``scripts/prepare`` asks no package for what it needs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LINES = (ROOT / "constraints.txt").read_text().splitlines()
PINS = {line.split("==")[0].lower().replace("_", "-"): line.split("==")[1] for line in LINES if "==" in line}
EXTRAS = [one for name, found in PROJECT["optional-dependencies"].items() if name != "benchmarks" for one in found]


@pytest.mark.parametrize("wanted", [*PROJECT["dependencies"], *EXTRAS])
def test_a_dependency_is_pinned_within_its_range(wanted: str) -> None:
    requirement = Requirement(wanted)
    assert requirement.specifier.contains(PINS[requirement.name])


def test_no_installed_package_lacks_another() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
