"""Count each parameter and each moving statistic once, at the first layer that uses it."""

from collections import defaultdict
from collections.abc import Iterable

from torch import nn
from torch.nn.parameter import is_lazy

from sepnet.anatomy.graph import tensors_of


def parameters_of(model: nn.Module) -> int | None:
    """Return what :attr:`Anatomy.parameters` will be, without a capture; None while a lazy layer has no shapes yet."""
    tensors = tensors_of(model)
    if any(is_lazy(tensor) for tensor in tensors.values()):
        return None
    return sum(Ledger(model).count(tensors))


class Ledger:
    """The parameters and floating-point buffers of a model, crossed off as layers use them.

    Integer buffers, such as batch norm's count of batches, are no parameters and are left out.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tensors = {name: tensor for name, tensor in tensors_of(model).items() if tensor.is_floating_point()}
        self._counted: set[int] = set()

    def count(self, names: Iterable[str]) -> tuple[int, int]:
        """Return how many values, trainable and not, the named tensors hold that were not counted before."""
        counts = {True: 0, False: 0}
        for tensor in (self._tensors[name] for name in names if name in self._tensors):
            if id(tensor) not in self._counted:
                self._counted.add(id(tensor))
                counts[tensor.requires_grad] += tensor.numel()
        return counts[True], counts[False]

    def left_over(self) -> dict[str, list[str]]:
        """Return the names of the tensors not counted yet, by the path of the module that owns them."""
        owners = defaultdict(list)
        for name, tensor in self._tensors.items():
            if id(tensor) not in self._counted:
                owners[name.rpartition(".")[0]].append(name)
        return dict(owners)
