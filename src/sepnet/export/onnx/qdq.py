"""An int8 plan as an ONNX file of QuantizeLinear and DequantizeLinear around float operators (QDQ).

A runtime that knows the pattern computes in 8 bits, any other in float, and rounds where the plan does. It differs from
the plan by one step where its float falls on the other side of a half.

The plan's int8 numbers are written as uint8, all of them 128 higher: with int8 weights, ONNX Runtime adds two products
in 16 bits where a processor has AVX2 and no VNNI, and they do not fit.
"""

from functools import singledispatchmethod
from typing import Any

import numpy as np

from sepnet.export.int8.plan import (
    LOWEST,
    Array,
    Average,
    Convolve,
    Join,
    Normalize,
    Operator,
    PadZeros,
    Plan,
    Pool,
    Scale,
    Sum,
    Table,
    View,
)
from sepnet.export.onnx.file import INPUT, OPSET, OUTPUT, describe, import_onnx
from sepnet.export.seal import seal

FUNCTIONS = {"relu": "Relu", "hardswish": "HardSwish", "sigmoid": "Sigmoid", "tanh": "Tanh"}
"""Functions that ONNX has; of others the plan's table is looked up."""
IR_VERSION = 10


def onnx_int8_bytes(plan: Plan) -> bytes:
    """Return an ONNX file of a plan: ``pixels`` ``(N, C, H, W)``, uint8, to ``scores``, real numbers ``(N, classes)``.

    Raises:
        SepnetError: ONNX is not installed.

    """
    file = _Writer(plan).file()
    describe(file, name=plan.network, classes=plan.classes, mean=plan.mean, std=plan.std)
    import_onnx().checker.check_model(file)
    return seal(file.SerializeToString())


class _Writer:
    def __init__(self, plan: Plan) -> None:
        self._onnx = import_onnx()
        self._plan = plan
        self._nodes: list[Any] = []
        self._constants: dict[str, Array] = {}
        for operator in plan.operators:
            self._write(operator)

    def file(self) -> Any:
        """Return the model."""
        helper, types = self._onnx.helper, self._onnx.TensorProto
        height, width, channels = self._plan.image
        self._node("Flatten", [_real(self._plan.output)], OUTPUT, axis=1)
        graph = helper.make_graph(
            self._nodes,
            self._plan.network,
            [helper.make_tensor_value_info(INPUT, types.UINT8, ["N", channels, height, width])],
            [helper.make_tensor_value_info(OUTPUT, types.FLOAT, ["N", len(self._plan.classes)])],
            [self._onnx.numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _node(self, kind: str, inputs: list[str], output: str, **settings: Any) -> str:
        self._nodes.append(self._onnx.helper.make_node(kind, inputs, [output], name=f"{kind}:{output}", **settings))
        return output

    def _constant(self, name: str, array: Any, dtype: Any) -> str:
        self._constants[name] = np.asarray(array, dtype)
        return name

    def _scale(self, value: int) -> list[str]:
        scale: Scale = self._plan.scales[value]
        names = (f"scale_{value}", f"zero_{value}")
        return [
            self._constant(names[0], scale.scale, np.float32),
            self._constant(names[1], scale.zero_point - LOWEST, np.uint8),
        ]

    def _requantized(self, operator: Operator, raw: str) -> None:
        """Round a float result to the operator's scale, and give it as real numbers to the next."""
        scale = self._scale(operator.output)
        rounded = self._node("QuantizeLinear", [raw, *scale], f"uint8_{operator.output}")
        self._node("DequantizeLinear", [rounded, *scale], _real(operator.output))

    def _float(self, operator: Operator, kind: str, *inputs: str, **settings: Any) -> None:
        given = [_real(value) for value in operator.inputs]
        self._requantized(operator, self._node(kind, [*given, *inputs], f"float_{operator.output}", **settings))

    @singledispatchmethod
    def _write(self, operator: Operator) -> None:
        raise NotImplementedError(type(operator).__name__)

    @_write.register
    def _(self, operator: Normalize) -> None:
        shape = (1, -1, 1, 1)
        mean, std = (np.asarray(values, np.float64).reshape(shape) for values in (self._plan.mean, self._plan.std))
        factor = self._constant("pixel_factor", 1 / (255 * std), np.float32)
        offset = self._constant("pixel_offset", -mean / std, np.float32)
        number = self._node("Cast", [INPUT], "pixels_float", to=self._onnx.TensorProto.FLOAT)
        product = self._node("Mul", [number, factor], "pixels_scaled")
        self._requantized(operator, self._node("Add", [product, offset], "pixels_normalized"))

    @_write.register
    def _(self, operator: Convolve) -> None:
        name = f"layer_{operator.output}"
        scale = operator.weight_scale.astype(np.float64)
        zeros = self._constant(f"{name}_zero", np.full(len(scale), -LOWEST), np.uint8)
        whole = self._constant(f"{name}_bias_zero", np.zeros(len(scale)), np.int32)
        weight = [
            self._constant(f"{name}_weight", operator.weight.transpose(0, 3, 1, 2).astype(int) - LOWEST, np.uint8),
            self._constant(f"{name}_scale", scale, np.float32),
            zeros,
        ]
        real = scale * self._plan.scales[operator.inputs[0]].scale
        bias = [
            self._constant(f"{name}_bias", operator.bias, np.int32),
            self._constant(f"{name}_bias_scale", real, np.float32),
            whole,
        ]
        given = [
            self._node("DequantizeLinear", weight, f"{name}_weight_float", axis=0),
            self._node("DequantizeLinear", bias, f"{name}_bias_float", axis=0),
        ]
        (top, bottom), (left, right) = operator.padding
        self._float(
            operator,
            "Conv",
            *given,
            kernel_shape=operator.weight.shape[1:3],
            strides=operator.stride,
            pads=(top, left, bottom, right),
            dilations=operator.dilation,
            group=operator.groups,
        )

    @_write.register
    def _(self, operator: Table) -> None:
        if operator.name in FUNCTIONS:
            self._float(operator, FUNCTIONS[operator.name])
            return
        value = operator.output
        table = self._constant(f"table_{value}", operator.table.astype(int) - LOWEST, np.uint8)
        place = self._node("Cast", [f"uint8_{operator.inputs[0]}"], f"place_{value}", to=self._onnx.TensorProto.INT32)
        found = self._node("Gather", [table, place], f"uint8_{value}")
        self._node("DequantizeLinear", [found, *self._scale(value)], _real(value))

    @_write.register
    def _(self, operator: Sum) -> None:
        self._float(operator, "Add")

    @_write.register
    def _(self, operator: Pool) -> None:
        (top, bottom), (left, right) = operator.padding
        settings = {"kernel_shape": operator.kernel, "strides": operator.stride, "pads": (top, left, bottom, right)}
        self._float(operator, "AveragePool" if operator.averages else "MaxPool", **settings)

    @_write.register
    def _(self, operator: Average) -> None:
        axes = self._constant("height_and_width", (2, 3), np.int64)
        self._float(operator, "ReduceMean", axes, keepdims=1)

    @_write.register
    def _(self, operator: PadZeros) -> None:
        before, after = zip(operator.channels, operator.height, operator.width, strict=True)
        pads = self._constant(f"pads_{operator.output}", (0, *before, 0, *after), np.int64)
        self._float(operator, "Pad", pads)

    @_write.register
    def _(self, operator: Join) -> None:
        self._float(operator, "Concat", axis=1)

    @_write.register
    def _(self, operator: View) -> None:
        value = operator.inputs[0]
        moved = self._node("Transpose", [_real(value)], f"channels_last_{operator.output}", perm=(0, 2, 3, 1))
        shape = self._constant(f"shape_{operator.output}", (-1, operator.shape[2], 1, 1), np.int64)
        self._requantized(operator, self._node("Reshape", [moved, shape], f"float_{operator.output}"))


def _real(value: int) -> str:
    return f"real_{value}"
