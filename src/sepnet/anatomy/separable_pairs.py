"""Which convolutions belong to a depthwise separable pair, and why the others do not."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sepnet.anatomy.graph import Operation
from sepnet.anatomy.windows import windows

if TYPE_CHECKING:
    from sepnet.anatomy.steps import Step

TRANSPARENT = {"contiguous", "clone", "to", "detach", "alias"}


@dataclass(frozen=True)
class Settings:
    """The settings of one convolution by which it is told depthwise, pointwise or neither."""

    in_channels: int
    groups: int
    kernel: tuple[int, ...]
    plain_steps: bool

    @classmethod
    def of(cls, op: Operation) -> "Settings":
        """Return the settings of a convolution."""
        _, per_group, *kernel = op["weight"].shape
        plain = all((window.stride, window.before) == (1, 0) for window in windows(op))
        return cls(per_group * op["groups"], op["groups"], tuple(kernel), plain)

    @property
    def can_be_depthwise(self) -> bool:
        """Whether each input channel is convolved on its own."""
        return self.groups == self.in_channels

    @property
    def is_depthwise(self) -> bool:
        """Whether it is depthwise and, having several input channels, nothing else."""
        return self.in_channels > 1 and self.can_be_depthwise

    @property
    def can_be_pointwise(self) -> bool:
        """Whether it is 1×1 with stride 1, no padding, one group."""
        return self.groups == 1 and self.plain_steps and set(self.kernel) == {1}


@dataclass(frozen=True)
class Pair:
    """A depthwise convolution, the pointwise one that follows it, and the layers between."""

    depthwise: Operation
    pointwise: Operation
    between: tuple[Operation, ...]


def find_pairs(steps: "Sequence[Step]") -> tuple[list[Pair], dict[Operation, str]]:
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
        ours = Settings.of(op).can_be_depthwise and op not in taken
        if ours and following is not None and Settings.of(following).can_be_pointwise:
            pairs.append(Pair(op, following, between))
            taken |= {op, following}
    return pairs, {op: _reason(Settings.of(op), after[op][1]) for op in convolutions if op not in taken}


def _follow(here: Operation, steps: "dict[Operation, Step]") -> tuple[tuple[Operation, ...], Operation | None]:
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


def _reason(settings: Settings, after: Operation | None) -> str:
    size = "×".join(map(str, settings.kernel))
    if settings.is_depthwise:
        return "depthwise without a pointwise after it"
    if settings.can_be_pointwise:
        before = after is not None and Settings.of(after).is_depthwise
        return "pointwise before depthwise" if before else "pointwise without a depthwise before it"
    if settings.groups > 1:
        return f"grouped {size} convolution, {settings.groups} groups"
    if set(settings.kernel) == {1}:
        return "1×1 convolution with a stride or padding"
    return f"plain {size} convolution"
