"""The C source: the plan's answers bit for bit, by every compiler that is here, and on an emulated Cortex-M7."""

import shutil
from collections.abc import Sequence

import pytest
import torch

from sepnet.export.c.programs import can_emulate, measure_on_cortex_m, run_on_cortex_m, run_on_host
from sepnet.export.c.source import write_source
from sepnet.export.int8 import reference
from sepnet.export.int8.schedule import schedule
from sepnet.networks.registry import build
from tests.export.int8_support import CLASSES, everything, pixels, plan_of, randomized

SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
emulated = pytest.mark.skipif(not can_emulate(), reason="gcc-arm-none-eabi or qemu-system-arm is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiler", "flags"), [("gcc", ("-O3",)), ("gcc", SANITIZERS), ("clang", ("-O2", "-Wconversion"))]
)
def test_every_operator_answers_as_the_reference(compiler: str, flags: Sequence[str]) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    _, plan = everything()
    images = pixels(20, seed=2)
    answers = run_on_host(write_source(plan), images, compiler=compiler, flags=flags)
    assert torch.equal(answers.scores, reference.run(plan, images))
    assert len(answers.scores.unique()) > 20


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize("name", ["champion", "resnet8"])
def test_networks_answer_as_the_reference(name: str) -> None:
    plan = plan_of(randomized(build(name, classes=5, image_shape=(3, 18, 18))), (3, 18, 18), name=name)
    images = pixels(4, (3, 18, 18), seed=2)
    answers = run_on_host(write_source(plan), images, compiler="gcc", flags=("-O1",))
    assert torch.equal(answers.scores, reference.run(plan, images))


@emulated
def test_an_emulated_cortex_m_answers_alike_in_the_predicted_ram() -> None:
    _, plan = everything()
    source, images = write_source(plan), pixels(5, seed=2)
    answers = run_on_cortex_m(source, images)
    assert torch.equal(answers.scores, reference.run(plan, images))
    assert answers.cost > 1000
    footprint = measure_on_cortex_m(source)
    assert footprint.ram == schedule(plan).arena_bytes
    assert footprint.data == 0
    assert plan.constant_bytes < footprint.code < plan.constant_bytes + 10_000


def test_source_is_plain_and_its_names_are_its_own() -> None:
    _, plan = everything()
    source = write_source(plan)
    assert source.name == "every_thing"
    assert write_source(plan, "8bit").name == "network_8bit"
    for word in ("malloc", "float", "double", "#include <"):
        assert word not in source.source
    assert source.source.count('\\"quoted\\"') + source.source.count("\\042quoted\\042") == 1
    assert len(CLASSES) == plan.shapes[plan.output][2]
