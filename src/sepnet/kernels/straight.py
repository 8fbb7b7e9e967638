"""Whether a network's code does the same each time it runs, so that following it once shows all that it does."""

import ast
import builtins
import copy
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn


class NotStraight(Exception):
    """Code may do something else the next time; the message says which."""


@dataclass
class Reading:
    """The plain values that code computes with, and where it takes them from."""

    taken: list[tuple[Mapping[str, Any], str, Any]] = field(default_factory=list)

    def take(self, owner: Mapping[str, Any], name: str) -> Any:
        """Return ``owner[name]``, and note that it was taken."""
        self.taken.append((owner, name, copy.deepcopy(owner[name])))
        return owner[name]

    def holds(self) -> bool:
        """Tell whether every value is still what it was."""
        return all(name in owner and owner[name] == value for owner, name, value in self.taken)


def read(model: nn.Module, followed: Callable[[nn.Module], bool]) -> Reading:
    """Return what plain values a model's code depends on, if all of its code that is ``followed`` is straight.

    Straight code computes local values from modules, parameters, buffers and constants by PyTorch's functions of
    tensors, and changes nothing else. What draws at random or counts its calls is not. A module that is not followed
    is called whole each time and may do as it likes.

    Raises:
        NotStraight: it is not, or its source is not at hand.

    """
    reading = Reading()
    done: set[tuple[FunctionType, int]] = set()
    for module in model.modules():
        kind = type(module)
        if kind.__call__ is not nn.Module.__call__:
            raise NotStraight(f"{kind.__name__} has a __call__ of its own")
        if "forward" in vars(module):
            raise NotStraight(f"a {kind.__name__} has a forward that its class has not")
        if not followed(module):
            continue
        for name in _SPECIAL:
            origin = next((cls for cls in kind.__mro__ if name in vars(cls)), object)
            if origin is not object and not _is_torchs(origin):
                raise NotStraight(f"{kind.__name__} has a {name} of its own")
        if kind.forward not in (nn.Sequential.forward, nn.Module.forward):
            _Code(kind.forward, module, reading, done).check()
    return reading


def changes_input(module: nn.Module) -> bool:
    """Tell whether a module that is called whole may change the tensor that it is given.

    PyTorch's own say so. Of others it is known only if their code is straight.
    """
    if _is_torchs(type(module)):
        return bool(getattr(module, "inplace", False))
    code = _straight_code(module)
    return code is None or bool(code.in_place)


def straight_reading(module: nn.Module) -> Reading | None:
    """Return the plain values that a module called whole takes; None if it may do otherwise. PyTorch's own do not."""
    if _is_torchs(type(module)):
        return Reading()
    code = _straight_code(module)
    return None if code is None else code.reading


def _straight_code(module: nn.Module) -> "_Code | None":
    code = _Code(type(module).forward, module, Reading(), set())
    try:
        code.check()
    except NotStraight:
        return None
    return code


def works_in_place(function: Any, args: int, inplace: object) -> bool:
    """Tell whether a function, called with so many arguments in order, changes the first.

    ``inplace`` is the argument of that name, if it is given.
    """
    name = getattr(function, "__name__", "")
    if name.endswith("_") and not name.endswith("__"):
        return True
    if not isinstance(function, FunctionType):
        return False
    names = list(inspect.signature(function).parameters)
    return "inplace" in names and (bool(inplace) or args > names.index("inplace"))


_SPECIAL = ("_call_impl", "__getattr__", "__getattribute__", "__getitem__", "__iter__", "__len__", "__bool__", "__eq__")
_PLAIN_SYNTAX = (
    *(
        ast.Return,
        ast.Assign,
        ast.AugAssign,
        ast.AnnAssign,
        ast.Expr,
        ast.If,
        ast.For,
        ast.Break,
        ast.Continue,
        ast.Pass,
    ),
    *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Constant, ast.Tuple, ast.List, ast.Dict),
    *(ast.Subscript, ast.Slice, ast.Starred, ast.keyword, ast.comprehension),
    *(ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop),
)
_BUILTINS = (
    *(range, zip, enumerate, reversed, len, list, tuple, dict, sum, min, max, abs, int, float, round),
    *(value for value in vars(math).values() if callable(value)),
)
_CONSTANTS = (type(None), bool, int, float, str, torch.dtype, torch.device, torch.memory_format)
_OF_TENSORS = {name for name in dir(Tensor) if not name.startswith("_")}
_OF_CONTAINERS = ("children", "named_children", "items", "values", "keys")
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)
_FUNCTIONAL = {
    value
    for name, value in vars(nn.functional).items()
    if isinstance(value, (FunctionType, BuiltinFunctionType)) and name not in vars(torch.overrides)
}
_UNKNOWN = object()


@dataclass(frozen=True)
class _Method:
    function: Any
    owner: nn.Module | None


def _is_torchs(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "torch"


def _is_of_tensors(value: Any) -> bool:
    """Tell whether a value is a function of PyTorch's that computes with the tensors it is given."""
    if not isinstance(value, (FunctionType, BuiltinFunctionType)):
        return False
    return value in torch.overrides.get_testing_overrides() or value in _FUNCTIONAL


def _parse(function: Any) -> ast.FunctionDef:
    name = getattr(function, "__qualname__", str(function))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError):
        raise NotStraight(f"the source of {name} is not at hand") from None
    plain = isinstance(function, FunctionType) and not hasattr(function, "__wrapped__")
    if not plain or not isinstance(tree, ast.FunctionDef) or tree.name != function.__code__.co_name:
        raise NotStraight(f"{name} is not a plain function")
    if any(not isinstance(decorator, ast.Name) or decorator.id != "staticmethod" for decorator in tree.decorator_list):
        raise NotStraight(f"{name} is decorated")
    return tree


def _name(node: ast.AST) -> str:
    """Return the field's name of a kind of syntax."""
    return {"NamedExpr": ":=", "JoinedStr": "a formatted string"}.get(kind := type(node).__name__, kind.lower())


def _stored(node: ast.AST) -> Iterator[str]:
    """Yield the names that a node assigns to, but for those inside comprehensions, which end with them."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.ListComp, ast.GeneratorExp)):
            yield from _stored(child)


def _assignments(tree: ast.AST) -> list[ast.Assign | ast.AnnAssign]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.Assign, ast.AnnAssign))]


class _Code:
    """The code of one function; of a method, with the module that it belongs to."""

    def __init__(
        self, function: Any, owner: nn.Module | None, reading: Reading, done: set[tuple[FunctionType, int]]
    ) -> None:
        self.function = function
        self.owner = owner
        self.reading = reading
        self.done = done
        self.in_place: list[str] = []

    def check(self) -> None:
        """Raise if the code is not straight."""
        if (self.function, id(self.owner)) in self.done:
            return
        self.done.add((self.function, id(self.owner)))
        tree = _parse(self.function)
        self.arguments = [node.arg for node in ast.walk(tree.args) if isinstance(node, ast.arg)]
        self.itself = self.arguments.pop(0) if self.owner is not None and self.arguments else None
        self.stored = {name for statement in tree.body for name in _stored(statement)}
        self.locals = {*self.arguments, *self.stored}
        if self.itself in self.stored:
            self._refuse(tree, f"assigns to {self.itself}")
        self.lists = self._lists(tree)
        self.held = self._held(tree)
        self.parts = {
            name for node in _assignments(tree) if isinstance(node.value, ast.Attribute) for name in _stored(node)
        }
        for value in (*(self.function.__defaults__ or ()), *(self.function.__kwdefaults__ or {}).values()):
            if not isinstance(value, _CONSTANTS):
                self._refuse(tree, "has a default that is no constant")
        for statement in tree.body:
            self._visit(statement)

    def _refuse(self, node: ast.AST, what: str) -> None:
        line = self.function.__code__.co_firstlineno + getattr(node, "lineno", 1) - 1
        raise NotStraight(f"{self.function.__qualname__} {what} (line {line})")

    def _lists(self, tree: ast.FunctionDef) -> set[str]:
        """Return the local names that stand for lists made here, which may grow."""
        made: set[str] = set()
        others: set[str] = set(self.arguments)
        for node in ast.walk(tree):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                    (made if isinstance(node.value, (ast.List, ast.ListComp)) else others).add(name)
                case ast.Assign():
                    others |= set(_stored(node))
                case ast.For() | ast.comprehension():
                    others |= set(_stored(node.target))
        return made - others

    def _held(self, tree: ast.FunctionDef) -> set[str]:
        """Return the local names that may stand for modules, or for what belongs to the module."""
        held: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, (ast.For, ast.comprehension)):
                held |= set(_stored(node.target))
        before = None
        while before != held:
            before = set(held)
            for node in _assignments(tree):
                if self._may_hold(node.value, held):
                    held |= set(_stored(node))
        return held

    def _may_hold(self, node: ast.AST | None, held: set[str]) -> bool:
        match node:
            case ast.Name():
                return node.id == self.itself or node.id in held
            case ast.Attribute() | ast.Subscript() | ast.Starred():
                return self._may_hold(node.value, held)
            case ast.Tuple() | ast.List() | ast.IfExp() | ast.BoolOp() | ast.ListComp() | ast.Dict():
                return any(self._may_hold(child, held) for child in ast.iter_child_nodes(node))
        return False

    def _visit(self, node: ast.AST) -> None:
        match node:
            case ast.Raise():
                return  # what raises is not followed to its end
            case ast.Assert():
                return self._visit(node.test)
            case ast.AnnAssign(target=ast.Name()):
                return None if node.value is None else self._visit(node.value)
            case ast.AugAssign(target=ast.Name(id=name)):
                if name in self.held | self.parts:
                    self._refuse(node, f"changes {name}")
                if name not in self.lists:
                    self.in_place.append(name)
                return self._visit(node.value)
            case ast.Name(ctx=ast.Load()):
                if node.id != self.itself and node.id not in self.locals:
                    self._accept(self._known(node), node)
                return None
            case ast.Attribute(ctx=ast.Load()):
                return self._visit_attribute(node)
            case ast.Attribute():
                self._refuse(node, f"assigns to {ast.unparse(node)}")
            case ast.Call():
                return self._visit_call(node)
            case ast.ListComp() | ast.GeneratorExp():
                outer = self.locals
                self.locals = outer | {name for part in node.generators for name in _stored(part.target)}
                for child in ast.iter_child_nodes(node):
                    self._visit(child)
                self.locals = outer
                return None
            case ast.Compare() if any(isinstance(sign, (ast.Is, ast.IsNot)) for sign in node.ops):
                # What a module returns is not None while it is followed, and never one and the same thing.
                argument = isinstance(node.left, ast.Name) and node.left.id in {*self.arguments} - self.stored
                given = argument or self._known(node.left) is not _UNKNOWN
                if not given or not all(isinstance(other, ast.Constant) for other in node.comparators):
                    self._refuse(node, "asks which object a value is")
            case ast.Subscript(ctx=ast.Store()):
                self._refuse(node, "assigns to a part of a value")
            case _ if not isinstance(node, (ast.Name, *_PLAIN_SYNTAX)):
                self._refuse(node, f"has {_name(node)}")
        for child in ast.iter_child_nodes(node):
            self._visit(child)

    def _visit_attribute(self, node: ast.Attribute) -> None:
        known = self._known(node)
        if known is not _UNKNOWN:
            self._accept(known, node)
            return
        held = not isinstance(self._known(node.value), Tensor) and self._may_hold(node.value, self.held)
        if held or node.attr not in _OF_TENSORS:
            self._refuse(node, f"takes .{node.attr} of a value")
        if node.attr.endswith("_"):
            self.in_place.append(node.attr)
        self._visit(node.value)

    def _visit_call(self, node: ast.Call) -> None:
        function = node.func
        match function:
            case ast.Attribute(value=ast.Name(id=name), attr="append" | "extend") if name in self.lists:
                pass
            case _:
                self._visit(function)
        given = {word.arg: word.value for word in node.keywords}
        inplace = given.get("inplace")
        wanted = inplace is not None and not (isinstance(inplace, ast.Constant) and not inplace.value)
        if works_in_place(self._known(function), len(node.args), wanted) or "out" in given:
            self.in_place.append(ast.unparse(function))
        for child in (*node.args, *node.keywords):
            self._visit(child)

    def _known(self, node: ast.AST) -> Any:
        """Return what an expression stands for, where it follows from the module and the function's surroundings."""
        match node:
            case ast.Name(id=name) if name == self.itself and name not in self.locals:
                return self.owner
            case ast.Name(id=name) if name not in self.locals:
                return self._surrounding(name)
            case ast.Attribute():
                owner = self._known(node.value)
                if isinstance(owner, nn.Module):
                    return self._member(owner, node)
                if isinstance(owner, ModuleType) and (owner is math or owner.__name__.partition(".")[0] == "torch"):
                    return getattr(owner, node.attr, _UNKNOWN)
            case ast.Subscript(slice=ast.Constant(value=key)):
                owner = self._known(node.value)
                if type(owner) in _CONTAINERS:
                    return owner[key]
        return _UNKNOWN

    def _surrounding(self, name: str) -> Any:
        code = self.function.__code__
        if name in code.co_freevars:
            value = self.function.__closure__[code.co_freevars.index(name)].cell_contents
            return value if isinstance(value, (ModuleType, FunctionType, BuiltinFunctionType)) else _UNKNOWN
        if name not in self.function.__globals__:
            return getattr(builtins, name, _UNKNOWN)
        value = self.function.__globals__[name]
        if self._is_constant(value):
            return self.reading.take(self.function.__globals__, name)
        return _UNKNOWN if isinstance(value, Tensor) else value

    def _member(self, owner: nn.Module, node: ast.Attribute) -> Any:
        own, name = vars(owner), node.attr
        if name in own and self._is_constant(own[name]):
            return self.reading.take(own, name)
        if name in own:
            self._refuse(node, f"takes .{name}, which is no module, parameter, buffer or constant")
        for kind in ("_parameters", "_buffers", "_modules"):
            if name in own[kind]:
                return own[kind][name]
        cls = next((cls for cls in type(owner).__mro__ if name in vars(cls)), object)
        value = vars(cls).get(name, _UNKNOWN)
        if name in _OF_CONTAINERS and _is_torchs(cls):
            return len  # as good: a function of the module alone
        if isinstance(value, FunctionType) and not _is_torchs(cls):
            return _Method(value, owner)
        if isinstance(value, staticmethod):
            return value.__func__
        if self._is_constant(value):
            return self.reading.take(vars(cls), name)
        self._refuse(node, f"takes .{name} of a module")

    def _is_constant(self, value: Any) -> bool:
        if isinstance(value, (list, tuple, dict)):
            inner = value.values() if isinstance(value, dict) else value
            return all(map(self._is_constant, inner))
        return isinstance(value, _CONSTANTS) or _is_of_tensors(value)

    def _accept(self, value: Any, node: ast.AST) -> None:
        if isinstance(value, (nn.Module, Tensor)) or self._is_constant(value) or value in _BUILTINS:
            return
        method = _Method(value, None) if isinstance(value, FunctionType) else value
        if isinstance(method, _Method) and method.function.__module__.partition(".")[0] != "torch":
            code = _Code(method.function, method.owner, self.reading, self.done)
            code.check()
            self.in_place += code.in_place
            return
        self._refuse(node, f"takes {ast.unparse(node)}")
