"""Any network of plain PyTorch layers, computed by sepnet's kernels where they are faster."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sepnet.errors import first_line
from sepnet.kernels.execution import Execution, precision
from sepnet.kernels.follow import follow, is_called_whole, structure
from sepnet.kernels.native import native
from sepnet.kernels.plan import Plan, make_plan
from sepnet.kernels.recording import Gradients, Repeated
from sepnet.kernels.straight import Reading, straight_reading
from sepnet.notices import notice_once

Network = Callable[[Tensor], Tensor]


def accelerate(model: nn.Module) -> Network:
    """Return a function that computes what the model computes, in training and in evaluation, and its gradients.

    It works on the model's own parameters and moving statistics, and follows what is changed in the model later: its
    mode, its settings, its modules. Where sepnet has no kernel for the processor, or nothing to win, it is the model
    itself; so it is, with a notice, where the model's code may do something else each time it runs.
    """
    if native() is None or is_called_whole(model):
        return model
    accelerated = Accelerated(model)
    plan = accelerated.plan()
    return accelerated if plan is not None and plan.wins else model


def repeated(network: Network, gradients: Gradients) -> Gradients:
    """Return a function that finds the gradients of what :func:`accelerate` returned, from its calls noted once.

    ``gradients`` calls the network and does nothing else that may differ from one time to the next. Where the network
    may, or is PyTorch's to compute, it is returned as it is.
    """
    if not isinstance(network, Accelerated) or network.readings() is None:
        return gradients
    return Repeated(gradients, network.model, network.readings)


class Accelerated:
    """A model's steps, run one after the other."""

    MOST_PLANS = 8
    """A network that keeps changing is computed by PyTorch."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._plans: list[tuple[list[Any], Plan | None]] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Accelerated, (self.model,)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Return the model's output for images ``(N, C, H, W)``."""
        plain = len(inputs) == 1 and isinstance(inputs[0], Tensor) and not options
        plain = plain and not nn.modules.module._has_any_global_hook()
        plan = self.plan() if plain and precision() is not None else None
        return self.model(*inputs, **options) if plan is None else Execution(plan, *inputs).run()

    def plan(self) -> Plan | None:
        """Return the steps of the model as it is now; None if PyTorch is to compute it."""
        present = structure(self.model)
        for made_of, plan in self._plans:
            if made_of == present and (plan is None or plan.followed.reading.holds()):
                return plan
        if len(self._plans) == self.MOST_PLANS:
            return None
        self._plans.append((present, self._make_plan()))
        return self._plans[-1][1]

    def readings(self) -> list[Reading] | None:
        """Return the plain values that the model's code takes; None if it may do something else another time."""
        plan = self.plan()
        if plan is None:
            return None
        inside = [straight_reading(module) for whole in plan.called_whole for module in whole.modules()]
        readings = [reading for reading in (plan.followed.reading, *inside) if reading is not None]
        return readings if len(readings) == len(inside) + 1 else None

    def _make_plan(self) -> Plan | None:
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            if tensor.device.type != "cpu" or (tensor.is_floating_point() and tensor.dtype != torch.float32):
                return None
        try:
            return make_plan(follow(self.model))
        except Exception as error:  # the network's own code, given symbols
            reason = first_line(error) or type(error).__name__
            notice_once(f"the network is computed by PyTorch alone, not by sepnet's kernels: {reason}")
            return None
