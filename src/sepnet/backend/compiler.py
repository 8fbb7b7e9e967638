"""From one of Dynamo's graphs to what computes it: fusion, AOTAutograd, executors."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx
from torch._dynamo import config as dynamo
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.exc import TorchDynamoException
from torch._functorch import config as functorch

from sepnet.backend.allocator import keep_freed_memory
from sepnet.backend.executor import Executor
from sepnet.backend.fusion import Fusion
from sepnet.backend.native import describe, native
from sepnet.backend.partition import partition
from sepnet.errors import first_line
from sepnet.notices import notice_once

MOST_REASONS = 3
"""Of what PyTorch computes, told in one notice."""


def compile_graph(module: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
    """Return what computes a graph: sepnet's operators where it has them, PyTorch's for the rest.

    A graph with nothing to win is PyTorch's; so is one that cannot be compiled, and that is said.
    """
    compiled = native()
    if compiled is None:
        notice_once(f"computing with {describe()}")
        return module.forward
    # Both are read after this graph was compiled. Hooks that are added later are guarded against; and since executors
    # take no memory over, the graph of a backward pass may be kept.
    dynamo.skip_nnmodule_hook_guards = False
    functorch.donated_buffer = False
    original = module.graph
    try:
        fusion = Fusion(module, compiled)
        if not fusion.run():
            return module.forward
        compute: Callable[..., Any] = aot_autograd(
            fw_compiler=Executor,
            bw_compiler=Executor,
            inference_compiler=Executor,
            partition_fn=partition,
            keep_inference_input_mutations=True,
        )(module, inputs)
    except TorchDynamoException:  # Dynamo begins anew, with what it learnt
        raise
    except Exception as error:
        reason = first_line(error) or type(error).__name__
        notice_once(f"a part of the network is computed by PyTorch alone, not by sepnet's kernels: {reason}")
        module.graph = original
        return module.forward
    keep_freed_memory()
    if fusion.left:
        kinds = [f"{count} × {kind}" for kind, count in fusion.left.most_common()]
        more = ["…"] if len(kinds) > MOST_REASONS else []
        notice_once(f"layers that PyTorch computes, not sepnet's kernels: {', '.join([*kinds[:MOST_REASONS], *more])}")
    return compute
