"""What sepnet's anatomy says that units see, against the support of their gradients."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sepnet.anatomy import Anatomy, Layer, trace
from tests.anatomy.support import gradient_support, summing_max_pools, unit

ROWS = 6
"""Layers checked, from the first to the last, each at its middle and near a corner."""
Interval = tuple[int, int]
ADAPTIVE_MAX: Any = F.adaptive_max_pool2d


def check(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return how many rows a network has, how many positions were checked, and the first that differs.

    No unit may see more than its row says. It must see no less either, where no layer on the way has cut pixels off
    at the image's border.

    Raises:
        SepnetError: the network is refused.

    """
    anatomy = trace(model, image_shape)
    counts = sum(parameter.numel() for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    wrong = "" if anatomy.trainable == trainable else f"{anatomy.trainable} trainable parameters, not {trainable}"
    image = torch.rand(1, *image_shape, dtype=torch.float64).requires_grad_()
    outputs = outputs_of(settled(model, image), image)
    rows = {path: row for path in outputs if (row := last_row_of(anatomy, path)) is not None}
    named = {row.name: (path, row) for path, row in rows.items() if row.kind != "flatten" and row.output}
    picked = list(named.values())
    picked = [picked[round(i * (len(picked) - 1) / (ROWS - 1))] for i in range(ROWS)] if len(picked) > ROWS else picked
    checked = exact = 0
    for path, row in picked:
        for share in (0.5, 0.2):
            said, seen, complete = compare(anatomy, row, outputs[path], image, share)
            checked, exact = checked + 1, exact + complete
            inside = all(
                low >= lowest and high <= highest for (low, high), (lowest, highest) in zip(seen, said, strict=True)
            )
            if (seen != said if complete else not inside) and not wrong:
                wrong = f"{row.name} sees {seen}, not {said}"
    return {"rows": len(anatomy.layers), "parameters": counts, "checked": checked, "exact": exact, "wrong": wrong}


def compare(
    anatomy: Anatomy, row: Layer, output: Tensor, image: Tensor, share: float
) -> tuple[list[Interval], list[Interval], bool]:
    """Return what a unit sees by its row, clipped to the image, and by its gradient; and whether both must agree."""
    channels_last = output.ndim == 4 and tuple(output.shape[1:]) != row.output
    sizes = [1, 1] if output.ndim < 4 else list(output.shape[1:3] if channels_last else output.shape[2:])
    place = [int(size * share) for size in sizes]
    said = [
        (max(start + jump * index, 0), min(start + jump * index + field - 1, pixels - 1))
        for start, jump, index, field, pixels in zip(
            row.start, row.jump, place, row.receptive_field, image.shape[2:], strict=True
        )
    ]
    complete = all(
        start <= low and high < start + field + (units - 1) * jump
        for layer in anatomy.layers
        if len(layer.output) == 3
        for start, field, jump, units, (low, high) in zip(
            layer.start, layer.receptive_field, layer.jump, layer.output[1:], said, strict=True
        )
    )
    return said, list(gradient_support(unit(output, *place, channels_last=channels_last), image)), complete


def settled(model: nn.Module, image: Tensor) -> nn.Module:
    """Give a network positive weights, and its norms the statistics that keep its values near 1.

    Then nothing cancels, no ReLU is shut, and no gate is saturated.
    """
    model.double().eval().requires_grad_(False)  # so that what requires a gradient depends on the image
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            values = torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.5
            parameter.copy_(values / max(1, parameter[0].numel()) if parameter.ndim > 1 else values / 10)
    hooks = []
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.running_var is not None:
            hooks.append(module.register_forward_pre_hook(_measure))
            if module.weight is not None:
                module.weight.data.fill_(1.0)
    with torch.no_grad(), summing_pools():
        model(image)
    for hook in hooks:
        hook.remove()
    return model


def _measure(module: Any, inputs: tuple[Tensor, ...]) -> None:
    module.running_mean.zero_()
    module.running_var.fill_(float(inputs[0].square().mean()))


def outputs_of(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return what each module gave the first time it was called."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.requires_grad:
                found.setdefault(path, output.clone())

        return hook

    modules = {path: module for path, module in model.named_modules() if not isinstance(module, torch.jit.ScriptModule)}
    hooks = [module.register_forward_hook(keep(path)) for path, module in modules.items()]
    with summing_pools():
        model(image)
    for hook in hooks:
        hook.remove()
    return found


def last_row_of(anatomy: Anatomy, path: str) -> Layer | None:
    """Return the row of a module, or the last of the rows of what it called."""
    prefix = f"{path}." if path else ""
    rows = [layer for layer in anatomy.layers if f"{layer.name}.".startswith(prefix)]
    is_half_of_a_pair = path and any("+" in layer.name for layer in rows)
    return rows[-1] if rows and not is_half_of_a_pair else None


def _average(x: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
    return F.adaptive_avg_pool2d(x, output_size)


@contextmanager
def summing_pools() -> Iterator[None]:
    """Let maxima over windows add them up, so that the gradient reaches all of each window."""
    F.adaptive_max_pool2d = _average  # type: ignore[assignment]
    try:
        with summing_max_pools():
            yield
    finally:
        F.adaptive_max_pool2d = ADAPTIVE_MAX
