"""From a network to its anatomy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from sepnet.anatomy.anatomy import Anatomy, Convolution, Layer, Peak
from sepnet.anatomy.field import AXES
from sepnet.anatomy.ledger import Ledger
from sepnet.anatomy.names import Names
from sepnet.anatomy.pairs import Pair, find_pairs, reasons_alone
from sepnet.anatomy.peak import peak_step
from sepnet.anatomy.record import record, undisturbed
from sepnet.anatomy.walk import Step, walk
from sepnet.errors import SepnetError
from sepnet.settings import require_counts


def trace(
    model: nn.Module, image_shape: Sequence[int] = (3, 32, 32), *, name: str | None = None, one_output: bool = False
) -> Anatomy:
    """Return the anatomy of any feed-forward network for one image ``(C, H, W)``.

    The network runs once, in evaluation mode, on a zero image; its weights, its mode and the random state are
    as before afterwards. ``name`` is the network's name in the result and in errors, by default its class.
    With ``one_output`` a network is refused that returns anything but one tensor, as it cannot be trained.

    Raises:
        SepnetError: the network does not accept such an image, decides by the values in a tensor, or holds an
            operation whose receptive field is not one interval with one jump; the message names the layer.

    """
    reading = read(model, image_shape, name=name)
    if one_output and not isinstance(reading.result, fx.Node):
        raise SepnetError(not_one_tensor(reading.network, reading.result))
    return _Builder(model, reading).anatomy()


def not_one_tensor(network: str, output: Any) -> str:
    """Return what to say of a network that returns something else than one tensor."""
    kind = next((kind.__name__ for kind in (tuple, list, dict) if isinstance(output, kind)), type(output).__name__)
    return f"network '{network}' returns a {kind}: expected one tensor (N, classes), a number for each class"


@dataclass(frozen=True)
class Reading:
    """What a network did with one image ``(C, H, W)``: its steps, its depthwise→pointwise pairs, its result.

    ``result`` is what ``forward`` returned, each tensor as the node that computed it.
    """

    network: str
    image: tuple[int, int, int]
    steps: list[Step]
    pairs: list[Pair]
    result: Any


def read(model: nn.Module, image_shape: Sequence[int] = (3, 32, 32), *, name: str | None = None) -> Reading:
    """Return the steps of any feed-forward network, for those who want more of them than rows.

    Raises:
        SepnetError: as :func:`trace`, whose conditions hold here too.

    """
    network = name or type(model).__name__
    require_counts(image_shape=image_shape)
    channels, height, width = image_shape
    image = (channels, height, width)
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            place = f"layer '{path}'" if path else "it"
            raise SepnetError(
                f"network '{network}' cannot be read: {place} is compiled by torch.jit, which hides its operations; "
                "give the network uncompiled"
            )
    with undisturbed(model):
        recording = record(model, image, network)
        steps = walk(model, recording, network)
    if not any(step.kind for step in steps):
        raise SepnetError(f"network '{network}' does nothing with its image: expected at least one layer")
    return Reading(network, image, steps, find_pairs(steps), recording.nodes[-1].args[0])


class _Builder:
    """Turns steps into rows, a strict pair into one."""

    def __init__(self, model: nn.Module, reading: Reading) -> None:
        self.network, self.image = reading.network, reading.image
        self.steps, self.pairs = reading.steps, reading.pairs
        self.ledger = Ledger(model)
        names = Names(self.steps)
        strict = [pair for pair in self.pairs if not pair.between]
        self.strict_at = {pair.pointwise.node: pair for pair in strict}
        self.inside: set[fx.Node] = {pair.depthwise.node for pair in strict}
        self.names = {step.node: names.of(step) for step in self.steps if step.kind is not None}
        self.row_names = dict(self.names)
        for pair in strict:
            self.row_names[pair.depthwise.node] = self.row_names[pair.pointwise.node] = names.of_pair(pair)

    def anatomy(self) -> Anatomy:
        rows = [self._row(step) for step in self.steps if step.kind and step.node not in self.inside]
        values, at = peak_step(self.image, self.steps)
        return Anatomy(
            network=self.network,
            input=self.image,
            layers=(*rows, *self._unused()),
            convolutions=self._convolutions(),
            peak_activation=Peak(values=values, layer=self.row_names.get(at.node, at.path or at.operation)),
        )

    def _row(self, step: Step) -> Layer:
        pair = self.strict_at.get(step.node)
        halves = [pair.depthwise, step] if pair else [step]
        trainable, non_trainable = self.ledger.count(name for half in halves for name in half.tensors)
        height, width = step.field.spans
        return Layer(
            name=self.row_names[step.node],
            kind="separable" if pair else str(step.kind),
            output=_output(step),
            receptive_field=step.field.receptive_field,
            jump=(height.jump, width.jump),
            start=(height.low, width.low),
            trainable=trainable,
            non_trainable=non_trainable,
            macs=sum(half.outcome.macs for half in halves),
            dropout_rate=step.outcome.dropout_rate,
        )

    def _unused(self) -> list[Layer]:
        """Return rows for the tensors that no layer uses, so that the columns add up to the whole model."""
        rows = []
        for owner, names in self.ledger.left_over().items():
            trainable, non_trainable = self.ledger.count(names)
            if trainable + non_trainable:
                rows.append(_unused_row(owner or self.network, trainable, non_trainable))
        return rows

    def _convolutions(self) -> tuple[Convolution, ...]:
        reasons = reasons_alone(self.steps, self.pairs)
        pair_at = {pair.depthwise.node: pair for pair in self.pairs}
        return tuple(
            self._pair(pair_at[step.node]) if step.node in pair_at else self._alone(step, reasons[step.node])
            for step in self.steps
            if step.node in pair_at or step.node in reasons
        )

    def _pair(self, pair: Pair) -> Convolution:
        halves = (self.names[pair.depthwise.node], self.names[pair.pointwise.node])
        return Convolution(
            name=self.row_names[pair.pointwise.node] if not pair.between else "+".join(halves),
            parts=halves,
            between=tuple(self.names[step.node] for step in pair.between),
        )

    def _alone(self, step: Step, reason: str) -> Convolution:
        name = self.names[step.node]
        return Convolution(name=name, parts=(name,), reason=reason)


def _output(step: Step) -> tuple[int, ...]:
    """Return the output without the batch, channels first wherever the network keeps them."""
    shape = step.field.shape
    carriers = [dim for axis in AXES for dim in range(len(shape)) if axis in step.field.axes([dim])]
    if len(shape) == 4 and len(set(carriers)) == 2:
        order = [dim for dim in range(4) if dim not in carriers] + carriers
        shape = tuple(shape[dim] for dim in order)
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


def _unused_row(name: str, trainable: int, non_trainable: int) -> Layer:
    return Layer(
        name=name,
        kind="unused",
        output=(),
        receptive_field=(0, 0),
        jump=(0, 0),
        start=(0, 0),
        trainable=trainable,
        non_trainable=non_trainable,
        macs=0,
    )
