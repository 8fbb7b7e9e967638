"""An int8 plan as a TensorFlow Lite file: pixels ``(N, H, W, C)``, uint8, to int8 scores.

It is written from the plan itself, so that all int8 formats are one network: ``litert-torch`` and TensorFlow's
converter (some 600 MB each) quantize once more in their own way, and end at another accuracy. An operator's result may
differ from the plan's by a step, since TensorFlow Lite rounds twice where the plan rounds once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatchmethod
from typing import Any

import numpy as np

from sepnet.errors import SepnetError
from sepnet.export.int8.layers import Pair, Shape
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
    Sum,
    Table,
    View,
)
from sepnet.export.seal import NOTE, seal
from sepnet.export.shared import metadata
from sepnet.export.tflite.file import INPUT, OUTPUT, Writer

FUNCTIONS = {"relu": ("RELU", 2), "hardswish": ("HARD_SWISH", 1), "rescale": ("QUANTIZE", 1)}
"""Functions whose operators take any scales; of others the plan's table is looked up."""
NONE = ((0, 0), (0, 0))
SAME, VALID = 0, 1
DEPTHWISE = "DEPTHWISE_CONV_2D"


@dataclass(frozen=True, eq=False)
class TFLiteFile:
    """A file's bytes, and the RAM that its activations take at the most.

    They are placed as TensorFlow Lite Micro does; its own structures and its kernels' scratch are not counted.
    """

    content: bytes
    arena_bytes: int


def write_tflite(plan: Plan) -> TFLiteFile:
    """Return a plan as a file for TensorFlow Lite; labels and preprocessing are in its metadata, as JSON.

    Raises:
        SepnetError: the package ``tflite`` is not installed, or TensorFlow Lite lacks an operator.

    """
    return _PlanWriter(plan).file()


class _PlanWriter:
    def __init__(self, plan: Plan) -> None:
        self._plan, self._file = plan, Writer()
        self._tensors = {0: self._file.tensor(INPUT, (1, *plan.image), "uint8", scale=1)}
        for operator in plan.operators:
            self._write(operator)

    def file(self) -> TFLiteFile:
        """Return the file, after a last operator that makes vectors of the scores."""
        plan = self._plan
        shape = self._constant("shape", (-1, len(plan.classes)))
        scores = self._value(OUTPUT, (len(plan.classes),), plan.output)
        self._file.operator("RESHAPE", 1, [self._tensors[plan.output], shape], scores)
        notes = metadata(plan.classes, plan.mean, plan.std) | NOTE
        content = self._file.content(plan.network, [self._tensors[0]], [scores], notes)
        return TFLiteFile(seal(content), self._file.arena_bytes)

    def _constant(self, name: str, data: Any, kind: str = "int32", **quantization: Any) -> int:
        array = np.asarray(data)
        return self._file.tensor(name, array.shape, kind, data=array, **quantization)

    def _value(self, name: str, shape: Sequence[int], like: int) -> int:
        """Write an int8 tensor that is read as a value of the plan, its batch before ``shape``."""
        scale = self._plan.scales[like]
        return self._file.tensor(name, (1, *shape), "int8", scale=scale.scale, zero_point=scale.zero_point)

    def _add(self, operator: Operator, name: str, version: int, inputs: Sequence[int], **options: Any) -> None:
        """Write the operator of TensorFlow Lite that gives an operator's result."""
        result = self._value(operator.path or type(operator).__name__, operator.shape, operator.output)
        self._file.operator(name, version, inputs, result, **options)
        self._tensors[operator.output] = result

    def _inputs(self, operator: Operator) -> list[int]:
        return [self._tensors[value] for value in operator.inputs]

    def _window(self, operator: Convolve | Pool, kernel: Pair, dilation: Pair = (1, 1)) -> tuple[int, dict[str, int]]:
        """Return the tensor that windows slide over, and how, as fields of their options.

        What is neither SAME nor VALID becomes an operator of its own, of zeros or of the least number.
        """
        value, (rows, columns) = operator.inputs[0], operator.stride
        before = self._plan.shapes[value]
        source, padding = self._tensors[value], VALID
        if operator.padding != NONE and _is_same(operator, before, kernel, dilation):
            padding = SAME
        elif operator.padding != NONE:
            if isinstance(operator, Pool) and operator.averages:
                raise SepnetError(
                    f"network '{self._plan.network}' cannot be exported to tflite: '{operator.path}' averages fewer "
                    f"pixels at its edges, padded by {operator.padding}; TensorFlow Lite has SAME and VALID alone: "
                    "count the padding (count_include_pad=True), or choose another --format"
                )
            (top, bottom), (left, right) = operator.padding
            shape = (before[0] + top + bottom, before[1] + left + right, before[2])
            widths = self._constant("padding", ((0, 0), *operator.padding, (0, 0)))
            padded = self._value(f"{operator.path} padded", shape, value)
            if isinstance(operator, Pool):
                scale = self._plan.scales[value]
                least = self._constant("least", [LOWEST], "int8", scale=scale.scale, zero_point=scale.zero_point)
                self._file.operator("PADV2", 2, [source, widths, least], padded, "PadV2Options")
            else:
                self._file.operator("PAD", 2, [source, widths], padded, "PadOptions")
            source = padded
        return source, {"Padding": padding, "StrideH": rows, "StrideW": columns}

    @singledispatchmethod
    def _write(self, operator: Operator) -> None:
        raise NotImplementedError(type(operator).__name__)

    @_write.register
    def _(self, operator: Normalize) -> None:
        """uint8 to int8, which moves no bit but the first, then a depthwise convolution."""
        written = self._plan.scales[operator.output]
        shifted = self._file.tensor("pixels_int8", (1, *operator.shape), "int8", scale=1, zero_point=LOWEST)
        self._file.operator("QUANTIZE", 1, self._inputs(operator), shifted, "QuantizeOptions")
        weight, bias = _as_convolution(operator, written.zero_point)
        scale = written.scale * np.array(operator.factor) / (1 << 16) / weight
        constants = [
            self._constant("pixel_factor", weight.reshape(1, 1, 1, -1), "int8", scale=scale, axis=3),
            self._constant("pixel_offset", bias, scale=scale),
        ]
        options = {"Padding": VALID, "StrideH": 1, "StrideW": 1, "DepthMultiplier": 1}
        self._add(operator, DEPTHWISE, 3, [shifted, *constants], options="DepthwiseConv2DOptions", **options)

    @_write.register
    def _(self, operator: Convolve) -> None:
        _, *kernel, _ = operator.weight.shape
        source, options = self._window(operator, (kernel[0], kernel[1]), operator.dilation)
        options.update(DilationHFactor=operator.dilation[0], DilationWFactor=operator.dilation[1])
        scale = operator.weight_scale.astype(np.float64)
        axis, weight = 0, operator.weight
        if operator.is_depthwise:
            axis, weight = 3, weight.transpose(3, 1, 2, 0)
            options["DepthMultiplier"] = len(operator.bias) // operator.groups
        constants = [
            self._constant(f"{operator.path} weight", weight, "int8", scale=scale, axis=axis),
            self._constant(
                f"{operator.path} bias", operator.bias, scale=scale * self._plan.scales[operator.inputs[0]].scale
            ),
        ]
        inputs = [source, *constants]
        if operator.is_depthwise:
            self._add(operator, DEPTHWISE, 3, inputs, options="DepthwiseConv2DOptions", **options)
        else:
            version = 3 if operator.groups == 1 else 6
            self._add(operator, "CONV_2D", version, inputs, options="Conv2DOptions", **options)

    @_write.register
    def _(self, operator: Table) -> None:
        if operator.name in FUNCTIONS:
            self._add(operator, *FUNCTIONS[operator.name], self._inputs(operator))
            return
        shape = (1, *operator.shape)
        wide = self._file.tensor("number", shape, "int32")
        self._file.operator("CAST", 1, self._inputs(operator), wide, "CastOptions", InDataType=9, OutDataType=2)
        place = self._file.tensor("place", shape, "int32")
        self._file.operator("ADD", 1, [wide, self._constant("128", [-LOWEST])], place, "AddOptions")
        written = self._plan.scales[operator.output]
        scale = {"scale": written.scale, "zero_point": written.zero_point}
        table = self._constant(f"{operator.path} table", operator.table, "int8", **scale)
        self._add(operator, "GATHER", 2, [table, place], options="GatherOptions", Axis=0)

    @_write.register
    def _(self, operator: Sum) -> None:
        self._add(operator, "ADD", 2, self._inputs(operator), options="AddOptions")

    @_write.register
    def _(self, operator: Pool) -> None:
        name = "AVERAGE_POOL_2D" if operator.averages else "MAX_POOL_2D"
        source, options = self._window(operator, operator.kernel)
        options.update(FilterHeight=operator.kernel[0], FilterWidth=operator.kernel[1])
        self._add(operator, name, 2, [source], options="Pool2DOptions", **options)

    @_write.register
    def _(self, operator: Average) -> None:
        axes = self._constant("height_and_width", (1, 2))
        self._add(operator, "MEAN", 2, [*self._inputs(operator), axes], options="ReducerOptions", KeepDims=True)

    @_write.register
    def _(self, operator: PadZeros) -> None:
        widths = self._constant("padding", ((0, 0), operator.height, operator.width, operator.channels))
        self._add(operator, "PAD", 2, [*self._inputs(operator), widths], options="PadOptions")

    @_write.register
    def _(self, operator: Join) -> None:
        self._add(operator, "CONCATENATION", 2, self._inputs(operator), options="ConcatenationOptions", Axis=3)

    @_write.register
    def _(self, operator: View) -> None:
        shape = self._constant("shape", (-1, *operator.shape))
        self._add(operator, "RESHAPE", 1, [*self._inputs(operator), shape])


def _is_same(operator: Convolve | Pool, before: Shape, kernel: Pair, dilation: Pair) -> bool:
    """Say whether an operator is padded as SAME pads: as little as ``ceil(size / stride)`` windows need."""
    for axis in (0, 1):
        size, stride, windows = before[axis], operator.stride[axis], operator.shape[axis]
        total = max((windows - 1) * stride + dilation[axis] * (kernel[axis] - 1) + 1 - size, 0)
        if windows != -(-size // stride) or operator.padding[axis] != (total // 2, total - total // 2):
            return False
    return True


def _as_convolution(operator: Normalize, zero_point: int) -> tuple[Array, Array]:
    """Return, for each channel, the int8 weight and int32 bias whose products are nearest to the plan's numbers."""
    pixels, weight = np.arange(256), np.arange(1, 128)[:, None]
    found = []
    for factor, offset in zip(operator.factor, operator.offset, strict=True):
        wanted = pixels * factor + offset + (1 << 15) >> 16
        bias = np.rint((offset - (zero_point << 16)) * weight / factor)
        made = (pixels * weight + bias) * factor / (weight << 16) + zero_point
        best = np.abs(made - wanted).max(1).argmin()
        found.append((weight[best, 0], bias[best, 0]))
    weights, biases = zip(*found, strict=True)
    return np.array(weights), np.array(biases)
