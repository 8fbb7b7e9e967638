"""All that a network's step may depend on but for the numbers in its tensors, compared from step to step."""

from collections import OrderedDict
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

_SCALARS = {type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.memory_format}
_CONTAINERS = {list, tuple, dict, OrderedDict, set, frozenset}
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class Snapshot:
    """The modules of a network as they are: kinds, modes, settings, children, tensors, hooks."""

    def __init__(self, model: nn.Module) -> None:
        modules = [*model.modules()]
        self.hooked = nn.modules.module._has_any_global_hook() or any(map(_is_observed, modules))
        """Whether code has to be called in the middle of a step."""
        if self.hooked:
            return
        self._modules = [(module, type(module), type(module).forward) for module in modules]
        self._dicts: list[tuple[dict[str, Any], list[str], list[Any]]] = []
        self._empty: list[Any] = []
        self._copies: list[tuple[Any, Any]] = []
        for module, *_ in self._modules:
            own = vars(module)
            named = (own, own["_modules"], own["_parameters"], own["_buffers"])
            self._dicts += [(values, [*values], [*values.values()]) for values in named]
            containers = [value for value in own.values() if type(value) in _CONTAINERS]
            self._empty += [value for value in containers if not value]
            others = [value for value in containers if value and not any(value is each for each in named)]
            self._copies += [(value, _copy(value)) for value in others if not _is_constant(value)]
        tensors = dict.fromkeys((*model.parameters(), *model.buffers()))
        self._tensors = [(tensor, tensor.data_ptr(), tensor.shape, tensor.requires_grad) for tensor in tensors]
        self.hooked = any(map(_has_hooks, tensors))

    def holds(self) -> bool:
        """Tell whether nothing has changed since, and no hook is to be called.

        This is done at each step, and takes a tenth of a millisecond for ``champion``.
        """
        return (
            not self.hooked
            and not nn.modules.module._has_any_global_hook()
            and not any(self._empty)
            and all(type(module) is kind and kind.forward is forward for module, kind, forward in self._modules)
            and all([*now] == names and all(map(is_, now.values(), values)) for now, names, values in self._dicts)
            and all(_copy(value) == copy for value, copy in self._copies)
            and all(
                tensor.data_ptr() == place
                and tensor.shape == shape
                and tensor.requires_grad is trained
                and not _has_hooks(tensor)
                for tensor, place, shape, trained in self._tensors
            )
        )


def _is_observed(module: nn.Module) -> bool:
    """Tell whether a module has hooks, or is compiled by torch.jit, which does not say."""
    return isinstance(module, torch.jit.ScriptModule) or any(vars(module)[name] for name in _HOOKS)


def _has_hooks(tensor: Tensor) -> bool:
    return bool(tensor._backward_hooks or tensor._post_accumulate_grad_hooks)


class _Object:
    """Equal to itself alone, whatever ``==`` means for the value in it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and other.value is self.value

    __hash__ = None  # type: ignore[assignment]


def _is_constant(value: Any) -> bool:
    """Tell whether nothing in a value can be another while it is the same object."""
    return type(value) in _SCALARS or (type(value) in (tuple, frozenset) and all(map(_is_constant, value)))


def _copy(value: Any) -> Any:
    """Return a copy of nested containers, to be compared by what is in them."""
    kind = type(value)
    if kind in _SCALARS:
        return value
    if kind in (dict, OrderedDict):
        return [kind, *((_copy(key), _copy(item)) for key, item in value.items())]
    return [kind, *map(_copy, value)] if kind in _CONTAINERS else _Object(value)
