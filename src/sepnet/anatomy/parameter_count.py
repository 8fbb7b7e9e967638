"""Count each parameter and each moving statistic once, at the first layer that uses it."""

from collections import defaultdict
from collections.abc import Iterable

from torch import Tensor, nn


class Ledger:
    """The parameters and floating-point buffers of a model, crossed off as layers use them.

    Integer buffers, such as batch norm's count of batches, are no parameters and are left out.
    """

    def __init__(self, model: nn.Module) -> None:
        buffers = model.named_buffers(remove_duplicate=False)
        self._tensors: dict[str, Tensor] = {
            **dict(model.named_parameters(remove_duplicate=False)),
            **{name: buffer for name, buffer in buffers if buffer.is_floating_point()},
        }
        self._counted: set[int] = set()

    def count(self, names: Iterable[str]) -> tuple[int, int]:
        """Return how many values, trainable and not, the named tensors hold that were not counted before."""
        trainable = non_trainable = 0
        for name in names:
            tensor = self._tensors.get(name)
            if tensor is None or id(tensor) in self._counted:
                continue
            self._counted.add(id(tensor))
            if tensor.requires_grad:
                trainable += tensor.numel()
            else:
                non_trainable += tensor.numel()
        return trainable, non_trainable

    def left_over(self) -> dict[str, list[str]]:
        """Return the names of the tensors not counted yet, by the path of the module that owns them."""
        owners = defaultdict(list)
        for name, tensor in self._tensors.items():
            if id(tensor) not in self._counted:
                owners[name.rpartition(".")[0]].append(name)
        return dict(owners)
