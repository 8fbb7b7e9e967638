"""The training loop: knows no network, no dataset and no file by name."""

import contextlib
import math
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sepnet.data.augment import take_augmented
from sepnet.data.dataset import Dataset, Split
from sepnet.errors import SepnetError
from sepnet.kernels import keep_freed_memory
from sepnet.runs import Run
from sepnet.training.averaging import WeightAverage
from sepnet.training.checkpoint import State, pack, unpack
from sepnet.training.history import Epoch
from sepnet.training.inference import BATCH, Normalizer, autocast, denormals_flushed, infer
from sepnet.training.interrupts import Interrupted, SignalGuard
from sepnet.training.prepare import build_optimizer
from sepnet.training.progress import TrainingProgress
from sepnet.training.randomness import derive_generator, derive_seed
from sepnet.training.schedule import learning_rate

CHECKPOINT_SECONDS = 60.0


class Trainer:
    """Trains one model from wherever its run stands to the run's last epoch.

    Every random number is a function of the run's seed and of the epoch or step it is drawn for, so a run that
    was broken off anywhere goes on exactly as an undisturbed one.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, run: Run) -> None:
        self.run = run
        self.recipe = run.config.recipe
        self.device = torch.device(run.config.device)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = WeightAverage(self.model, self.recipe.average) if self.recipe.average else None
        self.optimizer = build_optimizer(self.model, self.recipe)
        self.loss_function = nn.CrossEntropyLoss(label_smoothing=self.recipe.label_smoothing)
        self.train_split = self._resident(dataset.train)
        self.test_split = self._resident(dataset.test)
        draws = torch.rand(len(dataset.train), generator=derive_generator(run.config.seed, "flip"))
        self.flipped_first = (draws < 0.5).to(self.device)
        self.normalize = Normalizer(run.config.mean, run.config.std, self.device)
        self.steps = math.ceil(len(dataset.train) / self.recipe.batch_size)
        self.state = State()
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # of loss and of right answers
        self.clock = time.monotonic()
        self.saved_at = time.monotonic()

    @property
    def judged(self) -> nn.Module:
        """The model that is validated and saved: the average, if there is one."""
        return self.average.model if self.average else self.model

    def fit(self) -> None:
        """Train to the last epoch and write the outcome.

        Raises:
            SepnetError: the loss is no longer finite, or a file could not be written.
            Interrupted: SIGINT or SIGTERM came; the state is saved.

        """
        with (
            _process_settings(),
            SignalGuard() as self.signals,
            TrainingProgress(self.recipe.epochs) as self.progress,
        ):
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
        order = torch.randperm(
            len(self.train_split), generator=derive_generator(self.run.config.seed, "order", self.state.epoch)
        ).to(self.device)
        self.model.train()
        while self.state.step < self.steps:
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
        """Train on the images at ``indices`` ``(B,)``."""
        number = self.state.epoch * self.steps + self.state.step
        images, labels = self._batch(indices, number)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, number, self.recipe.epochs * self.steps)
        torch.manual_seed(derive_seed(self.run.config.seed, "step", number))
        with autocast(self.device, self.run.config.precision):
            logits = self.model(images)
        loss = self.loss_function(logits.float(), labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if self.average:
            self.average.update(number)
        self._add_to_sums(loss.detach(), logits.detach(), labels)

    def _batch(self, indices: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Return augmented, normalized images ``(B, C, H, W)`` and their labels ``(B,)``."""
        generator = derive_generator(self.run.config.seed, "augment", number)
        images = take_augmented(
            self.train_split.images,
            indices,
            crop=self.recipe.crop,
            flip=self._flips(indices, generator),
            generator=generator,
        )
        return self.normalize(images), self.train_split.labels[indices]

    def _flips(self, indices: Tensor, generator: torch.Generator) -> Tensor | None:
        if self.recipe.flip == "none":
            return None
        if self.recipe.flip == "random":
            return (torch.rand(len(indices), generator=generator) < 0.5).to(self.device)
        return self.flipped_first[indices] ^ (self.state.epoch % 2 == 1)

    def _add_to_sums(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.sums[0] += loss.double() * len(labels)
        self.sums[1] += (logits.argmax(1) == labels).sum()

    def validate(self) -> Tensor:
        """Return the judged model's logits ``(N, classes)`` on the validation images, in float32."""
        model = self.judged.eval()
        parts = []
        for images in self.test_split.images.split(BATCH):
            parts.append(infer(model, self.normalize(images), self.run.config.precision))
            if self.signals.received:
                self._save_and_stop(self.signals.received)
        return torch.cat(parts)

    def _finish_epoch(self) -> Tensor:
        """Validate, record the epoch, save; return the validation logits."""
        train_seconds = self.state.train_seconds
        logits = self.validate()
        val_loss = float(self.loss_function(logits, self.test_split.labels))
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
            lr=self.optimizer.param_groups[0]["lr"],
            loss=state.loss_sum / count,
            accuracy=state.correct / count,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
        )
        self.state = State(epoch=state.epoch + 1, history=[*state.history, epoch])
        self.sums.zero_()
        self._save()
        self.run.write_history(self.state.history)
        self.progress.epoch(epoch)
        return logits

    def _tally(self) -> None:
        """Copy the device's sums and add the clock's seconds to the state; stop if the loss is not finite."""
        self.state.loss_sum, self.state.correct = self.sums.tolist()
        now = time.monotonic()
        self.state.train_seconds += now - self.clock
        self.clock = now
        if not math.isfinite(self.state.loss_sum):
            raise self._not_finite(f"the loss became {self.state.loss_sum}")

    def _not_finite(self, what: str) -> SepnetError:
        return SepnetError(
            f"{what} in epoch {self.state.epoch + 1}: expected finite numbers; "
            f"the last good checkpoint is kept in '{self.run.path}', start a new run with a lower --lr"
        )

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
        """Write a checkpoint; stop instead if a weight is no longer finite."""
        self._tally()
        if not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            raise self._not_finite("a weight became infinite or nan")
        self.run.write_checkpoint(pack(self.state, self._modules(), self.optimizer))
        self.saved_at = time.monotonic()

    def _save_and_stop(self, signum: int) -> None:
        self._save()
        raise Interrupted(signum, self.run.path)

    def _restore(self) -> None:
        content = self.run.read_checkpoint()
        if content is not None:
            source = str(self.run.checkpoint_path)
            self.state = unpack(content, self._modules(), self.optimizer, source=source)
            self.sums = self.sums.new_tensor([self.state.loss_sum, self.state.correct])
            self.run.write_history(self.state.history)
        self.run.note_session({"from_epoch": self.state.epoch, "from_step": self.state.step})

    def _modules(self) -> dict[str, nn.Module]:
        return {"model": self.model} | ({"average": self.average.model} if self.average else {})

    def _write_outcome(self, logits: Tensor) -> None:
        weights = self.judged.state_dict()
        seconds = sum(epoch.seconds for epoch in self.state.history)
        self.run.write_outcome(weights, logits, self.test_split.labels, seconds)

    def _resident(self, split: Split) -> Split:
        images = split.images.to(self.device).contiguous(memory_format=torch.channels_last)
        return Split(images=images, labels=split.labels.to(self.device))


@contextlib.contextmanager
def _process_settings() -> Iterator[None]:
    """Set what training on a processor wants; leave the caller's random numbers and denormals as they were."""
    keep_freed_memory()
    with denormals_flushed(), torch.random.fork_rng():
        yield
