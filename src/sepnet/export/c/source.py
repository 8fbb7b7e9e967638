"""C99 source and header of an int8 plan: no allocation, no library, no floating point; one static arena."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import singledispatchmethod
from math import prod
from pathlib import Path

import numpy as np

from sepnet.export.int8.plan import (
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
from sepnet.export.int8.schedule import Schedule, Step, schedule

KERNELS = Path(__file__).with_name("kernels.c")
NEEDS = {
    "normalize": ("clamped",),
    "convolution": ("clamped",),
    "depthwise": ("convolution",),
    "pointwise": ("convolution",),
    "dense_kernel": ("convolution",),
    "add": ("clamped",),
    "max_pool": ("window",),
    "average_pool": ("window",),
    "average": ("clamped",),
}
"""The parts of ``kernels.c`` that a part needs."""
COLUMNS = 24
MARK = "an int8 network, written by sepnet"
"""In the first line of both files."""


@dataclass(frozen=True)
class Source:
    """A C source and its header, by the name from which their identifiers are made."""

    name: str
    header: str
    source: str


def write_source(plan: Plan, name: str | None = None) -> Source:
    """Return the source and header of a plan; identifiers begin with ``name``, the network's unless given."""
    prefix = identifier(name or plan.network)
    laid_out = schedule(plan)
    return Source(prefix, _header(laid_out, prefix), _Writer(laid_out, prefix).source())


def identifier(name: str) -> str:
    """Return a name as C spells identifiers."""
    cleaned = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "network"
    return cleaned if not cleaned[0].isdigit() else f"network_{cleaned}"


def _header(laid_out: Schedule, prefix: str) -> str:
    plan, upper = laid_out.plan, prefix.upper()
    height, width, channels = plan.image
    scale = plan.scales[plan.output]
    return f"""/* {_comment(plan.network)}: {MARK}.

   Write an image's pixels, 0 to 255, rows first, channels last, to {prefix}_input(); {prefix}_run() then returns a
   score for each class, of which the largest is the answer. Both are in the arena: write the pixels anew each time.
   A score stands for (score - {upper}_SCORE_ZERO) * {upper}_SCORE_SCALE. Not reentrant. */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#define {upper}_HEIGHT {height}
#define {upper}_WIDTH {width}
#define {upper}_CHANNELS {channels}
#define {upper}_INPUT_BYTES {prod(plan.image)}
#define {upper}_CLASSES {len(plan.classes)}
#define {upper}_ARENA_BYTES {laid_out.arena_bytes}
#define {upper}_SCORE_SCALE {scale.scale!r}
#define {upper}_SCORE_ZERO ({scale.zero_point})

extern const char *const {prefix}_labels[{upper}_CLASSES];

uint8_t *{prefix}_input(void);
const int8_t *{prefix}_run(void);

#endif
"""


@dataclass
class _Writer:
    laid_out: Schedule
    prefix: str
    constants: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    parts: set[str] = field(default_factory=set)

    @property
    def plan(self) -> Plan:
        return self.laid_out.plan

    def source(self) -> str:
        """Return the whole source."""
        for step, scratch in zip(self.laid_out.steps, self.laid_out.scratch, strict=True):
            self.body.append(f"    /* {_title(step)} */")
            if isinstance(step.operators[0], Convolve):
                self._convolution_step(step, scratch)
            else:
                self._write(step.operators[0])
        upper = self.prefix.upper()
        labels = ", ".join(_string(label) for label in self.plan.classes)
        output = self.laid_out.offsets[self.plan.output]
        parts = [
            f"/* {_comment(self.plan.network)}: {MARK}. */",
            f'#include "{self.prefix}.h"',
            "/* Right shifts of negative numbers must keep the sign, as they do with all usual compilers. */\n"
            "typedef char shifts_keep_the_sign[(-1 >> 1) == -1 ? 1 : -1];",
            f"static int8_t arena[{upper}_ARENA_BYTES];",
            f"const char *const {self.prefix}_labels[{upper}_CLASSES] = {{{labels}}};",
            *_kernels(self.parts),
            *self.constants,
            f"uint8_t *{self.prefix}_input(void)\n{{\n    return (uint8_t *)arena + {self.laid_out.offsets[0]};\n}}",
            f"const int8_t *{self.prefix}_run(void)\n{{\n    int y, x;\n"
            + "\n".join([*self.body, f"    return arena + {output};", "}"]),
        ]
        text = "\n\n".join(parts) + "\n"
        return text if "for (y" in text.rsplit("_run(void)", 1)[1] else text.replace("    int y, x;\n", "")

    def _at(self, value: int) -> str:
        return f"arena + {self.laid_out.offsets[value]}"

    def _array(self, kind: str, name: str, values: Iterable[int]) -> str:
        numbers = [str(int(value)) for value in values]
        lines = [", ".join(numbers[start : start + COLUMNS]) for start in range(0, len(numbers), COLUMNS)]
        content = ",\n    ".join(lines)
        self.constants.append(f"static const {kind} {name}[{len(numbers)}] = {{\n    {content}}};")
        return name

    def _convolution(self, operator: Convolve) -> str:
        """Write a convolution's constants, and return the name of what describes it."""
        name, zero = f"layer_{operator.output}", self.plan.scales[operator.inputs[0]].zero_point
        bias = operator.bias.astype(np.int64)
        weight = operator.weight
        if operator.is_depthwise:
            weight = weight.transpose(1, 2, 3, 0)
        elif operator.is_pointwise:
            bias = bias - zero * weight.astype(np.int64).sum((1, 2, 3))
        weights = self._array("int8_t", f"{name}_weight", weight.ravel())
        biases = self._array("int32_t", f"{name}_bias", bias)
        mantissas = self._array("int32_t", f"{name}_mantissa", (one.mantissa for one in operator.factors))
        shifts = self._array("int8_t", f"{name}_shift", (one.shift for one in operator.factors))
        numbers = (
            *self.plan.shapes[operator.inputs[0]],
            len(operator.bias),
            operator.groups,
            *operator.weight.shape[1:3],
            *operator.stride,
            operator.padding[0][0],
            operator.padding[1][0],
            *operator.dilation,
            zero,
            self.plan.scales[operator.output].zero_point,
        )
        fields = ", ".join([weights, biases, mantissas, shifts, *map(str, numbers)])
        self.constants.append(f"static const struct convolution {name} = {{\n    {fields}}};")
        return name

    def _convolution_step(self, step: Step, scratch: int) -> None:
        """Write the loop over a step's pixels; a sum's first part waits in the scratch bytes."""
        first, *after = step.operators
        height, width, channels = step.operators[-1].shape
        between = f"arena + {scratch}"
        pixel = "arena + %d + (y * %d + x) * %d"
        output = pixel % (self.laid_out.offsets[step.output], width, channels)
        held = output
        if step.addend is not None:
            skipped = first.shape[2] if after and isinstance(after[0], Convolve) else 0
            held = f"arena + {scratch + -(-skipped // 4) * 4}"
        lines = []
        for operator in step.operators:
            if isinstance(operator, Convolve):
                last = operator is first and not (after and isinstance(after[0], Convolve))
                target = held if operator is not first or last else between
                lines.append(self._one_pixel(operator, between if operator is not first else "", target))
            elif isinstance(operator, Table):
                self.parts.add("look_up")
                table = self._array("int8_t", f"layer_{operator.output}_table", operator.table)
                lines.append(f"look_up({table}, {held}, {channels}, {held});")
            else:
                assert isinstance(operator, Sum)
                assert step.addend is not None
                name = self._sum(operator)
                here, there = held, pixel % (self.laid_out.offsets[step.addend], width, channels)
                if operator.inputs[0] == step.addend:
                    here, there = there, here
                lines.append(f"add(&{name}, {here}, {there}, {channels}, {output});")
                held = output
        if (height, width) == (1, 1):
            self.body += [
                f"    {line}".replace(" + (y * 1 + x)", " + 0").replace(", y, x,", ", 0, 0,") for line in lines
            ]
            return
        self.body += [f"    for (y = 0; y < {height}; y++)", f"        for (x = 0; x < {width}; x++) {{"]
        self.body += [*(f"            {line}" for line in lines), "        }"]

    def _one_pixel(self, operator: Convolve, source: str, target: str) -> str:
        name = self._convolution(operator)
        if operator.is_pointwise:
            self.parts.add("pointwise")
            _, width, channels = self.plan.shapes[operator.inputs[0]]
            read = source or f"{self._at(operator.inputs[0])} + (y * {width} + x) * {channels}"
            return f"pointwise(&{name}, {read}, {target});"
        kernel = "depthwise" if operator.is_depthwise else "convolve"
        self.parts.add("depthwise" if operator.is_depthwise else "dense_kernel")
        return f"{kernel}(&{name}, {self._at(operator.inputs[0])}, y, x, {target});"

    def _sum(self, operator: Sum) -> str:
        self.parts.add("add")
        name = f"layer_{operator.output}"
        zeros = [self.plan.scales[value].zero_point for value in (*operator.inputs, operator.output)]
        numbers = (*operator.factors, *zeros[:2], operator.shift, zeros[2])
        self.constants.append(f"static const struct sum {name} = {{{', '.join(map(str, numbers))}}};")
        return name

    def _call(self, text: str) -> None:
        self.body.append(f"    {text};")

    @singledispatchmethod
    def _write(self, operator: Operator) -> None:
        raise NotImplementedError(type(operator).__name__)

    @_write.register
    def _(self, operator: Normalize) -> None:
        self.parts.add("normalize")
        height, width, channels = operator.shape
        factor = self._array("int32_t", "pixel_factor", operator.factor)
        offset = self._array("int32_t", "pixel_offset", operator.offset)
        self._call(f"normalize({self._at(0)}, {height * width}, {channels}, {factor}, {offset})")
        if self.laid_out.offsets[0] != self.laid_out.offsets[operator.output]:
            raise AssertionError("pixels are normalized in place")

    @_write.register
    def _(self, operator: Table) -> None:
        self.parts.add("look_up")
        table = self._array("int8_t", f"layer_{operator.output}_table", operator.table)
        source, target = self._at(operator.inputs[0]), self._at(operator.output)
        self._call(f"look_up({table}, {source}, {prod(operator.shape)}, {target})")

    @_write.register
    def _(self, operator: Sum) -> None:
        left, right = (self._at(value) for value in operator.inputs)
        self._call(f"add(&{self._sum(operator)}, {left}, {right}, {prod(operator.shape)}, {self._at(operator.output)})")

    @_write.register
    def _(self, operator: Pool) -> None:
        kernel = "average_pool" if operator.averages else "max_pool"
        self.parts.add(kernel)
        name = f"layer_{operator.output}"
        before = (operator.padding[0][0], operator.padding[1][0])
        numbers = (
            *self.plan.shapes[operator.inputs[0]],
            *operator.shape[:2],
            *operator.kernel,
            *operator.stride,
            *before,
        )
        self.constants.append(f"static const struct window {name} = {{{', '.join(map(str, numbers))}}};")
        self._call(f"{kernel}(&{name}, {self._at(operator.inputs[0])}, {self._at(operator.output)})")

    @_write.register
    def _(self, operator: Average) -> None:
        self.parts.add("average")
        value = operator.inputs[0]
        height, width, channels = self.plan.shapes[value]
        zeros = [self.plan.scales[one].zero_point for one in (value, operator.output)]
        factor = f"{operator.factor.mantissa}, {operator.factor.shift}"
        sizes = f"{height * width}, {channels}, {zeros[0]}"
        self._call(f"average({self._at(value)}, {sizes}, {factor}, {zeros[1]}, {self._at(operator.output)})")

    @_write.register
    def _(self, operator: PadZeros) -> None:
        self.parts.update(("fill", "copy_image"))
        value = operator.inputs[0]
        sizes = ", ".join(map(str, self.plan.shapes[value]))
        _, width, channels = operator.shape
        target = self._at(operator.output)
        start = (operator.height[0] * width + operator.width[0]) * channels + operator.channels[0]
        self._call(f"fill({target}, {prod(operator.shape)}, {self.plan.scales[value].zero_point})")
        self._call(f"copy_image({self._at(value)}, {sizes}, {target} + {start}, {width}, {channels})")

    @_write.register
    def _(self, operator: Join) -> None:
        self.parts.add("copy_image")
        start = 0
        _, width, channels = operator.shape
        for value in operator.inputs:
            sizes = ", ".join(map(str, self.plan.shapes[value]))
            target = f"{self._at(operator.output)} + {start}"
            self._call(f"copy_image({self._at(value)}, {sizes}, {target}, {width}, {channels})")
            start += self.plan.shapes[value][2]

    @_write.register
    def _(self, _: View) -> None:
        """Write nothing: the bytes stay where they are."""


def _kernels(wanted: set[str]) -> list[str]:
    needed = set(wanted)
    for part in [*wanted, *wanted]:
        for other in NEEDS.get(part, ()):
            needed |= {other, *NEEDS.get(other, ())}
    _, *blocks = re.split(r"^/\* part: (\w+) \*/\n", KERNELS.read_text(), flags=re.MULTILINE)
    return [text.strip() for name, text in zip(blocks[::2], blocks[1::2], strict=True) if name in needed]


def _title(step: Step) -> str:
    kinds = " + ".join(_kind(operator) for operator in step.operators)
    path = step.operators[0].path
    size = "x".join(map(str, step.operators[-1].shape))
    return _comment(f"{kinds} of '{path}', to {size}" if path else f"{kinds}, to {size}")


def _kind(operator: Operator) -> str:
    if isinstance(operator, Table):
        return operator.name
    if isinstance(operator, Convolve):
        return "depthwise" if operator.is_depthwise else "pointwise" if operator.is_pointwise else "convolution"
    return type(operator).__name__.lower()


def _comment(text: str) -> str:
    """Return a text that ends no C comment and warns no compiler, in ASCII."""
    return text.encode("ascii", "replace").decode().replace("*/", "* /").replace("/*", "/ *").replace("\\", "/")


def _string(text: str) -> str:
    """Return a C string literal, UTF-8 in octal where it is not plain ASCII."""
    plain = set(range(32, 127)) - {34, 63, 92}
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in text.encode()) + '"'
