"""Which values of Dynamo's graph are changed in place where that shows, so that nothing about them may be deferred."""

import inspect
import operator
from collections.abc import Collection
from typing import Any

from torch import fx

IN_PLACE = frozenset(
    getattr(operator, name)
    for name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor", "setitem")
)


def find_pinned(graph: fx.Graph, fresh: Collection[tuple[str, Any]]) -> set[fx.Node]:
    """Return the nodes whose memory is changed in place by another node while a third one may still read it.

    A value that one of the calls in ``fresh`` made and that nothing but the change in place uses may as well be
    changed into a new one: those are left out.
    """
    pinned: set[fx.Node] = set()
    for node in graph.nodes:
        for argument in changed(node):
            if (argument.op, argument.target) not in fresh or len(argument.users) > 1:
                pinned.add(argument)
    waiting = list(pinned)
    while waiting:  # whatever may share memory with one of them
        node = waiting.pop()
        related = [user for user in node.users if not _is_fresh(user, fresh)]
        if not _is_fresh(node, fresh):
            related += node.all_input_nodes
        for other in related:
            if other not in pinned and other.op != "output":
                pinned.add(other)
                waiting.append(other)
    return pinned


def _is_fresh(node: fx.Node, fresh: Collection[tuple[str, Any]]) -> bool:
    return (node.op, node.target) in fresh and not changed(node)


def changed(node: fx.Node) -> list[fx.Node]:
    """Return the arguments that a node changes in place."""
    if node.op not in ("call_function", "call_method"):
        return []
    found: list[Any] = [node.kwargs.get("out")]
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = node.target in IN_PLACE or (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"
    schema = getattr(node.target, "_schema", None)
    if in_place or (schema is not None and schema.is_mutable) or _asks_in_place(node):
        found += node.args[:1] if schema is None else node.args
    return [argument for argument in found if isinstance(argument, fx.Node)]


def _asks_in_place(node: fx.Node) -> bool:
    if node.kwargs.get("inplace"):
        return True
    if node.op != "call_function" or len(node.args) < 2 or not inspect.isfunction(node.target):
        return False
    names = list(inspect.signature(node.target).parameters)
    return "inplace" in names[: len(node.args)] and bool(node.args[names.index("inplace")])
