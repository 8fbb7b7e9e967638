"""TensorFlow Lite files: how tables are put into a flatbuffer, and how LiteRT answers with one.

The schema is that of ``tensorflow/compiler/mlir/lite/schema/schema.fbs``, whose names the package ``tflite`` has.
"""

import time
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sepnet.export.int8.schedule import Buffer, place
from sepnet.export.shared import import_package

IDENTIFIER, VERSION = b"TFL3", 3
MARK = "written by sepnet"
"""In a file's description."""
INPUT, OUTPUT = "pixels", "scores"
ALIGNMENT = 16
"""Bytes to which the schema aligns constants."""
TYPES = {"uint8": "UINT8", "int8": "INT8", "int32": "INT32"}
BATCH = 50


class Writer:
    """Puts tensors and operators into a flatbuffer, one after the other; tensors are numbered in that order."""

    def __init__(self) -> None:
        self._tflite = import_package("tflite", "tflite")
        self._builder = import_package("flatbuffers", "tflite").Builder()
        self._buffers = [self.table("Buffer")]
        self._tensors: list[int] = []
        self._codes: dict[tuple[int, int], int] = {}
        self._operators: list[int] = []
        self._activations: dict[int, Buffer] = {}

    def table(self, kind: str, **fields: Any) -> int:
        """Write a table, its fields by the schema's names, and return where it is."""
        getattr(self._tflite, f"{kind}Start")(self._builder)
        for name, value in fields.items():
            getattr(self._tflite, f"{kind}Add{name}")(self._builder, value)
        return int(getattr(self._tflite, f"{kind}End")(self._builder))

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: str,
        *,
        data: np.ndarray | None = None,
        scale: Any = None,
        zero_point: int = 0,
        axis: int = 0,
    ) -> int:
        """Write a tensor of a NumPy type's name and return its number; without ``data``, the first axis is the batch.

        ``scale`` is one number, or one for each place along ``axis``.
        """
        fields: dict[str, Any] = {"Shape": self._vector(shape, np.int32), "Name": self._builder.CreateString(name)}
        if data is not None:
            fields["Buffer"] = self._buffer(np.ascontiguousarray(data, kind).tobytes())
        else:
            fields["ShapeSignature"] = self._vector([-1, *shape[1:]], np.int32)
            size = -(-prod(shape) * np.dtype(kind).itemsize // ALIGNMENT) * ALIGNMENT
            self._activations[len(self._tensors)] = Buffer(size, len(self._operators), len(self._operators))
        if scale is not None:
            scales = np.atleast_1d(scale)
            vectors = {
                "Scale": self._vector(scales, np.float32),
                "ZeroPoint": self._vector(np.full(len(scales), zero_point), np.int64),
            }
            fields["Quantization"] = self.table("QuantizationParameters", **vectors, QuantizedDimension=axis)
        kind_number = getattr(self._tflite.TensorType, TYPES[kind])
        self._tensors.append(self.table("Tensor", **fields, Type=kind_number, HasRank=True))
        return len(self._tensors) - 1

    def operator(
        self, name: str, version: int, inputs: Sequence[int], output: int, options: str | None = None, **fields: Any
    ) -> None:
        """Write an operator of the schema's name, with the fields of its options."""
        code = getattr(self._tflite.BuiltinOperator, name)
        settings: dict[str, Any] = {}
        if options:
            settings["BuiltinOptionsType"] = getattr(self._tflite.BuiltinOptions, options)
            settings["BuiltinOptions"] = self.table(options, **fields)
        operator = self.table(
            "Operator",
            OpcodeIndex=self._codes.setdefault((code, version), len(self._codes)),
            Inputs=self._vector(inputs, np.int32),
            Outputs=self._vector([output], np.int32),
            **settings,
        )
        for number in self._activations.keys() & {*inputs, output}:
            self._activations[number].last = len(self._operators)
        self._operators.append(operator)

    @property
    def arena_bytes(self) -> int:
        """Bytes in which the activations have room, placed as TensorFlow Lite Micro's GreedyMemoryPlanner does."""
        return max(buffer.offset + buffer.size for buffer in place(reversed(self._activations.values())))

    def content(self, name: str, inputs: Sequence[int], outputs: Sequence[int], notes: dict[str, str]) -> bytes:
        """Return the file; ``notes`` are texts of its metadata."""
        builder = self._builder
        metadata = [
            self.table("Metadata", Name=builder.CreateString(key), Buffer=self._buffer(text.encode()))
            for key, text in notes.items()
        ]
        codes = [
            self.table("OperatorCode", DeprecatedBuiltinCode=code, BuiltinCode=code, Version=version)
            for code, version in self._codes
        ]
        graph = self.table(
            "SubGraph",
            Name=builder.CreateString(name),
            Tensors=self._tables(self._tensors),
            Inputs=self._vector(inputs, np.int32),
            Outputs=self._vector(outputs, np.int32),
            Operators=self._tables(self._operators),
        )
        model = self.table(
            "Model",
            Version=VERSION,
            Description=builder.CreateString(f"{name}, {MARK}"),
            OperatorCodes=self._tables(codes),
            Subgraphs=self._tables([graph]),
            Buffers=self._tables(self._buffers),
            Metadata=self._tables(metadata),
        )
        builder.Finish(model, IDENTIFIER)
        return bytes(builder.Output())

    def _buffer(self, data: bytes) -> int:
        self._builder.Prep(ALIGNMENT, len(data))
        self._buffers.append(self.table("Buffer", Data=self._builder.CreateByteVector(data)))
        return len(self._buffers) - 1

    def _vector(self, values: Any, kind: Any) -> int:
        return int(self._builder.CreateNumpyVector(np.asarray(values, kind)))

    def _tables(self, tables: Sequence[int]) -> int:
        self._builder.StartVector(4, len(tables), 4)
        for table in reversed(tables):
            self._builder.PrependUOffsetTRelative(table)
        return int(self._builder.EndVector())


def scores(interpreter: Any, images: Tensor) -> Tensor:
    """Return an interpreter's scores ``(N, classes)``, int8, of images ``(N, C, H, W)``, uint8."""
    return torch.cat([_run(interpreter, batch)[0] for batch in images.split(BATCH)])


def seconds(interpreter: Any, images: Tensor) -> float:
    """Return the processor time that an interpreter takes for one image, the mean over ``images``."""
    singles = images.split(1)
    _run(interpreter, singles[0])
    return sum(_run(interpreter, single)[1] for single in singles) / len(singles)


def open_interpreter(content: bytes) -> Any:
    """Return LiteRT's interpreter of a file, on one core.

    Raises:
        SepnetError: LiteRT is not installed.

    """
    return import_package("ai_edge_litert.interpreter", "tflite").Interpreter(model_content=content, num_threads=1)


def read_notes(content: bytes) -> dict[str, str]:
    """Return the texts of a file's metadata by name.

    Raises:
        SepnetError: the package that reads the schema is not installed.

    """
    model = import_package("tflite", "tflite").Model.GetRootAs(content, 0)
    entries = [model.Metadata(place) for place in range(model.MetadataLength())]
    return {one.Name().decode(): model.Buffers(one.Buffer()).DataAsNumpy().tobytes().decode() for one in entries}


def is_ours(content: bytes) -> bool:
    """Say whether sepnet wrote a TensorFlow Lite file."""
    return content[4:8] == IDENTIFIER and MARK.encode() in content


def _run(interpreter: Any, images: Tensor) -> tuple[Tensor, float]:
    """Return the scores, and the seconds that they took."""
    pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
    given, found = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(given["index"], pixels.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], pixels)
    start = time.process_time()
    interpreter.invoke()
    took = time.process_time() - start
    return torch.from_numpy(interpreter.get_tensor(found["index"])), took
