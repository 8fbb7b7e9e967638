"""Networks by name, and a user's own network by file."""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from sepnet.errors import SepnetError
from sepnet.networks.base import base
from sepnet.networks.champion import champion
from sepnet.networks.published import published
from sepnet.networks.resnet8 import resnet8


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
    ``classes`` and ``image_shape`` if it takes arguments of these names.

    Raises:
        SepnetError: no such network or file, or the file gives no network.

    """
    options: dict[str, Any] = {"classes": classes, "image_shape": image_shape}
    if name in NETWORKS:
        return NETWORKS[name].build(**options)
    path, separator, attribute = name.rpartition(":")
    if separator and path.endswith(".py"):
        return _from_file(Path(path), attribute, options)
    if name.endswith(".py"):
        raise SepnetError(f"network '{name}' names a file but nothing in it: write '{name}:NAME'")
    near = get_close_matches(name, NETWORKS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"expected {', '.join(NETWORKS)}, or path/to/file.py:name"
    raise SepnetError(f"unknown network '{name}': {hint}")


def fingerprint(model: nn.Module) -> str:
    """Return a SHA-256 of the model's modules, their settings, and the names and shapes of its tensors.

    Two models with the same fingerprint have the same layers; their weights may differ.
    """
    shapes = [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    return hashlib.sha256(f"{model}\n{shapes}".encode()).hexdigest()


def _from_file(path: Path, attribute: str, options: dict[str, Any]) -> nn.Module:
    if not path.is_file():
        raise SepnetError(f"network file '{path}' does not exist: expected a Python file that defines '{attribute}'")
    found = getattr(_import(path), attribute, None)
    if found is None:
        raise SepnetError(f"'{path}' defines no '{attribute}': name an nn.Module, or a function that returns one")
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise SepnetError(f"'{path}:{attribute}' is a {type(found).__name__}: expected an nn.Module or a function")
    try:
        taken = inspect.signature(found).parameters
        model = found(**{key: value for key, value in options.items() if key in taken})
    except Exception as error:
        raise SepnetError(f"'{path}:{attribute}' could not be built: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise SepnetError(f"'{path}:{attribute}' returned a {type(model).__name__}: expected an nn.Module")
    return model


def _import(path: Path) -> Any:
    """Import a Python file by path, with its folder on the search path, as ``python FILE`` does."""
    module_name = f"sepnet_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise SepnetError(f"'{path}' could not be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module
