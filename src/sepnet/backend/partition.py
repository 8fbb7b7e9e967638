"""AOTAutograd's joint graph of forward and backward, cleaned and cut in two."""

from typing import Any

import torch
from torch import fx
from torch._functorch.partitioners import default_partition

aten = torch.ops.aten


def partition(joint: fx.GraphModule, inputs: Any, **options: Any) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return the forward and the backward graph of a joint one; nothing is computed twice to save memory."""
    clean(joint)
    return default_partition(joint, inputs, **options)


def clean(module: fx.GraphModule) -> None:
    """Remove calls that say something to autograd or to functionalization alone."""
    for node in list(module.graph.nodes):
        if node.op != "call_function" or any(user.op == "output" for user in node.users):
            continue
        if node.target is aten.detach.default:
            node.replace_all_uses_with(node.args[0])
        elif node.target is aten.copy.default and _alike(*node.args[:2]):
            node.replace_all_uses_with(node.args[1])
    module.graph.eliminate_dead_code()
    module.recompile()


def _alike(target: fx.Node, source: fx.Node) -> bool:
    first, second = target.meta["val"], source.meta["val"]
    same = all(getattr(first, what) == getattr(second, what) for what in ("shape", "dtype", "device"))
    return same and bool(first.stride() == second.stride())
