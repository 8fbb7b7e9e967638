"""Which convolutions belong to a depthwise separable pair, and why the others do not."""

from dataclasses import dataclass

from torch import fx

from sepnet.anatomy.call import Convolution2d
from sepnet.anatomy.operations import ACTIVATIONS
from sepnet.anatomy.walk import Step

BETWEEN = {*ACTIVATIONS, "batch norm", "layer norm", "rms norm", "group norm", "instance norm", "dropout"}
TRANSPARENT = {"Identity", "contiguous", "clone", "to", "detach"}


@dataclass(frozen=True)
class Pair:
    """A depthwise step, the pointwise step that follows it, and the layers between."""

    depthwise: Step
    pointwise: Step
    between: tuple[Step, ...]


def find_pairs(steps: list[Step]) -> list[Pair]:
    """Return the depthwise→pointwise pairs, each convolution in one pair at most.

    Between the two there may be norms, activations and dropout; nothing else may use what lies between.
    """
    by_node = {step.node: step for step in steps}
    taken: set[fx.Node] = set()
    pairs = []
    for step in steps:
        settings = step.outcome.convolution
        if settings is None or not settings.can_be_depthwise or step.node in taken:
            continue
        between, after = _follow(step, by_node)
        if after is not None and _settings(after).can_be_pointwise:
            pairs.append(Pair(step, after, between))
            taken |= {step.node, after.node}
    return pairs


def reasons_alone(steps: list[Step], pairs: list[Pair]) -> dict[fx.Node, str]:
    """Return, for each convolution in no pair, why it is in none."""
    by_node = {step.node: step for step in steps}
    paired = {half.node for pair in pairs for half in (pair.depthwise, pair.pointwise)}
    return {
        step.node: _reason(_settings(step), _follow(step, by_node)[1])
        for step in steps
        if step.outcome.convolution is not None and step.node not in paired
    }


def _follow(step: Step, by_node: dict[fx.Node, Step]) -> tuple[tuple[Step, ...], Step | None]:
    """Return the layers after a convolution up to the next one, which is ``None`` if anything else comes."""
    between: list[Step] = []
    here = step
    while True:
        users = [by_node[user] for user in here.node.users if user in by_node]
        if len(users) != 1 or len(here.node.users) != 1 or users[0].inputs != (here.node,):
            return tuple(between), None
        here = users[0]
        if here.outcome.convolution is not None:
            return tuple(between), here
        if here.kind is None and here.operation not in TRANSPARENT:
            return tuple(between), None
        if here.kind is not None:
            if here.kind not in BETWEEN:
                return tuple(between), None
            between.append(here)


def _settings(step: Step) -> Convolution2d:
    assert step.outcome.convolution is not None
    return step.outcome.convolution


def _reason(settings: Convolution2d, after: Step | None) -> str:
    size = "×".join(map(str, settings.kernel))
    if settings.is_depthwise:
        return "depthwise without a pointwise after it"
    if settings.can_be_pointwise:
        before = after is not None and _settings(after).is_depthwise
        return "pointwise before depthwise" if before else "pointwise without a depthwise before it"
    if settings.groups > 1:
        return f"grouped {size} convolution, {settings.groups} groups"
    if set(settings.kernel) == {1}:
        return "1×1 convolution with a stride or padding"
    return f"plain {size} convolution"
