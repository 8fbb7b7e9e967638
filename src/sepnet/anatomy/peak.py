"""The peak of activation memory while a network runs one image, layer by layer."""

from math import prod
from typing import Any

from torch import fx

from sepnet.anatomy.walk import Step


def peak_step(image: tuple[int, ...], steps: list[Step]) -> tuple[int, Step]:
    """Return the largest number of values alive at once, and the step at which they are.

    At each step these are its result and all earlier results still needed, by it or later. Activations, norms
    and dropout overwrite their input when nothing else needs it; views take nothing. Weights do not count.
    """
    buffers, sizes = _buffers(image, steps)
    last_use = _last_uses(steps, buffers)
    born = {step.node: place for place, step in enumerate(steps)}
    alive = [
        sum(size for buffer, size in sizes.items() if born.get(buffer, 0) <= place <= last_use[buffer])
        for place in range(len(steps))
    ]
    place = max(range(len(steps)), key=alive.__getitem__)
    return alive[place], steps[place]


def _buffers(image: tuple[int, ...], steps: list[Step]) -> tuple[dict[fx.Node, fx.Node], dict[fx.Node, int]]:
    """Return, for each node, the node whose memory holds its result, and the size of each such memory."""
    by_node = {step.node for step in steps}
    buffers: dict[fx.Node, fx.Node] = {}
    sizes: dict[fx.Node, int] = {}
    for place, step in enumerate(steps):
        for source in step.inputs:
            if source not in by_node and source not in buffers:
                buffers[source] = source
                sizes[source] = prod(image)
        in_place = step.outcome.memory == "in place" and not _needed_later(step, steps[place + 1 :], buffers)
        shares = in_place or step.outcome.memory == "view"
        buffers[step.node] = buffers[step.inputs[0]] if shares else step.node
        if not shares:
            sizes[step.node] = _elements(step.output)
    return buffers, sizes


def _needed_later(step: Step, later: list[Step], buffers: dict[fx.Node, fx.Node]) -> bool:
    """Say whether the memory of a step's input is read again after the step."""
    held = buffers[step.inputs[0]]
    return any(buffers.get(source) == held for after in later for source in after.inputs)


def _last_uses(steps: list[Step], buffers: dict[fx.Node, fx.Node]) -> dict[fx.Node, int]:
    last = {}
    for place, step in enumerate(steps):
        for node in (*step.inputs, step.node):
            last[buffers[node]] = place
    return last


def _elements(shape: Any) -> int:
    """Return the number of values in a tensor of this shape, or in several."""
    several = len(shape) > 0 and not isinstance(shape[0], int)
    return sum(_elements(one) for one in shape) if several else prod(shape)
