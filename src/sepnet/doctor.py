"""What this machine has for sepnet, and what would make it faster: ``sepnet doctor``."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sepnet import backend, environment
from sepnet.backend import native
from sepnet.data import cache
from sepnet.data.catalog import DATASETS
from sepnet.networks.champion import champion
from sepnet.training import experiment

AGREE = 1e-3
"""Of the largest logit: float32 on either side, summed in another order."""


@dataclass(frozen=True)
class Diagnosis:
    """What was found."""

    facts: dict[str, str]
    advice: tuple[str, ...]
    """What would make training faster or possible, one sentence each."""
    works: bool
    """Whether the kernels, if there are any, compute what PyTorch does."""

    def __str__(self) -> str:
        """Return the facts as two columns, then the advice."""
        width = max(map(len, self.facts))
        lines = [f"{name:{width}}  {value}" for name, value in self.facts.items()]
        return "\n".join([*lines, "", *(self.advice or ["nothing would make it faster here"])])


def examine() -> Diagnosis:
    """Look at the processor, the kernels, PyTorch, the GPU and the cache, and try the kernels once.

    Raises:
        SepnetError: ``SEPNET_KERNELS`` names no variant.

    """
    machine = environment.describe()
    precision = experiment.resolve_precision("auto", "cpu")
    built = [variant for variant in native.VARIANTS if native.library(variant).is_file()]
    difference = _difference()
    agreement = (
        "are PyTorch's own" if difference is None else f"differ from PyTorch's by {difference:.0e} of the largest"
    )
    gpu = machine["gpu"]
    facts = {
        "processor": str(machine["processor"]),
        "cores": f"{environment.cores()} for this process, {machine['threads']} threads in PyTorch",
        "memory": f"{machine['memory_gib']} GiB",
        "sepnet": f"{machine['sepnet']}, Python {machine['python']}",
        "PyTorch": str(machine["torch"]),
        "kernels built": ", ".join(built) or "none",
        "kernels chosen": backend.describe("cpu", precision),
        "kernels tried": f"champion's logits {agreement}",
        "precision": f"{precision}, where --precision is auto",
        "GPU": f"{gpu}: --device cuda, or auto" if gpu else "none that PyTorch sees",
        "dataset cache": f"{cache.root()} ({', '.join(filter(cache.exists, DATASETS)) or 'no dataset'})",
    }
    works = difference is None or difference < AGREE
    return Diagnosis(facts, tuple(_advice(precision, works=works)), works)


def _difference() -> float | None:
    """Return the largest difference of the champion's logits from PyTorch's, as a share of the largest one."""
    if native.native() is None:
        return None
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = champion()  # normalized by the batch: an untrained one in evaluation answers with its biases alone
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        images = torch.randn(8, 3, 32, 32)
        expected: Tensor = model(images)
        found: Tensor = backend.compile(model)(images)
        return float((found - expected).abs().max() / expected.abs().max())


def _advice(precision: str, *, works: bool) -> Iterator[str]:
    compiled, runs = native.native(), native.runnable()
    if not works:
        yield f"the kernels compute something else than PyTorch: set {native.SWITCH}={native.NONE}, and report it"
    if compiled is None and native.SWITCH not in os.environ and runs:
        yield f"install a C++ compiler, then sepnet again: this processor runs the kernels for {runs[0]}"
    elif runs and (compiled is None or compiled.variant != runs[0]):
        if not native.library(runs[0]).is_file():
            what = "install sepnet again: its kernels are missing"
        elif native.SWITCH in os.environ:
            what = f"unset {native.SWITCH}"
        else:
            what = "install sepnet again with GCC 11 or later, on Linux 5.16 or later"
        yield f"{what}; this processor runs those for {runs[0]}"
    if not runs:
        yield "sepnet's kernels need Linux and a processor with AVX2: here PyTorch computes alone"
    if precision == "fp32" and not torch.cuda.is_available():
        yield "a processor with AVX-512 and bf16 (Intel from 2020, AMD from Zen 4) would compute in bf16"
    threads, available = torch.get_num_threads(), environment.cores()
    if threads < available:
        cause = "OMP_NUM_THREADS" if "OMP_NUM_THREADS" in os.environ else "torch.set_num_threads"
        yield f"{cause} leaves {available - threads} of {available} cores idle"
    elif threads > available:
        yield f"set OMP_NUM_THREADS={available}: {threads} threads share {available} cores"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > available / 2:
        yield f"other programs are computing (load {load:.1f} on {available} cores): stop them while you train"
    if not cache.exists("cifar10"):
        yield "fetch CIFAR-10 once: sepnet data fetch cifar10"
