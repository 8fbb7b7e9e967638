"""Runs AOTAutograd's graphs: per shape, consecutive kernels become one call with their arguments planned once.

What ``torch._dynamo.backends.cudagraphs`` does on a GPU. Plans hold no tensor: outputs and what is saved for backward
are new tensors each time, so passes may overlap and nest as PyTorch's own may.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from sepnet.backend.launch import Launch
from sepnet.backend.library import OPERATORS, Call

MOST_PLANS = 16
"""Of one graph, for the shapes seen last."""


class Executor:
    """A callable that computes a graph; it takes one list, which it empties."""

    def __init__(self, module: fx.GraphModule, inputs: Sequence[Any]) -> None:  # noqa: ARG002
        self._boxed_call = True  # of the instance: PyTorch copies it to a wrapper
        self._module = module
        self._plans: OrderedDict[Any, Any] = OrderedDict()
        placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
        self._varying = [index for index, node in enumerate(placeholders) if not _is_static(node.meta.get("val"))]

    def __call__(self, arguments: list[Any]) -> Any:
        """Return the graph's outputs for its inputs."""
        key = (torch.get_num_threads(), *(_shape(arguments[index]) for index in self._varying))
        plan = self._plans.get(key)
        if plan is None:
            recording = Recording(self._module)
            outputs = recording.run(*arguments)
            self._plans[key] = Planner(recording).compile()
            if len(self._plans) > MOST_PLANS:
                self._plans.popitem(last=False)
            return outputs
        return plan(arguments)


def _is_static(value: Any) -> bool:
    """Tell whether guards hold fast what a plan depends on of an input."""
    return isinstance(value, Tensor) and all(type(number) is int for number in (*value.shape, *value.stride()))


def _shape(value: Any) -> Any:
    return (value.shape, value.stride()) if isinstance(value, Tensor) else value


class Recording(fx.Interpreter):
    """Computes a graph operator by operator, and notes which kernels were called with what."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.constants: dict[fx.Node, Any] = {}
        """Sizes, which a plan holds fast."""
        self.calls: dict[fx.Node, tuple[Call, list[fx.Node]]] = {}
        """Kernels, whose arguments hold numbers in place of addresses: from 1 on, of the nodes in the list."""
        self.outputs: dict[fx.Node, list[Any]] = {}
        self.made: dict[Any, Any] = {}
        """Sizes, strides and type of each tensor that a kernel makes."""

    def run_node(self, n: fx.Node) -> Any:
        """Compute a node."""
        result = super().run_node(n)
        if isinstance(result, int | float):
            self.constants[n] = result
        if n.op == "call_function" and n.target in OPERATORS:
            self._note(n, result)
        return result

    def _note(self, node: fx.Node, result: Any) -> None:
        op = OPERATORS[node.target]
        arguments = fx.map_arg(node.args, lambda source: self.env[source])
        ordered = op.ordered(tuple(arguments))
        if any(before is not after for before, after in zip(arguments, ordered, strict=True)):
            return
        sources: list[fx.Node] = []
        numbers = {id(self.env[source]): source for source in node.all_input_nodes}
        outputs = result if isinstance(result, tuple) else (result,)
        users: dict[Any, Any] = {user.args[1]: user for user in node.users} if isinstance(result, tuple) else {0: node}
        for index, tensor in enumerate(outputs):
            numbers[id(tensor)] = users.get(index, (node, index))

        def address(tensor: Tensor) -> int:
            source = numbers[id(tensor)]
            if source not in sources:
                sources.append(source)
            return sources.index(source) + 1

        call = op.call(ordered, outputs, address)
        if call is None:
            return
        self.calls[node] = call, sources
        self.outputs[node] = [users.get(index, (node, index)) for index in range(len(outputs))]
        for place, tensor in zip(self.outputs[node], outputs, strict=True):
            self.made[place] = tuple(tensor.shape), tensor.stride(), tensor.dtype


class Planner:
    """Makes a graph in which kernels that follow one another are one call."""

    def __init__(self, recording: Recording) -> None:
        module: Any = recording.module
        self.module: fx.GraphModule = module
        self.old: fx.Graph = module.graph
        self.calls, self.outputs, self.made = recording.calls, recording.outputs, recording.made
        self.graph = fx.Graph(self.module)
        self.copies: dict[Any, fx.Node] = {}
        self.pending: list[fx.Node] = []
        self.aliases: dict[fx.Node, fx.Node] = {}
        """Outputs of kernels that go straight to where the graph would copy them, by the nodes to write to."""
        self.dropped: set[fx.Node] = set()
        self.constants = recording.constants
        for node in self.old.nodes:
            if node.op == "call_function" and node.target is torch.ops.aten.copy_.default:
                self._write_through(node)

    def _write_through(self, node: fx.Node) -> None:
        """Let a kernel write where the graph would copy its output to, if nothing reads the old numbers afterwards."""
        target, source = node.all_input_nodes
        fit = target.op == "placeholder" and source in self.made and list(source.users) == [node]
        if fit and not any(user.op == "output" for user in (*target.users, *node.users)):
            uses = [other for other in self.old.nodes if target in other.all_input_nodes]
            if uses[-1] is node and source.args[0] in uses[:-1] and uses[-2] is source.args[0]:
                self.aliases[source] = target
                self.dropped.add(node)

    def compile(self) -> Any:
        """Return the graph's function."""
        for node in self.old.nodes:
            if node.op == "placeholder":
                self.copies[node] = self.graph.node_copy(node)
            if node in self.constants:
                self.copies[node] = self.constants[node]
            elif node in self.calls:
                self.pending.append(node)
            elif node.op != "placeholder" and node not in self.made and node not in self.dropped:
                if node.op == "output" or any(source not in self.copies for source in node.all_input_nodes):
                    self._launch()
                if node.op == "output" and self.aliases:  # kernels write where PyTorch does not see it
                    written = [self.copies[target] for target in self.aliases.values()]
                    self.graph.call_function(torch.autograd.graph.increment_version, (written,))
                self.copies[node] = self.graph.node_copy(node, self.copies.__getitem__)
        self.graph.set_codegen(torch.fx.graph._BoxedCodeGen())
        return fx.GraphModule(self.module, self.graph).forward

    def _launch(self) -> None:
        """Call what is pending."""
        mine = {*self.pending, *self.dropped, *self.constants}
        for place in (place for node in self.pending for place in self.outputs[node]):
            if place in self.aliases:
                self.copies[place] = self.copies[self.aliases[place]]
            elif isinstance(place, fx.Node) and any(user not in mine for user in place.users):
                size, stride, dtype = self.made[place]
                self.copies[place] = self.graph.call_function(torch.empty_strided, (size, stride), {"dtype": dtype})
        calls = [self.calls[node] for node in self.pending]
        places = dict.fromkeys(place for _, sources in calls for place in sources)
        given = {place: self.copies[place] for place in places if place in self.copies}
        sizes = {place: bytes_of(*self.made[place]) for place in places if place not in given}
        if calls:
            self.graph.call_function(Launch(calls, list(given), sizes), tuple(given.values()))
        self.pending.clear()


def bytes_of(size: Sequence[int], stride: Sequence[int], dtype: torch.dtype) -> int:
    """Return how many bytes a tensor takes."""
    if 0 in size:
        return 0
    return (1 + sum((s - 1) * t for s, t in zip(size, stride, strict=True))) * dtype.itemsize
