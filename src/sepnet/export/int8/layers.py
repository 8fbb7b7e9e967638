"""A network in evaluation mode as few kinds of layer, batch norm folded: what the int8 quantization starts from.

Every value is an image ``(H, W, C)``; a vector is one of 1×1 pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

Shape = tuple[int, int, int]
Pair = tuple[int, int]


@dataclass(kw_only=True, eq=False)
class Layer:
    """One layer: ``inputs`` number the values it takes, 0 is the image; ``output`` is its own, of ``shape`` (H, W, C).

    ``path`` is the module that computes it, for messages.
    """

    inputs: tuple[int, ...]
    output: int
    shape: Shape
    path: str = ""

    def run(self, *images: Tensor) -> Tensor:
        """Return the result ``(N, C, H, W)`` in floating point."""
        raise NotImplementedError


@dataclass(kw_only=True, eq=False)
class Convolution(Layer):
    """A convolution, or a dense layer as a pointwise one: ``weight`` ``(F, C / groups, kh, kw)``, ``bias`` ``(F,)``.

    ``padding`` is ``((top, bottom), (left, right))``, of zeros.
    """

    weight: Tensor
    bias: Tensor
    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def pads(self) -> bool:
        """Whether zeros surround its images."""
        return self.padding != ((0, 0), (0, 0))

    @property
    def is_depthwise(self) -> bool:
        """Whether each filter looks at one channel."""
        return self.weight.shape[1] == 1 and self.groups > 1

    @property
    def is_pointwise(self) -> bool:
        """Whether it mixes the channels of one pixel."""
        return self.groups == 1 and self.weight.shape[2:] == (1, 1) and self.stride == (1, 1) and not self.pads

    def run(self, *images: Tensor) -> Tensor:
        """Return the convolution."""
        (top, bottom), (left, right) = self.padding
        padded = functional.pad(images[0], (left, right, top, bottom)) if self.pads else images[0]
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


@dataclass(kw_only=True, eq=False)
class Activation(Layer):
    """Any function of one number."""

    function: Callable[[Tensor], Tensor]
    name: str

    @cached_property
    def live(self) -> tuple[float, float]:
        """The interval outside which the function is constant, infinite where it never is: hard swish's is (−3, ∞)."""
        x = torch.arange(-1 << 14, (1 << 14) + 1, dtype=torch.float64) / 64
        moves = torch.nonzero(self.function(x).diff()).flatten()
        if not len(moves):
            return 0.0, 0.0
        first, last = int(moves[0]), int(moves[-1]) + 1
        return (float(x[first]) if first else -torch.inf), (float(x[last]) if last < len(x) - 1 else torch.inf)

    def run(self, *images: Tensor) -> Tensor:
        """Return the function of each number."""
        return self.function(images[0])


@dataclass(kw_only=True, eq=False)
class Add(Layer):
    """The sum of two images of one shape."""

    def run(self, *images: Tensor) -> Tensor:
        """Return the sum."""
        return images[0] + images[1]


@dataclass(kw_only=True, eq=False)
class Window(Layer):
    """The maximum or the mean of windows, over the pixels that are there: what ``padding`` adds is not looked at."""

    kernel: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    averages: bool

    def run(self, *images: Tensor) -> Tensor:
        """Return the maximum or mean of each window."""
        (top, bottom), (left, right) = self.padding
        around = (left, right, top, bottom)
        if not self.averages:
            return functional.max_pool2d(functional.pad(images[0], around, value=-torch.inf), self.kernel, self.stride)
        there = torch.ones_like(images[0][:1, :1])
        total, counts = (
            functional.avg_pool2d(functional.pad(x, around), self.kernel, self.stride, divisor_override=1)
            for x in (images[0], there)
        )
        return total / counts


@dataclass(kw_only=True, eq=False)
class Mean(Layer):
    """The mean of each channel: ``(H, W, C)`` to ``(1, 1, C)``."""

    def run(self, *images: Tensor) -> Tensor:
        """Return the means."""
        return images[0].mean(dim=(2, 3), keepdim=True)


@dataclass(kw_only=True, eq=False)
class Pad(Layer):
    """Zeros around an image, and before and after its channels."""

    height: Pair
    width: Pair
    channels: Pair

    def run(self, *images: Tensor) -> Tensor:
        """Return the larger image."""
        return functional.pad(images[0], (*self.width, *self.height, *self.channels))


@dataclass(kw_only=True, eq=False)
class Concat(Layer):
    """Images side by side, along their channels."""

    def run(self, *images: Tensor) -> Tensor:
        """Return the images as one."""
        return torch.cat(images, 1)


@dataclass(kw_only=True, eq=False)
class Flatten(Layer):
    """An image ``(H, W, C)`` as a vector ``(1, 1, H·W·C)``, channels last: nothing moves in memory."""

    def run(self, *images: Tensor) -> Tensor:
        """Return the vectors."""
        return images[0].permute(0, 2, 3, 1).reshape(len(images[0]), -1, 1, 1)


@dataclass(eq=False)
class Network:
    """Layers in the order of execution, for images ``image`` ``(H, W, C)``; the last one's output are the scores."""

    image: Shape
    layers: list[Layer] = field(default_factory=list)

    @property
    def shapes(self) -> dict[int, Shape]:
        """The shape of each value."""
        return {0: self.image, **{layer.output: layer.shape for layer in self.layers}}

    def users(self) -> dict[int, list[Layer]]:
        """Return the layers that take each value."""
        found: dict[int, list[Layer]] = {value: [] for value in self.shapes}
        for layer in self.layers:
            for value in layer.inputs:
                found[value].append(layer)
        return found

    def run(self, images: Tensor, visit: Callable[[int, Tensor], None] = lambda *_: None) -> Tensor:
        """Return the scores ``(N, classes)`` of normalized images ``(N, C, H, W)``; ``visit`` sees every value."""
        values = {0: images}
        last = {value: place for place, layer in enumerate(self.layers) for value in layer.inputs}
        visit(0, images)
        for place, layer in enumerate(self.layers):
            values[layer.output] = layer.run(*(values[value] for value in layer.inputs))
            visit(layer.output, values[layer.output])
            for value in layer.inputs:
                if last[value] == place:
                    values.pop(value, None)
        return values[self.layers[-1].output].flatten(1)
