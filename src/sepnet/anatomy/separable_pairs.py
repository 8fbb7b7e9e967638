"""Which convolutions belong to a depthwise separable pair, and why the others do not."""

from collections.abc import Sequence
from dataclasses import dataclass

from sepnet.anatomy.graph import Operation
from sepnet.anatomy.steps import Step
from sepnet.anatomy.windows import kind_of

TRANSPARENT = {"contiguous", "clone", "to", "detach", "alias"}


@dataclass(frozen=True)
class Pair:
    """A depthwise convolution, the pointwise one after it, and the layers between them."""

    depthwise: Operation
    pointwise: Operation
    between: tuple[Operation, ...]


def find_pairs(steps: Sequence[Step]) -> tuple[list[Pair], dict[Operation, str]]:
    """Return the depthwise→pointwise pairs, each convolution in one at most, and why each other one is in none.

    Between the two there may be norms, activations and dropout; nothing else may use what lies between.
    """
    by_operation = {step.operation: step for step in steps}
    convolutions = [step.operation for step in steps if step.is_convolution]
    after = {op: _follow(op, by_operation) for op in convolutions}
    pairs: list[Pair] = []
    taken: set[Operation] = set()
    for op in convolutions:
        between, following = after[op]
        one_channel_each = op["weight"].shape[1] == 1
        if one_channel_each and op not in taken and following is not None and kind_of(following) == "pointwise":
            pairs.append(Pair(op, following, between))
            taken |= {op, following}
    return pairs, {op: _reason(op, after[op][1]) for op in convolutions if op not in taken}


def _follow(here: Operation, steps: dict[Operation, Step]) -> tuple[tuple[Operation, ...], Operation | None]:
    """Return the layers after a convolution up to the next one, which is ``None`` if anything else comes."""
    between: list[Operation] = []
    while True:
        users = here.results[0].users
        if len(users) != 1 or users[0] not in steps or users[0].images != [here.results[0]]:
            return tuple(between), None
        here = users[0]
        step = steps[here]
        if step.is_convolution:
            return tuple(between), here
        if not (step.operator.between if step.kind else here.name in TRANSPARENT):
            return tuple(between), None
        if step.kind:
            between.append(here)


def _reason(op: Operation, after: Operation | None) -> str:
    kind, kernel = kind_of(op), op["weight"].shape[2:]
    if kind == "depthwise":
        return "depthwise without a pointwise after it"
    if kind == "pointwise":
        before = after is not None and kind_of(after) == "depthwise"
        return "pointwise before depthwise" if before else "pointwise without a depthwise before it"
    size = "×".join(map(str, kernel))
    if op["groups"] > 1:
        return f"grouped {size} convolution, {op['groups']} groups"
    if set(kernel) == {1}:
        return "1×1 convolution with a stride or padding"
    return f"plain {size} convolution"
