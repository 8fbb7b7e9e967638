"""The machine a run was made on, in words another person can compare with their own."""

import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from sepnet import __version__


def describe() -> dict[str, Any]:
    """Return the processor, the memory, the versions and the thread count of this process."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "sepnet": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "argv": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
    }


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit(folder: Path | None = None, which: Sequence[str] = ("--untracked-files=no",)) -> str | None:
    """Return the commit of a folder's checkout, and whether files differ from it; None without git.

    Args:
        folder: in the checkout; the current one when absent.
        which: the files that count, as ``git status`` takes them.

    """
    try:
        head, changes = (
            subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", *which])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head} and uncommitted changes" if changes else head


def peak_memory_mib() -> float | None:
    """Return the most memory this process has held, in MiB, where the system tells."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux, whose getrusage begins with the figure of the process that started this one
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 2**10, 1)
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def available_memory() -> int | None:
    """Return how many bytes this process can still have without swapping, where the system tells."""
    meminfo, group = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = [line.split() for line in meminfo.read_text().splitlines()]
        limits += [int(words[1]) * 2**10 for words in lines if words[0] == "MemAvailable:"]
    with contextlib.suppress(OSError, ValueError):  # a ValueError, where there is no limit
        limit = int((group / "memory.max").read_text())
        limits.append(limit - int((group / "memory.current").read_text()))
    return max(0, min(limits)) if limits else None


def processor_capabilities() -> dict[str, Any]:
    """Return what the processor can do, as PyTorch names it; empty where PyTorch does not tell."""
    return dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}


def _processor() -> str:
    capabilities = processor_capabilities()
    extensions = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(name)]
    name = str(capabilities.get("cpu_name") or platform.processor() or platform.machine())
    return f"{name} ({', '.join(extensions)})" if extensions else name


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
