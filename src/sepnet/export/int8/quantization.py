"""The one int8 quantization: static, post-training, calibrated on training images."""

from collections.abc import Sequence
from functools import singledispatchmethod
from math import floor, log2

import numpy as np
import torch
from torch import Tensor

from sepnet.errors import SepnetError
from sepnet.export.int8 import reference
from sepnet.export.int8.calibration import MODES, Observed, choose_scale, observe, scale_between
from sepnet.export.int8.layers import (
    Activation,
    Add,
    Concat,
    Convolution,
    Flatten,
    Layer,
    Mean,
    Network,
    Pad,
    Window,
)
from sepnet.export.int8.plan import (
    ADD_BITS,
    HIGHEST,
    LOWEST,
    Average,
    Convolve,
    Join,
    Multiplier,
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

OBSERVED, JUDGED = 256, 100
"""Training images whose ranges are taken, and by whose scores the way to choose scales is judged."""
LARGEST_BIAS = 1 << 29
"""A bias beyond it makes its filter's scale coarser, so that accumulators stay in 32 bits."""


def normalized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return pixels ``(N, C, H, W)``, 0 to 255, as the network takes them."""
    shift, scale = (torch.tensor(values, dtype=torch.float64).view(-1, 1, 1) for values in (mean, std))
    return ((images.double() / 255 - shift) / scale).float()


def quantize(
    network: Network,
    images: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str],
    name: str = "network",
) -> Plan:
    """Return the int8 plan of a network, calibrated on training images ``(N, C, H, W)``, uint8.

    Ranges are of 256 of them; of the ways to choose scales from these, that one is taken whose scores are nearest to
    the network's, in squares, on 100 others.

    Raises:
        SepnetError: an accumulator could leave 32 bits.

    """
    observed, judged = _spread(images)
    seen = observe(network, normalized(observed, mean, std))
    with torch.no_grad():
        expected = network.run(normalized(judged, mean, std))
    plans = [build_plan(network, seen, mode, mean=mean, std=std, classes=classes, name=name) for mode in MODES]
    errors = [float((reference.logits(plan, judged) - expected).square().mean()) for plan in plans]
    return plans[errors.index(min(errors))]


def plan_for_sizes(network: Network) -> Plan:
    """Return a plan whose memory is that of any plan of the network, and whose numbers mean nothing.

    It needs neither training nor images. Tables depend on the values: their bytes may differ.
    """
    height, width, channels = network.image
    noise = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0)) - 0.5
    classes = [str(number) for number in range(network.layers[-1].shape[2])]
    return build_plan(
        network, observe(network, noise), "minmax", mean=[0.5] * channels, std=[1] * channels, classes=classes
    )


def build_plan(
    network: Network,
    seen: dict[int, Observed],
    mode: str,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str],
    name: str = "network",
) -> Plan:
    """Return the int8 plan whose scales are chosen by ``mode``, see :func:`choose_scale`.

    Raises:
        SepnetError: an accumulator could leave 32 bits.

    """
    plan = Plan(network=name, image=network.image, classes=tuple(classes), mean=tuple(mean), std=tuple(std))
    _Builder(network, plan, seen, mode)
    return plan


def _spread(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the images to observe and others to judge by, evenly from all; of too few both get the same."""
    wanted = OBSERVED + JUDGED
    chosen = images[torch.linspace(0, len(images) - 1, min(wanted, len(images))).long()]
    if len(chosen) < wanted:
        return chosen[:OBSERVED], chosen[:JUDGED]
    order = torch.randperm(wanted, generator=torch.Generator().manual_seed(0))
    return chosen[order[:OBSERVED]], chosen[order[OBSERVED:]]


class _Builder:
    """Writes the operators of a plan."""

    def __init__(self, network: Network, plan: Plan, seen: dict[int, Observed], mode: str) -> None:
        self._plan, self._seen, self._mode = plan, seen, mode
        self._users = network.users()
        self._numbers: dict[int, int] = {}
        self._normalize()
        for layer in network.layers:
            self._numbers[layer.output] = self._add(layer)

    def _normalize(self) -> None:
        """Begin with pixels; their extremes are known, and 0 is exact, so that padding is right."""
        plan = self._plan
        lows = [-mean / std for mean, std in zip(plan.mean, plan.std, strict=True)]
        highs = [(1 - mean) / std for mean, std in zip(plan.mean, plan.std, strict=True)]
        scale = scale_between(min(lows), max(highs))
        step = [1 / (255 * std * scale.scale) for std in plan.std]
        factor = tuple(round(one * (1 << 16)) for one in step)
        offset = tuple(round((scale.zero_point + low / scale.scale) * (1 << 16)) for low in lows)
        self._numbers[0] = self._write(Normalize, (0,), plan.image, scale, "", factor=factor, offset=offset)

    def _write(
        self,
        kind: type[Operator],
        inputs: tuple[int, ...],
        shape: tuple[int, int, int],
        scale: Scale,
        path: str,
        **settings: object,
    ) -> int:
        number = len(self._plan.operators) + 1
        operator = kind(inputs=inputs, output=number, shape=shape, path=path, **settings)
        self._plan.operators.append(operator)
        self._plan.scales[number] = scale
        return number

    def _scale(self, value: int) -> Scale:
        """Return how a layer's value is to be read, by what it is on the calibration images and by who reads it."""
        readers = self._users[value]
        live = (-torch.inf, torch.inf)
        if len(readers) == 1 and isinstance(readers[0], Activation):
            live = readers[0].live
        return choose_scale(self._seen[value], self._mode, live)

    def _inputs(self, layer: Layer) -> tuple[tuple[int, ...], list[Scale]]:
        numbers = tuple(self._numbers[value] for value in layer.inputs)
        return numbers, [self._plan.scales[number] for number in numbers]

    @singledispatchmethod
    def _add(self, layer: Layer) -> int:
        raise NotImplementedError(type(layer).__name__)

    @_add.register
    def _(self, layer: Convolution) -> int:
        numbers, (read,) = self._inputs(layer)
        written = self._scale(layer.output)
        scale = layer.weight.abs().flatten(1).amax(1).clamp_min(1e-12) / HIGHEST
        scale = torch.maximum(scale, layer.bias.abs() / (read.scale * LARGEST_BIAS))
        weight = (layer.weight / scale[:, None, None, None]).round().clamp(-HIGHEST, HIGHEST)
        real = scale.double() * read.scale
        bias = (layer.bias.double() / real).round()
        number = self._write(
            Convolve,
            numbers,
            layer.shape,
            written,
            layer.path,
            weight=np.ascontiguousarray(weight.permute(0, 2, 3, 1).to(torch.int8).numpy()),
            weight_scale=scale.numpy(),
            bias=bias.to(torch.int32).numpy(),
            factors=tuple(Multiplier.of(one / written.scale) for one in real.tolist()),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
        )
        operator = self._plan.operators[-1]
        assert isinstance(operator, Convolve)
        if 2 * reference.largest_sum(operator) + LARGEST_BIAS >= 1 << 31:
            raise SepnetError(f"layer '{layer.path}' is too wide for int8: its sums can leave 32 bits")
        return number

    @_add.register
    def _(self, layer: Activation) -> int:
        numbers, (read,) = self._inputs(layer)
        alone = len(self._users[layer.inputs[0]]) == 1
        if alone and np.array_equal(_table(layer, read, read), np.arange(LOWEST, HIGHEST + 1)):
            return numbers[0]
        written = self._scale(layer.output)
        table = _table(layer, read, written)
        return self._write(Table, numbers, layer.shape, written, layer.path, table=table, name=layer.name)

    @_add.register
    def _(self, layer: Add) -> int:
        numbers, read = self._inputs(layer)
        written = self._scale(layer.output)
        ratios = [scale.scale / written.scale for scale in read]
        shift = ADD_BITS - max(0, floor(log2(max(ratios))) + 1) + 1
        factors = (round(ratios[0] * 2**shift), round(ratios[1] * 2**shift))
        return self._write(Sum, numbers, layer.shape, written, layer.path, factors=factors, shift=shift)

    @_add.register
    def _(self, layer: Window) -> int:
        numbers, (read,) = self._inputs(layer)
        settings = {"kernel": layer.kernel, "stride": layer.stride, "padding": layer.padding}
        return self._write(Pool, numbers, layer.shape, read, layer.path, averages=layer.averages, **settings)

    @_add.register
    def _(self, layer: Mean) -> int:
        numbers, (read,) = self._inputs(layer)
        written = self._scale(layer.output)
        height, width, _ = self._plan.shapes[numbers[0]]
        factor = Multiplier.of(read.scale / (written.scale * height * width))
        return self._write(Average, numbers, layer.shape, written, layer.path, factor=factor)

    @_add.register
    def _(self, layer: Pad) -> int:
        numbers, (read,) = self._inputs(layer)
        settings = {"height": layer.height, "width": layer.width, "channels": layer.channels}
        return self._write(PadZeros, numbers, layer.shape, read, layer.path, **settings)

    @_add.register
    def _(self, layer: Flatten) -> int:
        numbers, (read,) = self._inputs(layer)
        return self._write(View, numbers, layer.shape, read, layer.path)

    @_add.register
    def _(self, layer: Concat) -> int:
        numbers, read = self._inputs(layer)
        written = scale_between(min(scale.low for scale in read), max(scale.high for scale in read))
        same = [
            number if scale == written else self._rescaled(number, scale, written, layer)
            for number, scale in zip(numbers, read, strict=True)
        ]
        return self._write(Join, tuple(same), layer.shape, written, layer.path)

    def _rescaled(self, number: int, read: Scale, written: Scale, layer: Layer) -> int:
        table = _tabulated(_real(read), written)
        shape = self._plan.shapes[number]
        return self._write(Table, (number,), shape, written, layer.path, table=table, name="rescale")


def _real(scale: Scale) -> Tensor:
    """Return the 256 numbers that a scale represents, in order."""
    return scale.scale * (torch.arange(LOWEST, HIGHEST + 1, dtype=torch.float64) - scale.zero_point)


def _tabulated(real: Tensor, written: Scale) -> np.ndarray:
    steps = (real / written.scale + 0.5).floor() + written.zero_point
    return steps.clamp(LOWEST, HIGHEST).to(torch.int8).numpy()


def _table(layer: Activation, read: Scale, written: Scale) -> np.ndarray:
    return _tabulated(layer.function(_real(read)), written)
