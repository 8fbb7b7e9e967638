"""Tensors as safetensors bytes that vouch for themselves: the SHA-256 of what they hold lies beside it."""

import hashlib
import json
from collections.abc import Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from sepnet.errors import SepnetError, first_line

KEY = "sepnet"
"""Of the file's metadata: one, as safetensors writes several in any order."""
DIGEST = "sha256"
"""The name of the digest among the texts in it."""


def pack_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return tensors and texts as safetensors bytes, with their digest."""
    plain = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    return save_tensors(plain, {KEY: json.dumps({**metadata, DIGEST: _digest(plain, metadata)}, sort_keys=True)})


def unpack_tensors(content: bytes, *, source: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and texts of safetensors bytes; those of older versions have no digest to be checked by.

    Raises:
        SepnetError: they are no such bytes, or not those that were written; ``source`` is named.

    """
    try:
        tensors = load_tensors(content)
        metadata = _metadata(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        reason = first_line(error) or type(error).__name__
        raise SepnetError(
            f"'{source}' is not a safetensors file ({reason}): restore it, or train the run again"
        ) from error
    expected = metadata.pop(DIGEST, None)
    if expected is not None and expected != _digest(tensors, metadata):
        raise SepnetError(
            f"'{source}' is damaged: its content does not have the SHA-256 that was written into it; "
            "restore it, or train the run again"
        )
    return tensors, metadata


def require_alike(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: str) -> None:
    """Raise unless the tensors have the expected ones' names, shapes and types, and are finite where those are."""
    for name in [*expected, *tensors]:
        if name not in tensors or name not in expected:
            what = "lacks" if name in expected else "has an unexpected"
            raise SepnetError(f"'{source}' {what} tensor '{name}': it belongs to another network, or is damaged")
        given, wanted = tensors[name], expected[name]
        if given.shape != wanted.shape or given.dtype != wanted.dtype:
            forms = [f"{str(one.dtype).removeprefix('torch.')} of shape {tuple(one.shape)}" for one in (given, wanted)]
            raise SepnetError(f"'{source}': tensor '{name}' is {forms[0]}, expected {forms[1]}: train the run again")
        if not bool((given.isfinite() | ~wanted.isfinite().cpu()).all()):
            raise SepnetError(f"'{source}': tensor '{name}' is not finite: train the run again")


def _metadata(content: bytes) -> dict[str, str]:
    """Return the texts of safetensors bytes (a length of 8 bytes, then a JSON header)."""
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    return dict(json.loads(metadata[KEY]) if KEY in metadata else metadata)  # older versions had each text by itself


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
