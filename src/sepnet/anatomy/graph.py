"""A network as a graph of ATen operators, in the order of execution."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from sepnet.anatomy.capture import capture, place_of
from sepnet.errors import SepnetError

OF_SHAPE_ALONE = {
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty"),
}
"""Operators that take a tensor for its shape and do not look at its values."""

DRAWN = {"empty", "uniform", "normal", "rand", "randn"}
"""Operators whose results are random, or not set."""

MODES = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
"""Where PyTorch puts a part of the graph for which a mode is set, and how many settings come before it."""


@dataclass(eq=False)
class Value:
    """One tensor. ``operation`` computes it; without one it is the image, a parameter, a buffer or a constant.

    ``name`` is a parameter's, buffer's or constant's. ``base`` is the value whose memory it shares.
    """

    shape: tuple[int, ...]
    operation: Operation | None = None
    name: str | None = None
    sees_image: bool = False
    base: Value | None = None
    users: list[Operation] = field(default_factory=list)

    @property
    def root(self) -> Value:
        """The value that owns its memory."""
        return self if self.base is None else self.base.root

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """The parameters and buffers from which a constant is computed."""
        if self.name is not None:
            return (self.name,)
        sources = self.operation.inputs if self.operation else []
        return tuple(dict.fromkeys(name for value in sources for name in value.tensors))

    @cached_property
    def is_drawn(self) -> bool:
        """Whether it is computed from random numbers, or from memory that nothing has set."""
        op = self.operation
        return op is not None and (op.name in DRAWN or any(value.is_drawn for value in op.inputs))


@dataclass(eq=False)
class Operation:
    """One call of an ATen operator.

    ``arguments`` are by the names in the operator's schema, its defaults among them; tensors are :class:`Value`.
    ``path`` is the module in whose ``forward`` it was called, ``module`` that module's class, with its package;
    ``call`` is the same for all operations of one call of the module. ``autocast`` are the settings of the autocast
    in which it was called. ``overwritten`` is an earlier operation that changed in place what this one reads through
    another view.
    """

    target: Any
    arguments: dict[str, Any]
    path: str
    module: str
    call: str
    with_gradient: bool
    autocast: tuple[Any, ...] | None
    results: tuple[Value, ...] = ()
    overwritten: Operation | None = None

    @property
    def name(self) -> str:
        """The operator's name; in place or not makes no difference."""
        return str(self.target.overloadpacket.__name__).removesuffix("_")

    def __getitem__(self, name: str) -> Any:
        """Return an argument, ``None`` if the operator has none of that name."""
        return self.arguments.get(name)

    @property
    def input(self) -> Any:
        """Its first argument."""
        return next(iter(self.arguments.values()))

    @property
    def inputs(self) -> list[Value]:
        """All tensors given."""
        return values_in(self.arguments)

    @property
    def images(self) -> list[Value]:
        """The tensors given that depend on the image."""
        return [value for value in self.inputs if value.sees_image]

    @property
    def sees_image(self) -> bool:
        """Whether its results depend on the image."""
        return any(value.sees_image for value in self.results)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its first result."""
        return self.results[0].shape

    @property
    def is_leaf(self) -> bool:
        """Whether a layer of ``torch.nn`` called it."""
        return self.module.startswith("torch.nn.")

    @property
    def tensors(self) -> tuple[str, ...]:
        """The parameters and buffers that it uses, themselves or computed from."""
        return tuple(name for value in self.inputs if not value.sees_image for name in value.tensors)

    @property
    def writes(self) -> Value | None:
        """The tensor that it changes in place."""
        return self._aliased(written=True)

    @property
    def views(self) -> Value | None:
        """The tensor of which its results are views."""
        return self._aliased(written=False)

    def _aliased(self, *, written: bool) -> Value | None:
        for argument in self.target._schema.arguments:
            given = self.arguments[argument.name]
            if argument.alias_info is not None and argument.alias_info.is_write == written:
                return given if isinstance(given, Value) else None
        return None

    def run(self, tensors: dict[Value, Tensor], **changed: Any) -> None:
        """Compute its results in PyTorch, from the tensors of its inputs, and add them to ``tensors``."""
        given = {**self.arguments, **changed}
        arguments = pytree.tree_map_only(Value, tensors.__getitem__, given)
        cast = nullcontext() if self.autocast is None else torch.autocast(*self.autocast)
        with torch.set_grad_enabled(self.with_gradient), cast:
            results = self.target(**arguments)
        several = results if isinstance(results, tuple | list) else (results,)[: len(self.results)]
        tensors.update(zip(self.results, several, strict=True))

    def on(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return what it makes of a tensor in the place of its first, any others being of shape alone."""
        first, *others = pytree.tree_map_only(Value, lambda value: torch.empty(value.shape), self.arguments).items()
        results = self.target(**{first[0]: tensor}, **dict(others))
        return [results] if isinstance(results, Tensor) else results


@dataclass(frozen=True)
class Graph:
    """What a network does with one image ``(1, C, H, W)``.

    ``result`` is what ``forward`` returned, its tensors as :class:`Value`. ``tensors`` are the network's own
    parameters, buffers and constants, by the values that stand for them.
    """

    network: str
    image: Value
    operations: list[Operation]
    result: Any
    tensors: dict[Value, Tensor]


def read_graph(model: nn.Module, image_shape: Sequence[int], network: str) -> Graph:
    """Return the graph of a network, captured once by :func:`capture`, which refuses some."""
    channels, height, width = image_shape
    program = capture(model, (channels, height, width), network)
    _require_operators(program.graph_module, network)
    of, own = program.graph_signature, program.constants | tensors_of(model)
    names = {**of.inputs_to_parameters, **of.inputs_to_buffers, **of.inputs_to_lifted_tensor_constants}
    inputs = []
    for node in program.graph.find_nodes(op="placeholder"):
        shape = tuple(getattr(node.meta["val"], "shape", ()))
        inputs.append(Value(shape, name=names.get(node.name), sees_image=node.name == of.user_inputs[0]))
    operations: list[Operation] = []
    results = _Reader(program.graph_module, operations, {}).run(*inputs)
    return Graph(
        network=network,
        image=next(value for value in inputs if value.sees_image),
        operations=operations,
        result=pytree.tree_unflatten(list(results), program.call_spec.out_spec),
        tensors={value: own[value.name] for value in inputs if value.name is not None},
    )


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a network by all of their names."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def _require_operators(module: fx.GraphModule, network: str) -> None:
    """Refuse a call that holds functions and is no ATen operator, as ``torch.cond`` and ``torch.map`` are."""
    for part in module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else []:
            known = node.target is operator.getitem or hasattr(node.target, "_schema")
            if node.op == "call_function" and not known and getattr(node.target, "__name__", "") not in MODES:
                raise SepnetError(
                    f"network '{network}' cannot be read: {place_of(_caller(node)[0])} it uses {node.target}, whose "
                    "functions sepnet does not look into; write it as plain layers"
                )


class _Reader(fx.Interpreter):
    """Turns the nodes of a captured graph into operations; what an operation changed in place is seen changed."""

    def __init__(
        self,
        part: Any,
        operations: list[Operation],
        stale: dict[Value, Operation],
        *,
        with_gradient: bool = True,
        autocast: tuple[Any, ...] | None = None,
    ) -> None:
        super().__init__(part, garbage_collect_values=False)
        self.operations, self.stale = operations, stale
        self.with_gradient, self.autocast = with_gradient, autocast

    def run_node(self, n: fx.Node) -> Any:
        """Return the result of a node, its tensors as :class:`Value`."""
        if n.op != "call_function" or n.target is operator.getitem:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        mode = getattr(n.target, "__name__", "")
        if mode not in MODES:
            return self._operation(n, args, kwargs)
        part, *inputs = args[MODES[mode] :]
        with_gradient, autocast = self.with_gradient, self.autocast
        if "grad" in mode:
            with_gradient = bool(args[0])
        else:
            autocast = args[: MODES[mode]]
        reader = _Reader(part, self.operations, self.stale, with_gradient=with_gradient, autocast=autocast)
        return reader.run(*inputs, initial_env=self.env)

    def _operation(self, node: fx.Node, args: Any, kwargs: dict[str, Any]) -> Any:
        schema = node.target._schema.arguments  # type: ignore[union-attr]
        given = {**dict(zip((one.name for one in schema), args, strict=False)), **kwargs}
        arguments = {one.name: given.get(one.name, one.default_value) for one in schema}
        path, kind, call = _caller(node)
        operation = Operation(node.target, arguments, path, kind, call, self.with_gradient, self.autocast)
        sees = bool(operation.images) and operation.name not in OF_SHAPE_ALONE
        written, viewed = operation.writes, operation.views
        results = pytree.tree_map_only(
            (Tensor, torch.SymInt, torch.SymFloat, torch.SymBool, int, float),
            lambda one: Value(tuple(getattr(one, "shape", ())), operation, sees_image=sees, base=written or viewed),
            node.meta.get("val"),
        )
        operation.results = tuple(values_in(results))
        operation.overwritten = next((self.stale[value] for value in operation.inputs if value in self.stale), None)
        for value in operation.inputs:
            value.users.append(operation)
        self.operations.append(operation)
        if written is not None:
            self._overwrite(written, operation)
        return results

    def _overwrite(self, written: Value, operation: Operation) -> None:
        """Let all who hold a tensor see its new values; other views of its memory are stale from now on."""
        self.env.update({node: operation.results[0] for node, value in self.env.items() if value is written})
        held, root = values_in(list(self.env.values())), written.root
        self.stale.update({value: operation for value in held if value.root is root and value.operation != operation})


def _caller(node: fx.Node) -> tuple[str, str, str]:
    """Return path and class of the module that called an operator, and what tells its calls apart."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    call, (path, kind) = list(stack.items())[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return path.partition("@")[0], kind.replace("utils.parametrize.Parametrized", "parametrized."), call


def values_in(tree: Any) -> list[Value]:
    """Return the tensors in lists, tuples and dictionaries."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Value)]
