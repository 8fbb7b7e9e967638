"""One step of training: knows no run, no epoch's bookkeeping and no file."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from sepnet.backend import network
from sepnet.data.augment import crop_and_resize, cut_out, jitter_colors, mix_up, shrink, take_augmented
from sepnet.data.dataset import Split
from sepnet.recipes.recipe import Recipe
from sepnet.training.cuda_graph import Graphed, Update
from sepnet.training.forward import Normalizer, autocast
from sepnet.training.initialization import build_optimizer
from sepnet.training.randomness import derive_generator, derive_seed
from sepnet.training.schedule import image_size, learning_rate
from sepnet.training.teacher import distillation_loss
from sepnet.training.weight_average import WeightAverage


class TrainingStep:
    """Trains one model on a batch at a time: augmentation, forward, backward, optimizer, average.

    Every random number is a function of the seed and of the epoch or step it is drawn for. Model and images lie
    on the same device.
    """

    def __init__(
        self,
        model: nn.Module,
        split: Split,
        recipe: Recipe,
        *,
        classes: int,
        seed: int,
        precision: str,
        normalize: Normalizer,
        teacher: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.split = split
        self.recipe = recipe
        self.classes = classes
        self.seed = seed
        self.precision = precision
        self.normalize = normalize
        self.teacher = teacher
        """From normalized images to the logits to learn from, if there is one."""
        self.device = split.images.device
        varying = (0,) if recipe.first_size == 1 else (0, 2, 3)
        self.network = network(model, self.device, varying=varying)
        self.average = WeightAverage(model, recipe.average) if recipe.average else None
        self.optimizer = build_optimizer(model, recipe)
        weights = balanced_weights(split.labels, classes) if recipe.class_weights == "balanced" else None
        self.loss_function = nn.CrossEntropyLoss(weight=weights, label_smoothing=recipe.label_smoothing)
        self.validation_loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self._update: Update = Graphed(self._update_weights) if self.device.type == "cuda" else self._update_weights
        self.per_epoch = math.ceil(len(split) / recipe.batch_size)
        self.in_all = recipe.epochs * self.per_epoch
        draws = torch.rand(len(split), generator=derive_generator(seed, "flip"))
        self._flipped_first = (draws < 0.5).to(self.device)
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        """Of the loss and of right answers, over the images of the epoch so far."""

    def order(self, epoch: int) -> Tensor:
        """Return the order ``(N,)`` in which an epoch (from 0) takes the images."""
        return torch.randperm(len(self.split), generator=derive_generator(self.seed, "order", epoch)).to(self.device)

    def __call__(self, indices: Tensor, epoch: int, step: int) -> None:
        """Train on the images at ``indices`` ``(B,)``, as step ``step`` (from 0) of epoch ``epoch`` (from 0)."""
        number = epoch * self.per_epoch + step
        images, labels = self.batch(indices, epoch, step)
        images, targets = self._mixed(images, labels, number)
        taught = [self.teacher(images)] if self.teacher else []  # of the images in their own size
        share = image_size(self.recipe, number, self.in_all)
        images = images if share == 1 else shrink(images, share)
        self._set_rate(self.rate(epoch, step))
        self._draw_from(derive_seed(self.seed, "step", number))
        loss, logits = self._update(images, targets, *taught)
        if self.average:
            self.average.update(number)
        self._add_to_sums(loss, logits, labels)

    def rate(self, epoch: int, step: int) -> float:
        """Return the learning rate of step ``step`` (from 0) of epoch ``epoch`` (from 0)."""
        return learning_rate(self.recipe, epoch * self.per_epoch + step, self.in_all)

    def _draw_from(self, seed: int) -> None:
        if self.device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a millisecond to look for GPUs
        else:
            torch.manual_seed(seed)

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            own = rate * group["share"]
            if isinstance(group["lr"], Tensor):  # which a CUDA graph reads anew
                group["lr"].fill_(own)
            else:
                group["lr"] = own

    def _update_weights(self, images: Tensor, targets: Tensor, taught: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Take one step towards labels ``(B,)`` or their shares ``(B, classes)``; return loss and logits.

        ``taught`` are the teacher's logits ``(B, classes)``.
        """
        with autocast(self.device, self.precision):
            logits = self.network(images)
        loss = self.loss_function(logits.float(), targets)
        if taught is not None:
            share = self.recipe.distillation
            loss = (1 - share) * loss + share * distillation_loss(logits.float(), taught, self.recipe.temperature)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), logits.detach()

    def batch(self, indices: Tensor, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Return augmented, normalized images ``(B, C, H, W)``, in their own size, and their labels ``(B,)``."""
        number = epoch * self.per_epoch + step
        generator = derive_generator(self.seed, "augment", number)
        images = take_augmented(
            self.split.images,
            indices,
            crop=self.recipe.crop,
            flip=self._flips(indices, epoch, generator),
            generator=generator,
        )
        if self.recipe.color_jitter:
            images = jitter_colors(images, self.recipe.color_jitter, generator=generator)
        images = self.normalize(images)
        if self.recipe.resized_crop < 1:
            images = crop_and_resize(images, self.recipe.resized_crop, generator=generator)
        if self.recipe.cutout:
            images = cut_out(images, self.recipe.cutout, generator=generator)
        return images, self.split.labels[indices]

    def _mixed(self, images: Tensor, labels: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """Return images and what they are to be taken for: labels, or their shares ``(B, classes)`` if mixed."""
        if not self.recipe.mixup:
            return images, labels
        draw = np.random.default_rng(derive_seed(self.seed, "mixup", number))
        share = float(draw.beta(self.recipe.mixup, self.recipe.mixup))
        partners = torch.from_numpy(draw.permutation(len(images))).to(self.device)
        targets = nn.functional.one_hot(labels, self.classes).float()
        return mix_up(images, targets, max(share, 1 - share), partners)

    def _flips(self, indices: Tensor, epoch: int, generator: torch.Generator) -> Tensor | None:
        if self.recipe.flip == "none":
            return None
        if self.recipe.flip == "random":
            return (torch.rand(len(indices), generator=generator) < 0.5).to(self.device)
        return self._flipped_first[indices] ^ (epoch % 2 == 1)

    def _add_to_sums(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.sums[0] += loss.double() * len(labels)
        self.sums[1] += (logits.argmax(1) == labels).sum()


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Return the weight ``(classes,)`` of each class of labels ``(N,)``: their mean over the labels is 1.

    (scikit-learn, ``compute_class_weight("balanced", …)``.) A class without labels weighs nothing.
    """
    counts = labels.bincount(minlength=classes)
    there = counts > 0
    weights = len(labels) / (int(there.sum()) * counts.clamp(min=1).double())
    return torch.where(there, weights, 0.0).float()


def resident(split: Split, device: torch.device) -> Split:
    """Return a split on the device, in the memory format that training wants."""
    images = split.images.to(device).contiguous(memory_format=torch.channels_last)
    return Split(images=images, labels=split.labels.to(device))
