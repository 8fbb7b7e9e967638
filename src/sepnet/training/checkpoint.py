"""The resumable state of a training: tensors and a little JSON in one safetensors file."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from sepnet.errors import SepnetError, first_line
from sepnet.training.history import Epoch


@dataclass(kw_only=True)
class State:
    """How far a training has come: ``epoch`` epochs are done, and ``step`` steps of the next one."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    train_seconds: float = 0.0
    history: list[Epoch] = field(default_factory=list)


def pack(state: State, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> bytes:
    """Return the state, the modules' tensors under their names, and the optimizer's, as safetensors bytes."""
    tensors = {
        f"{prefix}.{name}": tensor for prefix, module in modules.items() for name, tensor in module.state_dict().items()
    }
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": value for key, value in values.items() if value is not None}
    return save_tensors(to_plain(tensors), {"state": json.dumps(asdict(state))})


def unpack(content: bytes, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, *, source: str) -> State:
    """Load what :func:`pack` wrote into the modules and the optimizer; return the state.

    Raises:
        SepnetError: the content is not such a file, or belongs to another network; ``source`` is named.

    """
    try:
        tensors = load_tensors(content)
        values = json.loads(metadata(content)["state"])
        state = State(**{**values, "history": [Epoch(**row) for row in values["history"]]})
        for prefix, module in modules.items():
            module.load_state_dict(_with_prefix(tensors, prefix))
        _restore_optimizer(optimizer, _with_prefix(tensors, "optimizer"))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise SepnetError(
            f"'{source}' does not hold the state of this network and recipe ({reason}): start a new run"
        ) from error
    return state


def to_plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous copies on the CPU that share no memory, as safetensors wants them."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def metadata(content: bytes) -> dict[str, str]:
    """Return the text metadata of safetensors bytes (a length of 8 bytes, then a JSON header)."""
    length = int.from_bytes(content[:8], "little")
    header: dict[str, dict[str, str]] = json.loads(content[8 : 8 + length])
    return header["__metadata__"]


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Fill the optimizer's state, each tensor laid out in memory as its parameter is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    saved = optimizer.state_dict()
    saved["state"] = _nested(tensors)
    optimizer.load_state_dict(saved)
    for parameter in parameters:
        values: dict[str, Any] = optimizer.state[parameter]
        for key, value in values.items():
            if value.shape == parameter.shape:
                values[key] = torch.empty_like(parameter).copy_(value)


def _nested(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    return state
