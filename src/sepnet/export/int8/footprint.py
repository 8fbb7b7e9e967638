"""The memory that a network's int8 form takes on a device, known before the network is trained."""

from collections.abc import Sequence

from torch import nn

from sepnet.export.int8.lowering import lower
from sepnet.export.int8.plan import constant_bytes
from sepnet.export.int8.quantization import plan_for_sizes
from sepnet.export.int8.schedule import schedule
from sepnet.rules import Footprint


def footprint(model: nn.Module, image_shape: Sequence[int], *, name: str = "network") -> Footprint:
    """Return the bytes of constants and of the arena of a network, trained or not, for images ``(C, H, W)``.

    They are those of its C, whatever its weights; TensorFlow Lite's RAM is another, since it fuses nothing.

    Raises:
        SepnetError: it cannot be read, or int8 arithmetic is not known for one of its operators.

    """
    plan = plan_for_sizes(lower(model, image_shape, name))
    laid_out = schedule(plan)
    return Footprint(
        flash=plan.constant_bytes,
        largest=max(plan.operators, key=constant_bytes).path or "input",
        ram=laid_out.arena_bytes,
        peak=laid_out.steps[laid_out.busiest].operators[0].path or "input",
    )
