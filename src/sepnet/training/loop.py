"""The training loop: knows no network, no dataset and no file by name."""

import contextlib
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sepnet.backend import describe, network
from sepnet.data.dataset import Dataset
from sepnet.errors import SepnetError
from sepnet.notices import notice_once
from sepnet.runs import Run
from sepnet.runs.checkpoint import State, pack, unpack
from sepnet.runs.history import Epoch
from sepnet.training.forward import BATCH, Normalizer, infer, lay_out, process_settings
from sepnet.training.interrupts import Interrupted, Paused, SignalGuard
from sepnet.training.progress import TrainingProgress
from sepnet.training.step import TrainingStep, resident
from sepnet.training.weight_average import WeightAverage

CHECKPOINT_SECONDS = 60.0


class Trainer:
    """Trains one model from wherever its run stands to the run's last epoch.

    Every random number is a function of the run's seed and of the epoch or step it is drawn for, so a run that
    was broken off anywhere goes on exactly as an undisturbed one.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        run: Run,
        *,
        log: Callable[[Epoch], None] | None = None,
        pause: Callable[[int], bool] | None = None,
        teacher: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.run = run
        self.log = log
        """Is called with each epoch that is done and saved."""
        self.pause = pause
        """Is asked before each step, with the number of epochs done, whether to save and stop there."""
        self.recipe = run.config.recipe
        self.device = torch.device(run.config.device)
        self.model, layout = lay_out(model, dataset.image_shape, self.device)
        self.train_split = resident(dataset.train, self.device)
        self.test_split = resident(dataset.test, self.device)
        self.normalize = Normalizer(run.config.mean, run.config.std, self.device, layout)
        self.step = TrainingStep(
            self.model,
            self.train_split,
            self.recipe,
            classes=len(dataset.classes),
            seed=run.config.seed,
            precision=run.config.precision,
            normalize=self.normalize,
            teacher=teacher,
        )
        self.judge = network(self.judged, self.device) if self.average else self.step.network
        """Computes what the judged model does."""
        self.computed_by = describe(self.device.type, run.config.precision)
        self.steps = self.step.per_epoch
        self._finite = [tensor for tensor in self.model.state_dict().values() if bool(tensor.isfinite().all())]
        self.state = State()
        self.clock = time.monotonic()
        self.saved_at = time.monotonic()

    @property
    def average(self) -> WeightAverage | None:
        """The moving average of the weights, if the recipe has one."""
        return self.step.average

    @property
    def judged(self) -> nn.Module:
        """The model that is validated and saved: the average, if there is one."""
        return self.average.model if self.average else self.model

    def fit(self) -> None:
        """Train to the last epoch and write the outcome.

        Raises:
            SepnetError: the loss is no longer finite, or a file could not be written.
            Interrupted: SIGINT or SIGTERM came; the state is saved.
            Paused: ``pause`` said so; the state is saved.

        """
        with (
            process_settings(),
            torch.random.fork_rng(),
            SignalGuard() as self.signals,
            TrainingProgress(self.recipe.epochs) as self.progress,
        ):
            notice_once(f"computing with {self.computed_by}")
            self._restore()
            self.clock = self.saved_at = time.monotonic()
            logits = None
            while self.state.epoch < self.recipe.epochs:
                self._train_epoch()
                logits = self._finish_epoch()
            if logits is None:
                logits = self.validate()
            self._write_outcome(logits)
            if self.signals.received:
                raise Interrupted(self.signals.received, self.run.path)

    def _train_epoch(self) -> None:
        order = self.step.order(self.state.epoch)
        self.model.train()
        while self.state.step < self.steps:
            if self.pause and self.pause(self.state.epoch):
                self._save()
                raise Paused
            start = self.state.step * self.recipe.batch_size
            self._step(order[start : start + self.recipe.batch_size])
            self.state.step += 1
            if self.progress.due():
                self._show()
            if self.signals.received:
                self._save_and_stop(self.signals.received)
            if time.monotonic() - self.saved_at > CHECKPOINT_SECONDS:
                self._save()
        self._tally()

    def _step(self, indices: Tensor) -> None:
        self.step(indices, self.state.epoch, self.state.step)

    def validate(self) -> Tensor:
        """Return the judged model's logits ``(N, classes)`` on the validation images, in float32."""
        self.judged.eval()
        parts = []
        for images in self.test_split.images.split(BATCH):
            parts.append(infer(self.judge, self.normalize(images), self.run.config.precision))
            if self.signals.received:
                self._save_and_stop(self.signals.received)
        return torch.cat(parts)

    def _finish_epoch(self) -> Tensor:
        """Validate, record the epoch, save; return the validation logits."""
        train_seconds = self.state.train_seconds
        logits = self.validate()
        val_loss = float(self.step.validation_loss(logits, self.test_split.labels))
        if not math.isfinite(val_loss):
            raise self._not_finite(f"the validation loss became {val_loss}")
        val_accuracy = float((logits.argmax(1) == self.test_split.labels).double().mean())
        self._tally()
        state, count = self.state, len(self.train_split)
        epoch = Epoch(
            epoch=state.epoch + 1,
            steps=self.steps,
            seconds=state.train_seconds,
            images_per_second=count / train_seconds,
            lr=self.step.rate(state.epoch, self.steps - 1),
            loss=state.loss_sum / count,
            accuracy=state.correct / count,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
        )
        self.state = State(epoch=state.epoch + 1, history=[*state.history, epoch])
        self.step.sums.zero_()
        self._save()
        self.run.write_history(self.state.history)
        self.progress.epoch(epoch)
        if self.log:
            self.log(epoch)
        return logits

    def _tally(self) -> None:
        """Copy the device's sums and add the clock's seconds to the state; stop if the loss is not finite."""
        self.state.loss_sum, self.state.correct = self.step.sums.tolist()
        now = time.monotonic()
        self.state.train_seconds += now - self.clock
        self.clock = now
        if not math.isfinite(self.state.loss_sum):
            raise self._not_finite(f"the loss became {self.state.loss_sum}")

    def _not_finite(self, what: str) -> SepnetError:
        """Return what to raise, having recorded it in the run."""
        recipe, saved = self.recipe, self.run.checkpoint_path.is_file()
        decay = f" or weight_decay (now {recipe.weight_decay:g})" if recipe.weight_decay else ""
        kept = (
            "its last good checkpoint is kept, but going on from it would end the same way"
            if saved
            else "it has no checkpoint yet"
        )
        advice = f"start a new run with a lower --lr (now {recipe.lr:g}){decay}"
        reason = f"{what} in epoch {self.state.epoch + 1}, expected finite numbers: {advice}"
        with contextlib.suppress(SepnetError):  # the reason matters more than its record
            self.run.note_session({"diverged": reason})
        return SepnetError(f"{reason}; run '{self.run.path}': {kept}")

    def _show(self) -> None:
        self._tally()
        state, seen = self.state, min(self.state.step * self.recipe.batch_size, len(self.train_split))
        rate = seen / state.train_seconds
        epochs_left = self.recipe.epochs - state.epoch - state.step / self.steps
        self.progress.step(
            epoch=state.epoch,
            step=state.step,
            steps=self.steps,
            loss=state.loss_sum / seen,
            accuracy=state.correct / seen,
            rate=rate,
            seconds_left=epochs_left * len(self.train_split) / rate,
        )

    def _save(self) -> None:
        """Write a checkpoint; stop instead if a weight or moving statistic is no longer finite."""
        self._tally()
        if not all(bool(tensor.isfinite().all()) for tensor in self._finite):
            raise self._not_finite("a weight or moving statistic became infinite or nan")
        self.run.write_checkpoint(pack(self.state, self._modules(), self.step.optimizer, self.run.config))
        self.saved_at = time.monotonic()

    def _save_and_stop(self, signum: int) -> None:
        self._save()
        raise Interrupted(signum, self.run.path)

    def _restore(self) -> None:
        content = self.run.read_checkpoint()
        if content is not None:
            source = str(self.run.checkpoint_path)
            self.state = unpack(content, self._modules(), self.step.optimizer, self.run.config, source=source)
            self.step.sums.copy_(self.step.sums.new_tensor([self.state.loss_sum, self.state.correct]))
        self.run.require_history(self.state.history)
        self.run.note_session(
            {"computed_by": self.computed_by, "from_epoch": self.state.epoch, "from_step": self.state.step}
        )

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model} | ({"average": self.average.model} if self.average else {})

    def _write_outcome(self, logits: Tensor) -> None:
        self.run.write_outcome(self.judged.state_dict(), logits, self.test_split.labels)
