"""The peak of activation memory while a network runs one image, layer by layer."""

from collections.abc import Sequence
from math import prod

from sepnet.anatomy.graph import Operation, Value
from sepnet.anatomy.steps import Step


def peak_memory(image: Value, steps: Sequence[Step]) -> tuple[int, Operation]:
    """Return the largest number of values alive at once, and the operation at which they are.

    At each operation these are its result and all earlier results still needed, by it or later. Activations, norms
    and dropout overwrite their input when nothing else needs it; views take nothing. Weights do not count.
    """
    owners: dict[Value, Value] = {image: image}
    born = {image: 0}
    last_use: dict[Value, int] = {}
    uses = [step.operation.images for step in steps]
    for place, step in enumerate(steps):
        op = step.operation
        source = owners[op.images[0]]
        needed_later = any(owners.get(value) is source for later in uses[place + 1 :] for value in later)
        shares = op.views is not None or (step.reuses_input and not needed_later)
        for result in op.results:
            owners[result] = source if shares else result
            born.setdefault(owners[result], place)
        last_use.update({owners[value]: place for value in (*op.images, *op.results)})
    alive = [
        sum(prod(owner.shape) for owner, start in born.items() if start <= place <= last_use.get(owner, -1))
        for place in range(len(steps))
    ]
    place = max(range(len(steps)), key=alive.__getitem__)
    return alive[place], steps[place].operation
