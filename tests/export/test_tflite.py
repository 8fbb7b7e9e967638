"""TensorFlow Lite files: the int8 plan's answers in LiteRT, by XNNPACK and by TensorFlow Lite's own kernels."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sepnet.errors import SepnetError
from sepnet.export.int8 import reference
from sepnet.export.int8.plan import Plan
from sepnet.export.tflite.file import is_ours, open_interpreter, scores
from sepnet.export.tflite.operators import write_tflite
from sepnet.networks.layers import PadChannels
from sepnet.networks.registry import build
from tests.anatomy.random_networks import CHANNELS, residual_classifiers
from tests.export.int8_support import CLASSES, MEAN, SHAPE, everything, pixels, plan_of, randomized

tflite = pytest.importorskip("tflite", reason="sepnet[tflite] is not installed")
litert = pytest.importorskip("ai_edge_litert.interpreter", reason="sepnet[tflite] is not installed")
SMALL = (CHANNELS, 12, 11)
LAYERS: dict[str, nn.Module] = {
    "uneven padding": nn.Sequential(nn.ZeroPad2d((2, 0, 1, 3)), nn.Conv2d(4, 6, 3, stride=(2, 1))),
    "dilation": nn.Conv2d(4, 6, 3, padding="same", dilation=(1, 3)),
    "groups": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=4),
    "maximum": nn.MaxPool2d(3, 2, padding=1),
    "mean": nn.AvgPool2d(2, ceil_mode=True),
    "zeros": PadChannels(7),
    **{function: getattr(nn, function)() for function in ("ReLU", "Hardswish", "GELU", "Sigmoid", "ReLU6")},
}


def litert_scores(plan: Plan, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores by XNNPACK, and by the kernels that TensorFlow Lite's specification of int8 describes."""
    content = write_tflite(plan).content
    kind = litert.OpResolverType.BUILTIN_REF
    plain = litert.Interpreter(model_content=content, experimental_op_resolver_type=kind)
    return scores(open_interpreter(content), images), scores(plain, images)


def small_plan(model: nn.Module, shape: tuple[int, int, int]) -> Plan:
    """Return the plan of a network for images of two channels, with a class for each of its scores."""
    with torch.no_grad():
        classes = model.eval()(torch.zeros(2, *shape)).shape[1]
    mean = MEAN[:CHANNELS]
    return plan_of(randomized(model), shape, mean=mean, std=mean, classes=CLASSES[:classes])


def steps_apart(plan: Plan, images: Tensor) -> list[int]:
    expected = reference.run(plan, images).int()
    return [int((found.int() - expected).abs().max()) for found in litert_scores(plan, images)]


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_each_operator_answers_as_the_plan_to_a_step(layer: nn.Module) -> None:
    plan = small_plan(nn.Sequential(nn.Conv2d(CHANNELS, 4, 1), layer, nn.Flatten(), nn.LazyLinear(5)), SMALL)
    assert max(steps_apart(plan, pixels(10, SMALL, seed=5))) <= 2


@settings(max_examples=4, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(residual_classifiers(), st.tuples(st.just(CHANNELS), st.integers(8, 16), st.integers(8, 16)))
def test_random_residual_networks_answer_as_the_plan(model: nn.Module, shape: tuple[int, int, int]) -> None:
    plan = small_plan(model, shape)
    by_xnnpack, by_reference_kernels = steps_apart(plan, pixels(10, shape, seed=5))
    assert by_xnnpack <= 1
    assert by_reference_kernels <= 3


def test_resnet8_answers_as_the_plan_to_a_step() -> None:
    shape = (3, 12, 12)
    plan = plan_of(randomized(build("resnet8", classes=5, image_shape=shape)), shape)
    by_xnnpack, by_reference_kernels = steps_apart(plan, pixels(10, shape, seed=5))
    assert by_xnnpack <= 1
    assert by_reference_kernels <= 3


def test_every_operator_in_one_network() -> None:
    _, plan = everything()
    images = pixels(20, seed=5)
    expected = reference.run(plan, images).int()
    for found in litert_scores(plan, images):
        apart = (found.int() - expected).abs()
        assert int(apart.max()) <= 8
        assert float(apart.float().mean()) < 2


def test_labels_preprocessing_and_scales_are_inside() -> None:
    _, plan = everything()
    content = write_tflite(plan).content
    model = tflite.Model.GetRootAsModel(content, 0)
    notes = {}
    for place in range(model.MetadataLength()):
        note = model.Metadata(place)
        notes[note.Name().decode()] = json.loads(model.Buffers(note.Buffer()).DataAsNumpy().tobytes())
    assert tuple(notes["labels"]) == CLASSES
    assert notes["preprocessing"]["mean"] == pytest.approx(MEAN)
    assert is_ours(content)
    assert not is_ours(b"    TFL3 another's")
    channels, height, width = SHAPE
    interpreter = open_interpreter(content)
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (given["dtype"], given["shape_signature"].tolist()) == (np.uint8, [-1, height, width, channels])
    scale = plan.scales[plan.output]
    assert (found["dtype"], found["shape"].tolist()) == (np.int8, [1, len(CLASSES)])
    assert found["quantization"] == (pytest.approx(scale.scale), scale.zero_point)


def test_constants_are_aligned_as_the_schema_says() -> None:
    content = write_tflite(everything()[1]).content
    buffers = tflite.Model.GetRootAsModel(content, 0)
    start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
    places = [
        buffers.Buffers(place).DataAsNumpy().__array_interface__["data"][0] - start
        for place in range(1, buffers.BuffersLength())
    ]
    assert len(places) > 20
    assert not any(place % 16 for place in places)


def test_ram_is_of_the_activations_alive_at_once() -> None:
    model = nn.Sequential(nn.Conv2d(CHANNELS, 4, 1), nn.Conv2d(4, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plan = plan_of(model, (CHANNELS, 8, 8), mean=MEAN[:CHANNELS], std=MEAN[:CHANNELS], classes="abcdefgh")
    assert write_tflite(plan).arena_bytes == 8 * 8 * (4 + 8)


@pytest.mark.parametrize("padding", [1, (1, 0)])
def test_means_that_tensorflow_lite_has_not_are_refused(padding: Any) -> None:
    pool = nn.AvgPool2d(3, 2, padding=padding, count_include_pad=False)
    plan = small_plan(nn.Sequential(pool, nn.Flatten(), nn.LazyLinear(5)), (CHANNELS, 4, 4))
    with pytest.raises(SepnetError, match=r"'0' averages fewer pixels at its edges.*count_include_pad=True") as caught:
        write_tflite(plan)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("package", ["tflite", "flatbuffers", "ai_edge_litert.interpreter"])
def test_a_missing_package_is_named_with_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, plan = everything()
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(SepnetError, match=r"pip install 'sepnet\[tflite\]'"):
        litert_scores(plan, pixels(2))
