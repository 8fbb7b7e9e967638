"""A network followed once, step by step: its graph, and whether it still is the network that was followed."""

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from sepnet.kernels.straight import NotStraight, Reading, changes_input, read, works_in_place


@dataclass
class Followed:
    """A network's graph, and what it depends on."""

    graph: fx.Graph
    modules: dict[str, nn.Module]
    reading: Reading
    changing: set[fx.Node]
    """Nodes that may change the value that they begin with: nothing else uses it."""


def is_called_whole(module: nn.Module) -> bool:
    """Tell whether a module is one node of the graph: PyTorch's own, or one without modules inside."""
    return _Tracer().is_leaf_module(module, "")


def follow(model: nn.Module) -> Followed:
    """Return a model's graph, in the mode that it is in.

    Raises:
        NotStraight: it may do something else another time, or changes values that are used elsewhere.
        Exception: whatever the model's code raises when it is given symbols in place of tensors.

    """
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise NotStraight("a part of it is compiled by torch.jit")
        if _hooks(module):
            raise NotStraight("it has hooks")
    reading = read(model, lambda module: not is_called_whole(module))
    graph, modules = _Tracer().trace(model), dict(model.named_modules())
    changing = {node for node in graph.nodes if _require_own(node, _changed(node, modules), modules)}
    return Followed(graph, modules, reading, changing)


def structure(model: nn.Module) -> list[Any]:
    """Return what a model is made of, to be compared with what it was made of: its graph follows from that.

    This is done at each pass, and takes a quarter of a millisecond for a hundred modules.
    """
    parts: list[Any] = []
    modules, known = [model], {id(model)}
    for module in modules:  # which grows
        kind, own = type(module), vars(module)
        if isinstance(module, torch.jit.ScriptModule):  # which is not followed, and keeps nothing where others do
            parts.append(kind)
            continue
        parts += (kind, _hooks(module), "forward" in own)
        for child in own["_modules"].values():
            parts.append(child)
            if child is not None and id(child) not in known:
                known.add(id(child))
                modules.append(child)
        for tensors in (own["_parameters"], own["_buffers"]):
            parts += [t is not None and (t.dtype, t.is_cpu) for t in tensors.values()]
        if kind.__module__.startswith("torch.nn"):  # of others, what their code takes is known
            parts += [value for name, value in own.items() if type(value) in _SETTINGS and name != "training"]
    return parts


_SETTINGS = {bool, int, str, tuple}


def _hooks(module: nn.Module) -> bool:
    own = vars(module)
    return any((own["_forward_pre_hooks"], own["_forward_hooks"], own["_backward_pre_hooks"], own["_backward_hooks"]))


class _Symbol(fx.Proxy):
    """Stands for a tensor; unlike PyTorch's, it knows ``x += y`` from ``x = x + y``."""


_IN_PLACE = {
    getattr(operator, f"i{name}")
    for name in ("add", "sub", "mul", "matmul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor")
}


def _record(function: Any) -> Any:
    def method(self: _Symbol, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _function in _IN_PLACE:
    setattr(_Symbol, f"__{_function.__name__}__", _record(_function))


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True  # a buffer's values change; PyTorch's default is to take them as they are

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Call whole what has no modules inside: it holds nothing to compute with its neighbours."""
        return super().is_leaf_module(m, module_qualified_name) or not any(m.children())

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return the symbol for a node."""
        return _Symbol(node, self)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> tuple[Any, list[Any]]:  # noqa: ARG002
        """Give the model images alone: what else its forward takes is left at its defaults."""
        return root_fn, [self.root, self.create_proxy("placeholder", "images", (), {})]


def _changed(node: fx.Node, modules: dict[str, nn.Module]) -> list[Any]:
    """Return the arguments that a node may change."""
    match node.op:
        case "call_module" if changes_input(modules[str(node.target)]):
            return node.all_input_nodes
        case "call_function" if "out" in node.kwargs:
            return node.all_input_nodes
        case "call_function" if node.target in _IN_PLACE:
            return [*node.args[:1]]
        case "call_function" if works_in_place(node.target, len(node.args), node.kwargs.get("inplace")):
            return [*node.args[:1]] or node.all_input_nodes
        case "call_method" if str(node.target).endswith("_"):
            return [*node.args[:1]]
    return []


def _require_own(node: fx.Node, changed: list[Any], modules: dict[str, nn.Module]) -> bool:
    """Tell whether a node may change any argument; refuse one that is not its own."""
    for source in changed:
        if isinstance(source, fx.Node) and not _is_own(source, node, modules):
            raise NotStraight(f"'{node.name}' may change in place a value that is used elsewhere")
    return bool(changed)


def _is_own(source: fx.Node, user: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Tell whether a value, under whatever names, is in the hands of one user alone."""
    if [*source.users] != [user] or source.op in ("placeholder", "get_attr"):
        return False
    made_by = type(modules[str(source.target)]) if source.op == "call_module" else source.target
    befores = _changed(source, modules) or source.all_input_nodes
    return made_by in _MAKERS or all(_is_own(before, source, modules) for before in befores)


_MAKERS = (
    *(nn.Conv2d, nn.BatchNorm2d, nn.Linear),
    *(operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.mul, torch.cat),
    *("new_empty", "new_ones", "new_zeros", "new_full"),
)
"""What always makes a tensor of its own, rather than return what it was given or another view of it."""
