"""The effective receptive field: where in its theoretical field a unit's gradient really lies.

After Luo, Li, Urtasun and Zemel 2016, "Understanding the effective receptive field in deep convolutional neural
networks": the gradient of a layer's central unit with respect to the image, over random images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sepnet.anatomy.graph import Graph, Value
from sepnet.anatomy.receptive_field import AXES, Field
from sepnet.anatomy.trace import read

SHARE = 0.95
"""Of the gradient's energy: the central window that holds so much is the effective field."""

SAMPLES = 8
"""How many random images are measured."""


@dataclass(frozen=True, kw_only=True)
class EffectiveField:
    """The measured field of a layer's central unit.

    ``size`` is ``(height, width)`` in pixels of the smallest window, centred in the theoretical field and of its
    shape, that holds :data:`SHARE` of the energy; ``energy_within`` is the share that lies in the theoretical field.
    """

    layer: str
    receptive_field: tuple[int, int]
    size: tuple[int, int]
    energy_within: float

    @property
    def share(self) -> float:
        """The effective field's share of the theoretical field's area."""
        return self.size[0] * self.size[1] / (self.receptive_field[0] * self.receptive_field[1])


def effective_receptive_field(
    model: nn.Module,
    image_shape: Sequence[int] = (3, 32, 32),
    *,
    samples: int = SAMPLES,
    seed: int = 0,
    name: str | None = None,
) -> list[EffectiveField]:
    """Measure the effective receptive field of each layer, in evaluation mode, with the model's own weights.

    ``samples`` images ``(C, H, W)`` of standard normal pixels are drawn by ``seed``. A unit's channels are weighted by
    normal numbers, so that the mean of the squared gradient is the squared Jacobian's. A layer whose unit
    has no gradient at all, as a dead ReLU's, is left out. A network is refused as by :func:`sepnet.anatomy.trace`.
    """
    reading = read(model, image_shape, name=name)
    rows = {row.steps[-1]: row.name for row in reading.rows}
    generator = torch.Generator().manual_seed(seed)
    energy = {step: torch.zeros(tuple(image_shape[1:])) for step in rows}
    for _ in range(samples):
        image = torch.randn((1, *image_shape), generator=generator).requires_grad_()
        tensors = _run(reading.graph, image)
        for step in rows:
            unit = _central(tensors[step.operation.results[0]], step.field)
            weights = torch.randn(unit.shape, generator=generator)
            (gradient,) = torch.autograd.grad(
                (unit * weights).sum(), image, retain_graph=True, allow_unused=True, materialize_grads=True
            )
            energy[step] += gradient.square().sum(dim=(0, 1))
    return [_effective(rows[step], step.field, found) for step, found in energy.items() if found.sum() > 0]


def _run(graph: Graph, image: Tensor) -> dict[Value, Tensor]:
    tensors = {value: own.detach().float() for value, own in graph.tensors.items()}
    tensors[graph.image] = image.clone()
    with torch.enable_grad():
        for op in graph.operations:
            if op.writes is not None:  # who asks for its gradient needs it as it was
                tensors[op.writes] = tensors[op.writes].clone()
            op.run(tensors)
    return tensors


def _central(tensor: Tensor, field: Field) -> Tensor:
    """Return all channels at the middle position along each image axis."""
    factors = [factor for dim in field.dims for factor in dim]
    apart = tensor.reshape([factor.size for factor in factors])
    return apart[tuple(slice(None) if factor.axis is None else factor.size // 2 for factor in factors)]


def _effective(layer: str, field: Field, energy: Tensor) -> EffectiveField:
    """Grow a window about the field's centre until it holds enough."""
    distances = []
    for axis, pixels in zip(AXES, energy.shape, strict=True):
        span = field.spans[axis]
        centre = span.low + span.jump * (field.count(axis) // 2) + (span.size - 1) / 2
        distances.append(((torch.arange(pixels) - centre).abs() + 0.5) / (span.size / 2))
    reach, found = torch.maximum(distances[0][:, None], distances[1]).flatten(), energy.flatten() / energy.sum()
    order = reach.argsort()
    held = found[order].cumsum(0)
    place = min(int((held < SHARE).sum()), len(held) - 1)
    share = min(float(reach[order][place]), 1.0)
    within = float(found[reach <= 1 + 1e-6].sum())
    height, width = (round(size * share) for size in field.receptive_field)
    return EffectiveField(
        layer=layer, receptive_field=field.receptive_field, size=(height, width), energy_within=within
    )
