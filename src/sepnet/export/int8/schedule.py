"""How a device runs an int8 plan: operators fused into steps, and one arena for all their values.

A depthwise convolution, the pointwise one after it, and the functions and sum after that run pixel by pixel, so that
only the last of them needs memory for an image. Fusing changes no answer.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sepnet.export.int8.plan import Convolve, Normalize, Operator, Plan, Sum, Table, View

ALIGNMENT = 4
"""Bytes to which each value's place in the arena is aligned."""


@dataclass(kw_only=True, eq=False)
class Step:
    """Operators that run together; the first reads ``source``, a sum among them ``addend``, the last writes ``output``.

    ``scratch`` are bytes that it needs while it runs: for a pixel between two operators.
    """

    operators: list[Operator]
    addend: int | None = None
    scratch: int = 0

    @property
    def output(self) -> int:
        """The value that it writes."""
        return self.operators[-1].output

    @property
    def reads(self) -> tuple[int, ...]:
        """The values that it reads from the arena."""
        return self.operators[0].inputs + (() if self.addend is None else (self.addend,))


@dataclass(kw_only=True, eq=False)
class Schedule:
    """Steps in order, and where in the arena each of their values lies; ``scratch`` has the places of scratch bytes."""

    plan: Plan
    steps: list[Step]
    offsets: dict[int, int] = field(default_factory=dict)
    scratch: list[int] = field(default_factory=list)
    arena_bytes: int = 0
    """Peak RAM: pixels, scores and scratch among it."""
    bound: int = 0
    """The most bytes alive at once, below which no arena can be."""
    busiest: int = 0
    """The step at which they are."""


@dataclass(eq=False)
class Buffer:
    """Bytes that are alive from the step ``first`` to ``last``, and their place in an arena."""

    size: int
    first: int
    last: int
    offset: int = 0


def schedule(plan: Plan) -> Schedule:
    """Return the steps of a plan, and the arena in which they run."""
    steps = fuse(plan)
    holders = _lifetimes(plan, steps)
    scratch = [Buffer(_aligned(step.scratch), place, place) for place, step in enumerate(steps)]
    buffers = [*{id(buffer): buffer for buffer in holders.values()}.values(), *scratch]
    placed = place(sorted(buffers, key=lambda one: one.first))
    alive = [sum(one.size for one in placed if one.first <= place <= one.last) for place in range(len(steps))]
    return Schedule(
        plan=plan,
        steps=steps,
        offsets={value: buffer.offset for value, buffer in holders.items()},
        scratch=[buffer.offset for buffer in scratch],
        arena_bytes=max(buffer.offset + buffer.size for buffer in placed),
        bound=max(alive),
        busiest=alive.index(max(alive)),
    )


def fuse(plan: Plan) -> list[Step]:
    """Return a plan's operators in steps, in an order in which each step finds what it reads."""
    users: dict[int, list[Operator]] = {value: [] for value in plan.shapes}
    for operator in plan.operators:
        for value in operator.inputs:
            users[value].append(operator)
    by_output: dict[int, Step] = {}
    steps: list[Step] = []
    for operator in plan.operators:
        joined = next((step for value in operator.inputs if (step := _taken(operator, value, users, by_output))), None)
        if joined is None:
            joined = Step(operators=[operator])
        else:
            del by_output[joined.output]
            steps.remove(joined)
            if isinstance(operator, Sum):
                joined.addend = next(value for value in operator.inputs if value != joined.output)
            joined.operators.append(operator)
        steps.append(joined)
        by_output[joined.output] = joined
    for step in steps:
        step.scratch = _scratch(step)
    return steps


def _taken(operator: Operator, value: int, users: dict[int, list[Operator]], by_output: dict[int, Step]) -> Step | None:
    """Return the step that computes ``value`` if ``operator`` can run in it."""
    step = by_output.get(value)
    if step is None or len(users[value]) != 1 or not isinstance(step.operators[0], Convolve):
        return None
    if isinstance(operator, Convolve):
        alone = len(step.operators) == 1 and step.operators[0].is_depthwise
        return step if alone and operator.is_pointwise else None
    if isinstance(operator, Sum):
        return step if step.addend is None and len(set(operator.inputs)) == 2 else None
    return step if isinstance(operator, Table) else None


def _scratch(step: Step) -> int:
    """Return the bytes of the pixels between a step's operators."""
    first, *after = step.operators
    between = first.shape[2] if any(isinstance(operator, Convolve) for operator in after) else 0
    return _aligned(between) + (step.operators[-1].shape[2] if step.addend is not None else 0)


def _lifetimes(plan: Plan, steps: list[Step]) -> dict[int, Buffer]:
    """Return the buffer of each value between steps; one whose input nobody else needs later takes its place."""
    last_read = {value: place for place, step in enumerate(steps) for value in step.reads}
    last_read[steps[-1].output] = len(steps)
    holders = {0: Buffer(_aligned(plan.size(0)), 0, last_read[0])}
    for place, step in enumerate(steps):
        end = max(last_read.get(step.output, place), place)
        inherited = _inherited(step)
        holder = holders[inherited] if inherited is not None else None
        if holder is not None and (holder.last <= place or isinstance(step.operators[0], View)):
            holder.last = max(holder.last, end)
            holders[step.output] = holder
        else:
            holders[step.output] = Buffer(_aligned(plan.size(step.output)), place, end)
    return holders


def _inherited(step: Step) -> int | None:
    """Return the value in whose place a step may write, since it reads no number of it after writing there."""
    first = step.operators[0]
    if isinstance(first, Convolve):
        safe = step.addend is not None and step.addend not in first.inputs
        return step.addend if safe else None
    return first.inputs[0] if isinstance(first, Normalize | Table | Sum | View) else None


def place(buffers: Iterable[Buffer]) -> list[Buffer]:
    """Give each buffer its offset, the largest first, each as low as those alive with it let it.

    Equal ones stay in the order in which they are given. Returns them as they were placed.
    """
    placed: list[Buffer] = []
    for buffer in sorted(buffers, key=lambda one: -one.size):
        others = [one for one in placed if one.first <= buffer.last and buffer.first <= one.last]
        for other in sorted(others, key=lambda one: one.offset):
            if buffer.offset + buffer.size <= other.offset:
                break
            buffer.offset = max(buffer.offset, other.offset + other.size)
        placed.append(buffer)
    return placed


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
