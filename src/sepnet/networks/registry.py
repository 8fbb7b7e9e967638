"""Networks by name, and a user's own network by file."""

import ast
import contextlib
import hashlib
import importlib.util
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from torch import nn

from sepnet.errors import SepnetError, first_line, where
from sepnet.networks.base import base
from sepnet.networks.champion import champion
from sepnet.networks.published import published
from sepnet.networks.resnet8 import resnet8
from sepnet.settings import hint, require_counts

USER_MODULE = "sepnet_user_"
_WITH_ARGUMENTS = re.compile(r"((?:.*\.py:)?\w+)(\(.*\))", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class NetworkEntry:
    """One network of the registry: how to build it, and the recipe it is trained by unless told otherwise."""

    build: Callable[..., nn.Module]
    recipe: str
    description: str


NETWORKS = {
    "base": NetworkEntry(build=base, recipe="published", description="the assignment's base network"),
    "published": NetworkEntry(
        build=published, recipe="published", description="the assignment's published separable network"
    ),
    "champion": NetworkEntry(build=champion, recipe="champion", description="sepnet's own, depthwise separable only"),
    "resnet8": NetworkEntry(
        build=resnet8, recipe="published", description="MLPerf Tiny's image-classification reference"
    ),
}


def build(name: str, *, classes: int = 10, image_shape: tuple[int, int, int] = (3, 32, 32)) -> nn.Module:
    """Return the network called ``name``: one of :data:`NETWORKS`, or ``path/to/file.py:name``.

    In a user's file ``name`` is an ``nn.Module``, or a class or function that returns one; it is given
    ``classes`` and ``image_shape`` if it takes arguments of these names. Other arguments are part of the name, as in
    ``champion(widths=[16, 32, 48])``.

    Raises:
        SepnetError: no such network or file, the file gives no network, or the network has no such arguments.

    """
    if not isinstance(name, str):
        raise SepnetError(
            f"network has type {type(name).__name__}: expected a name, path/to/file.py:name or an nn.Module"
        )
    require_counts(classes=classes, image_shape=image_shape)
    options: dict[str, Any] = {"classes": classes, "image_shape": image_shape}
    parts = split_name(name)
    given = _parse_arguments(name, parts.arguments)
    if is_own(name):
        return call_builder(NETWORKS[parts.attribute].build, name, required=given, **options)
    if parts.file.endswith(".py"):
        return _from_file(Path(parts.file), parts.attribute, options, name, given)
    if parts.plain.endswith(".py"):
        raise SepnetError(f"network '{parts.plain}' names a file but nothing in it: write '{parts.plain}:NAME'")
    otherwise = f"expected {', '.join(NETWORKS)}, or path/to/file.py:name"
    raise SepnetError(f"unknown network '{parts.plain}': {hint(parts.plain, NETWORKS, otherwise=otherwise)}")


class NetworkName(NamedTuple):
    """A network's name in its parts; ``file`` and ``arguments`` are empty where it has none."""

    file: str
    """What stands before the last colon: the Python file that the network is in."""
    attribute: str
    arguments: str
    """As they are written, ``(…)``."""

    @property
    def plain(self) -> str:
        """The name without its arguments."""
        return f"{self.file}:{self.attribute}" if self.file else self.attribute


def split_name(name: str) -> NetworkName:
    """Return the parts of a network's name."""
    match = _WITH_ARGUMENTS.fullmatch(name)
    plain, arguments = (match[1], match[2]) if match else (name, "")
    file, _, attribute = plain.rpartition(":")
    return NetworkName(file, attribute if file else plain, arguments)


def join_name(name: str, arguments: Mapping[str, Any]) -> str:
    """Return the name of a network that is built with these arguments, plain values, in place of its own."""
    parts = split_name(name)
    given = {**_parse_arguments(name, parts.arguments), **arguments}
    written = ", ".join(f"{key}={value!r}" for key, value in given.items())
    if '"' not in written:
        written = written.replace("'", '"')  # a shell's quotes go around it
    return f"{parts.plain}({written})" if given else parts.plain


def is_own(name: str) -> bool:
    """Whether a network of this name, whatever its arguments, is one of sepnet's."""
    return split_name(name).plain in NETWORKS


def _parse_arguments(name: str, arguments: str) -> dict[str, Any]:
    try:
        call = ast.parse(f"f{arguments or '()'}", mode="eval").body
        assert isinstance(call, ast.Call)
        if call.args or not all(keyword.arg for keyword in call.keywords):
            raise ValueError
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError, AssertionError):
        raise SepnetError(
            f"the arguments of network '{name}' are not understood: expected names and plain values, as "
            "champion(widths=[16, 32, 48])"
        ) from None


def call_builder(
    builder: Callable[..., Any], name: str, *, required: Mapping[str, Any] | None = None, **options: Any
) -> nn.Module:
    """Call a class or function that builds a network, with ``required`` and those of ``options`` that it takes.

    Raises:
        SepnetError: it fails, takes no argument of a required one's name, or gives no module; ``name`` is named.

    """
    try:
        taken = inspect.signature(builder).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
            _require_taken(required or {}, [key for key in taken if key not in options], name)
        model = builder(**{key: value for key, value in options.items() if key in taken}, **(required or {}))
    except SepnetError:
        raise
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{key} {value}" for key, value in options.items())
        raise SepnetError(
            f"network '{name}' cannot be built with {given}: {where(error)}{type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise SepnetError(f"network '{name}' has type {type(model).__name__}: expected an nn.Module")
    return model


def _require_taken(arguments: Iterable[str], known: list[str], name: str) -> None:
    for key in arguments:
        if key not in known:
            otherwise = f"expected one of {', '.join(known)}" if known else "it takes none"
            raise SepnetError(f"network '{name}': unknown argument '{key}': {hint(key, known, otherwise=otherwise)}")


def fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 of the model's layers: modules and settings, names and shapes of tensors, own code.

    Weights do not count, nor do comments and docstrings. Of code, the methods and plain attributes of all classes
    outside torch and sepnet count; functions that these call do not.
    """
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    classes = {kind for module in model.modules() for kind in type(module).__mro__}
    own = [kind for kind in classes if kind.__module__.split(".")[0] not in ("builtins", "torch", "sepnet")]
    code = "".join(sorted(_plain_code(kind) for kind in own))
    # PyTorch 2.11 does not print whether a norm has a bias.
    text = re.sub(r"((?:Batch|Layer|Group|Instance)Norm\w*\(.*affine=)(\w+)(?!.*bias=)", r"\1\2, bias=\2", str(model))
    return hashlib.sha256(f"{text}\n{shapes}{code}".encode()).hexdigest()


def _plain_code(kind: type) -> str:
    """Return a class's methods without comments and docstrings, and its plain attributes."""
    parts = [kind.__qualname__.rpartition(".")[2]]
    for name, value in sorted(vars(kind).items()):
        method = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if inspect.isfunction(method):
            parts.append(f"{name}: {_plain_source(method)}")
        elif not name.startswith("__") and isinstance(value, str | int | float | bool | tuple):
            parts.append(f"{name} = {value!r}")
    return "\n".join(parts)


def _plain_source(method: FunctionType) -> str:
    """Return a method's source without comments and docstrings, or its byte code where the source is lost."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError):
        return f"{method.__code__.co_code!r} {method.__code__.co_names}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _from_file(
    path: Path, attribute: str, options: dict[str, Any], name: str, arguments: Mapping[str, Any]
) -> nn.Module:
    if not path.is_file():
        raise SepnetError(f"network file '{path}' does not exist: expected a Python file that defines '{attribute}'")
    with _user_code(path.resolve().parent):
        found = getattr(_import(path), attribute, None)
        if found is None:
            raise SepnetError(f"'{path}' defines no '{attribute}': name an nn.Module, or a function that returns one")
        if isinstance(found, nn.Module) or not callable(found):
            return call_builder(lambda: found, name, required=arguments)
        return call_builder(found, name, required=arguments, **options)


@contextlib.contextmanager
def _user_code(folder: Path) -> Iterator[None]:
    """Run a user's file as ``python FILE`` would, its neighbours importable.

    Its neighbours are forgotten afterwards: another folder's file may import others of the same names.
    """
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file and folder in Path(file).parents and not name.startswith(USER_MODULE):
                del sys.modules[name]


def _import(path: Path) -> Any:
    """Import a Python file by path; it stays in ``sys.modules``, where its classes' source is looked up."""
    module_name = f"{USER_MODULE}{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        reason = f"{where(error)}{type(error).__name__}: {first_line(error)}"
        raise SepnetError(f"'{path}' could not be imported: {reason}") from error
    return module
