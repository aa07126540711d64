"""How a network learns findings from images: steps, validation, early stopping, and what is done for rare findings."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import TrainingStopped
from .in_domain import vary
from .network import SINGLE, LearningOptions, Network
from .picture_store import Pictures

HEAVIEST = 100.0  # most that a rare finding weighs


@dataclass(frozen=True)
class Learnt:
    """What came of a training: steps done, the step whose state was taken, and the loss on validation images there."""

    steps: int
    best_step: int
    validation_loss: float | None


@dataclass(frozen=True)
class Lesson:
    """Images by index with their targets (N, L) for all indices, the number of steps, and the highest learning rate."""

    pictures: Pictures
    targets: Tensor
    train: Sequence[int]
    validation: Sequence[int]
    steps: int
    lr: float


def learn(model: Network, lesson: Lesson, on_step: Callable[[int, int], None] | None = None) -> Learnt:
    """Train a network in place, its random numbers torch's own; it is in evaluation mode afterwards.

    Raises TrainingStopped for a loss that is not finite.
    """
    options, device = model.options, model.scale.device
    optimizer = torch.optim.AdamW(model.parameters(), lr=lesson.lr, weight_decay=options.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lesson.lr, total_steps=max(lesson.steps, 2), pct_start=0.2)
    order, weights, watch = _Order(lesson, options), loss_weights(lesson, model).to(device), _Watch(model, lesson)
    for step in range(1, lesson.steps + 1):
        model.train()
        indices = order.take(options.batch)
        inputs = vary(model.normalise(lesson.pictures(indices).to(device)).cpu(), options.mirror).to(device)
        loss = find_loss(model, inputs, lesson.targets[indices].to(device), weights)
        if not math.isfinite(loss.item()):
            raise TrainingStopped(f"the loss is {loss.item()} at step {step}; lower lr ({lesson.lr:g})")
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step, lesson.steps)
        if options.patience and (step % options.check_every == 0 or step == lesson.steps) and watch.is_over(step):
            break
    return watch.finish(step)


def find_loss(model: Network, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy of exclusive findings, or the mean of each finding's own; weights (L,) raise the positives."""
    if model.mode == SINGLE:
        return functional.cross_entropy(model(inputs), targets.argmax(1), weight=weights)
    return functional.binary_cross_entropy_with_logits(model(inputs), targets, pos_weight=weights)


def loss_weights(lesson: Lesson, model: Network) -> Tensor:
    """The weight (L,) of each finding's positives: 1, or with balance "loss" what makes up for their number."""
    targets = lesson.targets[list(lesson.train)]
    positive, total = targets.sum(0), len(targets)
    if model.options.balance != "loss":
        return torch.ones_like(positive)
    made_up = total / (positive * targets.shape[1]) if model.mode == SINGLE else (total - positive) / positive
    return torch.where(positive > 0, made_up, 1.0).clamp(1 / HEAVIEST, HEAVIEST)


class _Order:
    """Which images come next: all in turn, shuffled anew each time, or, with balance "sampling", drawn by how rare they are."""

    def __init__(self, lesson: Lesson, options: LearningOptions):
        self.train, self.waiting, self.chances = list(lesson.train), [], None
        if options.balance == "sampling":
            targets = lesson.targets[self.train]
            kinds = torch.cat([targets, (targets.sum(1, keepdim=True) == 0).float()], dim=1)  # images without any are a kind, too
            self.chances = (kinds / kinds.sum(0).clamp_min(1)).amax(1)

    def take(self, count: int) -> list[int]:
        while len(self.waiting) < count:
            drawn = (torch.randperm(len(self.train)) if self.chances is None
                     else torch.multinomial(self.chances, len(self.train), replacement=True))
            self.waiting += [self.train[index] for index in drawn.tolist()]
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken


class _Watch:
    """The best state so far by the loss on validation images."""

    def __init__(self, model: Network, lesson: Lesson):
        self.model, self.lesson = model, lesson
        self.best, self.state, self.best_step, self.waited = math.inf, None, 0, 0

    def is_over(self, step: int) -> bool:
        loss = validation_loss(self.model, self.lesson)
        if loss < self.best:
            self.best, self.best_step, self.waited = loss, step, 0
            self.state = copy.deepcopy(self.model.state_dict())
        else:
            self.waited += 1
        return self.waited >= self.model.options.patience

    def finish(self, step: int) -> Learnt:
        if self.state is not None:
            self.model.load_state_dict(self.state)
        self.model.eval()
        return Learnt(step, self.best_step or step, None if math.isinf(self.best) else self.best)


@torch.no_grad()
def validation_loss(model: Network, lesson: Lesson) -> float:
    """The mean loss over validation images, unweighted."""
    model.eval()
    ones, total = torch.ones(len(model.labels), device=model.scale.device), 0.0
    for indices in _batches(lesson.validation):
        inputs = model.normalise(lesson.pictures(indices).to(model.scale.device))
        total += find_loss(model, inputs, lesson.targets[indices].to(model.scale.device), ones).item() * len(indices)
    return total / len(lesson.validation)


@torch.no_grad()
def predict(model: Network, pictures: Pictures, indices: Sequence[int]) -> Tensor:
    """Probabilities (N, L) float32 on the CPU of images by index."""
    parts = [model.probabilities(model.normalise(pictures(batch).to(model.scale.device))).float().cpu() for batch in _batches(indices)]
    return torch.cat(parts) if parts else torch.zeros(0, len(model.labels))


@torch.no_grad()
def set_scale(model: Network, pictures: Pictures, indices: Sequence[int], most: int = 512) -> None:
    """Bring the features of the training images to a root mean square of 1: distances grow with its square."""
    squares = [model.pooled(model.normalise(pictures(batch).to(model.scale.device))).square() for batch in _batches(indices[:most])]
    model.scale.copy_(torch.cat(squares).mean().sqrt().clamp_min(1e-6))


def _batches(indices: Sequence[int], size: int = 64) -> list[list[int]]:
    indices = list(indices)
    return [indices[start:start + size] for start in range(0, len(indices), size)]
