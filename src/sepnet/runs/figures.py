"""The figures of a finished run, derived from its history and logits, and compared with those that are saved."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sepnet.errors import SepnetError
from sepnet.runs.config import RunConfig
from sepnet.runs.history import Epoch, best
from sepnet.settings import shown

LOSS_TOLERANCE = 1e-3
"""Relative: between the validation loss of a run and of its saved logits, which a GPU may sum in another order."""


def derive_figures(history: Sequence[Epoch], validation: str) -> dict[str, Any]:
    """Return what a history says of its run: the last accuracy, the best one, and the seconds."""
    return {
        "epochs": len(history),
        "validation": validation,
        "final_accuracy": history[-1].val_accuracy,
        "best_accuracy": best(history).val_accuracy,
        "best_epoch": best(history).epoch,
        "seconds": round(sum(epoch.seconds for epoch in history), 2),
    }


def require_figures(result: Mapping[str, Any], history: Sequence[Epoch], validation: str, *, source: str) -> None:
    """Raise unless a result has the figures that the history gives; ``source`` is named."""
    for name, value in derive_figures(history, validation).items():
        if type(result.get(name)) is bool or result.get(name) != value:
            raise SepnetError(
                f"'{source}': {name} is {shown(result.get(name))}, and {value} by the run's history: "
                "restore the files, or train the run again"
            )


def require_logits(logits: Tensor, labels: Tensor, config: RunConfig, last: Epoch, *, source: str) -> None:
    """Raise unless logits ``(N, classes)`` and labels ``(N,)`` give the last epoch's figures; ``source`` is named."""
    classes = len(config.classes)
    if logits.dtype != torch.float32 or labels.dtype != torch.int64 or not len(labels):
        raise SepnetError(f"'{source}' holds {logits.dtype} and {labels.dtype}: expected float32 logits, int64 labels")
    if labels.ndim != 1 or logits.shape != (len(labels), classes):
        shapes = f"{tuple(logits.shape)} and labels of {tuple(labels.shape)}"
        raise SepnetError(f"'{source}' holds logits of shape {shapes}: expected (N, {classes}) and (N,)")
    if not bool(logits.isfinite().all()):
        raise SepnetError(f"'{source}' holds logits that are not finite: train the run again")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise SepnetError(f"'{source}' holds labels beyond the run's {classes} classes: train the run again")
    accuracy = float((logits.argmax(1) == labels).double().mean())
    loss = float(functional.cross_entropy(logits, labels, label_smoothing=config.recipe.label_smoothing))
    for name, value, recorded, tolerance in (
        ("accuracy", accuracy, last.val_accuracy, 1e-9),
        ("loss", loss, last.val_loss, LOSS_TOLERANCE * (1 + last.val_loss)),
    ):
        if not math.isclose(value, recorded, rel_tol=0, abs_tol=tolerance):
            raise SepnetError(
                f"'{source}' gives a validation {name} of {value:.6g}, the history's last is {recorded:.6g}: "
                "restore the files, or train the run again"
            )
