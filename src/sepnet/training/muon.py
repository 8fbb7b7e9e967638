"""Muon: steps of pointwise weights whose directions all weigh the same."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that drives every singular value into about 0.7 … 1.2. (Jordan 2024, "Muon".)"""
ITERATIONS = 5

TURNED = "turned"
"""The key of a group of pointwise weights."""


class Muon(torch.optim.SGD):
    """Muon for the groups of parameters that have ``turned=True``, SGD for all others.

    A pointwise weight ``(out, in, 1, 1)`` is kept at the norm √out, and steps by ``lr · √max(1, out / in)`` times
    the momentum of its gradient, made orthogonal. A batch norm behind it takes its norm's meaning away, so ``lr`` is
    the share of itself by which a step turns it. (Jordan 2024, "Muon" and airbench94.)
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step of every weight that has a gradient; return what ``closure``, called first, returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group.get(TURNED):
                self._turn(group)
        self.param_groups = [group for group in groups if not group.get(TURNED)]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _turn(self, group: dict[str, Any]) -> None:
        alike = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is not None:
                alike[weight.shape].append(weight)
        for shape, weights in alike.items():
            out, channels = shape[0], shape[1:].numel()
            for weight in weights:
                self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
            buffers: list[Any] = [self.state[weight]["momentum_buffer"] for weight in weights]
            gradients: list[Any] = [weight.grad for weight in weights]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, gradients)
            moved = torch._foreach_add(gradients, buffers, alpha=group["momentum"])  # Nesterov's
            turns = orthogonalize(torch.stack([tensor.reshape(out, channels) for tensor in moved]))
            turns *= group["lr"] * max(1.0, out / channels) ** 0.5
            values = torch.stack([weight.reshape(out, channels) for weight in weights]) - turns
            values *= out**0.5 / values.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
            torch._foreach_copy_(weights, [value.view(shape) for value in values])


def orthogonalize(matrices: Tensor) -> Tensor:
    """Return matrices ``(K, out, in)`` with the same singular vectors, and singular values of about 1.

    By five Newton–Schulz iterations. (Jordan 2024, "Muon".)
    """
    a, b, c = COEFFICIENTS
    turned = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if turned else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if turned else x
