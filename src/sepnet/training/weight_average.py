"""A moving average of the weights."""

import copy

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a model's parameters and moving statistics.

    The decay grows as ``min(decay, (1 + t) / (10 + t))``, so that the first, poor weights are soon forgotten.
    (Tarvainen and Valpola 2017, section 2; the ramp is TensorFlow's ``ExponentialMovingAverage``.)
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model)
        self.decay = decay
        self._averaged = _float_tensors(self.model)
        self._live = _float_tensors(model)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the live weights after step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averaged, self._live, 1 - decay)


def _float_tensors(model: nn.Module) -> list[Tensor]:
    tensors = [*model.parameters(), *model.buffers()]
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
