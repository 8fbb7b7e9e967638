"""The resumable state of a training: tensors, a little JSON and the run's configuration in one safetensors file."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sepnet.errors import SepnetError, first_line
from sepnet.runs.config import RunConfig
from sepnet.runs.history import Epoch, require_in_order
from sepnet.settings import parse_json, shown, to_settings
from sepnet.tensors import pack_tensors, require_alike, unpack_tensors

CONFIG = "config"
STATE = "state"
OPTIMIZER = "optimizer"


@dataclass(kw_only=True)
class State:
    """How far a training has come: ``epoch`` epochs are done, and ``step`` steps of the next one."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    train_seconds: float = 0.0
    history: list[Epoch] = field(default_factory=list)


def pack(state: State, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, config: RunConfig) -> bytes:
    """Return the state, the modules' tensors under their names, the optimizer's, and whose they are, as bytes."""
    tensors = {
        f"{prefix}.{name}": tensor for prefix, module in modules.items() for name, tensor in module.state_dict().items()
    }
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"{OPTIMIZER}.{index}.{key}": value for key, value in values.items() if value is not None}
    return pack_tensors(tensors, {CONFIG: config.to_toml(), STATE: json.dumps(asdict(state))})


def read(content: bytes, config: RunConfig, *, source: str) -> tuple[State, dict[str, Tensor]]:
    """Return the state and the tensors that :func:`pack` wrote for this run, now or before it was extended.

    Raises:
        SepnetError: the content is not such a file, is damaged, or belongs to another run; ``source`` is named.

    """
    tensors, metadata = unpack_tensors(content, source=source)
    if CONFIG in metadata:  # older versions did not write it
        name = config.difference_of_origin(RunConfig.from_toml(metadata[CONFIG], source=source))
        if name is not None:
            raise SepnetError(
                f"'{source}' is the checkpoint of another run, which has another {name}: restore this run's own"
            )
    if STATE not in metadata:
        raise SepnetError(f"'{source}' is not a checkpoint of sepnet's: start a new run")
    state = to_settings(State, parse_json(metadata[STATE], f"'{source}'"), source=f"'{source}'")
    require_in_order(state.history, source=source)
    if not (state.epoch == len(state.history) <= config.recipe.epochs and state.step >= 0):
        raise SepnetError(
            f"'{source}' is at epoch {shown(state.epoch)}, step {shown(state.step)}, with {len(state.history)} "
            f"epochs of {config.recipe.epochs} in its history: start a new run"
        )
    return state, tensors


def unpack(
    content: bytes,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    config: RunConfig,
    *,
    source: str,
) -> State:
    """Load what :func:`pack` wrote into the modules and the optimizer; return the state.

    Raises:
        SepnetError: as for :func:`read`, or it belongs to another network; nothing is loaded then.

    """
    state, tensors = read(content, config, source=source)
    saved = {prefix: _with_prefix(tensors, prefix) for prefix in (*modules, OPTIMIZER)}
    for prefix, module in modules.items():
        require_alike(saved[prefix], module.state_dict(), source=source)
    try:
        restored = _optimizer_state(optimizer, saved[OPTIMIZER])
    except (KeyError, ValueError, IndexError, RuntimeError, OverflowError) as error:
        reason = first_line(error)
        raise SepnetError(
            f"'{source}' does not hold the state of this network's optimizer ({reason}): start a new run"
        ) from error
    for prefix, module in modules.items():
        module.load_state_dict(saved[prefix])
    _restore_optimizer(optimizer, restored)
    return state


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """Return the tensors by their parameter's number and their key; raise where they are not this optimizer's."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = _parameters(optimizer)
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        parameter = parameters[int(index)]
        if tensor.shape not in ((), parameter.shape) or not bool(tensor.isfinite().all()):
            raise ValueError(f"tensor {name} of shape {tuple(tensor.shape)}")
        state.setdefault(int(index), {})[key] = tensor
    if len({frozenset(values) for values in state.values()}) > 1:
        raise ValueError("some tensors are missing")
    return state


def _restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[int, dict[str, Tensor]]) -> None:
    """Fill the optimizer's state, each tensor laid out in memory as its parameter is."""
    saved = optimizer.state_dict()
    saved["state"] = state
    optimizer.load_state_dict(saved)
    for parameter in _parameters(optimizer):
        values: dict[str, Any] = optimizer.state[parameter]
        for key, value in values.items():
            if value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter).copy_(value)
