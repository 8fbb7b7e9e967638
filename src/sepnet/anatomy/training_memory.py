"""What PyTorch keeps of a forward pass until the backward pass, layer by layer."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from sepnet.anatomy.graph import Graph, Operation, Value

IN_TRAINING = ("training", "train", "use_input_stats")
"""The arguments of norms and dropout that are true in training."""


def kept_for_backward(graph: Graph) -> Counter[Operation]:
    """Return the bytes that autograd keeps for one image, by the operation for which it keeps them first.

    The graph runs with tensors that have no values, norms and dropout as in training, and autograd says which
    tensors it saves. Each memory counts once; the network's own parameters and buffers do not count.
    """
    with FakeTensorMode():
        return _kept(graph)


def _kept(graph: Graph) -> Counter[Operation]:
    tensors: dict[Value, Tensor] = {}
    for value, own in graph.tensors.items():
        tensors[value] = torch.empty(own.shape, dtype=own.dtype, device=own.device).requires_grad_(own.requires_grad)
    seen = {tensor.untyped_storage()._cdata for tensor in tensors.values()}
    like = next((tensor for tensor in tensors.values() if tensor.requires_grad), torch.zeros(()))
    tensors[graph.image] = torch.empty(graph.image.shape, device=like.device, dtype=like.dtype)
    kept: Counter[Operation] = Counter()
    for op in graph.operations:

        def pack(tensor: Tensor, op: Operation = op) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in seen:
                seen.add(storage._cdata)
                kept[op] += storage.nbytes()
            return tensor

        changed: dict[str, Any] = {name: True for name in IN_TRAINING if op[name] is False}
        if "running_mean" in op.arguments:  # by the batch's own statistics
            changed |= {"running_mean": None, "running_var": None}
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            op.run(tensors, **changed)
    return kept
