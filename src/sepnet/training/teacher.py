"""Distillation: a network learns from trained ones' logits beside the labels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sepnet.backend import network
from sepnet.errors import SepnetError
from sepnet.runs import Run, RunConfig
from sepnet.training.forward import infer, lay_out
from sepnet.training.trained_network import find_run, load_weights, rebuild


def open_teachers(teachers: Sequence[str | Run]) -> tuple[Run, ...]:
    """Return finished runs by their folders or by names of networks whose weights are shipped.

    Raises:
        SepnetError: one does not exist, or is not finished.

    """
    runs = tuple(find_run(teacher) for teacher in teachers)
    for run in runs:
        run.require_finished()
    return runs


def require_suitable(teachers: Sequence[Run], student: RunConfig) -> None:
    """Raise unless each teacher tells the student's classes apart and has seen none of the images held out from it."""
    for run in teachers:
        had = run.config
        for name in ("classes", "image_shape"):
            if getattr(had, name) != getattr(student, name):
                raise SepnetError(
                    f"teacher '{run.path}' has {name} {getattr(had, name)}, expected {getattr(student, name)}"
                )
        if student.validation == "holdout" and had.data_sha256 != student.data_sha256:
            raise SepnetError(
                f"teacher '{run.path}' may have been trained on images that are held out here: expected a run with "
                "--validation holdout on the same data"
            )


class Teacher:
    """The mean of trained networks' logits on the images that a student sees. (Hinton et al. 2015.)

    They compute in the student's precision.
    """

    def __init__(self, runs: Sequence[Run], student: RunConfig, *, trust: bool = False) -> None:
        self._device = torch.device(student.device)
        self._precision = student.precision
        self._networks = []
        for run in runs:
            model, _ = lay_out(load_weights(rebuild(run, trust=trust), run), student.image_shape, self._device)
            self._networks.append((network(model, self._device), *self._normalized_anew(run.config, student)))

    def _normalized_anew(self, own: RunConfig, student: RunConfig) -> tuple[Tensor, Tensor]:
        """Return scale and shift ``(1, C, 1, 1)`` from the student's normalized pixels to a teacher's own."""
        pairs = list(zip(own.mean, own.std, student.mean, student.std, strict=True))
        scale = [s_std / std for _, std, _, s_std in pairs]
        shift = [(s_mean - mean) / std for mean, std, s_mean, _ in pairs]
        scales, shifts = (torch.tensor(numbers, device=self._device).view(1, -1, 1, 1) for numbers in (scale, shift))
        return scales, shifts

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits ``(B, classes)``, float32, on images ``(B, C, H, W)`` normalized for the student."""
        logits = [infer(compute, images * scale + shift, self._precision) for compute, scale, shift in self._networks]
        return torch.stack(logits).mean(0)


def distillation_loss(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(softmax(taught / T) ‖ softmax(logits / T)), the mean over a batch ``(B, classes)``.

    T² keeps the gradient's size from depending on T. (Hinton et al. 2015, section 2.)
    """
    own, wanted = (nn.functional.log_softmax(values / temperature, dim=1) for values in (logits, taught))
    return temperature**2 * nn.functional.kl_div(own, wanted, reduction="batchmean", log_target=True)
