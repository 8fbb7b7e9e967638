"""ONNX files: PyTorch's scores in ONNX Runtime, and the int8 plan's."""

import json
from typing import Any

import pytest
import torch

from sepnet.errors import SepnetError
from sepnet.export.int8 import reference
from sepnet.networks.registry import build
from tests.export.int8_support import CLASSES, MEAN, SHAPE, STD, everything, pixels, plan_of, randomized

onnx = pytest.importorskip("onnx", reason="sepnet[onnx] is not installed")
onnx_file = pytest.importorskip("sepnet.export.onnx.file")
onnx_int8 = pytest.importorskip("sepnet.export.onnx.qdq")


def settings() -> dict[str, Any]:
    return {"name": "mine", "classes": CLASSES, "mean": MEAN, "std": STD}


@pytest.mark.slow
def test_float_scores_are_pytorchs_and_labels_are_inside() -> None:
    model, _ = everything()
    content = onnx_file.onnx_bytes(model, SHAPE, **settings())
    images = pixels(7, seed=5)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        expected = model((images / 255 - mean) / std)
    torch.testing.assert_close(onnx_file.scores(onnx_file.open_session(content), images), expected, atol=1e-4, rtol=0)
    described = {one.key: one.value for one in onnx.load_from_string(content).metadata_props}
    assert tuple(json.loads(described["labels"])) == CLASSES
    assert json.loads(described["preprocessing"])["mean"] == pytest.approx(MEAN)
    assert onnx_file.is_ours(content)
    assert not onnx_file.is_ours(b"something else")


def test_int8_scores_are_the_plans_within_few_steps() -> None:
    _, plan = everything()
    images = pixels(20, seed=5)
    content = onnx_int8.onnx_int8_bytes(plan)
    apart = onnx_file.scores(onnx_file.open_session(content), images) - reference.logits(plan, images)
    steps = apart.abs() / plan.scales[plan.output].scale
    assert float(steps.max()) <= 8
    assert float(steps.mean()) < 1
    graph = onnx.load_from_string(content).graph
    types = {one.data_type for one in graph.initializer}
    assert onnx.TensorProto.UINT8 in types
    assert onnx.TensorProto.INT8 not in types, "ONNX Runtime's products of int8 overflow on AVX2 without VNNI"
    kinds = {node.op_type for node in graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds


def test_int8_scores_are_the_plans_to_a_step_where_no_mean_falls_on_a_half() -> None:
    shape = (3, 12, 12)
    plan = plan_of(randomized(build("resnet8", classes=5, image_shape=shape)), shape)
    images = pixels(10, shape, seed=5)
    session = onnx_file.open_session(onnx_int8.onnx_int8_bytes(plan))
    apart = onnx_file.scores(session, images) - reference.logits(plan, images)
    assert float((apart / plan.scales[plan.output].scale).abs().max()) <= 1.01


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(SepnetError, match=r"pip install 'sepnet\[onnx\]'"):
        onnx_file.import_onnx()
