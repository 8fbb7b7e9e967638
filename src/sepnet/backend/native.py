"""The compiled kernels: which of them this processor runs, and how they are called."""

import ctypes
import functools
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sepnet.backend import build
from sepnet.environment import processor_capabilities
from sepnet.errors import SepnetError
from sepnet.notices import notice_once

_AVX512 = ("avx2", "fma3", "avx512_f", "avx512_bw", "avx512_cd", "avx512_dq", "avx512_vl")
VARIANTS = {
    "amx-bf16": (*_AVX512, "avx512_bf16", "amx_bf16"),
    "avx512-bf16": (*_AVX512, "avx512_bf16"),
    "avx512": _AVX512,
    "avx2": ("avx2", "fma3"),
}
"""Kinds of kernels, the fastest first, and what a processor must be able to do for each."""

TILED = "amx-bf16"
"""The kernels of ``avx512-bf16``, with products in tile registers."""

SWITCH = "SEPNET_KERNELS"
"""The environment variable that names one variant, or ``none`` for PyTorch alone."""
NONE = "none"

_STAGE_COUNTS = (
    *("threads", "images", "height", "width", "channels", "out_height", "out_width", "out_channels"),
    *("kernel_rows", "kernel_columns", "stride_rows", "stride_columns"),
    *("dilation_rows", "dilation_columns", "pad_rows", "pad_columns", "activation", "relu_out"),
)
_STAGE_TENSORS = (
    *("x", "coefficients", "residual", "depthwise", "pointwise", "bias", "y", "sums", "middle", "given"),
    *("grad_y", "grad_sums", "grad_given", "grad_x", "grad_coefficients", "grad_residual"),
    *("grad_depthwise", "grad_pointwise", "grad_bias"),
)
_NORM_TENSORS = (
    *("sums", "weight", "bias", "coefficients", "moments", "running_mean", "running_var", "new_mean", "new_var"),
    *("grad_coefficients", "grad_sums", "grad_weight", "grad_bias"),
)


def _structure(counts: tuple[str, ...], tensors: tuple[str, ...]) -> Any:
    return [*((name, ctypes.c_int64) for name in counts), *((name, ctypes.c_void_p) for name in tensors)]


class Stage(ctypes.Structure):
    """``struct Stage`` of ``csrc/stage.h``, field by field."""

    _fields_ = _structure(_STAGE_COUNTS, _STAGE_TENSORS)


class Pool(ctypes.Structure):
    """``struct Pool`` of ``csrc/pool.h``."""

    _fields_ = (
        ("stage", Stage),
        *((name, ctypes.c_int64) for name in ("window_rows", "window_columns", "average")),
        *(("seed", ctypes.c_void_p), ("kept", ctypes.c_int64)),
    )


class Norm(ctypes.Structure):
    """``struct Norm`` of ``csrc/norm.h``."""

    _fields_ = (
        *(("channels", ctypes.c_int64), ("count", ctypes.c_int64)),
        *(("eps", ctypes.c_double), ("momentum", ctypes.c_double)),
        *_structure((), _NORM_TENSORS),
    )


@dataclass(frozen=True)
class Native:
    """A loaded library."""

    variant: str
    library: ctypes.CDLL

    @property
    def lanes(self) -> int:
        """Channels that the library takes at a time: ``LANES`` of ``csrc/vector.h``."""
        return 8 if self.variant == "avx2" else 16

    def computes(self, dtype: torch.dtype) -> bool:
        """Tell whether the library has kernels for tensors of this type."""
        return dtype == torch.float32 or (dtype == torch.bfloat16 and self.variant.endswith("bf16"))

    def kernel(self, name: str, dtype: torch.dtype | None = None) -> Any:
        """Return ``sepnet_NAME``, of the kind for tensors of this type if it comes in several."""
        suffix = "" if dtype is None else "_bf16" if dtype == torch.bfloat16 else "_f32"
        return getattr(self.library, f"sepnet_{name}{suffix}")


def native() -> Native | None:
    """Return the fastest library that was compiled at install and that this processor runs, if any.

    Raises:
        SepnetError: the environment names no variant.

    """
    found = _find()
    return found if isinstance(found, Native) else None


def describe(device: str = "cpu", precision: str = "fp32") -> str:
    """Return what computes on a device: sepnet's kernels and which of them, or PyTorch alone and why.

    ``precision`` is ``fp32`` or ``bf16``.

    Raises:
        SepnetError: as for :func:`native`.

    """
    found = _find()
    if device != "cpu":
        reason = f"device {device}"
    elif isinstance(found, str):
        reason = found
    elif precision == "bf16" and not found.computes(torch.bfloat16):
        reason = f"sepnet's kernels for {found.variant} compute in fp32 alone; --precision fp32 takes them"
    else:
        return f"sepnet's kernels, {found.variant}"
    return f"PyTorch alone: {reason}"


def library(variant: str) -> Path:
    """Return where the compiled library of a kind of kernels lies."""
    return build.library("avx512-bf16" if variant == TILED else variant)


def runnable() -> list[str]:
    """Return the kinds that this processor runs, the fastest first, compiled or not."""
    able = processor_capabilities()
    return [variant for variant, needs in VARIANTS.items() if all(able.get(need) for need in needs)]


@functools.cache
def _find() -> Native | str:
    """Return the library to use, or why there is none."""
    wanted = os.environ.get(SWITCH, "")
    if wanted == NONE:
        return f"{SWITCH}={NONE}"
    if wanted not in ("", *VARIANTS):
        raise SepnetError(f"{SWITCH} is '{wanted}': expected {', '.join(VARIANTS)} or {NONE}, or leave it unset")
    runs = runnable()
    if not runs:
        return "the processor lacks AVX2"
    if wanted and wanted not in runs:
        return f"{SWITCH}={wanted}, which the processor cannot run"
    for variant in [wanted] if wanted else runs:
        path, tiled = library(variant), variant == TILED
        loaded = _load(path) if path.is_file() else None
        if isinstance(loaded, str):
            notice_once(f"compiled kernels '{path}' are not used: {loaded}; delete them and install sepnet again")
        elif loaded is not None and loaded.sepnet_use_tiles(tiled) == tiled:
            return Native(variant, loaded)
    return f"no compiled library{wanted and f' for {wanted}'} (install a C++ compiler, then sepnet again)"


def _load(path: Path) -> ctypes.CDLL | str:
    """Return a compiled library, or why it cannot be used.

    It asks for libgomp.so.1, whose calls the loader answers from PyTorch's own copy, which is in the process already
    (by that name, or as a renamed one that PyTorch loaded for all to see): one pool of threads serves both.
    """
    try:
        content = path.read_bytes()
        # One compiled by hand, while the kernels are worked on, has no mark and is taken as it is.
        if build.MARK in content and build.mark(path.stem) not in content:
            return "they were compiled from other sources"
        if _is_cut_off(content):  # which the loader does not check: the process would end with SIGBUS
            return "the file is cut off"
        return ctypes.CDLL(str(path))
    except OSError as error:
        return str(error).removeprefix(f"{path}: ")


def _is_cut_off(content: bytes) -> bool:
    """Tell whether a 64-bit ELF file lacks bytes that the loader maps. (System V ABI, program header.)"""
    try:
        (table,), (size, count) = struct.unpack_from("<Q", content, 32), struct.unpack_from("<HH", content, 54)
        parts = [struct.unpack_from("<8xQ16xQ", content, table + size * number) for number in range(count)]
    except struct.error:
        return True
    return any(offset + length > len(content) for offset, length in parts)
