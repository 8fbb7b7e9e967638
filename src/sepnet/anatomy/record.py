"""Run a network once on one zero image and keep every operation it did, through ``torch.fx``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.lazy import LazyModuleMixin

from sepnet.errors import SepnetError, first_line, where

PLAIN_ATTRIBUTES = {"shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_cuda"}
PLAIN_METHODS = {
    *("size", "dim", "ndimension", "numel", "nelement", "stride", "element_size", "is_contiguous"),
    *("is_floating_point", "is_complex", "get_device", "is_tensor"),
}


@dataclass(frozen=True)
class Recording:
    """What a network did with one image.

    ``nodes`` are in the order of execution; ``shapes`` gives each node's result: a ``torch.Size``, or a tuple
    of them. ``owners`` gives the path of the module in whose ``forward`` a node was called.
    """

    nodes: tuple[fx.Node, ...]
    shapes: dict[fx.Node, Any]
    owners: dict[fx.Node, str]


def record(model: nn.Module, image_shape: tuple[int, int, int], network: str) -> Recording:
    """Run ``model``, which is in evaluation mode, on a zero image ``(1, C, H, W)`` and return what it did.

    Raises:
        SepnetError: the network does not accept such an image, or decides by the values in a tensor.

    """
    image = torch.zeros(1, *image_shape, **_kind_of_tensor(model))
    tracer = _Tracer(image, network)
    try:
        graph = tracer.trace(model)
    except SepnetError:
        raise
    except Exception as error:
        raise SepnetError(tracer.complaint(error)) from error
    shapes = {node: _shape(value) for node, value in tracer.values.items()}
    return Recording(tuple(graph.nodes), shapes, tracer.owners)


def is_of_torch(function: Any) -> bool:
    """Say whether a function is PyTorch's or an operator of Python, and not a user's."""
    home = getattr(function, "__module__", None) or ""
    return home.split(".")[0] in ("torch", "_operator")


def _in_place(operation: Callable[[Any, Any], Any]) -> Callable[[_Proxy, Any], Any]:
    """Return the method for ``x += y`` and its like, which ``torch.fx`` would take for ``x = x + y``."""
    return lambda proxy, other: proxy.tracer.create_proxy("call_function", operation, (proxy, other), {})


class _Proxy(fx.Proxy):
    """A tensor while tracing: what does not depend on its values (shape, type) is answered at once."""

    tracer: _Tracer
    __iadd__ = _in_place(operator.iadd)
    __isub__ = _in_place(operator.isub)
    __imul__ = _in_place(operator.imul)
    __itruediv__ = _in_place(operator.itruediv)

    def __getattr__(self, name: str) -> Any:
        if name in PLAIN_ATTRIBUTES:
            return getattr(self.tracer.values[self.node], name)
        return super().__getattr__(name)

    def __len__(self) -> int:
        return len(self.tracer.values[self.node])


class _Tracer(fx.Tracer):
    """A tracer that computes each operation as it meets it, so that code may ask for shapes and sizes."""

    proxy_buffer_attributes = True

    def __init__(self, image: Tensor, network: str) -> None:
        super().__init__()
        self.image = image
        self.network = network
        self.values: dict[fx.Node, Any] = {}
        self.owners: dict[fx.Node, str] = {}
        self.failed_in: str | None = None
        self._computing = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def iter(self, obj: Any) -> Iterator[Any]:
        return iter([obj[index] for index in range(len(self.values[obj.node]))])

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        kind = type(m)
        if kind.__module__ == "torch.nn.utils.parametrize":
            kind = kind.__mro__[1]
        return kind.__module__.startswith("torch.nn") and not isinstance(m, nn.Sequential)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._computing:
            return forward(*args, **kwargs)
        if not any(m is part for part in self.root.modules()):
            if any(True for _ in m.parameters()):
                raise ValueError(f"a {type(m).__name__} is made in forward, with weights: make it in __init__")
            return forward(*args, **kwargs)  # as a function
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.failed_in is None:
                self.failed_in = self.path_of_module(m)
            raise

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._computing else super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **options: Any) -> Any:
        if kind == "placeholder":
            return self._argument(target, args, *more, **options)
        if isinstance(target, FunctionType) and not is_of_torch(target):
            return target(*args, **kwargs)  # a user's function that ``torch.fx.wrap`` would keep whole
        proxy = super().create_proxy(kind, target, args, kwargs, *more, **options)
        value = self._compute(proxy.node)
        if _is_plain(proxy.node, value):
            self.graph.erase_node(proxy.node)
            return value
        if not _is_tensors(value):
            raise ValueError(_not_a_tensor(getattr(target, "__name__", target), value))
        return self._keep(proxy, value)

    def complaint(self, error: Exception) -> str:
        """Return the one line that names the layer and what went wrong in it."""
        place = f"in layer '{self.failed_in}'" if self.failed_in else "in its own forward"
        if isinstance(error, fx.proxy.TraceError):
            return (
                f"network '{self.network}' cannot be read: {place} it decides by the values in a tensor; "
                "make the choice from shapes or settings instead"
            )
        reason = where(error) + (first_line(error) or type(error).__name__)
        advice = "; give it the image shape it was made for" if isinstance(error, RuntimeError) else ""
        size = "×".join(map(str, self.image.shape[1:]))
        return f"network '{self.network}' cannot be read: {place}, for an image {size}: {reason}{advice}"

    def _argument(self, target: str, default: tuple[Any, ...], *more: Any, **options: Any) -> Any:
        """Return the image for the first argument of ``forward``, its default for any other."""
        if target.startswith("*"):
            return {} if target.startswith("**") else ()
        if not self.values:
            proxy = super().create_proxy("placeholder", target, (), {}, *more, **options)
            return self._keep(proxy, self.image)
        if default:
            return default[0]
        raise TypeError(f"its forward also expects '{target}'; only the image is given")

    def _keep(self, proxy: fx.Proxy, value: Any) -> fx.Proxy:
        self.values[proxy.node] = value
        self.owners[proxy.node] = self.scope.module_path
        return proxy

    def _value(self, node: fx.Node) -> Any:
        if node not in self.values:  # a tensor that the network made without the image, as torch.zeros
            self.values[node] = _attribute(self.root, str(node.target))
        return self.values[node]

    def _compute(self, node: fx.Node) -> Any:
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._value)
        self._computing = True
        try:
            with torch.no_grad():
                return _call(self.root, node, args, kwargs)
        finally:
            self._computing = False


def _call(root: nn.Module, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if node.op == "get_attr":
        return _attribute(root, str(node.target))
    if node.op == "call_module":
        return root.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _attribute(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name)
    return root


def _is_plain(node: fx.Node, value: Any) -> bool:
    """Say whether a node's result is a shape, size or setting, which no value in a tensor can change."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name == "getattr":
        name = node.args[1]
    return not _is_tensors(value) and name in PLAIN_METHODS | PLAIN_ATTRIBUTES


def _not_a_tensor(name: str, value: Any) -> str:
    kind = type(value).__name__
    if isinstance(value, int | float):
        return f"'{name}' takes a {kind} from the values in a tensor"
    return f"'{name}' gives a {kind}, not a tensor"


def _is_tensors(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return len(value) > 0 and all(_is_tensors(item) for item in value)
    return isinstance(value, Tensor)


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else tuple(_shape(item) for item in value)


def _kind_of_tensor(model: nn.Module) -> dict[str, Any]:
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return {"dtype": parameter.dtype, "device": parameter.device}
    return {}


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode; afterwards put back its mode, attributes, buffers and the random state."""
    modules = [module for module in model.modules() if not isinstance(module, LazyModuleMixin)]
    attributes = [(module, dict(vars(module))) for module in modules]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng({parameter.get_device() for parameter in model.parameters() if parameter.is_cuda}):
        try:
            model.eval()
            yield
        finally:
            for module, before in attributes:
                vars(module).clear()
                vars(module).update(before)
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
